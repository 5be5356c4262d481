//! What is written at once arrives in pieces.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all, way};
use super::toxic::{Direction, Toxic, ToxicKind};
use crate::scenario::value::Dur;

/// What is written at once arrives in small pieces.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slicer {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Mean size of a piece in bytes.
    pub size: u32,
    /// Largest deviation from it in bytes, less than `size`.
    #[serde(default)]
    pub variation: u32,
    /// The least time between two pieces.
    #[serde(default)]
    pub delay: Dur,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
}

impl Poison for Slicer {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Slicer { size: self.size, variation: self.variation, delay: self.delay.0 })
            .direction(self.direction)
            .fraction(self.fraction)
    }

    fn does(&self) -> String {
        let Self { size, variation, delay, direction, .. } = self;
        format!("pieces of {size} ±{variation} bytes, {delay} apart{}", way(*direction))
    }
}
