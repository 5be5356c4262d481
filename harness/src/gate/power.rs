//! The gate on trial: how often does it accuse a build of being worse than itself, and how often does it find what was made slower?
//!
//! Each trial is a gate in a process of its own, while another process burns processor time at random. The slow-downs are planted ones of
//! the reference service, and their sizes follow from what the first comparisons of a build with itself measured: a tenth of its TP99 is
//! waited for every page, so that TP99 is a tenth larger, and the same for a fifth of TP999; and locks are held for so long that a
//! connection carries a tenth less.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Decision, Report};
use crate::cli::complain;
use crate::exit;
use crate::history::Machine;
use crate::measure::stats::{interval_of_share, median};
use crate::random;

/// Where the figures are kept.
pub const FILE: &str = "reports/bench/gate-power.json";
/// What is compared.
pub const SCENARIO: &str = "scenarios/gate.toml";
/// Subcommand of the process that burns processor time.
pub const BURNER: &str = "burn-cpu";
/// Comparisons of a build with itself from which the sizes of slow-downs follow.
const CALIBRATION: usize = 6;
/// The step whose latency is made longer.
const STEP: &str = "page";
/// Mean length of a burst of the burner, and of its pauses.
const BURST: Duration = Duration::from_millis(400);
/// Longer than any decision may take.
const LONGEST: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Comparisons of a build with itself.
    pub aa: usize,
    /// Comparisons with each slow-down.
    pub power: usize,
    /// Whether to go on from the figures that there are.
    pub more: bool,
    /// How many trials to make at most this time.
    pub at_most: Option<usize>,
    /// The scenario.
    pub scenario: PathBuf,
    /// What changes in it.
    pub set: Vec<String>,
}

/// What is planted on the new side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Planted {
    /// Nothing: both sides are the same.
    Nothing,
    /// A tenth of TP99.
    Tp99,
    /// A tenth of the throughput.
    Throughput,
    /// A fifth of TP999.
    Tp999,
}

impl Planted {
    const ALL: [Planted; 4] = [Planted::Nothing, Planted::Tp99, Planted::Throughput, Planted::Tp999];

    /// The metric that has to be accused, and the phase that its size was measured in.
    fn metric(self) -> Option<(&'static str, &'static str)> {
        match self {
            Planted::Nothing => None,
            Planted::Tp99 => Some(("us_p99", "steady")),
            Planted::Throughput => Some(("orders_per_second", "rush")),
            Planted::Tp999 => Some(("us_p999", "steady")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Planted::Nothing => "nothing (a build and itself)",
            Planted::Tp99 => "10% of TP99",
            Planted::Throughput => "10% of throughput",
            Planted::Tp999 => "20% of TP999",
        }
    }
}

/// One trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trial {
    planted: Planted,
    /// The setting by which it was planted.
    slow: Option<String>,
    seed: u64,
    decision: Decision,
    /// The metrics that were accused.
    accused: Vec<String>,
    /// Whether what was planted is among them; for nothing, whether anything is.
    found: bool,
    /// What the metric was on the old side, by its name; for a build and itself.
    measured: Vec<(String, f64)>,
    /// By how much the metric was worse, as the trial measured it.
    worse_by: Option<f64>,
    rounds: usize,
    took_s: f64,
}

/// Where a planted slow-down was put.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    /// What was planted.
    slow: String,
    /// Where it is: the hop and the resource.
    at: [String; 2],
    /// Where the gate put it: that of the worst finding about an order.
    put: Option<[String; 2]>,
    /// Whether that is the same.
    right: bool,
    /// What the gate said.
    said: String,
}

/// Slow-downs of every kind, with the hop and the resource that each is on.
const PLACES: [(&str, [&str; 2]); 5] = [
    ("sleep=4ms", ["client→service", "waiting"]),
    ("page-sleep=4ms", ["client→service", "waiting"]),
    ("query=1", ["service→postgres", "calls"]),
    ("lock=4ms", ["service→postgres", "lock"]),
    ("allocate=8MiB", ["client→service", "memory"]),
];

/// The file of figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Figures {
    /// Comparisons of a build with itself.
    aa_runs: usize,
    /// Those that ended as a regression.
    aa_false_alarms: usize,
    /// Share of slow-downs by a tenth that were found: of TP99 or of throughput, whichever is smaller.
    found_10_percent: Option<f64>,
    /// Of TP99.
    found_10_percent_tp99: Option<f64>,
    /// Of throughput.
    found_10_percent_throughput: Option<f64>,
    /// Share of slow-downs of TP999 by a fifth that were found.
    found_20_percent_tp999: Option<f64>,
    /// The longest decision, in seconds.
    longest_decision_s: f64,
    /// Trials that came to no decision, since the measurement could not be trusted.
    unknown: usize,
    machine: Machine,
    /// Where slow-downs of each kind were put.
    #[serde(default)]
    places: Vec<Place>,
    trials: Vec<Trial>,
}

/// Makes the trials, prints the table and writes the file; returns the exit code.
pub fn run(asked: &Asked, json: bool, cancel: &CancellationToken) -> i32 {
    let mut figures = if asked.more { read().unwrap_or_default() } else { Figures::default() };
    figures.machine = crate::run::machine();
    let burner = match Burner::start() {
        Ok(burner) => burner,
        Err(error) => {
            return complain(&format!("cannot start the process that burns processor time: {error}"), exit::INTERNAL);
        }
    };
    for (slow, at) in PLACES {
        if cancel.is_cancelled() || figures.places.iter().any(|place| place.slow == slow) {
            continue;
        }
        match place(slow, at, asked, cancel) {
            Ok(place) => {
                eprintln!("{slow}: {}, {}", if place.right { "put right" } else { "put WRONG" }, place.said);
                figures.places.push(place);
            }
            Err(_) if cancel.is_cancelled() => break,
            Err(why) => return complain(&why, exit::INTERNAL),
        }
    }
    let mut made = 0;
    while !cancel.is_cancelled() && asked.at_most.is_none_or(|most| made < most) {
        let Some(planted) = next(&figures, asked) else { break };
        let seed = 1_000 + 100 * figures.trials.len() as u64;
        match trial(planted, seed, &figures, asked, cancel) {
            Ok(trial) => {
                let line = format!(
                    "{}: {:?}, {} rounds, {:.0} s: {}",
                    planted.name(),
                    trial.decision,
                    trial.rounds,
                    trial.took_s,
                    trial.accused.join(", ")
                );
                eprintln!("[{}] {line}", figures.trials.len() + 1);
                figures.trials.push(trial);
            }
            Err(_) if cancel.is_cancelled() => break,
            Err(why) => return complain(&why, exit::INTERNAL),
        }
        made += 1;
        figures.sum_up();
        if let Err(error) = write(&figures) {
            return complain(&format!("{FILE}: {error}"), exit::INTERNAL);
        }
    }
    drop(burner);
    figures.sum_up();
    if json {
        println!("{}", serde_json::to_string_pretty(&figures).unwrap_or_default());
    } else {
        println!("{}", figures.table());
    }
    if cancel.is_cancelled() { exit::UNKNOWN } else { exit::PASS }
}

/// What is tried next: whatever is furthest behind, after what the sizes follow from.
fn next(figures: &Figures, asked: &Asked) -> Option<Planted> {
    let count = |planted: Planted| figures.of(planted).count();
    if count(Planted::Nothing) < CALIBRATION.min(asked.aa) {
        return Some(Planted::Nothing);
    }
    let wanted = |planted: Planted| if planted == Planted::Nothing { asked.aa } else { asked.power };
    let done = |planted: &Planted| (count(*planted) as f64 / wanted(*planted).max(1) as f64 * 1e6) as u64;
    Planted::ALL.into_iter().filter(|planted| count(*planted) < wanted(*planted)).min_by_key(done)
}

/// The setting that plants it.
fn slow(planted: Planted, figures: &Figures) -> Option<String> {
    let (name, phase) = planted.metric()?;
    let key = format!("{name} {phase}");
    let measured = || {
        let all: Vec<f64> = figures
            .of(Planted::Nothing)
            .flat_map(|trial| &trial.measured)
            .filter(|(known, _)| *known == key)
            .map(|(_, us)| *us)
            .collect();
        if all.is_empty() { 0.0 } else { median(all).0 }
    };
    Some(match planted {
        // What a connection is busy with for an order is the way to the database, 8 ms, and about 2 ms of work.
        Planted::Throughput => "target.slow=lock=1ms".to_owned(),
        Planted::Tp99 => format!("target.slow=page-sleep={}us", (measured() * 0.1).round()),
        Planted::Tp999 => format!("target.slow=page-sleep={}us", (measured() * 0.2).round()),
        Planted::Nothing => return None,
    })
}

/// Plants a slow-down and sees where the gate puts it.
fn place(slow: &str, at: [&str; 2], asked: &Asked, cancel: &CancellationToken) -> Result<Place, String> {
    let report = gate(Some(&format!("target.slow={slow}")), 77, asked, cancel)?;
    // The worst finding of all, but for what a role as a whole costs.
    let worst = report.findings.iter().find(|finding| finding.hop.is_some());
    let put =
        worst.map(|finding| [finding.hop.clone().unwrap_or_default(), finding.resource.clone().unwrap_or_default()]);
    let at = at.map(str::to_owned);
    let said = worst.map_or_else(|| report.reason.clone(), |finding| format!("{}; {}", finding.what, finding.r#where));
    Ok(Place { slow: slow.to_owned(), right: put.as_ref() == Some(&at), at, put, said })
}

/// A gate of a build against itself, or against itself with a slow-down.
fn gate(slow: Option<&str>, seed: u64, asked: &Asked, cancel: &CancellationToken) -> Result<Report, String> {
    let folder = std::env::temp_dir().join(format!("seckill-gate-power-{}-{seed}", std::process::id()));
    let program = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut command = Command::new(program);
    command
        .arg("gate")
        .arg(&asked.scenario)
        .args(["--quiet", "--output", "json", "--seed", &seed.to_string()])
        .arg("--out")
        .arg(&folder);
    for set in &asked.set {
        command.args(["--set", set]);
    }
    if let Some(set) = slow {
        command.args(["--new-set", set]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("cannot start a gate: {error}"))?;
    let output = wait(child, cancel)?;
    let _ = std::fs::remove_dir_all(&folder);
    serde_json::from_slice(&output.stdout).map_err(|_| {
        format!("a gate gave no result, {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })
}

fn trial(
    planted: Planted,
    seed: u64,
    figures: &Figures,
    asked: &Asked,
    cancel: &CancellationToken,
) -> Result<Trial, String> {
    let started = Instant::now();
    let slow = slow(planted, figures);
    let report = gate(slow.as_deref(), seed, asked, cancel)?;
    let wanted = planted.metric();
    let accused: Vec<String> = report
        .findings
        .iter()
        .map(|finding| {
            let of = [finding.phase.as_deref(), finding.step.as_deref(), finding.hop.as_deref()];
            [&[finding.metric.as_str()][..], &of.into_iter().flatten().collect::<Vec<_>>()].concat().join(" ")
        })
        .collect();
    let regression = report.decision == Decision::Regression;
    let is_wanted = |name: &str| wanted.is_none_or(|(metric, _)| name == metric);
    let of_metric = |name: &str, phase: &str| {
        report.metrics.iter().find(move |m| {
            m.name == name && m.phase.as_deref() == Some(phase) && m.step.as_deref().is_none_or(|step| step == STEP)
        })
    };
    let measured = Planted::ALL
        .into_iter()
        .filter_map(Planted::metric)
        .filter_map(|(name, phase)| Some((format!("{name} {phase}"), of_metric(name, phase)?.old?)));
    Ok(Trial {
        planted,
        slow,
        seed,
        decision: report.decision,
        found: regression && report.findings.iter().any(|finding| is_wanted(&finding.metric)),
        accused,
        measured: measured.collect(),
        worse_by: wanted.and_then(|(name, phase)| of_metric(name, phase)).and_then(|metric| metric.worse_by),
        rounds: report.rounds.len(),
        took_s: started.elapsed().as_secs_f64(),
    })
}

/// Waits for a gate to end; it is asked to when this is interrupted, or it takes too long.
fn wait(child: Child, cancel: &CancellationToken) -> Result<std::process::Output, String> {
    let pid =
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).map_err(|_| "a process without a number".to_owned())?);
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (cancel, seen) = (cancel.clone(), ended.clone());
    let watcher = std::thread::spawn(move || {
        let started = Instant::now();
        while !seen.load(std::sync::atomic::Ordering::Relaxed) {
            if cancel.is_cancelled() || started.elapsed() > LONGEST {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let output = child.wait_with_output().map_err(|error| error.to_string());
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = watcher.join();
    output
}

impl Figures {
    fn of(&self, planted: Planted) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(move |trial| trial.planted == planted)
    }

    fn sum_up(&mut self) {
        let share = |planted| {
            let count = self.of(planted).count();
            (count > 0).then(|| self.of(planted).filter(|trial| trial.found).count() as f64 / count as f64)
        };
        let (tp99, throughput, tp999) = (share(Planted::Tp99), share(Planted::Throughput), share(Planted::Tp999));
        self.aa_runs = self.of(Planted::Nothing).count();
        self.aa_false_alarms = self.of(Planted::Nothing).filter(|trial| trial.found).count();
        self.found_10_percent = tp99.zip(throughput).map(|(a, b)| a.min(b));
        (self.found_10_percent_tp99, self.found_10_percent_throughput, self.found_20_percent_tp999) =
            (tp99, throughput, tp999);
        self.longest_decision_s = self.trials.iter().map(|trial| trial.took_s).fold(0.0, f64::max);
        self.unknown = self.trials.iter().filter(|trial| trial.decision == Decision::Unknown).count();
    }

    fn table(&self) -> String {
        let mut text = "| planted | trials | found | 95% interval | measured | rounds | median time |\n|---|--:|--:|---|--:|--:|--:|\n".to_owned();
        for planted in Planted::ALL {
            let trials: Vec<&Trial> = self.of(planted).collect();
            if trials.is_empty() {
                continue;
            }
            let found = trials.iter().filter(|trial| trial.found).count();
            let [low, high] = interval_of_share(found as u64, trials.len() as u64);
            let middle = |values: Vec<f64>| if values.is_empty() { 0.0 } else { median(values).0 };
            let worse = middle(trials.iter().filter_map(|trial| trial.worse_by).collect()) * 100.0;
            let (rounds, took) = (
                middle(trials.iter().map(|t| t.rounds as f64).collect()),
                middle(trials.iter().map(|t| t.took_s).collect()),
            );
            let measured = if planted == Planted::Nothing { "–".to_owned() } else { format!("{worse:+.1}%") };
            text.push_str(&format!(
                "| {} | {} | {found} | {:.1}% … {:.1}% | {measured} | {rounds} | {took:.0} s |\n",
                planted.name(),
                trials.len(),
                low * 100.0,
                high * 100.0
            ));
        }
        for Place { slow, right, said, .. } in &self.places {
            text.push_str(&format!("\n{slow}: {}: {said}", if *right { "put right" } else { "put WRONG" }));
        }
        text.push_str(&format!(
            "\n\nlongest decision {:.0} s; {} trials without a decision; {FILE}",
            self.longest_decision_s, self.unknown
        ));
        text
    }
}

fn read() -> Option<Figures> {
    serde_json::from_slice(&std::fs::read(FILE).ok()?).ok()
}

fn write(figures: &Figures) -> std::io::Result<()> {
    let path = Path::new(FILE);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Moved over when it is whole: who is killed now goes on from here.
    let fresh = path.with_extension("json.new");
    std::fs::write(&fresh, serde_json::to_vec_pretty(figures)?)?;
    std::fs::rename(fresh, path)
}

/// The process that burns processor time; it ends when this is dropped.
struct Burner(Child);

impl Burner {
    fn start() -> std::io::Result<Burner> {
        // It ends with its input, however this process ends.
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BURNER).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Burner(command.spawn()?))
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the burner does: it computes for some time and rests for some, both of random length, until its input ends.
pub fn burn() -> i32 {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(exit::PASS);
    });
    let mut rng = random::stream(u64::from(std::process::id()), 0);
    let mut length = || BURST.mul_f64(-(1.0 - rng.random::<f64>()).ln());
    loop {
        let until = Instant::now() + length();
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        std::thread::sleep(length());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(planted: Planted, found: bool) -> Trial {
        let measured = vec![("us_p99 steady".to_owned(), 20_000.0), ("us_p999 steady".to_owned(), 30_000.0)];
        Trial {
            planted,
            slow: None,
            seed: 1,
            decision: if found { Decision::Regression } else { Decision::Same },
            accused: Vec::new(),
            found,
            measured,
            worse_by: None,
            rounds: 3,
            took_s: 30.0,
        }
    }

    #[test]
    fn sizes_follow_from_what_a_build_and_itself_measured() {
        let figures = Figures { trials: vec![trial(Planted::Nothing, false); 6], ..Figures::default() };
        assert_eq!(slow(Planted::Tp99, &figures).as_deref(), Some("target.slow=page-sleep=2000us"));
        assert_eq!(slow(Planted::Tp999, &figures).as_deref(), Some("target.slow=page-sleep=6000us"));
        assert_eq!(slow(Planted::Nothing, &figures), None);
    }

    #[test]
    fn what_is_furthest_behind_is_next_and_the_sum_tells_alarms_from_finds() {
        let asked = Asked { aa: 20, power: 10, more: false, at_most: None, scenario: PathBuf::new(), set: Vec::new() };
        let mut figures = Figures::default();
        let mut order = Vec::new();
        while let Some(planted) = next(&figures, &asked) {
            order.push(planted);
            figures.trials.push(trial(planted, planted != Planted::Nothing && figures.trials.len() != 12));
        }
        assert_eq!(order.len(), 50);
        assert!(order[..6].iter().all(|planted| *planted == Planted::Nothing));
        figures.sum_up();
        assert_eq!((figures.aa_runs, figures.aa_false_alarms), (20, 0));
        assert!(figures.found_10_percent.is_some() && figures.found_20_percent_tp999.is_some());
        figures.trials.push(trial(Planted::Nothing, true));
        figures.sum_up();
        assert_eq!(figures.aa_false_alarms, 1);
        assert!(figures.table().contains("| nothing (a build and itself) | 21 | 1 |"), "{}", figures.table());
    }
}
