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

/// Latencies of every step and phase. An op belongs to the phase of its intended start, whenever it was answered:
/// that is the moment from which its buyer waited.
pub fn latency(history: &History, phases: &[PhaseSummary]) -> Latency {
    let pieces = Pieces::new(phases);
    let mut steps = Numbering::new(history.names.len());
    let mut cells: Vec<Vec<Option<Box<LatencyHistogram>>>> = vec![Vec::new(); pieces.count()];
    for op in history.ops.iter().filter(|op| op.outcome != Outcome::Dropped) {
        let step = steps.number(op.step.0);
        let row = &mut cells[pieces.at(op.intended_us)];
        if row.len() <= step {
            row.resize_with(step + 1, || None);
        }
        row[step].get_or_insert_with(Box::default).record(op.latency_us());
    }

    let name = |step: usize| history.names.get(Sym(steps.seen[step])).to_string();
    let merged = |wanted: &dyn Fn(usize) -> bool, step: Option<usize>| -> LatencyStats {
        let mut sum = LatencyHistogram::default();
        for (_, row) in cells.iter().enumerate().filter(|(piece, _)| wanted(*piece)) {
            let cells = row.iter().enumerate().filter(|(s, _)| step.is_none_or(|step| *s == step));
            cells.filter_map(|(_, cell)| cell.as_deref()).for_each(|cell| sum.merge(cell));
        }
        sum.stats()
    };
    let mut latency = Latency::default();
    for step in 0..steps.seen.len() {
        latency.steps.insert(name(step), merged(&|_| true, Some(step)));
    }
    let names: BTreeSet<&str> = phases.iter().map(|p| p.name.as_str()).collect();
    for phase in names {
        // A name announced twice is one phase with two spans.
        let inside = |piece: usize| phases.iter().any(|p| p.name == phase && pieces.covers(p, piece));
        latency.phases.insert(phase.to_string(), merged(&inside, None));
        let by_step: BTreeMap<String, LatencyStats> = (0..steps.seen.len())
            .map(|step| (name(step), merged(&inside, Some(step))))
            .filter(|(_, stats)| stats.count > 0)
            .collect();
        latency.phase_steps.insert(phase.to_string(), by_step);
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
