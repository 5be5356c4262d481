//! A link carries only so many bytes per second.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};

/// Each connection carries only so many bytes per second.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How many bytes each direction of each connection carries in a second.
    pub bytes_per_second: u64,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for Bandwidth {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Bandwidth { bytes_per_second: self.bytes_per_second })
            .direction(self.direction)
            .fraction(self.fraction)
    }

    fn does(&self) -> String {
        format!("{} bytes per second on each connection{}", self.bytes_per_second, way(self.direction))
    }
}
