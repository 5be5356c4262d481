//! Replies over a link are delayed.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all};
use super::toxic::{Direction, Distribution, Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// A delay on a link.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Added to each reply; by `direction = "up"` to each request, by `both` to both.
    pub delay: Dur,
    /// How far delays are spread.
    #[serde(default)]
    pub jitter: Dur,
    /// How delays are spread.
    #[serde(default)]
    pub distribution: Distribution,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default = "replies")]
    pub direction: Direction,
}

fn replies() -> Direction {
    Direction::Down
}

impl Poison for Latency {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let Self { delay, jitter, distribution, .. } = *self;
        let kind = ToxicKind::Latency { delay: delay.0, jitter: jitter.0, distribution };
        Toxic::new(kind).direction(self.direction).fraction(self.fraction)
    }

    fn does(&self) -> String {
        let what = match self.direction {
            Direction::Up => "requests",
            Direction::Down => "replies",
            Direction::Both => "requests and replies",
        };
        spread(what, self.delay, self.jitter, self.distribution)
    }

    fn check(&self, about: &mut About<'_>) {
        check_jitter(self.delay, self.jitter, self.distribution, about);
    }
}

/// What is delayed, and by how much, in words for people.
pub(super) fn spread(what: &str, delay: Dur, jitter: Dur, distribution: Distribution) -> String {
    match distribution {
        Distribution::Uniform => format!("{what} +{delay} ±{jitter}"),
        Distribution::Normal => format!("{what} +{delay}, normal with σ {jitter}"),
        Distribution::Pareto => format!("{what} +{delay} and more, heavy tail with mean {jitter}"),
    }
}

/// Says so if delays could be drawn that are less than nothing, or a spread is asked for and none is given.
pub(super) fn check_jitter(delay: Dur, jitter: Dur, distribution: Distribution, about: &mut About<'_>) {
    if distribution == Distribution::Uniform && jitter > delay {
        about.parameter(
            "jitter",
            &format!("a jitter of {jitter} is more than its delay of {delay}"),
            "a delay cannot be negative: lower `jitter`, or let distribution = \"pareto\" only add",
        );
    }
    if distribution != Distribution::Uniform && jitter.0.is_zero() {
        about.parameter(
            "distribution",
            "`distribution` says how `jitter` is spread, and there is no jitter",
            "add jitter = \"2ms\", for instance, or remove `distribution`",
        );
    }
}
