//! A link goes down and comes up again, over and over.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all};
use super::toxic::{Down, Toxic, ToxicKind};
use crate::scenario::value::Dur;

/// A link goes down and comes up again, over and over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flapping {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How long it is down each time; it begins with being down.
    pub down: Dur,
    /// How long it is up in between.
    pub up: Dur,
    /// What happens while it is down.
    #[serde(default)]
    pub how: Down,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for Flapping {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Flapping { down: self.down.0, up: self.up.0, how: self.how }).fraction(self.fraction)
    }

    fn does(&self) -> String {
        let how = match self.how {
            Down::Reset => "connections reset",
            Down::Stall => "bytes held back",
        };
        format!("{how} for {}, in turns with {} of peace", self.down, self.up)
    }
}
