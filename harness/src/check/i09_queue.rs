//! I9: a ticket's result is final, and comes in time.
//!
//! Judged from the buyers' replies alone. A result is that there is an order, with its id, or that there is none, with
//! the reason; that an order goes from held to paid is no other result. Lateness is only seen by those who look: a ticket
//! counts as late if somebody who asked after the deadline was clearly told that it is undecided.

use super::index::{Class, QuickMap};
use super::tally::{Tally, count, seconds};
use super::witness::Witness;
use super::{Case, Check, Finding};
use crate::history::{Micros, Op, Outcome, Role, Sym};

pub(super) struct Queue;

impl Check for Queue {
    fn id(&self) -> &'static str {
        "I9"
    }

    fn name(&self) -> &'static str {
        "queue"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_whole_history();
        let tickets = tickets(case);
        let nameless = nameless(case);
        if tickets.is_empty() && nameless == 0 {
            return tally.finish(self, "no tickets were issued: nothing to judge".to_owned());
        }
        let healed = last_healing(case);
        let (mut ordered, mut refused, mut open) = (0, 0, 0);
        for ticket in &tickets {
            ticket.judge_result(case, &mut tally);
            let decided = match ticket.result {
                Some((_, Said::Ordered(_))) => &mut ordered,
                Some(_) => &mut refused,
                None => &mut open,
            };
            *decided += 1;
            let late = healed.is_some_and(|healed| ticket.judge_lateness(case, healed, &mut tally));
            if ticket.result.is_none() && !late {
                unjudged(case, ticket, healed, &mut tally);
            }
        }
        if nameless > 0 {
            tally.gap(format!(
                "{} accepted without a ticket, and nothing more was heard: have the order step capture `ticket`",
                count(nameless, "order")
            ));
        }
        let issued = count(tickets.len() as i64, "ticket");
        tally.finish(self, format!("{issued}: {ordered} came to an order, {refused} were refused, {open} stayed open"))
    }
}

/// What a reply said of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// There is an order, by its id if the reply names one.
    Ordered(Sym),
    /// There is none, for this reason.
    Refused(Sym),
    /// It is not decided.
    Pending,
    /// Nobody knows such a ticket.
    Missing,
}

impl Said {
    /// What a reply says; none if it says nothing about the ticket.
    fn of(case: &Case<'_>, op: &Op) -> Option<Said> {
        match op.outcome {
            _ if op.is_pending() => Some(Said::Pending),
            _ if op.ticket_refused() => Some(Said::Refused(op.reason)),
            Outcome::Ok if op.role == Role::Ticket => Some(Said::Ordered(op.order)),
            Outcome::Fail if op.status == 404 && op.role == Role::Ticket => Some(Said::Missing),
            Outcome::Fail if case.history.names.get(op.reason) == "not-found" => Some(Said::Missing),
            _ => None,
        }
    }

    fn is_result(self) -> bool {
        matches!(self, Said::Ordered(_) | Said::Refused(_))
    }

    /// Whether two results are the same one, as far as both say.
    fn agrees(self, other: Said) -> bool {
        match (self, other) {
            (Said::Ordered(a), Said::Ordered(b)) => a == b || a == Sym(0) || b == Sym(0),
            _ => self == other,
        }
    }

    fn words(self, case: &Case<'_>) -> String {
        match self {
            Said::Ordered(order) => case.order(order),
            Said::Refused(Sym(0)) => "refused".to_owned(),
            Said::Refused(reason) => format!("refused ({})", case.history.names.get(reason)),
            Said::Pending => "not decided".to_owned(),
            Said::Missing => "unknown to the service".to_owned(),
        }
    }
}

/// All that was heard of one ticket.
struct Ticket {
    id: Sym,
    user: u64,
    /// When its buyer was told that the order is accepted.
    accepted: Micros,
    /// Every clear reply, by time of completion.
    heard: Vec<(u32, Said)>,
    /// The first result, and the op that told it.
    result: Option<(u32, Said)>,
}

fn tickets(case: &Case<'_>) -> Vec<Ticket> {
    let mut place: QuickMap<u32, usize> = QuickMap::default();
    let mut tickets: Vec<Ticket> = Vec::new();
    for n in &case.index.scan.tickets {
        let op = &case.history.ops[*n as usize];
        if op.ticket == Sym(0) {
            continue;
        }
        let at = *place.entry(op.ticket.0).or_insert_with(|| {
            tickets.push(Ticket {
                id: op.ticket,
                user: op.user,
                accepted: Micros::MAX,
                heard: Vec::new(),
                result: None,
            });
            tickets.len() - 1
        });
        // A ticket whose acceptance was not recorded was accepted before anybody asked about it.
        let accepted = if op.role == Role::Ticket { op.invoked_us } else { op.completed_us };
        tickets[at].accepted = tickets[at].accepted.min(accepted);
        if let Some(said) = Said::of(case, op) {
            tickets[at].heard.push((*n, said));
        }
    }
    for ticket in &mut tickets {
        ticket.heard.sort_unstable_by_key(|(n, _)| (case.history.ops[*n as usize].completed_us, *n));
        ticket.result = ticket.heard.iter().copied().find(|(_, said)| said.is_result());
    }
    tickets
}

/// Orders that were accepted without a ticket, and of which nothing was heard in another way.
fn nameless(case: &Case<'_>) -> i64 {
    let ops = case.index.scan.tickets.iter().map(|n| &case.history.ops[*n as usize]);
    let mut intents: Vec<u32> = ops
        .filter(|op| op.role == Role::Order && op.ticket == Sym(0))
        .filter_map(|op| case.index.intent_of(op.intent))
        .filter(|intent| case.index.intents[*intent as usize].class == Class::Info)
        .collect();
    intents.sort_unstable();
    intents.dedup();
    intents.len() as i64
}

/// When the last fault was healed; none if one never was, since then no deadline has begun.
fn last_healing(case: &Case<'_>) -> Option<Micros> {
    let injected = case.index.faults.iter().filter(|fault| fault.injected.is_some());
    injected.map(|fault| fault.healed).try_fold(Micros::MIN, |last, healed| Some(last.max(healed?)))
}

impl Ticket {
    fn judge_result(&self, case: &Case<'_>, tally: &mut Tally<'_>) {
        let Some((first, result)) = self.result else { return };
        let told = case.history.ops[first as usize].completed_us;
        let other = self.heard.iter().find(|(n, said)| {
            // An order that is sent again may be answered as it was the first time.
            let op = &case.history.ops[*n as usize];
            let asked_after = op.role == Role::Ticket && op.invoked_us >= told;
            if said.is_result() { !said.agrees(result) } else { asked_after }
        });
        let Some((n, said)) = other else { return };
        let kind = if said.is_result() { "tickets with two results" } else { "tickets whose result was taken back" };
        tally.violation(kind, |case, witness| {
            self.show(case, witness);
            witness.op(case, first);
            witness.bad_op(case, *n);
            format!(
                "ticket {} of {} was {}, and at {} it was {}",
                case.history.names.get(self.id),
                case.user(self.user),
                result.words(case),
                seconds(case.history.ops[*n as usize].completed_us),
                said.words(case)
            )
        });
    }

    /// Whether somebody who asked after the deadline was clearly told that there is no result.
    fn judge_lateness(&self, case: &Case<'_>, healed: Micros, tally: &mut Tally<'_>) -> bool {
        let deadline = self.deadline(case, healed);
        let told = self.result.map_or(Micros::MAX, |(n, _)| case.history.ops[n as usize].completed_us);
        let late = self.heard.iter().rev().find(|(n, said)| {
            let op = &case.history.ops[*n as usize];
            !said.is_result() && op.role == Role::Ticket && op.invoked_us > deadline && op.invoked_us < told
        });
        let Some((n, said)) = late else { return false };
        tally.violation("tickets without a result by the deadline", |case, witness| {
            self.show(case, witness);
            witness.bad_op(case, *n);
            witness.note(format!(
                "a result is due {} after the later of acceptance and the last healing: by {}",
                seconds(case.rules.ticket_deadline_us),
                seconds(deadline)
            ));
            format!(
                "ticket {} of {} was accepted at {}, and at {} it was still {}",
                case.history.names.get(self.id),
                case.user(self.user),
                seconds(self.accepted),
                seconds(case.history.ops[*n as usize].invoked_us),
                said.words(case)
            )
        });
        true
    }

    fn deadline(&self, case: &Case<'_>, healed: Micros) -> Micros {
        self.accepted.max(healed).saturating_add(case.rules.ticket_deadline_us)
    }

    /// The attempts to order, and the first and the last that was heard of the ticket.
    fn show(&self, case: &Case<'_>, witness: &mut Witness) {
        let accepted = self.heard.iter().filter(|(n, _)| case.history.ops[*n as usize].role != Role::Ticket);
        accepted.take(2).for_each(|(n, _)| witness.op(case, *n));
        let asked = || self.heard.iter().filter(|(n, _)| case.history.ops[*n as usize].role == Role::Ticket);
        asked().take(1).chain(asked().next_back()).for_each(|(n, _)| witness.op(case, *n));
    }
}

/// A ticket without a result, of which nobody can say that it is late.
fn unjudged(case: &Case<'_>, ticket: &Ticket, healed: Option<Micros>, tally: &mut Tally<'_>) {
    // Another reply about the purchase may have decided it: then there is nothing left to wait for.
    let intent = ticket.heard.first().and_then(|(n, _)| case.index.intent_of(case.history.ops[*n as usize].intent));
    if intent.is_some_and(|intent| case.index.intents[intent as usize].class == Class::Ok) {
        return;
    }
    match healed {
        None => tally.gap("a fault was never healed, so the deadline of the tickets has not begun"),
        Some(_) => tally.gap(
            "of a ticket without a result nothing clear was heard after its deadline: have its step ask for longer \
             (`until`)",
        ),
    }
}
