//! Variants side by side, for people: a table in Markdown, which also reads well in a terminal, and a page with charts.

use askama::Template;

use super::chart::variants;
use super::{ReportError, format};
use crate::compare::{Comparison, Estimate, Outcome};

/// One figure of the table: its name, and how it is read and written.
struct Column {
    name: String,
    value: Value,
    text: fn(f64) -> String,
}

type Value = Box<dyn Fn(&Outcome) -> Option<Estimate>>;

/// The figures of the table; how many there are depends on the steps that are shown beside.
fn columns(comparison: &Comparison) -> Vec<Column> {
    fn column(name: &str, value: fn(&Outcome) -> Option<Estimate>, text: fn(f64) -> String) -> Column {
        Column { name: name.to_owned(), value: Box::new(value), text }
    }
    let steps = comparison.variants.first().map_or(&[][..], |variant| &variant.beside);
    let beside = steps.iter().enumerate().map(|(n, beside)| Column {
        name: format!("{} TP99", beside.step),
        value: Box::new(move |variant: &Outcome| variant.beside.get(n)?.us_p99),
        text: micros,
    });
    let first = [
        column("orders/s", |v| v.orders_per_second, format::number),
        column("order TP50", |v| v.order_us_p50, micros),
        column("TP99", |v| v.order_us_p99, micros),
        column("TP999", |v| v.order_us_p999, micros),
    ];
    let last = [
        column("CPU/1,000 orders", |v| v.cpu_s_per_1000_orders, format::cpu_seconds),
        column("WAL/1,000 orders", |v| v.wal_bytes_per_order, |bytes| format::bytes(bytes * 1_000.0)),
        column("statements/order", |v| v.statements_per_order, format::number),
        column("slowest recovery", |v| v.recovery_ms, format::millis),
    ];
    // What the scenario may not be about: left out where there is nothing in it.
    let own = [
        column("CPU/request", |v| v.cpu_us_per_request, micros),
        column("calls/request", |v| v.calls_per_request, format::number),
        column("units sold", |v| v.units_sold, format::number),
        column("held at the end", |v| some(v.units_held), format::number),
        column("sold out at payment", |v| some(v.sold_out_at_payment), format::number),
        column("sold to abusers", |v| v.abusive_sold_share, percent),
        column("held by abusers", |v| v.abusive_held_share, percent),
        column("precision", |v| v.mark_precision, percent),
        column("recall", |v| v.mark_recall, percent),
    ];
    let told = |column: &Column| comparison.variants.iter().any(|variant| (column.value)(variant).is_some());
    let own = own.into_iter().filter(told);
    first.into_iter().chain(beside).chain(last).chain(own).collect()
}

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

/// Why a percentile is absent.
fn missing<'a>(column: &Column, variant: &'a Outcome) -> Option<&'a String> {
    let about = format!(" {} ", column.name);
    variant.order_missing.iter().find(|why| why.contains(&about))
}

/// The median, and between which runs it lies, or why there is none.
fn cell(column: &Column, variant: &Outcome) -> (String, String) {
    match (column.value)(variant) {
        None => (format::NONE.to_owned(), missing(column, variant).cloned().unwrap_or_default()),
        // One round has no spread.
        Some(Estimate { median, interval: [low, high], .. }) if low == high => ((column.text)(median), String::new()),
        Some(Estimate { median, interval: [low, high], pooled }) => {
            let all = if pooled { ", all rounds" } else { "" };
            ((column.text)(median), format!("{} to {}{all}", (column.text)(low), (column.text)(high)))
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
    let pooled = columns(comparison)
        .iter()
        .any(|column| comparison.variants.iter().filter_map(|variant| (column.value)(variant)).any(|e| e.pooled));
    let all = if pooled {
        " \"All rounds\": a run alone has too few samples, so it is the percentile of all of them together, with the 95% interval of its order \
         statistics."
    } else {
        ""
    };
    format!("Medians of {rounds} in turns, and {interval}.{all}")
}

/// The table.
pub fn markdown(comparison: &Comparison) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let columns = columns(comparison);
    let names = columns.iter().map(|column| column.name.clone());
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
    heads: Vec<&'a str>,
    rows: Vec<Row<'a>>,
    charts: Vec<(&'a str, String)>,
}

struct Row<'a> {
    variant: &'a Outcome,
    tone: &'static str,
    verdict: String,
    cells: Vec<(&'a str, String, String)>,
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
        if let Some(svg) = variants::draw(&column.name, &bars, column.text)? {
            charts.push((column.name.as_str(), svg));
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
                    (column.name.as_str(), text, range)
                })
                .collect(),
        })
        .collect();
    let heads = columns.iter().map(|column| column.name.as_str()).collect();
    Ok(Page { comparison, about: about_intervals(comparison), heads, rows, charts }.render()?)
}
