//! What a buyer may count on, from replies alone: over which time an acknowledged order must have had its units.
//!
//! Everything here errs on the side of a shorter claim. A claim that is too short can hide a violation that the ledger
//! shows anyway; one that is too long would accuse a correct service.

use super::Case;
use super::index::{Ack, By, QuickMap};
use crate::history::{EntryKind, Micros, Op, OrderState, Outcome, Role};

/// A span of time over which an acknowledged order holds its units: `[from, until)`.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The item's place in the rules.
    pub item: usize,
    /// The buyer.
    pub user: u64,
    /// Units.
    pub quantity: i64,
    /// When the reply that gives the right was complete.
    pub from: Micros,
    /// When the right may have ended.
    pub until: Micros,
    /// The op whose reply gives the right.
    pub op: u32,
}

/// Every claim of the history, in the order of the acknowledgements.
pub fn claims(case: &Case<'_>) -> Vec<Claim> {
    let refunds = refunds(case);
    let mut claims = Vec::with_capacity(case.index.acks.len());
    for ack in &case.index.acks {
        let op = &case.history.ops[ack.op as usize];
        let intent = &case.index.intents[ack.intent as usize];
        if op.role == Role::Lookup {
            continue;
        }
        let Some(item) = case.index.item(op.item) else { continue };
        let life = Life::of(case, ack, op, &refunds);
        let promised = intent.first_invoked.saturating_add(case.rules.items[item].hold_us);
        let hold_ends = promised
            .saturating_sub(case.rules.epsilon_us)
            .saturating_sub(case.index.clock_slack(intent.first_invoked, promised))
            .min(life.given_up);
        let quantity = i64::from(op.quantity);
        let claim = Claim { item, user: op.user, quantity, from: op.completed_us, until: hold_ends, op: ack.op };
        let holds = matches!(op.state, OrderState::Held | OrderState::Paid | OrderState::Unknown);
        if holds && claim.until > claim.from {
            claims.push(claim);
        }
        if let Some((paid_op, paid)) = life.paid {
            let from = if holds { paid.max(claim.until.max(claim.from)) } else { paid };
            if life.cancelled > from {
                claims.push(Claim { from, until: life.cancelled, op: paid_op, ..claim });
            }
        }
    }
    claims
}

/// What became of an acknowledged order, as far as its buyer's own actions and replies go.
struct Life {
    /// When a reply said that it is paid, and which.
    paid: Option<(u32, Micros)>,
    /// From when on it may have been cancelled or refunded.
    cancelled: Micros,
    /// From when on a hold may have been given up: by a cancel, or by a payment that did not clearly succeed.
    given_up: Micros,
}

impl Life {
    fn of(case: &Case<'_>, ack: &Ack, op: &Op, refunds: &QuickMap<u32, Micros>) -> Life {
        let loose = case.index.loose.get(&op.user).copied().unwrap_or(Micros::MAX);
        let refunded = refunds.get(&ack.op).copied().unwrap_or(Micros::MAX);
        let mut life = Life { paid: None, cancelled: loose.min(refunded), given_up: loose.min(refunded) };
        if op.state == OrderState::Paid {
            life.paid = Some((ack.op, op.completed_us));
        }
        for n in case.index.actions_of(ack) {
            let action = &case.history.ops[n as usize];
            if action.role == Role::Cancel {
                life.given_up = life.given_up.min(action.invoked_us);
                life.cancelled = life.cancelled.min(action.invoked_us);
            } else if says_paid(action) {
                if life.paid.is_none_or(|(_, at)| action.completed_us < at) {
                    life.paid = Some((n, action.completed_us));
                }
            } else {
                life.given_up = life.given_up.min(action.invoked_us);
            }
        }
        life
    }
}

/// Whether a reply to a payment says that the order is paid, rather than that the payment was taken for later or
/// given back at once.
pub fn says_paid(op: &Op) -> bool {
    op.role == Role::Pay && op.outcome == Outcome::Ok && matches!(op.state, OrderState::Paid | OrderState::Unknown)
}

/// A service may refund of its own accord; the ledger then says from when on, by the op that acknowledged the order.
fn refunds(case: &Case<'_>) -> QuickMap<u32, Micros> {
    let mut refunds = QuickMap::default();
    let Some(books) = &case.index.books else { return refunds };
    for (row, brief) in books.rows.iter().zip(&books.brief).filter(|(_, brief)| brief.kind == EntryKind::Refund) {
        let order = &books.orders[brief.order as usize];
        let named = case.index.ack_of_order(order);
        let ack = match (named, order.by) {
            (Some(ack), _) => Some(ack.op),
            (None, By::Key) => order.intent.and_then(|intent| {
                let ops = case.index.ops_of(&case.index.intents[intent as usize]);
                ops.iter().copied().find(|n| case.history.ops[*n as usize].outcome == Outcome::Ok)
            }),
            (None, _) => None,
        };
        if let Some(op) = ack {
            let stamped = case.since_epoch(row.at_unix_us);
            let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(stamped, stamped));
            let at = stamped.saturating_sub(slack);
            let first = refunds.entry(op).or_insert(at);
            *first = at.min(*first);
        }
    }
    refunds
}
