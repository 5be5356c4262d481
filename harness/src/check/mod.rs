//! Judges a recorded run.
//!
//! One file per invariant. Each is pure over the [`Evidence`]: no clock, no network, no files. A check counts with unique
//! ids, in time linear in the history; indeterminate operations are never counted as successes nor as failures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::{FinalState, History, Micros};

/// What a check, and the run as a whole, comes to. Ordered by severity: merging takes the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Judged, and it holds.
    Pass,
    /// It could not be judged: the evidence is missing, damaged, vacuous, or not to be trusted.
    Unknown,
    /// Violated; a witness shows it.
    Fail,
}

impl Verdict {
    /// The worse of the two: fail over unknown over pass.
    pub fn merge(self, other: Verdict) -> Verdict {
        self.max(other)
    }

    /// The name used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Unknown => "unknown",
            Verdict::Fail => "fail",
        }
    }
}

/// One line of a witness: an op, a ledger row, a fault, or a sum, in time order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WitnessLine {
    /// When, in microseconds since the epoch of the run; none for a sum or a remark.
    pub at_us: Option<Micros>,
    /// Until when, for what takes time.
    pub until_us: Option<Micros>,
    /// `op`, `ledger`, `stock`, `fault`, `probe` or `note`.
    pub source: String,
    /// The buyer it concerns, or empty.
    pub user: String,
    /// For people: `order ok: 201, order 17 held, 1 unit of item 1`.
    pub text: String,
    /// Whether this very line shows the violation, rather than leading up to it.
    pub offending: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `I1`, `I5a`, ...
    pub id: String,
    /// In words: `no oversell`.
    pub name: String,
    /// The outcome.
    pub verdict: Verdict,
    /// One or two sentences with the numbers: what was judged from what, or what is wrong.
    pub detail: String,
    /// The few lines that show a violation; empty unless it failed.
    pub witness: Vec<WitnessLine>,
}

/// What the run promised, taken from the scenario: the constants of the invariants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// The items on sale.
    pub items: Vec<ItemRules>,
    /// Bound on the difference between the harness's clock and the service's, in microseconds (ε).
    pub epsilon_us: Micros,
    /// What must have happened for the run to mean anything.
    pub expect: Expectations,
    /// Largest p99 of the send lag at which the measurement is still trusted, in microseconds.
    pub send_lag_limit_us: u64,
}

/// The rules of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemRules {
    /// The item.
    pub item: i64,
    /// Units at the start (S).
    pub stock: i64,
    /// Units that one user may hold or own (L).
    pub per_user_limit: i64,
    /// Price of one unit in the currency's smallest unit.
    pub price_cents: i64,
    /// How long a hold lasts, in microseconds (TTL).
    pub hold_us: Micros,
    /// When the sale opens (T0), relative to the epoch.
    pub opens_us: Micros,
    /// When it closes, relative to the epoch.
    pub closes_us: Micros,
}

/// What must have happened in a run for its passing to mean anything (I11).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Expectations {
    /// A buyer was told "sold out".
    pub sell_out: bool,
    /// Some op was indeterminate.
    pub indeterminate: bool,
    /// A hold expired and was released.
    pub expiry: bool,
    /// Some intent was tried more than once.
    pub retries: bool,
}

/// All that a verdict may rest on.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The client's history.
    pub history: &'a History,
    /// The audit, if one could be made.
    pub audit: Option<&'a FinalState>,
    /// What was promised.
    pub rules: &'a Rules,
}

/// One invariant.
pub trait Check: Sync {
    /// `I1`, `I5a`, ...
    fn id(&self) -> &'static str;
    /// In words: `no oversell`.
    fn name(&self) -> &'static str;
    /// Judges the evidence.
    fn check(&self, evidence: &Evidence<'_>) -> Finding;
}
