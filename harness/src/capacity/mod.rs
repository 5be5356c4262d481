//! How much a shop can take: the highest rate at which every objective and every invariant holds, what gives out first, and
//! how throughput grows with more of something.
//!
//! Each probe is a rehearsal of the scenario with another `load.scale`, a process of its own ([`campaign`]). Which is next
//! is [`search`]'s business; what a run came to is [`probe`]'s. Nothing here knows how load is made.

pub mod bottleneck;
pub mod probe;
pub mod search;
pub mod usl;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::campaign::{self, Job, Manner};
use crate::exit;
use crate::history::{Machine, Micros};
use crate::kept::{Kept, KeptError};
use crate::measure::series::bins;
use crate::report::{self, ReportError};
use crate::scenario::{Loaded, Target};
use bottleneck::Bottleneck;
use probe::{Outcome, Probe};
use search::Search;
use usl::Law;

/// The file in which a report is kept, beside the folders of its probes.
pub const FILE: &str = "capacity.json";
/// How it is kept.
pub const KEPT: Kept = Kept { file: FILE, maker: "seckill capacity" };

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    /// Overrides of the scenario.
    pub set: Vec<String>,
    /// The lowest and the highest `load.scale` that is looked at.
    pub between: [f64; 2],
    /// Probes at most.
    pub probes: u32,
    /// Time at most; a probe that is under way is not cut short.
    pub within: Duration,
    /// The half-width of the 95% interval, as a fraction, at which it is known well enough.
    pub precision: f64,
    /// Instead of the search: more of what, and how many of it.
    pub sweep: Option<Sweep>,
    /// Whether rates below the capacity are probed as well, which a forecast is fitted to and held against.
    pub ladder: bool,
}

/// A value of the scenario, and what it is set to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Its path, as with `--set`.
    pub path: String,
    /// Its values.
    pub values: Vec<u32>,
}

impl std::str::FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Sweep, String> {
        let usage = || "PATH=N,N,... with at least four different numbers, such as target.reference.pool=1,2,4,8,16";
        let (path, list) = text.split_once('=').ok_or_else(usage)?;
        let values: Result<Vec<u32>, _> = list.split(',').map(|value| value.trim().parse()).collect();
        let mut values = values.map_err(|_| usage())?;
        values.sort_unstable();
        values.dedup();
        if values.len() < 4 || values[0] == 0 || path.trim().is_empty() {
            return Err(usage().to_owned());
        }
        Ok(Sweep { path: path.trim().to_owned(), values })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this file's layout.
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's title, for people.
    pub title: String,
    /// Overrides of it.
    pub set: Vec<String>,
    /// Its seed.
    pub seed: u64,
    /// Planned arrivals per second in the busiest second, at scale 1.
    pub base_rate: f64,
    /// The scales between which was looked.
    pub between: [f64; 2],
    /// What was found; none of a sweep.
    pub found: Option<Found>,
    /// Every probe in the order in which it was made.
    pub probes: Vec<Probe>,
    /// The probe at which the most was done for the time it took; beyond it, waiting grows faster than work.
    pub knee: Option<Knee>,
    /// What was used up at the first rate that does not hold, the most telling first.
    pub bottlenecks: Vec<Bottleneck>,
    /// More of one thing, if that was asked for.
    pub sweep: Option<SweepReport>,
    /// Requests that the generator makes with one CPU-second, in the probe with the most of them.
    pub requests_per_generator_cpu_s: Option<f64>,
    /// How long all of it took, in seconds.
    pub took_s: f64,
    /// The exit code.
    pub exit_code: i32,
    /// The machine.
    pub machine: Machine,
}

/// The capacity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// How it is to be read.
    pub kind: Kind,
    /// The scale.
    pub scale: f64,
    /// Its 95% interval.
    pub scale_interval: [f64; 2],
    /// The rate: planned arrivals per second in the busiest second.
    pub rate: f64,
    /// Its 95% interval.
    pub rate_interval: [f64; 2],
    /// The highest rate of a probe that held; none if none did.
    pub highest_held: Option<f64>,
}

/// How the capacity is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It lies in the interval.
    Found,
    /// Even the highest rate held: it is that or more.
    AtLeast,
    /// Not even the lowest rate held: it is less.
    Below,
    /// Above what held, it was the harness that could not be trusted: it is what held, or more.
    GeneratorLimit,
}

/// The rate of best use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Knee {
    /// Planned arrivals per second in the busiest second.
    pub rate: f64,
    /// The mean latency there, in microseconds.
    pub us_mean: f64,
}

/// Throughput with more of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepReport {
    /// What there was more of.
    pub path: String,
    /// How many of it, and committed orders per second (answered requests per second where nothing is ordered).
    pub points: Vec<(u32, f64)>,
    /// The Universal Scalability Law that fits best.
    pub law: Option<Law>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    /// Nothing would ever fail.
    #[error(
        "{}: there is no [[slo]], so every rate would hold\nhelp: add a limit, such as [[slo]] step = \"order\", p99 = \"250ms\"",
        .0.display()
    )]
    NoObjective(PathBuf),
    /// Nobody comes.
    #[error("{}: its plan has no arrivals\nhelp: give a cohort `arrivals`", .0.display())]
    NoArrivals(PathBuf),
    /// No rate within the bounds gives enough samples.
    #[error(
        "{}: even at scale {high} there are too few arrivals to tell a percentile of its [[slo]] ({needed} samples needed, \
         {planned:.0} arrivals planned)\nhelp: let the arrivals last longer, or look higher with --to",
        path.display()
    )]
    TooFew {
        /// The scenario.
        path: PathBuf,
        /// The upper bound.
        high: f64,
        /// Samples.
        needed: u64,
        /// Arrivals at the upper bound.
        planned: f64,
    },
    /// The bounds are none.
    #[error("--from {} --to {}: scales are numbers above 0, the first below the second", .0[0], .0[1])]
    Bounds([f64; 2]),
    /// It cannot be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A probe gave no summary.
    #[error(
        "the probe at scale {scale} gave no verdict: {why}\nhelp: try it by itself: seckill run SCENARIO --set load.scale={scale}"
    )]
    Probe {
        /// Its scale.
        scale: f64,
        /// What was said.
        why: String,
    },
    /// A report cannot be rendered.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Interrupted.
    #[error("interrupted: the probes made so far are in {}", .0.display())]
    Interrupted(PathBuf),
}

/// Shares of the capacity that a ladder probes, each as often.
const LADDER: [f64; 6] = [0.25, 0.4, 0.55, 0.68, 0.8, 0.9];
/// How often.
const RUNGS: usize = 3;

/// A probe may be made again once if the harness distrusts its own measurement.
const REPEATS: u64 = 1;
/// Beside the load, a run provisions, drains, audits and judges.
const LONGEST_RUN: Duration = Duration::from_secs(300);

/// What all probes of a report share.
struct Probing<'a> {
    loaded: &'a Loaded,
    asked: &'a Asked,
    /// The scales between which probes are made.
    between: [f64; 2],
    folder: &'a Path,
    base_rate: f64,
    cancel: &'a CancellationToken,
}

/// Looks for the capacity, or sweeps, and writes the report into `folder`.
///
/// # Errors
/// There is nothing to look for, or a probe cannot be made.
pub async fn run(
    loaded: &Loaded,
    asked: &Asked,
    folder: &Path,
    say: impl Fn(&str),
    cancel: &CancellationToken,
) -> Result<Report, CapacityError> {
    let scenario = &loaded.scenario;
    if scenario.slo.is_empty() && asked.sweep.is_none() {
        return Err(CapacityError::NoObjective(loaded.path.clone()));
    }
    let [low, high] = asked.between;
    if !(low > 0.0 && low < high && high.is_finite()) {
        return Err(CapacityError::Bounds(asked.between));
    }
    let planned = bins(scenario.plan().map(|arrival| arrival.at_us), PLAN_BIN_US, 0);
    let base_rate = most_in_a_second(&planned, PLAN_BIN_US) / scenario.load.scale;
    if base_rate <= 0.0 {
        return Err(CapacityError::NoArrivals(loaded.path.clone()));
    }
    let low = match asked.sweep {
        Some(_) => low,
        None => enough_samples(loaded, planned.iter().map(|n| f64::from(*n)).sum(), [low, high])?,
    };
    if low > asked.between[0] {
        say(&format!(
            "below scale {low:.3} there are too few arrivals to tell a percentile: that is where the search begins"
        ));
    }
    KEPT.make(folder)?;
    let started = Instant::now();
    let probing = Probing { loaded, asked, between: [low, high], folder, base_rate, cancel };
    let (probes, found, sweep) = match &asked.sweep {
        Some(sweep) => {
            let (probes, report) = probing.sweep(sweep, &say).await?;
            (probes, None, Some(report))
        }
        None => {
            let (probes, found) = probing.search(started, &say).await?;
            (probes, Some(found), None)
        }
    };
    let report = probing.report(probes, found, sweep, started.elapsed());
    save(folder, &report)?;
    Ok(report)
}

impl Probing<'_> {
    async fn search(&self, started: Instant, say: &impl Fn(&str)) -> Result<(Vec<Probe>, Found), CapacityError> {
        let [low, high] = self.between;
        let mut search = Search::new(low, high);
        let mut probes: Vec<Probe> = Vec::new();
        // What the ladder takes is set aside for it.
        let after = if self.asked.ladder { (LADDER.len() * RUNGS) as f64 } else { 0.0 };
        while (probes.len() as u32) < self.asked.probes {
            if !self.time_for(started, &probes, 1.0 + after) {
                say("the time is up");
                break;
            }
            let scale = significant(search.next());
            let probe = self.probe(probes.len(), scale, &[]).await?;
            search.saw(scale, probe.holds());
            if let Some(hint) = hint(&probe) {
                search.hint(hint);
            }
            let estimate = search.estimate();
            say(&format!(
                "[{}] {:.0} arrivals/s (scale {scale}): {}; the capacity is {:.0} to {:.0} ({:.0} s)",
                probes.len() + 1,
                probe.rate,
                in_words(&probe),
                estimate.interval[0] * self.base_rate,
                estimate.interval[1] * self.base_rate,
                probe.took_s
            ));
            probes.push(probe);
            if known(&search, &probes, self.asked.precision) {
                break;
            }
        }
        let found = conclude(&search, &probes, self.base_rate);
        if self.asked.ladder {
            self.ladder(&found, started, &mut probes, say).await?;
        }
        Ok((probes, found))
    }

    /// Whether there is time for so many more probes.
    fn time_for(&self, started: Instant, probes: &[Probe], more: f64) -> bool {
        let longest = probes.iter().map(|probe| probe.took_s).fold(0.0, f64::max);
        started.elapsed().as_secs_f64() + longest * more <= self.asked.within.as_secs_f64()
    }

    /// Probes shares of what was found, all of them before any again: what the machine does meanwhile then hits all alike.
    async fn ladder(
        &self,
        found: &Found,
        started: Instant,
        probes: &mut Vec<Probe>,
        say: &impl Fn(&str),
    ) -> Result<(), CapacityError> {
        let scales = || LADDER.iter().map(|share| significant((share * found.scale).max(self.between[0])));
        for scale in (0..RUNGS).flat_map(|_| scales()) {
            if !self.time_for(started, probes, 1.0) {
                say("the time is up");
                break;
            }
            let probe = self.probe(probes.len(), scale, &[]).await?;
            say(&format!(
                "[{}] {:.0} arrivals/s (scale {scale}), to fit a forecast: {} ({:.0} s)",
                probes.len() + 1,
                probe.rate,
                in_words(&probe),
                probe.took_s
            ));
            probes.push(probe);
        }
        Ok(())
    }

    async fn sweep(&self, sweep: &Sweep, say: &impl Fn(&str)) -> Result<(Vec<Probe>, SweepReport), CapacityError> {
        let scale = self.loaded.scenario.load.scale;
        let (mut probes, mut points) = (Vec::new(), Vec::new());
        for (number, value) in sweep.values.iter().enumerate() {
            let probe = self.probe(number, scale, &[format!("{}={value}", sweep.path)]).await?;
            let done = if probe.orders_per_second > 0.0 { probe.orders_per_second } else { probe.served_peak };
            say(&format!("[{}] {}={value}: {done:.0} per second ({:.0} s)", number + 1, sweep.path, probe.took_s));
            points.push((*value, done));
            probes.push(probe);
        }
        let pairs: Vec<(f64, f64)> = points.iter().map(|(n, x)| (f64::from(*n), *x)).collect();
        Ok((probes, SweepReport { path: sweep.path.clone(), points, law: usl::fit(&pairs) }))
    }

    async fn probe(&self, number: usize, scale: f64, sets: &[String]) -> Result<Probe, CapacityError> {
        let name = format!("probe-{:02}", number + 1);
        let mut set = self.asked.set.clone();
        // How much of it happens depends on the rate; what a capacity needs is judged by objectives and invariants.
        set.extend(["sell_out", "indeterminate", "expiry", "retries"].map(|key| format!("expect.{key}=false")));
        set.extend(["audit.waits=true".to_owned(), format!("load.scale={scale}")]);
        set.extend_from_slice(sets);
        let job = Job {
            of: number,
            scenario: self.loaded.path.clone(),
            variant: None,
            seed: self.loaded.scenario.seed + number as u64,
            set,
            folder: self.folder.join(&name),
        };
        let longest = LONGEST_RUN + 4 * self.loaded.scenario.load.duration.0;
        let manner = Manner { at_once: 1, repeats: REPEATS, longest };
        let ended = campaign::start(vec![job], manner, self.cancel).recv().await;
        let Some(ended) = ended.filter(|_| !self.cancel.is_cancelled()) else {
            return Err(CapacityError::Interrupted(self.folder.to_owned()));
        };
        let took_s = ended.took.as_secs_f64();
        let summary = ended.result.map_err(|why| CapacityError::Probe { scale, why })?;
        Ok(Probe::of(&summary, scale, self.base_rate, name, took_s))
    }

    fn report(&self, probes: Vec<Probe>, found: Option<Found>, sweep: Option<SweepReport>, took: Duration) -> Report {
        let scenario = &self.loaded.scenario;
        let machine = crate::run::machine();
        let pool = match &scenario.target {
            Target::Reference(reference) => Some(reference.pool),
            Target::External(_) => None,
        };
        let bottlenecks =
            telling(&probes).map(|probe| bottleneck::find(probe, machine.cpus as usize, pool)).unwrap_or_default();
        let busiest = probes.iter().max_by_key(|probe| probe.requests).filter(|probe| probe.generator_cpu_s > 0.0);
        Report {
            format: 1,
            scenario: scenario.name.clone(),
            title: scenario.title.clone(),
            set: self.asked.set.clone(),
            seed: scenario.seed,
            base_rate: self.base_rate,
            between: self.between,
            exit_code: exit_code(&probes, found.as_ref()),
            found,
            knee: knee(&probes).filter(|_| sweep.is_none()),
            bottlenecks,
            sweep,
            requests_per_generator_cpu_s: busiest.map(|probe| probe.requests as f64 / probe.generator_cpu_s),
            probes,
            took_s: took.as_secs_f64(),
            machine,
        }
    }
}

/// The lowest scale within the bounds at which there are enough arrivals for every percentile that has a limit, if each of those
/// planned made one request of the kind.
fn enough_samples(loaded: &Loaded, planned: f64, [low, high]: [f64; 2]) -> Result<f64, CapacityError> {
    let scenario = &loaded.scenario;
    let needed = scenario.slo.iter().map(|slo| slo.get_ref().samples_needed()).max().unwrap_or(0);
    let planned = planned / scenario.load.scale;
    // A tenth more, for those that the objective is not about.
    let lowest = needed as f64 * 1.1 / planned;
    if lowest >= high {
        return Err(CapacityError::TooFew { path: loaded.path.clone(), high, needed, planned: planned * high });
    }
    Ok(low.max(lowest))
}

/// Width of the bins that the plan is looked at in.
const PLAN_BIN_US: Micros = 100_000;

/// The most of what was counted in bins of this width that falls into a second, per second.
fn most_in_a_second(bins: &[u32], width_us: Micros) -> f64 {
    let width_us = width_us.max(1);
    let count = (1_000_000 / width_us).max(1) as usize;
    let most = bins.windows(count.min(bins.len().max(1))).map(|window| window.iter().sum::<u32>()).max();
    f64::from(most.unwrap_or(0)) / (count as f64 * width_us as f64 / 1e6)
}

/// Four digits are more than any machine repeats, and a person can type them again.
fn significant(scale: f64) -> f64 {
    let digits = 3 - scale.abs().log10().floor() as i32;
    let factor = 10f64.powi(digits);
    (scale * factor).round() / factor
}

/// What an overloaded service still served, as the scale at which so much would come; nothing of one that was not overloaded.
fn hint(probe: &Probe) -> Option<f64> {
    let share = probe.served_peak / probe.offered_peak;
    (probe.outcome == Outcome::Fails && share > 0.02 && share < 0.95).then_some(probe.scale * share)
}

fn in_words(probe: &Probe) -> String {
    let first = probe.why.first().cloned().unwrap_or_default();
    match probe.outcome {
        Outcome::Holds => "everything holds".to_owned(),
        Outcome::Fails => format!("does not hold ({first})"),
        Outcome::Violates => format!("violates an invariant ({first})"),
        Outcome::Distrusted => format!("cannot be trusted ({first})"),
    }
}

/// Whether more probes would be for nothing: it is known closely, with a probe on either side, or lies beyond a bound.
fn known(search: &Search, probes: &[Probe], precision: f64) -> bool {
    let estimate = search.estimate();
    let both_sides = probes.iter().any(Probe::holds) && probes.iter().any(|probe| !probe.holds());
    (both_sides && estimate.half_width() <= precision) || estimate.below > 0.97 || estimate.above > 0.97
}

fn conclude(search: &Search, probes: &[Probe], base_rate: f64) -> Found {
    let estimate = search.estimate();
    let highest = probes.iter().filter(|probe| probe.holds()).map(|probe| probe.scale).reduce(f64::max);
    // Who stands in the way above what held?
    let mut against = probes.iter().filter(|probe| !probe.holds() && highest.is_none_or(|scale| probe.scale > scale));
    let kind = match () {
        () if estimate.above > 0.5 => Kind::AtLeast,
        () if estimate.below > 0.5 => Kind::Below,
        () if against.clone().count() > 0 && against.all(|probe| probe.outcome == Outcome::Distrusted) => {
            Kind::GeneratorLimit
        }
        () => Kind::Found,
    };
    Found {
        kind,
        scale: estimate.scale,
        scale_interval: estimate.interval,
        rate: estimate.scale * base_rate,
        rate_interval: estimate.interval.map(|scale| scale * base_rate),
        highest_held: highest.map(|scale| scale * base_rate),
    }
}

/// The lowest rate that does not hold, since further up everything is used up; the highest that does if all do.
fn telling(probes: &[Probe]) -> Option<&Probe> {
    let highest = probes.iter().filter(|probe| probe.holds()).max_by(|a, b| a.rate.total_cmp(&b.rate));
    let over = probes.iter().filter(|probe| !probe.holds() && highest.is_none_or(|held| probe.rate > held.rate));
    over.min_by(|a, b| a.rate.total_cmp(&b.rate)).or(highest)
}

/// Where throughput over latency, the power, is greatest (Kleinrock, *Power and deterministic rules of thumb for
/// probabilistic problems in computer communications*, 1979). None with fewer than three probes.
fn knee(probes: &[Probe]) -> Option<Knee> {
    let power = |probe: &Probe| probe.requests_per_second / probe.us_mean.max(1.0);
    let measured = probes.iter().filter(|probe| probe.outcome != Outcome::Distrusted);
    let best = measured.max_by(|a, b| power(a).total_cmp(&power(b))).filter(|_| probes.len() >= 3)?;
    Some(Knee { rate: best.rate, us_mean: best.us_mean })
}

fn exit_code(probes: &[Probe], found: Option<&Found>) -> i32 {
    if probes.iter().any(|probe| probe.outcome == Outcome::Violates) {
        return exit::VIOLATED;
    }
    match found.map(|found| found.kind) {
        None | Some(Kind::Found | Kind::AtLeast) => exit::PASS,
        Some(Kind::Below) => exit::SLO_MISSED,
        Some(Kind::GeneratorLimit) => exit::UNKNOWN,
    }
}

/// Writes the report as JSON, Markdown and a page.
///
/// # Errors
/// A file cannot be written or rendered.
pub fn save(folder: &Path, report: &Report) -> Result<(), CapacityError> {
    let page = report::capacity::html(report)?.into_bytes();
    let text = report::capacity::markdown(report).into_bytes();
    Ok(KEPT.write(folder, report, &[("report.md", text), ("report.html", page)])?)
}

#[cfg(test)]
mod tests;
