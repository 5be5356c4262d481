//! `summary.json`: everything that the reports, the gate and people's own tools need of a run.
//!
//! Fields are only ever added. Units stand last in a field's name, percentile after the unit: `us_p999`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{Finding, Verdict};
use crate::history::{Machine, Micros};

/// The summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Version of this file's layout.
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's title, for people.
    pub title: String,
    /// Unique to the run.
    pub run_id: String,
    /// When the load started, RFC 3339.
    pub started_at: String,
    /// Whether the run was cut short: what follows is then about a part of it.
    pub partial: bool,
    /// Why the run ended: `completed`, `stopped` by a condition of the scenario, `interrupted`, or an error.
    pub ended: String,
    /// The merged verdict.
    pub verdict: Verdict,
    /// The process's exit code for this run.
    pub exit_code: i32,
    /// One or two sentences that say what the verdict rests on.
    pub verdict_reason: String,
    /// What each invariant came to.
    pub invariants: Vec<Finding>,
    /// What could be judged without the service's books; absent where there was an audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_side: Option<ClientSide>,
    /// What came of taking the run's traces out of the shop; absent where the scenario has no clean-up. Where something is left, the
    /// verdict is at best unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleaned_up: Option<CleanedUp>,
    /// Objectives of the scenario, each judged.
    pub slos: Vec<SloResult>,
    /// How the load went.
    pub load: Load,
    /// Latencies from the intended start.
    pub latency: Latency,
    /// How the operations ended.
    pub outcomes: Outcomes,
    /// What was sold.
    pub goodput: Goodput,
    /// The faults of the timeline.
    pub faults: Vec<FaultSummary>,
    /// The condition that ended the run before its time, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// What each fault changed for each cohort; absent where no fault was injected, and where there is but one cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blast_radius: Option<BlastRadius>,
    /// Who got what; absent where the scenario calls no cohort abusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// What it cost.
    pub cost: Cost,
    /// Calls per link.
    pub links: Vec<LinkSummary>,
    /// The named parts of the timeline.
    pub phases: Vec<PhaseSummary>,
    /// Series for charts.
    pub series: Series,
    /// The machine that drove the load.
    pub machine: Machine,
    /// The seed of everything random.
    pub seed: u64,
    /// Hash of the planned arrivals.
    pub schedule_hash: String,
    /// A hash of the timeline of faults as the seed drew it; empty in a run of before it was told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timeline_hash: String,
    /// Why the harness distrusts its own measurement; empty if it does not.
    pub distrust: Vec<String>,
    /// Remarks with no bearing on the verdict.
    pub notes: Vec<String>,
}

/// What a run without an audit was judged from: what the buyers saw alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClientSide {
    /// Invariants that are judged from it.
    pub judged: Vec<String>,
    /// Those that it can convict and not acquit: a violation would have been seen.
    #[serde(default)]
    pub convicted_only: Vec<String>,
    /// Those that could not be judged.
    pub not_judged: Vec<String>,
}

/// What came of a clean-up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CleanedUp {
    /// Whether nothing is left.
    pub clean: bool,
    /// For people.
    pub text: String,
}

/// A stop condition of the scenario that was met: everything was healed, and the load ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stopped {
    /// Its name.
    pub name: String,
    /// When it was met.
    pub at_ms: f64,
    /// What was measured, against which limit.
    pub why: String,
    /// How long after that the last fault was healed, in milliseconds; none if one was not.
    pub healed_after_ms: Option<f64>,
    /// The faults that were in effect and were healed.
    pub healed: Vec<String>,
    /// Those that could not be healed.
    pub unhealed: Vec<String>,
}

/// One objective, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SloResult {
    /// In words: `page p99 <= 250 ms in phase base`.
    pub name: String,
    /// Whether it was met; none where there were too few samples to say.
    pub met: Option<bool>,
    /// The measured value with its unit, or why there is none.
    pub measured: String,
}

/// How the load went.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// Arrivals in the schedule.
    pub planned: u64,
    /// Arrivals sent.
    pub sent: u64,
    /// Arrivals that could not be sent. `planned = sent + dropped`.
    pub dropped: u64,
    /// HTTP exchanges made, retries included.
    pub requests: u64,
    /// Planned arrivals per second over the whole load.
    pub offered_rps: f64,
    /// Highest planned arrivals per second in any 100 ms.
    pub peak_rps: f64,
    /// Highest number of HTTP requests sent in any second.
    pub peak_requests_per_second: f64,
    /// Actual minus intended start of the arrivals sent: median, in microseconds.
    pub send_lag_us_p50: u64,
    /// 99th percentile; needs 1,000 arrivals.
    pub send_lag_us_p99: Option<u64>,
    /// Its 95% confidence interval, from order statistics.
    #[serde(default)]
    pub send_lag_us_p99_interval: Option<[u64; 2]>,
    /// 99.9th percentile; needs 10,000 arrivals.
    pub send_lag_us_p999: Option<u64>,
    /// Its 95% confidence interval, from order statistics.
    #[serde(default)]
    pub send_lag_us_p999_interval: Option<[u64; 2]>,
    /// Largest.
    pub send_lag_us_max: u64,
    /// 99th percentile within the phase with the highest planned rate; needs 1,000 arrivals in it.
    pub send_lag_us_p99_at_peak: Option<u64>,
    /// Its 95% confidence interval, from order statistics.
    #[serde(default)]
    pub send_lag_us_p99_at_peak_interval: Option<[u64; 2]>,
    /// What is missing of these and why: `not enough samples for TP999 (812 of 10,000 needed)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send_lag_missing: Vec<String>,
    /// Whether the generator waited for a processor for long enough to matter.
    pub starved: bool,
    /// Fraction of the load's time for which the generator was runnable and waited for a processor.
    pub generator_wait_fraction: f64,
    /// Most virtual buyers busy at once.
    pub busy_max: u64,
    /// Virtual buyers there are.
    pub buyers: u64,
    /// Retries that were not made for want of budget, by cohort; cohorts without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retries_suppressed: BTreeMap<String, u64>,
}

/// Latencies by step, phase and cohort, from the intended start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// By step.
    pub steps: BTreeMap<String, LatencyStats>,
    /// By phase, over all steps.
    pub phases: BTreeMap<String, LatencyStats>,
    /// By step within each phase: phase, then step.
    pub phase_steps: BTreeMap<String, BTreeMap<String, LatencyStats>>,
    /// By step of each cohort: cohort, then step. Dropped arrivals apart, each op is in one of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cohorts: BTreeMap<String, BTreeMap<String, LatencyStats>>,
    /// The steps in the order in which buyers make them, for reports; empty where the scenario is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_order: Vec<String>,
}

/// Percentiles of one set of latencies, in microseconds. A percentile with too few samples behind it is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LatencyStats {
    /// Samples: ops with a reply or a timeout; dropped arrivals are not in here.
    pub count: u64,
    /// Median.
    pub us_p50: Option<u64>,
    /// 90th percentile.
    pub us_p90: Option<u64>,
    /// 99th percentile; needs 1,000 samples.
    pub us_p99: Option<u64>,
    /// 99.9th percentile; needs 10,000 samples.
    pub us_p999: Option<u64>,
    /// Largest.
    pub us_max: u64,
    /// Mean.
    pub us_mean: f64,
    /// 95% confidence interval of the 99th percentile, from order statistics.
    pub us_p99_interval: Option<[u64; 2]>,
    /// 95% confidence interval of the 99.9th percentile, from order statistics.
    pub us_p999_interval: Option<[u64; 2]>,
    /// What is missing and why: `not enough samples for TP999 (812 of 10,000 needed)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// How the operations ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Outcomes {
    /// Success replies.
    pub ok: u64,
    /// Definite refusals by reason.
    pub fail: BTreeMap<String, u64>,
    /// Indeterminate, all reasons.
    pub info: u64,
    /// Indeterminate, by reason.
    pub info_reasons: BTreeMap<String, u64>,
    /// The same by step: step, then `ok`, `fail:<reason>` or `info:<reason>`.
    pub steps: BTreeMap<String, BTreeMap<String, u64>>,
    /// Purchases: intents by how they ended.
    pub intents: IntentOutcomes,
    /// Purchases that were acknowledged, and whose buyers were told "sold out" when they wanted to pay (S2).
    #[serde(default)]
    pub sold_out_at_payment: u64,
}

/// Purchases by how they ended, retries folded in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct IntentOutcomes {
    /// All purchases tried.
    pub total: u64,
    /// Acknowledged.
    pub ok: u64,
    /// Definitely refused.
    pub fail: u64,
    /// Still indeterminate when the client gave up.
    pub info: u64,
    /// Indeterminate or acknowledged only after a retry, and found in the ledger. This is about orders; what faults
    /// recover from is the steady state.
    pub recovered: u64,
    /// Tried more than once.
    pub retried: u64,
}

/// What was sold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Goodput {
    /// Orders that the audit found, whatever became of them; acknowledged ones where there is no audit.
    pub committed_orders: u64,
    /// Those per second between the first and the last.
    pub per_second: f64,
    /// Units paid for.
    pub units_sold: i64,
    /// Units that there were.
    pub stock: i64,
    /// Orders acknowledged to a client.
    pub acknowledged_orders: u64,
    /// Holds that were released, by expiry or cancel.
    pub released_orders: u64,
    /// Units that were still held, and not paid, at the audit.
    #[serde(default)]
    pub units_held: i64,
}

/// A fault and what became of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FaultSummary {
    /// Unique in the scenario.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The link it is on.
    pub link: Option<String>,
    /// The role it is on.
    pub role: Option<String>,
    /// For people.
    pub detail: String,
    /// When it was to be injected; of one whose event never came, when at the latest.
    pub planned_at_ms: f64,
    /// The event after which it was to be injected, for people; none if its time was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// When that event came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_at_ms: Option<f64>,
    /// Why it was not injected, if its event did not come in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// When it was.
    pub injected_at_ms: Option<f64>,
    /// When healing was complete.
    pub healed_at_ms: Option<f64>,
    /// When the steady-state hypothesis held again.
    pub recovered_at_ms: Option<f64>,
    /// From healing to recovery, in milliseconds.
    pub recovery_ms: Option<f64>,
    /// The probe of the steady state that was the last to hold again, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<String>,
    /// Other faults that were in effect between healing and recovery: the steady state may have waited for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlapped_by: Vec<String>,
    /// What it really hit.
    pub hit: String,
    /// How many of what it is about it really hit: connections, processes, sessions, packets; 0 if it hit nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_count: Option<u64>,
    /// Why it could not be injected or healed.
    pub error: Option<String>,
}

/// What each fault changed for each cohort, against the undisturbed part of the same run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BlastRadius {
    /// The cohorts, by name.
    pub cohorts: Vec<String>,
    /// The faults that were injected during the load, in the order of the timeline.
    pub faults: Vec<BlastFault>,
}

/// One fault of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlastFault {
    /// Its id.
    pub fault: String,
    /// When its window begins: its injection.
    pub from_ms: f64,
    /// When its window ends.
    pub until_ms: f64,
    /// What ends it.
    pub ended_by: WindowEnd,
    /// Faults whose windows share some time with this one: what they changed cannot be told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlapped_by: Vec<String>,
    /// One for each cohort, in their order.
    pub cells: Vec<BlastCell>,
}

/// What ends the window of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WindowEnd {
    /// The steady state held again.
    Recovery,
    /// It was healed, and no recovery was seen. Nothing after it counts as undisturbed.
    Healing,
    /// It was never healed.
    EndOfLoad,
}

/// What one fault changed for one cohort.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BlastCell {
    /// The cohort.
    pub cohort: String,
    /// Its ops in the window that were compared, by their intended start.
    pub samples: u64,
    /// The undisturbed ops that they were held against.
    pub undisturbed: u64,
    /// Ops in the window that nothing undisturbed could be found for.
    pub left_out: u64,
    /// TP99 over all steps in microseconds, and its ratio. Undisturbed, steps are weighed as the window has them.
    pub p99: Effect,
    /// Share of ops that got no answer, and its difference. A refusal such as "sold out" is an answer.
    pub errors: Effect,
    /// Acknowledged orders per second, and their ratio.
    pub goodput: Effect,
}

/// One figure with and without a fault.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// In the undisturbed part that it was held against.
    pub without: Option<f64>,
    /// In the fault's window.
    pub with: Option<f64>,
    /// The ratio, or for shares the difference, of the two.
    pub effect: Option<f64>,
    /// Its 95% confidence interval.
    pub interval: Option<[f64; 2]>,
    /// Whether that is a change: the interval excludes that there is none, and it is large enough to matter. TP99 has to
    /// change by half and by 5 ms, errors by one in a hundred, goodput by a fifth down or a quarter up.
    pub change: Change,
    /// What it was held against.
    pub against: Likeness,
    /// Why there is no figure, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Whether and how something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing that could be told from chance, or that would matter.
    #[default]
    None,
    /// For the worse.
    Worse,
    /// For the better.
    Better,
}

/// How much what a window was held against is like it but for the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Likeness {
    /// Undisturbed time of the same phase with a like load.
    #[default]
    Phase,
    /// Undisturbed time of other phases with a like load.
    Load,
    /// All undisturbed time, under whatever load: no change is claimed, since the load may have made it.
    Run,
}

/// Who got what, by the ledger, and who was marked as abusive.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Shares {
    /// Every cohort that ordered, by name.
    pub cohorts: Vec<CohortShare>,
    /// By the reason of the refusal, how well it hit; reasons that nobody was given are left out.
    pub marks: BTreeMap<String, Marking>,
    /// All of these together.
    #[serde(default)]
    pub any_mark: Marking,
}

/// What one cohort got.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CohortShare {
    /// The cohort.
    pub cohort: String,
    /// Whether the scenario calls it abusive.
    pub abusive: bool,
    /// Its buyers who tried to order.
    pub users: u64,
    /// Its orders in the ledger, whatever became of them.
    pub orders: u64,
    /// Units that it paid for.
    pub units_sold: i64,
    /// Those as a share of all units sold, from 0 to 1.
    pub sold_share: f64,
    /// Units times the seconds for which they were held and not paid.
    pub held_unit_s: f64,
    /// Those as a share of all, from 0 to 1.
    pub held_share: f64,
    /// Its buyers who were refused for who they are, by the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marked: BTreeMap<String, u64>,
}

/// How well a mark tells abusive buyers from others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Marking {
    /// Buyers who were marked.
    pub marked: u64,
    /// Those of them who are in an abusive cohort.
    pub rightly: u64,
    /// `rightly` of `marked`.
    pub precision: Option<f64>,
    /// `rightly` of all buyers of abusive cohorts; none where there are none.
    pub recall: Option<f64>,
}

/// What the run cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPU-seconds by role.
    pub cpu_s: BTreeMap<String, f64>,
    /// CPU-seconds by role for each 1,000 committed orders.
    pub cpu_s_per_1000_orders: BTreeMap<String, f64>,
    /// Bytes of write-ahead log for each committed order.
    pub wal_bytes_per_order: Option<f64>,
    /// Largest memory in use by role, in bytes.
    pub rss_peak_bytes: BTreeMap<String, u64>,
    /// Processors in use by role, in its busiest second.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cores_peak: BTreeMap<String, f64>,
    /// By role of a database that was asked (`audit.waits`): its sessions at work in the second in which most were, in the
    /// mean, by what they waited for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Calls over one link.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LinkSummary {
    /// Caller.
    pub from: String,
    /// Callee.
    pub to: String,
    /// Requests or statements; null where what passes cannot be read, as with TLS or HTTP/2.
    pub calls: Option<u64>,
    /// Those for each committed order.
    pub calls_per_order: Option<f64>,
    /// Connections opened.
    pub connections: u64,
    /// Bytes from caller to callee.
    pub bytes_up: u64,
    /// Bytes from callee to caller.
    pub bytes_down: u64,
    /// Mean time in microseconds that a caller waited for the answer to a call, at the proxy on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub us_per_call: Option<f64>,
}

/// A named part of the timeline.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PhaseSummary {
    /// Its name.
    pub name: String,
    /// Its start.
    pub from_us: Micros,
    /// Its end.
    pub until_us: Micros,
}

/// Series for charts. All of one kind have the same number of bins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Width of a bin of `planned`, `sent` and `dropped`, in microseconds (100 ms).
    pub bin_us: Micros,
    /// Planned arrivals by bin of their intended start.
    pub planned: Vec<u32>,
    /// Arrivals sent, by bin of their actual start.
    pub sent: Vec<u32>,
    /// Dropped arrivals, by bin of their intended start.
    pub dropped: Vec<u32>,
    /// Width of a bin of the series below, in microseconds.
    pub latency_bin_us: Micros,
    /// Median latency by bin of the intended start, in microseconds; none where there are no samples.
    pub us_p50: Vec<Option<u64>>,
    /// 99th percentile of the samples in the bin (an estimate for the eye: a bin has few samples).
    pub us_p99: Vec<Option<u64>>,
    /// Largest in the bin.
    pub us_max: Vec<Option<u64>>,
    /// Ops ok, by bin of completion.
    pub ok: Vec<u32>,
    /// Ops definitely refused, by bin of completion.
    pub fail: Vec<u32>,
    /// Ops indeterminate, by bin of completion.
    pub info: Vec<u32>,
    /// Orders acknowledged, by bin of completion.
    pub orders: Vec<u32>,
    /// Stock as sampled: (microseconds, units available).
    pub stock: Vec<(Micros, Option<i64>)>,
}
