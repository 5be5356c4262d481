//! Bytes over a link are swallowed, and then its connections are closed.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};
use crate::scenario::value::Dur;

/// Bytes are swallowed, and after a while the connection is closed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How long bytes are swallowed before the connection is closed, from the injection or from its beginning.
    pub after: Dur,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for Timeout {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Timeout { after: self.after.0 }).direction(self.direction).fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("bytes swallowed, connections closed after {}{}", self.after, way(self.direction))
    }
}
