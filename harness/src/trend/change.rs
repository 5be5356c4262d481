//! Where a series of figures changed its level for good.
//!
//! E-divisive (D. S. Matteson and N. A. James, *A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data*, JASA
//! 109, 2014), as D. Daly et al. use it for the builds of a database (*The Use of Change Point Detection to Identify Software
//! Performance Regressions in a Continuous Integration System*, ICPE 2020): the cut that maximises the energy distance between what is
//! before and after it, tried against permutations of the series, and again in the parts. It is done on ranks, so that one figure that
//! is far off weighs no more than one that is the largest; and a cut needs a few figures on both sides, and medians that differ by
//! what matters. So a single spike raises nothing, however high.

use rand::seq::SliceRandom;

use crate::measure::stats::median;
use crate::random;

/// Figures on each side of a cut at least.
pub const LEAST: usize = 4;
/// Permutations that a cut is tried against.
const PERMUTATIONS: usize = 999;
/// Probability of a cut where there is none.
const ALPHA: f64 = 0.01;
/// Seed and stream of the permutations: the same series always gives the same cuts.
const SEED: (u64, u64) = (20_140_901, u64::MAX - 8);

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The first figure of the new level.
    pub at: usize,
    /// The median of the part before it, back to the change before.
    pub before: f64,
    /// The median of the part from it on, up to the next change.
    pub after: f64,
    /// How often a permutation had as good a cut.
    pub p: f64,
}

/// The changes in a series, in order; `effect` is the smallest relative change of the median that matters.
pub fn changes(values: &[f64], effect: f64) -> Vec<Change> {
    let mut cuts = Vec::new();
    let mut parts = vec![(0, values.len())];
    while let Some((from, until)) = parts.pop() {
        let Some((at, p)) = cut(&values[from..until]) else { continue };
        let at = from + at;
        let (before, after) = (level(&values[from..at]), level(&values[at..until]));
        if (after / before).ln().abs() >= effect.ln_1p() {
            cuts.push((at, p));
            parts.extend([(from, at), (at, until)]);
        }
    }
    cuts.sort_by_key(|(at, _)| *at);
    let ends: Vec<usize> =
        std::iter::once(0).chain(cuts.iter().map(|(at, _)| *at)).chain(std::iter::once(values.len())).collect();
    let change = |n: usize| {
        let (at, p) = cuts[n];
        Change { at, before: level(&values[ends[n]..at]), after: level(&values[at..ends[n + 2]]), p }
    };
    (0..cuts.len()).map(change).collect()
}

fn level(values: &[f64]) -> f64 {
    median(values.to_vec()).0.max(f64::MIN_POSITIVE)
}

/// The best cut of a part, if it is better than permutations have it, with how often they do.
fn cut(values: &[f64]) -> Option<(usize, f64)> {
    if values.len() < 2 * LEAST {
        return None;
    }
    let mut ranks = ranks(values);
    let (at, best) = energy(&ranks)?;
    let mut rng = random::stream(SEED.0, SEED.1);
    let as_good = (0..PERMUTATIONS)
        .filter(|_| {
            ranks.shuffle(&mut rng);
            energy(&ranks).is_some_and(|(_, energy)| energy >= best)
        })
        .count();
    let p = (as_good + 1) as f64 / (PERMUTATIONS + 1) as f64;
    (p <= ALPHA).then_some((at, p))
}

/// The rank of each value; the same for equal ones.
fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count();
    let equal = |value: f64| values.iter().filter(|other| **other == value).count();
    values.iter().map(|value| below(*value) as f64 + (equal(*value) as f64 + 1.0) / 2.0).collect()
}

/// The cut with the largest energy statistic, and that. The sums of distances are kept up while the cut moves.
fn energy(values: &[f64]) -> Option<(usize, f64)> {
    let count = values.len();
    let distance_to = |value: f64, part: &[f64]| part.iter().map(|other| (value - other).abs()).sum::<f64>();
    let (mut between, mut left, mut right) = (0.0, 0.0, 0.0);
    for (n, value) in values.iter().enumerate() {
        right += distance_to(*value, &values[n + 1..]);
    }
    let mut best: Option<(usize, f64)> = None;
    for at in 1..count {
        // One value more goes over to the left.
        let value = values[at - 1];
        let (to_left, to_right) = (distance_to(value, &values[..at - 1]), distance_to(value, &values[at..]));
        left += to_left;
        right -= to_right;
        between += to_right - to_left;
        if at < LEAST || count - at < LEAST {
            continue;
        }
        let (n, m) = (at as f64, (count - at) as f64);
        let within = |sum: f64, size: f64| sum / (size * (size - 1.0) / 2.0);
        let divergence = 2.0 * between / (n * m) - within(left, n) - within(right, m);
        let statistic = n * m / (n + m) * divergence;
        if best.is_none_or(|(_, best)| statistic > best) {
            best = Some((at, statistic));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn noisy(rng: &mut ChaCha8Rng, level: f64) -> f64 {
        level * (1.0 + 0.06 * (rng.random::<f64>() - 0.5))
    }

    #[test]
    fn a_step_is_found_where_it_is_and_a_second_one_too() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut values: Vec<f64> = (0..12).map(|_| noisy(&mut rng, 100.0)).collect();
        values.extend((0..10).map(|_| noisy(&mut rng, 115.0)));
        values.extend((0..9).map(|_| noisy(&mut rng, 90.0)));
        let found = changes(&values, 0.05);
        assert_eq!(found.iter().map(|change| change.at).collect::<Vec<_>>(), [12, 22]);
        assert!((found[0].before - 100.0).abs() < 3.0 && (found[0].after - 115.0).abs() < 3.0, "{found:?}");
        assert!((found[1].after - 90.0).abs() < 3.0);
    }

    #[test]
    fn a_single_spike_raises_nothing_wherever_it_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let calm: Vec<f64> = (0..24).map(|_| noisy(&mut rng, 100.0)).collect();
        assert!(changes(&calm, 0.05).is_empty());
        for at in 0..calm.len() {
            let mut values = calm.clone();
            values[at] = 5_000.0;
            assert_eq!(changes(&values, 0.05), [], "spike at {at}");
        }
        // Two in a row are still no level.
        let mut values = calm;
        (values[10], values[11]) = (300.0, 310.0);
        assert_eq!(changes(&values, 0.05), []);
    }

    #[test]
    fn what_is_too_small_to_matter_or_too_short_to_tell_is_left_alone() {
        let step = |before: usize, after: usize, level: f64| {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let mut values: Vec<f64> = (0..before).map(|_| noisy(&mut rng, 100.0)).collect();
            values.extend((0..after).map(|_| noisy(&mut rng, level)));
            changes(&values, 0.1).len()
        };
        assert_eq!(step(15, 15, 106.0), 0);
        assert_eq!(step(15, 3, 200.0), 0, "three figures are no level yet");
        assert_eq!(step(15, 6, 200.0), 1);
        assert_eq!(step(3, 3, 200.0), 0);
    }
}
