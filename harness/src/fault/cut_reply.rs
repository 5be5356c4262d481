//! The service answers, and its reply is cut.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::link::Poison;
use super::proxy::Protocol;
use super::toxic::{RequestPattern, Toxic, ToxicKind};
use crate::scenario::About;

/// A reply over HTTP that is cut.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutReply {
    /// The link.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Every n-th reply that could be cut is.
    #[serde(default = "one_in_one")]
    pub every: u32,
    /// Only replies to requests whose path looks like this, `*` standing for any text: `/items/*/orders`.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
}

impl Poison for CutReply {
    const NEEDS: Option<Protocol> = Some(Protocol::Http);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let request = RequestPattern { method: None, path: self.pattern.clone() };
        Toxic::new(ToxicKind::HttpCutReply { request, pick: Choice::every(self.every).pick() })
    }

    fn struck_calls(&self) -> &'static str {
        "replies cut"
    }

    fn does(&self) -> String {
        format!("{} cut", Choice::every(self.every).words("reply", "replies"))
    }

    fn check(&self, about: &mut About<'_>) {
        Choice::every(self.every).check(about);
    }
}
