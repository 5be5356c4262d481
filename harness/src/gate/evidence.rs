//! How much paired differences say against a claim, at any time: e-processes by betting, and intervals from them.
//!
//! **The model.** A pair's difference D is the logarithm of new over old, so that above 0 is worse. The seed has tossed a coin for
//! which side came first ([`crate::load::turns`]), so if the sides do not differ by more than a factor exp(θ), then D − θ is as likely to be
//! x as −x, whatever the machine did meanwhile: no distribution, no independence of the noise and no equal variances are assumed.
//!
//! **The bet.** Somebody who doubts the claim "D is symmetric about θ or something smaller" bets on each pair before it is seen, a
//! fraction λ of what he has, and gets the fraction λ·g(D − θ) back, with g odd, rising and within ±1. If the claim is true, his wealth is
//! a nonnegative supermartingale that starts with 1, so by Ville's inequality it ever reaches 1/α with a probability of at most α: whoever
//! looks after each pair and stops when he likes is wrong no more often. That is what "safe against peeking" means. Averages of
//! such wealths over several λ are one, too, and so no λ has to be guessed.
//!
//! g is the difference over the scale of those before, cut off at ±1: nearly a sign test, with most of the power of one that
//! knows the distribution; a burst of noise, however large, is one loss of a bet. The scale is the median absolute deviation
//! of the pairs *before*, since a bet must not know what it is about.
//!
//! Sources: the test martingales for symmetric distributions go back to B. Efron, *Student's t-Test Under Symmetry Conditions*, JASA 64
//! (1969), and V. H. de la Peña, *A General Class of Exponential Inequalities for Martingales and Ratios*, Ann. Probab. 27 (1999); as
//! anytime-valid tests: A. Ramdas, J. Ruf, M. Larsson, W. Koolen, *Admissible anytime-valid sequential inference must rely on
//! nonnegative martingales*, arXiv:2009.03167 (2020), and S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, *Time-uniform, nonparametric,
//! nonasymptotic confidence sequences*, Ann. Stat. 49 (2021). Intervals by inverting bets: I. Waudby-Smith, A. Ramdas, *Estimating means of
//! bounded random variables by betting*, JRSS-B 86 (2024). Families: V. Vovk, R. Wang, *E-values: calibration, combination and
//! applications*, Ann. Stat. 49 (2021).

use crate::measure::stats::median;

/// The fractions that are bet; the wealth is the average over them.
const FRACTIONS: [f64; 5] = [0.15, 0.35, 0.55, 0.75, 0.95];
/// Differences of which the scale is learnt before it is used; until then, only the sign counts.
const LEARN: usize = 3;
/// The newest differences that the scale is learnt from: the machine of an hour ago was another one.
const MEMORY: usize = 64;

/// The paired differences of one metric.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// The differences, round by round; those of a round come from one provisioning of both sides.
    rounds: Vec<Vec<f64>>,
    /// For each difference, the scale of those before it; 0 where there were too few.
    scales: Vec<Vec<f64>>,
    seen: Vec<f64>,
}

/// On which side of a threshold somebody bets that the truth is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bet {
    /// The difference is larger than the threshold.
    Above,
    /// It is smaller.
    Below,
}

impl Pairs {
    /// Adds the differences of a round, in the order of time.
    pub fn add_round(&mut self, differences: Vec<f64>) {
        let mut scales = Vec::with_capacity(differences.len());
        for difference in &differences {
            scales.push(scale(&self.seen[self.seen.len().saturating_sub(MEMORY)..]));
            self.seen.push(*difference);
        }
        self.rounds.push(differences);
        self.scales.push(scales);
    }

    /// How many differences there are.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// The median difference; none if there is none.
    pub fn median(&self) -> Option<f64> {
        (!self.seen.is_empty()).then(|| median(self.seen.clone()).0)
    }

    /// The logarithm of the e-value against "the difference is not above (below) the threshold".
    ///
    /// What one round may contribute to it is at most exp(`cap`): the pairs of a round have two processes and two databases in common,
    /// and a pair of those may be unequal by itself. With a cap of half of what is needed, no single provisioning convicts.
    pub fn log_e(&self, bet: Bet, threshold: f64, cap: f64) -> f64 {
        let mut terms = Vec::with_capacity(FRACTIONS.len());
        for fraction in FRACTIONS {
            let mut wealth = 0.0;
            for (differences, scales) in self.rounds.iter().zip(&self.scales) {
                let of_round: f64 = differences
                    .iter()
                    .zip(scales)
                    .map(|(difference, scale)| {
                        let distance = if bet == Bet::Above { difference - threshold } else { threshold - difference };
                        (fraction * cut_off(distance, *scale)).ln_1p()
                    })
                    .sum();
                wealth += of_round.min(cap);
            }
            terms.push(wealth);
        }
        log_mean(&terms)
    }

    /// The differences that cannot be excluded at level `alpha`, at any time: a confidence sequence, with `alpha`/2 on each side.
    /// None where there are too few pairs to exclude any.
    pub fn interval(&self, alpha: f64) -> Option<[f64; 2]> {
        let needed = (2.0 / alpha).ln();
        let (low, high) = self.seen.iter().fold((f64::MAX, f64::MIN), |(low, high), d| (low.min(*d), high.max(*d)));
        // Beyond all differences every bet is won or lost, so the ends lie among them.
        let margin = 1e-9 + (high - low) * 0.01;
        let (low, high) = (low - margin, high + margin);
        let excluded = |bet, at| self.log_e(bet, at, f64::INFINITY) >= needed;
        if self.seen.is_empty() || !excluded(Bet::Above, low) || !excluded(Bet::Below, high) {
            return None;
        }
        let search = |bet, mut outside: f64, mut inside: f64| {
            for _ in 0..40 {
                let middle = f64::midpoint(outside, inside);
                if excluded(bet, middle) { outside = middle } else { inside = middle }
            }
            outside
        };
        Some([search(Bet::Above, low, high), search(Bet::Below, high, low)])
    }
}

/// An odd function of the distance, rising and within ±1.
fn cut_off(distance: f64, scale: f64) -> f64 {
    if scale > 0.0 {
        (distance / scale).clamp(-1.0, 1.0)
    } else if distance == 0.0 {
        0.0
    } else {
        distance.signum()
    }
}

/// The median absolute deviation, brought to that of a normal distribution's standard deviation; 0 if there are too few values.
fn scale(values: &[f64]) -> f64 {
    if values.len() < LEARN {
        return 0.0;
    }
    let (middle, _) = median(values.to_vec());
    let (deviation, _) = median(values.iter().map(|value| (value - middle).abs()).collect());
    deviation * 1.4826
}

fn log_mean(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + (logs.iter().map(|log| (log - most).exp()).sum::<f64>() / logs.len() as f64).ln()
}

/// Which claims of a family are refuted at a level that holds for the family as a whole, from the logarithms of their e-values.
///
/// Closed testing with arithmetic means (Vovk and Wang 2021, section 5): a claim is refuted if the mean e-value of every set of
/// claims that it belongs to is at least 1/α. The worst of those sets are the claim and the smallest of the others, so
/// it is enough to look at these. Holm's method on e-values refutes no more than this does.
pub fn refuted(log_es: &[f64], alpha: f64) -> Vec<bool> {
    // Beyond this they are equally certain, and sums of them stay finite.
    let es: Vec<f64> = log_es.iter().map(|log| log.min(300.0).exp()).collect();
    let mut order: Vec<usize> = (0..es.len()).collect();
    order.sort_by(|a, b| es[*a].total_cmp(&es[*b]));
    let refuted = |of: usize| {
        let (mut sum, mut count) = (es[of], 1.0);
        let mut least = sum;
        for other in order.iter().filter(|other| **other != of) {
            sum += es[*other];
            count += 1.0;
            least = least.min(sum / count);
        }
        least >= 1.0 / alpha
    };
    (0..es.len()).map(refuted).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const ALPHA: f64 = 0.01;

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Noise of machines: bursts that outlast many pairs, tails without a variance, drifts.
    fn noise(kind: u32, n: usize, state: &mut f64, rng: &mut ChaCha8Rng) -> f64 {
        let burst = if n % 40 < 8 { 8.0 } else { 1.0 };
        match kind {
            0 => 0.05 * normal(rng),
            1 => 0.02 * burst * normal(rng),
            2 => 0.02 * (std::f64::consts::PI * (rng.random::<f64>() - 0.5)).tan(),
            // The size of the noise depends on what was before, the sign on the coin alone.
            _ => {
                *state = 0.9 * *state + 0.02 * normal(rng).abs();
                if rng.random() { *state } else { -*state }
            }
        }
    }

    /// Whether a sequence of up to `pairs` differences about `shift`, looked at after each round, is ever found to be above `threshold`.
    fn found(
        kind: u32,
        shift: f64,
        threshold: f64,
        rounds: usize,
        per_round: usize,
        family: f64,
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let (mut pairs, mut state) = (Pairs::default(), 0.0);
        let needed = (family / ALPHA).ln();
        (0..rounds).any(|round| {
            let differences =
                (0..per_round).map(|n| shift + noise(kind, round * per_round + n, &mut state, rng)).collect();
            pairs.add_round(differences);
            pairs.log_e(Bet::Above, threshold, f64::INFINITY) >= needed
        })
    }

    #[test]
    fn without_a_difference_few_are_ever_accused_however_often_one_looks() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for kind in 0..4 {
            // At the edge of the claim, where a test errs most: there the level is what counts.
            let runs = 400;
            let accused = (0..runs).filter(|_| found(kind, 0.0, 0.0, 120, 1, 1.0, &mut rng)).count();
            // 4 are allowed; four standard errors more are 8.
            assert!(accused <= 12, "noise {kind}: {accused} of {runs}");
            // Inside it, with the margin that the gate leaves, none is.
            let accused = (0..runs).filter(|_| found(kind, 0.0, 0.03, 20, 10, 1.0, &mut rng)).count();
            assert!(accused <= 3, "noise {kind}: {accused} of {runs} with a margin");
        }
    }

    #[test]
    fn a_difference_is_found_in_a_family_of_forty() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        // A tenth, against a margin of three in a hundred, within 60 pairs.
        for (kind, at_least) in [(0, 97), (1, 97), (2, 97)] {
            let hits = (0..100).filter(|_| found(kind, 1.1_f64.ln(), 1.03_f64.ln(), 6, 10, 40.0, &mut rng)).count();
            assert!(hits >= at_least, "noise {kind}: {hits} of 100");
        }
    }

    #[test]
    fn intervals_contain_the_truth_at_all_times_at_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let runs = 200;
        let missed = (0..runs)
            .filter(|_| {
                let (mut pairs, mut state) = (Pairs::default(), 0.0);
                (0..12).any(|round| {
                    pairs.add_round((0..8).map(|n| 0.07 + noise(1, round * 8 + n, &mut state, &mut rng)).collect());
                    pairs.interval(0.05).is_some_and(|[low, high]| 0.07 < low || 0.07 > high)
                })
            })
            .count();
        assert!(missed <= 20, "{missed} of {runs} at 5%");
    }

    #[test]
    fn an_interval_shrinks_to_the_truth() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut pairs = Pairs::default();
        pairs.add_round((0..400).map(|_| 0.1 + 0.02 * normal(&mut rng)).collect());
        let [low, high] = pairs.interval(0.05).unwrap();
        assert!(0.09 < low && low < 0.1 && 0.1 < high && high < 0.11, "{low}..{high}");
        assert!((pairs.median().unwrap() - 0.1).abs() < 0.005);
    }

    #[test]
    fn one_provisioning_alone_convicts_nobody() {
        let needed = (10.0 / ALPHA).ln();
        let cap = 0.5 * needed + (FRACTIONS.len() as f64).ln();
        let mut pairs = Pairs::default();
        pairs.add_round(vec![0.5; 500]);
        assert!(pairs.log_e(Bet::Above, 0.03, cap) < needed);
        pairs.add_round(vec![0.5; 20]);
        assert!(pairs.log_e(Bet::Above, 0.03, cap) >= needed);
    }

    #[test]
    fn too_few_pairs_say_nothing() {
        let mut pairs = Pairs::default();
        assert_eq!((pairs.median(), pairs.interval(0.05)), (None, None));
        pairs.add_round(vec![0.4; 3]);
        assert_eq!(pairs.interval(0.05), None);
        assert!(pairs.log_e(Bet::Above, 0.0, f64::INFINITY) < (1.0 / ALPHA).ln());
    }

    proptest! {
        #[test]
        fn the_family_refutes_what_bonferroni_does_and_nothing_that_alone_would_stand(
            logs in proptest::collection::vec(-3.0_f64..14.0, 1..30)
        ) {
            let refuted = refuted(&logs, ALPHA);
            let alone = (1.0 / ALPHA).ln();
            let all = (logs.len() as f64 / ALPHA).ln();
            for (log, refuted) in logs.iter().zip(&refuted) {
                prop_assert!(!refuted || *log >= alone - 1e-9);
                prop_assert!(*refuted || *log < all + 1e-9);
            }
        }

        #[test]
        fn exchanging_the_sides_exchanges_the_bets(differences in proptest::collection::vec(-1.0_f64..1.0, 1..60), at in -0.2_f64..0.2) {
            let of = |sign: f64| {
                let mut pairs = Pairs::default();
                pairs.add_round(differences.iter().map(|d| sign * d).collect());
                pairs
            };
            let (one, other) = (of(1.0), of(-1.0));
            let (a, b) = (one.log_e(Bet::Above, at, 1e9), other.log_e(Bet::Below, -at, 1e9));
            prop_assert!((a - b).abs() < 1e-9);
        }
    }
}
