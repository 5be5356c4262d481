//! I3: no phantom. Every order in the ledger was asked for, and nobody was told that it failed.

use std::collections::HashMap;

use super::index::{Books, By, Class, DurableOrder};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::LedgerEntry;

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
            for (order, reserve) in books.durable() {
                orders += 1;
                too_soon(case, order, reserve, &mut tally);
                let class = order.intent.map(|intent| case.index.intents[intent as usize].class);
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

/// Purchases that may have led to an order nobody can name, by buyer; for services that keep no keys.
struct OpenIntents {
    left: Option<HashMap<(u64, i64), i64>>,
    used: i64,
}

impl OpenIntents {
    fn new(case: &Case<'_>, books: &Books<'_>) -> OpenIntents {
        let left = (!books.keys_usable).then(|| {
            let mut left: HashMap<(u64, i64), i64> = HashMap::new();
            for (n, intent) in case.index.intents.iter().enumerate() {
                if intent.class != Class::Fail && books.order_of_intent(n as u32).is_none() {
                    let item = case.index.item(intent.item).map_or(intent.item, |item| case.rules.items[item].item);
                    *left.entry((intent.user, item)).or_default() += 1;
                }
            }
            left
        });
        OpenIntents { left, used: 0 }
    }

    fn takes(&mut self, order: &DurableOrder<'_>, reserve: &LedgerEntry) -> bool {
        let (Some(left), Some(user)) = (&mut self.left, order.user) else { return false };
        match left.get_mut(&(user, reserve.item)) {
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
    if made < asked.saturating_sub(case.rules.epsilon_us) {
        tally.violation("orders made before they were asked for", |case, witness| {
            witness.intent(case, n);
            witness.bad_row(case, reserve);
            format!("order {} was made at {}, and first asked for at {}", order.id, seconds(made), seconds(asked))
        });
    }
}

/// A recovered order must be what was asked for; acknowledged ones are held against their replies by I2.
fn as_asked(case: &Case<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry, tally: &mut Tally<'_>) {
    let Some(n) = order.intent else { return };
    let intent = &case.index.intents[n as usize];
    let same_item = intent.item == 0 || intent.item == reserve.item;
    let same_quantity = intent.quantity == 0 || i64::from(intent.quantity) == reserve.quantity;
    if order.user != Some(intent.user) || !same_item || !same_quantity {
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
