//! I5a: no unit is lost or made. The counters of one snapshot add up to the stock, agree with the ledger, and so do
//! shards and caches; no hold outlives its time.

use super::index::Books;
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding, ItemRules};
use crate::history::{EntryKind, FinalState, LedgerEntry, Micros, OrderState, StockRow};

/// A hold that is over for longer than this, or than its own length if that is shorter, was forgotten.
const OVERDUE_US: Micros = 10_000_000;
/// Nobody releases a hold at the very moment at which it ends.
const SWEEP_US: Micros = 1_000_000;

/// Ledger rows shown of orders that do not balance.
const ROWS: usize = 4;

pub(super) struct Conservation;

impl Check for Conservation {
    fn id(&self) -> &'static str {
        "I5a"
    }

    fn name(&self) -> &'static str {
        "no undersell: stock conserved"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        let mut seen = Vec::new();
        if let Some(audit) = case.audit {
            for rules in &case.rules.items {
                match audit.stock.iter().find(|row| row.item == rules.item) {
                    Some(row) => {
                        judge_item(case, rules, row, &mut tally);
                        seen.push(format!(
                            "item {}: {} available, {} held and {} sold make {}",
                            row.item, row.available, row.held, row.sold, row.initial
                        ));
                    }
                    None => tally.gap(format!("the audit has no counters of item {}", rules.item)),
                }
            }
            if let Some(books) = &case.index.books {
                forgotten_holds(case, audit, books, &mut tally);
            }
        }
        let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join("; ") };
        tally.finish(self, seen)
    }
}

fn judge_item(case: &Case<'_>, rules: &ItemRules, row: &StockRow, tally: &mut Tally<'_>) {
    if row.initial != rules.stock {
        tally.gap(format!(
            "the audit says that there were {} of item {} at the start, and the scenario says {}: make them agree",
            row.initial, row.item, rules.stock
        ));
    }
    let sum = row.available + row.held + row.sold;
    if sum != row.initial {
        let (n, what) =
            if sum < row.initial { (row.initial - sum, "missing") } else { (sum - row.initial, "too many") };
        tally.violation("items whose counters do not add up", |case, witness| {
            witness.stock(case, row, true);
            let parts = format!("{} available + {} held + {} sold", row.available, row.held, row.sold);
            format!("{} of item {} {what}: {parts} make {sum} instead of {}", count(n, "unit"), row.item, row.initial)
        });
    }
    if row.available < 0 || row.held < 0 || row.sold < 0 || row.shards.iter().any(|units| *units < 0) {
        tally.violation("items with a negative counter", |case, witness| {
            witness.stock(case, row, true);
            format!("a counter of item {} is negative", row.item)
        });
    }
    let in_shards: i64 = row.shards.iter().sum();
    if !row.shards.is_empty() && in_shards != row.available {
        tally.violation("items whose shards do not add up", |case, witness| {
            witness.stock(case, row, true);
            format!("the shards of item {} have {in_shards} available, and the item has {}", row.item, row.available)
        });
    }
    for (cache, units) in row.caches.iter().filter(|(_, units)| *units != row.available) {
        tally.violation("caches that disagree at rest", |case, witness| {
            witness.stock(case, row, true);
            format!(
                "at rest, cache {cache} says that {units} of item {} are available, and {} are",
                row.item, row.available
            )
        });
    }
    if let (Some(books), Some(item)) = (&case.index.books, case.index.item(row.item)) {
        against_ledger(books, row, item, tally);
    }
}

fn against_ledger(books: &Books<'_>, row: &StockRow, item: usize, tally: &mut Tally<'_>) {
    let (mut held, mut sold, mut out) = (0, 0, 0);
    for (order, reserve) in books.durable().filter(|(_, reserve)| reserve.item == row.item) {
        match order.state {
            OrderState::Held => held += reserve.quantity,
            OrderState::Paid => sold += reserve.quantity,
            _ => {}
        }
    }
    for entry in books.brief.iter().filter(|entry| entry.item.map(usize::from) == Some(item)) {
        match entry.kind {
            EntryKind::Reserve => out += entry.quantity,
            EntryKind::Release => out -= entry.quantity,
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
        }
    }
    let pairs = [("available", row.available, row.initial - out), ("held", row.held, held), ("sold", row.sold, sold)];
    let wrong: Vec<String> = pairs
        .iter()
        .filter(|(_, counter, ledger)| counter != ledger)
        .map(|(name, counter, ledger)| format!("{counter} {name} by the counter and {ledger} by the ledger"))
        .collect();
    if !wrong.is_empty() {
        tally.violation("items whose counters disagree with the ledger", |case, witness| {
            witness.stock(case, row, true);
            witness.note(format!(
                "by the ledger of item {}: {} available ({} at the start less {out} reserved and not released), {held} held, {sold} sold",
                row.item,
                row.initial - out,
                row.initial
            ));
            unbalanced(books, row.item).for_each(|row| witness.row(case, row));
            format!("counters and ledger of item {} disagree: {}", row.item, wrong.join(", "))
        });
    }
}

/// Rows of orders that took or gave back another number of units than their state says: the first few.
fn unbalanced<'a>(books: &'a Books<'a>, item: i64) -> impl Iterator<Item = &'a LedgerEntry> + 'a {
    let odd = books.durable().filter(move |(order, reserve)| {
        let out = match order.state {
            OrderState::Held | OrderState::Paid => Some(reserve.quantity),
            OrderState::Cancelled | OrderState::Expired => Some(0),
            // What becomes of the units of a refunded order is the seller's policy.
            _ => None,
        };
        reserve.item == item && (order.mixed || out.is_some_and(|out| out != order.out))
    });
    odd.flat_map(|(order, _)| books.rows_of(order)).filter(|row| moves(row)).take(ROWS)
}

/// Whether a row moves stock.
fn moves(row: &LedgerEntry) -> bool {
    matches!(row.kind, EntryKind::Reserve | EntryKind::Release)
}

/// Why a hold whose time is long over is no proof that its units are lost: a service may release what is over only when
/// somebody asks for it. None if a fresh buyer asked and was told that it is sold out.
fn sellable(audit: &FinalState, item: i64) -> Option<String> {
    let probes = || audit.probes.iter().filter(|probe| probe.item == item);
    if let Some(probe) = probes().find(|probe| probe.sold > probe.available) {
        return Some(format!(
            "holds of item {item} whose time was long over were still counted as held, and yet {} of it were sold to fresh \
             buyers where {} were left: so they seem to be released when somebody asks; have the audit release them before \
             it counts",
            probe.sold, probe.available
        ));
    }
    if probes().any(|probe| probe.sold_out > 0) {
        return None;
    }
    Some(format!(
        "holds of item {item} whose time was long over were still held, and no fresh buyer was told that it is sold out, so \
         it is open whether somebody who asks would get them"
    ))
}

/// Holds that should have been released long before the audit: their units are sold to nobody.
fn forgotten_holds(case: &Case<'_>, audit: &FinalState, books: &Books<'_>, tally: &mut Tally<'_>) {
    let (mut recent, taken) = (0, case.since_epoch(audit.taken_unix_us));
    for (order, reserve) in books.durable().filter(|(order, _)| order.state == OrderState::Held) {
        let Some(item) = case.index.item(reserve.item) else { continue };
        let hold = case.rules.items[item].hold_us;
        let last = books.rows_of(order).filter(|row| row.kind == EntryKind::Reserve).last().unwrap_or(reserve);
        let ends = case.since_epoch(last.expires_at_unix_us.unwrap_or(last.at_unix_us.saturating_add(hold)));
        let overdue = taken.saturating_sub(ends).saturating_sub(case.rules.epsilon_us);
        if overdue > hold.clamp(SWEEP_US, OVERDUE_US) {
            if let Some(why) = sellable(audit, last.item) {
                tally.gap(why);
                continue;
            }
            tally.violation("holds that were never released", |case, witness| {
                order.intent.into_iter().for_each(|intent| witness.intent(case, intent));
                case.index.ack_of_order(order).into_iter().for_each(|ack| {
                    case.index.actions_of(ack).for_each(|op| witness.op(case, op));
                });
                witness.bad_row(case, last);
                audit.stock.iter().filter(|row| row.item == last.item).for_each(|row| witness.stock(case, row, false));
                let units = count(last.quantity, "unit");
                format!(
                    "the hold of order {} ended at {}, and its {units} were still held at the audit, at {}",
                    order.id,
                    seconds(ends),
                    seconds(taken)
                )
            });
        } else if overdue > 0 {
            recent += 1;
        }
    }
    if recent > 0 {
        tally.gap(format!(
            "{} had ended shortly before the audit and were not released yet; take the audit later",
            count(recent, "hold")
        ));
    }
}
