//! What the probes of a capacity search say, as the model needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::RngExt;

use super::ForecastError;
use super::model::{Latencies, Limit, Point, StepSeen};
use crate::capacity::probe::{Outcome, Probe};
use crate::capacity::{self, Found, Report, SweepReport};
use crate::history::{HARNESS_ROLES, Role};
use crate::measure::line::{self, Line};
use crate::summary::{LatencyStats, Series, Summary};
use crate::{judge, random, scenario};

/// Probes whose rates differ by no more than this, as a share, are one point.
const ONE_POINT: f64 = 0.05;
/// Up to such a share of the capacity, predictions of TP99 are judged; closer to it, chance decides.
const BELOW: f64 = 0.95;
/// Of the processors of a machine, so much is work; the rest goes to interrupts and switching.
pub const WORK: f64 = 0.85;
/// Fewer sessions than these, in the mean, say nothing of a lock.
const FEW_SESSIONS: f64 = 0.2;

/// Everything that a plan is made of.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The report of the search.
    pub report: Report,
    /// What it found.
    pub found: Found,
    /// Its trusted probes as points, by their rate.
    pub points: Vec<Point>,
    /// CPU-seconds against arrivals, by role, the harness's own roles included.
    pub cpu: BTreeMap<String, Line>,
    /// Which kind of resource gives out first.
    pub limit: Limit,
    /// Its name, if one was seen.
    pub resource: Option<String>,
    /// The most committed orders per second at a rate that holds.
    pub orders_held: f64,
    /// So many orders per second the item's row would take, by the sessions that waited for it.
    pub row_orders: Option<f64>,
    /// Units paid for, for each committed order; none where nobody pays.
    pub paid: Option<f64>,
}

impl Evidence {
    /// Roles that a plan has nodes for.
    pub fn roles(&self) -> impl Iterator<Item = (&String, &Line)> {
        self.cpu.iter().filter(|(role, _)| !HARNESS_ROLES.contains(&role.as_str()))
    }
}

/// Reads the folder that `seckill capacity` made.
///
/// # Errors
/// It is none, holds a sweep, or has too few probes that can be trusted.
pub fn read(folder: &Path) -> Result<Evidence, ForecastError> {
    let report: Report = capacity::KEPT.read(folder)?.ok_or_else(|| ForecastError::NoCapacity(folder.to_owned()))?;
    let Some(found) = report.found else { return Err(ForecastError::Sweep(folder.to_owned())) };
    let trusted: Vec<&Probe> =
        report.probes.iter().filter(|probe| matches!(probe.outcome, Outcome::Holds | Outcome::Fails)).collect();
    let mut seen: Vec<(&Probe, Summary)> = Vec::new();
    for probe in trusted {
        seen.push((probe, judge::read_summary(&folder.join(&probe.folder))?));
    }
    seen.sort_by(|a, b| a.0.rate.total_cmp(&b.0.rate));
    let Some((first, _)) = seen.first() else {
        return Err(ForecastError::TooFew { folder: folder.to_owned(), points: 0 });
    };
    let ordering = ordering_steps(&folder.join(&first.folder).join("scenario.toml"))?;
    let mut groups: Vec<Vec<&(&Probe, Summary)>> = Vec::new();
    for one in &seen {
        match groups.last_mut() {
            Some(group) if one.0.rate <= group[0].0.rate * (1.0 + ONE_POINT) => group.push(one),
            _ => groups.push(vec![one]),
        }
    }
    let mut points: Vec<Point> = groups.iter().map(|group| point(group, &ordering, &found)).collect();
    // Too few samples tell nothing of a TP99, and least of all of the undisturbed one.
    points.retain(|point| point.steps.iter().any(|step| step.latency.p99_s.is_some()));
    if points.len() < 3 {
        return Err(ForecastError::TooFew { folder: folder.to_owned(), points: points.len() });
    }
    let resource = report.bottlenecks.first().map(|found| found.resource.clone());
    let limit = match resource.as_deref() {
        None | Some("processors" | "generator" | "virtual buyers") => Limit::Processors(report.machine.cpus as usize),
        Some(_) => Limit::Serial,
    };
    let held = seen.iter().filter(|(probe, _)| probe.holds());
    let orders: u64 = seen.iter().map(|(_, summary)| summary.goodput.committed_orders).sum();
    let paid: i64 = seen.iter().map(|(_, summary)| summary.goodput.units_sold).sum();
    let orders_held = held.map(|(_, summary)| summary.goodput.per_second).fold(0.0, f64::max);
    let (cpu, row_orders) = (demand(&seen), row_orders(&report.probes));
    let paid = (paid > 0 && orders > 0).then(|| (paid as f64 / orders as f64).min(1.0));
    Ok(Evidence { found, cpu, limit, resource, orders_held, row_orders, paid, points, report })
}

/// The steps that order.
fn ordering_steps(scenario: &Path) -> Result<BTreeSet<String>, ForecastError> {
    let loaded = scenario::load(scenario, &[], None)?;
    let steps = loaded.scenario.step.iter().filter(|(_, step)| step.get_ref().role == Role::Order);
    Ok(steps.map(|(name, _)| name.clone()).collect())
}

fn point(group: &[&(&Probe, Summary)], ordering: &BTreeSet<String>, found: &Found) -> Point {
    let count = group.len() as f64;
    let mean = |of: &dyn Fn(&(&Probe, Summary)) -> f64| group.iter().map(|one| of(one)).sum::<f64>() / count;
    let rate = mean(&|(probe, _)| probe.rate);
    let sent = |summary: &Summary| summary.load.sent.max(1) as f64;
    let summary = &group[0].1;
    let mut names = summary.latency.step_order.clone();
    if names.is_empty() {
        names = summary.latency.steps.keys().cloned().collect();
    }
    let step = |name: String| {
        let stats: Vec<&LatencyStats> = group.iter().filter_map(|(_, s)| s.latency.steps.get(&name)).collect();
        let times = mean(&|(_, s)| s.latency.steps.get(&name).map_or(0.0, |stats| stats.count as f64) / sent(s));
        StepSeen { order: ordering.contains(&name), latency: latencies(&stats), times, name }
    };
    Point {
        rate,
        arrivals: group.iter().map(|(probe, summary)| moments(&summary.series, probe.rate as u64)).collect(),
        steps: names.into_iter().map(step).collect(),
        orders: mean(&|(_, s)| s.goodput.committed_orders as f64 / sent(s)),
        goodput: mean(&|(_, s)| s.goodput.per_second),
        holds: rate <= BELOW * found.rate,
        probes: group.iter().map(|(probe, _)| probe.folder.clone()).collect(),
    }
}

/// The percentiles of several probes at one rate, in their geometric mean.
fn latencies(stats: &[&LatencyStats]) -> Latencies {
    let together = |of: &dyn Fn(&LatencyStats) -> Option<u64>| {
        let seen: Vec<f64> =
            stats.iter().filter_map(|stats| of(stats)).map(|us| (us.max(1) as f64 / 1e6).ln()).collect();
        (!seen.is_empty()).then(|| (seen.iter().sum::<f64>() / seen.len() as f64).exp())
    };
    let p99_s = together(&|stats| stats.us_p99);
    let quantiles = [
        (0.5, together(&|stats| stats.us_p50)),
        (0.9, together(&|stats| stats.us_p90)),
        (0.99, p99_s),
        (0.999, together(&|stats| stats.us_p999)),
    ];
    let exponent = |q: f64| -(1.0 - q).ln();
    let mut knots: Vec<(f64, f64)> = quantiles.into_iter().filter_map(|(q, s)| Some((exponent(q), s?))).collect();
    let samples = stats.iter().map(|stats| stats.count).min().unwrap_or(0).max(2) as f64;
    if let Some(max) =
        together(&|stats| Some(stats.us_max)).filter(|_| knots.last().is_some_and(|l| samples.ln() > l.0))
    {
        knots.push((samples.ln(), max));
    }
    // Means of percentiles of different probes may cross.
    for index in 1..knots.len() {
        knots[index].1 = knots[index].1.max(knots[index - 1].1);
    }
    let mean_s = stats.iter().map(|stats| stats.us_mean).sum::<f64>() / stats.len().max(1) as f64 / 1e6;
    Latencies { knots, p99_s, mean_s }
}

/// Moments of arrival: as many in each bin as were planned in it, and there by chance.
fn moments(series: &Series, seed: u64) -> Vec<f64> {
    let mut rng = random::stream(seed, 3);
    let width = series.bin_us as f64 / 1e6;
    let mut out = Vec::new();
    for (bin, count) in series.planned.iter().enumerate() {
        out.extend((0..*count).map(|_| (bin as f64 + rng.random::<f64>()) * width));
    }
    out.sort_by(f64::total_cmp);
    out
}

/// CPU-seconds of each role against arrivals.
fn demand(seen: &[(&Probe, Summary)]) -> BTreeMap<String, Line> {
    let roles: BTreeSet<&String> = seen.iter().flat_map(|(_, summary)| summary.cost.cpu_s.keys()).collect();
    let line = |role: &String| {
        let at = |summary: &Summary| Some((summary.load.sent as f64, *summary.cost.cpu_s.get(role)?));
        line::fit(&seen.iter().filter_map(|(_, summary)| at(summary)).collect::<Vec<_>>())
    };
    roles.into_iter().filter_map(|role| Some((role.clone(), line(role)?))).collect()
}

/// How many orders per second a row takes, by how many sessions waited for its lock at the highest rate that holds:
/// of a single server of which the share ρ is in use, ρ² / (1 − ρ) wait in the mean.
fn row_orders(probes: &[Probe]) -> Option<f64> {
    let probe = probes.iter().filter(|probe| probe.holds()).max_by(|a, b| a.rate.total_cmp(&b.rate))?;
    let waiting = probe.waits.values().filter_map(|waits| waits.get("lock")).copied().fold(0.0, f64::max);
    let used = (-waiting + (waiting * waiting + 4.0 * waiting).sqrt()) / 2.0;
    (waiting >= FEW_SESSIONS).then(|| probe.orders_per_second / used)
}

/// What a sweep of more of something says, from the folder that it was kept in.
///
/// # Errors
/// There is none, or no law fits it.
pub fn sweep(folder: &Path) -> Result<SweepReport, ForecastError> {
    let report: Report = capacity::KEPT.read(folder)?.ok_or_else(|| ForecastError::NoCapacity(folder.to_owned()))?;
    report.sweep.filter(|sweep| sweep.law.is_some()).ok_or_else(|| ForecastError::NoSweep(folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_as_many_as_were_planned_and_in_order() {
        let series = Series { bin_us: 100_000, planned: vec![0, 3, 0, 500], ..Series::default() };
        let seen = moments(&series, 1);
        assert_eq!(seen.len(), 503);
        assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(seen[2] < 0.2 && seen[3] >= 0.3 && seen[502] < 0.4, "{seen:?}");
    }

    #[test]
    fn percentiles_of_several_probes_are_put_together() {
        let stats = |p99| LatencyStats {
            count: 5_000,
            us_p50: Some(1_000),
            us_p99: Some(p99),
            us_max: 50_000,
            ..Default::default()
        };
        let (a, b) = (stats(4_000), stats(9_000));
        let both = latencies(&[&a, &b]);
        assert!((both.p99_s.unwrap() - 0.006).abs() < 1e-6, "{both:?}");
        assert_eq!(both.knots.len(), 3, "the median, TP99 and the largest");
        assert_eq!(latencies(&[]).p99_s, None);
    }
}
