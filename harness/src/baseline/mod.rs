//! Baselines: what a scenario cost and how fast it was, as a file that is kept beside the code.
//!
//! A baseline holds the figures of one or several runs, not their evidence: performance with its intervals, cost by role, and the
//! calls on every link. Beside them stands what they are true of: the machine, the seed, and a hash of the scenario.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::Verdict;
use crate::history::Machine;
use crate::judge::{self, JudgeError};
use crate::scenario::{self, ScenarioError};
use crate::summary::{LatencyStats, Summary};

pub mod command;
pub mod diff;
pub mod text;

/// Where baselines are kept, from the folder of the project on.
pub const FOLDER: &str = "reports/baselines";
/// The newest layout of the file that is known.
const FORMAT: u32 = 1;

/// The figures of one or several runs of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// Version of this file's layout.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's title, for people.
    pub title: String,
    /// A hash of the scenario as it was run, but for its seed and the program that it ran.
    pub scenario_hash: String,
    /// The git revision of the folder in which it was saved, if it is in a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The machine that drove the load.
    pub machine: Machine,
    /// The runs, oldest first.
    pub runs: Vec<Figures>,
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// The run's id.
    pub run_id: String,
    /// When its load started, RFC 3339.
    pub started_at: String,
    /// Its seed.
    pub seed: u64,
    /// Its verdict.
    pub verdict: Verdict,
    /// Latencies: phase, then step. Without phases, everything is in one that is called `load`.
    pub latency: BTreeMap<String, BTreeMap<String, Latencies>>,
    /// Orders per second between the first and the last.
    pub orders_per_second: f64,
    /// Orders that the audit found.
    pub committed_orders: u64,
    /// Journeys begun.
    pub journeys: u64,
    /// Purchases tried, whatever became of them.
    pub purchases: u64,
    /// Cost for each 1,000 orders, by role.
    pub cost_per_1000_orders: BTreeMap<String, Cost>,
    /// Calls and waiting on each link.
    pub links: Vec<Link>,
}

/// Percentiles of one step, in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Latencies {
    /// Samples.
    pub count: u64,
    /// Median.
    pub us_p50: Option<u64>,
    /// 99th percentile.
    pub us_p99: Option<u64>,
    /// Its 95% interval.
    pub us_p99_interval: Option<[u64; 2]>,
    /// 99.9th percentile.
    pub us_p999: Option<u64>,
    /// Its 95% interval.
    pub us_p999_interval: Option<[u64; 2]>,
}

/// What a role costs for each 1,000 orders.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPU-seconds.
    pub cpu_s: f64,
    /// Largest memory in bytes; a peak does not grow in proportion, so it is of the whole run and not of a thousand orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_peak_bytes: Option<u64>,
    /// That divided by thousands of orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_bytes_per_1000_orders: Option<f64>,
    /// Bytes of write-ahead log, of the database alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_bytes: Option<f64>,
}

/// One hop.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// Caller.
    pub from: String,
    /// Callee.
    pub to: String,
    /// Calls for each journey; none where they cannot be read.
    pub calls_per_journey: Option<f64>,
    /// Calls for each purchase that was tried. Of readers there may be a hundred for each buyer, and what is done for buyers alone
    /// would vanish among their journeys.
    pub calls_per_purchase: Option<f64>,
    /// Mean time that a caller waited for an answer, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub us_per_call: Option<f64>,
}

impl Link {
    /// As it is called in scenarios.
    pub fn name(&self) -> String {
        format!("{}→{}", self.from, self.to)
    }
}

/// Why a baseline cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The run's folder cannot be read.
    #[error(transparent)]
    Run(#[from] JudgeError),
    /// The run's scenario cannot be read.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The file cannot be read or written.
    #[error("{}: {source}\nhelp: {help}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// The remedy.
        help: String,
    },
    /// The file is not one of ours.
    #[error("{}: {source}\nhelp: save it anew: seckill baseline save RUN --name NAME --replace", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// What the file or the run holds cannot be used.
    #[error("{}: {what}\nhelp: {help}", path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// The remedy.
        help: String,
    },
}

/// The figures of a run that was judged.
pub fn figures(summary: &Summary) -> Figures {
    let latencies = |stats: &LatencyStats| Latencies {
        count: stats.count,
        us_p50: stats.us_p50,
        us_p99: stats.us_p99,
        us_p99_interval: stats.us_p99_interval,
        us_p999: stats.us_p999,
        us_p999_interval: stats.us_p999_interval,
    };
    let steps =
        |steps: &BTreeMap<String, LatencyStats>| steps.iter().map(|(s, stats)| (s.clone(), latencies(stats))).collect();
    let mut latency: BTreeMap<_, _> =
        summary.latency.phase_steps.iter().map(|(phase, of)| (phase.clone(), steps(of))).collect();
    if latency.is_empty() {
        latency.insert("load".to_owned(), steps(&summary.latency.steps));
    }
    let thousands = summary.goodput.committed_orders as f64 / 1_000.0;
    let cost = |role: &String| Cost {
        cpu_s: summary.cost.cpu_s_per_1000_orders.get(role).copied().unwrap_or(0.0),
        rss_peak_bytes: summary.cost.rss_peak_bytes.get(role).copied(),
        rss_bytes_per_1000_orders: summary
            .cost
            .rss_peak_bytes
            .get(role)
            .filter(|_| thousands > 0.0)
            .map(|b| *b as f64 / thousands),
        wal_bytes: summary
            .cost
            .wal_bytes_per_order
            .filter(|_| role == scenario::topology::POSTGRES)
            .map(|bytes| bytes * 1_000.0),
    };
    let (journeys, purchases) = (summary.load.sent, summary.outcomes.intents.total);
    let link = |link: &crate::summary::LinkSummary| Link {
        from: link.from.clone(),
        to: link.to.clone(),
        calls_per_journey: link.calls.filter(|_| journeys > 0).map(|calls| calls as f64 / journeys as f64),
        calls_per_purchase: link.calls.filter(|_| purchases > 0).map(|calls| calls as f64 / purchases as f64),
        us_per_call: link.us_per_call,
    };
    Figures {
        run_id: summary.run_id.clone(),
        started_at: summary.started_at.clone(),
        seed: summary.seed,
        verdict: summary.verdict,
        latency,
        orders_per_second: summary.goodput.per_second,
        committed_orders: summary.goodput.committed_orders,
        journeys,
        purchases,
        cost_per_1000_orders: summary.cost.cpu_s.keys().map(|role| (role.clone(), cost(role))).collect(),
        links: summary.links.iter().map(link).collect(),
    }
}

/// A baseline of recorded runs, which have to be of one scenario, and not to be doubted.
///
/// # Errors
/// A run cannot be read, violates an invariant, is not to be trusted, or does not fit the others.
pub fn of_runs(folders: &[PathBuf], name: Option<&str>) -> Result<Baseline, BaselineError> {
    let mut baseline: Option<Baseline> = None;
    for folder in folders {
        let summary = judge::read_summary(folder)?;
        let unfit =
            |what: String, help: &str| BaselineError::Unfit { path: folder.clone(), what, help: help.to_owned() };
        if summary.verdict == Verdict::Fail {
            let what =
                format!("the run violates an invariant, so its speed is worth nothing: {}", summary.verdict_reason);
            return Err(unfit(what, "mend the service, and save a run that passes"));
        }
        if summary.partial || !summary.distrust.is_empty() {
            let why = summary.distrust.first().cloned().unwrap_or_else(|| format!("it was {}", summary.ended));
            return Err(unfit(
                format!("the run's figures are not to be trusted: {why}"),
                "run it again on a machine with nothing else to do",
            ));
        }
        let hash = scenario::fingerprint(&folder.join("scenario.toml"))?;
        match &mut baseline {
            None => {
                baseline = Some(Baseline {
                    format: FORMAT,
                    name: name.unwrap_or(&summary.scenario).to_owned(),
                    scenario: summary.scenario.clone(),
                    title: summary.title.clone(),
                    scenario_hash: hash,
                    revision: revision(),
                    machine: summary.machine.clone(),
                    runs: vec![figures(&summary)],
                });
            }
            Some(first) if first.scenario_hash != hash => {
                let what = format!("the run is of another scenario than {}", folders[0].display());
                return Err(unfit(what, "save only runs of one scenario, with the same settings"));
            }
            Some(first) if !same_machine(&first.machine, &summary.machine).is_empty() => {
                let what = format!("the run was made on another machine than {}", folders[0].display());
                return Err(unfit(what, "save only runs of one machine"));
            }
            Some(first) => first.runs.push(figures(&summary)),
        }
    }
    let mut baseline = baseline.ok_or_else(|| BaselineError::Unfit {
        path: PathBuf::from("."),
        what: "no run was named".to_owned(),
        help: "name at least one run folder".to_owned(),
    })?;
    baseline.runs.sort_by(|a, b| a.started_at.cmp(&b.started_at));
    Ok(baseline)
}

fn revision() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// What two machines differ in; nothing if figures of one hold for the other.
pub fn same_machine(one: &Machine, other: &Machine) -> Vec<String> {
    let mut differ = Vec::new();
    let mut hold = |what: &str, a: String, b: String| {
        if a != b {
            differ.push(format!("{what}: {a} and {b}"));
        }
    };
    hold("processors", one.cpus.to_string(), other.cpus.to_string());
    hold("processor", one.cpu_model.clone(), other.cpu_model.clone());
    // A virtual machine's memory varies by what its kernel keeps for itself.
    let gib = |machine: &Machine| format!("{} GiB", (machine.memory_bytes as f64 / f64::from(1_u32 << 30)).round());
    hold("memory", gib(one), gib(other));
    differ
}

/// Where a baseline is: by its name in [`FOLDER`], or by its path.
pub fn path_of(name: &str) -> PathBuf {
    if name.ends_with(".json") || name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(FOLDER).join(format!("{name}.json"))
    }
}

/// Writes a baseline; returns where.
///
/// # Errors
/// There is one of that name, and it is not to be replaced; or the file cannot be written.
pub fn save(baseline: &Baseline, replace: bool) -> Result<PathBuf, BaselineError> {
    let path = path_of(&baseline.name);
    if path.exists() && !replace {
        let help = "--replace writes over it, --name gives another name".to_owned();
        return Err(BaselineError::Unfit { path, what: "there is a baseline of this name".to_owned(), help });
    }
    let file = |source| BaselineError::File { path: path.clone(), source, help: "make the folder writable".to_owned() };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(file)?;
    }
    let mut bytes =
        serde_json::to_vec_pretty(baseline).map_err(|source| BaselineError::Json { path: path.clone(), source })?;
    bytes.push(b'\n');
    std::fs::write(&path, bytes).map_err(file)?;
    Ok(path)
}

/// Reads a baseline by its name, its path, or the run folder that it is to be made of.
///
/// # Errors
/// There is none, or it is not one of ours; the message lists those that there are.
pub fn read(name: &str) -> Result<Baseline, BaselineError> {
    if Path::new(name).join("summary.json").exists() {
        return of_runs(&[PathBuf::from(name)], None);
    }
    let path = path_of(name);
    let bytes =
        std::fs::read(&path).map_err(|source| BaselineError::File { path: path.clone(), source, help: known() })?;
    let baseline: Baseline =
        serde_json::from_slice(&bytes).map_err(|source| BaselineError::Json { path: path.clone(), source })?;
    if baseline.format > FORMAT || baseline.runs.is_empty() {
        let what = format!(
            "its format is {}, with {} runs; this harness reads up to {FORMAT}, with one at least",
            baseline.format,
            baseline.runs.len()
        );
        return Err(BaselineError::Unfit {
            path,
            what,
            help: "use the harness that saved it, or save it anew".to_owned(),
        });
    }
    Ok(baseline)
}

fn known() -> String {
    let files = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    if names.is_empty() {
        format!("{FOLDER} has none yet: seckill baseline save RUN makes one")
    } else {
        format!("one of {}, the path of a file, or a run folder", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_what_figures_depend_on() {
        let machine = Machine {
            cpus: 2,
            cpu_model: "A".into(),
            memory_bytes: 24 << 30,
            kernel: "6.1".into(),
            ..Machine::default()
        };
        let patched = Machine { kernel: "6.2".into(), memory_bytes: (24 << 30) - (100 << 20), ..machine.clone() };
        assert!(same_machine(&machine, &patched).is_empty());
        let other = Machine { cpus: 4, cpu_model: "B".into(), ..machine.clone() };
        assert_eq!(same_machine(&machine, &other), ["processors: 2 and 4", "processor: A and B"]);
    }

    #[test]
    fn a_baseline_that_is_not_there_is_told_with_those_that_are() {
        let error = read("no-such-baseline").unwrap_err().to_string();
        assert!(error.contains("reports/baselines/no-such-baseline.json") && error.contains("help: "), "{error}");
        assert_eq!(path_of("here/x.json"), PathBuf::from("here/x.json"));
    }
}
