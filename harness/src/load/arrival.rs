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

mod curve;
mod plan;
mod trace;

use curve::Curve;
pub use curve::{Flat, Level, Ramp, SpikeDecay, Steps, Think, check_response_times, response_times};
pub use plan::{Arrival, Crowd, Plan};
pub use trace::Trace;

/// One component of arrivals; components are summed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Arrivals {
    /// Evenly spaced, `rate` per second from `from` for `lasts`.
    Constant(Flat),
    /// A Poisson process of `rate` per second from `from` for `lasts`.
    Poisson(Flat),
    /// The rate jumps from level to level.
    Step(Steps),
    /// The rate rises (or falls) in a straight line.
    Ramp(Ramp),
    /// The rate jumps to `peak` and decays exponentially with the given half-life.
    SpikeDecay(SpikeDecay),
    /// People who all see a page at `from`, and come as soon as they have answered what it asks.
    Think(Think),
    /// A recorded trace is played again.
    Trace(Trace),
}

/// Arrivals of one component at most: a day at more than 5,000 per second. The whole plan is walked before a run starts.
const MOST: f64 = 500e6;

impl Arrivals {
    /// The rate curve; none of a trace, which has its times.
    fn curve(&self) -> Option<&dyn Curve> {
        match self {
            Arrivals::Constant(flat) | Arrivals::Poisson(flat) => Some(flat),
            Arrivals::Step(steps) => Some(steps),
            Arrivals::Ramp(ramp) => Some(ramp),
            Arrivals::SpikeDecay(spike) => Some(spike),
            Arrivals::Think(think) => Some(think),
            Arrivals::Trace(_) => None,
        }
    }

    /// Whether they come at random along the curve.
    fn is_poisson(&self) -> bool {
        match self {
            Arrivals::Poisson(_) => true,
            Arrivals::Step(steps) => steps.poisson,
            Arrivals::Ramp(ramp) => ramp.poisson,
            Arrivals::SpikeDecay(spike) => spike.poisson,
            Arrivals::Think(think) => think.poisson,
            Arrivals::Constant(_) | Arrivals::Trace(_) => false,
        }
    }

    /// The kind's name as it stands in scenario files.
    pub fn kind(&self) -> &'static str {
        match self {
            Arrivals::Constant(_) => "constant",
            Arrivals::Poisson(_) => "poisson",
            Arrivals::Step(_) => "step",
            Arrivals::Ramp(_) => "ramp",
            Arrivals::SpikeDecay(_) => "spike-decay",
            Arrivals::Think(_) => "think",
            Arrivals::Trace(_) => "trace",
        }
    }

    /// End of the window in microseconds since the epoch; of a trace that was read, its last arrival.
    pub fn until_us(&self) -> Micros {
        if let Arrivals::Trace(trace) = self {
            return trace.times.last().copied().unwrap_or(0);
        }
        let (from, lasts) = self.curve().map_or((0.0, 0.0), Curve::window);
        ((from + lasts) * 1e6).round() as Micros
    }

    /// What is wrong with the numbers, every rate multiplied by `scale`, if anything.
    ///
    /// # Errors
    /// Names the key and what is accepted.
    pub fn check(&self, scale: f64) -> Result<(), String> {
        if let Arrivals::Trace(trace) = self {
            return trace.check();
        }
        let Some(curve) = self.curve() else { return Ok(()) };
        curve.check()?;
        if curve.window().1 <= 0.0 {
            return Err("`lasts` is 0s; a window without length has no arrivals".into());
        }
        let expected = self.expected() * scale;
        if expected > MOST {
            return Err(format!("that is {expected:.0} arrivals; one kind of arrivals has at most {MOST}"));
        }
        Ok(())
    }

    /// The arrivals to be expected by the curve; 0 for a trace.
    fn expected(&self) -> f64 {
        self.curve().map_or(0.0, |curve| curve.cumulative(curve.window().1))
    }

    /// Whether nobody can come, since every rate is 0. A trace has somebody, or is refused when it is read.
    pub fn is_nobody(&self) -> bool {
        self.curve().is_some() && self.expected() <= 0.0
    }

    /// The arrivals in order, in microseconds since the epoch. The same seed gives the same arrivals.
    pub fn schedule(&self, seed: u64, stream: u64) -> Schedule {
        self.scaled_schedule(seed, stream, 1.0)
    }

    /// The same with every rate multiplied by `scale`: the same curve, that many times as high. Of a trace, each arrival comes
    /// that many times, or only every n-th one does.
    pub fn scaled_schedule(&self, seed: u64, stream: u64, scale: f64) -> Schedule {
        let (arrivals, rng) = (self.clone(), random::stream(seed, stream));
        Schedule { arrivals, rng, scale, expected: self.expected() * scale, y: 0.0, n: 0 }
    }
}

/// The arrivals of one component, in order.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    rng: ChaCha8Rng,
    /// What every rate is multiplied by.
    scale: f64,
    /// Of the whole curve: known from the start, since every arrival is held against it.
    expected: f64,
    y: f64,
    n: u64,
}

impl Iterator for Schedule {
    type Item = Micros;

    fn next(&mut self) -> Option<Micros> {
        let n = self.n;
        self.n += 1;
        if let Arrivals::Trace(trace) = &self.arrivals {
            return trace.times.get(((n as f64 + 0.5) / self.scale) as usize).copied();
        }
        let y = if self.arrivals.is_poisson() {
            let u: f64 = self.rng.random();
            self.y += -(1.0 - u).ln();
            self.y
        } else {
            n as f64 + 0.5
        };
        if y >= self.expected {
            return None;
        }
        let curve = self.arrivals.curve()?;
        let (from, lasts) = curve.window();
        let x = curve.inverse(y / self.scale).clamp(0.0, lasts);
        Some(((from + x) * 1e6).round() as Micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::value::Dur;
    use proptest::prelude::*;

    pub(super) fn flat(rate: f64, from_ms: u64, lasts_ms: u64) -> Flat {
        Flat { rate, from: Dur::millis(from_ms), lasts: Dur::millis(lasts_ms) }
    }

    fn trace(text: &str) -> Arrivals {
        let mut trace: Trace = toml::from_str("file = 't.csv'").unwrap();
        trace.read(text.as_bytes(), Dur::millis(60_000)).unwrap();
        Arrivals::Trace(trace)
    }

    fn plan(arrivals: Vec<Arrivals>, seed: u64) -> Plan {
        Plan::new(&[Crowd { arrivals, ..Crowd::default() }], &[], seed)
    }

    pub(super) fn any_arrivals() -> impl Strategy<Value = Arrivals> {
        let window = (1.0f64..2_000.0, 0u64..3_000, 100u64..4_000, any::<bool>());
        let level = (0.0f64..1_000.0, 1u64..1_500).prop_map(|(rate, ms)| Level { rate, lasts: Dur::millis(ms) });
        prop_oneof![
            window.clone().prop_map(|(r, f, l, _)| Arrivals::Constant(flat(r, f, l))),
            window.clone().prop_map(|(r, f, l, _)| Arrivals::Poisson(flat(r, f, l))),
            (proptest::collection::vec(level, 1..6), 0u64..3_000, any::<bool>())
                .prop_map(|(levels, f, poisson)| Arrivals::Step(Steps { from: Dur::millis(f), levels, poisson })),
            (window.clone(), 0.0f64..2_000.0).prop_map(|((r, f, l, poisson), to_rate)| Arrivals::Ramp(Ramp {
                from_rate: r,
                to_rate,
                from: Dur::millis(f),
                lasts: Dur::millis(l),
                poisson
            })),
            (window, 50u64..2_000).prop_map(|((r, f, l, poisson), h)| Arrivals::SpikeDecay(SpikeDecay {
                peak: r,
                half_life: Dur::millis(h),
                from: Dur::millis(f),
                lasts: Dur::millis(l),
                poisson
            })),
            (1u32..4_000, 100u64..3_000, 0.1f64..1.5, 1u64..5, any::<bool>()).prop_map(
                |(buyers, m, sigma, l, poisson)| {
                    let (from, median, lasts) = (Dur::millis(500), Dur::millis(m), Dur::millis(m * l));
                    Arrivals::Think(Think { buyers, from, median, sigma, lasts, poisson })
                }
            ),
            proptest::collection::vec(0u32..5_000, 1..200).prop_map(|offsets| {
                trace(&offsets.iter().fold("offset_ms\n".to_owned(), |text, ms| format!("{text}{ms}\n")))
            }),
        ]
    }

    /// Start and end in microseconds.
    fn window(arrivals: &Arrivals) -> (Micros, Micros) {
        let from = arrivals.curve().map_or(0.0, |curve| curve.window().0);
        ((from * 1e6) as Micros, arrivals.until_us())
    }

    proptest! {
        #[test]
        fn arrivals_are_ordered_inside_their_window_and_repeatable(arrivals in any_arrivals(), seed: u64) {
            let times: Vec<Micros> = arrivals.schedule(seed, 3).collect();
            prop_assert!(times.is_sorted());
            let (from, until) = window(&arrivals);
            prop_assert!(times.iter().all(|time| (from..=until).contains(time)));
            prop_assert_eq!(&times, &arrivals.schedule(seed, 3).collect::<Vec<_>>());
        }

        #[test]
        fn as_many_as_the_curve_says(arrivals in any_arrivals(), seed: u64) {
            prop_assert_eq!(arrivals.check(1.0), Ok(()));
            let expected = match &arrivals {
                Arrivals::Trace(trace) => trace.times.len() as f64,
                curve => curve.curve().map_or(0.0, |curve| curve.cumulative(curve.window().1)),
            };
            let count = arrivals.schedule(seed, 0).count() as f64;
            // A regular process is exact; six standard deviations of a Poisson process are one miss in 500 million.
            let slack = if arrivals.is_poisson() { 6.0 * expected.sqrt() + 6.0 } else { 1.0 };
            prop_assert!((count - expected).abs() <= slack, "{count} against {expected}");
        }

        #[test]
        fn a_scale_multiplies_the_curve_and_keeps_its_shape(arrivals in any_arrivals(), seed: u64, scale in 0.1f64..8.0) {
            let times: Vec<Micros> = arrivals.scaled_schedule(seed, 3, scale).collect();
            prop_assert!(times.is_sorted());
            let (from, until) = window(&arrivals);
            prop_assert!(times.iter().all(|time| (from..=until).contains(time)));
            let expected = arrivals.schedule(seed, 3).expected.max(match &arrivals {
                Arrivals::Trace(trace) => trace.times.len() as f64,
                _ => 0.0,
            }) * scale;
            let slack = if arrivals.is_poisson() { 6.0 * expected.sqrt() + 6.0 } else { 1.0 };
            prop_assert!((times.len() as f64 - expected).abs() <= slack, "{} against {expected}", times.len());
        }

        #[test]
        fn the_inverse_of_a_curve_is_its_inverse(arrivals in any_arrivals(), share in 0.001f64..0.999) {
            if let Some(curve) = arrivals.curve() {
                let all = curve.cumulative(curve.window().1);
                let y = all * share;
                prop_assume!(y > 0.0);
                let again = curve.cumulative(curve.inverse(y));
                prop_assert!((again - y).abs() <= 1e-6 * all, "{again} against {y} of {all}");
            }
        }
    }

    #[test]
    fn a_step_is_vertical() {
        let plan =
            plan(vec![Arrivals::Constant(flat(8.0, 0, 10_000)), Arrivals::Poisson(flat(800.0, 5_000, 2_000))], 7);
        let rate = |from: Micros, until: Micros| plan.clone().filter(|a| a.at_us >= from && a.at_us < until).count();
        assert_eq!(rate(4_000_000, 5_000_000), 8);
        let first_tenth = rate(5_000_000, 5_100_000);
        assert!((50..115).contains(&first_tenth), "{first_tenth} arrivals in the first 100 ms");
    }

    #[test]
    fn another_seed_is_another_plan() {
        let arrivals = vec![Arrivals::Poisson(flat(100.0, 0, 1_000))];
        assert_ne!(plan(arrivals.clone(), 1).count_and_hash().1, plan(arrivals, 2).count_and_hash().1);
    }

    /// Documented runs depend on these: a change here changes every schedule ever written down.
    #[test]
    fn schedules_never_change() {
        let read = |text: &str| toml::from_str::<Arrivals>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (text, count, hash) in [
            ("constant = { rate = 25, lasts = '4s' }", 100, "1270be5ab86340f3"),
            ("poisson = { rate = 200, from = '700ms', lasts = '4s' }", 754, "e6abb687fcc6490d"),
            ("ramp = { from_rate = 10, to_rate = 300, from = '500ms', lasts = '2s' }", 310, "8b479c745ceba220"),
            ("spike-decay = { peak = 900, half_life = '400ms', from = '1s', lasts = '3s' }", 517, "398eff4180bdf60c"),
            ("step.levels = [{ rate = 8, lasts = '5s' }, { rate = 800, lasts = '2s' }]", 1_640, "98df8c8108a3e1d7"),
            (
                "step = { levels = [{ rate = 8, lasts = '5s' }, { rate = 800, lasts = '2s' }], poisson = true }",
                1_559,
                "165aab05cc908255",
            ),
            (
                "think = { buyers = 5000, from = '5s', median = '2s', sigma = 0.5, lasts = '10s' }",
                5_000,
                "c1576c4d41434360",
            ),
        ] {
            assert_eq!(plan(vec![read(text)], 20_240_314).count_and_hash(), (count, hash.to_owned()), "{text}");
        }
        let recorded = plan(vec![trace("0.5\n0.25\n2\n")], 20_240_314);
        assert_eq!(recorded.count_and_hash(), (3, "8aa968086935ef4c".to_owned()));
    }

    #[test]
    fn the_plans_of_the_scenarios_never_change() {
        for (name, count, hash) in [
            ("spike", 2_726, "d35a274257234eb7"),
            ("chaos", 1_016, "4fc7821873aacb42"),
            ("strategies", 2_956, "29c53351ab52ac64"),
        ] {
            let path = format!("{}/../scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let scenario = crate::scenario::load(path.as_ref(), &[], None).unwrap().scenario;
            assert_eq!(scenario.plan().count_and_hash(), (count, hash.to_owned()), "{name}");
        }
    }

    #[test]
    fn the_schedule_of_scale_one_is_the_schedule_and_a_trace_is_repeated_or_thinned() {
        let read = |text: &str| toml::from_str::<Arrivals>(text).unwrap();
        let ramp = read("ramp = { from_rate = 10, to_rate = 300, from = '500ms', lasts = '2s', poisson = true }");
        assert!(ramp.schedule(5, 1).eq(ramp.scaled_schedule(5, 1, 1.0)));
        let day = trace("1\n2\n3\n4\n");
        let at = |scale: f64| day.scaled_schedule(1, 0, scale).map(|us| us / 1_000_000).collect::<Vec<_>>();
        assert_eq!(at(1.0), [1, 2, 3, 4]);
        assert_eq!(at(2.0), [1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(at(0.5), [2, 4]);
    }

    #[test]
    fn levels_jump() {
        let arrivals: Arrivals =
            toml::from_str("step = { from = '1s', levels = [{ rate = 8, lasts = '5s' }, { rate = 0, lasts = '1s' }, { rate = 800, lasts = '2s' }] }")
                .unwrap();
        let rate =
            |from: Micros, until: Micros| arrivals.schedule(1, 0).filter(|at| (from..until).contains(at)).count();
        assert_eq!(rate(0, 1_000_000), 0);
        assert_eq!(rate(1_000_000, 6_000_000), 40);
        assert_eq!(rate(6_000_000, 7_000_000), 0);
        assert_eq!(rate(7_000_000, 7_100_000), 80);
        assert_eq!(arrivals.schedule(1, 0).count(), 1_640);
    }

    #[test]
    fn people_answer_when_they_have_thought() {
        let arrivals: Arrivals =
            toml::from_str("think = { buyers = 5000, from = '5s', median = '2s', sigma = 0.5, lasts = '1m' }").unwrap();
        let times: Vec<Micros> = arrivals.schedule(1, 0).collect();
        assert_eq!(times.len(), 5_000, "each of them comes");
        // The longest time is far out, so half of them have answered at the median, and 84.1% after e^sigma medians.
        assert!(times[2_499] <= 7_000_000 && times[2_500] >= 7_000_000, "{} {}", times[2_499], times[2_500]);
        let within = times.iter().filter(|at| **at <= 5_000_000 + 3_297_443).count();
        assert!((4_205..=4_209).contains(&within), "{within}");
    }
}
