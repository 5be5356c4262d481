//! The blast radius: what each fault changed for each cohort, against the undisturbed part of the same run.
//!
//! A fault's window lasts from its injection until the steady state held again, or until it was healed where that was
//! never seen. What it is held against has to be like it in all but the fault, or a spike would be taken for the fault:
//! the same phase of the load with as many arrivals planned, the same steps of the journeys, and goods to be had or not.
//! Where the undisturbed run has too little of that, another phase with a like load will do. Where it has none either, the whole
//! undisturbed run is shown beside it, and no change is claimed.
//!
//! Steps are weighed as the window has them: a fault that keeps buyers from paying must not look like one that makes them
//! faster, only because payments are slow. Steps that nobody makes undisturbed, such as looking up a lost order, are left out.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Arrivals;
use super::outcomes::Intents;
use crate::history::{History, Micros, Op, Outcome, Role, Sym};
use crate::summary::{BlastCell, BlastFault, BlastRadius, FaultSummary, Likeness, PhaseSummary};

mod effect;
mod time;

use effect::{Sample, Usual, Yardstick};
use time::Timeline;

/// Undisturbed samples of a stratum below which it is no yardstick.
const LEAST_SAMPLES: f64 = 30.0;
/// Undisturbed time of a stratum below which it is no yardstick.
const LEAST_TIME_US: f64 = 1e6;
/// The share of a window that may be left out of a comparison for want of anything like it.
const LEFT_OUT: f64 = 0.1;
/// How a service says that there is nothing left; see `load/classify.rs`.
const SOLD_OUT: &str = "sold-out";

/// What is compared with its like only: number of the phases and the load, whether the goods were gone, and the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stratum {
    like: u32,
    gone: bool,
    step: Sym,
}

/// The matrix of a run; none if no fault was injected, or where there is but one cohort.
pub fn blast_radius(
    history: &History,
    faults: &[FaultSummary],
    phases: &[PhaseSummary],
    arrivals: &Arrivals,
    intents: &Intents,
) -> Option<BlastRadius> {
    let symbols: BTreeSet<Sym> = history.ops.iter().map(|op| op.cohort).collect();
    if symbols.len() < 2 {
        return None;
    }
    let time = Timeline::of(history, faults, phases, arrivals)?;
    let mut symbols: Vec<Sym> = symbols.into_iter().collect();
    symbols.sort_by_key(|symbol| history.names.get(*symbol));
    let mut cohorts: Vec<Cohort> = symbols.iter().map(|_| Cohort::new(&time)).collect();
    let place = |symbol: Sym| symbols.binary_search_by_key(&history.names.get(symbol), |s| history.names.get(*s)).ok();
    gone(history, &time, &mut cohorts, place);
    for op in &history.ops {
        if let Some(cohort) = place(op.cohort) {
            cohorts[cohort].see(op, &time);
        }
    }
    for (at, symbol) in intents.acknowledged.iter().zip(&intents.acknowledged_by) {
        if let Some(cohort) = place(*symbol) {
            cohorts[cohort].acknowledge(*at, &time);
        }
    }
    let loads = time.pieces.iter().map(|piece| (piece.like, piece.load)).collect();
    let row = |window: usize| {
        let own = time.windows[window];
        let names: BTreeSet<usize> = time.overlapping(window).collect();
        let cells = symbols.iter().zip(&cohorts).map(|(symbol, cohort)| {
            let name = history.names.get(*symbol).to_string();
            cohort.cell(name, window, &loads)
        });
        BlastFault {
            fault: faults[own.fault].id.clone(),
            from_ms: own.from as f64 / 1e3,
            until_ms: own.until as f64 / 1e3,
            ended_by: own.end,
            overlapped_by: names.into_iter().map(|fault| faults[fault].id.clone()).collect(),
            cells: cells.collect(),
        }
    };
    let names = symbols.iter().map(|symbol| history.names.get(*symbol).to_string());
    Some(BlastRadius { cohorts: names.collect(), faults: (0..time.windows.len()).map(row).collect() })
}

/// Notes for each cohort in which seconds its goods were gone: buyers were told so rather than sold to. A second in which
/// nobody got an answer is like the one before it.
fn gone(history: &History, time: &Timeline, cohorts: &mut [Cohort], place: impl Fn(Sym) -> Option<usize>) {
    let sold_out = history.names.find(SOLD_OUT);
    let mut answers = vec![vec![0_i64; time.slots()]; cohorts.len()];
    for op in history.ops.iter().filter(|op| matches!(op.role, Role::Order | Role::Ticket)) {
        let refused = op.outcome == Outcome::Fail && Some(op.reason) == sold_out;
        if let (Some(cohort), Some(_), true) = (place(op.cohort), time.at(op.intended_us), refused || op.acknowledges())
        {
            answers[cohort][Timeline::slot(op.intended_us)] += if refused { 1 } else { -1 };
        }
    }
    for (cohort, answers) in cohorts.iter_mut().zip(answers) {
        let mut now = false;
        for (slot, balance) in answers.into_iter().enumerate() {
            now = if balance == 0 { now } else { balance > 0 };
            cohort.gone[slot] = now;
        }
    }
    cohorts.iter_mut().for_each(|cohort| cohort.measure_time(time));
}

/// Ops, orders and time of one part of the run, by stratum.
#[derive(Debug, Clone, Default)]
struct Part {
    samples: BTreeMap<Stratum, Vec<Sample>>,
    /// Microseconds; the step is nobody's.
    time: BTreeMap<Stratum, f64>,
    orders: BTreeMap<Stratum, u64>,
}

/// What is known of one cohort.
#[derive(Debug)]
struct Cohort {
    gone: Vec<bool>,
    undisturbed: Part,
    windows: Vec<Part>,
    /// Undisturbed time by block and stratum, and the orders of each block.
    blocks: BTreeMap<u32, (BTreeMap<Stratum, f64>, f64)>,
}

impl Cohort {
    fn new(time: &Timeline) -> Cohort {
        Cohort {
            gone: vec![false; time.slots()],
            undisturbed: Part::default(),
            windows: vec![Part::default(); time.windows.len()],
            blocks: BTreeMap::new(),
        }
    }

    fn stratum(&self, at: Micros, like: u32, step: Sym) -> Stratum {
        Stratum { like, gone: self.gone[Timeline::slot(at)], step }
    }

    fn measure_time(&mut self, time: &Timeline) {
        for piece in &time.pieces {
            let stratum = self.stratum(piece.from, piece.like, Sym(0));
            for window in &piece.windows {
                *self.windows[*window].time.entry(stratum).or_default() += piece.length() as f64;
            }
            if piece.undisturbed {
                *self.undisturbed.time.entry(stratum).or_default() += piece.length() as f64;
                let mut from = piece.from;
                while from < piece.until {
                    let until = effect::next_block(from).min(piece.until);
                    let (times, _) = self.blocks.entry(effect::block(from)).or_default();
                    *times.entry(stratum).or_default() += (until - from) as f64;
                    from = until;
                }
            }
        }
    }

    fn see(&mut self, op: &Op, time: &Timeline) {
        let Some(piece) = time.at(op.intended_us) else { return };
        let stratum = self.stratum(op.intended_us, piece.like, op.step);
        let latency = (op.outcome != Outcome::Dropped).then(|| op.latency_us());
        let sample = Sample::new(op.intended_us, latency, op.is_unanswered());
        for window in &piece.windows {
            self.windows[*window].samples.entry(stratum).or_default().push(sample);
        }
        if piece.undisturbed {
            self.undisturbed.samples.entry(stratum).or_default().push(sample);
        }
    }

    fn acknowledge(&mut self, at: Micros, time: &Timeline) {
        let Some(piece) = time.at(at) else { return };
        let stratum = self.stratum(at, piece.like, Sym(0));
        for window in &piece.windows {
            *self.windows[*window].orders.entry(stratum).or_default() += 1;
        }
        if piece.undisturbed {
            *self.undisturbed.orders.entry(stratum).or_default() += 1;
            self.blocks.entry(effect::block(at)).or_default().1 += 1.0;
        }
    }

    fn cell(&self, cohort: String, window: usize, loads: &BTreeMap<u32, u32>) -> BlastCell {
        let part = &self.windows[window];
        let count = |samples: &BTreeMap<Stratum, Vec<Sample>>| -> BTreeMap<Stratum, f64> {
            samples.iter().map(|(stratum, list)| (*stratum, list.len() as f64)).collect()
        };
        let pairs = Pairs::of(&count(&part.samples), &count(&self.undisturbed.samples), loads, LEAST_SAMPLES);
        let strata = pairs.weights.keys().map(|stratum| (pairs.weights[stratum], &self.undisturbed.samples[stratum]));
        let yardstick: Yardstick<'_> = strata.map(|(weight, list)| (weight, list.as_slice())).collect();
        let compared: Vec<Sample> = pairs.compared.iter().flat_map(|s| &part.samples[s]).copied().collect();
        let all: usize = part.samples.values().map(Vec::len).sum();
        BlastCell {
            cohort,
            samples: compared.len() as u64,
            undisturbed: yardstick.iter().map(|(_, list)| list.len() as u64).sum(),
            left_out: (all - compared.len()) as u64,
            p99: effect::p99(&compared, &yardstick, pairs.against),
            errors: effect::errors(&compared, &yardstick, pairs.against),
            goodput: self.goodput(part, loads),
        }
    }

    fn goodput(&self, part: &Part, loads: &BTreeMap<u32, u32>) -> crate::summary::Effect {
        let usual = &self.undisturbed;
        if usual.orders.is_empty() && part.orders.is_empty() {
            return effect::untold("it orders nothing".to_string(), Likeness::default());
        }
        let pairs = Pairs::of(&part.time, &usual.time, loads, LEAST_TIME_US);
        let orders = pairs.compared.iter().filter_map(|stratum| part.orders.get(stratum)).sum();
        let seconds = pairs.compared.iter().map(|stratum| part.time[stratum]).sum::<f64>() / 1e6;
        let of = |stratum: &Stratum| usual.orders.get(stratum).copied().unwrap_or(0);
        let strata: Vec<Usual> =
            pairs.weights.iter().map(|(stratum, scale)| Usual { orders: of(stratum), scale: *scale }).collect();
        let rate = |stratum: &Stratum| of(stratum) as f64 / usual.time[stratum];
        let expected = |times: &BTreeMap<Stratum, f64>| times.iter().map(|(s, time)| rate(s) * time).sum::<f64>();
        let blocks: Vec<(f64, f64)> = self.blocks.values().map(|(times, seen)| (*seen, expected(times))).collect();
        effect::goodput(orders, seconds, &strata, effect::spread(&blocks), pairs.against)
    }
}

/// Which strata of a window are compared, and with what.
#[derive(Debug)]
struct Pairs {
    /// The window's strata that something is known about.
    compared: Vec<Stratum>,
    /// For each undisturbed stratum, how much of the window one unit of it stands for.
    weights: BTreeMap<Stratum, f64>,
    against: Likeness,
}

impl Pairs {
    /// Finds for each stratum of a window its like among the undisturbed ones; both are given with their size, and of
    /// undisturbed ones at least so much is needed.
    fn of(
        window: &BTreeMap<Stratum, f64>,
        undisturbed: &BTreeMap<Stratum, f64>,
        loads: &BTreeMap<u32, u32>,
        least: f64,
    ) -> Pairs {
        let similar = |own: &Stratum, likeness: Likeness| -> Vec<Stratum> {
            let fits = |other: &&Stratum| {
                own.step == other.step
                    && match likeness {
                        Likeness::Phase => own == *other,
                        Likeness::Load => own.gone == other.gone && loads[&own.like] == loads[&other.like],
                        Likeness::Run => true,
                    }
            };
            let found: Vec<Stratum> = undisturbed.keys().filter(fits).copied().collect();
            if found.iter().map(|s| undisturbed[s]).sum::<f64>() < least { Vec::new() } else { found }
        };
        let size = |strata: &[(Stratum, Likeness, Vec<Stratum>)], wanted: &dyn Fn(Likeness) -> bool| -> f64 {
            strata.iter().filter(|(_, likeness, _)| wanted(*likeness)).map(|(own, ..)| window[own]).sum()
        };
        let closest = |own: &Stratum| {
            let levels = [Likeness::Phase, Likeness::Load, Likeness::Run];
            let found = levels.into_iter().map(|likeness| (*own, likeness, similar(own, likeness)));
            found.into_iter().find(|(.., strata)| !strata.is_empty())
        };
        let mut matched: Vec<_> = window.keys().filter_map(closest).collect();
        let known = size(&matched, &|_| true);
        let against = if size(&matched, &|likeness| likeness == Likeness::Run) > known * LEFT_OUT {
            // Too much of it has no like: then all of it is held against the same.
            matched.iter_mut().for_each(|(own, _, strata)| *strata = similar(own, Likeness::Run));
            Likeness::Run
        } else {
            matched.retain(|(_, likeness, _)| *likeness != Likeness::Run);
            let elsewhere = size(&matched, &|likeness| likeness == Likeness::Load);
            if elsewhere > known * LEFT_OUT { Likeness::Load } else { Likeness::Phase }
        };
        let mut weights: BTreeMap<Stratum, f64> = BTreeMap::new();
        for (own, _, strata) in &matched {
            let there_are: f64 = strata.iter().map(|s| undisturbed[s]).sum();
            for stratum in strata {
                *weights.entry(*stratum).or_default() += window[own] / there_are;
            }
        }
        Pairs { compared: matched.into_iter().map(|(own, ..)| own).collect(), weights, against }
    }
}
