//! Over which time an order certainly stood: from when on it was in effect, and until when nobody can have ended it.
//!
//! The ledger stamps its rows before they are committed, by clocks of its own, and a fault may hold a commit up. So this
//! errs on the side of a shorter time: who says meanwhile that there is no such order is certainly wrong.

use super::Case;
use super::index::{Ack, Books, DurableOrder, FaultWindow, Intent, says_expired};
use crate::history::{EntryKind, LedgerEntry, Micros, Op, Outcome, Role, Sym};

/// The ledger stamps a row before it is committed; this long after, with no fault in between, it is in effect.
pub(super) const COMMIT_US: Micros = 1_000_000;
/// From this many orders on, how long the slowest of them took says more than [`COMMIT_US`].
const ENOUGH: usize = 20;

/// What a run tells of how long its orders took to be in effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// How long after its stamp an order is in effect, clocks and all.
    lag: Micros,
}

impl Standing {
    /// Orders that were acknowledged at the first attempt were in effect by then. Twice the longest that any of them took
    /// is granted to the others.
    pub(super) fn of(case: &Case<'_>, books: &Books<'_>) -> Standing {
        let epsilon = case.rules.epsilon_us;
        let (mut seen, mut longest) = (0, 0);
        for (order, reserve) in books.durable() {
            let Some(ack) = case.index.ack_of_order(order) else { continue };
            let op = &case.history.ops[ack.op as usize];
            let stamped = case.since_epoch(reserve.at_unix_us);
            // What a clock stamped that was set wrong tells nothing about how long it took.
            let right = case.index.clock_slack(stamped, stamped) == 0;
            if right && op.role == Role::Order && case.index.intents[ack.intent as usize].attempts == 1 {
                seen += 1;
                longest = longest.max(op.completed_us.saturating_sub(stamped));
            }
        }
        let usual = epsilon.saturating_add(COMMIT_US);
        Standing { lag: if seen < ENOUGH { usual } else { longest.saturating_mul(2).clamp(epsilon, usual) } }
    }

    /// Whether the order stood all the while from a question to its answer, as the ledger and its buyer's replies show.
    pub(super) fn stood(&self, case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, op: &Op) -> bool {
        let Some((from, until)) = self.span(case, books, order) else { return false };
        from < op.invoked_us && op.completed_us < until
    }

    fn span(&self, case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>) -> Option<(Micros, Micros)> {
        let reserve = order.reserve.filter(|_| order.count(EntryKind::Reserve) == 1)?;
        let intent = &case.index.intents[order.intent? as usize];
        let stamped = case.since_epoch(reserve.at_unix_us);
        let slack = case.index.clock_slack(stamped, stamped);
        let by_ledger = in_effect(
            &case.index.faults,
            stamped.saturating_sub(case.rules.epsilon_us).saturating_sub(slack),
            stamped.saturating_add(self.lag).saturating_add(slack),
        );
        let acknowledged = case.index.ops_of(intent).iter().map(|n| &case.history.ops[*n as usize]);
        let acknowledged = acknowledged.filter(|op| op.acknowledges() && op.order != Sym(0));
        let told = acknowledged.filter(|op| Some(op.order) == order.named).map(|op| op.completed_us).min();
        let from = told.map_or(by_ledger, |told| told.min(by_ledger));
        Some((from, ended(case, books, order, reserve)))
    }
}

/// The earliest moment at which an order can have been over.
fn ended(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>, reserve: &LedgerEntry) -> Micros {
    let Some(item) = case.index.item(reserve.item) else { return Micros::MIN };
    let over = books.rows_of(order).filter(|row| matches!(row.kind, EntryKind::Release | EntryKind::Refund));
    let over = over.map(|row| case.since_epoch(row.at_unix_us)).min();
    if over.is_none() && !order.state.is_live() {
        return Micros::MIN;
    }
    let mut ends = over.unwrap_or(Micros::MAX);
    if order.count(EntryKind::Pay) == 0 && order.state != crate::history::OrderState::Paid {
        // A hold may count as over at its time, whenever it is released in the ledger.
        let promised = case.since_epoch(reserve.at_unix_us).saturating_add(case.rules.items[item].hold_us);
        let stamped = reserve.expires_at_unix_us.map_or(promised, |at| case.since_epoch(at));
        ends = ends.min(promised).min(stamped);
    }
    let slack = case.index.clock_slack(case.since_epoch(reserve.at_unix_us), ends);
    ends.saturating_sub(case.rules.epsilon_us).saturating_sub(slack)
}

/// Until when a buyer may at least count on a hold, by the service's clocks: the hold's time after they first asked, or the
/// end of the sale if that is earlier. Two clocks of the service may be meant, so their difference is taken off twice.
pub(super) fn promised_until(case: &Case<'_>, intent: &Intent, reserve: Option<&LedgerEntry>) -> Option<Micros> {
    let rules = &case.rules.items[case.index.item(intent.item)?];
    let stamped = reserve.map_or(Micros::MAX, |row| case.since_epoch(row.at_unix_us));
    let from = stamped.min(intent.first_invoked);
    let ends = from.saturating_add(rules.hold_us).min(rules.closes_us);
    let slack = case.index.clock_slack(from, ends);
    Some(ends.saturating_sub(case.rules.epsilon_us.saturating_mul(2)).saturating_sub(slack))
}

/// How coarse a stamp is: whoever counts in seconds or in milliseconds rounds.
pub(super) fn grain(unix_us: i64) -> Micros {
    [1_000_000, 1_000].into_iter().find(|grain| unix_us % grain == 0).unwrap_or(0)
}

/// Whether its buyer did anything about an order before a moment: paid or cancelled, or tried to. What cannot be told to be
/// about another order counts.
pub(super) fn touched(case: &Case<'_>, ack: &Ack, before: Micros) -> bool {
    let buyer = case.index.intents[ack.intent as usize].user;
    let loose = case.index.loose.get(&buyer).is_some_and(|at| *at <= before);
    loose || case.index.actions_of(ack).any(|n| case.history.ops[n as usize].invoked_us <= before)
}

/// Whether an order was released after its time though nobody asked for it, whatever the service calls that.
pub(super) fn ran_out(case: &Case<'_>, books: &Books<'_>, order: &DurableOrder<'_>) -> bool {
    let (Some(reserve), Some(ack)) = (order.reserve, case.index.ack_of_order(order)) else { return false };
    let Some(item) = case.index.item(reserve.item).filter(|_| case.index.whole()) else { return false };
    let ends = reserve.at_unix_us.saturating_add(case.rules.items[item].hold_us);
    let ends = ends.saturating_sub(case.rules.epsilon_us.saturating_mul(2));
    let mut released = books.rows_of(order).filter(|row| row.kind == EntryKind::Release);
    released.any(|row| says_expired(row) || row.at_unix_us >= ends) && !touched(case, ack, Micros::MAX)
}

/// Whether a reply says that there is no such order. That a session or a page is unknown is another thing.
pub(super) fn says_unknown(case: &Case<'_>, op: &Op) -> bool {
    let words = ["not-found", "http-404", "order-not-found", "unknown-order", "no-such-order"];
    op.outcome == Outcome::Fail && !says_who(op) && words.contains(&case.history.names.get(op.reason))
}

/// Whether a refusal is about who asks, and how often, rather than about an order.
pub(super) fn says_who(op: &Op) -> bool {
    matches!(op.status, 401 | 403 | 429)
}

/// A commit may hang for as long as a fault within the service lasts, so its time counts from after those. `latest` is when
/// it should be in effect if there is none.
pub(super) fn in_effect(faults: &[FaultWindow<'_>], stamped: Micros, latest: Micros) -> Micros {
    let mut at = latest;
    let within = faults.iter().filter(|fault| !beside_the_service(fault));
    let mut spans: Vec<(Micros, Micros)> =
        within.filter_map(|fault| Some((fault.injected?, fault.healed.unwrap_or(Micros::MAX)))).collect();
    spans.sort_unstable();
    for (injected, healed) in spans {
        if injected <= at && healed.saturating_add(COMMIT_US) >= stamped {
            at = at.max(healed.saturating_add(COMMIT_US));
        }
    }
    at
}

/// Whether a fault is on the buyers' link alone: it delays what they hear, and no commit within the service.
fn beside_the_service(fault: &FaultWindow<'_>) -> bool {
    let link = fault.plan.and_then(|plan| plan.link.as_deref());
    link.is_some_and(|link| link.starts_with("client→") || link.starts_with("client->"))
}
