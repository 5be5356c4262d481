//! New connections over a link take longer to be made.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::latency::{check_jitter, spread};
use super::link::{Poison, all};
use super::toxic::{Distribution, Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// New connections reach their destination later.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectLatency {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How long a new connection waits before it reaches its destination.
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
}

impl Poison for ConnectLatency {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let Self { delay, jitter, distribution, .. } = *self;
        let kind = ToxicKind::ConnectLatency { delay: delay.0, jitter: jitter.0, distribution };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn does(&self) -> String {
        spread("new connections", self.delay, self.jitter, self.distribution)
    }

    fn check(&self, about: &mut About<'_>) {
        check_jitter(self.delay, self.jitter, self.distribution, about);
    }
}
