//! New connections over a link are refused.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{Poison, all};
use super::toxic::{Toxic, ToxicKind};

/// New connections are reset at once; existing ones go on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for Refuse {
    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        Toxic::new(ToxicKind::Refuse).fraction(self.fraction)
    }

    fn does(&self) -> String {
        "new connections refused".into()
    }
}
