//! The decision: what all rounds so far say of every metric, held together as one family.

use std::collections::BTreeMap;

use super::evidence::{Bet, Pairs, refuted};
use super::pairs::{Compared, Key, Measure, Total};
use super::place::Counts;
use super::{Judged, Metric};
use crate::scenario::gate::{Effects, Gate};

/// Level at which a change is excluded, for each metric by itself: a gate passes only if it is for all of them, which makes the
/// error of the whole no larger (R. L. Berger, *Multiparameter hypothesis testing and acceptance sampling*, Technometrics 24, 1982).
const PASS_ALPHA: f64 = 0.05;
/// Level of the intervals that people read.
const READ_ALPHA: f64 = 0.05;
/// Part of the effect below which a change is nobody's business: two starts of one build differ by that much.
const FLOOR: f64 = 0.3;

/// What the rounds said so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    metrics: BTreeMap<Key, (Pairs, [Total; 2])>,
    rounds: u32,
    /// What was counted in each round, for either side.
    pub counts: Vec<[Counts; 2]>,
}

/// Where a gate stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Something is certainly worse.
    Worse,
    /// Everything that can be judged is certainly not worse.
    Same,
    /// More rounds may tell.
    Open,
}

impl Tally {
    /// Adds a round.
    pub fn add(&mut self, round: BTreeMap<Key, Compared>, counts: [Counts; 2]) {
        for (key, compared) in round {
            let (pairs, totals) = self.metrics.entry(key).or_default();
            pairs.add_round(compared.differences);
            for (total, one) in totals.iter_mut().zip(&compared.totals) {
                total.add(one);
            }
        }
        self.counts.push(counts);
        self.rounds += 1;
    }

    /// Every metric as it stands.
    pub fn metrics(&self, gate: &Gate) -> Vec<Metric> {
        let all: Vec<Known<'_>> = self.metrics.iter().map(|(key, seen)| Known::of(key, seen, &gate.effect)).collect();
        let family = all.len().max(1) as f64;
        // Half of what a conviction takes, and what the average over five fractions may cost.
        let cap = |needed: f64| 0.5 * needed + 5.0_f64.ln();
        let (cap_worse, enough) = (cap((family / gate.alpha).ln()), (1.0 / PASS_ALPHA).ln());
        let worse: Vec<f64> =
            all.iter().map(|known| known.log_e(Bet::Above, known.threshold.floor, cap_worse)).collect();
        let better: Vec<f64> =
            all.iter().map(|known| known.log_e(Bet::Below, -known.threshold.floor, cap_worse)).collect();
        let (is_worse, is_better) = (refuted(&worse, gate.alpha), refuted(&better, gate.alpha));
        let judged = |n: usize, known: &Known<'_>| match () {
            () if known.missing.is_some() => Judged::TooFew,
            () if is_worse[n] => Judged::Worse,
            () if is_better[n] => Judged::Better,
            () if known.log_e(Bet::Below, known.threshold.effect, cap(enough)) >= enough => Judged::Same,
            () => Judged::Undecided,
        };
        all.iter().enumerate().map(|(n, known)| known.metric(worse[n], judged(n, known))).collect()
    }

    /// Where the gate stands, of so many rounds at most.
    pub fn standing(&self, metrics: &[Metric], counted: bool, gate: &Gate) -> Standing {
        if self.rounds >= 2 && (counted || metrics.iter().any(|metric| metric.judged == Judged::Worse)) {
            return Standing::Worse;
        }
        let settled = |metric: &Metric| match metric.judged {
            Judged::Same | Judged::Better => true,
            Judged::Worse | Judged::Undecided => false,
            // Worth waiting for only if there will ever be enough at this pace.
            Judged::TooFew => {
                let (needed, pace) = (needed(metric), metric.samples as f64 / f64::from(self.rounds.max(1)));
                pace * f64::from(gate.rounds) < needed as f64
            }
        };
        if self.rounds >= 2 && metrics.iter().all(settled) { Standing::Same } else { Standing::Open }
    }
}

/// A metric with what is known of it.
struct Known<'a> {
    key: &'a Key,
    pairs: &'a Pairs,
    totals: &'a [Total; 2],
    threshold: Threshold,
    /// Why it cannot be judged, if it cannot. It takes part in the family all the same, so that its size is known beforehand.
    missing: Option<String>,
}

impl Known<'_> {
    fn of<'a>(key: &'a Key, (pairs, totals): &'a (Pairs, [Total; 2]), effects: &Effects) -> Known<'a> {
        Known { key, pairs, totals, threshold: Threshold::of(key, effects), missing: missing(key, pairs, totals) }
    }

    fn log_e(&self, bet: Bet, threshold: f64, cap: f64) -> f64 {
        if self.missing.is_some() { 0.0 } else { self.pairs.log_e(bet, threshold, cap) }
    }

    fn metric(&self, log_e: f64, judged: Judged) -> Metric {
        let Known { key, pairs, totals, threshold, missing } = self;
        Metric {
            name: key.measure.name().to_owned(),
            phase: key.phase.clone(),
            step: key.step.clone(),
            role: key.role.clone(),
            old: value(key.measure, &totals[0]),
            new: value(key.measure, &totals[1]),
            worse_by: pairs.median().map(|d| threshold.read(d)),
            interval: pairs.interval(READ_ALPHA).map(|[low, high]| [threshold.read(low), threshold.read(high)]),
            pairs: pairs.count() as u64,
            samples: totals.iter().map(|total| samples(key.measure, total)).min().unwrap_or(0),
            effect: threshold.read(threshold.effect),
            log10_evidence: log_e / std::f64::consts::LN_10,
            judged,
            missing: missing.clone(),
        }
    }
}

/// What a change has to be, on the scale of the differences.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    effect: f64,
    floor: f64,
    ratio: bool,
}

impl Threshold {
    fn of(key: &Key, effects: &Effects) -> Threshold {
        let share = match key.measure {
            Measure::P50 => effects.us_p50,
            Measure::P99 => effects.us_p99,
            Measure::P999 => effects.us_p999,
            Measure::Cpu => effects.cpu,
            // A tenth less is a ninth more to be done, which is what the difference tells.
            Measure::Throughput => effects.orders_per_second,
            Measure::Unanswered => {
                return Threshold { effect: effects.unanswered, floor: FLOOR * effects.unanswered, ratio: false };
            }
        };
        Threshold { effect: share.ln_1p(), floor: (FLOOR * share).ln_1p(), ratio: true }
    }

    /// A difference as people read it.
    fn read(self, difference: f64) -> f64 {
        if self.ratio { difference.exp_m1() } else { difference }
    }
}

fn value(measure: Measure, total: &Total) -> Option<f64> {
    match measure.percentile() {
        Some((percentile, needs, _)) => {
            (total.latencies.count() >= needs).then(|| total.latencies.quantile_us(percentile.quantile) as f64)
        }
        None => (total.of > 0.0).then(|| total.amount / total.of),
    }
}

fn samples(measure: Measure, total: &Total) -> u64 {
    match measure {
        Measure::Throughput => total.amount as u64,
        Measure::Unanswered => total.of as u64,
        Measure::Cpu => (total.of * 1_000.0) as u64,
        Measure::P50 | Measure::P99 | Measure::P999 => total.latencies.count(),
    }
}

fn missing(key: &Key, pairs: &Pairs, totals: &[Total; 2]) -> Option<String> {
    let count = totals.iter().map(|total| samples(key.measure, total)).min().unwrap_or(0);
    if let Some((percentile, needs, _)) = key.measure.percentile()
        && count < needs
    {
        return Some(format!("not enough samples for {} ({count} of {needs} needed)", percentile.name));
    }
    (pairs.count() == 0).then(|| format!("there is no stretch of turns with enough of them ({count} in all)"))
}

/// Samples that a metric needs to be judged.
fn needed(metric: &Metric) -> u64 {
    let of = [Measure::P50, Measure::P99, Measure::P999].into_iter().find(|measure| measure.name() == metric.name);
    of.and_then(Measure::percentile).map_or(u64::MAX, |(_, needs, _)| needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::stats::LatencyHistogram;

    fn round(differences: &[(&str, Measure, f64)], samples: u64) -> BTreeMap<Key, Compared> {
        let compared = |(step, measure, difference): &(&str, Measure, f64)| {
            let key = Key { measure: *measure, phase: None, step: Some((*step).to_owned()), role: None };
            let mut latencies = LatencyHistogram::default();
            (0..samples).for_each(|_| latencies.record(1_000));
            let total = Total { latencies, amount: 1.0, of: 1.0 };
            (key, Compared { differences: vec![*difference; 16], totals: [total.clone(), total] })
        };
        differences.iter().map(compared).collect()
    }

    fn judged(rounds: u32, of: &[(&str, Measure, f64)], samples: u64) -> (Vec<Metric>, Standing) {
        let (mut tally, gate) = (Tally::default(), Gate::default());
        for _ in 0..rounds {
            tally.add(round(of, samples), Default::default());
        }
        let metrics = tally.metrics(&gate);
        let standing = tally.standing(&metrics, false, &gate);
        (metrics, standing)
    }

    #[test]
    fn a_regression_takes_two_rounds_and_names_its_metric() {
        let of = [("order", Measure::P99, 0.1), ("page", Measure::P99, 0.0)];
        assert_eq!(judged(1, &of, 5_000).1, Standing::Open);
        let (metrics, standing) = judged(2, &of, 5_000);
        assert_eq!(standing, Standing::Worse);
        let judged: Vec<_> = metrics.iter().map(|m| (m.step.as_deref().unwrap(), m.judged)).collect();
        assert_eq!(judged, [("order", Judged::Worse), ("page", Judged::Same)]);
        assert!((metrics[0].worse_by.unwrap() - 0.105).abs() < 0.001);
    }

    #[test]
    fn what_is_too_small_to_matter_passes() {
        let (metrics, standing) = judged(3, &[("order", Measure::P99, 0.02), ("order", Measure::P50, -0.3)], 5_000);
        assert_eq!(standing, Standing::Same);
        assert_eq!(metrics.iter().map(|m| m.judged).collect::<Vec<_>>(), [Judged::Better, Judged::Same]);
    }

    #[test]
    fn what_lies_between_is_left_open() {
        // Larger than what is nobody's business for certain, and not smaller than what matters.
        let (metrics, standing) = judged(1, &[("order", Measure::P99, 0.06)], 5_000);
        assert_eq!((metrics[0].judged, standing), (Judged::Undecided, Standing::Open));
    }

    #[test]
    fn no_tail_is_judged_without_its_samples_and_it_is_waited_for_if_they_will_come() {
        let of = [("order", Measure::P999, 0.5), ("order", Measure::P50, 0.0)];
        let (metrics, standing) = judged(2, &of, 2_000);
        assert_eq!(metrics[1].judged, Judged::TooFew);
        assert!(metrics[1].missing.as_ref().unwrap().contains("4000 of 10000 needed"), "{:?}", metrics[1].missing);
        assert_eq!(standing, Standing::Open, "at 2,000 a round there are enough after five of eight");
        assert_eq!(judged(2, &of, 500).1, Standing::Same, "and at 500 there never are");
        assert_eq!(judged(6, &of, 2_000).1, Standing::Worse);
    }
}
