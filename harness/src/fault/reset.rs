//! Connections over a link are reset.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all};
use super::toxic::{Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// Connections over a link are reset.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How long a connection works before it is reset, from the injection or from its beginning.
    #[serde(default)]
    pub after: Dur,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for Reset {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Reset { after: self.after.0 }).fraction(self.fraction)
    }

    fn does(&self) -> String {
        if self.after.0.is_zero() {
            "connections reset".into()
        } else {
            format!("connections reset after {}", self.after)
        }
    }

    fn check(&self, about: &mut About<'_>) {
        about.while_it_lasts("after", self.after);
    }
}
