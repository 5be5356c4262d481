//! `[gate]`: what counts as a regression, and how long it may take to find out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Dur;

/// What counts as a regression.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Rounds at most; each provisions both sides anew. At least 2, since one provisioning alone convicts nobody.
    pub rounds: u32,
    /// How long a side is loaded before it is the other's turn.
    pub turn: Dur,
    /// Probability that any metric of the family is accused wrongly, however often one looks.
    pub alpha: f64,
    /// By how much a machine may change between a stored baseline and now, as a share: nobody is accused of less. A duet needs none.
    pub drift: f64,
    /// Phases in which there is more to do than can be done: orders per second are compared there, and nowhere else.
    pub saturated: Vec<String>,
    /// What it comes to when neither a regression nor its absence was shown in time.
    pub undecided: Undecided,
    /// The smallest change of each kind of metric that matters.
    pub effect: Effects,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            rounds: 8,
            turn: Dur::millis(250),
            alpha: 0.01,
            drift: 0.15,
            saturated: Vec::new(),
            undecided: Undecided::Pass,
            effect: Effects::default(),
        }
    }
}

/// What no decision comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Undecided {
    /// Nothing was proven, so nobody is accused.
    #[default]
    Pass,
    /// Exit code 12.
    Unknown,
}

/// The smallest changes that matter, as shares: 0.1 is a tenth. A change is called a regression when it is certainly larger
/// than three tenths of this, and excluded when it is certainly smaller than this. What lies between may go on unseen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Effects {
    /// Of medians of latency.
    pub us_p50: f64,
    /// Of TP99.
    pub us_p99: f64,
    /// Of TP999.
    pub us_p999: f64,
    /// Of orders per second in saturated phases.
    pub orders_per_second: f64,
    /// Of CPU-seconds for each 1,000 requests, by role.
    pub cpu: f64,
    /// Of memory and of write-ahead log.
    pub bytes: f64,
    /// Of the share of ops without an answer: 0.01 is one op in a hundred more.
    pub unanswered: f64,
    /// Of calls for each order on a link: a number of calls, no share.
    pub calls: f64,
}

impl Default for Effects {
    fn default() -> Self {
        Effects {
            us_p50: 0.1,
            us_p99: 0.1,
            us_p999: 0.2,
            orders_per_second: 0.1,
            cpu: 0.2,
            bytes: 0.5,
            unanswered: 0.01,
            calls: 0.5,
        }
    }
}

impl Effects {
    /// Each with its key.
    pub(super) fn all(&self) -> [(&'static str, f64); 8] {
        [
            ("us_p50", self.us_p50),
            ("us_p99", self.us_p99),
            ("us_p999", self.us_p999),
            ("orders_per_second", self.orders_per_second),
            ("cpu", self.cpu),
            ("bytes", self.bytes),
            ("unanswered", self.unanswered),
            ("calls", self.calls),
        ]
    }
}
