//! `seckill mutants`: the harness on trial. The correct target and every seeded bug are rehearsed under the same faults,
//! seed after seed, and the table says which invariant found which bug, how often, and whether the correct target was ever
//! accused.
//!
//! The idea is that of mutation testing (DeMillo, Lipton and Sayward, *Hints on Test Data Selection*, 1978), with a service for a
//! program and a rehearsal for a test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::campaign::{self, Ended, Job, Manner};
use crate::check::Verdict;
use crate::report::format;
use crate::scenario::Reference;
use crate::scenario::catalogue::SeededBug;
use crate::stack::embedded;
use crate::summary::Summary;
use crate::{exit, scenario};

/// The catalogue that comes with the project.
pub const CATALOGUE: &str = "scenarios/mutants/catalogue.toml";
/// Where the table and the runs worth looking at are kept.
const FOLDER: &str = "reports/mutants";
/// What to try.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The catalogue of triggers.
    pub catalogue: PathBuf,
    /// Each bug is tried under the seeds 1 to this.
    pub seeds: u64,
    /// Only these bugs; 0 is the correct target. All of them if empty.
    pub bugs: Vec<u32>,
    /// Runs side by side.
    pub jobs: usize,
    /// Whether the evidence of every run is kept, not only where it is worth a look.
    pub keep: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum MutantsError {
    /// The catalogue is wrong, or does not fit the target or the request.
    #[error("{0}")]
    Usage(String),
    /// The target is not there, or does not answer.
    #[error("{0}")]
    NoTarget(String),
    /// Runs could not be started, or the table not be written.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The catalogue: what brings out each bug, and who must say so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    mutant: Vec<Mutant>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// Number of the seeded bug.
    bug: u32,
    /// The scenario, relative to the catalogue.
    scenario: PathBuf,
    /// In words: what in the scenario brings it out.
    trigger: String,
    /// The invariant that must be violated.
    expect: String,
    /// Values of the scenario that this bug needs otherwise: `path = value`, as with `--set`.
    #[serde(default)]
    set: Vec<String>,
    /// Values that make the mistake, where it is not in the service itself; the correct target goes without them.
    #[serde(default)]
    plant: Vec<String>,
}

/// One line of the detection table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Number of the seeded bug; 0 is the correct target.
    pub bug: u32,
    /// Its name.
    pub name: String,
    /// What brings it out.
    pub trigger: String,
    /// The invariant that must be violated; empty for the correct target, which must violate none.
    pub expected: String,
    /// The invariants that were violated in any of the runs.
    pub found: Vec<String>,
    /// Runs in which the expected invariant was violated; of the correct target: runs with any violation, each a false
    /// alarm.
    pub caught: u64,
    /// Runs made, one to a seed; of the correct target: one to a seed and scenario.
    pub seeds: u64,
    /// Runs that came to unknown, also when they were made again: nothing could be concluded from them.
    pub unknown: u64,
    /// Runs that were made again because they had come to unknown.
    pub repeated: u64,
    /// Median length of a run in seconds.
    pub seconds_p50: f64,
    /// Longest run in seconds.
    pub seconds_max: f64,
    /// Why it cannot be tried yet; none if it was.
    pub pending: Option<String>,
    /// One line of a witness, and the folder of the run it is from.
    pub witness: String,
    /// Runs that did not come out as expected: the seed, and why.
    pub surprises: Vec<String>,
}

/// Tries every mutant and the correct target; prints the table, writes it, and returns the exit code.
pub fn run(trial: &Trial, json: bool, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    match runtime.block_on(rows(trial, cancel)) {
        Ok(rows) => {
            let table = table(&rows);
            if json {
                println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
            } else {
                println!("{table}");
            }
            if let Err(error) = write(&rows, &table) {
                eprintln!("error: cannot write the table to {FOLDER}: {error}");
                return exit::INTERNAL;
            }
            code(&rows, cancel.is_cancelled())
        }
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                MutantsError::Usage(_) => exit::USAGE,
                MutantsError::NoTarget(_) => exit::NO_STACK,
                MutantsError::System { .. } => exit::INTERNAL,
            }
        }
    }
}

/// A false alarm and a miss are failures of the harness; a correct target of which nothing can be said is unknown.
fn code(rows: &[Row], interrupted: bool) -> i32 {
    let tried = || rows.iter().filter(|row| row.pending.is_none());
    let false_alarm = tried().any(|row| row.bug == 0 && row.caught > 0);
    let miss = tried().any(|row| row.bug != 0 && row.caught < row.seeds);
    let unsure = tried().any(|row| row.seeds == 0 || row.bug == 0 && row.unknown > 0);
    match (false_alarm || miss, unsure || interrupted) {
        (true, _) => exit::INTERNAL,
        (false, true) => exit::UNKNOWN,
        (false, false) => exit::PASS,
    }
}

async fn rows(trial: &Trial, cancel: &CancellationToken) -> Result<Vec<Row>, MutantsError> {
    let catalogue = read_catalogue(&trial.catalogue)?;
    let known =
        embedded::catalogue(&Reference::default()).map_err(|error| MutantsError::NoTarget(error.to_string()))?.bugs;
    let mut rows = blank_rows(&catalogue, &known, trial)?;
    let runs = Path::new(FOLDER).join(format!("runs-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")));
    let system = |what: String| move |source| MutantsError::System { what, source };
    std::fs::create_dir_all(&runs).map_err(system(format!("make {}", runs.display())))?;
    let mut took: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let jobs = plan(&rows, &catalogue, trial, &runs)?;
    let total = jobs.len();
    eprintln!("mutants: {} on {}, evidence in {}", format::plural(total as u64, "run"), trial.jobs, runs.display());
    let manner = Manner { at_once: trial.jobs, repeats: 2, longest: Duration::from_secs(180) };
    let mut ended = campaign::start(jobs, manner, cancel);
    let mut done = 0;
    while let Some(run) = ended.recv().await {
        done += 1;
        took.entry(run.job.of).or_default().push(run.took.as_secs_f64());
        let verdict = rows[run.job.of].count(&run, trial.keep);
        eprintln!("[{done:>4}/{total}] {verdict} ({:.1} s)", run.took.as_secs_f64());
    }
    for (row, mut seconds) in took {
        seconds.sort_by(f64::total_cmp);
        rows[row].seconds_p50 = seconds[seconds.len() / 2];
        rows[row].seconds_max = seconds.last().copied().unwrap_or(0.0);
    }
    let _ = std::fs::remove_dir(&runs);
    Ok(rows)
}

fn read_catalogue(path: &Path) -> Result<Catalogue, MutantsError> {
    let help =
        "help: the one that comes with the project is scenarios/mutants/catalogue.toml; --catalogue names another";
    let text = std::fs::read_to_string(path)
        .map_err(|error| MutantsError::Usage(format!("cannot read {}: {error}\n{help}", path.display())))?;
    toml::from_str(&text).map_err(|error| {
        let accepted =
            "help: each [[mutant]] has bug (a number), scenario, trigger, expect (such as \"I1\"), set and plant";
        MutantsError::Usage(format!("{}: {error}{accepted}", path.display()))
    })
}

/// The table before anything was tried: the correct target, then every bug that was asked for.
fn blank_rows(catalogue: &Catalogue, known: &[SeededBug], trial: &Trial) -> Result<Vec<Row>, MutantsError> {
    let numbers: BTreeSet<u32> = known.iter().map(|bug| bug.number).chain([0]).collect();
    if let Some(stranger) = trial.bugs.iter().find(|bug| !numbers.contains(bug)) {
        let all: Vec<String> = numbers.iter().map(u32::to_string).collect();
        let help = format!("help: one of {}, where 0 is the correct target", all.join(", "));
        return Err(MutantsError::Usage(format!("--bug {stranger}: there is no such seeded bug\n{help}")));
    }
    let asked = |bug: u32| trial.bugs.is_empty() || trial.bugs.contains(&bug);
    let mut rows = Vec::new();
    if asked(0) {
        rows.push(Row::new(0, "correct target", "everything below"));
    }
    for bug in known.iter().filter(|bug| asked(bug.number)) {
        let mutant = catalogue.mutant.iter().find(|m| m.bug == bug.number);
        let mut row = Row::new(bug.number, &bug.name, mutant.map_or("", |m| &m.trigger));
        row.expected = mutant.map(|m| m.expect.clone()).unwrap_or_default();
        match (&bug.pending, mutant) {
            (Some(why), _) => row.pending = Some(why.clone()),
            (None, None) => {
                return Err(MutantsError::Usage(format!(
                    "{}: seeded bug {} ({}) has no trigger\nhelp: add a [[mutant]] with bug = {}",
                    trial.catalogue.display(),
                    bug.number,
                    bug.name,
                    bug.number
                )));
            }
            (None, Some(_)) => {}
        }
        rows.push(row);
    }
    Ok(rows)
}

/// All runs, seed by seed, so that an interrupted trial has tried every bug about as often.
fn plan(rows: &[Row], catalogue: &Catalogue, trial: &Trial, runs: &Path) -> Result<Vec<Job>, MutantsError> {
    let base = trial.catalogue.parent().unwrap_or(Path::new("."));
    let mut kinds: BTreeMap<(PathBuf, Vec<String>), usize> = BTreeMap::new();
    for mutant in &catalogue.mutant {
        let path = base.join(&mutant.scenario);
        scenario::load(&path, &mutant.set, None).map_err(|error| MutantsError::Usage(error.to_string()))?;
        let next = kinds.len() + 1;
        kinds.entry((path, mutant.set.clone())).or_insert(next);
    }
    let mut jobs = Vec::new();
    for seed in 1..=trial.seeds {
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.pending.is_none()) {
            let bug = (row.bug != 0).then(|| format!("target.bug={}", row.bug));
            let job = |scenario: PathBuf, set: Vec<String>, name: String| Job {
                of: index,
                scenario,
                variant: None,
                seed,
                set: set.into_iter().chain(bug.clone()).collect(),
                folder: runs.join(name),
            };
            if row.bug == 0 {
                for ((scenario, set), kind) in &kinds {
                    jobs.push(job(scenario.clone(), set.clone(), format!("correct-{kind}-seed-{seed}")));
                }
            } else if let Some(mutant) = catalogue.mutant.iter().find(|m| m.bug == row.bug) {
                let name = format!("bug-{}-seed-{seed}", row.bug);
                let set = mutant.set.iter().chain(&mutant.plant).cloned().collect();
                jobs.push(job(base.join(&mutant.scenario), set, name));
            }
        }
    }
    Ok(jobs)
}

impl Row {
    fn new(bug: u32, name: &str, trigger: &str) -> Row {
        Row {
            bug,
            name: name.to_owned(),
            trigger: trigger.to_owned(),
            expected: String::new(),
            found: Vec::new(),
            caught: 0,
            seeds: 0,
            unknown: 0,
            repeated: 0,
            seconds_p50: 0.0,
            seconds_max: 0.0,
            pending: None,
            witness: String::new(),
            surprises: Vec::new(),
        }
    }

    /// Counts a run in, and says in one line what it came to. The evidence is kept where it is worth a look: the first
    /// catch of each bug, and whatever did not come out as expected.
    fn count(&mut self, run: &Ended, keep: bool) -> String {
        self.seeds += 1;
        self.repeated += run.repeated;
        let what = if self.bug == 0 { "correct target".to_owned() } else { format!("bug {}", self.bug) };
        let what = format!("{what}, seed {}", run.job.seed);
        let folder = run.job.folder.display();
        let summary = match &run.result {
            Ok(summary) => summary,
            Err(why) => {
                self.unknown += 1;
                self.surprises.push(format!("seed {}: {why}; see {folder}", run.job.seed));
                return format!("{what}: no verdict: {why}");
            }
        };
        let violated: Vec<&str> =
            summary.invariants.iter().filter(|f| f.verdict == Verdict::Fail).map(|f| f.id.as_str()).collect();
        for id in &violated {
            if !self.found.iter().any(|found| found == id) {
                self.found.push((*id).to_owned());
            }
        }
        self.unknown += u64::from(summary.verdict == Verdict::Unknown);
        let caught = if self.bug == 0 { !violated.is_empty() } else { violated.contains(&self.expected.as_str()) };
        self.caught += u64::from(caught);
        let as_wanted = if self.bug == 0 { summary.verdict == Verdict::Pass } else { caught };
        let said = match violated.is_empty() {
            true => format!("{}: {}", summary.verdict.name(), summary.verdict_reason),
            false => format!("violates {}", violated.join(", ")),
        };
        let first = self.bug != 0 && self.witness.is_empty() && caught;
        if first {
            self.witness = format!("{} ({folder})", witness_line(summary, &self.expected));
        }
        if !as_wanted {
            self.surprises.push(format!("seed {}: {said}; see {folder}", run.job.seed));
        } else if !first && !keep {
            let _ = std::fs::remove_dir_all(&run.job.folder);
        }
        format!("{what}: {said}")
    }
}

/// The line of a witness that shows the violation.
fn witness_line(summary: &Summary, id: &str) -> String {
    let finding = summary.invariants.iter().find(|f| f.id == id);
    let line = finding.and_then(|f| f.witness.iter().find(|line| line.offending).or(f.witness.first()));
    line.map(|line| format::one_line(&line.text)).unwrap_or_default()
}

/// The table in Markdown, padded so that it reads well in a terminal too.
fn table(rows: &[Row]) -> String {
    let head = ["bug", "name", "trigger", "expected", "found", "caught", "s"].map(str::to_owned).to_vec();
    let mut lines = vec![head];
    for row in rows {
        let caught = match (&row.pending, row.bug) {
            (Some(_), _) => "pending".to_owned(),
            (None, 0) => format!("{} false alarms in {}", row.caught, row.seeds),
            (None, _) => format!("{} of {}", row.caught, row.seeds),
        };
        let trigger = row.pending.as_ref().unwrap_or(&row.trigger);
        let found = if row.found.is_empty() && row.pending.is_none() { "none".to_owned() } else { row.found.join(" ") };
        let seconds = if row.seeds > 0 { format!("{:.0}", row.seconds_p50) } else { String::new() };
        let expected = if row.bug == 0 { "none".to_owned() } else { row.expected.clone() };
        lines.push(vec![row.bug.to_string(), row.name.clone(), trigger.clone(), expected, found, caught, seconds]);
    }
    let mut out = format::markdown_table(&lines);
    for row in rows {
        for surprise in &row.surprises {
            out.push_str(&format!("\nbug {}, {surprise}", row.bug));
        }
        if row.repeated > 0 {
            let runs = format::plural(row.repeated, "run");
            out.push_str(&format!("\nbug {}: {runs} made again, since the first try came to unknown", row.bug));
        }
        if row.bug == 0 && row.unknown > 0 {
            out.push_str(&format!("\n{} of the correct target came to unknown", format::plural(row.unknown, "run")));
        }
    }
    out
}

fn write(rows: &[Row], table: &str) -> std::io::Result<()> {
    let folder = Path::new(FOLDER);
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("latest.json"), serde_json::to_vec_pretty(rows)?)?;
    std::fs::write(folder.join("latest.md"), table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bug: u32, caught: u64, seeds: u64) -> Row {
        Row { caught, seeds, expected: "I1".into(), ..Row::new(bug, "name", "trigger") }
    }

    #[test]
    fn a_miss_and_a_false_alarm_are_failures_and_pending_is_neither() {
        let pending = Row { pending: Some("needs stock in shards".into()), ..row(14, 0, 0) };
        assert_eq!(code(&[row(0, 0, 20), row(4, 20, 20), pending.clone()], false), exit::PASS);
        assert_eq!(code(&[row(0, 0, 20), row(4, 19, 20)], false), exit::INTERNAL);
        assert_eq!(code(&[row(0, 1, 20), row(4, 20, 20)], false), exit::INTERNAL);
        assert_eq!(code(&[Row { unknown: 1, ..row(0, 0, 20) }], false), exit::UNKNOWN);
        assert_eq!(code(&[row(4, 3, 3)], true), exit::UNKNOWN);
        assert_eq!(code(&[row(4, 0, 0)], false), exit::UNKNOWN, "nothing was tried");
        let table = table(&[row(0, 0, 20), row(4, 20, 20), pending]);
        assert!(table.contains("0 false alarms in 20") && table.contains("20 of 20") && table.contains("pending"));
    }

    #[test]
    fn a_bug_without_a_trigger_and_a_bug_that_does_not_exist_are_refused() {
        let known = [SeededBug { number: 4, name: "case-when".into(), ..SeededBug::default() }];
        let trial = Trial { catalogue: "c.toml".into(), seeds: 1, bugs: Vec::new(), jobs: 1, keep: false };
        let none = Catalogue { mutant: Vec::new() };
        let error = blank_rows(&none, &known, &trial).unwrap_err().to_string();
        assert!(error.contains("c.toml") && error.contains("case-when") && error.contains("[[mutant]]"), "{error}");
        let error = blank_rows(&none, &known, &Trial { bugs: vec![99], ..trial }).unwrap_err().to_string();
        assert!(error.contains("--bug 99") && error.contains("0, 4"), "{error}");
    }
}
