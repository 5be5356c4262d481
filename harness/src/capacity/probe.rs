//! A probe: one rehearsal at one scale, and whether everything held.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::most_in_a_second;
use crate::check::{Finding, Verdict};
use crate::exit;
use crate::summary::{Series, SloResult, Summary};

/// So large a share of the arrivals may be dropped. Who never got a connection is in no percentile.
const MOST_DROPPED: f64 = 0.001;

/// What a probe came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All objectives and all invariants held.
    Holds,
    /// An objective was missed, or arrivals were dropped.
    Fails,
    /// An invariant was violated.
    Violates,
    /// The harness distrusts its own measurement.
    Distrusted,
}

/// One rehearsal at one scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// `load.scale`.
    pub scale: f64,
    /// Planned arrivals per second in the busiest second, by the scenario's plan.
    pub rate: f64,
    /// What it came to.
    pub outcome: Outcome,
    /// Why it does not hold.
    pub why: Vec<String>,
    /// Requests answered per second over the whole load.
    pub requests_per_second: f64,
    /// The highest number answered in any whole second.
    pub served_peak: f64,
    /// Requests that would have come in the busiest second, had each arrival made as many at once as they did on average.
    pub offered_peak: f64,
    /// Committed orders per second.
    pub orders_per_second: f64,
    /// The 99th percentile of the slowest step, in microseconds.
    pub us_p99: Option<u64>,
    /// The 99.9th percentile of the slowest step, in microseconds.
    pub us_p999: Option<u64>,
    /// The mean latency over all steps, in microseconds.
    pub us_mean: f64,
    /// Requests under way at once in the mean, by Little's law.
    pub concurrency: f64,
    /// The share of arrivals that were dropped.
    pub dropped: f64,
    /// Processors in use by role, in its busiest second.
    pub cores: BTreeMap<String, f64>,
    /// By database: its sessions at work in their busiest second, by what they waited for.
    pub waits: BTreeMap<String, BTreeMap<String, f64>>,
    /// Most virtual buyers busy at once, and how many there are.
    pub buyers: [u64; 2],
    /// CPU-seconds of the generator.
    pub generator_cpu_s: f64,
    /// Requests that it made for them.
    pub requests: u64,
    /// Invariants that could not be judged.
    pub unjudged: Vec<String>,
    /// Its folder beside the report.
    pub folder: String,
    /// The exit code of its run.
    pub exit_code: i32,
    /// How long it took, in seconds.
    pub took_s: f64,
}

impl Probe {
    /// Reads what a run came to. `base_rate` are the arrivals per second of the busiest second at scale 1.
    pub fn of(summary: &Summary, scale: f64, base_rate: f64, folder: String, took_s: f64) -> Probe {
        let load = &summary.load;
        let dropped = load.dropped as f64 / load.planned.max(1) as f64;
        let told = Told { exit_code: summary.exit_code, invariants: &summary.invariants, slos: &summary.slos };
        let (outcome, why) = told.judge(&summary.distrust, dropped);
        let (mut answered, mut total_us) = (0u64, 0.0);
        for stats in summary.latency.steps.values() {
            answered += stats.count;
            total_us += stats.us_mean * stats.count as f64;
        }
        let seconds = loaded_s(&summary.series);
        let slowest =
            |of: fn(&crate::summary::LatencyStats) -> Option<u64>| summary.latency.steps.values().filter_map(of).max();
        Probe {
            scale,
            rate: base_rate * scale,
            outcome,
            why,
            requests_per_second: answered as f64 / seconds,
            served_peak: served_peak(&summary.series),
            offered_peak: base_rate * scale * load.requests as f64 / load.sent.max(1) as f64,
            orders_per_second: summary.goodput.per_second,
            us_p99: slowest(|stats| stats.us_p99),
            us_p999: slowest(|stats| stats.us_p999),
            us_mean: total_us / answered.max(1) as f64,
            concurrency: total_us / 1e6 / seconds,
            dropped,
            cores: summary.cost.cores_peak.clone(),
            waits: summary.cost.waits.clone(),
            buyers: [load.busy_max, load.buyers],
            unjudged: told.ids(Verdict::Unknown),
            generator_cpu_s: summary.cost.cpu_s.get("generator").copied().unwrap_or(0.0),
            requests: load.requests,
            folder,
            exit_code: summary.exit_code,
            took_s,
        }
    }

    /// Whether it speaks for this scale.
    pub fn holds(&self) -> bool {
        self.outcome == Outcome::Holds
    }
}

/// What a summary says about whether everything held.
struct Told<'a> {
    exit_code: i32,
    invariants: &'a [Finding],
    slos: &'a [SloResult],
}

impl Told<'_> {
    fn judge(&self, distrust: &[String], dropped: f64) -> (Outcome, Vec<String>) {
        let violated = self.findings(Verdict::Fail);
        if self.exit_code == exit::VIOLATED || !violated.is_empty() {
            return (Outcome::Violates, violated);
        }
        let mut missed = self.objectives(Some(false));
        if dropped > MOST_DROPPED {
            missed.push(format!("{:.1}% of the arrivals were dropped (0.1% is allowed)", dropped * 100.0));
        }
        if !distrust.is_empty() {
            return (Outcome::Distrusted, distrust.iter().cloned().chain(missed).collect());
        }
        if !missed.is_empty() {
            return (Outcome::Fails, missed);
        }
        let untold = self.objectives(None);
        // An invariant that cannot be judged, for want of an audit for instance, is so at every rate.
        if untold.is_empty() { (Outcome::Holds, untold) } else { (Outcome::Distrusted, untold) }
    }

    fn ids(&self, verdict: Verdict) -> Vec<String> {
        let found = self.invariants.iter().filter(|finding| finding.verdict == verdict);
        found.map(|finding| finding.id.clone()).collect()
    }

    fn findings(&self, verdict: Verdict) -> Vec<String> {
        let found = self.invariants.iter().filter(|finding| finding.verdict == verdict);
        found.map(|finding| format!("{}: {}", finding.id, finding.detail)).collect()
    }

    fn objectives(&self, met: Option<bool>) -> Vec<String> {
        let found = self.slos.iter().filter(|slo| slo.met == met);
        found.map(|slo| format!("{}: {}", slo.name, slo.measured)).collect()
    }
}

/// Seconds from the first planned arrival to the last reply.
fn loaded_s(series: &Series) -> f64 {
    let first = series.planned.iter().position(|n| *n > 0).unwrap_or(0) as f64 * series.bin_us as f64;
    let answered = series.ok.iter().zip(&series.fail).rposition(|(ok, fail)| ok + fail > 0).map_or(0, |bin| bin + 1);
    let last = answered as f64 * series.latency_bin_us as f64;
    ((last - first) / 1e6).max(0.1)
}

/// The most ops that were answered in any second: what the service can do, if it had more to do than that.
fn served_peak(series: &Series) -> f64 {
    let answered: Vec<u32> = series.ok.iter().zip(&series.fail).map(|(ok, fail)| ok + fail).collect();
    most_in_a_second(&answered, series.latency_bin_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slo(met: Option<bool>) -> SloResult {
        SloResult { name: "order p99 <= 50 ms".into(), met, measured: "80 ms".into() }
    }

    fn finding(verdict: Verdict) -> Finding {
        Finding { id: "I1".into(), name: "no oversell".into(), verdict, detail: "3 too many".into(), witness: vec![] }
    }

    #[test]
    fn what_a_service_came_to_is_told_from_what_the_measurement_came_to() {
        let judge = |exit_code, invariants: &[Finding], slos: &[SloResult], distrust: &[String], dropped| {
            Told { exit_code, invariants, slos }.judge(distrust, dropped)
        };
        let late = ["the generator was late".to_owned()];
        let missed = [slo(Some(true)), slo(Some(false))];
        let oversold = [finding(Verdict::Pass), finding(Verdict::Fail)];
        assert_eq!(judge(exit::PASS, &[], &[slo(Some(true))], &[], 0.0).0, Outcome::Holds);
        assert_eq!(judge(exit::PASS, &[], &[], &[], 0.01).0, Outcome::Fails, "who is dropped is in no percentile");
        let fails = (Outcome::Fails, vec!["order p99 <= 50 ms: 80 ms".to_owned()]);
        assert_eq!(judge(exit::SLO_MISSED, &[], &missed, &[], 0.0), fails);
        let (outcome, _) = judge(exit::UNKNOWN, &[], &missed, &late, 0.0);
        assert_eq!(outcome, Outcome::Distrusted, "a late generator misses every objective");
        let violates = (Outcome::Violates, vec!["I1: 3 too many".to_owned()]);
        assert_eq!(judge(exit::VIOLATED, &oversold, &missed, &late, 0.5), violates, "however late the generator is");
        assert_eq!(judge(exit::UNKNOWN, &[], &[slo(None)], &[], 0.0).0, Outcome::Distrusted, "too few samples");
        let unaudited = [finding(Verdict::Unknown)];
        assert_eq!(
            judge(exit::UNKNOWN, &unaudited, &[slo(Some(true))], &[], 0.0).0,
            Outcome::Holds,
            "nobody can judge it"
        );
    }

    #[test]
    fn the_busiest_second_and_the_loaded_time_come_from_the_series() {
        let series = Series {
            bin_us: 100_000,
            planned: [vec![0; 10], vec![5; 20]].concat(),
            latency_bin_us: 250_000,
            ok: vec![0, 0, 0, 0, 10, 20, 20, 20, 20, 10, 0, 0],
            fail: vec![0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0],
            ..Series::default()
        };
        assert_eq!(served_peak(&series), 85.0);
        assert!((loaded_s(&series) - 1.5).abs() < 1e-9, "{}", loaded_s(&series));
    }
}
