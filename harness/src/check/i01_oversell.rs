//! I1: never more units out than there are.
//!
//! Judged three times over, because a bug hides from one view or another: by the ledger, at every prefix; by the
//! orders that are alive in the end; and by the buyers' own replies, which need no access to the service at all.

use std::collections::HashMap;

use super::books::not_in_order;
use super::claims::Claim;
use super::index::Books;
use super::tally::{Tally, count, seconds};
use super::witness::Witness;
use super::{Case, Check, Finding};
use crate::history::{EntryKind, LedgerEntry};

/// Claims or rows that a witness shows before the one that is too many.
const SHOWN: usize = 6;

pub(super) struct Oversell;

impl Check for Oversell {
    fn id(&self) -> &'static str {
        "I1"
    }

    fn name(&self) -> &'static str {
        "no oversell"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let mut seen = Vec::new();
        if let Some(books) = &case.index.books {
            by_ledger(case, books, &mut tally);
            in_the_end(case, books, &mut tally);
            seen.push(format!("{} rows of the ledger", books.rows.len()));
        }
        by_probe(case, &mut tally);
        negative_counters(case, &mut tally);
        negative_orders(case, &mut tally);
        let claims = &case.claims;
        let peaks = by_replies(case, claims, &mut tally);
        seen.push(format!("{} by the buyers' own replies", count(claims.len() as i64, "claim")));
        let peaks: Vec<String> = peaks
            .iter()
            .zip(&case.rules.items)
            .map(|(peak, item)| {
                format!("at most {peak} of the {} units of item {} were claimed at once", item.stock, item.item)
            })
            .collect();
        tally.finish(self, format!("{}: {}", seen.join(" and "), peaks.join(", ")))
    }
}

/// What the ledger adds up to for one item.
#[derive(Clone, Default)]
struct Sum {
    /// Reserved less released, as the rows say.
    raw: i64,
    /// The same, with nothing released twice: a double release must not hide an oversell.
    out: i64,
    /// The highest that it came to.
    peak: i64,
    /// The row at which it first exceeded the stock, and what it came to there.
    crossed: Option<(usize, i64)>,
    /// The row at which it first fell below zero as the rows say, and what it came to there.
    below: Option<(usize, i64)>,
}

fn by_ledger(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) {
    let mut sums = vec![Sum::default(); case.rules.items.len()];
    let mut out_of_order = vec![0i64; books.orders.len()];
    for (n, row) in books.brief.iter().enumerate() {
        let Some(item) = row.item.map(usize::from) else { continue };
        let (sum, order_out) = (&mut sums[item], &mut out_of_order[row.order as usize]);
        match row.kind {
            EntryKind::Reserve => {
                if row.quantity <= 0 {
                    tally.violation("reservations of no or negative quantity", |case, witness| {
                        let row = books.rows[n];
                        witness.bad_row(case, row);
                        format!(
                            "order {} reserved {}, which adds to the stock instead of taking from it",
                            row.order,
                            count(row.quantity, "unit")
                        )
                    });
                }
                sum.raw += row.quantity;
                sum.out += row.quantity;
                *order_out += row.quantity;
            }
            EntryKind::Release => {
                let back = row.quantity.min(*order_out).max(0);
                sum.raw -= row.quantity;
                sum.out -= back;
                *order_out -= back;
            }
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
        }
        if sum.raw < 0 && sum.below.is_none() {
            sum.below = Some((n, sum.raw));
        }
        sum.peak = sum.peak.max(sum.out);
        if sum.out > case.rules.items[item].stock && sum.crossed.is_none() {
            sum.crossed = Some((n, sum.out));
        }
    }
    let crossed = |item: usize| sums[item].crossed.is_some();
    let by_time = if sums.iter().any(|sum| sum.crossed.is_some()) {
        books.by_time(|n| books.brief[n].item.map(usize::from).filter(|item| crossed(*item)))
    } else {
        HashMap::new()
    };
    for (item, sum) in sums.iter().enumerate() {
        if let Some((n, below)) = sum.below.filter(|_| sum.crossed.is_none()) {
            let row = books.rows[n];
            tally.violation("items of which more was given back than taken", |case, witness| {
                witness.bad_row(case, row);
                format!(
                    "more of item {} was given back than taken: at ledger row {} the sum is {below}",
                    row.item, row.seq
                )
            });
        }
        let Some(crossed) = sum.crossed else { continue };
        let rules = &case.rules.items[item];
        if by_time.get(&item).is_some_and(|times| !times.exceeds(rules.stock, case.rules.epsilon_us)) {
            let what = format!("{} of the {} units of item {} would have been out", crossed.1, rules.stock, rules.item);
            tally.gap(not_in_order(&what, books.rows[crossed.0]));
        } else {
            tally.violation("items oversold by the ledger", |_, witness| {
                crossing(case, books, item, sum.peak, crossed, witness)
            });
        }
    }
}

/// What was paid for at the audit and what the drain probe bought after it must fit into the stock together. Held units
/// are left out, since a hold may end while the probe is buying.
fn by_probe(case: &Case<'_>, tally: &mut Tally<'_>) {
    let Some(audit) = case.audit else { return };
    for probe in audit.probes.iter().filter(|probe| !probe.outlasted_its_holds) {
        let rules = case.rules.items.iter().find(|rules| rules.item == probe.item);
        let counted = audit.stock.iter().find(|row| row.item == probe.item);
        let (Some(rules), Some(counted)) = (rules, counted) else { continue };
        let out = counted.sold + probe.sold;
        if out > rules.stock {
            tally.violation("items oversold to the drain probe", |_, witness| {
                witness.probe(probe);
                format!(
                    "{} of item {} were paid for at the audit and {} more sold to fresh buyers after it, which makes {out} \
                     of {}",
                    count(counted.sold, "unit"),
                    rules.item,
                    probe.sold,
                    rules.stock
                )
            });
        }
    }
}

/// Shows the row that is one too many: the rows before it of orders still alive, and what its buyer was told.
fn crossing(
    case: &Case<'_>,
    books: &Books<'_>,
    item: usize,
    peak: i64,
    (crossed, reached): (usize, i64),
    witness: &mut Witness,
) -> String {
    let rules = &case.rules.items[item];
    let mut released = std::collections::HashSet::new();
    let mut before: Vec<&LedgerEntry> = Vec::new();
    for row in books.rows[..crossed].iter().rev().filter(|row| row.item == rules.item) {
        match row.kind {
            EntryKind::Release => drop(released.insert(row.order.as_str())),
            EntryKind::Reserve if !released.contains(row.order.as_str()) => before.push(row),
            _ => {}
        }
        if before.len() == SHOWN {
            break;
        }
    }
    for row in before.iter().rev() {
        witness.row(case, row);
    }
    let row = books.rows[crossed];
    witness.bad_row(case, row);
    let order = &books.orders[books.brief[crossed].order as usize];
    if let Some(ack) = case.index.ack_of_order(order) {
        witness.op(case, ack.op);
    }
    witness
        .note(format!("units of item {} out after ledger row {}: {reached}, of {}", rules.item, row.seq, rules.stock));
    format!(
        "{} of item {} too many: there were {}, and at ledger row {} the reservations reached {reached}",
        count(peak - rules.stock, "unit"),
        rules.item,
        rules.stock,
        row.seq
    )
}

/// Orders that are alive in the end, whatever the rows before said: a revived order has no second reservation.
fn in_the_end(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) {
    let mut alive = vec![0i64; case.rules.items.len()];
    let mut last: Vec<Vec<&LedgerEntry>> = vec![Vec::new(); case.rules.items.len()];
    for (order, reserve) in books.durable() {
        let Some(item) = case.index.item(reserve.item).filter(|_| order.state.is_live()) else { continue };
        alive[item] += reserve.quantity.max(0);
        if alive[item] > case.rules.items[item].stock && last[item].len() < SHOWN {
            last[item].push(reserve);
        }
    }
    for ((alive, last), rules) in alive.iter().zip(&last).zip(&case.rules.items) {
        if *alive > rules.stock {
            tally.violation("items with more live orders than stock", |case, witness| {
                last.iter().for_each(|row| witness.bad_row(case, row));
                witness.note(format!(
                    "units of item {} held or sold by orders at the audit: {alive}, of {}",
                    rules.item, rules.stock
                ));
                format!(
                    "at the audit, orders hold or own {} of item {}, and there were {}",
                    count(*alive, "unit"),
                    rules.item,
                    rules.stock
                )
            });
        }
    }
}

fn negative_counters(case: &Case<'_>, tally: &mut Tally<'_>) {
    for row in case.audit.iter().flat_map(|audit| &audit.stock) {
        if case.index.item(row.item).is_some() && (row.available < 0 || row.shards.iter().any(|units| *units < 0)) {
            tally.violation("items with negative stock", |case, witness| {
                witness.stock(case, row, true);
                format!("the stock of item {} went below zero", row.item)
            });
        }
    }
}

fn negative_orders(case: &Case<'_>, tally: &mut Tally<'_>) {
    for n in &case.index.scan.orders_ok {
        let op = &case.history.ops[*n as usize];
        if op.quantity < 0 {
            tally.violation("orders of a negative quantity accepted", |case, witness| {
                witness.bad_op(case, *n);
                format!("an order of {} was accepted", count(i64::from(op.quantity), "unit"))
            });
        }
    }
}

/// Sweeps the claims in time; returns the most units claimed at once, by item.
fn by_replies(case: &Case<'_>, claims: &[Claim], tally: &mut Tally<'_>) -> Vec<i64> {
    // Ends sort before beginnings at the same instant: a claim is over when the next one may begin.
    let mut steps: Vec<(i64, i64, u32)> = Vec::with_capacity(claims.len() * 2);
    for (n, claim) in claims.iter().enumerate() {
        steps.push((claim.from, claim.quantity.max(0), n as u32));
        if claim.until < i64::MAX {
            steps.push((claim.until, -claim.quantity.max(0), n as u32));
        }
    }
    steps.sort_unstable();
    let mut out = vec![0i64; case.rules.items.len()];
    let mut peaks = out.clone();
    let mut crossed: Vec<Option<u32>> = vec![None; out.len()];
    for (_, change, n) in steps {
        let item = claims[n as usize].item;
        out[item] += change;
        peaks[item] = peaks[item].max(out[item]);
        if out[item] > case.rules.items[item].stock {
            crossed[item].get_or_insert(n);
        }
    }
    for (item, crossed) in crossed.iter().enumerate() {
        // A cancel that was not recorded would end a claim, so nobody is accused from a history that is not whole.
        if let Some(n) = crossed.filter(|_| case.index.whole()) {
            tally.violation("items oversold by the buyers' own replies", |_, witness| {
                too_many(case, claims, n as usize, peaks[item], witness)
            });
        }
    }
    peaks
}

fn too_many(case: &Case<'_>, claims: &[Claim], crossing: usize, peak: i64, witness: &mut Witness) -> String {
    let last = &claims[crossing];
    let rules = &case.rules.items[last.item];
    let mut others: Vec<&Claim> = claims
        .iter()
        .enumerate()
        .filter(|(n, claim)| {
            *n != crossing && claim.item == last.item && claim.from <= last.from && claim.until > last.from
        })
        .map(|(_, claim)| claim)
        .collect();
    others.sort_by_key(|claim| claim.from);
    let sum: i64 = others.iter().map(|claim| claim.quantity).sum::<i64>() + last.quantity;
    for claim in others.iter().rev().take(SHOWN).rev() {
        witness.op(case, claim.op);
    }
    witness.bad_op(case, last.op);
    witness.note(format!(
        "units of item {} that buyers had been given by {}, none of them cancelled, and paid or still within the hold's time: {sum}, of {}",
        rules.item,
        seconds(last.from),
        rules.stock
    ));
    format!(
        "by their own replies, buyers held up to {} of item {} at once, {} more than there were: {} of {} was too much",
        count(peak, "unit"),
        rules.item,
        peak - rules.stock,
        case.order(case.history.ops[last.op as usize].order),
        case.user(last.user)
    )
}
