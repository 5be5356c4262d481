//! Postgres commits, and its reply is cut.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::link::{Poison, all};
use super::pattern::check_text;
use super::proxy::Protocol;
use super::toxic::{CutPoint, Toxic, ToxicKind};
use crate::scenario::About;

/// A reply of Postgres that is cut after the statement took effect.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutAfterCommit {
    /// The link.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Every n-th reply that could be cut is.
    #[serde(default = "one_in_one")]
    pub every: u32,
    /// Only replies to statements that contain this; to commits if absent.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for CutAfterCommit {
    const NEEDS: Option<Protocol> = Some(Protocol::Postgres);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let after = match &self.pattern {
            None => CutPoint::Commit,
            Some(contains) => CutPoint::Statement { contains: contains.clone() },
        };
        let kind = ToxicKind::CutReply { after, pick: Choice::every(self.every).pick() };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "replies cut"
    }

    fn does(&self) -> String {
        format!("{} cut after the commit", Choice::every(self.every).words("reply", "replies"))
    }

    fn check(&self, about: &mut About<'_>) {
        check_text(self.pattern.as_ref(), about);
        Choice::every(self.every).check(about);
    }
}
