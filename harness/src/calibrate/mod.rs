//! Whether the harness can be trusted on this machine: `seckill calibrate`. A server whose latencies are known beforehand is
//! loaded by the harness and by other tools, and what each reports is held against the truth.

use clap::ValueEnum;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::history::Machine;
use crate::measure::stats::{P50, P99, P999, Percentile};
use crate::workbench::{Absent, Context, Unmeasured, publish};
use crate::{exit, stdout};

pub mod goose;
pub mod mode;
mod others;
mod ours;
pub mod server;
mod table;
mod truth;

use mode::{Mode, Plan};
use others::{Reading, Tool};
use ours::Disturbance;
use truth::Truth;

/// Where the table is written.
const LATEST: &str = "reports/calibration/latest.json";
/// Largest relative error with which the harness trusts itself.
pub const LIMIT: f64 = 0.02;
/// Requests per second.
const RATE: u32 = 1_000;
/// Connections of every tool. They are enough for what is under way at once, but not for a stall or an overload: what an
/// arrival waits for a connection belongs to its latency, and that is where tools differ.
const CONNECTIONS: u32 = 64;
/// The same where every request takes long, so that more are under way at once.
const MANY_CONNECTIONS: u32 = 256;
/// Turns that the harness gets if the machine disturbs it.
const TURNS: u32 = 3;

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// A fixed service time.
    Fixed,
    /// One stall that takes a tenth of the time.
    Stall,
    /// Two service times.
    Bimodal,
    /// A queue that is fed faster than it is served.
    Queue,
    /// No other tool than the harness.
    Ours,
    /// oha, with and without its correction.
    Oha,
    /// wrk.
    Wrk,
    /// Goose's own metrics.
    Goose,
}

/// A mistake made on purpose, which the calibration has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mistake {
    /// The server takes a tenth longer than it says.
    SlowServer,
    /// Latency counts from the actual instead of the intended start: coordinated omission.
    FromSend,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Length of each turn.
    pub seconds: u32,
    /// Modes and tools; all of a kind if none of it is named.
    pub only: Vec<Name>,
    /// A mistake to make.
    pub mistake: Option<Mistake>,
}

/// One quantile under one mode. Times are in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// How the server answered.
    pub mode: &'static str,
    /// Connections, or virtual buyers, of every tool.
    pub connections: u32,
    /// Which quantile.
    pub quantile: &'static str,
    /// What it truly is.
    pub truth_us: f64,
    /// What the harness says; none for want of samples.
    pub ours_us: Option<f64>,
    /// The harness's relative error.
    pub error: Option<f64>,
    /// Why the harness says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What the other tools say, in the order of [`Tool::ALL`]; none where one says nothing.
    pub others_us: Vec<Other>,
}

/// What another tool says.
#[derive(Debug, Clone, Serialize)]
pub struct Other {
    /// Which one.
    pub tool: &'static str,
    /// What it says; none if it says nothing of this quantile, or is not here.
    pub us: Option<f64>,
}

/// A turn of the harness that was disturbed, and made again if there was another one.
#[derive(Debug, Clone, Serialize)]
pub struct Spoiled {
    /// How the server answered.
    pub mode: &'static str,
    /// Its largest relative error.
    pub max_error: f64,
    /// What disturbed it.
    pub why: String,
    /// By how many microseconds that can have lengthened a latency. What is beyond it is the harness's own error.
    pub explains_us: u64,
}

/// What `reports/calibration/latest.json` holds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine that was calibrated.
    pub machine: Machine,
    /// Requests per second of every tool that knows a rate.
    pub rate: u32,
    /// Length of each turn.
    pub seconds: u32,
    /// The harness on a server that answers at once: what this machine itself takes, included in everything below.
    pub base_us: Reading,
    /// The table.
    pub rows: Vec<Row>,
    /// The largest relative error of the harness.
    pub max_error: f64,
    /// The largest with which it is trusted.
    pub limit: f64,
    /// Disturbed turns that were beyond it and were made again.
    pub spoiled: Vec<Spoiled>,
    /// Tools that are not in the table.
    pub missing: Vec<Absent>,
}

/// Calibrates, prints the table and writes it down. Returns the exit code.
pub fn run(asked: &Asked, json: bool, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    let result = Context::new("calibrate", runtime, cancel)
        .and_then(|context| stdout::kept_for_results(|| calibrate(&context, asked)));
    let (report, code) = match result {
        Ok(result) => result,
        Err(error) => {
            eprintln!("error: the harness could not be calibrated: {error}");
            return if matches!(error, Unmeasured::Interrupted) { exit::UNKNOWN } else { exit::INTERNAL };
        }
    };
    publish(LATEST, &report, (!json).then_some(table::text), code)
}

fn calibrate(context: &Context<'_>, asked: &Asked) -> Result<(Report, i32), Unmeasured> {
    let mut report = Report {
        machine: crate::run::machine(),
        rate: RATE,
        seconds: asked.seconds,
        base_us: base(context)?,
        rows: Vec::new(),
        max_error: 0.0,
        limit: LIMIT,
        spoiled: Vec::new(),
        missing: Vec::new(),
    };
    let mut tools = tools(&asked.only);
    let mut code = exit::PASS;
    for trial in trials(asked) {
        let ours = our_turns(context, asked, &trial, &mut report.spoiled)?;
        let mut others = Vec::new();
        for tool in tools.clone() {
            context.goes_on()?;
            context.say(&format!("{}: {}", trial.name, tool.title()));
            match others::measure(context, tool, trial.mode, &trial.plan) {
                Ok(reading) => others.push((tool, reading)),
                Err(Unmeasured::Interrupted) => return Err(Unmeasured::Interrupted),
                Err(error) => {
                    context.say(&format!("{}: {error}", tool.title()));
                    code = code_of_absent(&error, tool, &asked.only, code);
                    report.missing.push(Absent { name: tool.title().to_owned(), why: error.to_string() });
                    tools.retain(|other| *other != tool);
                }
            }
        }
        report.rows.extend(rows(&trial, &ours, &others));
    }
    report.max_error = largest(&report.rows);
    let trusted = report.max_error <= LIMIT;
    Ok((report, if trusted { code } else { exit::UNKNOWN }))
}

/// The largest relative error of the harness in these rows.
fn largest(rows: &[Row]) -> f64 {
    rows.iter().filter_map(|row| row.error).map(f64::abs).fold(0.0, f64::max)
}

/// One mode of the server, the schedule that it is asked on, and what comes of it in truth.
struct Trial {
    name: &'static str,
    mode: Mode,
    plan: Plan,
    truth: Truth,
}

/// The harness's figures: those of the first turn that was not disturbed or came out well all the same, else of the last.
fn our_turns(
    context: &Context<'_>,
    asked: &Asked,
    trial: &Trial,
    spoiled: &mut Vec<Spoiled>,
) -> Result<Reading, Unmeasured> {
    let Trial { name, mode, plan, .. } = trial;
    let mut turn = 0;
    loop {
        turn += 1;
        context.goes_on()?;
        context.say(&format!("{name}: the harness, turn {turn}, {} s", plan.seconds));
        let ours = ours::measure(context, *mode, plan, asked.mistake)?;
        let max_error = largest(&rows(trial, &ours.reading, &[]));
        let Some(Disturbance { why, explains_us }) = ours.disturbed.filter(|_| max_error > LIMIT) else {
            return Ok(ours.reading);
        };
        context.say(&format!("{name}: off by {:.1}%, and {why}", max_error * 100.0));
        spoiled.push(Spoiled { mode: name, max_error, why, explains_us });
        if turn == TURNS {
            return Ok(ours.reading);
        }
    }
}

/// The modes that are wanted. Service times are so long that what this machine itself takes, and the moments for which it
/// does something else, are below the limit.
fn trials(asked: &Asked) -> Vec<Trial> {
    let plan = Plan { rate: RATE, seconds: asked.seconds, connections: CONNECTIONS };
    let tenth_us = u64::from(plan.seconds) * 100_000;
    // Half a gap before a request, so that it is always the same one that comes first.
    let from_us = ((plan.first_stalled() as f64 - 0.5) * plan.gap_us()) as u64;
    let all = [
        (Name::Fixed, "fixed", MANY_CONNECTIONS, Mode::Fixed { service_us: 200_000 }),
        (Name::Stall, "stall", CONNECTIONS, Mode::Stall { service_us: 20_000, from_us, lasts_us: tenth_us }),
        (Name::Bimodal, "bimodal", CONNECTIONS, Mode::Bimodal { fast_us: 20_000, slow_us: 200_000, every: 50 }),
        (Name::Queue, "queue", CONNECTIONS, Mode::Queue { service_us: 1_100 }),
    ];
    let named = |name: Name| asked.only.contains(&name);
    let any = all.iter().any(|(name, ..)| named(*name));
    all.into_iter()
        .filter(|(name, ..)| !any || named(*name))
        .map(|(_, name, connections, mode)| {
            let plan = Plan { connections, ..plan };
            Trial { name, mode, plan, truth: Truth::of(mode, &plan) }
        })
        .collect()
}

fn tools(only: &[Name]) -> Vec<Tool> {
    let any = only.iter().any(|name| matches!(name, Name::Ours | Name::Oha | Name::Wrk | Name::Goose));
    Tool::ALL.into_iter().filter(|tool| !any || only.contains(&name_of(*tool))).collect()
}

fn name_of(tool: Tool) -> Name {
    match tool {
        Tool::Oha | Tool::OhaCorrected => Name::Oha,
        Tool::Wrk => Name::Wrk,
        Tool::Goose => Name::Goose,
    }
}

/// A tool that is not here is no failure, unless it was asked for.
fn code_of_absent(error: &Unmeasured, tool: Tool, only: &[Name], code: i32) -> i32 {
    match error {
        _ if !only.contains(&name_of(tool)) => code,
        Unmeasured::Missing(_) => exit::NO_STACK,
        _ => exit::INTERNAL,
    }
}

/// What this machine itself takes for a request, seen from its intended start.
fn base(context: &Context<'_>) -> Result<Reading, Unmeasured> {
    context.goes_on()?;
    context.say("a server that answers at once");
    let plan = Plan { rate: RATE, seconds: 2, connections: CONNECTIONS };
    ours::measure(context, Mode::Fixed { service_us: 0 }, &plan, None).map(|ours| ours.reading)
}

/// A quantile that is compared: its name, what it is as a percentile, where it lies, and how to find it in a reading.
type Compared = (&'static str, Percentile, f64, fn(&Reading) -> Option<f64>);

const QUANTILES: [Compared; 4] = [
    ("p50", P50, 0.5, |r| r.p50),
    ("p99", P99, 0.99, |r| r.p99),
    ("p99.9", P999, 0.999, |r| r.p999),
    // Every sample counts for the largest.
    ("max", P50, 1.0, |r| r.max),
];

/// The rows of one mode. Where the harness has too few requests for a percentile, its row says so.
fn rows(trial: &Trial, ours: &Reading, others: &[(Tool, Reading)]) -> Vec<Row> {
    let row = |(quantile, percentile, at, of): &Compared| {
        let (truth_us, ours_us) = (trial.truth.quantile_us(*at), of(ours));
        let said = |tool: Tool| others.iter().find(|(other, _)| *other == tool).and_then(|(_, reading)| of(reading));
        let others_us = Tool::ALL.map(|tool| Other { tool: tool.key(), us: said(tool) }).to_vec();
        let error = ours_us.map(|us| us / truth_us - 1.0);
        let missing = percentile.missing(trial.plan.count()).filter(|_| ours_us.is_none());
        let (mode, connections) = (trial.name, trial.plan.connections);
        Row { mode, connections, quantile, truth_us, ours_us, error, missing, others_us }
    };
    QUANTILES.iter().map(row).collect()
}
