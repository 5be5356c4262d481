//! What a shop can take, for people: Markdown, which also reads well in a terminal, and a page with charts.

use askama::Template;

use super::chart::capacity as chart;
use super::{ReportError, format};
use crate::capacity::probe::{Outcome, Probe};
use crate::capacity::{Found, Kind, Report, SweepReport};

/// The finding in one sentence.
fn headline(report: &Report) -> String {
    let Some(found) = &report.found else {
        let path = report.sweep.as_ref().map_or("", |sweep| sweep.path.as_str());
        return format!("Throughput against {}", format::one_line(path));
    };
    let Found { rate, rate_interval: [low, high], .. } = *found;
    let [rate, low, high] = [rate, low, high].map(format::number);
    let held =
        found.highest_held.map_or_else(|| "nothing held".to_owned(), |rate| format!("{} held", format::number(rate)));
    match found.kind {
        Kind::Found => format!("Holds up to {rate} arrivals per second (95% interval {low} to {high})"),
        Kind::AtLeast => {
            format!("Holds at every rate that was tried, up to {} arrivals per second", format::number(top(report)))
        }
        Kind::Below => {
            format!("Does not even hold at {} arrivals per second", format::number(bottom(report)))
        }
        Kind::GeneratorLimit => format!(
            "At least that: {held}; above it the harness does not trust its own measurement, so drive it from several generators"
        ),
    }
}

fn top(report: &Report) -> f64 {
    report.probes.iter().map(|probe| probe.rate).fold(0.0, f64::max)
}

fn bottom(report: &Report) -> f64 {
    report.probes.iter().map(|probe| probe.rate).fold(f64::INFINITY, f64::min)
}

fn outcome(probe: &Probe) -> &'static str {
    match probe.outcome {
        Outcome::Holds => "holds",
        Outcome::Fails => "does not hold",
        Outcome::Violates => "violates an invariant",
        Outcome::Distrusted => "not to be trusted",
    }
}

const HEADS: [&str; 9] =
    ["arrivals/s", "outcome", "TP99", "TP999", "requests/s", "orders/s", "at once", "processors", "why"];

/// The first reason, and how many more there are: the probe's own report has them all.
fn why(probe: &Probe) -> String {
    let first = probe.why.first().map(|why| format::one_line(why)).unwrap_or_default();
    let text = format::shorten(&first, 140);
    if probe.why.len() > 1 { format!("{text} (and {} more)", probe.why.len() - 1) } else { text }
}

/// The probes by their rate.
fn rows(report: &Report) -> Vec<(&Probe, Vec<String>)> {
    let mut probes: Vec<&Probe> = report.probes.iter().collect();
    if report.sweep.is_none() {
        probes.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    }
    let row = |probe: &Probe| {
        vec![
            format::number(probe.rate),
            outcome(probe).to_owned(),
            format::micros_or_none(probe.us_p99),
            format::micros_or_none(probe.us_p999),
            format::number(probe.requests_per_second),
            format::number(probe.orders_per_second),
            format::number(probe.concurrency),
            format::number(probe.cores.values().sum()),
            why(probe),
        ]
    };
    probes.into_iter().map(|probe| (probe, row(probe))).collect()
}

/// What else is known, a sentence each.
fn remarks(report: &Report) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(knee) = &report.knee {
        out.push(format!(
            "The knee, where most is done for the time it takes, is at {} arrivals per second (mean latency {}).",
            format::number(knee.rate),
            format::micros(knee.us_mean as u64)
        ));
    }
    if report.found.is_some() && report.bottlenecks.is_empty() {
        out.push(
            "Nothing was seen to be used up: processors, row locks, write-ahead log and buyers all had room.".into(),
        );
    }
    for (index, found) in report.bottlenecks.iter().enumerate() {
        let first = if index == 0 { "Gives out first" } else { "Also used up" };
        out.push(format!("{first}: {} ({}): {}.", found.resource, found.role, found.evidence));
    }
    let mut unjudged: Vec<&str> = report.probes.iter().flat_map(|probe| &probe.unjudged).map(String::as_str).collect();
    unjudged.sort_unstable();
    unjudged.dedup();
    if !unjudged.is_empty() {
        out.push(format!("Not judged in every probe: {}. `seckill check` of a probe says why.", unjudged.join(" ")));
    }
    if let Some(each) = report.requests_per_generator_cpu_s {
        out.push(format!("The generator made {} requests with one CPU-second.", format::number(each)));
    }
    out.extend(report.sweep.iter().flat_map(law));
    out
}

fn law(sweep: &SweepReport) -> Vec<String> {
    let Some(law) = sweep.law else {
        return vec!["No law was fitted: it takes four different numbers at least.".into()];
    };
    let peak = match law.peak() {
        Some(peak) if peak < 1e6 => format!("more than {} of it make it slower", format::number(peak)),
        _ => "no peak is in sight".to_owned(),
    };
    vec![format!(
        "Universal Scalability Law: one does {} per second, contention {:.4}, coherency {:.6}; {peak}. It explains {:.1}% of the variance.",
        format::number(law.one),
        law.contention,
        law.coherency,
        law.explained * 100.0
    )]
}

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("# {}\n\n{}.\n\n", format::one_line(&report.title), headline(report));
    let mut lines: Vec<Vec<String>> = vec![HEADS.map(str::to_owned).to_vec()];
    lines.extend(rows(report).into_iter().map(|(_, row)| row));
    if let Some(sweep) = &report.sweep {
        lines = vec![vec![format::one_line(&sweep.path), "per second".to_owned()]];
        lines.extend(sweep.points.iter().map(|(n, x)| vec![n.to_string(), format::number(*x)]));
    }
    out.push_str(&format::markdown_table(&lines));
    out.push('\n');
    for remark in remarks(report) {
        out.push_str(&format!("- {remark}\n"));
    }
    out
}

#[derive(Template)]
#[template(path = "capacity.html")]
struct Page<'a> {
    report: &'a Report,
    headline: String,
    took: String,
    heads: [&'static str; 9],
    rows: Vec<Row<'a>>,
    remarks: Vec<String>,
    chart: Option<String>,
    sweep: Option<String>,
}

struct Row<'a> {
    probe: &'a Probe,
    tone: &'static str,
    cells: Vec<(&'static str, String)>,
}

/// The page, which opens offline.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(report: &Report) -> Result<String, ReportError> {
    let rows = rows(report)
        .into_iter()
        .map(|(probe, cells)| Row {
            probe,
            tone: match probe.outcome {
                Outcome::Holds => "pass",
                Outcome::Fails | Outcome::Violates => "fail",
                Outcome::Distrusted => "unknown",
            },
            cells: HEADS.into_iter().zip(cells).collect(),
        })
        .collect();
    let chart = if report.sweep.is_none() { chart::draw(report)? } else { None };
    let sweep = report.sweep.as_ref().map(chart::draw_sweep).transpose()?.flatten();
    let (headline, took) = (headline(report), format::millis(report.took_s * 1e3));
    Ok(Page { report, headline, took, heads: HEADS, rows, remarks: remarks(report), chart, sweep }.render()?)
}
