//! The anomalies that the simulated shop can be told to have.

use super::super::Verdict;
use super::Run;
use crate::history::{EntryKind, Micros, OrderState, Outcome, Role};

/// An anomaly of the shop. Where it has a number, it is that of the seeded bug of the reference target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it, and `expected` says where it shows")]
pub enum Bug {
    ReadThenWriteBack,
    CheckThenDeduct,
    RowCountIgnored,
    NegativeQuantity,
    CacheNotCompensated,
    DeductBeforeDuplicateCheck,
    SoldOutFlagNeverCleared,
    ShardRemainderStranded,
    AckBeforeCommit,
    CommitNotSynced,
    CommittedButToldFailed,
    RetryUnderNewKey,
    KeyCheckedThenInserted,
    InnerRetryWithoutRecheck,
    RedeliveredMessage,
    PublishedThenRolledBack,
    ReleasedTwice,
    HeldForEverAfterFailedPayment,
    EndedWithoutGivingBack,
    PaidAfterRelease,
    LimitRaced,
    TakenBeforeStart,
    ClientClock,
    WrongAmount,
    CapturedTwice,
    PaymentLost,
    CancelLost,
    ExpiredEarly,
    KeptForAnotherUser,
    QuantityChanged,
    AlwaysSoldOut,
    OrderNumberReused,
    ReleaseNotCounted,
    ChargedToAnotherOrder,
    CapturedButToldFailed,
    TicketNeverFinished,
    TicketResultFlips,
    TicketResultForgotten,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 38] = [
        Bug::ReadThenWriteBack,
        Bug::CheckThenDeduct,
        Bug::RowCountIgnored,
        Bug::NegativeQuantity,
        Bug::CacheNotCompensated,
        Bug::DeductBeforeDuplicateCheck,
        Bug::SoldOutFlagNeverCleared,
        Bug::ShardRemainderStranded,
        Bug::AckBeforeCommit,
        Bug::CommitNotSynced,
        Bug::CommittedButToldFailed,
        Bug::RetryUnderNewKey,
        Bug::KeyCheckedThenInserted,
        Bug::InnerRetryWithoutRecheck,
        Bug::RedeliveredMessage,
        Bug::PublishedThenRolledBack,
        Bug::ReleasedTwice,
        Bug::HeldForEverAfterFailedPayment,
        Bug::EndedWithoutGivingBack,
        Bug::PaidAfterRelease,
        Bug::LimitRaced,
        Bug::TakenBeforeStart,
        Bug::ClientClock,
        Bug::WrongAmount,
        Bug::CapturedTwice,
        Bug::PaymentLost,
        Bug::CancelLost,
        Bug::ExpiredEarly,
        Bug::KeptForAnotherUser,
        Bug::QuantityChanged,
        Bug::AlwaysSoldOut,
        Bug::OrderNumberReused,
        Bug::ReleaseNotCounted,
        Bug::ChargedToAnotherOrder,
        Bug::CapturedButToldFailed,
        Bug::TicketNeverFinished,
        Bug::TicketResultFlips,
        Bug::TicketResultForgotten,
    ];

    /// Whether only a shop that queues its orders can have it.
    pub fn is_of_queues(self) -> bool {
        matches!(self, Bug::TicketNeverFinished | Bug::TicketResultFlips | Bug::TicketResultForgotten)
    }

    /// The numbers of the seeded bugs that it stands for; empty for what is on no list.
    pub fn seeded(self) -> &'static [u32] {
        match self {
            Bug::ReadThenWriteBack => &[1],
            Bug::CheckThenDeduct => &[2],
            Bug::RowCountIgnored => &[3, 4],
            Bug::NegativeQuantity => &[5],
            Bug::CacheNotCompensated => &[7],
            Bug::DeductBeforeDuplicateCheck => &[8],
            Bug::SoldOutFlagNeverCleared => &[10],
            Bug::ShardRemainderStranded => &[11],
            Bug::AckBeforeCommit => &[12],
            Bug::CommitNotSynced => &[13, 14],
            Bug::CommittedButToldFailed => &[16],
            Bug::RetryUnderNewKey => &[17],
            Bug::KeyCheckedThenInserted => &[18],
            Bug::InnerRetryWithoutRecheck => &[19],
            Bug::RedeliveredMessage => &[20],
            Bug::TicketNeverFinished => &[21],
            Bug::PublishedThenRolledBack => &[22],
            Bug::ReleasedTwice => &[23],
            Bug::HeldForEverAfterFailedPayment | Bug::EndedWithoutGivingBack => &[25],
            Bug::PaidAfterRelease => &[26],
            Bug::LimitRaced => &[27],
            Bug::TakenBeforeStart => &[29],
            Bug::ClientClock => &[30],
            _ => &[],
        }
    }

    /// The invariants of which at least one must fail once it took effect.
    pub fn expected(self) -> &'static [&'static str] {
        match self {
            Bug::ReadThenWriteBack => &["I1", "I5a"],
            Bug::CheckThenDeduct | Bug::RowCountIgnored | Bug::NegativeQuantity => &["I1"],
            Bug::CacheNotCompensated | Bug::DeductBeforeDuplicateCheck | Bug::HeldForEverAfterFailedPayment => &["I5a"],
            Bug::ReleaseNotCounted => &["I5a"],
            Bug::EndedWithoutGivingBack => &["I5a", "I8"],
            Bug::SoldOutFlagNeverCleared | Bug::ShardRemainderStranded => &["I5b"],
            Bug::AckBeforeCommit | Bug::CommitNotSynced | Bug::PublishedThenRolledBack => &["I2"],
            Bug::CancelLost | Bug::OrderNumberReused => &["I2"],
            Bug::PaymentLost | Bug::ChargedToAnotherOrder => &["I2", "I7"],
            Bug::KeptForAnotherUser | Bug::QuantityChanged => &["I2", "I3"],
            Bug::CommittedButToldFailed => &["I3"],
            Bug::KeyCheckedThenInserted | Bug::InnerRetryWithoutRecheck => &["I4"],
            // Where another purchase of the buyer may have made the order, only its key is known to be wrong.
            Bug::RetryUnderNewKey => &["I4", "I3"],
            Bug::RedeliveredMessage => &["I4"],
            Bug::ReleasedTwice | Bug::ExpiredEarly => &["I8"],
            // Cancelled and refunded in time, such an order shows by the stock that it gave back twice.
            Bug::PaidAfterRelease => &["I7", "I8"],
            Bug::WrongAmount | Bug::CapturedTwice | Bug::CapturedButToldFailed => &["I7"],
            Bug::LimitRaced => &["I6"],
            Bug::TakenBeforeStart | Bug::ClientClock => &["I10"],
            Bug::AlwaysSoldOut => &["I5c"],
            Bug::TicketNeverFinished | Bug::TicketResultFlips | Bug::TicketResultForgotten => &["I9"],
        }
    }

    /// Whether it really showed in this run, from what the simulation knows and the checks do not: not every schedule
    /// gives a bug its chance.
    pub fn took_effect(self, run: &Run) -> bool {
        match self {
            Bug::AckBeforeCommit | Bug::CommitNotSynced | Bug::PublishedThenRolledBack => acknowledged_and_gone(run),
            Bug::CommittedButToldFailed => told_failed(run),
            Bug::ClientClock => window_broken(run),
            Bug::CancelLost => cancel_undone(run),
            Bug::PaymentLost => payment_undone(run),
            Bug::CapturedButToldFailed => captured_secretly(run),
            Bug::AlwaysSoldOut => refused(run, "sold-out").next().is_some(),
            Bug::SoldOutFlagNeverCleared | Bug::ShardRemainderStranded => {
                run.audit.probes.iter().any(|probe| probe.sold < probe.available)
            }
            Bug::ChargedToAnotherOrder => payment_undone(run) || charged_unasked(run),
            Bug::OrderNumberReused => reused_number_acknowledged(run),
            Bug::TicketNeverFinished => told_pending_too_late(run),
            Bug::TicketResultFlips => two_results(run),
            Bug::TicketResultForgotten => result_taken_back(run),
            _ => run.shown,
        }
    }

    /// Whether the findings name it.
    pub fn found(self, findings: &[super::super::Finding]) -> bool {
        findings.iter().any(|f| f.verdict == Verdict::Fail && self.expected().contains(&f.id.as_str()))
    }
}

fn in_ledger(run: &Run, id: &str) -> bool {
    run.audit.ledger.iter().any(|row| row.kind == EntryKind::Reserve && row.order == id)
}

fn acknowledged_and_gone(run: &Run) -> bool {
    let ok = run.history.ops.iter().filter(|op| op.role != Role::Lookup && op.acknowledges());
    ok.map(|op| run.history.names.get(op.order)).any(|id| !in_ledger(run, id))
}

fn told_failed(run: &Run) -> bool {
    let made = run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Reserve);
    made.filter_map(|row| row.key.as_deref()?.strip_prefix('k')?.parse::<u64>().ok()).any(|intent| {
        let ops = || run.history.ops.iter().filter(move |op| op.intent == intent);
        let decided = ops().any(crate::history::Op::ticket_refused);
        let mut asked = ops().filter(|op| matches!(op.role, Role::Order | Role::Lookup));
        let refused = asked.all(|op| op.outcome == Outcome::Fail || decided && op.is_pending());
        refused && !ops().any(crate::history::Op::acknowledges)
    })
}

fn refused<'a>(run: &'a Run, reason: &str) -> impl Iterator<Item = &'a crate::history::Op> {
    let reason = run.history.names.find(reason);
    run.history
        .ops
        .iter()
        .filter(move |op| op.role == Role::Order && op.outcome == Outcome::Fail && Some(op.reason) == reason)
}

fn window_broken(run: &Run) -> bool {
    let (rules, epsilon) = (&run.rules.items[0], run.rules.epsilon_us);
    refused(run, "too-early").any(|op| op.invoked_us > rules.opens_us + epsilon) || run.shown
}

fn state(run: &Run, id: &str) -> OrderState {
    let row = run.audit.ledger.iter().find(|row| row.kind == EntryKind::Reserve && row.order == id);
    row.and_then(|row| row.state).unwrap_or_default()
}

fn cancel_undone(run: &Run) -> bool {
    let (rules, epsilon) = (&run.rules.items[0], run.rules.epsilon_us);
    let acknowledged = run.history.ops.iter().filter(|op| op.role == Role::Cancel && op.outcome == Outcome::Ok);
    acknowledged.filter(|op| op.state == OrderState::Cancelled).any(|op| {
        let first =
            run.history.ops.iter().filter(|o| o.intent == op.intent).map(|o| o.invoked_us).min().unwrap_or(Micros::MAX);
        let in_time = op.completed_us < first.saturating_add(rules.hold_us) - 3 * epsilon;
        in_time && state(run, run.history.names.get(op.order)) == OrderState::Expired
    })
}

fn payment_undone(run: &Run) -> bool {
    let acknowledged = run.history.ops.iter().filter(|op| op.role == Role::Pay && op.outcome == Outcome::Ok);
    acknowledged
        .filter(|op| op.state == OrderState::Paid)
        .any(|op| !matches!(state(run, run.history.names.get(op.order)), OrderState::Paid | OrderState::Refunded))
}

/// A payment of an order whose buyer had not tried to pay by then. If the first that buyers hear of an order is that it
/// is paid, it might have been paid for at once, as some shops do.
fn charged_unasked(run: &Run) -> bool {
    run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Pay).any(|row| {
        let intent = run.intent_of(&row.order);
        let at = row.at_unix_us - super::EPOCH_UNIX_US + run.rules.epsilon_us;
        let theirs = || run.history.ops.iter().filter(|op| Some(op.intent) == intent);
        let told = theirs().filter(|op| op.acknowledges());
        let held = told.min_by_key(|op| op.invoked_us).is_some_and(|op| op.state == OrderState::Held);
        held && !theirs().any(|op| op.role == Role::Pay && op.invoked_us <= at)
    })
}

fn captured_secretly(run: &Run) -> bool {
    let paid = run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Pay);
    paid.filter(|row| state(run, &row.order) == OrderState::Paid).any(|row| {
        let intent = run.intent_of(&row.order);
        let mut pays = run.history.ops.iter().filter(|op| op.role == Role::Pay && Some(op.intent) == intent).peekable();
        pays.peek().is_some() && pays.all(|op| op.outcome == Outcome::Fail)
    })
}

fn reused_number_acknowledged(run: &Run) -> bool {
    let ok = || run.history.ops.iter().filter(|op| op.role != Role::Lookup && op.acknowledges());
    ok().any(|op| ok().any(|other| other.order == op.order && other.user != op.user))
}

fn asked(run: &Run) -> impl Iterator<Item = &crate::history::Op> {
    run.history.ops.iter().filter(|op| op.role == Role::Ticket)
}

/// Somebody who asked after the deadline was told that nothing is decided, and nobody had been told a result before.
fn told_pending_too_late(run: &Run) -> bool {
    let healed = run.crash.map_or(Micros::MIN, |(_, back)| back);
    asked(run).filter(|op| op.is_pending()).any(|op| {
        let theirs = || run.history.ops.iter().filter(|other| other.intent == op.intent);
        let accepted = theirs().filter(|o| o.role == Role::Order && o.is_pending()).map(|o| o.completed_us).min();
        let due = accepted.unwrap_or(Micros::MAX).max(healed).saturating_add(run.rules.ticket_deadline_us);
        op.invoked_us > due
    })
}

fn two_results(run: &Run) -> bool {
    let result = |op: &crate::history::Op| {
        let told = op.ticket_refused() || op.acknowledges();
        told.then_some((op.intent, op.outcome, op.order))
    };
    asked(run).filter_map(result).any(|(intent, outcome, order)| {
        asked(run).filter_map(result).any(|other| other.0 == intent && (other.1, other.2) != (outcome, order))
    })
}

fn result_taken_back(run: &Run) -> bool {
    let told = |op: &&crate::history::Op| op.ticket_refused() || op.acknowledges();
    asked(run).filter(told).any(|op| {
        let later = asked(run).filter(|later| later.intent == op.intent && later.invoked_us >= op.completed_us);
        later.into_iter().any(|later| later.is_pending() || later.status == 404)
    })
}
