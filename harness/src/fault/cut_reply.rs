//! The service answers, and its reply is cut.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::Poison;
use super::proxy::Protocol;
use super::toxic::{Pick, RequestPattern, Toxic, ToxicKind};
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
        Toxic::new(ToxicKind::HttpCutReply { request, pick: pick(self.every) })
    }

    fn struck_calls(&self) -> &'static str {
        "replies cut"
    }

    fn does(&self) -> String {
        format!("{} cut", one_in(self.every))
    }

    fn check(&self, about: &mut About<'_>) {
        check_every(self.every, about);
    }
}

/// Which of the calls that could be struck are.
pub(super) fn pick(every: u32) -> Pick {
    NonZeroU64::new(every.into()).map_or(Pick::All, Pick::Every)
}

/// The same in words.
pub(super) fn one_in(every: u32) -> String {
    if every == 1 { "each reply".to_owned() } else { format!("1 reply in {every}") }
}

/// Says what is wrong with it.
pub(super) fn check_every(every: u32, about: &mut About<'_>) {
    if every == 0 {
        about.parameter("every", "`every` is 0", "1 cuts each reply, 2 every second one");
    }
}

/// What it is where a scenario does not say.
pub(super) fn one_in_one() -> u32 {
    1
}
