//! What a fault did to one figure of one cohort, with how sure one can be of it. Pure arithmetic over samples.
//!
//! Samples that were taken at nearly the same moment resemble each other: a pause of the machine makes a whole handful
//! of them slow. How much so is seen in the undisturbed part of the run ([`clustering`]), and both sides count for
//! as many fewer samples. The intervals of two sides make one of their ratio or difference by the method of variance estimates
//! recovery (G. Y. Zou and A. Donner, *Construction of confidence limits about effect measures*, Statistics in Medicine
//! 27 (2008), which for two shares is Newcombe's interval).

use std::collections::BTreeMap;

use crate::history::Micros;
use crate::measure::stats::{P99, interval_ranks, rank};
use crate::summary::{Change, Effect, Likeness};

/// A change of TP99 by less than this factor, or less than [`LEAST_US`], does not matter to anybody.
pub const LEAST_RATIO: f64 = 1.5;
/// In microseconds.
pub const LEAST_US: f64 = 5_000.0;
/// A change of the share of errors by less does not matter.
pub const LEAST_SHARE: f64 = 0.01;
/// A change of goodput by less than this factor does not matter.
pub const LEAST_GOODPUT: f64 = 1.25;
/// Samples on either side below which a share of errors is not told.
const SHARE_NEEDS: usize = 100;
/// Orders that there should have been, below which a ratio of goodput is not told.
const ORDERS_NEEDED: f64 = 20.0;
/// Samples within so much time may have been slow, or have failed, for the same reason.
const BLOCK_US: Micros = 250_000;
/// With fewer blocks nothing can be said about how samples cluster.
const FEWEST_BLOCKS: usize = 10;
/// The normal distribution's quantile for 95% intervals.
const Z: f64 = 1.96;

/// One op.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Latency in microseconds; those beyond 71 minutes count as that. None if it was never sent.
    pub us: Option<u32>,
    /// Whether it got no answer.
    pub failed: bool,
    block: u32,
}

impl Sample {
    /// An op that was intended at this time.
    pub fn new(intended: Micros, latency_us: Option<u64>, failed: bool) -> Sample {
        let us = latency_us.map(|us| u32::try_from(us).unwrap_or(u32::MAX));
        Sample { us, failed, block: block(intended) }
    }
}

/// The block of time in which a moment lies.
pub fn block(at: Micros) -> u32 {
    u32::try_from(at / BLOCK_US).unwrap_or(0)
}

/// Where the block of a moment ends.
pub fn next_block(at: Micros) -> Micros {
    (at / BLOCK_US + 1) * BLOCK_US
}

/// The undisturbed samples that a window is held against: lists with the weight of each of their samples, such that the
/// weights of a stratum add up to the window's own samples in it.
pub type Yardstick<'a> = Vec<(f64, &'a [Sample])>;

fn samples<'a>(yardstick: &'a Yardstick<'_>) -> impl Iterator<Item = (f64, &'a Sample)> {
    yardstick.iter().flat_map(|(weight, list)| list.iter().map(move |sample| (*weight, sample)))
}

/// As how many equally weighted samples weighted ones count (Kish).
fn effective(weights: impl Iterator<Item = f64>) -> f64 {
    let (sum, squares) = weights.fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// By which factor what the samples have in common with their neighbours in time makes a share less certain: the variance
/// of its sums over blocks, to that of independent samples. At least 1.
fn clustering(marked: impl Iterator<Item = (u32, bool)>) -> f64 {
    let mut blocks: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (block, mark) in marked {
        let sums = blocks.entry(block).or_default();
        sums.0 += 1.0;
        sums.1 += f64::from(u8::from(mark));
    }
    let (all, hits) = blocks.values().fold((0.0, 0.0), |(n, x), sums| (n + sums.0, x + sums.1));
    let share = hits / all;
    if blocks.len() < FEWEST_BLOCKS || share <= 0.0 || share >= 1.0 {
        return 1.0;
    }
    let spread: f64 = blocks.values().map(|(n, x)| (x - n * share).powi(2)).sum();
    (spread / (all * share * (1.0 - share))).max(1.0)
}

fn told(without: f64, with: f64, effect: f64, interval: [f64; 2], against: Likeness) -> Effect {
    Effect {
        without: Some(without),
        with: Some(with),
        effect: Some(effect),
        interval: Some(interval),
        change: Change::None,
        against,
        missing: None,
    }
}

/// An effect that cannot be told, and why.
pub fn untold(why: String, against: Likeness) -> Effect {
    Effect { missing: Some(why), against, ..Effect::default() }
}

/// A change, if there is any and it matters. Against a part of the run that is not like the window, none is ever claimed.
fn judged(mut effect: Effect, nothing: f64, matters: bool, more_is_worse: bool) -> Effect {
    let Some([low, high]) = effect.interval else { return effect };
    let more = low > nothing;
    if matters && effect.against != Likeness::Run && (more || high < nothing) {
        effect.change = if more == more_is_worse { Change::Worse } else { Change::Better };
    }
    effect
}

/// The ratio of TP99.
pub fn p99(window: &[Sample], yardstick: &Yardstick<'_>, against: Likeness) -> Effect {
    let mut with: Vec<u32> = window.iter().filter_map(|sample| sample.us).collect();
    let mut without: Vec<(u32, f64)> = samples(yardstick).filter_map(|(w, s)| Some((s.us?, w))).collect();
    for (count, where_) in [(without.len(), "undisturbed"), (with.len(), "under the fault")] {
        if let Some(why) = P99.missing(count as u64) {
            return untold(format!("{why} {where_}"), against);
        }
    }
    with.sort_unstable();
    without.sort_unstable_by_key(|(us, _)| *us);
    let total: f64 = without.iter().map(|(_, weight)| weight).sum();
    let weighted = |share: f64| {
        let mut left = total * share - total * 1e-12;
        without.iter().find(|(_, weight)| {
            left -= weight;
            left <= 0.0
        })
    };
    let weighted = |share: f64| weighted(share).or(without.last()).map_or(1.0, |(us, _)| f64::from(*us).max(1.0));
    let plain = |share: f64| f64::from(with[rank(with.len() as u64, share) as usize - 1]).max(1.0);

    let usual = weighted(P99.quantile);
    let slow = |s: &Sample| Some((s.block, f64::from(s.us?) > usual));
    let clustered = clustering(samples(yardstick).filter_map(|(_, s)| slow(s)));
    let [low, high] = bounds(with.len() as f64 / clustered).map(plain);
    let [usual_low, usual_high] = bounds(effective(without.iter().map(|(_, w)| *w)) / clustered).map(weighted);
    let now = plain(P99.quantile);
    let ratio = (now / usual).ln();
    let down = (now / low).ln().hypot((usual_high / usual).ln());
    let up = (high / now).ln().hypot((usual / usual_low).ln());
    let interval = [(ratio - down).exp(), (ratio + up).exp()];
    let matters = ratio.abs() >= LEAST_RATIO.ln() && (now - usual).abs() >= LEAST_US;
    judged(told(usual, now, ratio.exp(), interval, against), 1.0, matters, true)
}

/// Between which shares of its samples TP99 lies, of so many independent ones. Too few bound it only from below.
fn bounds(count: f64) -> [f64; 2] {
    let count = count.max(1.0);
    match interval_ranks(count as u64, P99.quantile) {
        Some((low, high)) => [low, high].map(|rank| (rank as f64 / count.floor()).min(1.0)),
        None => [(P99.quantile - Z * (P99.quantile * (1.0 - P99.quantile) / count).sqrt()).max(0.0), 1.0],
    }
}

/// The difference of the shares of ops that got no answer.
pub fn errors(window: &[Sample], yardstick: &Yardstick<'_>, against: Likeness) -> Effect {
    let count = samples(yardstick).count();
    for (count, where_) in [(count, "undisturbed"), (window.len(), "under the fault")] {
        if count < SHARE_NEEDS {
            return untold(format!("not enough samples ({count} of {SHARE_NEEDS} needed) {where_}"), against);
        }
    }
    let with = window.iter().filter(|sample| sample.failed).count() as f64 / window.len() as f64;
    let total: f64 = samples(yardstick).map(|(weight, _)| weight).sum();
    // A sum of nothing is a negative zero, here and below.
    let lost = samples(yardstick).filter(|(_, s)| s.failed).map(|(weight, _)| weight).sum::<f64>() + 0.0;
    let without = lost / total;
    let clustered = clustering(samples(yardstick).map(|(_, s)| (s.block, s.failed)));
    let [low, high] = wilson(with, window.len() as f64 / clustered);
    let [usual_low, usual_high] = wilson(without, effective(samples(yardstick).map(|(w, _)| w)) / clustered);
    let more = with - without;
    let interval = [more - (with - low).hypot(usual_high - without), more + (high - with).hypot(without - usual_low)];
    judged(told(without, with, more, interval, against), 0.0, more.abs() >= LEAST_SHARE, true)
}

/// The 95% interval of a share (E. B. Wilson, 1927).
fn wilson(share: f64, count: f64) -> [f64; 2] {
    let (count, z) = (count.max(1.0), Z * Z);
    let middle = (share + z / (2.0 * count)) / (1.0 + z / count);
    let half = Z / (1.0 + z / count) * (share * (1.0 - share) / count + z / (4.0 * count * count)).sqrt();
    [(middle - half).clamp(0.0, share), (middle + half).clamp(share, 1.0)]
}

/// Orders acknowledged in some undisturbed time, and which share of that time a window took.
#[derive(Debug, Clone, Copy)]
pub struct Usual {
    /// Acknowledged orders.
    pub orders: u64,
    /// The window's time in this stratum to that of the undisturbed part.
    pub scale: f64,
}

/// The ratio of acknowledged orders to those that the same time would have brought undisturbed. `spread` is the variance of
/// the counts of undisturbed blocks to their mean.
pub fn goodput(orders: u64, seconds: f64, usual: &[Usual], spread: f64, against: Likeness) -> Effect {
    let expected = usual.iter().map(|u| u.orders as f64 * u.scale).sum::<f64>() + 0.0;
    if expected < ORDERS_NEEDED {
        let why = format!("not enough orders: {expected:.0} were to be expected, and {ORDERS_NEEDED} are needed");
        return untold(why, against);
    }
    let variance: f64 = usual.iter().map(|u| u.orders as f64 * u.scale * u.scale).sum();
    let spread = spread.max(1.0);
    // As many orders as would be equally certain if they came one by one.
    let certain = expected * expected / variance / spread;
    let ([low, high], orders) = (poisson(orders as f64 / spread).map(|n| n * spread), orders as f64);
    let [usual_low, usual_high] = poisson(certain).map(|n| n / certain * expected);
    let ratio = orders / expected;
    let interval = if orders > 0.0 {
        let down = (orders / low).ln().hypot((usual_high / expected).ln());
        let up = (high / orders).ln().hypot((expected / usual_low).ln());
        [ratio * (-down).exp(), ratio * up.exp()]
    } else {
        [0.0, high / usual_low]
    };
    let matters = ratio >= LEAST_GOODPUT || ratio <= 1.0 / LEAST_GOODPUT;
    judged(told(expected / seconds, orders / seconds, ratio, interval, against), 1.0, matters, false)
}

/// The 95% interval of the mean of a Poisson distribution of which one count was seen (Byar's approximation, as in
/// N. E. Breslow and N. E. Day, *Statistical Methods in Cancer Research*, vol. 2 (1987), section 2.3).
fn poisson(count: f64) -> [f64; 2] {
    let bound = |n: f64, z: f64| n * (1.0 - 1.0 / (9.0 * n) + z / (3.0 * n.sqrt())).max(0.0).powi(3);
    [if count > 0.0 { bound(count, -Z) } else { 0.0 }, bound(count + 1.0, Z)]
}

/// The variance of counts to their mean, over blocks of undisturbed time with as many expected in each.
pub fn spread(counts: &[(f64, f64)]) -> f64 {
    let counts: Vec<_> = counts.iter().filter(|(_, expected)| *expected > 0.0).collect();
    if counts.len() < FEWEST_BLOCKS {
        return 1.0;
    }
    let sum: f64 = counts.iter().map(|(seen, expected)| (seen - expected).powi(2) / expected).sum();
    (sum / (counts.len() - 1) as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_from_the_textbooks() {
        // Newcombe (1998), table II: 56 of 70 against 48 of 80 is 0.2 with 0.0524 to 0.3339.
        let [l1, u1] = wilson(56.0 / 70.0, 70.0);
        let [l0, u0] = wilson(48.0 / 80.0, 80.0);
        let low: f64 = 0.2 - (0.8 - l1).hypot(u0 - 0.6);
        let high: f64 = 0.2 + (u1 - 0.8).hypot(0.6 - l0);
        assert!((low - 0.0524).abs() < 1e-3 && (high - 0.3339).abs() < 1e-3, "{low} {high}");
        // Exact limits of a Poisson mean: 4.795 to 18.39 for 10, and up to 3.689 for none.
        let [low, high] = poisson(10.0);
        assert!((low - 4.795).abs() < 0.02 && (high - 18.39).abs() < 0.02, "{low} {high}");
        assert_eq!(poisson(0.0)[0], 0.0);
        assert!((poisson(0.0)[1] - 3.689).abs() < 0.1, "{:?}", poisson(0.0));
    }

    #[test]
    fn samples_that_fail_together_count_for_fewer() {
        // Every block of ten is of one kind: ten samples say as much as one.
        let together = clustering((0..1_000).map(|i| (i / 10, (i / 10) % 4 == 0)));
        assert!((together - 10.0).abs() < 0.5, "{together}");
        assert_eq!(clustering((0..1_000).map(|i| (i / 10, i % 10 == 0))), 1.0);
        assert_eq!(effective([1.0, 1.0, 1.0].into_iter()), 3.0);
    }
}
