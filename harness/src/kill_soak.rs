//! The promise that nothing outlives the harness, put to the test: rehearsals are killed at random moments, and a second
//! later there must be nothing left of them.
//!
//! Each rehearsal has a folder for temporary files of its own, so that what is left of it can be told from everything else on
//! the machine: its private folder, processes that work there or were told of a place there, whatever bears its name
//! (`stack::leftovers`), and the memory that its databases share, as they had written it down when it was killed. Only processes that were started here are killed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::history::Machine;
use crate::stack::leftovers::{self, Run};
use crate::stack::segments::{self, Shared};
use crate::{doctor, exit, random};

/// Where the counts are kept.
pub const LATEST: &str = "reports/bench/kill-soak.json";
/// The scenario that is rehearsed unless another is named.
pub const SCENARIO: &str = "scenarios/kill-soak.toml";
/// By then nothing may be left.
const PROMISED: Duration = Duration::from_secs(1);
/// What is still there then is never going to go.
const NEVER: Duration = Duration::from_secs(15);
/// A rehearsal that takes longer is broken itself.
const LONGEST: Duration = Duration::from_secs(120);
/// One rehearsal in so many is killed at its very beginning, while its stack is made: of moments that are spread over the whole,
/// hardly any would fall there.
const EARLY_ONES: u64 = 4;
/// How long that beginning is.
const EARLY: Duration = Duration::from_millis(400);
/// Streams of random numbers from here on, one for each kill.
const MOMENTS: u64 = 6 << 40;

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    /// Kills.
    pub times: u64,
    /// From which the moments follow.
    pub seed: u64,
    /// Rehearsals side by side.
    pub jobs: usize,
    /// The scenario.
    pub scenario: PathBuf,
    /// Whether the counts are added to those that are there.
    pub more: bool,
}

/// What came of it: `reports/bench/kill-soak.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Rehearsals that were killed.
    pub kills: u64,
    /// Of those, kills after which something was left a second later.
    pub with_leftovers: u64,
    /// Of those, after which something was left for good.
    pub left_for_good: u64,
    /// From a kill until nothing was left: the slowest, in milliseconds.
    pub slowest_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// Kills before there was a private folder.
    pub before_the_stack: u64,
    /// Kills while the stack came up, or was warmed up.
    pub on_the_stack: u64,
    /// Kills when a history had begun: under load, or later.
    pub under_load: u64,
    /// Rehearsals that ended before their moment had come, and were not killed.
    pub ended_before: u64,
    /// Of those, the ones that had failed.
    pub failed: Vec<String>,
    /// How long a whole rehearsal took, in milliseconds: the moments are drawn from there, every fourth from its beginning.
    pub whole_ms: f64,
    /// Rehearsals side by side.
    pub jobs: u64,
    /// Kills of rehearsals whose databases shared memory at that moment.
    #[serde(default)]
    pub sharing_memory: u64,
    /// What of the scenario was left out, since this machine does not let it be done.
    #[serde(default)]
    pub left_out: Option<String>,
    /// The seeds that the moments followed from.
    pub seeds: BTreeSet<u64>,
    /// What was left, as far as it was not clean.
    pub leftovers: Vec<String>,
}

/// How far a rehearsal had come when it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeTheStack,
    OnTheStack,
    UnderLoad,
}

/// What one rehearsal came to.
enum Outcome {
    Killed { stage: Stage, gone_after: Option<Duration>, left: Vec<String>, shared: bool },
    Ended { code: Option<i32>, said: String },
}

/// Kills so many rehearsals, prints and writes what came of it; returns the exit code.
pub fn run(asked: &Asked, json: bool, cancel: &CancellationToken) -> i32 {
    let before = if asked.more { read(Path::new(LATEST)) } else { None }.unwrap_or_default();
    let report = match soak(asked, before, cancel) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("{why}");
            return exit::INTERNAL;
        }
    };
    if let Err(error) = save(&report, Path::new(LATEST)) {
        eprintln!("{LATEST}: {error}");
        return exit::INTERNAL;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print(&report);
    }
    if report.with_leftovers > 0 || !report.failed.is_empty() { exit::INTERNAL } else { exit::PASS }
}

fn read(path: &Path) -> Option<Report> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn save(report: &Report, path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(report)?)
}

fn print(report: &Report) {
    let Report { kills, with_leftovers, left_for_good, slowest_ms, mean_ms, .. } = report;
    println!(
        "{kills} rehearsals killed at random moments of {:.1} s, {} side by side",
        report.whole_ms / 1e3,
        report.jobs
    );
    println!(
        "  {} before there was a stack, {} on the stack, {} under load or later; {} had ended before",
        report.before_the_stack, report.on_the_stack, report.under_load, report.ended_before
    );
    println!("  {} of them while their databases shared memory", report.sharing_memory);
    if let Some(left_out) = &report.left_out {
        println!("  left out: {left_out}");
    }
    println!("  something left after {PROMISED:?}: {with_leftovers}, for good: {left_for_good}");
    println!("  from the kill until nothing was left: {mean_ms:.0} ms in the mean, {slowest_ms:.0} ms at most");
    for line in report.leftovers.iter().chain(&report.failed) {
        println!("  ! {line}");
    }
    println!("written to {LATEST}");
}

/// Kills so many rehearsals, and adds what came of it to a report.
fn soak(asked: &Asked, mut report: Report, cancel: &CancellationToken) -> Result<Report, String> {
    let root = Root::new()?;
    let (settings, left_out) = settings(&asked.scenario, doctor::network_namespaces().map(drop))?;
    report.left_out = left_out;
    let begun = Instant::now();
    // The first is not killed: from its length the moments are drawn.
    match rehearse(asked, &settings, &root, u64::MAX, None, cancel)? {
        Outcome::Ended { code: Some(exit::PASS | exit::SLO_MISSED | exit::UNKNOWN), .. } => {}
        Outcome::Ended { said, .. } => return Err(format!("a rehearsal that is not killed fails: {said}")),
        Outcome::Killed { .. } => return Err("interrupted".to_owned()),
    }
    let whole = begun.elapsed();
    report.machine = crate::run::machine();
    (report.whole_ms, report.jobs) = (whole.as_secs_f64() * 1e3, asked.jobs as u64);
    report.seeds.insert(asked.seed);
    let (first, next) = (report.kills + report.ended_before, AtomicU64::new(0));
    let report = Mutex::new(report);
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= asked.times || cancel.is_cancelled() {
                        return;
                    }
                    let share = random::stream(asked.seed, MOMENTS + first + number).random();
                    let moment = moment(number, whole, share);
                    let outcome = rehearse(asked, &settings, &root, number, Some(moment), cancel);
                    let mut report = report.lock().unwrap_or_else(|e| e.into_inner());
                    match outcome {
                        Ok(outcome) => note(&mut report, moment, outcome),
                        Err(why) => report.failed.push(why),
                    }
                }
            });
        }
    });
    Ok(report.into_inner().unwrap_or_else(|e| e.into_inner()))
}

/// The settings by which this machine can rehearse a scenario, and what is left out by them: where it lets nobody make hosts,
/// there are none, and faults at random do without partitions.
fn settings(scenario: &Path, hosts: Result<(), doctor::Missing>) -> Result<(Vec<String>, Option<String>), String> {
    let Err(missing) = hosts else { return Ok((Vec::new(), None)) };
    let says = |error: &dyn std::fmt::Display| format!("{}: {error}", scenario.display());
    let text = std::fs::read_to_string(scenario).map_err(|error| says(&error))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| says(&error))?;
    let reference = table.get("target").and_then(|target| target.get("reference"));
    if !reference.and_then(|reference| reference.get("hosts")).is_some_and(|hosts| hosts != &toml::Value::from(false)) {
        return Ok((Vec::new(), None));
    }
    let mut settings = vec!["target.hosts=false".to_owned()];
    for (index, chaos) in table.get("chaos").and_then(toml::Value::as_array).into_iter().flatten().enumerate() {
        let all = chaos.get("inject").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let kept: Vec<toml::Value> = all.into_iter().filter(|inject| inject.get("partition").is_none()).collect();
        settings.push(format!("chaos.{index}.inject={}", toml::Value::Array(kept)));
    }
    Ok((settings, Some(format!("hosts and partitions, since {}", missing.why))))
}

/// When a rehearsal is killed, from its start: at that share of its whole length, or of its beginning.
fn moment(number: u64, whole: Duration, share: f64) -> Duration {
    let within = if number.is_multiple_of(EARLY_ONES) { whole.min(EARLY) } else { whole };
    within.mul_f64(share)
}

/// Adds what one rehearsal came to.
fn note(report: &mut Report, moment: Duration, outcome: Outcome) {
    let (stage, gone_after, left) = match outcome {
        Outcome::Killed { stage, gone_after, left, shared } => {
            report.sharing_memory += u64::from(shared);
            (stage, gone_after, left)
        }
        Outcome::Ended { code, said } => {
            report.ended_before += 1;
            if !matches!(code, Some(exit::PASS | exit::SLO_MISSED | exit::UNKNOWN)) {
                report.failed.push(format!("a rehearsal failed before it was killed: {said}"));
            }
            return;
        }
    };
    match stage {
        Stage::BeforeTheStack => report.before_the_stack += 1,
        Stage::OnTheStack => report.on_the_stack += 1,
        Stage::UnderLoad => report.under_load += 1,
    }
    let took = gone_after.unwrap_or(NEVER).as_secs_f64() * 1e3;
    report.mean_ms = (report.mean_ms * report.kills as f64 + took) / (report.kills + 1) as f64;
    report.slowest_ms = report.slowest_ms.max(took);
    report.kills += 1;
    report.left_for_good += u64::from(gone_after.is_none());
    if gone_after.is_none_or(|after| after > PROMISED) {
        report.with_leftovers += 1;
        let for_good = if gone_after.is_none() { ", for good" } else { "" };
        report.leftovers.push(format!(
            "killed after {moment:.1?} ({stage:?}), this was left {PROMISED:?} later{for_good}: {}",
            left.join("; ")
        ));
    }
}

/// The folder of all rehearsals, removed in the end.
struct Root(PathBuf);

impl Root {
    fn new() -> Result<Root, String> {
        // Short, since the paths of Unix sockets have 107 bytes at most; and others pass through it, as Postgres' user does.
        let path = std::env::temp_dir().join(format!("sks{}", std::process::id()));
        let made = std::fs::create_dir(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)));
        // Processes are looked for by where they really work.
        made.and_then(|()| path.canonicalize())
            .map(Root)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One rehearsal, killed at its moment if it has one.
fn rehearse(
    asked: &Asked,
    settings: &[String],
    root: &Root,
    number: u64,
    moment: Option<Duration>,
    cancel: &CancellationToken,
) -> Result<Outcome, String> {
    let name = if moment.is_some() { number.to_string() } else { "whole".to_owned() };
    let (tmp, out) = (root.0.join(&name), root.0.join(format!("{name}.run")));
    let fail = |error: std::io::Error| format!("cannot start a rehearsal: {error}");
    std::fs::create_dir(&tmp).map_err(fail)?;
    std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o711)).map_err(fail)?;
    let log = root.0.join(format!("{name}.log"));
    let mut command = Command::new(std::env::current_exe().map_err(fail)?);
    command.arg("run").arg(&asked.scenario).arg("--quiet").arg("--seed").arg((number % 1_000).to_string());
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command.arg("--out").arg(&out).env("TMPDIR", &tmp).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&log).map_err(fail)?);
    let mut child = command.spawn().map_err(fail)?;
    let ended = wait(&mut child, moment.unwrap_or(LONGEST), cancel);
    let outcome = match ended {
        Some(code) => {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
            Outcome::Ended { code, said }
        }
        None => {
            let (had, shared) = (runs_in(&tmp), shared_in(&tmp));
            let _ = child.kill();
            let killed = Instant::now();
            let _ = child.wait();
            let stage = match (had.is_empty(), out.join("run.json").exists()) {
                (_, true) => Stage::UnderLoad,
                (true, false) => Stage::BeforeTheStack,
                (false, false) => Stage::OnTheStack,
            };
            // Between the look and the kill, one may have been made.
            let runs = had.into_iter().chain(runs_in(&tmp)).collect::<BTreeSet<String>>();
            let shared = shared.into_iter().chain(shared_in(&tmp)).collect::<BTreeSet<Shared>>();
            let (gone_after, left) = wait_until_gone(&tmp, &runs, &shared, killed);
            Outcome::Killed { stage, gone_after, left, shared: !shared.is_empty() }
        }
    };
    for path in [&tmp, &out] {
        let _ = std::fs::remove_dir_all(path);
    }
    let _ = std::fs::remove_file(log);
    Ok(outcome)
}

/// Waits for a child's end, for so long at most; none if it is still running then.
fn wait(child: &mut Child, limit: Duration, cancel: &CancellationToken) -> Option<Option<i32>> {
    let end = Instant::now() + limit;
    while Instant::now() < end && !cancel.is_cancelled() {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.code());
        }
        std::thread::sleep(Duration::from_millis(2).min(end.saturating_duration_since(Instant::now())));
    }
    None
}

/// The runs that have a private folder there, by their ids.
fn runs_in(tmp: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(tmp).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("seckill-").map(str::to_owned)).collect()
}

/// What the databases of these runs share at this moment. Once they are gone, nothing tells any more.
fn shared_in(tmp: &Path) -> Vec<Shared> {
    runs_in(tmp).iter().flat_map(|id| segments::all_below(&tmp.join(Run::of_id(id).name()))).collect()
}

/// Looks until nothing is left, and says how long after the kill that was; none if it never was. With it, what was left when
/// the promised time was over.
fn wait_until_gone(
    tmp: &Path,
    runs: &BTreeSet<String>,
    shared: &BTreeSet<Shared>,
    killed: Instant,
) -> (Option<Duration>, Vec<String>) {
    let mut overdue: Option<Vec<String>> = None;
    loop {
        // A look takes a while itself: what counts is when it began.
        let looked = killed.elapsed();
        let left = left_of(tmp, runs, shared);
        if left.is_empty() {
            return (Some(looked), overdue.unwrap_or_default());
        }
        if looked > PROMISED {
            overdue.get_or_insert(left);
        }
        if looked > NEVER {
            return (None, overdue.unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is left of the runs whose temporary files were in a folder: files, processes, what bears their names, and what their
/// databases shared.
fn left_of(tmp: &Path, runs: &BTreeSet<String>, shared: &BTreeSet<Shared>) -> Vec<String> {
    let mut left: Vec<String> = runs.iter().flat_map(|id| leftovers::find_all(&Run::of_id(id))).collect();
    left.extend(shared.iter().flat_map(Shared::left));
    for entry in std::fs::read_dir(tmp).into_iter().flatten().flatten() {
        left.push(format!("file {}", entry.file_name().to_string_lossy()));
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let works_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(tmp));
        let told = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let told = String::from_utf8_lossy(&told).replace('\0', " ");
        // A slash, so that the folder of the first rehearsal is not that of the tenth.
        if works_there || told.contains(&format!("{}/", tmp.display())) {
            left.push(format!("process {pid} ({})", told.chars().take(80).collect::<String>()));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_seen_and_only_there() {
        let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tmp = mine.path().canonicalize().unwrap();
        let none = BTreeSet::new();
        assert!(left_of(&tmp, &BTreeSet::new(), &none).is_empty());
        let mut there = Command::new("sleep").arg("60").current_dir(&tmp).spawn().unwrap();
        let mut elsewhere = Command::new("sleep").arg("61").current_dir(other.path()).spawn().unwrap();
        std::fs::create_dir(tmp.join("seckill-abc")).unwrap();
        assert_eq!(runs_in(&tmp), ["abc"]);
        let left = left_of(&tmp, &BTreeSet::from(["abc".to_owned()]), &none);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&"file seckill-abc".to_owned()) && left[1].contains("sleep 60"), "{left:?}");
        for child in [&mut there, &mut elsewhere] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        std::fs::remove_dir(tmp.join("seckill-abc")).unwrap();
        let gone = wait_until_gone(&tmp, &BTreeSet::new(), &none, Instant::now());
        assert!(gone.0.is_some_and(|after| after < PROMISED));
    }

    #[test]
    fn memory_that_a_database_of_a_run_shares_is_seen_when_its_folder_is_gone() {
        // SAFETY: a new segment of this process's own, which nobody is attached to.
        let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 64, 0o600) };
        assert!(segment >= 0, "{}", std::io::Error::last_os_error());
        let tmp = tempfile::tempdir().unwrap();
        let data = tmp.path().join("seckill-abc/postgres");
        std::fs::create_dir_all(&data).unwrap();
        let notes = format!("{}\n/data\n1700000000\n5432\n/sockets\n\n 7  {segment}\nready\n", std::process::id());
        std::fs::write(data.join("postmaster.pid"), notes).unwrap();
        let shared: BTreeSet<Shared> = shared_in(tmp.path()).into_iter().collect();
        std::fs::remove_dir_all(tmp.path().join("seckill-abc")).unwrap();
        let left = left_of(tmp.path(), &BTreeSet::from(["abc".to_owned()]), &shared);
        assert_eq!(left, [format!("shared memory {segment} of process {}", std::process::id())]);
        // SAFETY: the segment is this test's own.
        unsafe { libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()) };
        assert!(left_of(tmp.path(), &BTreeSet::new(), &shared).is_empty());
    }

    #[test]
    fn where_nobody_may_make_hosts_the_scenario_does_without() {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(SCENARIO);
        assert_eq!(settings(&scenario, Ok(())).unwrap(), (Vec::new(), None));
        let missing = doctor::Missing::new("only root may", "be root");
        let (settings, left_out) = settings(&scenario, Err(missing)).unwrap();
        assert_eq!(left_out.as_deref(), Some("hosts and partitions, since only root may"));
        let loaded = crate::scenario::load(&scenario, &settings, None).unwrap().scenario;
        let kinds: Vec<&str> = loaded.chaos[0].get_ref().inject.iter().map(|inject| inject.kind()).collect();
        assert!(kinds.contains(&"throttle") && !kinds.contains(&"partition") && kinds.len() >= 10, "{kinds:?}");
    }

    #[test]
    fn some_are_killed_at_their_beginning_and_the_others_anywhere() {
        let whole = Duration::from_secs(8);
        assert_eq!(moment(4, whole, 0.5), EARLY / 2);
        assert_eq!(moment(5, whole, 0.5), whole / 2);
        assert_eq!(moment(4, EARLY / 2, 0.5), EARLY / 4, "a rehearsal that is shorter than that");
    }

    #[test]
    fn a_report_adds_up() {
        let mut report = Report::default();
        let ms = Duration::from_millis;
        let killed = |gone_after, left: &[&str]| Outcome::Killed {
            stage: Stage::UnderLoad,
            gone_after,
            left: left.iter().map(|text| (*text).to_owned()).collect(),
            shared: !left.is_empty(),
        };
        note(&mut report, ms(5), killed(Some(ms(100)), &[]));
        note(&mut report, ms(5), killed(Some(ms(300)), &[]));
        assert_eq!((report.kills, report.with_leftovers, report.mean_ms, report.slowest_ms), (2, 0, 200.0, 300.0));
        note(&mut report, ms(5), killed(Some(ms(1_200)), &["process 7"]));
        note(&mut report, ms(5), killed(None, &["file x"]));
        note(&mut report, ms(5), Outcome::Ended { code: Some(0), said: String::new() });
        assert_eq!((report.with_leftovers, report.left_for_good, report.ended_before), (2, 1, 1));
        assert_eq!(report.sharing_memory, 2);
        assert!(report.failed.is_empty() && report.leftovers[1].ends_with("for good: file x"), "{report:?}");
        note(&mut report, ms(5), Outcome::Ended { code: Some(20), said: "no stack".to_owned() });
        assert_eq!(report.failed.len(), 1);
    }
}
