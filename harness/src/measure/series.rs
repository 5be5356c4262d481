//! Series for charts: what happened when, in bins of equal width.

use super::load::{Arrivals, RATE_BIN_US};
use super::stats::rank;
use crate::history::{Event, History, Micros, Op, Outcome};
use crate::summary::Series;

/// Width of a bin of latencies and outcomes.
const LATENCY_BIN_US: Micros = 250_000;
/// Bins at most, a day of the narrow ones: a wrong clock must not take all memory. What lies beyond is left out, like
/// what lies before the epoch.
const MAX_BINS: usize = 864_000;

/// The bin of a moment, if it is within the chart.
fn bin(at: Micros, width: Micros) -> Option<usize> {
    let bin = usize::try_from(at.div_euclid(width)).ok()?;
    (bin < MAX_BINS).then_some(bin)
}

/// How many bins it takes to show a length of time.
fn bins_for(length: Micros, width: Micros) -> usize {
    usize::try_from(length.max(0).unsigned_abs().div_ceil(width.unsigned_abs())).unwrap_or(MAX_BINS).min(MAX_BINS)
}

/// Counts moments by bin, in at least `least` bins.
pub(crate) fn bins(moments: impl Iterator<Item = Micros>, width: Micros, least: usize) -> Vec<u32> {
    let mut bins = vec![0_u32; least];
    for index in moments.filter_map(|at| bin(at, width)) {
        if index >= bins.len() {
            bins.resize(index + 1, 0);
        }
        bins[index] += 1;
    }
    bins
}

/// All series of a run. `acknowledged` are the moments at which orders were acknowledged.
pub fn series(history: &History, arrivals: &Arrivals, acknowledged: &[Micros]) -> Series {
    let ops = &history.ops;
    let least = bins_for(history.info.duration_us, RATE_BIN_US);
    let intended = |index: &u32| ops[*index as usize].intended_us;
    let invoked = |index: &u32| ops[*index as usize].invoked_us;
    let mut planned = bins(arrivals.sent.iter().chain(&arrivals.dropped).map(intended), RATE_BIN_US, least);
    let mut sent = bins(arrivals.sent.iter().map(invoked), RATE_BIN_US, least);
    let mut dropped = bins(arrivals.dropped.iter().map(intended), RATE_BIN_US, least);
    same_length([&mut planned, &mut sent, &mut dropped], 0);

    let least = bins_for(history.info.duration_us, LATENCY_BIN_US);
    let [mut ok, mut fail, mut info] = outcomes(ops, least);
    let mut orders = bins(acknowledged.iter().copied(), LATENCY_BIN_US, least);
    let by_bin = LatencyByBin::new(ops, least);
    let longest = same_length([&mut ok, &mut fail, &mut info, &mut orders], by_bin.bins());
    let mut series = Series {
        bin_us: RATE_BIN_US,
        planned,
        sent,
        dropped,
        latency_bin_us: LATENCY_BIN_US,
        ok,
        fail,
        info,
        orders,
        stock: history.events.iter().filter_map(stock).collect(),
        ..Series::default()
    };
    by_bin.summarize(longest, &mut series);
    series
}

/// Ops ok, refused and indeterminate by bin of completion.
fn outcomes(ops: &[Op], least: usize) -> [Vec<u32>; 3] {
    let mut all = [vec![0_u32; least], vec![0; least], vec![0; least]];
    for op in ops {
        let kind = match op.outcome {
            Outcome::Ok => 0,
            Outcome::Fail => 1,
            Outcome::Info => 2,
            Outcome::Dropped => continue,
        };
        let Some(index) = bin(op.completed_us, LATENCY_BIN_US) else { continue };
        let bins = &mut all[kind];
        if index >= bins.len() {
            bins.resize(index + 1, 0);
        }
        bins[index] += 1;
    }
    all
}

fn stock(event: &Event) -> Option<(Micros, Option<i64>)> {
    match event {
        Event::Sample(sample) => Some((sample.at_us, sample.available)),
        _ => None,
    }
}

/// Pads all to the longest of them, or to `least`, and says how long that is.
fn same_length<const N: usize>(mut all: [&mut Vec<u32>; N], least: usize) -> usize {
    let longest = all.iter().map(|bins| bins.len()).max().unwrap_or(0).max(least);
    all.iter_mut().for_each(|bins| bins.resize(longest, 0));
    longest
}

/// Latencies side by side for each bin of the intended start.
struct LatencyByBin {
    /// Where each bin begins in `latencies`, and the end of the last one.
    starts: Vec<usize>,
    /// Microseconds; those beyond 71 minutes count as that, which no chart can tell.
    latencies: Vec<u32>,
}

impl LatencyByBin {
    fn new(ops: &[Op], least: usize) -> LatencyByBin {
        let samples = || {
            let answered = ops.iter().filter(|op| op.outcome != Outcome::Dropped);
            answered.filter_map(|op| Some((bin(op.intended_us, LATENCY_BIN_US)?, op.latency_us())))
        };
        let mut starts = vec![0_usize; least + 1];
        for (bin, _) in samples() {
            if starts.len() < bin + 2 {
                starts.resize(bin + 2, 0);
            }
            starts[bin + 1] += 1;
        }
        for bin in 1..starts.len() {
            starts[bin] += starts[bin - 1];
        }
        let mut next = starts.clone();
        let mut latencies = vec![0_u32; starts.last().copied().unwrap_or(0)];
        for (bin, us) in samples() {
            latencies[next[bin]] = u32::try_from(us).unwrap_or(u32::MAX);
            next[bin] += 1;
        }
        LatencyByBin { starts, latencies }
    }

    fn bins(&self) -> usize {
        self.starts.len() - 1
    }

    fn summarize(mut self, bins: usize, series: &mut Series) {
        for bin in 0..bins {
            let samples = match (self.starts.get(bin), self.starts.get(bin + 1)) {
                (Some(from), Some(until)) => &mut self.latencies[*from..*until],
                _ => &mut [],
            };
            if samples.is_empty() {
                series.us_p50.push(None);
                series.us_p99.push(None);
                series.us_max.push(None);
                continue;
            }
            let mut at = |quantile| {
                let index = rank(samples.len() as u64, quantile) as usize - 1;
                Some(u64::from(*samples.select_nth_unstable(index).1))
            };
            series.us_p50.push(at(0.5));
            series.us_p99.push(at(0.99));
            series.us_max.push(at(1.0));
        }
    }
}
