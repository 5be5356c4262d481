//! Variants of one scenario, side by side: each is run in turns with the others, so that the machine's mood hits all of
//! them, and what they came to stands in one table: which survives what, at which price.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::campaign::{self, Ended, Job, Manner};
use crate::check::Verdict;
use crate::exit;
use crate::history::{HARNESS_ROLES, Machine, Role};
use crate::kept::{Kept, KeptError};
use crate::measure::hlog;
use crate::measure::stats::{LatencyHistogram, P99, P999, Percentile, median};
use crate::report::{self, ReportError};
use crate::scenario::{Loaded, Scenario, Variant, topology};
use crate::summary::{CohortShare, Summary};

/// The file in which a comparison is kept, beside the folders of its runs.
pub const FILE: &str = "comparison.json";
/// How it is kept.
pub const KEPT: Kept = Kept { file: FILE, maker: "seckill run" };

/// Variants side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Version of this file's layout.
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's title, for people.
    pub title: String,
    /// How often each variant was to be run.
    pub rounds: u32,
    /// The worst exit code of all runs.
    pub exit_code: i32,
    /// The variants in the order of the scenario.
    pub variants: Vec<Outcome>,
    /// The machine that drove the load.
    pub machine: Machine,
}

/// What a variant came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What is different, for people.
    pub title: String,
    /// What it changes.
    pub set: Vec<String>,
    /// The worst verdict of its runs.
    pub verdict: Verdict,
    /// Invariants that were violated in any of them.
    pub violated: Vec<String>,
    /// Committed orders per second.
    pub orders_per_second: Option<Estimate>,
    /// Median time of an order from its intended start, in microseconds.
    pub order_us_p50: Option<Estimate>,
    /// Its 99th percentile.
    pub order_us_p99: Option<Estimate>,
    /// Its 99.9th percentile; none where a run has too few orders.
    pub order_us_p999: Option<Estimate>,
    /// Why these are absent: `not enough samples for TP999 (812 of 10,000 needed)`, of the run with the fewest orders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_missing: Vec<String>,
    /// Steps beside it: what the variant does to others.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// CPU-seconds of service, database and Redis for each 1,000 committed orders.
    pub cpu_s_per_1000_orders: Option<Estimate>,
    /// Bytes of write-ahead log for each committed order.
    pub wal_bytes_per_order: Option<Estimate>,
    /// Statements that the service sent to the database, for each committed order.
    #[serde(default)]
    pub statements_per_order: Option<Estimate>,
    /// From healing until the steady state held again, of each run's slowest fault, in milliseconds.
    pub recovery_ms: Option<Estimate>,
    /// Microseconds of processor time for each request of a buyer, over all that is not the harness's own.
    #[serde(default)]
    pub cpu_us_per_request: Option<Estimate>,
    /// Calls over all links for each request of a buyer, their own included: hops, and statements of the database.
    #[serde(default)]
    pub calls_per_request: Option<Estimate>,
    /// Units paid for.
    #[serde(default)]
    pub units_sold: Option<Estimate>,
    /// Units still held and not paid at the end.
    #[serde(default)]
    pub units_held: Option<Estimate>,
    /// Buyers who had an order and were told "sold out" when they paid.
    #[serde(default)]
    pub sold_out_at_payment: Option<Estimate>,
    /// Share of the units sold that went to abusive cohorts; none where the scenario calls none abusive.
    #[serde(default)]
    pub abusive_sold_share: Option<Estimate>,
    /// Share of unit-seconds held that went to abusive cohorts.
    #[serde(default)]
    pub abusive_held_share: Option<Estimate>,
    /// Of the buyers who were refused for who they are, the share in abusive cohorts.
    #[serde(default)]
    pub mark_precision: Option<Estimate>,
    /// Of the buyers of abusive cohorts, the share that was refused for who they are.
    #[serde(default)]
    pub mark_recall: Option<Estimate>,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// A step that a variant is not about, and does something to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Beside {
    /// Its name.
    pub step: String,
    /// Its 99th percentile from the intended start, in microseconds.
    pub us_p99: Option<Estimate>,
}

/// The median of a variant's runs, and between which of them the true one lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The order statistics that enclose the true median with 95% confidence; the extremes where there are fewer than six.
    pub interval: [f64; 2],
    /// Whether it is of the samples of all rounds together, since a run alone has too few; the interval is then that of their order
    /// statistics.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pooled: bool,
}

/// One run of a variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// Its folder, beside this file.
    pub folder: String,
    /// Its exit code; none if it gave no summary.
    pub exit_code: Option<i32>,
    /// Why there is no summary, or how often it was made again.
    pub remark: String,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It cannot be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A report cannot be rendered.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Interrupted.
    #[error("interrupted: the runs made so far are in {}", .0.display())]
    Interrupted(PathBuf),
}

/// Runs all variants of a scenario in turns, and writes the comparison with its reports into `folder`.
///
/// # Errors
/// Nothing was compared.
pub async fn run(
    loaded: &Loaded,
    sets: &[String],
    folder: &Path,
    say: impl Fn(&str),
    cancel: &CancellationToken,
) -> Result<Comparison, CompareError> {
    let scenario = &loaded.scenario;
    KEPT.make(folder)?;
    let jobs = plan(loaded, sets, folder);
    let total = jobs.len();
    let manner = Manner { at_once: 1, repeats: 2, longest: LONGEST_RUN + 4 * scenario.load.duration.0 };
    let mut results = campaign::start(jobs, manner, cancel);
    let mut ended: Vec<Vec<Ended>> = scenario.variant.iter().map(|_| Vec::new()).collect();
    let mut done = 0;
    while let Some(run) = results.recv().await {
        done += 1;
        let name = &scenario.variant[run.job.of].name;
        let what = match &run.result {
            Ok(summary) => format!("{}, {:.0} orders per second", summary.verdict.name(), summary.goodput.per_second),
            Err(why) => format!("no verdict: {why}"),
        };
        say(&format!("[{done}/{total}] {name}: {what} ({:.0} s)", run.took.as_secs_f64()));
        ended[run.job.of].push(run);
    }
    if cancel.is_cancelled() {
        return Err(CompareError::Interrupted(folder.to_owned()));
    }
    let comparison = compare(scenario, &ended);
    save(folder, &comparison)?;
    Ok(comparison)
}

/// Beside the load, a run provisions, drains, audits and judges.
const LONGEST_RUN: Duration = Duration::from_secs(300);

/// Round by round, the variants in turns; in every second round the other way about, since the first to run after a pause
/// finds another machine than the last.
fn plan(loaded: &Loaded, sets: &[String], folder: &Path) -> Vec<Job> {
    let scenario = &loaded.scenario;
    let mut jobs = Vec::new();
    for round in 0..scenario.compare.rounds {
        let mut order: Vec<usize> = (0..scenario.variant.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for of in order {
            let name = &scenario.variant[of].name;
            jobs.push(Job {
                of,
                scenario: loaded.path.clone(),
                variant: Some(name.clone()),
                seed: scenario.seed + u64::from(round),
                set: sets.to_vec(),
                folder: folder.join(format!("{name}-{}", round + 1)),
            });
        }
    }
    jobs
}

fn compare(scenario: &Scenario, ended: &[Vec<Ended>]) -> Comparison {
    let variants: Vec<Outcome> =
        scenario.variant.iter().zip(ended).map(|(variant, runs)| outcome(scenario, variant, runs)).collect();
    let codes = variants.iter().flat_map(|v| &v.runs).map(|run| run.exit_code.unwrap_or(exit::INTERNAL));
    Comparison {
        format: 1,
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        rounds: scenario.compare.rounds,
        exit_code: codes.max_by_key(|code| exit::severity(*code)).unwrap_or(exit::UNKNOWN),
        variants,
        machine: crate::run::machine(),
    }
}

/// The steps whose latency speaks for a variant.
fn speakers(scenario: &Scenario) -> Vec<&str> {
    let orders = scenario.step.iter().filter(|(_, step)| step.get_ref().role == Role::Order);
    match &scenario.compare.order {
        Some(step) => vec![step.as_str()],
        None => orders.map(|(name, _)| name.as_str()).collect(),
    }
}

fn outcome(scenario: &Scenario, variant: &Variant, runs: &[Ended]) -> Outcome {
    let orders = speakers(scenario);
    let summaries: Vec<&Summary> = runs.iter().filter_map(|run| run.result.as_ref().ok()).collect();
    let estimate = |value: &dyn Fn(&Summary) -> Option<f64>| {
        let values: Option<Vec<f64>> = summaries.iter().map(|summary| value(summary)).collect();
        values.filter(|values| !values.is_empty()).map(|values| {
            let (median, interval) = median(values);
            Estimate { median, interval, pooled: false }
        })
    };
    // What a run has too few samples for, all of them together may have enough for. A variant that lost a run has no such figure.
    let folders: Vec<&Path> = runs.iter().map(|run| run.job.folder.as_path()).collect();
    let whole = summaries.len() == runs.len();
    let pooled = |step: &str, percentile: Percentile| {
        folders
            .iter()
            .try_fold(LatencyHistogram::default(), |mut all, folder| {
                all.merge(&hlog::read(folder, step)?);
                Some(all)
            })
            .filter(|_| whole)
            .and_then(|all| {
                let (median, interval) = (all.percentile_us(percentile)?, all.interval_us(percentile)?);
                Some(Estimate { median: median as f64, interval: interval.map(|us| us as f64), pooled: true })
            })
    };
    // Of several kinds of orders, again the slowest.
    let pooled_order = |percentile: Percentile| {
        let all: Option<Vec<Estimate>> = orders.iter().map(|step| pooled(step, percentile)).collect();
        all.and_then(|all| all.into_iter().max_by(|a, b| a.median.total_cmp(&b.median)))
    };
    // Where a journey has several kinds of orders, the slowest speaks for all.
    let order = |summary: &Summary, percentile: fn(&crate::summary::LatencyStats) -> Option<u64>| {
        let steps = orders.iter().filter_map(|name| summary.latency.steps.get(*name));
        let all: Option<Vec<u64>> = steps.map(percentile).collect();
        all.and_then(|all| all.into_iter().max()).map(|us| us as f64)
    };
    let beside = |step: &String| Beside {
        step: step.clone(),
        us_p99: estimate(&|s| s.latency.steps.get(step)?.us_p99.map(|us| us as f64)).or_else(|| pooled(step, P99)),
    };
    let fewest = |summary: &Summary| {
        let counts = orders.iter().filter_map(|name| summary.latency.steps.get(*name)).map(|stats| stats.count);
        counts.min().unwrap_or(0)
    };
    let missing =
        |count: u64| -> Vec<String> { [P99, P999].iter().filter_map(|percentile| percentile.missing(count)).collect() };
    let mut violated: Vec<String> = summaries
        .iter()
        .flat_map(|summary| &summary.invariants)
        .filter(|finding| finding.verdict == Verdict::Fail)
        .map(|finding| finding.id.clone())
        .collect();
    violated.sort();
    violated.dedup();
    let lost = (summaries.len() < runs.len() || runs.is_empty()).then_some(Verdict::Unknown);
    let verdicts = summaries.iter().map(|summary| summary.verdict).chain(lost);
    Outcome {
        name: variant.name.clone(),
        title: variant.title.clone(),
        set: variant.set.clone(),
        verdict: verdicts.reduce(Verdict::merge).unwrap_or(Verdict::Unknown),
        violated,
        orders_per_second: estimate(&|s| Some(s.goodput.per_second)),
        order_us_p50: estimate(&|s| order(s, |stats| stats.us_p50)),
        order_us_p99: estimate(&|s| order(s, |stats| stats.us_p99)).or_else(|| pooled_order(P99)),
        order_us_p999: estimate(&|s| order(s, |stats| stats.us_p999)).or_else(|| pooled_order(P999)),
        beside: scenario.compare.beside.iter().map(beside).collect(),
        order_missing: summaries.iter().map(|s| fewest(s)).min().map(missing).unwrap_or_default(),
        cpu_s_per_1000_orders: estimate(&|s| {
            let of = |role: &str| s.cost.cpu_s_per_1000_orders.get(role).copied();
            Some(of("service")? + of("postgres")? + of(topology::REDIS).unwrap_or_default())
        }),
        wal_bytes_per_order: estimate(&|s| s.cost.wal_bytes_per_order),
        statements_per_order: estimate(&|s| {
            let link = s.links.iter().find(|link| link.from == "service" && link.to == "postgres")?;
            link.calls_per_order
        }),
        recovery_ms: estimate(&|s| {
            let all: Option<Vec<f64>> = s.faults.iter().map(|fault| fault.recovery_ms).collect();
            all.and_then(|all| all.into_iter().reduce(f64::max))
        }),
        cpu_us_per_request: estimate(&|s| per_request(s, cpu_us(s))),
        calls_per_request: estimate(&|s| {
            let calls: u64 = s.links.iter().filter_map(|link| link.calls).sum();
            per_request(s, calls as f64)
        }),
        units_sold: estimate(&|s| Some(s.goodput.units_sold as f64)),
        units_held: estimate(&|s| Some(s.goodput.units_held as f64)),
        sold_out_at_payment: estimate(&|s| Some(s.outcomes.sold_out_at_payment as f64)),
        abusive_sold_share: estimate(&|s| abusive(s, |cohort| cohort.sold_share)),
        abusive_held_share: estimate(&|s| abusive(s, |cohort| cohort.held_share)),
        mark_precision: estimate(&|s| s.shares.as_ref()?.any_mark.precision),
        mark_recall: estimate(&|s| s.shares.as_ref()?.any_mark.recall),
        runs: runs.iter().map(run_of).collect(),
    }
}

/// The harness's own parts are no cost of what is rehearsed.
fn cpu_us(summary: &Summary) -> f64 {
    let theirs = summary.cost.cpu_s.iter().filter(|(role, _)| !HARNESS_ROLES.contains(&role.as_str()));
    theirs.map(|(_, cpu_s)| cpu_s * 1e6).sum()
}

fn per_request(summary: &Summary, amount: f64) -> Option<f64> {
    (summary.load.requests > 0).then(|| amount / summary.load.requests as f64)
}

fn abusive(summary: &Summary, share: fn(&CohortShare) -> f64) -> Option<f64> {
    let shares = summary.shares.as_ref()?;
    Some(shares.cohorts.iter().filter(|cohort| cohort.abusive).map(share).sum())
}

fn run_of(ended: &Ended) -> Run {
    let folder = ended.job.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (exit_code, remark) = match &ended.result {
        Err(why) => (None, why.clone()),
        Ok(summary) if ended.repeated > 0 => {
            (Some(summary.exit_code), format!("made again {} times, since it had come to unknown", ended.repeated))
        }
        Ok(summary) => (Some(summary.exit_code), String::new()),
    };
    Run { seed: ended.job.seed, folder, exit_code, remark }
}

/// Writes the comparison and its reports.
///
/// # Errors
/// A file cannot be written or rendered.
pub fn save(folder: &Path, comparison: &Comparison) -> Result<(), CompareError> {
    let page = report::comparison::html(comparison)?.into_bytes();
    let text = report::comparison::markdown(comparison).into_bytes();
    Ok(KEPT.write(folder, comparison, &[("report.md", text), ("report.html", page)])?)
}
