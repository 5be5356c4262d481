//! The regression gate: are the new build's latencies, throughput and costs worse than the old one's, and where?
//!
//! The two builds are two variants of one scenario that run side by side in one process, each on a stack of its own, and are
//! loaded in turns ([`crate::load::turns`]). A **round** is one provisioning of both; what it says is read from the two histories, so a
//! gate can be decided again from its folder. [`evidence`] is the statistics, [`tally`] the decision, [`place`] says where.
//!
//! Invariants come first: a build that oversells is refused however fast it is.

use std::path::PathBuf;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::exit;
use crate::history::Machine;
use crate::kept::{Kept, KeptError};
use crate::scenario::Scenario;
use crate::scenario::gate::{Effects, Undecided};

pub mod command;
pub mod duet;
pub mod evidence;
pub mod outputs;
pub mod pairs;
pub mod place;
pub mod power;
pub mod sides;
pub mod stored;
pub mod tally;
#[cfg(test)]
pub(crate) mod testing;

/// The file in which a gate's result is kept, beside the folders of its runs.
pub const FILE: &str = "gate.json";
/// How it is kept.
pub const KEPT: Kept = Kept { file: FILE, maker: "seckill gate" };

/// What a gate came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this file's layout.
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's title, for people.
    pub title: String,
    /// What the new build was held against.
    pub old: Build,
    /// The build that was judged.
    pub new: Build,
    /// What it came to.
    pub decision: Decision,
    /// The exit code.
    pub exit_code: i32,
    /// One or two sentences on what that rests on.
    pub reason: String,
    /// What is worse, the worst first.
    pub findings: Vec<Finding>,
    /// Changes that are worth reading, and no regressions.
    pub notices: Vec<String>,
    /// Every metric.
    pub metrics: Vec<Metric>,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Rounds that were allowed.
    pub rounds_at_most: u32,
    /// Length of a turn in milliseconds.
    pub turn_ms: f64,
    /// Probability with which any metric may be accused wrongly.
    pub alpha: f64,
    /// The smallest changes that matter.
    pub effect: Effects,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// The machine.
    pub machine: Machine,
    /// The seed of the first round.
    pub seed: u64,
}

/// What was found before it is put into a report.
struct Judgement {
    decision: Decision,
    reason: String,
    findings: Vec<Finding>,
    notices: Vec<String>,
    metrics: Vec<Metric>,
    rounds: Vec<Round>,
    /// Whether the new build missed an objective of the scenario.
    missed: bool,
}

impl Report {
    /// The report of a gate over `scenario` that began at `started`.
    fn new(scenario: &Scenario, [old, new]: [Build; 2], judgement: Judgement, started: Instant) -> Report {
        let gate = &scenario.gate;
        let Judgement { decision, reason, findings, notices, metrics, rounds, missed } = judgement;
        Report {
            format: 1,
            scenario: scenario.name.clone(),
            title: scenario.title.clone(),
            old,
            new,
            decision,
            exit_code: exit::of_gate(decision, missed, gate.undecided == Undecided::Unknown),
            reason,
            findings: if decision == Decision::Regression { findings } else { Vec::new() },
            notices,
            metrics,
            rounds,
            rounds_at_most: gate.rounds,
            turn_ms: gate.turn.micros() as f64 / 1e3,
            alpha: gate.alpha,
            effect: gate.effect,
            took_s: started.elapsed().as_secs_f64(),
            machine: crate::run::machine(),
            seed: scenario.seed,
        }
    }
}

/// One side, as it was asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// For people: the file, the revision, the image, the address.
    pub name: String,
    /// What it changes in the scenario.
    pub set: Vec<String>,
}

/// What a gate came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// An invariant is violated, whatever the speed.
    Violated,
    /// The measurement cannot be trusted, or there is none.
    Unknown,
    /// Something is certainly worse.
    Regression,
    /// Nothing that could be judged is worse by as much as matters.
    Same,
    /// Neither was shown.
    Undecided,
}

impl Decision {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Violated => "an invariant is violated",
            Decision::Unknown => "unknown",
            Decision::Regression => "regression",
            Decision::Same => "no regression",
            Decision::Undecided => "no regression found, and not all of them excluded",
        }
    }
}

/// What a metric came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Judged {
    /// Certainly worse.
    Worse,
    /// Not worse by as much as matters.
    Same,
    /// Certainly better.
    Better,
    /// Neither could be shown.
    Undecided,
    /// There are too few samples for it.
    TooFew,
}

/// One metric, old against new.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// What is measured: `us_p99`, `orders_per_second`.
    pub name: String,
    /// In which phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Of which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of which role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// On the old side, over all pairs; in the unit of the name.
    pub old: Option<f64>,
    /// On the new side.
    pub new: Option<f64>,
    /// By how much it is worse, as a share of old; for a share, their difference. The median of the pairs; below 0 it is better.
    pub worse_by: Option<f64>,
    /// 95% interval of that, valid at any time.
    pub interval: Option<[f64; 2]>,
    /// Pairs that it rests on.
    pub pairs: u64,
    /// Samples on the side with fewer.
    pub samples: u64,
    /// The smallest change that matters.
    pub effect: f64,
    /// The logarithm (base 10) of the evidence for a regression; that of the family decides.
    pub log10_evidence: f64,
    /// What it came to.
    pub judged: Judged,
    /// Why it was not judged, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Something that is worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// In one sentence: what, by how much.
    pub what: String,
    /// In one sentence: where.
    pub r#where: String,
    /// The name of the metric.
    pub metric: String,
    /// The step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The link on which the time or the calls are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop: Option<String>,
    /// What is used up there: `waiting`, `cpu`, `calls`, `lock`, `memory`, `disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How often it exceeds what matters: the order of the list.
    pub severity: f64,
}

/// One round of a duet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Its seed.
    pub seed: u64,
    /// The old side.
    pub old: SideRun,
    /// The new side.
    pub new: SideRun,
    /// Whether its figures were used.
    pub used: bool,
}

/// One side of a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SideRun {
    /// Its run folder, beside this file.
    pub folder: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its exit code.
    pub exit_code: i32,
    /// Its verdict in a sentence.
    pub reason: String,
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A side cannot be had.
    #[error(transparent)]
    Side(#[from] sides::SideError),
    /// The scenario does not fit a side.
    #[error(transparent)]
    Scenario(#[from] crate::scenario::ScenarioError),
    /// A round could not be run.
    #[error("round {round}, {side} side: {source}")]
    Run {
        /// The round, from 1.
        round: u32,
        /// Which side.
        side: &'static str,
        /// Why.
        source: crate::run::RunError,
    },
    /// It cannot be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A recorded run cannot be read again.
    #[error(transparent)]
    Judge(#[from] crate::judge::JudgeError),
    /// The baseline cannot be used.
    #[error(transparent)]
    Baseline(#[from] crate::baseline::BaselineError),
    /// Interrupted.
    #[error("interrupted: the rounds made so far are in {}", .0.display())]
    Interrupted(PathBuf),
}

impl GateError {
    /// The exit code that it ends the command with.
    pub fn exit_code(&self) -> i32 {
        match self {
            GateError::Side(error) => error.exit_code(),
            GateError::Kept(error) => error.exit_code(),
            GateError::Scenario(_) | GateError::Judge(_) | GateError::Baseline(_) => exit::USAGE,
            GateError::Run { source: crate::run::RunError::Stack(_), .. } => exit::NO_STACK,
            GateError::Interrupted(_) => exit::UNKNOWN,
            GateError::Run { .. } => exit::INTERNAL,
        }
    }
}
