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
    RetryToldNo,
    LookupDenied,
    PaymentDenied,
    OneOrderForTwoPurchases,
    SoldOutForTooLong,
    EndedUnasked,
    HoldShortened,
    PaymentCalledTooLate,
    LimitTooLow,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 47] = [
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
        Bug::RetryToldNo,
        Bug::LookupDenied,
        Bug::PaymentDenied,
        Bug::OneOrderForTwoPurchases,
        Bug::SoldOutForTooLong,
        Bug::EndedUnasked,
        Bug::HoldShortened,
        Bug::PaymentCalledTooLate,
        Bug::LimitTooLow,
    ];

    /// Whether only a shop that queues its orders can have it.
    pub fn is_of_queues(self) -> bool {
        matches!(self, Bug::TicketNeverFinished | Bug::TicketResultFlips | Bug::TicketResultForgotten)
    }

    /// Whether it only shows to buyers who wait for long before they try again.
    pub(super) fn takes_patience(self) -> bool {
        matches!(self, Bug::RetryToldNo | Bug::LookupDenied)
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
            Bug::LimitRaced | Bug::LimitTooLow => &["I6"],
            Bug::TakenBeforeStart | Bug::ClientClock => &["I10"],
            Bug::AlwaysSoldOut => &["I5c"],
            Bug::TicketNeverFinished | Bug::TicketResultFlips | Bug::TicketResultForgotten => &["I9"],
            Bug::RetryToldNo | Bug::LookupDenied => &["I3"],
            Bug::PaymentDenied | Bug::OneOrderForTwoPurchases => &["I2"],
            Bug::SoldOutForTooLong => &["I5c"],
            Bug::EndedUnasked | Bug::HoldShortened | Bug::PaymentCalledTooLate => &["I8"],
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
            Bug::RetryToldNo => denied(run, Role::Order),
            Bug::LookupDenied => denied(run, Role::Lookup),
            Bug::PaymentDenied => denied(run, Role::Pay) || denied(run, Role::Cancel),
            Bug::OneOrderForTwoPurchases => shared_order(run),
            Bug::SoldOutForTooLong => turned_away(run),
            Bug::EndedUnasked => ended_unasked(run),
            Bug::HoldShortened => run.shown && untouched_hold(run),
            Bug::PaymentCalledTooLate => called_too_late(run),
            Bug::LimitTooLow => within_limit(run),
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
    // Whoever asks again may be told what was decided the first time.
    refused(run, "too-early").any(|op| first_asked(run, op.intent) > rules.opens_us + epsilon) || run.shown
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

/// When a row was certainly in effect at the latest, for whoever knows no more than its stamp: a second after it, and after
/// a crash that may have held it up.
fn surely(run: &Run, stamped: Micros) -> Micros {
    let epsilon = run.rules.epsilon_us;
    let at = stamped + epsilon + 1_000_000;
    match run.crash {
        Some((down, back)) if down <= at && back + 1_000_000 >= stamped - epsilon => at.max(back + 1_000_000),
        _ => at,
    }
}

fn stamp(row: &crate::history::LedgerEntry) -> Micros {
    row.at_unix_us - super::EPOCH_UNIX_US
}

fn acknowledged(run: &Run, intent: u64) -> impl Iterator<Item = &crate::history::Op> {
    run.history.ops.iter().filter(move |op| op.intent == intent && op.acknowledges())
}

/// Somebody was told that there is no order, or that there will be none, all the while that there was.
fn denied(run: &Run, role: Role) -> bool {
    let (rules, epsilon) = (&run.rules.items[0], run.rules.epsilon_us);
    let reason = if role == Role::Order { "sold-out" } else { "not-found" };
    let reason = run.history.names.find(reason);
    run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Reserve).any(|row| {
        let Some(intent) = run.intent_of(&row.order) else { return false };
        let told = acknowledged(run, intent).map(|op| op.completed_us).min().unwrap_or(Micros::MAX);
        let from = told.min(surely(run, stamp(row)));
        let rows = || run.audit.ledger.iter().filter(|other| other.order == row.order);
        let over = rows().filter(|row| matches!(row.kind, EntryKind::Release | EntryKind::Refund)).map(stamp).min();
        let paid = rows().any(|row| row.kind == EntryKind::Pay);
        let hold = if paid { Micros::MAX } else { stamp(row) + rules.hold_us };
        let until = over.unwrap_or(Micros::MAX).min(hold) - epsilon;
        let ops = run.history.ops.iter().filter(|op| op.intent == intent && op.role == role);
        let mut no = ops.filter(|op| op.outcome == Outcome::Fail && Some(op.reason) == reason);
        no.any(|op| from < op.invoked_us && op.completed_us < until)
    })
}

fn shared_order(run: &Run) -> bool {
    let limit = run.rules.items[0].per_user_limit;
    let ok = || run.history.ops.iter().filter(|op| op.role == Role::Order && op.acknowledges());
    ok().any(|op| {
        let mut others = ok().filter(|other| other.intent != op.intent && other.order == op.order);
        others.any(|other| i64::from(other.quantity + op.quantity) <= limit)
    })
}

/// Somebody was told "sold out" though all purchases that can have had something then leave enough.
fn turned_away(run: &Run) -> bool {
    let epsilon = run.rules.epsilon_us;
    refused(run, "sold-out").any(|op| {
        let mut most = 0;
        let mut seen = Vec::new();
        for first in run.history.ops.iter().filter(|other| other.role == Role::Order) {
            let theirs = || run.history.ops.iter().filter(|other| other.intent == first.intent);
            if seen.contains(&first.intent) || theirs().all(|o| matches!(o.outcome, Outcome::Fail | Outcome::Dropped)) {
                continue;
            }
            seen.push(first.intent);
            let key = format!("k{}", first.intent);
            let made = run.audit.ledger.iter().find(|row| row.key.as_deref() == Some(key.as_str()));
            let back = made.and_then(|made| {
                run.audit.ledger.iter().find(|row| row.kind == EntryKind::Release && row.order == made.order)
            });
            let gone = back.is_some_and(|row| surely(run, stamp(row) + 2 * epsilon) < first_asked(run, op.intent));
            if !gone {
                most += i64::from(first.quantity).max(0);
            }
        }
        most + i64::from(op.quantity).max(1) <= run.rules.items[0].stock
    })
}

fn first_asked(run: &Run, intent: u64) -> Micros {
    run.history.ops.iter().filter(|op| op.intent == intent).map(|op| op.invoked_us).min().unwrap_or(Micros::MAX)
}

/// Until when the hold of a purchase was promised at least.
fn promised(run: &Run, intent: u64, stamped: Micros) -> Micros {
    let rules = &run.rules.items[0];
    (first_asked(run, intent).min(stamped) + rules.hold_us).min(rules.closes_us) - 2 * run.rules.epsilon_us
}

/// An order that its buyer knew as held came back early, and that buyer never paid or cancelled anything.
fn ended_unasked(run: &Run) -> bool {
    run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Release).any(|row| {
        if row.reason.as_deref() != Some("cancelled") {
            return false;
        }
        let Some(intent) = run.intent_of(&row.order) else { return false };
        let Some(told) = acknowledged(run, intent).filter(|op| op.role != Role::Lookup).min_by_key(|op| op.invoked_us)
        else {
            return false;
        };
        let idle =
            !run.history.ops.iter().any(|op| op.user == told.user && matches!(op.role, Role::Pay | Role::Cancel));
        idle && told.state == OrderState::Held
            && stamp(row) < promised(run, intent, Micros::MAX) - 2 * run.rules.epsilon_us
    })
}

fn untouched_hold(run: &Run) -> bool {
    run.audit.ledger.iter().filter(|row| row.kind == EntryKind::Reserve).any(|row| {
        let held = matches!(row.state, Some(OrderState::Held | OrderState::Expired));
        let until = row.expires_at_unix_us.unwrap_or(i64::MAX) - super::EPOCH_UNIX_US;
        held && run.intent_of(&row.order).is_some_and(|intent| until < promised(run, intent, stamp(row)) - 1_000)
    })
}

fn called_too_late(run: &Run) -> bool {
    let reason = run.history.names.find("hold-expired");
    let pays = run.history.ops.iter().filter(|op| op.role == Role::Pay && op.outcome == Outcome::Fail);
    pays.filter(|op| Some(op.reason) == reason).any(|op| {
        let mut told = acknowledged(run, op.intent).filter(|told| told.role != Role::Lookup);
        let held = told.all(|told| told.state == OrderState::Held) && acknowledged(run, op.intent).count() > 0;
        let theirs =
            |other: &&crate::history::Op| other.user == op.user && matches!(other.role, Role::Pay | Role::Cancel);
        let alone = run.history.ops.iter().filter(theirs).count() == 1;
        let by_lookup = acknowledged(run, op.intent).all(|told| told.role == Role::Lookup);
        held && !by_lookup && alone && op.completed_us < promised(run, op.intent, Micros::MAX)
    })
}

/// Somebody was told that they reached their limit, and all that they ever asked for and may have got is within it.
fn within_limit(run: &Run) -> bool {
    refused(run, "limit-reached").any(|op| {
        let theirs = || run.history.ops.iter().filter(|other| other.user == op.user && other.role == Role::Order);
        let open = |intent| {
            let mut ops = run.history.ops.iter().filter(|other| other.intent == intent);
            ops.any(|other| !matches!(other.outcome, Outcome::Fail | Outcome::Dropped))
        };
        let mut asked: Vec<_> =
            theirs().filter(|other| open(other.intent)).map(|o| (o.intent, o.quantity.max(0))).collect();
        asked.sort_unstable();
        asked.dedup();
        let most: i64 = asked.into_iter().map(|(_, quantity)| i64::from(quantity)).sum();
        most + i64::from(op.quantity) <= run.rules.items[0].per_user_limit
    })
}
