//! The time of the load, cut into pieces within which nothing changes that a comparison rests on: which faults are in
//! effect, which phases there are, and how many arrivals are planned.

use std::collections::HashMap;

use crate::history::{History, Micros};
use crate::measure::load::Arrivals;
use crate::summary::{FaultSummary, PhaseSummary, WindowEnd};

/// The load is taken for alike within slots of this width. Faults last for seconds, and a spike's edge is a moment.
const SLOT_US: Micros = 1_000_000;
/// Time before an injection that counts as undisturbed for nobody: what was under way then may have been hit.
const LEAD_US: Micros = 250_000;
/// Time after a recovery that counts as undisturbed for nobody: retries and what had piled up are still worked off.
const SETTLE_US: Micros = 500_000;
/// The load of two slots is alike if one plans at most this many times as many arrivals as the other.
const ALIKE: f64 = 2.0;
/// Or if they differ by less than arrivals at random do: so many standard deviations.
const ALIKE_SIGMA: f64 = 3.0;
/// Slots at most, a day of them: a wrong clock must not take all memory.
const MOST_SLOTS: Micros = 86_400;

/// From a fault's injection until all is well again.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// The fault, by its place in the summary.
    pub fault: usize,
    /// When it was injected.
    pub from: Micros,
    /// When the window ends, within the load.
    pub until: Micros,
    /// What ends it.
    pub end: WindowEnd,
}

/// A piece of the load's time.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its start.
    pub from: Micros,
    /// Its end.
    pub until: Micros,
    /// Pieces with the same number have the same phases and the same load.
    pub like: u32,
    /// Pieces with the same number have the same load, whatever the phase.
    pub load: u32,
    /// Whether no fault is, was just, or is just about to be in effect.
    pub undisturbed: bool,
    /// The windows that it lies in.
    pub windows: Vec<usize>,
}

impl Piece {
    /// Its length.
    pub fn length(&self) -> Micros {
        self.until - self.from
    }
}

/// All pieces of the load's time, in order and without gaps.
#[derive(Debug)]
pub struct Timeline {
    pub pieces: Vec<Piece>,
    pub windows: Vec<Window>,
    starts: Vec<Micros>,
    end: Micros,
}

impl Timeline {
    /// Cuts the time of a run; none if no fault was injected.
    pub fn of(
        history: &History,
        faults: &[FaultSummary],
        phases: &[PhaseSummary],
        arrivals: &Arrivals,
    ) -> Option<Timeline> {
        let end = end(history);
        let windows = windows(faults, end);
        if windows.is_empty() {
            return None;
        }
        let disturbed: Vec<(Micros, Micros)> = windows.iter().map(|w| disturbed(w, end)).collect();
        let edges = windows.iter().flat_map(|w| [w.from, w.until]);
        let edges = edges.chain(disturbed.iter().flat_map(|(from, until)| [*from, *until]));
        let edges = edges.chain(phases.iter().flat_map(|p| [p.from_us, p.until_us]));
        let mut cuts: Vec<Micros> = edges.filter(|cut| (1..end).contains(cut)).collect();
        cuts.extend((0..=end / SLOT_US).map(|slot| slot * SLOT_US).filter(|cut| *cut < end));
        cuts.sort_unstable();
        cuts.dedup();
        let loads = loads(history, arrivals, end);
        let mut likes = HashMap::new();
        let piece = |(n, from): (usize, &Micros)| {
            let from = *from;
            let within: Vec<usize> =
                (0..phases.len()).filter(|p| (phases[*p].from_us..phases[*p].until_us).contains(&from)).collect();
            let load = loads[(from / SLOT_US) as usize];
            let next = likes.len() as u32;
            Piece {
                from,
                until: cuts.get(n + 1).copied().unwrap_or(end),
                like: *likes.entry((within, load)).or_insert(next),
                load,
                undisturbed: !disturbed.iter().any(|(since, until)| (*since..*until).contains(&from)),
                windows: (0..windows.len()).filter(|w| (windows[*w].from..windows[*w].until).contains(&from)).collect(),
            }
        };
        let pieces = cuts.iter().enumerate().map(piece).collect();
        Some(Timeline { pieces, windows, starts: cuts, end })
    }

    /// The piece in which a moment lies; none if it lies outside of the load.
    pub fn at(&self, moment: Micros) -> Option<&Piece> {
        let after = self.starts.partition_point(|start| *start <= moment);
        (after > 0 && moment < self.end).then(|| &self.pieces[after - 1])
    }

    /// The slot in which a moment lies, for what is known by the second.
    pub fn slot(moment: Micros) -> usize {
        usize::try_from(moment / SLOT_US).unwrap_or(0)
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        Timeline::slot(self.end) + 1
    }

    /// The faults whose windows a window shares some time with: what they did to the buyers cannot be told apart.
    pub fn overlapping(&self, window: usize) -> impl Iterator<Item = usize> {
        let own = self.windows[window];
        let others = self.windows.iter().filter(move |w| w.fault != own.fault);
        others.filter(move |w| w.from < own.until && own.from < w.until).map(|w| w.fault)
    }
}

/// The end of the load: as planned, or earlier where the run was cut short.
fn end(history: &History) -> Micros {
    let last = history.ops.iter().map(|op| op.completed_us).max().unwrap_or(0);
    let planned = if history.info.duration_us > 0 { history.info.duration_us } else { Micros::MAX };
    last.min(planned).clamp(0, MOST_SLOTS * SLOT_US)
}

/// The window of each fault that was injected during the load.
fn windows(faults: &[FaultSummary], end: Micros) -> Vec<Window> {
    let us = |ms: Option<f64>| ms.filter(|ms| ms.is_finite()).map(|ms| (ms * 1e3).round() as Micros);
    let window = |(fault, summary): (usize, &FaultSummary)| {
        let from = us(summary.injected_at_ms).filter(|from| *from < end)?.max(0);
        let (until, kind) = match (us(summary.healed_at_ms), us(summary.recovered_at_ms)) {
            // The steady state may hold again before the healing is complete.
            (Some(healed), Some(recovered)) => (recovered.max(healed), WindowEnd::Recovery),
            (Some(healed), None) => (healed, WindowEnd::Healing),
            (None, _) => (end, WindowEnd::EndOfLoad),
        };
        Some(Window { fault, from, until: until.clamp(from, end), end: kind })
    };
    faults.iter().enumerate().filter_map(window).collect()
}

/// The time that a window makes useless as a yardstick. After a fault that nobody saw recover, all is.
fn disturbed(window: &Window, end: Micros) -> (Micros, Micros) {
    let until = if window.end == WindowEnd::Recovery { window.until + SETTLE_US } else { end };
    (window.from - LEAD_US, until)
}

/// A number for the load of each slot, the same for those whose load is alike.
///
/// The schedule is made before the run, so no fault can change it. Slots are taken by their rate from the lowest up; each
/// that is no longer like the lowest of its kind begins the next kind.
fn loads(history: &History, arrivals: &Arrivals, end: Micros) -> Vec<u32> {
    let slots = Timeline::slot(end) + 1;
    let mut rates = vec![0.0; slots];
    for index in arrivals.sent.iter().chain(&arrivals.dropped) {
        let at = history.ops[*index as usize].intended_us;
        if (0..end).contains(&at) {
            rates[Timeline::slot(at)] += 1.0;
        }
    }
    // The last slot may be cut short.
    let last = (end - (slots as Micros - 1) * SLOT_US).max(SLOT_US / 10) as f64 / SLOT_US as f64;
    rates[slots - 1] /= last;
    let mut order: Vec<usize> = (0..slots).collect();
    order.sort_by(|a, b| rates[*a].total_cmp(&rates[*b]));
    let mut kinds = vec![0; slots];
    let (mut kind, mut lowest) = (0, rates[order[0]]);
    for slot in order {
        if !alike(lowest, rates[slot]) {
            kind += 1;
            lowest = rates[slot];
        }
        kinds[slot] = kind;
    }
    kinds
}

fn alike(low: f64, high: f64) -> bool {
    high <= low * ALIKE || high - low <= ALIKE_SIGMA * (low + high).sqrt()
}
