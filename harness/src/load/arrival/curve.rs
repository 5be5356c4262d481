//! Rate curves: how many arrivals are to be expected up to a moment, and the inverse, when so many are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, LogNormal};

use crate::scenario::value::Dur;

/// A rate curve over a window. Its parameters were checked; times are seconds from the window's start.
pub(super) trait Curve {
    /// Start and length of the window, in seconds.
    fn window(&self) -> (f64, f64);

    /// What is wrong with the numbers, if anything: names the key and what is accepted.
    fn check(&self) -> Result<(), String>;

    /// Λ(x): the arrivals to be expected within the first `x` seconds.
    fn cumulative(&self, x: f64) -> f64;

    /// Λ⁻¹(y): when `y` arrivals are to be expected.
    fn inverse(&self, y: f64) -> f64;
}

fn seconds(from: Dur, lasts: Dur) -> (f64, f64) {
    (from.0.as_secs_f64(), lasts.0.as_secs_f64())
}

fn rate_ok(name: &str, rate: f64) -> Result<(), String> {
    if rate.is_finite() && (0.0..=1e7).contains(&rate) {
        Ok(())
    } else {
        Err(format!("`{name}` is {rate}; arrivals per second are from 0 to 10000000"))
    }
}

fn longer_than_nothing(name: &str, length: Dur) -> Result<(), String> {
    if length.0.is_zero() { Err(format!("`{name}` is 0s; it must be longer")) } else { Ok(()) }
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

impl Curve for Flat {
    fn window(&self) -> (f64, f64) {
        seconds(self.from, self.lasts)
    }

    fn check(&self) -> Result<(), String> {
        rate_ok("rate", self.rate)
    }

    fn cumulative(&self, x: f64) -> f64 {
        self.rate * x
    }

    fn inverse(&self, y: f64) -> f64 {
        y / self.rate
    }
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
    /// Whether they come at random, as a Poisson process of this rate, instead of evenly.
    #[serde(default)]
    pub poisson: bool,
}

impl Curve for Ramp {
    fn window(&self) -> (f64, f64) {
        seconds(self.from, self.lasts)
    }

    fn check(&self) -> Result<(), String> {
        rate_ok("from_rate", self.from_rate)?;
        rate_ok("to_rate", self.to_rate)
    }

    fn cumulative(&self, x: f64) -> f64 {
        let slope = (self.to_rate - self.from_rate) / self.window().1;
        self.from_rate * x + slope * x * x / 2.0
    }

    fn inverse(&self, y: f64) -> f64 {
        let slope = (self.to_rate - self.from_rate) / self.window().1;
        if slope.abs() < 1e-12 {
            return y / self.from_rate;
        }
        // The stable form of the quadratic's root: it does not cancel when the slope is small.
        2.0 * y / (self.from_rate + (self.from_rate * self.from_rate + 2.0 * slope * y).max(0.0).sqrt())
    }
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
    /// Whether they come at random, as a Poisson process of this rate, instead of evenly.
    #[serde(default)]
    pub poisson: bool,
}

impl Curve for SpikeDecay {
    fn window(&self) -> (f64, f64) {
        seconds(self.from, self.lasts)
    }

    fn check(&self) -> Result<(), String> {
        rate_ok("peak", self.peak)?;
        longer_than_nothing("half_life", self.half_life)
    }

    fn cumulative(&self, x: f64) -> f64 {
        let k = std::f64::consts::LN_2 / self.half_life.0.as_secs_f64();
        self.peak / k * (1.0 - (-k * x).exp())
    }

    fn inverse(&self, y: f64) -> f64 {
        let k = std::f64::consts::LN_2 / self.half_life.0.as_secs_f64();
        -(1.0 - y * k / self.peak).max(f64::MIN_POSITIVE).ln() / k
    }
}

/// Levels that follow each other at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// Start of the first level.
    #[serde(default)]
    pub from: Dur,
    /// The levels in order.
    pub levels: Vec<Level>,
    /// Whether they come at random, as a Poisson process of this rate, instead of evenly.
    #[serde(default)]
    pub poisson: bool,
}

/// A rate and how long it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Arrivals per second; 0 is a pause.
    pub rate: f64,
    /// How long.
    pub lasts: Dur,
}

impl Curve for Steps {
    fn window(&self) -> (f64, f64) {
        (self.from.0.as_secs_f64(), self.levels.iter().map(|level| level.lasts.0.as_secs_f64()).sum())
    }

    fn check(&self) -> Result<(), String> {
        if self.levels.is_empty() {
            return Err("`levels` is empty; name at least one, such as { rate = 8, lasts = \"5s\" }".into());
        }
        self.levels.iter().try_for_each(|level| {
            rate_ok("levels.rate", level.rate)?;
            longer_than_nothing("levels.lasts", level.lasts)
        })
    }

    fn cumulative(&self, mut x: f64) -> f64 {
        let mut sum = 0.0;
        for level in &self.levels {
            let lasts = level.lasts.0.as_secs_f64();
            sum += level.rate * x.min(lasts);
            x -= lasts;
            if x <= 0.0 {
                break;
            }
        }
        sum
    }

    fn inverse(&self, mut y: f64) -> f64 {
        let mut start = 0.0;
        for level in &self.levels {
            let lasts = level.lasts.0.as_secs_f64();
            if y < level.rate * lasts {
                return start + y / level.rate;
            }
            y -= level.rate * lasts;
            start += lasts;
        }
        start
    }
}

/// People who think at the same time, at most.
const MOST_PEOPLE: u32 = 10_000_000;

/// People who all see a page at the same moment and answer what it asks, a challenge for instance, each after a time of
/// his own.
///
/// The times are log-normal, as those of people who answer questions are (W. J. van der Linden, "A lognormal model for
/// response times on test items", *Journal of Educational and Behavioral Statistics* 31(2), 2006).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Think {
    /// How many they are. Each answers within `lasts`.
    pub buyers: u32,
    /// When they see the page.
    #[serde(default)]
    pub from: Dur,
    /// Half of all times are shorter, were `lasts` endless.
    pub median: Dur,
    /// Standard deviation of the time's natural logarithm: 0.5 puts two thirds between 0.6 and 1.6 times the median.
    #[serde(default = "half")]
    pub sigma: f64,
    /// The longest time.
    pub lasts: Dur,
    /// Whether they come at random, as a Poisson process of this rate, instead of evenly along the curve.
    #[serde(default)]
    pub poisson: bool,
}

fn half() -> f64 {
    0.5
}

/// Times of people: log-normal, by their median and the standard deviation of their logarithm. None if these are not
/// numbers that a person could be meant by.
pub fn response_times(median: Dur, sigma: f64) -> Option<LogNormal> {
    let usable = !median.0.is_zero() && (0.01..=3.0).contains(&sigma);
    usable.then(|| LogNormal::new(median.0.as_secs_f64().ln(), sigma).ok()).flatten()
}

/// What is wrong with the numbers for [`response_times`], and what is accepted.
///
/// # Errors
/// Names the key.
pub fn check_response_times(median: Dur, sigma: f64) -> Result<(), String> {
    longer_than_nothing("median", median)?;
    match response_times(median, sigma) {
        Some(_) => Ok(()),
        None => Err(format!("`sigma` is {sigma}; from 0.01, nearly all alike, to 3, all over the place")),
    }
}

impl Think {
    fn times(&self) -> LogNormal {
        response_times(self.median, self.sigma).expect("its numbers were checked")
    }
}

impl Curve for Think {
    fn window(&self) -> (f64, f64) {
        seconds(self.from, self.lasts)
    }

    fn check(&self) -> Result<(), String> {
        if self.buyers == 0 {
            return Err("`buyers` is 0; at least 1".into());
        }
        if self.buyers > MOST_PEOPLE {
            return Err(format!("`buyers` is {}; at most {MOST_PEOPLE}", self.buyers));
        }
        check_response_times(self.median, self.sigma)?;
        longer_than_nothing("lasts", self.lasts)?;
        let within = self.times().cdf(self.lasts.0.as_secs_f64());
        if within >= 0.01 {
            return Ok(());
        }
        let (lasts, median) = (self.lasts, self.median);
        Err(format!("`lasts` is {lasts}, and with a `median` of {median} hardly anybody answers within that time"))
    }

    fn cumulative(&self, x: f64) -> f64 {
        let times = self.times();
        f64::from(self.buyers) * times.cdf(x) / times.cdf(self.lasts.0.as_secs_f64())
    }

    fn inverse(&self, y: f64) -> f64 {
        let times = self.times();
        let answered = y / f64::from(self.buyers) * times.cdf(self.lasts.0.as_secs_f64());
        times.inverse_cdf(answered.min(1.0))
    }
}
