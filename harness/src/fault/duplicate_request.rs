//! Requests are delivered twice.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, Of, one_in_one};
use super::link::{Poison, all};
use super::pattern::{check_path, check_word};
use super::proxy::Protocol;
use super::toxic::{RequestPattern, Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// The service sees a request twice, and the client gets one reply.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DuplicateRequest {
    /// The link: `client→service`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// How long after the request its copy is sent; both are sent at the same time unless given.
    #[serde(default)]
    pub after: Dur,
    /// Only requests whose path looks like this, `*` standing for any text: `/items/*/orders`.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Only requests with this method, such as `POST`.
    pub method: Option<String>,
    /// Every n-th of them is.
    #[serde(default = "one_in_one")]
    pub every: u32,
    /// Each of them is with this probability, above 0 and up to 1, instead of every n-th.
    pub share: Option<f64>,
    /// Only the first so many are, instead of every n-th.
    pub first: Option<u64>,
    /// What `first` is counted over: the `link`, or each `connection`.
    #[serde(default)]
    pub of: Of,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl DuplicateRequest {
    fn choice(&self) -> Choice {
        let Self { every, share, first, of, .. } = *self;
        Choice { every, share, first, of }
    }
}

impl Poison for DuplicateRequest {
    const NEEDS: Option<Protocol> = Some(Protocol::Http);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let request = RequestPattern { method: self.method.clone(), path: self.pattern.clone() };
        let kind = ToxicKind::HttpDuplicate { after: self.after.0, request, pick: self.choice().pick() };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "requests delivered twice"
    }

    fn does(&self) -> String {
        format!("{} delivered again after {}", self.choice().words("request", "requests"), self.after)
    }

    fn check(&self, about: &mut About<'_>) {
        check_path(self.pattern.as_ref(), about);
        check_word("method", self.method.as_ref(), "POST", about);
        self.choice().check(about);
    }
}
