//! Connections over a link are slow to end.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};
use crate::scenario::value::Dur;

/// The end of a stream arrives later than its bytes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowClose {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// By how much later.
    pub delay: Dur,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for SlowClose {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::SlowClose { delay: self.delay.0 }).direction(self.direction).fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("ends of streams +{}{}", self.delay, way(self.direction))
    }
}
