//! Bytes over a link are swallowed.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};

/// Bytes over a link are swallowed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlackHole {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for BlackHole {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::BlackHole).direction(self.direction).fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("bytes swallowed{}", way(self.direction))
    }
}
