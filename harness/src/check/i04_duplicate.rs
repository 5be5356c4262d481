//! I4: one purchase makes at most one order, and all its replies agree.

use std::collections::{BTreeMap, HashMap};

use super::index::{Books, By, Class, DurableOrder, Intent, numbered};
use super::tally::{Tally, count};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, Sym};

pub(super) struct Duplicate;

impl Check for Duplicate {
    fn id(&self) -> &'static str {
        "I4"
    }

    fn name(&self) -> &'static str {
        "no duplicate"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        if let Some(books) = &case.index.books {
            one_order_each(case, books, &mut tally);
            reserved_once(books, &mut tally);
            by_buyer(case, books, &mut tally);
        }
        let mut retried = 0;
        for (n, intent) in case.index.intents.iter().enumerate() {
            if intent.attempts > 1 {
                retried += 1;
            }
            if intent.class == Class::Ok {
                replies_agree(case, n as u32, intent, &mut tally);
            }
        }
        let intents = case.index.intents.len() as i64;
        tally.finish(self, format!("{}, {retried} of them tried more than once", count(intents, "purchase")))
    }
}

fn one_order_each(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) {
    for (order, reserve) in books.durable() {
        let Some(intent) = order.intent else { continue };
        let Some(first) = books.order_of_intent(intent).filter(|first| first.id != order.id) else { continue };
        tally.violation("orders more than their purchases asked for", |case, witness| {
            witness.intent(case, intent);
            if let Some(row) = first.reserve {
                witness.row(case, row);
            }
            witness.bad_row(case, reserve);
            let purchase = &case.index.intents[intent as usize];
            let how = if order.by == By::Key { "under one idempotency key" } else { "though only one was asked for" };
            format!(
                "purchase {} of {} made two orders, {} and {}, {how}",
                purchase.id,
                case.user(purchase.user),
                first.id,
                order.id
            )
        });
    }
    // A key that names no purchase of the run can still be used twice.
    let mut strangers: HashMap<&str, &DurableOrder<'_>> = HashMap::new();
    for (order, reserve) in books.durable().filter(|(order, _)| order.intent.is_none()) {
        let Some(key) = reserve.key.as_deref().filter(|key| !key.is_empty()) else { continue };
        if numbered(&case.history.info.key_prefix, key).is_none() {
            continue;
        }
        if let Some(first) = strangers.insert(key, order) {
            tally.violation("orders more than their keys allow", |case, witness| {
                first.reserve.into_iter().for_each(|row| witness.row(case, row));
                witness.bad_row(case, reserve);
                format!("orders {} and {} were made under the one idempotency key {key}", first.id, order.id)
            });
        }
    }
}

/// An order takes its stock once; again only after it was released.
fn reserved_once(books: &Books<'_>, tally: &mut Tally<'_>) {
    for order in books.orders.iter().filter(|order| order.on_sale && order.count(EntryKind::Reserve) > 1) {
        let mut out = 0i64;
        for row in books.rows_of(order) {
            match row.kind {
                EntryKind::Reserve if out > 0 => {
                    tally.violation("orders that took their stock twice", |case, witness| {
                        order.intent.into_iter().for_each(|intent| witness.intent(case, intent));
                        books
                            .rows_of(order)
                            .take_while(|before| before.seq < row.seq)
                            .for_each(|before| witness.row(case, before));
                        witness.bad_row(case, row);
                        format!("order {} took its stock twice: ledger row {} reserves it again", order.id, row.seq)
                    });
                    out += row.quantity;
                }
                EntryKind::Reserve => out += row.quantity,
                EntryKind::Release => out -= row.quantity,
                EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
            }
        }
    }
}

/// Orders of a buyer under keys that are not the run's, beyond the purchases of theirs that may have made one: a
/// service that retries within under a key of its own leaves such an order.
fn by_buyer(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) {
    let mut stray: BTreeMap<u64, Vec<&DurableOrder<'_>>> = BTreeMap::new();
    for (order, _) in books.durable().filter(|(order, _)| order.intent.is_none() && order.by != By::Key) {
        if let Some(user) = order.user {
            stray.entry(user).or_default().push(order);
        }
    }
    if stray.is_empty() {
        return;
    }
    let mut purchases: HashMap<u64, (i64, i64, u32)> = HashMap::new();
    for (n, intent) in case.index.intents.iter().enumerate() {
        if intent.class != Class::Fail && stray.contains_key(&intent.user) {
            let (live, matched, last) = purchases.entry(intent.user).or_default();
            *live += 1;
            *matched += i64::from(books.order_of_intent(n as u32).is_some());
            *last = n as u32;
        }
    }
    for (user, orders) in &stray {
        // A buyer without any purchase that could have made an order is I3's business.
        let Some((live, matched, last)) = purchases.get(user) else { continue };
        if orders.len() as i64 <= live - matched {
            continue;
        }
        if !case.index.whole() {
            tally.gap("buyers have more orders than purchases are known, in a history that is not whole");
            continue;
        }
        tally.violation("buyers with more orders than purchases", |case, witness| {
            witness.intent(case, *last);
            let own = books.order_of_intent(*last).and_then(|order| order.reserve);
            own.into_iter().for_each(|row| witness.row(case, row));
            orders.iter().filter_map(|order| order.reserve).for_each(|row| witness.bad_row(case, row));
            let all = orders.len() as i64 + matched;
            format!(
                "{} has {} out of {} that may have made one",
                case.user(*user),
                count(all, "order"),
                count(*live, "purchase")
            )
        });
    }
}

fn replies_agree(case: &Case<'_>, n: u32, intent: &Intent, tally: &mut Tally<'_>) {
    let ops = case.index.ops_of(intent);
    if ops.len() < 2 {
        return;
    }
    let (mut order, mut amount, mut asked) = (Sym(0), -1, None);
    for op_index in ops {
        let op = &case.history.ops[*op_index as usize];
        if !op.acknowledges() {
            continue;
        }
        let same_order = order == Sym(0) || op.order == Sym(0) || op.order == order;
        let same_amount = amount < 0 || op.amount_cents < 0 || op.amount_cents == amount;
        let said = (op.item, op.quantity);
        let same_goods = said.0 == 0 || said.1 == 0 || asked.is_none_or(|before| before == said);
        if !(same_order && same_amount && same_goods) {
            tally.violation("purchases whose replies contradict each other", |case, witness| {
                witness.intent(case, n);
                witness.bad_op(case, *op_index);
                let user = case.user(intent.user);
                format!(
                    "replies to purchase {} of {user} contradict each other: not the same order, goods or amount",
                    intent.id
                )
            });
        }
        if order == Sym(0) {
            order = op.order;
        }
        if amount < 0 {
            amount = op.amount_cents;
        }
        if said.0 != 0 && said.1 != 0 {
            asked = asked.or(Some(said));
        }
    }
}
