//! Redis carries a command out, and its reply is cut.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::link::{Poison, all};
use super::pattern::{check_text, check_word};
use super::proxy::Protocol;
use super::toxic::{CommandPattern, Toxic, ToxicKind};
use crate::scenario::About;

/// A reply of Redis that is cut after the command took effect.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutAfterCommand {
    /// The link: `service→redis`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Only replies to this command, such as `EVALSHA`.
    pub command: Option<String>,
    /// Only replies to commands that contain this, such as a key.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Every n-th of them is.
    #[serde(default = "one_in_one")]
    pub every: u32,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
}

impl Poison for CutAfterCommand {
    const NEEDS: Option<Protocol> = Some(Protocol::Redis);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let command = CommandPattern { name: self.command.clone(), contains: self.pattern.clone() };
        let kind = ToxicKind::RedisCutReply { command, pick: Choice::every(self.every).pick() };
        Toxic::new(kind).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "replies cut"
    }

    fn does(&self) -> String {
        format!("{} cut after the command", Choice::every(self.every).words("reply", "replies"))
    }

    fn check(&self, about: &mut About<'_>) {
        check_word("command", self.command.as_ref(), "EVALSHA", about);
        check_text(self.pattern.as_ref(), about);
        Choice::every(self.every).check(about);
    }
}
