//! One kind of request takes longer.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::choice::{Choice, one_in_one};
use super::latency::{check_jitter, spread};
use super::link::{Poison, all, calls_themselves, way};
use super::pattern::{check_path, check_word};
use super::proxy::Protocol;
use super::toxic::{CallPattern, Direction, Distribution, RequestPattern, Toxic, ToxicKind};
use crate::scenario::About;
use crate::scenario::value::Dur;

/// Requests of one kind reach the service later, and everything else at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowRequest {
    /// The link: `client→service`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Only requests whose path looks like this, `*` standing for any text: `/items/*/orders`.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Only requests with this method, such as `POST`.
    pub method: Option<String>,
    /// By how much each request is delayed.
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
    /// Which way: `up` delays the request, `down` its reply, when it has taken effect.
    #[serde(default = "calls_themselves")]
    pub direction: Direction,
}

impl Poison for SlowRequest {
    const NEEDS: Option<Protocol> = Some(Protocol::Http);

    fn link(&self) -> &Spanned<String> {
        &self.link
    }

    fn toxic(&self) -> Toxic {
        let Self { delay, jitter, distribution, .. } = *self;
        let calls = CallPattern::Request(RequestPattern { method: self.method.clone(), path: self.pattern.clone() });
        let pick = Choice::every(self.every).pick();
        let kind = ToxicKind::SlowCall { calls, delay: delay.0, jitter: jitter.0, distribution, pick };
        Toxic::new(kind).direction(self.direction).fraction(self.fraction)
    }

    fn struck_calls(&self) -> &'static str {
        "requests delayed"
    }

    fn does(&self) -> String {
        let which = Choice::every(self.every).words("request", "requests");
        format!("{}{}", spread(&which, self.delay, self.jitter, self.distribution), way(self.direction))
    }

    fn check(&self, about: &mut About<'_>) {
        check_path(self.pattern.as_ref(), about);
        check_word("method", self.method.as_ref(), "POST", about);
        Choice::every(self.every).check(about);
        check_jitter(self.delay, self.jitter, self.distribution, about);
    }
}
