//! The plan of a run: the arrivals of all cohorts, merged in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::Peekable;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Arrivals, Schedule};
use crate::history::Micros;
use crate::random;
use crate::scenario::value::ClockSkew;

/// Streams of random numbers from here on: the common arrivals; which cohort each of them is; how far each cohort's
/// clocks are off. The cohorts' own arrivals have the streams from 0.
const COMMON: u64 = 1 << 40;
const SHARES: u64 = 2 << 40;
const SKEWS: u64 = 3 << 40;

/// One planned arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The intended start.
    pub at_us: Micros,
    /// The cohort's position in the scenario.
    pub cohort: u16,
    /// Position among the arrivals of the whole run: the buyer's number.
    pub n: u64,
}

/// What a plan needs to know of a cohort.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    /// Its own arrivals.
    pub arrivals: Vec<Arrivals>,
    /// Its weight among the cohorts that share the common arrivals; 0 if it has none of them.
    pub share: f64,
    /// How far its buyers' clocks are off.
    pub clock_skew: ClockSkew,
}

/// All cohorts' arrivals, merged in order of time.
#[derive(Debug, Clone)]
pub struct Plan {
    streams: Vec<Stream>,
    /// For each cohort with a share: its position, and the sum of the weights up to it.
    shares: Vec<(u16, f64)>,
    skews: Vec<(ClockSkew, ChaCha8Rng)>,
    /// How much earlier than by the true clock anybody may come: 0, or negative.
    earliest_us: Micros,
    /// Arrivals by their buyers' clocks that others may yet come before.
    early: BinaryHeap<Reverse<(Micros, u64, u16)>>,
    drawn: u64,
    n: u64,
}

#[derive(Debug, Clone)]
struct Stream {
    schedule: Peekable<Schedule>,
    whose: Whose,
}

#[derive(Debug, Clone)]
enum Whose {
    /// Arrivals of one cohort.
    Cohort(u16),
    /// Arrivals that the cohorts share; each draws whose it is.
    Common(Box<ChaCha8Rng>),
}

impl Plan {
    /// The plan of a run: the components of each cohort, by the cohort's position, and those that the cohorts share.
    ///
    /// Whose a common arrival is, is drawn from the seed for each by itself: so the part of a Poisson process that a
    /// cohort gets is a Poisson process again, independent of the others' (J. F. C. Kingman, *Poisson Processes*, 1993,
    /// the colouring theorem).
    pub fn new(cohorts: &[Crowd], common: &[Arrivals], seed: u64) -> Plan {
        Plan::scaled(cohorts, common, seed, 1.0)
    }

    /// The same with every rate multiplied by `scale`.
    pub fn scaled(cohorts: &[Crowd], common: &[Arrivals], seed: u64, scale: f64) -> Plan {
        let mut streams = Vec::new();
        for (cohort, crowd) in cohorts.iter().enumerate() {
            for arrivals in &crowd.arrivals {
                let schedule = arrivals.scaled_schedule(seed, streams.len() as u64, scale).peekable();
                streams.push(Stream { schedule, whose: Whose::Cohort(cohort as u16) });
            }
        }
        for (index, arrivals) in (0..).zip(common) {
            let schedule = arrivals.scaled_schedule(seed, COMMON + index, scale).peekable();
            let whose = Whose::Common(Box::new(random::stream(seed, SHARES + index)));
            streams.push(Stream { schedule, whose });
        }
        let (mut shares, mut sum) = (Vec::new(), 0.0);
        for (cohort, crowd) in cohorts.iter().enumerate().filter(|(_, crowd)| crowd.share > 0.0) {
            sum += crowd.share;
            shares.push((cohort as u16, sum));
        }
        let skew = |(cohort, crowd): (u64, &Crowd)| (crowd.clock_skew, random::stream(seed, SKEWS + cohort));
        let skews = (0..).zip(cohorts).map(skew).collect();
        let earliest_us = cohorts.iter().map(|crowd| crowd.clock_skew.least_us).min().unwrap_or(0).min(0);
        Plan { streams, shares, skews, earliest_us, early: BinaryHeap::new(), drawn: 0, n: 0 }
    }

    /// How many arrivals there are, and a hash of every one of them (64-bit FNV-1a over time and cohort).
    pub fn count_and_hash(&self) -> (u64, String) {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut count = 0;
        for arrival in self.clone() {
            count += 1;
            for byte in arrival.at_us.to_le_bytes().into_iter().chain(arrival.cohort.to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        (count, format!("{hash:016x}"))
    }

    /// The stream that is next by the true clock, and its time.
    fn next_stream(&mut self) -> Option<(usize, Micros)> {
        // There are a handful of components, so a linear scan beats a heap. Ties go to the first component.
        let mut best: Option<(usize, Micros)> = None;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if let Some(&at) = stream.schedule.peek()
                && best.is_none_or(|(_, time)| at < time)
            {
                best = Some((index, at));
            }
        }
        best
    }

    /// Takes the next arrival of a stream: it comes by its buyer's clock.
    fn take(&mut self, stream: usize, at: Micros) {
        let Stream { schedule, whose } = &mut self.streams[stream];
        schedule.next();
        let cohort = match whose {
            Whose::Cohort(cohort) => *cohort,
            Whose::Common(rng) => {
                let all = self.shares.last().map_or(0.0, |(_, sum)| *sum);
                let drawn = rng.random::<f64>() * all;
                let found = self.shares.partition_point(|(_, sum)| *sum <= drawn).min(self.shares.len() - 1);
                self.shares[found].0
            }
        };
        let (skew, rng) = &mut self.skews[usize::from(cohort)];
        let by_its_clock = if skew.is_none() { at } else { (at + skew.draw_us(rng)).max(0) };
        self.early.push(Reverse((by_its_clock, self.drawn, cohort)));
        self.drawn += 1;
    }
}

impl Iterator for Plan {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            let next = self.next_stream();
            let due = |at: Micros| next.is_none_or(|(_, next)| at <= (next + self.earliest_us).max(0));
            if let Some(Reverse((at_us, _, cohort))) = self.early.peek().copied().filter(|Reverse((at, ..))| due(*at)) {
                self.early.pop();
                let n = self.n;
                self.n += 1;
                return Some(Arrival { at_us, cohort, n });
            }
            let (stream, at) = next?;
            self.take(stream, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any_arrivals, flat};
    use super::*;
    use proptest::prelude::*;

    fn crowd(arrivals: Vec<Arrivals>, share: f64, least_us: i64, most_us: i64) -> Crowd {
        Crowd { arrivals, share, clock_skew: ClockSkew { least_us, most_us } }
    }

    proptest! {
        #[test]
        fn a_plan_merges_in_order_and_numbers_each(a in any_arrivals(), b in any_arrivals(), seed: u64, ms in 0i64..2_000) {
            let cohorts = [crowd(vec![a.clone(), b.clone()], 1.0, 0, 0), crowd(vec![b.clone()], 0.0, -ms * 1_000, ms)];
            let plan = Plan::new(&cohorts, &[a], seed);
            let all: Vec<Arrival> = plan.clone().collect();
            prop_assert!(all.is_sorted_by_key(|x| x.at_us));
            prop_assert!(all.iter().enumerate().all(|(i, x)| x.n == i as u64));
            let (count, hash) = plan.count_and_hash();
            prop_assert_eq!(count, all.len() as u64);
            prop_assert_eq!(hash, plan.count_and_hash().1);
        }

        #[test]
        fn what_is_shared_comes_when_it_would_and_in_these_shares(a in any_arrivals(), weights in proptest::collection::vec(0.0f64..5.0, 1..6), seed: u64) {
            prop_assume!(weights.iter().any(|weight| *weight > 0.0));
            let cohorts: Vec<Crowd> = weights.iter().map(|share| crowd(Vec::new(), *share, 0, 0)).collect();
            let all: Vec<Arrival> = Plan::new(&cohorts, std::slice::from_ref(&a), seed).collect();
            let times: Vec<Micros> = all.iter().map(|arrival| arrival.at_us).collect();
            prop_assert_eq!(times, a.schedule(seed, COMMON).collect::<Vec<_>>(), "sharing moves nobody");
            let sum: f64 = weights.iter().sum();
            for (cohort, weight) in weights.iter().enumerate() {
                let got = all.iter().filter(|arrival| usize::from(arrival.cohort) == cohort).count() as f64;
                let (n, p) = (all.len() as f64, weight / sum);
                // Six standard deviations of a binomial, and a little where that is next to nothing.
                prop_assert!((got - n * p).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt() + 3.0, "{got} of {n} with {p}");
                prop_assert!(*weight > 0.0 || got == 0.0);
            }
        }

        #[test]
        fn clocks_are_off_by_no_more_than_they_may(a in any_arrivals(), seed: u64, least in -2_000_000i64..2_000_000, spread in 0i64..2_000_000) {
            let plan = |least, most| Plan::new(&[crowd(vec![a.clone()], 0.0, least, most)], &[], seed);
            let truly: Vec<Micros> = plan(0, 0).map(|arrival| arrival.at_us).collect();
            let skewed: Vec<Micros> = plan(least, least + spread).map(|arrival| arrival.at_us).collect();
            prop_assert_eq!(truly.len(), skewed.len());
            prop_assert!(skewed.is_sorted());
            // Sorting both keeps each within the bounds of its rank.
            for (truly, skewed) in truly.iter().zip(&skewed) {
                prop_assert!(*skewed >= (truly + least).max(0) && *skewed <= (truly + least + spread).max(0));
            }
            prop_assert_eq!(skewed, plan(least, least + spread).map(|arrival| arrival.at_us).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_one_cohort_draws_shifts_no_other() {
        let buyers = crowd(vec![Arrivals::Poisson(flat(300.0, 0, 4_000))], 0.0, 0, 0);
        let skewed = |least_us| crowd(vec![Arrivals::Constant(flat(50.0, 0, 4_000))], 0.0, least_us, 900_000);
        let of = |cohort: u16, cohorts: &[Crowd]| -> Vec<Micros> {
            Plan::new(cohorts, &[], 3).filter(|arrival| arrival.cohort == cohort).map(|arrival| arrival.at_us).collect()
        };
        let alone = of(0, std::slice::from_ref(&buyers));
        assert_eq!(alone, of(0, &[buyers.clone(), skewed(-900_000)]));
        assert_ne!(of(1, &[buyers.clone(), skewed(-900_000)]), of(1, &[buyers, skewed(-100)]));
    }

    #[test]
    fn a_plan_with_everything_never_changes() {
        let cohorts =
            [crowd(vec![], 100.0, 0, 0), crowd(vec![Arrivals::Poisson(flat(50.0, 0, 3_000))], 1.0, -800_000, 800_000)];
        let plan = Plan::new(&cohorts, &[Arrivals::Poisson(flat(500.0, 1_000, 2_000))], 20_240_314);
        assert_eq!(plan.count_and_hash(), (1_196, "e6af0c002c773e01".to_owned()));
    }
}
