//! Arrivals: when each buyer should start, as a pure function of the scenario and its seed.
//!
//! A rate curve has a cumulative form Λ(t), the expected number of arrivals up to t, with a closed inverse. A regular
//! process puts its n-th arrival at Λ⁻¹(n + ½); a Poisson process maps a unit-rate one through Λ⁻¹ (the time-change
//! theorem for inhomogeneous Poisson processes, e.g. Çinlar, *Introduction to Stochastic Processes*, 1975).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::Micros;
use crate::random;
use crate::scenario::value::Dur;

/// One component of a cohort's arrivals; components are summed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Arrivals {
    /// Evenly spaced, `rate` per second from `from` for `lasts`.
    Constant(Flat),
    /// A Poisson process of `rate` per second from `from` for `lasts`.
    Poisson(Flat),
    /// The rate rises (or falls) in a straight line.
    Ramp(Ramp),
    /// The rate jumps to `peak` and decays exponentially with the given half-life.
    SpikeDecay(SpikeDecay),
}

/// A constant rate over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flat {
    /// Arrivals per second.
    pub rate: f64,
    /// Start of the window.
    #[serde(default)]
    pub from: Dur,
    /// Length of the window.
    pub lasts: Dur,
}

/// A rate that changes in a straight line over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Arrivals per second at the start.
    pub from_rate: f64,
    /// Arrivals per second at the end.
    pub to_rate: f64,
    /// Start of the window.
    #[serde(default)]
    pub from: Dur,
    /// Length of the window.
    pub lasts: Dur,
}

/// A jump with an exponential decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpikeDecay {
    /// Arrivals per second at the start.
    pub peak: f64,
    /// After this time the rate has halved.
    pub half_life: Dur,
    /// Start of the window.
    #[serde(default)]
    pub from: Dur,
    /// Length of the window.
    pub lasts: Dur,
}

impl Arrivals {
    /// Start and length of its window, in seconds.
    fn window(&self) -> (f64, f64) {
        let (from, lasts) = match self {
            Arrivals::Constant(f) | Arrivals::Poisson(f) => (f.from, f.lasts),
            Arrivals::Ramp(r) => (r.from, r.lasts),
            Arrivals::SpikeDecay(s) => (s.from, s.lasts),
        };
        (from.0.as_secs_f64(), lasts.0.as_secs_f64())
    }

    /// End of the window in microseconds since the epoch.
    pub fn until_us(&self) -> Micros {
        let (from, lasts) = self.window();
        ((from + lasts) * 1e6).round() as Micros
    }

    /// What is wrong with the numbers, if anything.
    ///
    /// # Errors
    /// Names the key and what is accepted.
    pub fn check(&self) -> Result<(), String> {
        let rate_ok = |name: &str, rate: f64, least: f64| {
            if rate.is_finite() && rate >= least && rate <= 1e7 {
                Ok(())
            } else {
                Err(format!("`{name}` is {rate}; arrivals per second are from {least} to 10000000"))
            }
        };
        match self {
            Arrivals::Constant(f) | Arrivals::Poisson(f) => rate_ok("rate", f.rate, 0.0)?,
            Arrivals::Ramp(r) => {
                rate_ok("from_rate", r.from_rate, 0.0)?;
                rate_ok("to_rate", r.to_rate, 0.0)?;
            }
            Arrivals::SpikeDecay(s) => {
                rate_ok("peak", s.peak, 0.0)?;
                if s.half_life.0.is_zero() {
                    return Err("`half_life` is 0s; it must be longer".into());
                }
            }
        }
        if self.window().1 <= 0.0 {
            return Err("`lasts` is 0s; a window without length has no arrivals".into());
        }
        Ok(())
    }

    /// Expected arrivals within `x` seconds of the window's start.
    fn cumulative(&self, x: f64) -> f64 {
        match self {
            Arrivals::Constant(f) | Arrivals::Poisson(f) => f.rate * x,
            Arrivals::Ramp(r) => {
                let slope = (r.to_rate - r.from_rate) / self.window().1;
                r.from_rate * x + slope * x * x / 2.0
            }
            Arrivals::SpikeDecay(s) => {
                let k = std::f64::consts::LN_2 / s.half_life.0.as_secs_f64();
                s.peak / k * (1.0 - (-k * x).exp())
            }
        }
    }

    /// The inverse of [`Self::cumulative`]: when `y` arrivals are to be expected.
    fn inverse(&self, y: f64) -> f64 {
        match self {
            Arrivals::Constant(f) | Arrivals::Poisson(f) => y / f.rate,
            Arrivals::Ramp(r) => {
                let slope = (r.to_rate - r.from_rate) / self.window().1;
                if slope.abs() < 1e-12 {
                    return y / r.from_rate;
                }
                // The stable form of the quadratic's root: it does not cancel when the slope is small.
                2.0 * y / (r.from_rate + (r.from_rate * r.from_rate + 2.0 * slope * y).max(0.0).sqrt())
            }
            Arrivals::SpikeDecay(s) => {
                let k = std::f64::consts::LN_2 / s.half_life.0.as_secs_f64();
                -(1.0 - y * k / s.peak).max(f64::MIN_POSITIVE).ln() / k
            }
        }
    }

    /// The arrivals in order, in microseconds since the epoch. The same seed gives the same arrivals.
    pub fn schedule(&self, seed: u64, stream: u64) -> Schedule {
        Schedule { arrivals: self.clone(), rng: random::stream(seed, stream), y: 0.0, n: 0 }
    }
}

/// The arrivals of one component, in order.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    rng: ChaCha8Rng,
    y: f64,
    n: u64,
}

impl Iterator for Schedule {
    type Item = Micros;

    fn next(&mut self) -> Option<Micros> {
        let (from, lasts) = self.arrivals.window();
        let y = match self.arrivals {
            Arrivals::Poisson(_) => {
                let u: f64 = self.rng.random();
                self.y += -(1.0 - u).ln();
                self.y
            }
            _ => self.n as f64 + 0.5,
        };
        self.n += 1;
        if y >= self.arrivals.cumulative(lasts) {
            return None;
        }
        let x = self.arrivals.inverse(y).clamp(0.0, lasts);
        Some(((from + x) * 1e6).round() as Micros)
    }
}

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

/// All cohorts' arrivals, merged in order of time.
#[derive(Debug, Clone)]
pub struct Plan {
    streams: Vec<(u16, std::iter::Peekable<Schedule>)>,
    n: u64,
}

impl Plan {
    /// The plan of a run: the components of each cohort, by the cohort's position.
    pub fn new(cohorts: &[Vec<Arrivals>], seed: u64) -> Plan {
        let mut streams = Vec::new();
        for (cohort, components) in cohorts.iter().enumerate() {
            for arrivals in components {
                let stream = streams.len() as u64;
                streams.push((cohort as u16, arrivals.schedule(seed, stream).peekable()));
            }
        }
        Plan { streams, n: 0 }
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
}

impl Iterator for Plan {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        // There are a handful of components, so a linear scan beats a heap. Ties go to the first component.
        let mut best: Option<(Micros, usize)> = None;
        for (index, (_, stream)) in self.streams.iter_mut().enumerate() {
            if let Some(&at) = stream.peek()
                && best.is_none_or(|(time, _)| at < time)
            {
                best = Some((at, index));
            }
        }
        let (at_us, index) = best?;
        let (cohort, stream) = &mut self.streams[index];
        stream.next();
        let n = self.n;
        self.n += 1;
        Some(Arrival { at_us, cohort: *cohort, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flat(rate: f64, from_ms: u64, lasts_ms: u64) -> Flat {
        Flat { rate, from: Dur::millis(from_ms), lasts: Dur::millis(lasts_ms) }
    }

    fn any_arrivals() -> impl Strategy<Value = Arrivals> {
        let window = (1.0f64..2_000.0, 0u64..3_000, 100u64..4_000);
        prop_oneof![
            window.clone().prop_map(|(r, f, l)| Arrivals::Constant(flat(r, f, l))),
            window.clone().prop_map(|(r, f, l)| Arrivals::Poisson(flat(r, f, l))),
            (window.clone(), 0.0f64..2_000.0).prop_map(|((r, f, l), to_rate)| Arrivals::Ramp(Ramp {
                from_rate: r,
                to_rate,
                from: Dur::millis(f),
                lasts: Dur::millis(l)
            })),
            (window, 50u64..2_000).prop_map(|((r, f, l), h)| Arrivals::SpikeDecay(SpikeDecay {
                peak: r,
                half_life: Dur::millis(h),
                from: Dur::millis(f),
                lasts: Dur::millis(l)
            })),
        ]
    }

    proptest! {
        #[test]
        fn arrivals_are_ordered_inside_their_window_and_repeatable(arrivals in any_arrivals(), seed: u64) {
            let times: Vec<Micros> = arrivals.schedule(seed, 3).collect();
            prop_assert!(times.is_sorted());
            let (from, lasts) = arrivals.window();
            for time in &times {
                prop_assert!(*time >= (from * 1e6) as Micros && *time <= ((from + lasts) * 1e6).round() as Micros);
            }
            prop_assert_eq!(&times, &arrivals.schedule(seed, 3).collect::<Vec<_>>());
        }

        #[test]
        fn as_many_as_the_curve_says(arrivals in any_arrivals(), seed: u64) {
            let expected = arrivals.cumulative(arrivals.window().1);
            let count = arrivals.schedule(seed, 0).count() as f64;
            // A regular process is exact; six standard deviations of a Poisson process are one miss in 500 million.
            let slack = if matches!(arrivals, Arrivals::Poisson(_)) { 6.0 * expected.sqrt() + 6.0 } else { 1.0 };
            prop_assert!((count - expected).abs() <= slack, "{count} against {expected}");
        }

        #[test]
        fn a_plan_merges_in_order_and_numbers_each(a in any_arrivals(), b in any_arrivals(), seed: u64) {
            let plan = Plan::new(&[vec![a.clone(), b.clone()], vec![b]], seed);
            let all: Vec<Arrival> = plan.clone().collect();
            prop_assert!(all.is_sorted_by_key(|x| x.at_us));
            prop_assert!(all.iter().enumerate().all(|(i, x)| x.n == i as u64));
            let (count, hash) = plan.count_and_hash();
            prop_assert_eq!(count, all.len() as u64);
            prop_assert_eq!(hash, plan.count_and_hash().1);
        }
    }

    #[test]
    fn a_step_is_vertical() {
        let plan = Plan::new(
            &[vec![Arrivals::Constant(flat(8.0, 0, 10_000)), Arrivals::Poisson(flat(800.0, 5_000, 2_000))]],
            7,
        );
        let rate = |from: Micros, until: Micros| plan.clone().filter(|a| a.at_us >= from && a.at_us < until).count();
        assert_eq!(rate(4_000_000, 5_000_000), 8);
        let first_tenth = rate(5_000_000, 5_100_000);
        assert!((50..115).contains(&first_tenth), "{first_tenth} arrivals in the first 100 ms");
    }

    #[test]
    fn another_seed_is_another_plan() {
        let arrivals = vec![vec![Arrivals::Poisson(flat(100.0, 0, 1_000))]];
        assert_ne!(Plan::new(&arrivals, 1).count_and_hash().1, Plan::new(&arrivals, 2).count_and_hash().1);
    }
}
