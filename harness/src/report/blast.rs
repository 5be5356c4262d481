//! The words of the blast radius that all reports share.

use super::format;
use crate::summary::{BlastCell, BlastFault, BlastRadius, Change, Effect, Likeness, Summary, WindowEnd};

/// A figure of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    P99,
    Errors,
    Goodput,
}

impl Measure {
    /// All, in the order in which they stand.
    pub(crate) const ALL: [Measure; 3] = [Measure::P99, Measure::Errors, Measure::Goodput];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Measure::P99 => "TP99",
            Measure::Errors => "errors",
            Measure::Goodput => "goodput",
        }
    }

    /// What became of it in a cell.
    pub(crate) fn of(self, cell: &BlastCell) -> &Effect {
        match self {
            Measure::P99 => &cell.p99,
            Measure::Errors => &cell.errors,
            Measure::Goodput => &cell.goodput,
        }
    }

    /// The effect in a few letters: `×4.2`, `+12.3 pp`; why there is none where there is none.
    pub(crate) fn short(self, effect: &Effect) -> String {
        let Some(value) = effect.effect.filter(|value| value.is_finite()) else {
            // Who never orders has no goodput to lose.
            return if self == Measure::Goodput && !needs_samples(effect) { format::NONE } else { "too few" }
                .to_owned();
        };
        let text = self.amount(value);
        if effect.against == Likeness::Run { format!("{text} ?") } else { text }
    }

    fn amount(self, value: f64) -> String {
        match self {
            Measure::P99 | Measure::Goodput => format!("×{}", format::number(value)),
            Measure::Errors => {
                let points = format::number((value * 1_000.0).round() / 10.0);
                if value > 0.0 && points != "0" { format!("+{points} pp") } else { format!("{points} pp") }
            }
        }
    }

    /// Both sides: `12.0 ms → 48.0 ms`.
    pub(crate) fn sides(self, effect: &Effect) -> String {
        match (effect.without, effect.with) {
            (Some(without), Some(with)) => format!("{} → {}", self.value(without), self.value(with)),
            _ => format::NONE.to_owned(),
        }
    }

    fn value(self, value: f64) -> String {
        match self {
            Measure::P99 => format::millis(value / 1e3),
            Measure::Errors => format!("{}%", format::number(value * 100.0)),
            Measure::Goodput => format!("{}/s", format::number(value)),
        }
    }

    /// The effect with its interval, or why there is none.
    pub(crate) fn long(self, effect: &Effect) -> String {
        match (effect.effect, effect.interval, &effect.missing) {
            (Some(_), Some([low, high]), _) => {
                format!("{} (95%: {} to {})", self.short(effect), self.amount(low), self.amount(high))
            }
            (_, _, Some(why)) => why.clone(),
            _ => self.short(effect),
        }
    }

    /// How strong a change is, from 1 to 3.
    pub(crate) fn strength(self, effect: &Effect) -> u8 {
        let value = effect.effect.unwrap_or(1.0);
        let marks = match self {
            Measure::P99 => [2.25, 5.0].map(|mark: f64| value.max(1.0 / value) >= mark),
            Measure::Errors => [0.1, 0.3].map(|mark| value.abs() >= mark),
            Measure::Goodput => [2.0, 5.0].map(|mark: f64| value.max(1.0 / value) >= mark),
        };
        1 + marks.into_iter().map(u8::from).sum::<u8>()
    }
}

fn needs_samples(effect: &Effect) -> bool {
    effect.missing.as_deref().is_some_and(|why| why.starts_with("not enough"))
}

/// A change in one word; nothing where there is none.
pub(crate) fn change(effect: &Effect) -> &'static str {
    match effect.change {
        Change::None => "",
        Change::Worse => "worse",
        Change::Better => "better",
    }
}

/// The matrix, if there is anything in it.
pub(crate) fn matrix(summary: &Summary) -> Option<&BlastRadius> {
    summary.blast_radius.as_ref().filter(|blast| !blast.faults.is_empty() && !blast.cohorts.is_empty())
}

/// What has to be known of a fault's window to read its row.
pub(crate) fn remark(fault: &BlastFault) -> Option<String> {
    let end = match fault.ended_by {
        WindowEnd::Recovery => None,
        WindowEnd::Healing => Some("measured until it was healed, since no recovery was seen".to_owned()),
        WindowEnd::EndOfLoad => Some("measured until the end of the load, since it was never healed".to_owned()),
    };
    let others = &fault.overlapped_by;
    let others = (!others.is_empty()).then(|| format!("cannot be told apart from {}", others.join(", ")));
    let parts: Vec<String> = others.into_iter().chain(end).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Which cohorts a fault reached: `buyers (errors +24 pp, goodput ×0.61)`; none if nothing changed.
pub(crate) fn reached(fault: &BlastFault) -> Option<String> {
    let cohorts = fault.cells.iter().filter_map(|cell| {
        let changed = Measure::ALL.into_iter().filter(|m| m.of(cell).change != Change::None);
        let words: Vec<_> = changed.map(|m| format!("{} {}", m.name(), m.short(m.of(cell)))).collect();
        (!words.is_empty()).then(|| format!("{} ({})", cell.cohort, words.join(", ")))
    });
    let cohorts: Vec<_> = cohorts.collect();
    (!cohorts.is_empty()).then(|| cohorts.join(", "))
}

/// Whether some figure was held against a part of the run whose load was another.
pub(crate) fn doubtful(blast: &BlastRadius) -> bool {
    let mut cells = blast.faults.iter().flat_map(|fault| &fault.cells);
    cells.any(|cell| Measure::ALL.iter().any(|m| m.of(cell).effect.is_some() && m.of(cell).against == Likeness::Run))
}

/// What is compared with what, and what counts as a change.
pub(crate) const ABOUT: &str = "Each fault from its injection until the steady state held again, against the undisturbed \
    part of this run: the same steps in the same mix, the same phase, as many arrivals planned. Something changed where the 95% \
    interval of the difference excludes that nothing did and it is large enough to matter: TP99 by half and by 5 ms, errors \
    (requests without an answer) by 1 percentage point, goodput (acknowledged orders) by a fifth down or a quarter up.";

/// What the question mark stands for.
pub(crate) const DOUBT: &str = "With a question mark: no undisturbed part of the run had a like load, so it was held \
    against all of it, and the load may have made the difference.";

/// What a cell was held against.
pub(crate) fn against(cell: &BlastCell) -> &'static str {
    match cell.errors.against {
        Likeness::Phase => "same phase and load",
        Likeness::Load => "like load, other phase",
        Likeness::Run => "whole undisturbed run",
    }
}
