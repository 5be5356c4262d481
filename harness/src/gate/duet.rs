//! The duet: both sides of a scenario, run at once and loaded in turns, round by round until it is decided.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::pairs;
use super::place::{self, Counts};
use super::tally::{Standing, Tally};
use super::{Build, Decision, Finding, GateError, Judged, Judgement, KEPT, Metric, Report, Round, SideRun};
use crate::check::Verdict;
use crate::exit;
use crate::history::History;
use crate::judge;
use crate::kept::KeptError;
use crate::load::turns::{Side, Turn, Turns};
use crate::progress::Progress;
use crate::run;
use crate::scenario::Loaded;
use crate::shard::{Meeting, Part};
use crate::summary::Summary;

/// Rounds whose measurement could not be trusted, until the gate gives up.
const MOST_UNTRUSTED: u32 = 3;
/// How the sides are called in folders and messages.
const NAMES: [&str; 2] = ["old", "new"];

/// A scenario as one side runs it, for a round: with the seed of that round.
pub type Load<'a> = &'a (dyn Fn(&Build, u64) -> Result<Loaded, crate::scenario::ScenarioError> + Sync);

/// What a gate needs to know.
pub struct Duet<'a> {
    /// The scenario, for its settings.
    pub loaded: &'a Loaded,
    /// Old and new.
    pub builds: [Build; 2],
    /// How a side's scenario is read.
    pub load: Load<'a>,
    /// Where everything is written.
    pub folder: &'a Path,
    /// Whether the run folders are kept; otherwise only those of rounds with something wrong in them.
    pub keep: bool,
    /// What people are told meanwhile.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// Both sides of a round, as they ended.
struct Ended {
    histories: [History; 2],
    summaries: [Summary; 2],
}

impl Duet<'_> {
    /// Runs rounds until it is decided, and writes `gate.json`.
    ///
    /// # Errors
    /// Nothing was decided.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<Report, GateError> {
        let started = Instant::now();
        let (gate, seed) = (&self.loaded.scenario.gate, self.loaded.scenario.seed);
        KEPT.make(self.folder)?;
        let (mut tally, mut rounds) = (Tally::default(), Vec::new());
        let (mut untrusted, mut remarks) = (0, Vec::new());
        let mut metrics = Vec::new();
        for number in 1..=gate.rounds + MOST_UNTRUSTED {
            let turns = Turns { every_us: gate.turn.micros(), seed: seed + u64::from(number) };
            let ended = self.round(number, turns, cancel).await?;
            let distrust: Vec<&String> = ended.summaries.iter().flat_map(|summary| &summary.distrust).collect();
            let used = distrust.is_empty() && ended.summaries.iter().all(|summary| !summary.partial);
            rounds.push(self.describe(number, turns.seed, &ended.summaries, used));
            remember(&mut remarks, &ended.summaries);
            if ended.summaries.iter().any(|summary| summary.verdict == Verdict::Fail) {
                break;
            }
            self.tidy(number, used)?;
            if used {
                let [old, new] = &ended.histories;
                tally.add(
                    pairs::compare([old, new], turns, &gate.saturated),
                    ended.summaries.each_ref().map(Counts::of),
                );
            } else {
                untrusted += 1;
                remarks.extend(distrust.into_iter().map(|why| format!("round {number} was left out: {why}")));
            }
            metrics = tally.metrics(gate);
            let (counted, _) = place::counted(&tally.counts, &gate.effect);
            let standing = tally.standing(&metrics, !counted.is_empty(), gate);
            (self.say)(&progress(number, gate.rounds, used, &metrics, started));
            if standing != Standing::Open || untrusted >= MOST_UNTRUSTED || number - untrusted >= gate.rounds {
                break;
            }
        }
        remarks.dedup();
        let report = self.decide(&tally, metrics, rounds, remarks, started);
        save(self.folder, &report)?;
        Ok(report)
    }

    /// One round: both sides are provisioned, and begin together when both are well.
    async fn round(&self, number: u32, turns: Turns, cancel: &CancellationToken) -> Result<Ended, GateError> {
        let meeting = Arc::new(Meeting::default());
        // A side that fails must not be waited for.
        let both = cancel.child_token();
        let quiet = Progress::new(true);
        let mut loaded = Vec::new();
        for build in &self.builds {
            loaded.push((self.load)(build, turns.seed)?);
        }
        let one = |at: usize, side: Side| {
            let part = Part::of_duet(Turn { side, turns }, meeting.clone());
            let (loaded, both, quiet) = (&loaded[at], &both, &quiet);
            let folder = self.folder_of(number, at);
            async move {
                let result = run::record(loaded, &part, &folder, quiet, both).await;
                if result.is_err() {
                    both.cancel();
                }
                result
            }
        };
        let (old, new) = tokio::join!(one(0, Side::Old), one(1, Side::New));
        if cancel.is_cancelled() {
            return Err(GateError::Interrupted(self.folder.to_owned()));
        }
        // The one that was called off because of the other has nothing to say.
        let results = [old, new];
        let first = results.into_iter().enumerate().filter_map(|(at, result)| Some((at, result.err()?)));
        if let Some((at, source)) = first.min_by_key(|(_, error)| matches!(error, run::RunError::Interrupted)) {
            return Err(GateError::Run { round: number, side: NAMES[at], source });
        }
        let judge = |at: usize| {
            let folder = self.folder_of(number, at);
            let summary = judge::judge_and_report(&folder)?;
            Ok::<_, GateError>((judge::read(&folder).map_err(judge::JudgeError::from)?.0, summary))
        };
        let ((old, old_summary), (new, new_summary)) = (judge(0)?, judge(1)?);
        Ok(Ended { histories: [old, new], summaries: [old_summary, new_summary] })
    }

    fn folder_of(&self, round: u32, side: usize) -> PathBuf {
        self.folder.join(format!("round-{round}-{}", NAMES[side]))
    }

    fn tidy(&self, round: u32, used: bool) -> Result<(), GateError> {
        if self.keep || !used {
            return Ok(());
        }
        for side in 0..2 {
            let path = self.folder_of(round, side);
            std::fs::remove_dir_all(&path).map_err(|source| KeptError::Folder { path, source })?;
        }
        Ok(())
    }

    fn describe(&self, number: u32, seed: u64, summaries: &[Summary; 2], used: bool) -> Round {
        let side = |at: usize| SideRun {
            folder: self
                .folder_of(number, at)
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            verdict: summaries[at].verdict,
            exit_code: summaries[at].exit_code,
            reason: summaries[at].verdict_reason.clone(),
        };
        Round { seed, old: side(0), new: side(1), used }
    }

    fn decide(
        &self,
        tally: &Tally,
        metrics: Vec<Metric>,
        rounds: Vec<Round>,
        remarks: Vec<String>,
        started: Instant,
    ) -> Report {
        let scenario = &self.loaded.scenario;
        let gate = &scenario.gate;
        let (counted, mut notices) = place::counted(&tally.counts, &gate.effect);
        let mut findings = place::findings(&metrics, &tally.counts, &counted);
        findings.extend(counted);
        findings.sort_by(|a, b| b.severity.total_cmp(&a.severity));
        notices.extend(
            metrics.iter().filter(|m| m.judged == Judged::Better).map(|m| format!("better: {}", place::sentence(m))),
        );
        notices.extend(remarks);
        let standing = tally.standing(&metrics, findings.iter().any(|f| f.step.is_none() && f.phase.is_none()), gate);
        let (decision, reason) = verdict(&rounds, standing, &findings, &metrics);
        let missed = rounds.iter().any(|round| round.used && round.new.exit_code == exit::SLO_MISSED);
        let judgement = Judgement { decision, reason, findings, notices, metrics, rounds, missed };
        Report::new(scenario, self.builds.clone(), judgement, started)
    }
}

/// What it comes to, invariants first.
fn verdict(rounds: &[Round], standing: Standing, findings: &[Finding], metrics: &[Metric]) -> (Decision, String) {
    let sides = || rounds.iter().flat_map(|round| [("new", &round.new), ("old", &round.old)]);
    if let Some((side, run)) = sides().find(|(_, run)| run.verdict == Verdict::Fail) {
        return (
            Decision::Violated,
            format!("the {side} side violates an invariant, whatever its speed: {}", run.reason),
        );
    }
    let used = rounds.iter().filter(|round| round.used).count();
    if used < 2 {
        let reason = format!(
            "{used} of {} rounds can be trusted, and it takes two: the machine is too busy, or a side failed",
            rounds.len()
        );
        return (Decision::Unknown, reason);
    }
    match (standing, findings.first()) {
        (Standing::Worse, Some(first)) => (Decision::Regression, format!("{}; {}", first.what, first.r#where)),
        (Standing::Same, _) => {
            let judged = metrics.iter().filter(|metric| metric.judged != Judged::TooFew).count();
            (Decision::Same, format!("none of {judged} metrics is worse by as much as matters, after {used} rounds"))
        }
        _ => {
            let open: Vec<String> =
                metrics.iter().filter(|metric| metric.judged == Judged::Undecided).map(place::sentence).collect();
            let reason = format!(
                "after {used} rounds nothing is certainly worse, and of {} metrics it is not certain that they are not: {}",
                open.len(),
                open.first().map_or("", String::as_str)
            );
            (Decision::Undecided, reason)
        }
    }
}

/// What a run's verdict rests on, where that is less than everything.
fn remember(remarks: &mut Vec<String>, summaries: &[Summary; 2]) {
    for (summary, side) in summaries.iter().zip(NAMES) {
        if summary.verdict == Verdict::Unknown && summary.distrust.is_empty() {
            let remark = format!("the {side} side's invariants were not all judged: {}", summary.verdict_reason);
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
}

fn progress(number: u32, most: u32, used: bool, metrics: &[Metric], started: Instant) -> String {
    let count = |judged: Judged| metrics.iter().filter(|metric| metric.judged == judged).count();
    let left_out = if used { "" } else { ", left out: its measurement is not to be trusted" };
    format!(
        "[{:5.1}s] round {number} of {most} at most{left_out}: {} metrics worse, {} not, {} open, {} with too few samples",
        started.elapsed().as_secs_f64(),
        count(Judged::Worse),
        count(Judged::Same) + count(Judged::Better),
        count(Judged::Undecided),
        count(Judged::TooFew),
    )
}

/// Writes the result with its reports.
///
/// # Errors
/// A file cannot be written.
pub fn save(folder: &Path, report: &Report) -> Result<(), GateError> {
    let (text, junit) = (super::outputs::markdown(report).into_bytes(), super::outputs::junit(report));
    Ok(KEPT.write(folder, report, &[("gate.md", text), ("junit.xml", junit)])?)
}
