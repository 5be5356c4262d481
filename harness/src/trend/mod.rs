//! The history of runs: how the figures of a scenario went over the builds, and where they changed for good (the water mark).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use askama::Template;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::baseline::{self, Baseline, BaselineError, Figures};
use crate::check::Verdict;
use crate::judge;
use crate::measure::stats::median;
use crate::report::{ReportError, chart::trend as chart, format};

pub mod change;

/// Smallest relative change of a level that is told.
const EFFECT: f64 = 0.05;
/// Figures from which a series can have a change at all.
pub const LEAST: usize = 2 * change::LEAST;

/// The history of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trend {
    /// The scenario's name.
    pub scenario: String,
    /// The runs, oldest first.
    pub runs: Vec<Point>,
    /// Every figure, those that changed first.
    pub figures: Vec<Series>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// When its load started, RFC 3339.
    pub started_at: String,
    /// Which it is: the baseline or the folder that it is from.
    pub label: String,
    /// The git revision, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// One figure over the runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Its name, unit last.
    pub name: String,
    /// Of what.
    pub of: String,
    /// Its value in each run, where it has one.
    pub values: Vec<Option<f64>>,
    /// Where it changed for good.
    pub changes: Vec<Change>,
    /// The level since the last change: the median.
    pub level: f64,
}

/// A change of level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// The first run of the new level, by its number from 0.
    pub run: usize,
    /// The level before.
    pub before: f64,
    /// The level after.
    pub after: f64,
    /// Probability of as good a cut by chance.
    pub p: f64,
}

/// Why there is no trend.
#[derive(Debug, thiserror::Error)]
pub enum TrendError {
    /// A baseline cannot be read.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// A folder cannot be read, or a file not written.
    #[error("{}: {source}\nhelp: name run folders, baselines, or folders of them", path.display())]
    File {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There are no runs.
    #[error(
        "there is no run of {what} in {places}\nhelp: name run folders, baselines, or folders of them; --scenario chooses one of several"
    )]
    None {
        /// What was looked for.
        what: String,
        /// Where.
        places: String,
    },
    /// The chart cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Reads the history of a scenario from baselines, run folders, and folders of either. Without a name, it is the scenario that most runs are of.
///
/// # Errors
/// There are no runs, or a place cannot be read.
pub fn read(places: &[PathBuf], scenario: Option<&str>) -> Result<Trend, TrendError> {
    let mut left_out = Vec::new();
    let mut all: Vec<(String, Point, Figures)> = Vec::new();
    for place in places {
        for path in expand(place)? {
            collect(&path, &mut all, &mut left_out)?;
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|(name, _, _)| *counts.entry(name).or_default() += 1);
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(name, _)| (*name).to_owned());
    let chosen = scenario.map(str::to_owned).or(most).unwrap_or_default();
    all.retain(|(name, _, _)| *name == chosen);
    all.sort_by(|(_, a, fa), (_, b, fb)| (&a.started_at, &fa.run_id).cmp(&(&b.started_at, &fb.run_id)));
    // A run that is in a baseline and in its own folder is one run.
    all.dedup_by(|(_, _, a), (_, _, b)| a.run_id == b.run_id);
    if all.is_empty() {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let what = if chosen.is_empty() { "any scenario".to_owned() } else { format!("scenario {chosen}") };
        return Err(TrendError::None { what, places: places.join(", ") });
    }
    let (runs, figures): (Vec<Point>, Vec<Figures>) =
        all.into_iter().map(|(_, point, figures)| (point, figures)).unzip();
    Ok(Trend { scenario: chosen, runs, figures: series(&figures), left_out })
}

/// A baseline, a run folder, or what of these is in a folder.
fn expand(place: &Path) -> Result<Vec<PathBuf>, TrendError> {
    if place.is_file() || place.join("summary.json").exists() {
        return Ok(vec![place.to_owned()]);
    }
    let fail = |source| TrendError::File { path: place.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(place).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        if !is_link && (path.extension().is_some_and(|e| e == "json") || path.join("summary.json").exists()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn collect(path: &Path, all: &mut Vec<(String, Point, Figures)>, left_out: &mut Vec<String>) -> Result<(), TrendError> {
    let label = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if path.is_file() {
        let Baseline { scenario, revision, runs, .. } = match baseline::read(&path.display().to_string()) {
            Ok(baseline) => baseline,
            // Folders have other files, too.
            Err(error @ BaselineError::Json { .. }) => {
                left_out.push(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for run in runs {
            let point = Point { started_at: run.started_at.clone(), label: label.clone(), revision: revision.clone() };
            all.push((scenario.clone(), point, run));
        }
        return Ok(());
    }
    match judge::read_summary(path) {
        Ok(summary) if summary.verdict == Verdict::Pass && !summary.partial => {
            let point = Point { started_at: summary.started_at.clone(), label, revision: None };
            all.push((summary.scenario.clone(), point, baseline::figures(&summary)));
        }
        Ok(summary) => left_out.push(format!("{}: its verdict is {}", path.display(), summary.verdict.name())),
        Err(error) => left_out.push(error.to_string()),
    }
    Ok(())
}

/// Every figure that most runs have.
fn series(runs: &[Figures]) -> Vec<Series> {
    let mut all: BTreeMap<(String, String), Vec<Option<f64>>> = BTreeMap::new();
    for (n, run) in runs.iter().enumerate() {
        let mut put = |name: &str, of: String, value: Option<f64>| {
            all.entry((name.to_owned(), of)).or_insert_with(|| vec![None; runs.len()])[n] = value;
        };
        for (phase, steps) in &run.latency {
            for (step, latencies) in steps {
                let of = format!("{step}, {phase}");
                put("us_p50", of.clone(), latencies.us_p50.map(|us| us as f64));
                put("us_p99", of.clone(), latencies.us_p99.map(|us| us as f64));
                put("us_p999", of, latencies.us_p999.map(|us| us as f64));
            }
        }
        put("orders_per_second", String::new(), Some(run.orders_per_second));
        for (role, cost) in &run.cost_per_1000_orders {
            put("cpu_s_per_1000_orders", role.clone(), Some(cost.cpu_s));
            put("wal_bytes_per_1000_orders", role.clone(), cost.wal_bytes);
        }
        for link in &run.links {
            put("calls_per_journey", link.name(), link.calls_per_journey);
            put("calls_per_purchase", link.name(), link.calls_per_purchase);
        }
    }
    let mut figures: Vec<Series> = all.into_iter().filter_map(|((name, of), values)| one(name, of, values)).collect();
    figures.sort_by_key(|figure| std::cmp::Reverse(figure.changes.len().min(1)));
    figures
}

fn one(name: String, of: String, values: Vec<Option<f64>>) -> Option<Series> {
    let known: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(n, value)| Some((n, (*value)?))).filter(|(_, v)| *v > 0.0).collect();
    if known.is_empty() {
        return None;
    }
    let plain: Vec<f64> = known.iter().map(|(_, value)| *value).collect();
    let found = change::changes(&plain, EFFECT);
    let level = median(plain[found.last().map_or(0, |last| last.at)..].to_vec()).0;
    let changes =
        found.iter().map(|c| Change { run: known[c.at].0, before: c.before, after: c.after, p: c.p }).collect();
    Some(Series { name, of, values, changes, level })
}

/// A change in a sentence.
fn sentence(trend: &Trend, figure: &Series, change: &Change) -> String {
    let point = &trend.runs[change.run];
    let at = point.revision.as_ref().map_or_else(
        || point.label.clone(),
        |revision| format!("{} ({})", point.label, revision.chars().take(12).collect::<String>()),
    );
    let percent = (change.after / change.before - 1.0) * 100.0;
    let text = |value| chart::text(&figure.name, value);
    format!(
        "{} {}: {} → {} ({percent:+.1}%) from {at} of {} on",
        figure.name,
        figure.of,
        text(change.before),
        text(change.after),
        point.started_at
    )
}

/// The trend as markdown.
pub fn markdown(trend: &Trend) -> String {
    let mut out =
        format!("# {} over {}\n\n", format::one_line(&trend.scenario), format::plural(trend.runs.len() as u64, "run"));
    let changed: Vec<String> = trend
        .figures
        .iter()
        .flat_map(|figure| figure.changes.iter().map(|change| sentence(trend, figure, change)))
        .collect();
    if changed.is_empty() && trend.runs.len() < LEAST {
        let _ = writeln!(out, "Nothing can be said of changes yet: that takes {LEAST} runs.\n");
    } else if changed.is_empty() {
        out.push_str("No figure changed its level.\n\n");
    }
    for change in &changed {
        let _ = writeln!(out, "- {}", format::one_line(change));
    }
    if !changed.is_empty() {
        out.push('\n');
    }
    let mut lines = vec![["figure", "of", "level", "least", "most", "last", "changes"].map(str::to_owned).to_vec()];
    for figure in &trend.figures {
        let known: Vec<f64> = figure.values.iter().copied().flatten().collect();
        let text = |value: f64| chart::text(&figure.name, value);
        let (least, most) = known.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        let last = known.last().copied().map_or_else(|| format::NONE.to_owned(), text);
        lines.push(vec![
            figure.name.clone(),
            format::one_line(&figure.of),
            text(figure.level),
            text(least),
            text(most),
            last,
            figure.changes.len().to_string(),
        ]);
    }
    out.push_str(&format::markdown_table(&lines));
    for why in &trend.left_out {
        let _ = writeln!(out, "\nLeft out: {}", format::one_line(why));
    }
    out
}

#[derive(Template)]
#[template(path = "trend.html")]
struct Page<'a> {
    trend: &'a Trend,
    first: &'a str,
    last: &'a str,
    changes: Vec<String>,
    charts: Vec<(String, String)>,
}

/// The trend as a page that opens offline.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(trend: &Trend) -> Result<String, ReportError> {
    let mut charts = Vec::new();
    for figure in &trend.figures {
        let name = format!("{} {}", figure.name, format::one_line(&figure.of));
        charts.push((name, chart::draw(figure)?));
    }
    let changes = trend
        .figures
        .iter()
        .flat_map(|figure| figure.changes.iter().map(|change| sentence(trend, figure, change)))
        .collect();
    let ends = (trend.runs.first(), trend.runs.last());
    let (first, last) = (ends.0.map_or("", |p| &p.started_at), ends.1.map_or("", |p| &p.started_at));
    Ok(Page { trend, first, last, changes, charts }.render()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Latencies;

    fn run(n: usize, us_p99: u64) -> Figures {
        let latencies = Latencies { count: 5_000, us_p99: Some(us_p99), ..Latencies::default() };
        Figures {
            run_id: format!("r{n:02}"),
            started_at: format!("2026-11-28T10:{n:02}:00Z"),
            seed: 1,
            verdict: Verdict::Pass,
            latency: BTreeMap::from([("rush".to_owned(), BTreeMap::from([("order".to_owned(), latencies)]))]),
            orders_per_second: 500.0,
            committed_orders: 100,
            journeys: 100,
            purchases: 100,
            cost_per_1000_orders: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    fn trend(us_p99: &[u64]) -> Trend {
        let runs: Vec<Figures> = us_p99.iter().enumerate().map(|(n, us)| run(n, *us)).collect();
        let point =
            |run: &Figures| Point { started_at: run.started_at.clone(), label: run.run_id.clone(), revision: None };
        Trend {
            scenario: "gate".into(),
            runs: runs.iter().map(point).collect(),
            figures: series(&runs),
            left_out: Vec::new(),
        }
    }

    #[test]
    fn a_change_is_told_with_its_run_and_a_spike_is_not() {
        let steps: Vec<u64> = (0..16).map(|n| if n < 9 { 20_000 } else { 26_000 } + n * 5 % 7 * 9).collect();
        let changed = trend(&steps);
        let text = markdown(&changed);
        assert!(
            text.contains("- us_p99 order, rush: 20.0 ms → 26.0 ms (+")
                && text.contains("from r09 of 2026-11-28T10:09:00Z on"),
            "{text}"
        );
        let spike: Vec<u64> = (0..16).map(|n| if n == 9 { 900_000 } else { 20_000 + n * 7 }).collect();
        assert!(markdown(&trend(&spike)).contains("No figure changed its level."));
        assert!(markdown(&trend(&[1, 2])).contains("that takes 8 runs"));
    }

    #[test]
    fn the_page_has_a_chart_for_each_figure_and_marks_the_change() {
        let steps: Vec<u64> = (0..16).map(|n| if n < 9 { 20_000 } else { 26_000 + n }).collect();
        let page = html(&trend(&steps)).unwrap();
        assert_eq!(page.matches("<svg class=\"chart wide\"").count(), 2);
        assert!(page.contains("from r09"), "the change is named");
        assert!(
            !page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org").count()
        );
    }
}
