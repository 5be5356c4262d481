//! The service answers, and its reply is cut.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::link::{Poison, all};
use super::pattern::check_path;
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
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for CutReply {
    const NEEDS: Option<Protocol> = Some(Protocol::Http);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let request = RequestPattern { method: None, path: self.pattern.clone() };
        let kind = ToxicKind::HttpCutReply { request, pick: Choice::every(self.every).pick() };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "replies cut"
    }

    fn does(&self) -> String {
        format!("{} cut", Choice::every(self.every).words("reply", "replies"))
    }

    fn check(&self, about: &mut About<'_>) {
        check_path(self.pattern.as_ref(), about);
        Choice::every(self.every).check(about);
    }
}
