//! I7, as the payment dependency tells it: every capture is for one order at its price, and whoever does not have his order
//! has his money.
//!
//! The ledger is what the service says of money; these books are what whoever took it says. Nothing here believes the one
//! because of the other.

use std::collections::HashMap;

use super::index::{Books, DurableOrder};
use super::tally::{Tally, count};
use super::{Case, Witness};
use crate::history::{OrderState, PaymentEntry, PaymentKind};

/// Holds the books of the payment dependency against the ledger; says what was seen, if there are such books.
pub(super) fn judge<'c>(case: &'c Case<'c>, books: &Books<'_>, tally: &mut Tally<'c>) -> Option<String> {
    let payments = case.audit?.payments.as_ref()?;
    let by_key = grouped(payments, |entry| entry.key.as_str());
    for entries in by_key.values() {
        one_key(entries, tally);
    }
    let captures = payments.iter().filter(|entry| entry.kind == PaymentKind::Capture);
    let taken: Vec<&PaymentEntry> = captures.collect();
    let orders: HashMap<&str, &DurableOrder<'_>> = books.orders.iter().map(|order| (order.id, order)).collect();
    let given_back = |key: &str| by_key[key].iter().any(|entry| entry.kind == PaymentKind::Refund);
    let mut of_order: HashMap<&str, Vec<&PaymentEntry>> = HashMap::new();
    for entry in &taken {
        match orders.get(entry.order.as_str()) {
            None => tally.violation("captures without an order", |case, witness| {
                witness.bad_payment(case, entry);
                format!(
                    "{} cents were taken for order {}, which the ledger does not know",
                    entry.amount_cents, entry.order
                )
            }),
            Some(order) => price(case, order, entry, tally),
        }
        if !given_back(&entry.key) {
            of_order.entry(entry.order.as_str()).or_default().push(entry);
        }
    }
    for order in books.orders.iter().filter(|order| order.on_sale && order.reserve.is_some()) {
        let kept = of_order.get(order.id).map_or(&[][..], Vec::as_slice);
        kept_for(books, order, kept, &taken, tally);
    }
    let refunds = payments.iter().filter(|entry| entry.kind == PaymentKind::Refund).count();
    Some(format!(
        "{} and {} in the books of the payment dependency, each capture for one order that is paid, or given back",
        count(taken.len() as i64, "capture"),
        count(refunds as i64, "refund"),
    ))
}

fn grouped<'p>(
    payments: &'p [PaymentEntry],
    by: impl Fn(&'p PaymentEntry) -> &'p str,
) -> HashMap<&'p str, Vec<&'p PaymentEntry>> {
    let mut groups: HashMap<&str, Vec<&PaymentEntry>> = HashMap::new();
    for entry in payments {
        groups.entry(by(entry)).or_default().push(entry);
    }
    groups
}

/// Under one key, money is taken once at most, and no more given back than was taken.
fn one_key(entries: &[&PaymentEntry], tally: &mut Tally<'_>) {
    let (mut captures, mut taken, mut back) = (0, 0i64, 0i64);
    for entry in entries {
        match entry.kind {
            PaymentKind::Capture => {
                captures += 1;
                taken = taken.saturating_add(entry.amount_cents);
                if captures > 1 {
                    tally.violation("captures made twice under one key", |case, witness| {
                        all(case, entries, witness);
                        format!("the money for order {} was taken twice under the key {}", entry.order, entry.key)
                    });
                }
            }
            PaymentKind::Refund => {
                back = back.saturating_add(entry.amount_cents.saturating_abs());
                if back > taken {
                    tally.violation("refunds of more than was captured", |case, witness| {
                        all(case, entries, witness);
                        format!("{taken} cents were taken under the key {}, and {back} given back", entry.key)
                    });
                }
            }
            PaymentKind::Decline | PaymentKind::Void => {}
        }
    }
    if back > 0 && back < taken {
        tally.violation("captures that were given back in part", |case, witness| {
            all(case, entries, witness);
            format!("{taken} cents were taken under the key {}, and only {back} given back", entries[0].key)
        });
    }
}

fn all(case: &Case<'_>, entries: &[&PaymentEntry], witness: &mut Witness) {
    entries.iter().for_each(|entry| witness.bad_payment(case, entry));
}

fn price<'c>(case: &'c Case<'c>, order: &DurableOrder<'_>, entry: &PaymentEntry, tally: &mut Tally<'c>) {
    let Some(reserve) = order.reserve else { return };
    let Some(item) = case.index.item(reserve.item) else { return };
    let due = case.rules.items[item].price_cents.saturating_mul(reserve.quantity);
    if entry.amount_cents != due {
        tally.violation("captures of another amount than the price", |case, witness| {
            witness.row(case, reserve);
            witness.bad_payment(case, entry);
            format!("order {} costs {due} cents, and {} were taken for it", order.id, entry.amount_cents)
        });
    }
}

/// A paid order has its money with the seller, once; any other has not.
fn kept_for(
    books: &Books<'_>,
    order: &DurableOrder<'_>,
    kept: &[&PaymentEntry],
    taken: &[&PaymentEntry],
    tally: &mut Tally<'_>,
) {
    let paid = match order.state {
        OrderState::Paid => true,
        // Nothing is known of it, so nobody is accused.
        OrderState::Unknown => return,
        _ => false,
    };
    let (kind, what) = match (paid, kept.len()) {
        (true, 1) | (false, 0) => return,
        (true, 0) => ("orders paid without the money", "is paid, and the payment dependency has no money for it"),
        (true, _) => ("orders paid for more than once", "is paid, and its money was taken more than once"),
        (false, _) => (
            "captures of orders that are not paid, and not given back",
            "is not paid, and its money was taken and not given back",
        ),
    };
    tally.violation(kind, |case, witness| {
        books.rows_of(order).for_each(|row| witness.row(case, row));
        if kept.is_empty() {
            taken.iter().filter(|entry| entry.order == order.id).for_each(|entry| witness.payment(case, entry));
        }
        all(case, kept, witness);
        format!("order {} {what}; at the audit it is {}", order.id, order.state.name())
    });
}
