//! Variants side by side, for people: a table in Markdown, which also reads well in a terminal, and a page with charts.

use askama::Template;

use super::chart::variants;
use super::{ReportError, format};
use crate::compare::{Comparison, Estimate, Outcome};

/// One figure of the table: its name, and how it is read and written.
struct Column {
    name: &'static str,
    value: fn(&Outcome) -> Option<Estimate>,
    text: fn(f64) -> String,
}

static COLUMNS: [Column; 16] = [
    Column { name: "orders/s", value: |v| v.orders_per_second, text: format::number },
    Column { name: "order TP50", value: |v| v.order_us_p50, text: micros },
    Column { name: "TP99", value: |v| v.order_us_p99, text: micros },
    Column { name: "TP999", value: |v| v.order_us_p999, text: micros },
    Column { name: "CPU/1,000 orders", value: |v| v.cpu_s_per_1000_orders, text: format::cpu_seconds },
    Column { name: "WAL/order", value: |v| v.wal_bytes_per_order, text: format::bytes },
    Column { name: "slowest recovery", value: |v| v.recovery_ms, text: format::millis },
    Column { name: "CPU/request", value: |v| v.cpu_us_per_request, text: micros },
    Column { name: "calls/request", value: |v| v.calls_per_request, text: format::number },
    Column { name: "units sold", value: |v| v.units_sold, text: format::number },
    Column { name: "held at the end", value: |v| some(v.units_held), text: format::number },
    Column { name: "sold out at payment", value: |v| some(v.sold_out_at_payment), text: format::number },
    Column { name: "sold to abusers", value: |v| v.abusive_sold_share, text: percent },
    Column { name: "held by abusers", value: |v| v.abusive_held_share, text: percent },
    Column { name: "precision", value: |v| v.mark_precision, text: percent },
    Column { name: "recall", value: |v| v.mark_recall, text: percent },
];

/// The columns in which there is anything: those of a kind that the scenario is not about are left out.
fn columns(comparison: &Comparison) -> Vec<&'static Column> {
    let told = |column: &&Column| comparison.variants.iter().any(|variant| (column.value)(variant).is_some());
    COLUMNS.iter().enumerate().filter(|(n, column)| *n < ALWAYS || told(column)).map(|(_, column)| column).collect()
}

/// So many columns are there even if nothing is in them.
const ALWAYS: usize = 7;

/// A count that is mostly zero, and then says nothing.
fn some(estimate: Option<Estimate>) -> Option<Estimate> {
    estimate.filter(|estimate| estimate.interval[1] > 0.0)
}

fn percent(share: f64) -> String {
    format!("{}%", format::number(share * 100.0))
}

fn micros(us: f64) -> String {
    format::micros(us.round() as u64)
}

/// The median, and between which runs it lies.
fn cell(column: &Column, variant: &Outcome) -> (String, String) {
    match (column.value)(variant) {
        None => (format::NONE.to_owned(), String::new()),
        // One round has no spread.
        Some(Estimate { median, interval: [low, high] }) if low == high => ((column.text)(median), String::new()),
        Some(Estimate { median, interval: [low, high] }) => {
            ((column.text)(median), format!("{} to {}", (column.text)(low), (column.text)(high)))
        }
    }
}

fn verdict(variant: &Outcome) -> String {
    let verdict = variant.verdict.name();
    if variant.violated.is_empty() { verdict.to_owned() } else { format!("{verdict}: {}", variant.violated.join(" ")) }
}

/// What the intervals are, which depends on how many rounds there were.
fn about_intervals(comparison: &Comparison) -> String {
    let rounds = format::plural(u64::from(comparison.rounds), "round");
    let interval = if comparison.rounds < 6 { "the lowest and the highest" } else { "its 95% confidence interval" };
    format!("Medians of {rounds} in turns, and {interval}.")
}

/// The table.
pub fn markdown(comparison: &Comparison) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let columns = columns(comparison);
    let names = columns.iter().map(|column| column.name.to_owned());
    lines.push(["variant", "verdict"].map(str::to_owned).into_iter().chain(names).collect());
    for variant in &comparison.variants {
        let figures = columns.iter().map(|column| match cell(column, variant) {
            (text, range) if range.is_empty() => text,
            (text, range) => format!("{text} ({range})"),
        });
        lines.push([format::one_line(&variant.name), verdict(variant)].into_iter().chain(figures).collect());
    }
    let mut out = format!("# {}\n\n", format::one_line(&comparison.title));
    out.push_str(&format::markdown_table(&lines));
    out.push_str(&format!("\n{}\n", about_intervals(comparison)));
    for variant in &comparison.variants {
        for run in variant.runs.iter().filter(|run| !run.remark.is_empty()) {
            out.push_str(&format!("\n{}: {}", run.folder, format::one_line(&run.remark)));
        }
    }
    out
}

#[derive(Template)]
#[template(path = "comparison.html")]
struct Page<'a> {
    comparison: &'a Comparison,
    about: String,
    heads: Vec<&'static str>,
    rows: Vec<Row<'a>>,
    charts: Vec<(&'static str, String)>,
}

struct Row<'a> {
    variant: &'a Outcome,
    tone: &'static str,
    verdict: String,
    cells: Vec<(&'static str, String, String)>,
}

/// The page, which opens offline.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(comparison: &Comparison) -> Result<String, ReportError> {
    let columns = columns(comparison);
    let mut charts = Vec::new();
    for column in &columns {
        let bars = comparison.variants.iter().map(|v| (v.name.as_str(), (column.value)(v))).collect::<Vec<_>>();
        if let Some(svg) = variants::draw(column.name, &bars, column.text)? {
            charts.push((column.name, svg));
        }
    }
    let rows = comparison
        .variants
        .iter()
        .map(|variant| Row {
            variant,
            tone: variant.verdict.name(),
            verdict: verdict(variant),
            cells: columns
                .iter()
                .map(|column| {
                    let (text, range) = cell(column, variant);
                    (column.name, text, range)
                })
                .collect(),
        })
        .collect();
    let heads = columns.iter().map(|column| column.name).collect();
    Ok(Page { comparison, about: about_intervals(comparison), heads, rows, charts }.render()?)
}
