//! Latency: every chunk leaves later.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Pareto, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ArmedToxic, LONGEST, LinkToxic, Next, Wrong, not_too_long};
use crate::fault::proxy::chunk::{Chunk, Side};

/// The shape of the heavy tail: at 1.5 the mean exists and the variance does not, as in measurements of networks.
const SHAPE: f64 = 1.5;

/// How random delays are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Evenly from `delay` - `jitter` to `delay` + `jitter`.
    #[default]
    Uniform,
    /// As a bell around `delay`, with `jitter` as its standard deviation.
    Normal,
    /// Never less than `delay`; what is added has the mean `jitter` and a heavy tail: half get less than a third of it, one in a
    /// hundred ten times as much, one in a thousand fifty times as much.
    Pareto,
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Pareto => "pareto",
        })
    }
}

/// Delays of one distribution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delays {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) distribution: Distribution,
}

impl Delays {
    pub(super) fn validate(&self) -> Result<(), Wrong> {
        not_too_long("delay", self.delay)?;
        not_too_long("jitter", self.jitter)
    }

    /// The next delay; without jitter, nothing random is used up.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Duration {
        let Self { delay, jitter, distribution } = *self;
        if jitter.is_zero() {
            return delay;
        }
        let (delay, jitter) = (delay.as_secs_f64(), jitter.as_secs_f64());
        let drawn = match distribution {
            Distribution::Uniform => delay + rng.random_range(-jitter..=jitter),
            Distribution::Normal => {
                let deviations: f64 = StandardNormal.sample(rng);
                delay + jitter * deviations
            }
            Distribution::Pareto => {
                let scale = jitter * (SHAPE - 1.0);
                // The scale is above zero, so the distribution exists.
                delay + Pareto::new(scale, SHAPE).map_or(0.0, |pareto| pareto.sample(rng) - scale)
            }
        };
        Duration::from_secs_f64(drawn.clamp(0.0, LONGEST.as_secs_f64()))
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Latency(pub(super) Delays);

impl ArmedToxic for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn validate(&self) -> Result<(), Wrong> {
        self.0.validate()
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkLatency { delays: self.0, rng })
    }
}

struct LinkLatency {
    delays: Delays,
    rng: ChaCha8Rng,
}

impl LinkToxic for LinkLatency {
    fn delay(&mut self, _side: Side, due: Instant, _len: usize) -> Instant {
        due + self.delays.draw(&mut self.rng)
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        next.touch(chunk.payload.len());
        chunk.due = self.delay(chunk.side, chunk.due, chunk.payload.len());
        next.pass(chunk);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Ten thousand delays in milliseconds, sorted.
    fn drawn(distribution: Distribution) -> Vec<f64> {
        let ms = Duration::from_millis;
        let delays = Delays { delay: ms(20), jitter: ms(5), distribution };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut drawn: Vec<f64> = (0..10_000).map(|_| delays.draw(&mut rng).as_secs_f64() * 1e3).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    fn mean(of: &[f64]) -> f64 {
        of.iter().sum::<f64>() / of.len() as f64
    }

    #[test]
    fn proxy_delays_follow_their_distribution() {
        let uniform = drawn(Distribution::Uniform);
        assert!((19.8..20.2).contains(&mean(&uniform)), "{}", mean(&uniform));
        assert!(uniform[0] >= 15.0 && uniform[0] < 15.1 && uniform[9_999] <= 25.0 && uniform[9_999] > 24.9);

        let normal = drawn(Distribution::Normal);
        let deviation = (normal.iter().map(|ms| (ms - 20.0).powi(2)).sum::<f64>() / 10_000.0).sqrt();
        assert!((19.8..20.2).contains(&mean(&normal)) && (4.8..5.2).contains(&deviation), "{deviation}");
        assert!(normal[0] < 8.0 && normal[9_999] > 32.0, "a bell has no edges at one deviation");

        // Of the excess: the median is (4^(1/3) - 1) / 2 of `jitter`, the 99th percentile (100^(2/3) - 1) / 2 times.
        let pareto = drawn(Distribution::Pareto);
        assert!(pareto[0] >= 20.0);
        assert!((21.3..21.6).contains(&pareto[5_000]), "{}", pareto[5_000]);
        assert!((65.0..80.0).contains(&pareto[9_900]), "{}", pareto[9_900]);
        assert!(pareto[9_990] > 180.0, "{}", pareto[9_990]);
    }

    #[test]
    fn proxy_delays_are_never_negative() {
        let jitter = Duration::from_millis(5);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for distribution in [Distribution::Uniform, Distribution::Normal] {
            let delays = Delays { delay: Duration::ZERO, jitter, distribution };
            assert!((0..100).any(|_| delays.draw(&mut rng).is_zero()));
        }
    }
}
