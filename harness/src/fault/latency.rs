//! Replies over a link are delayed.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all};
use super::toxic::{Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// A delay on a link.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Added to each reply.
    pub delay: Dur,
    /// Spread around the delay, uniform on both sides.
    #[serde(default)]
    pub jitter: Dur,
    /// Share of the connections it hits, from 0 to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for Latency {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Latency { delay: self.delay.0, jitter: self.jitter.0 }).fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("replies +{} ±{}", self.delay, self.jitter)
    }

    fn check(&self, about: &mut About<'_>) {
        if self.jitter > self.delay {
            about.wrong(
                self.link.span(),
                format!("a jitter of {} is more than its delay of {}", self.jitter, self.delay),
                "a delay cannot be negative: lower `jitter`",
            );
        }
    }
}
