//! I6: no buyer holds or owns more than the limit, at any moment.

use super::claims::Claim;
use super::index::{Books, QuickMap};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, LedgerEntry};

pub(super) struct Limits;

impl Check for Limits {
    fn id(&self) -> &'static str {
        "I6"
    }

    fn name(&self) -> &'static str {
        "limits per user"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        let mut most = 0;
        if let Some(books) = &case.index.books {
            most = by_ledger(case, books, &mut tally);
        }
        most = most.max(by_replies(case, &mut tally));
        let limits: Vec<String> =
            case.rules.items.iter().map(|item| format!("{} of item {}", item.per_user_limit, item.item)).collect();
        tally.finish(
            self,
            format!("no user had more than {} at once; allowed are {}", count(most, "unit"), limits.join(", ")),
        )
    }
}

fn by_ledger(case: &Case<'_>, books: &Books<'_>, tally: &mut Tally<'_>) -> i64 {
    // Buyers of the run go by number; whoever else is in the ledger goes by name.
    let mut held: QuickMap<(u64, u16), i64> = QuickMap::default();
    let mut strangers: QuickMap<(&str, u16), i64> = QuickMap::default();
    let mut out_of_order = vec![0i64; books.orders.len()];
    let mut most = 0;
    for (n, brief) in books.brief.iter().enumerate() {
        let Some(item) = brief.item else { continue };
        let order = &books.orders[brief.order as usize];
        let out = &mut out_of_order[brief.order as usize];
        let change = match brief.kind {
            EntryKind::Reserve => brief.quantity,
            EntryKind::Release => -brief.quantity.min(*out).max(0),
            EntryKind::Pay | EntryKind::Refund => continue,
        };
        *out += change;
        // A release counts for whoever reserved, whatever name stands in its row.
        let row = books.rows[n];
        let owner = || order.reserve.map_or(row.user.as_str(), |reserve| reserve.user.as_str());
        let has = match order.user {
            Some(user) => held.entry((user, item)).or_default(),
            None => strangers.entry((owner(), item)).or_default(),
        };
        *has += change;
        most = most.max(*has);
        let limit = case.rules.items[usize::from(item)].per_user_limit;
        if change > 0 && *has > limit {
            tally.violation("reservations beyond a user's limit", |case, witness| {
                let owner = owner();
                theirs(books, owner, row).iter().for_each(|before| witness.row(case, before));
                witness.bad_row(case, row);
                case.index.ack_of_order(order).into_iter().for_each(|ack| witness.op(case, ack.op));
                let has = count(*has, "unit");
                format!("{owner} had {has} of item {} at ledger row {}, and {limit} are allowed", row.item, row.seq)
            });
        }
    }
    most
}

/// What a user had reserved before a row, and not given back.
fn theirs<'a>(books: &Books<'a>, owner: &str, row: &LedgerEntry) -> Vec<&'a LedgerEntry> {
    let before = books.rows.iter().filter(|other| other.user == owner && other.item == row.item && other.seq < row.seq);
    let mut live: Vec<&LedgerEntry> = Vec::new();
    for other in before {
        match other.kind {
            EntryKind::Reserve => live.push(other),
            EntryKind::Release => live.retain(|reserved| reserved.order != other.order),
            EntryKind::Pay | EntryKind::Refund => {}
        }
    }
    live
}

fn by_replies(case: &Case<'_>, tally: &mut Tally<'_>) -> i64 {
    let mut by_user: Vec<Claim> = case.claims.clone();
    by_user.sort_unstable_by_key(|claim| (claim.user, claim.item));
    let mut most = 0;
    for group in by_user.chunk_by(|a, b| (a.user, a.item) == (b.user, b.item)) {
        let limit = case.rules.items[group[0].item].per_user_limit;
        let total: i64 = group.iter().map(|claim| claim.quantity.max(0)).sum();
        if total <= limit {
            most = most.max(total);
            continue;
        }
        let mut steps: Vec<(i64, i64, usize)> = Vec::new();
        for (n, claim) in group.iter().enumerate() {
            steps.push((claim.from, claim.quantity.max(0), n));
            steps.push((claim.until, -claim.quantity.max(0), n));
        }
        steps.sort_unstable();
        let mut has = 0;
        for (at, change, n) in steps {
            has += change;
            most = most.max(has);
            // As for I1: a cancel that was not recorded would end a claim.
            if change > 0 && has > limit && case.index.whole() {
                tally.violation("users beyond their limit by their own replies", |case, witness| {
                    let live = group.iter().filter(|claim| claim.from <= at && claim.until > at);
                    live.for_each(|claim| witness.op(case, claim.op));
                    witness.bad_op(case, group[n].op);
                    format!(
                        "by the replies, {} had {} of item {} at {}, and {limit} are allowed",
                        case.user(group[n].user),
                        count(has, "unit"),
                        case.rules.items[group[n].item].item,
                        seconds(at)
                    )
                });
                break;
            }
        }
    }
    most
}
