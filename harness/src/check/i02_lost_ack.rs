//! I2: what a buyer was told is kept. Every acknowledged order is in the ledger exactly once, as it was acknowledged.

use super::claims::says_paid;
use super::index::{Ack, Books, Class, DurableOrder, NONE};
use super::standing::{Standing, says_unknown};
use super::tally::{Tally, count, seconds, show_all};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, LedgerEntry, Micros, Op, OrderState, Outcome, Role, Sym};

/// What is missing where a service keeps its buyers under numbers of its own.
pub(super) const FOREIGN_USERS: &str = "the ledger names not one buyer as the run does, so whose an order is cannot be \
                                        told; have the audit give the name under which a buyer logged in";

pub(super) struct LostAck;

impl Check for LostAck {
    fn id(&self) -> &'static str {
        "I2"
    }

    fn name(&self) -> &'static str {
        "no lost acknowledgement"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        if let Some(books) = &case.index.books {
            for (n, intent) in case.index.intents.iter().enumerate() {
                if intent.class == Class::Ok && case.index.item(intent.item).is_some() {
                    judge_replies(case, books, n as u32, &mut tally);
                }
            }
            let standing = Standing::of(case, books);
            for ack in &case.index.acks {
                judge_life(case, books, ack, &mut tally);
                disowned(case, books, ack, &standing, &mut tally);
            }
        }
        one_purchase_each(case, &mut tally);
        let orders = case.index.acks.len() as i64;
        tally.finish(self, format!("{} acknowledged to buyers, each looked for in the ledger", count(orders, "order")))
    }
}

/// Holds each reply of an intent against the ledger.
fn judge_replies(case: &Case<'_>, books: &Books<'_>, intent: u32, tally: &mut Tally<'_>) {
    let mut last = None;
    for n in case.index.ops_of(&case.index.intents[intent as usize]) {
        let op = &case.history.ops[*n as usize];
        if !op.acknowledges() || last == Some((op.order, op.state)) {
            continue;
        }
        last = Some((op.order, op.state));
        let order = if op.order == Sym(0) { books.order_of_intent(intent) } else { books.order_named(op.order) };
        match order.and_then(|order| Some((order, order.reserve?))) {
            None => tally.violation("acknowledged orders that are not in the ledger", |case, witness| {
                witness.intent(case, intent);
                witness.bad_op(case, *n);
                lost_note(case, books, intent, witness);
                let order = case.order(op.order);
                format!("{order} was acknowledged to {}, and the ledger has no such order", case.user(op.user))
            }),
            Some((order, reserve)) => {
                as_acknowledged(case, op, *n, order, reserve, tally);
                judge_state(case, order, reserve, *n, tally);
            }
        }
    }
}

/// Another order under the same key explains at a glance what became of a lost one.
fn lost_note(case: &Case<'_>, books: &Books<'_>, intent: u32, witness: &mut super::witness::Witness) {
    match books.order_of_intent(intent).and_then(|order| order.reserve) {
        Some(row) => witness.row(case, row),
        None => witness.note(format!(
            "the ledger has no row under the key of purchase {}",
            case.index.intents[intent as usize].id
        )),
    }
}

/// One order answers one purchase: who asks under two keys for goods that they may have wants them twice, and a service that
/// takes the keys for one and the same keeps half of what it acknowledged.
fn one_purchase_each(case: &Case<'_>, tally: &mut Tally<'_>) {
    let mut given: Vec<u32> = vec![NONE; case.index.ack_of_sym.len()];
    for (n, intent) in case.index.intents.iter().enumerate().filter(|(_, intent)| intent.class == Class::Ok) {
        for at in case.index.ops_of(intent) {
            let op = &case.history.ops[*at as usize];
            // A look-up is asked for the latest order of a buyer by some.
            if !op.acknowledges() || op.order == Sym(0) || op.role == Role::Lookup {
                continue;
            }
            let Some(slot) = given.get_mut(op.order.0 as usize) else { continue };
            let known = *slot;
            if known == NONE {
                *slot = n as u32;
                continue;
            }
            let first = &case.index.intents[known as usize];
            // Orders of others are held against the ledger above: their ids need not differ between buyers or items.
            let (item, same) = (case.index.item(intent.item), case.index.item(first.item));
            let (Some(item), true) = (item, known != n as u32 && first.user == intent.user && item == same) else {
                continue;
            };
            let wanted = i64::from(first.quantity) + i64::from(intent.quantity);
            if wanted > case.rules.items[item].per_user_limit {
                tally.gap(
                    "one order was acknowledged for two purchases of a buyer, who may not have as much as both ask for: see \
                     whether the service means to answer with the order that they have",
                );
                continue;
            }
            tally.violation("orders acknowledged for two purchases", |case, witness| {
                witness.intent(case, known);
                witness.bad_op(case, *at);
                let row = case.index.books.as_ref().and_then(|books| books.order_named(op.order)?.reserve);
                row.into_iter().for_each(|row| witness.row(case, row));
                format!(
                    "{} was acknowledged to {} for two purchases, {} and {}, under a key each",
                    case.order(op.order),
                    case.user(intent.user),
                    first.id,
                    intent.id
                )
            });
        }
    }
}

/// Who was told of an order and pays or cancels it while it stands is not told that there is none.
fn disowned(case: &Case<'_>, books: &Books<'_>, ack: &Ack, standing: &Standing, tally: &mut Tally<'_>) {
    let Some(order) = books.order_named(ack.order).filter(|_| ack.order != Sym(0)) else { return };
    for n in case.index.actions_of(ack) {
        let op = &case.history.ops[n as usize];
        if !says_unknown(case, op) || order.user != Some(op.user) || !standing.stood(case, books, order, op) {
            continue;
        }
        tally.violation("acknowledged orders that could not be found", |case, witness| {
            show_all(case, ack, witness);
            witness.bad_op(case, n);
            books.rows_of(order).for_each(|row| witness.row(case, row));
            format!(
                "{} asked to {} order {} at {} and was told that there is none",
                case.user(op.user),
                op.role.name(),
                order.id,
                seconds(op.invoked_us)
            )
        });
    }
}

fn as_acknowledged(
    case: &Case<'_>,
    op: &Op,
    n: u32,
    order: &DurableOrder<'_>,
    reserve: &LedgerEntry,
    tally: &mut Tally<'_>,
) {
    // A look-up names no goods: what counts then is what its purchase asked for.
    let asked = order.intent.map(|intent| &case.index.intents[intent as usize]).filter(|intent| intent.id == op.intent);
    let item = if op.item == 0 { asked.map_or(0, |intent| intent.item) } else { op.item };
    let quantity = if op.quantity == 0 { asked.map_or(0, |intent| intent.quantity) } else { op.quantity };
    let mut differs = Vec::new();
    let users_usable = case.index.books.as_ref().is_none_or(|books| books.users_usable);
    if !users_usable {
        tally.gap(FOREIGN_USERS);
    } else if order.user != Some(op.user) {
        differs.push(format!("it belongs to {} instead of {}", reserve.user, case.user(op.user)));
    }
    if item != 0 && item != reserve.item {
        differs.push(format!("it is of item {} instead of {item}", reserve.item));
    }
    if quantity != 0 && i64::from(quantity) != reserve.quantity {
        differs.push(format!("it is for {} instead of {quantity}", count(reserve.quantity, "unit")));
    }
    if !differs.is_empty() {
        tally.violation("orders kept otherwise than acknowledged", |case, witness| {
            witness.op(case, n);
            witness.bad_row(case, reserve);
            format!(
                "{} is in the ledger otherwise than {} was told: {}",
                case.order(op.order),
                case.user(op.user),
                differs.join(", ")
            )
        });
    }
}

/// The states that an order may be in at the audit after a reply that named its state.
fn judge_state(case: &Case<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry, n: u32, tally: &mut Tally<'_>) {
    use OrderState::{Cancelled, Expired, Paid, Refunded};
    let now = order.state;
    let said = case.history.ops[n as usize].state;
    let reachable = match said {
        OrderState::Unknown | OrderState::Held | OrderState::Placed => true,
        Paid => matches!(now, Paid | Refunded),
        Cancelled => matches!(now, Cancelled | Refunded),
        // A payment that arrives too late is given back, which leaves the order refunded.
        Expired => matches!(now, Expired | Refunded),
        Refunded => now == Refunded,
        // No acknowledgement is in one of these.
        OrderState::Pending | OrderState::Refused => true,
    };
    // A released order that was reserved anew may have become anything.
    let reserved_again = || order.count(EntryKind::Reserve) > 1;
    if !reachable && now != OrderState::Unknown && !(matches!(said, Cancelled | Expired) && reserved_again()) {
        wrong_state(order, reserve, n, said.name(), now, tally);
    }
}

/// Holds the payments and cancellations of an order against its state.
fn judge_life(case: &Case<'_>, books: &Books<'_>, ack: &Ack, tally: &mut Tally<'_>) {
    use OrderState::{Cancelled, Expired, Paid, Refunded};
    let Some(order) = books.order_named(ack.order).filter(|_| ack.order != Sym(0)) else { return };
    let Some(reserve) = order.reserve else { return };
    let now = order.state;
    for n in case.index.actions_of(ack) {
        let op = &case.history.ops[n as usize];
        if now == OrderState::Unknown || op.outcome != Outcome::Ok {
            continue;
        }
        if says_paid(op) && !matches!(now, Paid | Refunded) {
            wrong_state(order, reserve, n, "paid", now, tally);
        }
        if op.role == Role::Pay && op.state == Refunded && now != Refunded {
            wrong_state(order, reserve, n, "refunded", now, tally);
        }
        let was_over = op.state == Expired || op.completed_us >= hold_ends(case, ack, reserve);
        if op.role == Role::Cancel && !(matches!(now, Cancelled | Refunded) || now == Expired && was_over) {
            wrong_state(order, reserve, n, "cancelled", now, tally);
        }
    }
}

/// The earliest moment at which the hold can have been over by itself.
fn hold_ends(case: &Case<'_>, ack: &Ack, reserve: &LedgerEntry) -> Micros {
    let intent = &case.index.intents[ack.intent as usize];
    let hold = case.index.item(reserve.item).map_or(0, |item| case.rules.items[item].hold_us);
    let promised = intent.first_invoked.saturating_add(hold);
    let stamped = reserve.expires_at_unix_us.map_or(promised, |at| case.since_epoch(at));
    let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(intent.first_invoked, promised));
    promised.min(stamped).saturating_sub(slack)
}

fn wrong_state(
    order: &DurableOrder<'_>,
    reserve: &LedgerEntry,
    n: u32,
    told: &str,
    now: OrderState,
    tally: &mut Tally<'_>,
) {
    tally.violation("orders whose acknowledged state was lost", |case, witness| {
        let user = case.user(case.history.ops[n as usize].user);
        if let Some(intent) = order.intent {
            witness.intent(case, intent);
        }
        witness.bad_op(case, n);
        if let Some(books) = &case.index.books {
            books.rows_of(order).for_each(|row| witness.row(case, row));
        }
        witness.bad_row(case, reserve);
        format!("{user} was told that order {} is {told}, and at the audit it is {}", order.id, now.name())
    });
}
