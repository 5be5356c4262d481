//! One kind of statement takes longer.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::latency::{check_jitter, spread};
use super::link::{Poison, all, calls_themselves, way};
use super::pattern::{check_text, check_word};
use super::proxy::Protocol;
use super::toxic::{CallPattern, Direction, Distribution, StatementPattern, Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// Statements of one kind reach Postgres later, and everything else at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStatement {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Only statements that begin with this word, such as `COMMIT`.
    pub verb: Option<String>,
    /// Only statements that contain this.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// By how much each statement is delayed.
    pub delay: Dur,
    /// How far delays are spread.
    #[serde(default)]
    pub jitter: Dur,
    /// How delays are spread.
    #[serde(default)]
    pub distribution: Distribution,
    /// Every n-th of them is.
    #[serde(default = "one_in_one")]
    pub every: u32,
    /// Share of the connections it hits, above 0 and up to 1.
    #[serde(default = "all")]
    pub fraction: f64,
    /// Which way: `up` delays the statement, `down` its reply, when it has taken effect.
    #[serde(default = "calls_themselves")]
    pub direction: Direction,
}

impl Poison for SlowStatement {
    const NEEDS: Option<Protocol> = Some(Protocol::Postgres);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let Self { delay, jitter, distribution, .. } = *self;
        let calls =
            CallPattern::Statement(StatementPattern { verb: self.verb.clone(), contains: self.pattern.clone() });
        let pick = Choice::every(self.every).pick();
        let kind = ToxicKind::SlowCall { calls, delay: delay.0, jitter: jitter.0, distribution, pick };
        Toxic::new(kind).direction(self.direction).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "statements delayed"
    }

    fn does(&self) -> String {
        let which = Choice::every(self.every).words("statement", "statements");
        format!("{}{}", spread(&which, self.delay, self.jitter, self.distribution), way(self.direction))
    }

    fn check(&self, about: &mut About<'_>) {
        check_word("verb", self.verb.as_ref(), "COMMIT", about);
        check_text(self.pattern.as_ref(), about);
        Choice::every(self.every).check(about);
        check_jitter(self.delay, self.jitter, self.distribution, about);
    }
}
