//! Replies arrive with a body that is not theirs.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, Of, one_in_one};
use super::link::{Poison, all};
use super::pattern::{check_path, check_word};
use super::proxy::Protocol;
use super::toxic::{Garbage, RequestPattern, Toxic, ToxicKind};
use crate::scenario::About;

/// Status and headers of a reply arrive, and something else in the place of its body.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GarbageBody {
    /// The link: `client→service`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// What arrives instead.
    #[serde(default)]
    pub body: Garbage,
    /// Only replies to requests whose path looks like this, `*` standing for any text: `/items/*/orders`.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Only replies to requests with this method, such as `POST`.
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

impl GarbageBody {
    fn choice(&self) -> Choice {
        let Self { every, share, first, of, .. } = *self;
        Choice { every, share, first, of }
    }
}

impl Poison for GarbageBody {
    const NEEDS: Option<Protocol> = Some(Protocol::Http);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let request = RequestPattern { method: self.method.clone(), path: self.pattern.clone() };
        let kind = ToxicKind::HttpBody { garbage: self.body, request, pick: self.choice().pick() };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "replies falsified"
    }

    fn does(&self) -> String {
        let garbage = match self.body {
            Garbage::Bytes => "random bytes",
            Garbage::Half => "half its body",
            Garbage::Empty => "no body",
            Garbage::Html => "a page of HTML",
        };
        format!("{} with {garbage}", self.choice().words("reply", "replies"))
    }

    fn check(&self, about: &mut About<'_>) {
        check_path(self.pattern.as_ref(), about);
        check_word("method", self.method.as_ref(), "POST", about);
        self.choice().check(about);
    }
}
