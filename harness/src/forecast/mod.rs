//! How many nodes for a million buyers: a plan, from what was measured.
//!
//! The probes of a capacity search say what an arrival costs each role ([`crate::measure::line`]), and how latency grows with
//! the rate up to where something gives out. A queue is fitted to that, and has to predict points that were held back
//! ([`model`]), or the plan says first that it rests on nothing. Then the sale is simulated with as many nodes as its
//! limits take ([`queue`], [`sizing`]). Nodes multiply processors; they do not multiply a row's lock, so beyond what
//! was seen of that the plan is refused, with what to measure.
//!
//! Nothing here makes load or starts anything.

pub mod curve;
pub mod evidence;
mod fleet;
pub mod model;
pub mod queue;
pub mod sizing;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit;
use crate::judge::JudgeError;
use crate::kept::{Kept, KeptError};
use crate::report::{self, ReportError};
use crate::scenario::ScenarioError;
use crate::scenario::forecast::{LoadedPlan, Plan};
use evidence::Evidence;
use model::{Fitted, HeldBack};

/// How a forecast is kept, beside the report of the search that it rests on.
pub const KEPT: Kept = Kept { file: "forecast.json", maker: "seckill forecast" };

/// Why there is no forecast.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    /// The folder has no search.
    #[error(
        "{}: there is no capacity.json\nhelp: name the folder that `seckill capacity SCENARIO` made, or make one with \
         --forecast PLAN",
        .0.display()
    )]
    NoCapacity(PathBuf),
    /// It has a sweep.
    #[error(
        "{}: that is a sweep, which has no capacity\nhelp: name the folder of a search, and this one with --sweep",
        .0.display()
    )]
    Sweep(PathBuf),
    /// It has no sweep.
    #[error(
        "{}: there is no sweep to which a law could be fitted\nhelp: make one, such as seckill capacity SCENARIO \
         --sweep target.reference.shards=1,2,4,8",
        .0.display()
    )]
    NoSweep(PathBuf),
    /// There is too little to fit anything to.
    #[error(
        "{}: probes at {points} different rates can be trusted, and a model takes three at least, to be believed \
         five\nhelp: measure again with --forecast PLAN, which adds probes below the capacity",
        folder.display()
    )]
    TooFew {
        /// The folder.
        folder: PathBuf,
        /// Points there are.
        points: usize,
    },
    /// The plan, or the scenario of a probe, has mistakes.
    #[error(transparent)]
    Plan(#[from] ScenarioError),
    /// A probe's summary cannot be read.
    #[error(transparent)]
    Probe(#[from] JudgeError),
    /// It cannot be kept, or the search not be read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// It cannot be rendered.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl ForecastError {
    /// The exit code that it ends a command with.
    pub fn exit_code(&self) -> i32 {
        match self {
            ForecastError::Kept(error) => error.exit_code(),
            ForecastError::Report(_) => exit::INTERNAL,
            _ => exit::USAGE,
        }
    }
}

/// A forecast. Times are in microseconds unless a name says otherwise; intervals hold 95%.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Version of this file's layout.
    pub format: u32,
    /// The scenario that was measured.
    pub scenario: String,
    /// Its title, for people.
    pub title: String,
    /// What is planned.
    pub plan: Plan,
    /// Whether the model predicted what it had not seen.
    pub validated: bool,
    /// Points that were held back, predicted and measured.
    pub validation: Vec<Validation>,
    /// Why the plan would have to go beyond what was measured; it is refused if there is any reason.
    pub refusals: Vec<Refusal>,
    /// The queue that was fitted.
    pub model: Model,
    /// CPU-seconds by role.
    pub demand: Vec<Demand>,
    /// Arrivals per second at the busiest moment.
    pub peak_arrivals_per_second: f64,
    /// Requests per second at the busiest moment.
    pub peak_requests_per_second: f64,
    /// Orders per second at the busiest moment, while there is stock.
    pub peak_orders_per_second: f64,
    /// When the stock is sold, in seconds from the opening; none if it is not.
    pub sold_out_after_s: Option<f64>,
    /// What each role runs on.
    pub nodes: Vec<Nodes>,
    /// Into how many rows the item's stock is divided.
    pub shards: u32,
    /// TP99 by step.
    pub latency: Vec<Latency>,
    /// How many buyers get how far.
    pub funnel: Vec<Funnel>,
    /// What the nodes cost.
    pub cost: f64,
    /// The generators for a rehearsal at this scale; none where their efficiency was not measured.
    pub fleet: Option<Fleet>,
    /// What was taken to be so, and not measured.
    pub assumptions: Vec<String>,
    /// TP99 of the first step with a limit against arrivals per second, for the chart.
    pub curve: Vec<CurvePoint>,
    /// The exit code.
    pub exit_code: i32,
}

/// A point that was held back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Validation {
    /// Arrivals per second.
    pub rate: f64,
    /// Its probes.
    pub probes: Vec<String>,
    /// Committed orders per second: predicted, its interval, measured.
    pub goodput: Compared,
    /// TP99 of the step: predicted, its interval, measured.
    pub us_p99: Compared,
    /// Whether it counts: points at the capacity or beyond do not.
    pub judged: bool,
}

/// A figure as it was predicted and measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// Predicted.
    pub predicted: f64,
    /// Its interval, by how far off the predictions were; none with too few of them.
    pub interval: Option<[f64; 2]>,
    /// Measured; none with too few samples.
    pub measured: Option<f64>,
    /// Whether it is as close as it has to be.
    pub close: bool,
}

/// A reason to refuse the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// Why.
    pub why: String,
    /// What to measure, or to change.
    pub remedy: String,
}

/// The queue that was fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// What gives out first.
    pub resource: String,
    /// Arrivals per second at which that is used up, on the machine that was measured.
    pub capacity: f64,
    /// The squared coefficient of variation of its service times.
    pub variation: f64,
    /// The factor of the undisturbed latency.
    pub factor: f64,
    /// By which factor the fitted points are off in the mean.
    pub off: f64,
    /// The step whose TP99 was fitted and judged.
    pub step: String,
}

/// What arrivals cost a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Demand {
    /// The role.
    pub role: String,
    /// CPU-seconds for each 1,000 arrivals.
    pub cpu_s_per_1000: f64,
    /// Its interval.
    pub interval: [f64; 2],
    /// CPU-seconds of a whole probe without arrivals.
    pub at_rest: f64,
}

/// Nodes of a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nodes {
    /// The role.
    pub role: String,
    /// How many.
    pub count: u32,
    /// Processors of each.
    pub cpus: u32,
    /// The share of them in use at the busiest moment.
    pub used: f64,
    /// What they cost for the planned hours.
    pub cost: f64,
}

/// TP99 of a step during the busiest time of the sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// The step.
    pub step: String,
    /// Expected.
    pub us_p99: f64,
    /// Its interval; none where too few points were held back.
    pub interval: Option<[f64; 2]>,
    /// If as many more come as the headroom says.
    pub us_p99_with_headroom: f64,
    /// Its limit, if the plan has one.
    pub limit_us: Option<f64>,
}

/// Buyers who get so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Funnel {
    /// How far.
    pub name: String,
    /// How many; none where it was not measured.
    pub buyers: Option<u64>,
}

/// Generators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fleet {
    /// Shards, each a pod with a whole processor.
    pub shards: u32,
    /// Requests per second of all of them.
    pub requests_per_second: f64,
    /// Requests that one makes with a CPU-second.
    pub requests_per_cpu_s: f64,
    /// What they cost for the planned hours.
    pub cost: f64,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// Arrivals per second.
    pub rate: f64,
    /// TP99.
    pub us_p99: f64,
}

/// Makes the forecast from a folder of probes, and writes it there. `sweep` is the folder of a sweep, if there is one.
///
/// # Errors
/// The folder has no search, too little to fit to, or the plan does not fit what was measured.
pub fn run(folder: &Path, plan: &LoadedPlan, sweep: Option<&Path>) -> Result<Forecast, ForecastError> {
    let evidence = evidence::read(folder)?;
    let sweep = sweep.map(evidence::sweep).transpose()?;
    fits(plan, &evidence)?;
    let forecast = make(plan, &evidence, sweep.as_ref());
    save(folder, &forecast)?;
    Ok(forecast)
}

/// Writes it as JSON, Markdown, a page and manifests.
///
/// # Errors
/// A file cannot be written or rendered.
pub fn save(folder: &Path, forecast: &Forecast) -> Result<(), ForecastError> {
    let page = report::forecast::html(forecast)?.into_bytes();
    let text = report::forecast::markdown(forecast).into_bytes();
    let mut files = vec![("forecast.md", text), ("forecast.html", page)];
    if let Some(fleet) = &forecast.fleet {
        let path = folder.join("fleet/base");
        std::fs::create_dir_all(&path).map_err(|source| KeptError::Folder { path, source })?;
        files.extend(fleet::files(fleet));
    }
    Ok(KEPT.write(folder, forecast, &files)?)
}

/// Whether the plan is about the steps and the roles that were measured.
fn fits(loaded: &LoadedPlan, evidence: &Evidence) -> Result<(), ScenarioError> {
    let plan = &loaded.plan;
    let steps: Vec<&str> = evidence.points[0].steps.iter().map(|step| step.name.as_str()).collect();
    if let Some(step) = plan.limits.keys().find(|step| !steps.contains(&step.as_str())) {
        let help = format!("one of {}", steps.join(", "));
        return Err(loaded.pointing_at(&format!("limits.{step}"), format!("no step `{step}` was measured"), help));
    }
    let roles: Vec<&str> = evidence.roles().map(|(role, _)| role.as_str()).collect();
    if let Some(role) = plan.node.keys().find(|role| *role != "generator" && !roles.contains(&role.as_str())) {
        let help = format!("one of {}, or generator", roles.join(", "));
        return Err(loaded.pointing_at(&format!("node.{role}"), format!("no role `{role}` was measured"), help));
    }
    if let Some(role) = roles.iter().find(|role| !plan.node.contains_key(**role)) {
        let help = format!("add [node.{role}] with its `cpus`, `speed` and `price_per_hour`");
        return Err(loaded.pointing_at(
            "node",
            format!("the role `{role}` was measured, and has no node to run on"),
            help,
        ));
    }
    Ok(())
}

fn make(loaded: &LoadedPlan, evidence: &Evidence, sweep: Option<&crate::capacity::SweepReport>) -> Forecast {
    let plan = &loaded.plan;
    let first = &evidence.points[0];
    let step = first.steps.iter().position(|step| plan.limits.contains_key(&step.name)).unwrap_or(0);
    let all: Vec<&model::Point> = evidence.points.iter().collect();
    let fallback =
        Fitted { capacity: evidence.found.rate.max(1.0), variability: 1.0, factor: 1.0, left: f64::INFINITY };
    let fitted = model::fit(&all, evidence.limit, step).unwrap_or(fallback);
    let held = model::hold_back(&evidence.points, evidence.limit, step);
    let validated = model::validated(&held);
    let doubt = model::doubt(&held);
    let mut forecast = sizing::size(&sizing::Basis { plan, evidence, fitted, step, doubt, sweep });
    forecast.validated = validated;
    forecast.validation = held.iter().map(|held| validation(evidence, held, step, doubt)).collect();
    forecast.exit_code = if validated && forecast.refusals.is_empty() { exit::PASS } else { exit::UNKNOWN };
    forecast
}

fn validation(evidence: &Evidence, held: &HeldBack, step: usize, doubt: Option<[f64; 2]>) -> Validation {
    let point = &evidence.points[held.point];
    let [close_goodput, close_p99] = held.close();
    let around = |value: f64, which: usize| doubt.map(|doubt| [value / doubt[which], value * doubt[which]]);
    let (goodput, p99) = (held.predicted.goodput, held.predicted.p99_s[step] * 1e6);
    Validation {
        rate: point.rate,
        probes: point.probes.clone(),
        goodput: Compared {
            predicted: goodput,
            interval: around(goodput, 0),
            measured: Some(point.goodput),
            close: close_goodput,
        },
        us_p99: Compared {
            predicted: p99,
            interval: around(p99, 1),
            measured: point.steps[step].latency.p99_s.map(|s| s * 1e6),
            close: close_p99,
        },
        judged: held.judged,
    }
}
