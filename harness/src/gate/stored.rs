//! The gate against a stored baseline: the scenario is run a few times now, and held against what was kept.
//!
//! Nothing cancels the machine's mood here: the baseline was measured at another hour, maybe on another machine. So this is the coarser
//! of the two gates. Its intervals are those of sampling and of the spread of the runs, widened for the family of metrics
//! (Bonferroni), and a figure is accused only beyond `drift`, by which a machine may have changed since. The number of runs is
//! fixed beforehand, so there is nothing to peek at. On another machine, times and processor seconds are not judged at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use statrs::distribution::{ContinuousCDF, Normal};
use tokio_util::sync::CancellationToken;

use super::{
    Build, Decision, Finding, GateError, Judged, Judgement, KEPT, Metric, Report, Round, SideRun, duet, place,
};
use crate::baseline::diff::{self, Row};
use crate::baseline::{self, Baseline};
use crate::campaign::{self, Job, Manner};
use crate::check::Verdict;
use crate::exit;
use crate::scenario::gate::{Effects, Gate};
use crate::scenario::{self, Loaded};

/// Runs that are held against the baseline unless told otherwise.
pub const RUNS: u32 = 3;
/// What a run may take beside its load.
const LONGEST: Duration = Duration::from_secs(300);

/// What the gate against a baseline needs to know.
pub struct Stored<'a> {
    /// The scenario.
    pub loaded: &'a Loaded,
    /// The new build.
    pub build: Build,
    /// The variant of the scenario that it is, if it is one.
    pub variant: Option<String>,
    /// Settings of both.
    pub set: &'a [String],
    /// The baseline.
    pub baseline: Baseline,
    /// Runs to be made.
    pub runs: u32,
    /// Where everything is written.
    pub folder: &'a Path,
    /// What people are told meanwhile.
    pub say: &'a (dyn Fn(&str) + Sync),
}

impl Stored<'_> {
    /// Makes the runs, decides, and writes `gate.json`.
    ///
    /// # Errors
    /// Nothing was decided.
    pub async fn run(&self, cancel: &CancellationToken) -> Result<Report, GateError> {
        let started = Instant::now();
        KEPT.make(self.folder)?;
        let folders = self.make(cancel).await?;
        let rounds = rounds(&folders);
        let usable: Vec<PathBuf> =
            rounds.iter().zip(&folders).filter(|(round, _)| round.used).map(|(_, folder)| folder.clone()).collect();
        let violated =
            rounds.iter().find(|round| round.new.verdict == Verdict::Fail).map(|round| round.new.reason.clone());
        let (mut metrics, mut findings, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        if violated.is_none() && !usable.is_empty() {
            let new = baseline::of_runs(&usable, Some("now"))?;
            let (old, gate) = (&self.baseline, &self.loaded.scenario.gate);
            notices.extend(diff::caveats(old, &new));
            metrics =
                judge(&diff::rows(old, &new), gate, !baseline::same_machine(&old.machine, &new.machine).is_empty());
            findings = found(&metrics, &diff::topology(old, &new), &mut notices);
        }
        let (decision, reason) = match violated {
            Some(why) => (Decision::Violated, format!("an invariant is violated, whatever the speed: {why}")),
            None if usable.is_empty() => (Decision::Unknown, "none of the runs can be trusted".to_owned()),
            None => decide(&metrics, &findings),
        };
        let missed = rounds.iter().any(|round| round.new.exit_code == exit::SLO_MISSED);
        let judgement = Judgement { decision, reason, findings, notices, metrics, rounds, missed };
        let baseline = Build { name: format!("baseline {}", self.baseline.name), set: Vec::new() };
        let made = Report::new(&self.loaded.scenario, [baseline, self.build.clone()], judgement, started);
        // One build alone takes no turns.
        let report = Report { rounds_at_most: self.runs, turn_ms: 0.0, ..made };
        duet::save(self.folder, &report)?;
        Ok(report)
    }

    async fn make(&self, cancel: &CancellationToken) -> Result<Vec<PathBuf>, GateError> {
        let jobs: Vec<Job> = (0..self.runs)
            .map(|n| Job {
                of: n as usize,
                scenario: self.loaded.path.clone(),
                variant: self.variant.clone(),
                seed: self.loaded.scenario.seed + u64::from(n),
                set: self.set.iter().chain(&self.build.set).cloned().collect(),
                folder: self.folder.join(format!("run-{}", n + 1)),
            })
            .collect();
        let folders = jobs.iter().map(|job| job.folder.clone()).collect();
        let manner = Manner { at_once: 1, repeats: 2, longest: LONGEST + 4 * self.loaded.scenario.load.duration.0 };
        let mut ended = campaign::start(jobs, manner, cancel);
        while let Some(run) = ended.recv().await {
            let what = run.result.as_ref().map_or_else(Clone::clone, |summary| summary.verdict.name().to_owned());
            (self.say)(&format!("run {} of {}: {what} ({:.0} s)", run.job.of + 1, self.runs, run.took.as_secs_f64()));
        }
        if cancel.is_cancelled() {
            return Err(GateError::Interrupted(self.folder.to_owned()));
        }
        Ok(folders)
    }
}

/// What the runs came to. There is no old side but the baseline, whose runs had passed.
fn rounds(folders: &[PathBuf]) -> Vec<Round> {
    let kept = SideRun {
        folder: String::new(),
        verdict: Verdict::Pass,
        exit_code: exit::PASS,
        reason: "as it was saved".to_owned(),
    };
    let one = |folder: &PathBuf| {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match crate::judge::read_summary(folder) {
            Ok(summary) => Round {
                seed: summary.seed,
                old: kept.clone(),
                used: summary.verdict != Verdict::Fail && !summary.partial && summary.distrust.is_empty(),
                new: SideRun {
                    folder: name,
                    verdict: summary.verdict,
                    exit_code: summary.exit_code,
                    reason: summary.verdict_reason,
                },
            },
            Err(error) => {
                let new = SideRun {
                    folder: name,
                    verdict: Verdict::Unknown,
                    exit_code: exit::UNKNOWN,
                    reason: error.to_string(),
                };
                Round { seed: 0, old: kept.clone(), new, used: false }
            }
        }
    };
    folders.iter().map(one).collect()
}

/// The effect of a figure, whether more of it is better, and whether it is a matter of time.
fn kind(name: &str, effects: &Effects) -> Option<(f64, bool, bool)> {
    Some(match name {
        "us_p50" => (effects.us_p50, false, true),
        "us_p99" => (effects.us_p99, false, true),
        "us_p999" => (effects.us_p999, false, true),
        "orders_per_second" => (effects.orders_per_second, true, true),
        "cpu_s_per_1000_orders" => (effects.cpu, false, true),
        "wal_bytes_per_1000_orders" => (effects.bytes, false, false),
        // A peak of memory says nothing per order unless as many orders are made; it is shown by `baseline diff`.
        _ => return None,
    })
}

fn judge(rows: &[Row], gate: &Gate, other_machine: bool) -> Vec<Metric> {
    let judged: Vec<(&Row, (f64, bool, bool))> = rows
        .iter()
        .filter(|row| !["harness", "generator", "proxy"].contains(&row.of.as_str()))
        .filter_map(|row| Some((row, kind(&row.name, &gate.effect)?)))
        .collect();
    let family = judged.len().max(1) as f64;
    // Intervals of 95% become such of 1 - α over the whole family.
    let normal = Normal::standard();
    let wider = normal.inverse_cdf(1.0 - gate.alpha / family / 2.0) / normal.inverse_cdf(0.975);
    judged.into_iter().map(|(row, kind)| one(row, kind, gate, wider, other_machine)).collect()
}

fn one(
    row: &Row,
    (effect, more_is_better, is_time): (f64, bool, bool),
    gate: &Gate,
    wider: f64,
    other_machine: bool,
) -> Metric {
    let is_latency = row.name.starts_with("us_");
    let mut metric = Metric {
        name: row.name.clone(),
        phase: row.phase.clone(),
        step: is_latency.then(|| row.of.clone()),
        role: (!is_latency && row.of != "orders").then(|| row.of.clone()),
        old: row.old.value,
        new: row.new.value,
        worse_by: None,
        interval: None,
        pairs: 0,
        samples: row.old.count.min(row.new.count).unwrap_or(0),
        effect,
        log10_evidence: 0.0,
        judged: Judged::TooFew,
        missing: None,
    };
    if is_time && other_machine {
        metric.missing = Some("it was measured on another machine".to_owned());
        return metric;
    }
    let figures = row.old.value.zip(row.new.value).filter(|(old, new)| *old > 0.0 && *new > 0.0);
    let Some((old, new)) = figures else {
        metric.missing = Some("there are not enough samples on both sides".to_owned());
        return metric;
    };
    let sign = if more_is_better { -1.0 } else { 1.0 };
    let difference = sign * (new / old).ln();
    // Half the width of either interval on the logarithmic scale; a figure of one run without an interval has no doubt to offer.
    let half =
        |value: &diff::Value| value.interval.filter(|[low, _]| *low > 0.0).map(|[low, high]| (high / low).ln() / 2.0);
    let (Some(a), Some(b)) = (half(&row.old), half(&row.new)) else {
        metric.missing = Some("one run has no spread: save several in the baseline".to_owned());
        return metric;
    };
    let doubt = a.hypot(b) * wider;
    metric.worse_by = Some(difference.exp_m1());
    metric.interval = Some([(difference - doubt).exp_m1(), (difference + doubt).exp_m1()]);
    let drift = if is_time { gate.drift.ln_1p() } else { 0.0 };
    metric.judged = if difference - doubt > drift.max(effect.ln_1p()) {
        Judged::Worse
    } else if difference + doubt < -drift.max(effect.ln_1p()) {
        Judged::Better
    } else if difference + doubt < effect.ln_1p() {
        Judged::Same
    } else {
        Judged::Undecided
    };
    metric
}

/// What is worse: metrics, hops and calls.
fn found(metrics: &[Metric], topology: &[String], notices: &mut Vec<String>) -> Vec<Finding> {
    let mut findings = place::findings(metrics, &[], &[]);
    for said in topology {
        if diff::is_more(said) {
            let hop = said
                .split_whitespace()
                .find(|word| word.contains('→'))
                .map(|word| word.trim_matches([',', ':']).to_owned());
            findings.push(Finding {
                what: said.clone(),
                r#where: hop.as_ref().map_or(String::new(), |hop| format!("hop {hop}")),
                metric: "calls".to_owned(),
                step: None,
                phase: None,
                hop,
                resource: Some("calls".to_owned()),
                severity: 2.0,
            });
        } else {
            notices.push(said.clone());
        }
    }
    notices.extend(
        metrics.iter().filter(|m| m.judged == Judged::Better).map(|m| format!("better: {}", place::sentence(m))),
    );
    findings.sort_by(|a, b| b.severity.total_cmp(&a.severity));
    findings
}

fn decide(metrics: &[Metric], findings: &[Finding]) -> (Decision, String) {
    let count = |judged: Judged| metrics.iter().filter(|metric| metric.judged == judged).count();
    if let Some(first) = findings.first() {
        return (Decision::Regression, format!("{}; {}", first.what, first.r#where));
    }
    let (open, unjudged) = (count(Judged::Undecided), count(Judged::TooFew));
    if open == 0 && unjudged < metrics.len() {
        return (
            Decision::Same,
            format!("none of {} metrics that could be judged is worse by as much as matters", metrics.len() - unjudged),
        );
    }
    let advice = "a duet (--old, --new) tells more, since the machine's mood cancels in it";
    (
        Decision::Undecided,
        format!("nothing is certainly worse; {open} metrics are open and {unjudged} could not be judged; {advice}"),
    )
}

/// Whether a baseline is of the scenario as it is now: of another one, nothing can be judged.
///
/// # Errors
/// It is of another one, with the remedy.
pub fn fits(baseline: &Baseline, loaded: &Loaded) -> Result<(), GateError> {
    let hash = scenario::fingerprint_of(&loaded.resolved, &loaded.path)?;
    if baseline.scenario_hash == hash {
        return Ok(());
    }
    let what = format!(
        "it is of scenario {} with the hash {}, and {} has the hash {hash}",
        baseline.scenario,
        baseline.scenario_hash,
        loaded.path.display()
    );
    let help =
        "give the settings by --set that it was saved with, or save it anew from a run of this scenario".to_owned();
    Err(baseline::BaselineError::Unfit { path: baseline::path_of(&baseline.name), what, help }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::diff::Value;

    fn row(name: &str, old: f64, new: f64, doubt: f64) -> Row {
        let value = |value: f64| Value {
            value: Some(value),
            interval: Some([value * (1.0 - doubt), value * (1.0 + doubt)]),
            count: Some(9_000),
        };
        Row {
            name: name.into(),
            of: "order".into(),
            phase: Some("rush".into()),
            old: value(old),
            new: value(new),
            change: None,
            certain: None,
        }
    }

    fn judged(row: Row, other_machine: bool) -> Judged {
        judge(&[row], &Gate::default(), other_machine)[0].judged
    }

    #[test]
    fn what_is_beyond_drift_and_doubt_is_worse() {
        assert_eq!(judged(row("us_p99", 20_000.0, 26_000.0, 0.02), false), Judged::Worse);
        assert_eq!(
            judged(row("us_p99", 20_000.0, 22_500.0, 0.005), false),
            Judged::Undecided,
            "a machine may have drifted by that"
        );
        assert_eq!(judged(row("us_p99", 20_000.0, 26_000.0, 0.2), false), Judged::Undecided);
        assert_eq!(judged(row("us_p99", 20_000.0, 20_100.0, 0.02), false), Judged::Same);
        assert_eq!(judged(row("orders_per_second", 500.0, 350.0, 0.02), false), Judged::Worse);
        assert_eq!(judged(row("orders_per_second", 350.0, 500.0, 0.02), false), Judged::Better);
    }

    #[test]
    fn on_another_machine_only_what_is_no_matter_of_time_is_judged() {
        assert_eq!(judged(row("us_p99", 20_000.0, 90_000.0, 0.02), true), Judged::TooFew);
        assert_eq!(judged(row("wal_bytes_per_1000_orders", 300.0, 600.0, 0.02), true), Judged::Worse);
    }

    #[test]
    fn a_new_hop_is_a_regression_and_a_vanished_one_worth_reading() {
        let mut notices = Vec::new();
        let topology = [
            "new hop service→redis, with 1.00 calls for each journey".to_owned(),
            "vanished hop a→b, which had 1.00 calls".to_owned(),
        ];
        let findings = found(&[], &topology, &mut notices);
        assert_eq!((findings.len(), findings[0].hop.as_deref()), (1, Some("service→redis")));
        assert_eq!(notices.len(), 1);
        assert_eq!(decide(&[], &findings).0, Decision::Regression);
    }
}
