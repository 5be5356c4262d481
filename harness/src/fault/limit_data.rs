//! Connections over a link end after so many bytes.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};

/// A connection is closed when it has carried so many bytes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitData {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How many bytes a direction carries, from the injection or from the beginning of the connection.
    pub bytes: u64,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for LimitData {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::LimitData { bytes: self.bytes }).direction(self.direction).fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("connections closed after {} bytes{}", self.bytes, way(self.direction))
    }
}
