//! Judges a recorded run.
//!
//! One file per invariant. Each is pure over the [`Evidence`]: no clock, no network, no files. A check counts with unique
//! ids, in time linear in the history; indeterminate operations are never counted as successes nor as failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::{FinalState, History, Micros};

mod books;
mod claims;
mod i01_oversell;
mod i02_lost_ack;
mod i03_phantom;
mod i04_duplicate;
mod i05a_conservation;
mod i05b_drain;
mod i05c_false_sold_out;
mod i06_limits;
mod i07_captures;
mod i07_money;
mod i08_release;
mod i09_queue;
mod i10_window;
mod i11_vacuous;
pub mod index;
pub mod sim;
mod standing;
mod tally;
pub mod testing;
pub mod witness;

use claims::Claim;
use index::Index;
use witness::Witness;

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
    /// `op`, `ledger`, `payment`, `stock`, `fault`, `probe` or `note`.
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
    /// One or two sentences with the numbers: what was judged from what, or what is wrong. Of several things each has a
    /// line; read as one paragraph, the lines are right as well.
    pub detail: String,
    /// The few lines that show a violation; empty unless it failed.
    pub witness: Vec<WitnessLine>,
}

/// What can be said of an invariant where nobody sees the service's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBooks {
    /// As much as with them.
    Judged,
    /// Buyers see it violated, but cannot see that it holds.
    ConvictedOnly,
    /// Nothing.
    NotJudged,
}

impl WithoutBooks {
    /// Of the invariant with this id; `set_up` says whether stock, window and limits are those of the scenario for certain.
    pub fn of(id: &str, set_up: bool) -> WithoutBooks {
        match id {
            "I9" | "I11" => WithoutBooks::Judged,
            "I1" | "I4" | "I6" => WithoutBooks::ConvictedOnly,
            "I5c" | "I10" if set_up => WithoutBooks::ConvictedOnly,
            _ => WithoutBooks::NotJudged,
        }
    }
}

/// What the run promised, taken from the scenario: the constants of the invariants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// The items on sale.
    pub items: Vec<ItemRules>,
    /// Bound on the difference between the harness's clock and the service's, in microseconds (ε).
    pub epsilon_us: Micros,
    /// How long after it was accepted, or after the last fault was healed, a ticket may stay undecided, in microseconds.
    #[serde(default = "default_ticket_deadline")]
    pub ticket_deadline_us: Micros,
    /// What must have happened for the run to mean anything.
    pub expect: Expectations,
    /// Largest p99 of the send lag at which the measurement is still trusted, in microseconds.
    pub send_lag_limit_us: u64,
    /// Cohorts of hoarders, bots and the like: whom the service is to tell from the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abusive_cohorts: Vec<String>,
    /// Whether the harness told the service its items, their stock, window and hold, as it does through an audit listener.
    /// Without that, the scenario only says what it takes the service to be set to.
    #[serde(default = "default_set_up")]
    pub set_up: bool,
}

fn default_set_up() -> bool {
    true
}

fn default_ticket_deadline() -> Micros {
    5_000_000
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
    /// Whether there is more of it than is asked for, so that it need not sell out.
    #[serde(default)]
    pub plentiful: bool,
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

/// The evidence, with what all checks need of it computed once.
#[derive(Debug)]
pub struct Case<'a> {
    /// The client's history.
    pub history: &'a History,
    /// The audit, if one could be made.
    pub audit: Option<&'a FinalState>,
    /// What was promised.
    pub rules: &'a Rules,
    /// Ops by intent, orders by id, faults by window.
    pub index: Index<'a>,
    claims: Vec<Claim>,
}

impl<'a> Case<'a> {
    /// Groups the evidence; linear in it.
    pub fn new(evidence: &Evidence<'a>) -> Case<'a> {
        let Evidence { history, audit, rules } = *evidence;
        let mut case = Case { history, audit, rules, index: Index::build(history, audit, rules), claims: Vec::new() };
        case.claims = claims::claims(&case);
        case
    }
}

/// One invariant.
pub trait Check: Sync {
    /// `I1`, `I5a`, ...
    fn id(&self) -> &'static str;
    /// In words: `no oversell`.
    fn name(&self) -> &'static str;
    /// Judges the case.
    fn check(&self, case: &Case<'_>) -> Finding;
}

/// Every invariant, in the order of the report.
pub const CHECKS: [&dyn Check; 13] = [
    &i01_oversell::Oversell,
    &i02_lost_ack::LostAck,
    &i03_phantom::Phantom,
    &i04_duplicate::Duplicate,
    &i05a_conservation::Conservation,
    &i05b_drain::Drain,
    &i05c_false_sold_out::FalseSoldOut,
    &i06_limits::Limits,
    &i07_money::Money,
    &i08_release::Releases,
    &i09_queue::Queue,
    &i10_window::Window,
    &i11_vacuous::Vacuous,
];

/// Below this many ops, another thread would take longer to start than it saves.
const WORTH_A_THREAD: usize = 100_000;

/// Threads to work on so many ops with.
fn threads_for(ops: usize) -> usize {
    if ops < WORTH_A_THREAD { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Runs every check over the evidence, side by side if there is much of it. A check that crashes is unknown and takes no
/// other down with it.
pub fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    judge_on(threads_for(evidence.history.ops.len()).min(CHECKS.len()), evidence)
}

fn judge_on(threads: usize, evidence: &Evidence<'_>) -> Vec<Finding> {
    match catch_unwind(AssertUnwindSafe(|| Case::new(evidence))) {
        Ok(case) if threads == 1 => CHECKS.iter().map(|check| judge_one(*check, &case)).collect(),
        Ok(case) => judge_beside(threads, &case),
        Err(panic) => {
            let why = format!("the evidence could not be grouped: {}", panic_text(panic.as_ref()));
            CHECKS.iter().map(|check| crashed(*check, &why)).collect()
        }
    }
}

/// Runs every check, each on the thread that is free first.
fn judge_beside(threads: usize, case: &Case<'_>) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(check) = CHECKS.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(judge_one(*check, case));
        }
        done
    };
    let mut findings: Vec<Finding> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut findings = work();
        findings.extend(others.into_iter().flat_map(|other| other.join().expect("a check that crashes is caught")));
        findings
    });
    findings.sort_by_key(|finding| CHECKS.iter().position(|check| check.id() == finding.id));
    findings
}

/// Runs one check over a case; unknown if it crashes.
pub fn judge_one(check: &dyn Check, case: &Case<'_>) -> Finding {
    catch_unwind(AssertUnwindSafe(|| check.check(case)))
        .unwrap_or_else(|panic| crashed(check, &format!("the check crashed: {}", panic_text(panic.as_ref()))))
}

/// The verdict over all findings: fail over unknown over pass. No finding at all is unknown, because nothing was judged.
pub fn merged(findings: &[Finding]) -> Verdict {
    findings.iter().map(|f| f.verdict).reduce(Verdict::merge).unwrap_or(Verdict::Unknown)
}

fn crashed(check: &dyn Check, why: &str) -> Finding {
    Finding {
        id: check.id().to_owned(),
        name: check.name().to_owned(),
        verdict: Verdict::Unknown,
        detail: format!("{why}. This is a fault of the harness; please report it with the run folder."),
        witness: Vec::new(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_sim;
