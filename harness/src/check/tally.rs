//! Adds up what a check came across into one finding: violations by kind, and what could not be judged.

use super::index::{Ack, Books, DurableOrder};
use super::witness::Witness;
use super::{Case, Check, Finding, Verdict};
use crate::history::{LedgerEntry, Micros};

/// What a check has found so far.
pub struct Tally<'c> {
    case: &'c Case<'c>,
    kinds: Vec<Kind>,
    gaps: Vec<String>,
}

/// Violations of one kind: the first is shown, the others are counted.
struct Kind {
    name: &'static str,
    count: u64,
    detail: String,
    witness: Witness,
}

impl<'c> Tally<'c> {
    /// Nothing found yet.
    pub fn new(case: &'c Case<'c>) -> Tally<'c> {
        Tally { case, kinds: Vec::new(), gaps: Vec::new() }
    }

    /// A violation. `kind` names many of its like: `orders acknowledged and then lost`. Only the first of a kind is
    /// worded and shown, so that a run with a million of them is judged as fast as any other.
    pub fn violation(&mut self, kind: &'static str, show: impl FnOnce(&Case<'c>, &mut Witness) -> String) {
        if let Some(known) = self.kinds.iter_mut().find(|known| known.name == kind) {
            known.count += 1;
            return;
        }
        let mut witness = Witness::default();
        let detail = show(self.case, &mut witness);
        self.kinds.push(Kind { name: kind, count: 1, detail, witness });
    }

    /// Something that could not be judged, and what would let it be.
    pub fn gap(&mut self, why: impl Into<String>) {
        // A line of a detail is one thing to read, so what others have said must not make lines.
        let why = why.into().split_whitespace().collect::<Vec<_>>().join(" ");
        if !self.gaps.contains(&why) {
            self.gaps.push(why);
        }
    }

    /// A violation of what the service was told when its items were set up. Where nobody told it, the scenario may be wrong
    /// about it, and nobody is accused.
    pub fn if_set_up(&mut self, kind: &'static str, show: impl FnOnce(&Case<'c>, &mut Witness) -> String) {
        if self.case.rules.set_up {
            return self.violation(kind, show);
        }
        self.gap(format!(
            "there would be {kind} if the service's stock, window and limits were those of the scenario, and nobody told it them or \
             set it back before the run; give it an audit listener"
        ));
    }

    /// What is missing from the history is missing from the judgement, too.
    pub fn needs_whole_history(&mut self) {
        for hole in &self.case.index.holes {
            self.gaps.push(hole.clone());
        }
    }

    /// What is in the ledger can only be judged where there is one.
    pub fn needs_ledger(&mut self) {
        if self.case.audit.is_none() {
            self.gap("there is no audit of the final state, so what the service kept is not known");
        } else if self.case.index.books.is_none() {
            self.gap("the audit has counters only: not one row of the ledger, though stock was taken");
        }
    }

    /// The finding. `seen` says what was judged from what, for when nothing is wrong; several things stand in a line each.
    pub fn finish(self, check: &dyn Check, seen: String) -> Finding {
        let (verdict, detail) = if !self.kinds.is_empty() {
            (Verdict::Fail, self.failed())
        } else if !self.gaps.is_empty() {
            (Verdict::Unknown, format!("Not judged: {}.\nWhat could be seen: {seen}.", self.gaps.join(";\n")))
        } else {
            (Verdict::Pass, sentence(&seen))
        };
        let witness = self.kinds.into_iter().next().map(|kind| kind.witness.finish(self.case)).unwrap_or_default();
        Finding { id: check.id().to_owned(), name: check.name().to_owned(), verdict, detail, witness }
    }

    fn failed(&self) -> String {
        let mut detail = String::new();
        for (n, kind) in self.kinds.iter().enumerate() {
            if n > 0 {
                detail.push_str("\nAlso: ");
            }
            detail.push_str(&sentence(&kind.detail));
            if kind.count > 1 {
                detail.push_str(&format!(" In all {} {}.", kind.count, kind.name));
            }
        }
        detail
    }
}

/// Text with a capital and a full stop, unless it begins with a name.
fn sentence(text: &str) -> String {
    let stop = if text.ends_with('.') { "" } else { "." };
    let word = text.split(' ').next().unwrap_or("");
    if !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return format!("{text}{stop}");
    }
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}{stop}", chars.as_str())
}

/// A number with its noun: `1 unit`, `3 units`.
pub fn count(n: i64, noun: &str) -> String {
    match (n, noun.strip_suffix("reply")) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}replies"),
        (_, None) => format!("{n} {noun}s"),
    }
}

/// A moment of the run, as people read it: `12.345 s`.
pub fn seconds(at: Micros) -> String {
    format!("{:.3} s", at as f64 / 1e6)
}

/// Shows an acknowledgement, and all that its buyer did about the order.
pub(super) fn show_all(case: &Case<'_>, ack: &Ack, witness: &mut Witness) {
    witness.op(case, ack.op);
    case.index.actions_of(ack).for_each(|op| witness.op(case, op));
}

/// A violation shown by the rows of one order, and by what its buyer did about it.
pub(super) fn show(
    books: &Books<'_>,
    order: &DurableOrder<'_>,
    bad: &LedgerEntry,
    kind: &'static str,
    tally: &mut Tally<'_>,
    detail: impl FnOnce() -> String,
) {
    tally.violation(kind, |case, witness| {
        if let Some(ack) = case.index.ack_of_order(order) {
            show_all(case, ack, witness);
        }
        for row in books.rows_of(order) {
            if row.seq == bad.seq { witness.bad_row(case, row) } else { witness.row(case, row) }
        }
        detail()
    });
}
