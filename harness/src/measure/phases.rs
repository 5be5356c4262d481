//! Latencies by phase and step, in one pass over the ops.

use std::collections::{BTreeMap, BTreeSet};

use super::stats::LatencyHistogram;
use crate::history::{Event, History, Micros, Outcome, Sym};
use crate::summary::{Latency, LatencyStats, PhaseSummary};

/// The phases in the order in which they were announced.
pub fn phases(history: &History) -> Vec<PhaseSummary> {
    let phase = |event: &Event| match event {
        Event::Phase { name, from_us, until_us } => {
            Some(PhaseSummary { name: name.clone(), from_us: *from_us, until_us: *until_us })
        }
        _ => None,
    };
    history.events.iter().filter_map(phase).collect()
}

/// The timeline cut at every start and end of a phase.
///
/// Phases may overlap; between two neighbouring cuts the set of phases does not change, so an op needs to be recorded
/// only once, and a phase is the sum of its pieces.
struct Pieces {
    cuts: Vec<Micros>,
}

impl Pieces {
    fn new(phases: &[PhaseSummary]) -> Pieces {
        let mut cuts: Vec<Micros> = phases.iter().flat_map(|p| [p.from_us, p.until_us]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        Pieces { cuts }
    }

    fn count(&self) -> usize {
        self.cuts.len() + 1
    }

    /// The piece in which a moment lies; the first is everything before the first cut.
    fn at(&self, moment: Micros) -> usize {
        self.cuts.partition_point(|cut| *cut <= moment)
    }

    /// Whether a phase covers a piece.
    fn covers(&self, phase: &PhaseSummary, piece: usize) -> bool {
        piece > 0 && piece < self.count() - 1 && {
            let start = self.cuts[piece - 1];
            phase.from_us <= start && start < phase.until_us
        }
    }
}

/// Histograms by piece of the timeline, cohort and step, each made when it has a sample: what is wanted is a sum of them.
struct Cells {
    pieces: Vec<Vec<Vec<Option<Box<LatencyHistogram>>>>>,
}

impl Cells {
    fn record(&mut self, (piece, cohort, step): (usize, usize, usize), us: u64) {
        let cohorts = &mut self.pieces[piece];
        if cohorts.len() <= cohort {
            cohorts.resize_with(cohort + 1, Vec::new);
        }
        let steps = &mut cohorts[cohort];
        if steps.len() <= step {
            steps.resize_with(step + 1, || None);
        }
        steps[step].get_or_insert_with(Box::default).record(us);
    }

    /// The sum over some pieces, and over one cohort or step if one is named.
    fn sum(&self, pieces: &dyn Fn(usize) -> bool, cohort: Option<usize>, step: Option<usize>) -> LatencyStats {
        let mut sum = LatencyHistogram::default();
        for (_, cohorts) in self.pieces.iter().enumerate().filter(|(piece, _)| pieces(*piece)) {
            for (_, steps) in cohorts.iter().enumerate().filter(|(c, _)| cohort.is_none_or(|cohort| *c == cohort)) {
                let cells = steps.iter().enumerate().filter(|(s, _)| step.is_none_or(|step| *s == step));
                cells.filter_map(|(_, cell)| cell.as_deref()).for_each(|cell| sum.merge(cell));
            }
        }
        sum.stats()
    }
}

/// Latencies of every step, phase and cohort. An op belongs to the phase of its intended start, whenever it was answered:
/// that is the moment from which its buyer waited.
pub fn latency(history: &History, phases: &[PhaseSummary]) -> Latency {
    let pieces = Pieces::new(phases);
    let (mut steps, mut cohorts) = (Numbering::new(history.names.len()), Numbering::new(history.names.len()));
    let mut cells = Cells { pieces: vec![Vec::new(); pieces.count()] };
    for op in history.ops.iter().filter(|op| op.outcome != Outcome::Dropped) {
        let place = (pieces.at(op.intended_us), cohorts.number(op.cohort.0), steps.number(op.step.0));
        cells.record(place, op.latency_us());
    }

    let name = |symbol: u32| history.names.get(Sym(symbol)).to_string();
    let by_step = |pieces: &dyn Fn(usize) -> bool, cohort: Option<usize>| -> BTreeMap<String, LatencyStats> {
        let steps = steps.seen.iter().enumerate();
        let stats = steps.map(|(step, symbol)| (name(*symbol), cells.sum(pieces, cohort, Some(step))));
        stats.filter(|(_, stats)| stats.count > 0).collect()
    };
    let everywhere = |_| true;
    let mut latency = Latency { steps: by_step(&everywhere, None), ..Latency::default() };
    for (cohort, symbol) in cohorts.seen.iter().enumerate() {
        latency.cohorts.insert(name(*symbol), by_step(&everywhere, Some(cohort)));
    }
    let names: BTreeSet<&str> = phases.iter().map(|p| p.name.as_str()).collect();
    for phase in names {
        // A name announced twice is one phase with two spans.
        let inside = |piece: usize| phases.iter().any(|p| p.name == phase && pieces.covers(p, piece));
        latency.phases.insert(phase.to_string(), cells.sum(&inside, None, None));
        latency.phase_steps.insert(phase.to_string(), by_step(&inside, None));
    }
    latency
}

/// Small consecutive numbers for symbols, in the order in which they are first seen.
pub(super) struct Numbering {
    numbers: Vec<u32>,
    /// The symbol behind each number.
    pub seen: Vec<u32>,
}

impl Numbering {
    /// For a table of `names` names.
    pub fn new(names: usize) -> Numbering {
        Numbering { numbers: vec![u32::MAX; names], seen: Vec::new() }
    }

    /// The number of a symbol.
    pub fn number(&mut self, symbol: u32) -> usize {
        let slot = &mut self.numbers[symbol as usize];
        if *slot == u32::MAX {
            *slot = self.seen.len() as u32;
            self.seen.push(symbol);
        }
        *slot as usize
    }
}
