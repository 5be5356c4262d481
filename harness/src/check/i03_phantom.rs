//! I3: no phantom. Every order in the ledger was asked for, and nobody was told that it failed.

use std::collections::HashMap;

use super::i02_lost_ack::FOREIGN_USERS;
use super::index::{Books, By, Class, DurableOrder};
use super::standing::{Standing, says_unknown, says_who};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::{LedgerEntry, Op, Outcome, Role};

pub(super) struct Phantom;

impl Check for Phantom {
    fn id(&self) -> &'static str {
        "I3"
    }

    fn name(&self) -> &'static str {
        "no phantom"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let (mut orders, mut recovered, mut suspects) = (0i64, 0i64, 0i64);
        if let Some(books) = &case.index.books {
            let mut open = OpenIntents::new(case, books);
            let standing = Standing::of(case, books);
            for (order, reserve) in books.durable() {
                orders += 1;
                too_soon(case, order, reserve, &mut tally);
                let class = order.intent.map(|intent| case.index.intents[intent as usize].class);
                if class.is_some_and(|class| class != Class::Fail) {
                    denied(case, books, order, &standing, &mut tally);
                }
                let phantom = match class {
                    Some(Class::Ok) => false,
                    Some(Class::Info) => {
                        recovered += 1;
                        as_asked(case, order, reserve, &mut tally);
                        false
                    }
                    Some(Class::Fail) => true,
                    None if open.takes(order, reserve) => {
                        recovered += 1;
                        false
                    }
                    None => true,
                };
                if phantom && case.index.whole() {
                    accuse(order, reserve, class, &mut tally);
                } else if phantom {
                    suspects += 1;
                }
            }
            if !books.keys_usable {
                tally_keyless(orders, open.used, &mut tally);
            }
        }
        if suspects > 0 {
            tally.gap(format!("{} would be called phantoms if the history were whole", count(suspects, "order")));
        }
        let recovered = format!("{recovered} of them though their buyer never got a clear answer");
        tally.finish(self, format!("{} in the ledger, each traced to a purchase, {recovered}", count(orders, "order")))
    }
}

/// Without keys, buyers' open intents are matched by number alone, which cannot tell one of them from another.
fn tally_keyless(orders: i64, used: i64, tally: &mut Tally<'_>) {
    if orders > 0 && used > 0 {
        tally.gap(format!(
            "the ledger does not keep the run's idempotency keys, so {} could only be counted by buyer, not traced; \
             have the audit give the key of each order",
            count(used, "order")
        ));
    }
}

/// Purchases that may have led to an order nobody can name, by buyer; for services that keep no keys. Where the ledger
/// does not name its buyers as the run does, they are counted by item alone.
struct OpenIntents {
    left: Option<HashMap<(Option<u64>, i64), i64>>,
    by_user: bool,
    used: i64,
}

impl OpenIntents {
    fn new(case: &Case<'_>, books: &Books<'_>) -> OpenIntents {
        let left = (!books.keys_usable).then(|| {
            let mut left: HashMap<(Option<u64>, i64), i64> = HashMap::new();
            for (n, intent) in case.index.intents.iter().enumerate() {
                if intent.class != Class::Fail && books.order_of_intent(n as u32).is_none() {
                    let item = case.index.item(intent.item).map_or(intent.item, |item| case.rules.items[item].item);
                    *left.entry((books.users_usable.then_some(intent.user), item)).or_default() += 1;
                }
            }
            left
        });
        OpenIntents { left, by_user: books.users_usable, used: 0 }
    }

    fn takes(&mut self, order: &DurableOrder<'_>, reserve: &LedgerEntry) -> bool {
        let Some(left) = &mut self.left else { return false };
        if self.by_user && order.user.is_none() {
            return false;
        }
        match left.get_mut(&(order.user, reserve.item)) {
            Some(open) if *open > 0 => {
                *open -= 1;
                self.used += 1;
                true
            }
            _ => false,
        }
    }
}

/// An order cannot be made before it is asked for; a service that mixes up its requests does it.
fn too_soon(case: &Case<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry, tally: &mut Tally<'_>) {
    let Some(n) = order.intent.filter(|_| case.index.whole()) else { return };
    let asked = case.index.intents[n as usize].first_invoked;
    let made = case.since_epoch(reserve.at_unix_us);
    let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(made, made));
    if made < asked.saturating_sub(slack) {
        tally.violation("orders made before they were asked for", |case, witness| {
            witness.intent(case, n);
            witness.bad_row(case, reserve);
            format!("order {} was made at {}, and first asked for at {}", order.id, seconds(made), seconds(asked))
        });
    }
}

/// Who asks again while the order stands, or looks it up, is not told that there is none. That a key is in use or was used
/// before, that the buyer is unknown, or that too many ask, says nothing about the order.
fn denied(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, standing: &Standing, tally: &mut Tally<'_>) {
    let Some(n) = order.intent else { return };
    for at in case.index.ops_of(&case.index.intents[n as usize]) {
        let op = &case.history.ops[*at as usize];
        if op.outcome != Outcome::Fail {
            continue;
        }
        let no = match op.role {
            Role::Order => refuses(case, op),
            Role::Ticket => op.ticket_refused() && refuses(case, op),
            Role::Lookup => says_unknown(case, op),
            Role::Read | Role::Pay | Role::Cancel => false,
        };
        if !no || !standing.stood(case, books, order, op) {
            continue;
        }
        let lookup = op.role == Role::Lookup;
        let kind =
            if lookup { "look-ups that did not find an order" } else { "attempts refused though their order existed" };
        tally.violation(kind, |case, witness| {
            witness.intent(case, n);
            witness.bad_op(case, *at);
            books.rows_of(order).for_each(|row| witness.row(case, row));
            let (user, asked) = (case.user(op.user), seconds(op.invoked_us));
            if lookup {
                return format!("{user} looked for order {} at {asked} and was told that there is none", order.id);
            }
            let reason = case.history.names.get(op.reason);
            format!("{user} asked again at {asked} and was refused ({reason}), and order {} existed by then", order.id)
        });
    }
}

/// Whether a refusal means that there is no order and will be none.
fn refuses(case: &Case<'_>, op: &Op) -> bool {
    let no = ["sold-out", "limit-reached", "ended", "too-early"];
    says_unknown(case, op) || !says_who(op) && no.contains(&case.history.names.get(op.reason))
}

/// A recovered order must be what was asked for; acknowledged ones are held against their replies by I2.
fn as_asked(case: &Case<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry, tally: &mut Tally<'_>) {
    let Some(n) = order.intent else { return };
    let intent = &case.index.intents[n as usize];
    let same_item = intent.item == 0 || intent.item == reserve.item;
    let same_quantity = intent.quantity == 0 || i64::from(intent.quantity) == reserve.quantity;
    let users_usable = case.index.books.as_ref().is_none_or(|books| books.users_usable);
    let same_user = !users_usable || order.user == Some(intent.user);
    if !users_usable {
        tally.gap(FOREIGN_USERS);
    }
    if !same_user || !same_item || !same_quantity {
        tally.violation("orders that are not what was asked for", |case, witness| {
            witness.intent(case, n);
            witness.bad_row(case, reserve);
            format!(
                "order {} was made under the key of purchase {}, and is not what {} asked for",
                order.id,
                intent.id,
                case.user(intent.user)
            )
        });
    }
}

fn accuse(order: &DurableOrder<'_>, reserve: &LedgerEntry, class: Option<Class>, tally: &mut Tally<'_>) {
    if let (Some(Class::Fail), Some(n)) = (class, order.intent) {
        tally.violation("orders whose buyer was told that they failed", |case, witness| {
            witness.intent(case, n);
            witness.bad_row(case, reserve);
            let user = case.user(case.index.intents[n as usize].user);
            format!("{user} was definitely refused, and yet order {} was made for them", order.id)
        });
        return;
    }
    let key = reserve.key.as_deref().unwrap_or("none");
    let ours = order.user;
    tally.violation("orders that nobody asked for", |case, witness| {
        if let Some(user) = ours {
            let theirs = |n: &u32| case.index.intents[*n as usize].user == user;
            (0..case.index.intents.len() as u32).filter(theirs).take(2).for_each(|n| witness.intent(case, n));
        }
        witness.bad_row(case, reserve);
        let why = match (order.by, ours) {
            (By::Key, _) => format!("its key {key} was never sent"),
            (_, None) => format!("its buyer {} is none of the run's", reserve.user),
            _ => format!("its key {key} is none of the run's"),
        };
        format!("order {} was asked for by nobody: {why}", order.id)
    });
}
