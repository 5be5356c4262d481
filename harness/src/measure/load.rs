//! How the load went: what was planned, what was sent, how late, and whether the generator can be believed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::hash::MulHasher;
use super::series::bins;
use super::stats::{LatencyHistogram, P99, P999};
use crate::history::{Event, History, INTENTS_PER_ARRIVAL, LoadTotals, Micros, Op, Outcome, Role, Sym};
use crate::summary::{Load, PhaseSummary};

/// Width of the bins in which the highest rate is sought.
pub const RATE_BIN_US: Micros = 100_000;
/// Share of the load's time for which a generator may wait for a processor.
const WAIT_FRACTION_LIMIT: f64 = 0.05;
/// Share of it beyond which its latencies are no longer the service's: of every five moments at which a reply could have
/// been read, one was spent waiting.
const WAIT_FRACTION_TRUSTED: f64 = 0.2;
/// Share of the load's time beyond which the generator's one thread has nothing left to be on time with.
const CPU_FRACTION_TRUSTED: f64 = 0.9;
/// Send lag at the peak, at the 99th percentile, that a generator with processor enough stays below.
const STARVED_LAG_US: u64 = 1_000;
/// Above this many ops, every 64th buyer is enough to tell which step journeys begin with.
const VOTE_BY_ALL: usize = 100_000;

/// By cohort, user and arrival: accounts may be shared, and a buyer may walk its journey again.
type BuyerMap<V> = HashMap<(u32, u64, u64), V, BuildHasherDefault<MulHasher>>;

/// The arrivals of a run: the planned starts, sent or dropped, as indices of ops.
///
/// A history does not mark them. An arrival is a dropped op, or the first attempt at the step with which the journeys
/// of its cohort begin; that step is the one at which most buyers of the cohort are first seen. Journeys that come back
/// to their first step would be counted twice by that, so where it gives more than the generator sent and there are as
/// many distinct buyers as it sent, the first op of each buyer is taken instead.
pub struct Arrivals {
    /// Arrivals sent.
    pub sent: Vec<u32>,
    /// Arrivals dropped.
    pub dropped: Vec<u32>,
}

impl Arrivals {
    /// Finds the arrivals of a history.
    pub fn find(history: &History, totals: Option<&LoadTotals>) -> Arrivals {
        let ops = &history.ops;
        let entry = entry_steps(ops, history.names.len());
        let mut arrivals = Arrivals { sent: Vec::new(), dropped: Vec::new() };
        for (index, op) in ops.iter().enumerate() {
            if op.outcome == Outcome::Dropped {
                arrivals.dropped.push(index as u32);
            } else if op.attempt <= 1 && entry[op.cohort.0 as usize] == Some(op.step) {
                arrivals.sent.push(index as u32);
            }
        }
        if let Some(totals) = totals
            && totals.sent < arrivals.sent.len() as u64
        {
            let mut first = first_ops(ops, |_| true);
            if totals.sent == first.len() as u64 {
                arrivals.sent = first.drain().map(|(_, index)| index).collect();
                arrivals.sent.sort_unstable();
            }
        }
        arrivals
    }

    /// When they were planned to start, sent or dropped.
    fn intended<'a>(&'a self, history: &'a History) -> impl Iterator<Item = Micros> + 'a {
        self.sent.iter().chain(&self.dropped).map(|index| history.ops[*index as usize].intended_us)
    }
}

/// The first op of each buyer by intended start. A buyer is an arrival of a user of a cohort.
fn first_ops(ops: &[Op], wanted: impl Fn(&Op) -> bool) -> BuyerMap<u32> {
    let mut first = BuyerMap::default();
    for (index, op) in ops.iter().enumerate() {
        if op.outcome == Outcome::Dropped || !wanted(op) {
            continue;
        }
        let slot = first.entry((op.cohort.0, op.user, op.intent / INTENTS_PER_ARRIVAL)).or_insert(index as u32);
        let earlier = |op: &Op| (op.intended_us, op.attempt);
        if earlier(op) < earlier(&ops[*slot as usize]) {
            *slot = index as u32;
        }
    }
    first
}

/// The step with which journeys begin, by the symbol of the cohort.
fn entry_steps(ops: &[Op], names: usize) -> Vec<Option<Sym>> {
    let mask = if ops.len() > VOTE_BY_ALL { 63 } else { 0 };
    let in_vote = |op: &Op| MulHasher::mix(op.user) & mask == 0 && !matches!(op.role, Role::Lookup | Role::Ticket);
    let mut votes: HashMap<(Sym, Sym), u64> = HashMap::new();
    for index in first_ops(ops, in_vote).values() {
        let op = &ops[*index as usize];
        *votes.entry((op.cohort, op.step)).or_default() += 1;
    }
    // The symbol decides between equals, so that the same history always gives the same answer.
    let mut votes: Vec<(u64, Reverse<Sym>, Sym)> =
        votes.into_iter().map(|((cohort, step), count)| (count, Reverse(step), cohort)).collect();
    votes.sort_unstable();
    let mut winners = vec![None; names];
    for (_, Reverse(step), cohort) in votes {
        winners[cohort.0 as usize] = Some(step);
    }
    winners
}

/// The generator's own totals, if the load ended.
pub fn totals(history: &History) -> Option<&LoadTotals> {
    history.events.iter().rev().find_map(|event| match event {
        Event::LoadTotals(totals) => Some(totals),
        _ => None,
    })
}

/// How late the arrivals were sent.
#[derive(Debug, Default)]
pub struct Lags {
    all: LatencyHistogram,
    at_peak: LatencyHistogram,
}

impl Lags {
    /// Of the arrivals that were sent; the peak is the phase with the highest planned rate, and all where there is none.
    pub fn of(history: &History, arrivals: &Arrivals, phases: &[PhaseSummary]) -> Lags {
        let mut lags = Lags::default();
        let peak = peak_phase(phases, arrivals.intended(history));
        for index in &arrivals.sent {
            let op = &history.ops[*index as usize];
            lags.all.record(op.send_lag_us());
            if peak.is_none_or(|p| (p.from_us..p.until_us).contains(&op.intended_us)) {
                lags.at_peak.record(op.send_lag_us());
            }
        }
        lags
    }

    /// What all but the latest hundredth stayed below, in microseconds, of all arrivals or of those at the peak. It
    /// judges the very arrivals of this run, and so needs no more of them than there are.
    pub fn all_but_a_hundredth_us(&self) -> u64 {
        self.all.quantile_us(P99.quantile).max(self.at_peak_us())
    }

    /// The same at the peak.
    pub fn at_peak_us(&self) -> u64 {
        self.at_peak.quantile_us(P99.quantile)
    }

    /// What there are too few arrivals for.
    fn missing(&self) -> Vec<String> {
        let all = [P99, P999].into_iter().filter_map(|percentile| percentile.missing(self.all.count()));
        all.chain(P99.missing_of("TP99 at the peak", self.at_peak.count())).collect()
    }
}

/// The figures of the load. Without the generator's totals, the history's own counts stand in.
pub fn load(history: &History, arrivals: &Arrivals, lags: &Lags) -> Load {
    let counted = LoadTotals {
        planned: (arrivals.sent.len() + arrivals.dropped.len()) as u64,
        sent: arrivals.sent.len() as u64,
        dropped: arrivals.dropped.len() as u64,
        ..LoadTotals::default()
    };
    let totals = totals(history).unwrap_or(&counted);
    let seconds = history.info.duration_us.max(0) as f64 / 1e6;
    let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
    let ops = &history.ops;
    let mut requests = 0;
    let counted_requests = ops.iter().filter(|op| op.outcome != Outcome::Dropped).inspect(|_| requests += 1);
    let requests_by_second = bins(counted_requests.map(|op| op.invoked_us), 1_000_000, 0);

    let wait_fraction = per_second(totals.generator_wait_s);
    let Lags { all, at_peak } = lags;
    Load {
        planned: totals.planned,
        sent: totals.sent,
        dropped: totals.dropped,
        requests,
        offered_rps: per_second(totals.planned as f64),
        peak_rps: highest(&bins(arrivals.intended(history), RATE_BIN_US, 0)) * (1e6 / RATE_BIN_US as f64),
        peak_requests_per_second: highest(&requests_by_second),
        send_lag_us_p50: all.quantile_us(0.5),
        send_lag_us_p99: all.percentile_us(P99),
        send_lag_us_p99_interval: all.interval_us(P99),
        send_lag_us_p999: all.percentile_us(P999),
        send_lag_us_p999_interval: all.interval_us(P999),
        send_lag_us_max: all.max_us(),
        send_lag_us_p99_at_peak: at_peak.percentile_us(P99),
        send_lag_us_p99_at_peak_interval: at_peak.interval_us(P99),
        send_lag_missing: lags.missing(),
        starved: wait_fraction > WAIT_FRACTION_LIMIT || lags.at_peak_us() > STARVED_LAG_US,
        generator_wait_fraction: wait_fraction,
        busy_max: totals.busy_max,
        buyers: totals.buyers,
        retries_suppressed: totals.retries_suppressed.clone(),
    }
}

/// Whether the generator was out of processor time: a reason to distrust what it measured.
pub fn overloaded(history: &History, load: &Load) -> Option<String> {
    let seconds = history.info.duration_us.max(0) as f64 / 1e6;
    let used = totals(history).map_or(0.0, |totals| totals.generator_cpu_s);
    let remedy = "give it a processor of its own, or lower the rate";
    if load.generator_wait_fraction > WAIT_FRACTION_TRUSTED {
        return Some(format!(
            "the generator waited for a processor during {:.0}% of the load, so its latencies are not the service's \
             alone: {remedy}",
            load.generator_wait_fraction * 100.0
        ));
    }
    (seconds > 0.0 && used > CPU_FRACTION_TRUSTED * seconds).then(|| {
        format!(
            "the generator's one thread was busy for {:.0}% of the load, so it cannot have been on time: {remedy}",
            used / seconds * 100.0
        )
    })
}

fn highest(bins: &[u32]) -> f64 {
    f64::from(bins.iter().copied().max().unwrap_or(0))
}

/// The phase with the highest planned rate.
fn peak_phase(phases: &[PhaseSummary], intended: impl Iterator<Item = Micros>) -> Option<&PhaseSummary> {
    let mut counts = vec![0_u64; phases.len()];
    for at in intended {
        for (phase, count) in phases.iter().zip(&mut counts) {
            *count += u64::from((phase.from_us..phase.until_us).contains(&at));
        }
    }
    let rate =
        |phase: &PhaseSummary, count: u64| count as f64 / phase.until_us.saturating_sub(phase.from_us).max(1) as f64;
    let with_arrivals = phases.iter().zip(counts).filter(|(_, count)| *count > 0);
    with_arrivals.max_by(|a, b| rate(a.0, a.1).total_cmp(&rate(b.0, b.1))).map(|(phase, _)| phase)
}

/// Where the generator's totals and the history disagree: reasons to distrust the measurement.
pub fn disagreements(history: &History, arrivals: &Arrivals) -> Vec<String> {
    let Some(totals) = totals(history) else {
        return vec![
            "the generator never wrote its totals, because the load did not end properly; the counts are those of the \
             history alone"
                .to_string(),
        ];
    };
    let mut reasons = Vec::new();
    let mut compare = |what: &str, generator: u64, history: u64| {
        if generator != history {
            reasons.push(format!("the generator counted {generator} arrivals {what}, the history has {history}"));
        }
    };
    compare("sent", totals.sent, arrivals.sent.len() as u64);
    compare("dropped", totals.dropped, arrivals.dropped.len() as u64);
    if totals.planned != totals.sent + totals.dropped {
        reasons.push(format!(
            "of {} planned arrivals, {} were sent and {} dropped: {} are unaccounted for",
            totals.planned,
            totals.sent,
            totals.dropped,
            totals.planned.abs_diff(totals.sent + totals.dropped)
        ));
    }
    reasons
}
