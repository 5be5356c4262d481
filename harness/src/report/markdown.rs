//! `report.md`: the run in a comment of a pull request. Verdict first, then what failed and why, then the figures.
//!
//! A comment has a limit, so each list and each cell has one too, and the whole is cut at [`LIMIT`] at last: what matters
//! most stands first and is never what is cut.

use std::fmt::Write as _;

use super::blast::{self, Measure};
use super::words::{self, Tone};
use super::{Render, ReportError, format, shares};
use crate::check::{Finding, Verdict, WitnessLine};
use crate::summary::Summary;

/// The run as a comment of a pull request, below 60 KB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Markdown;

/// The largest report, in bytes.
const LIMIT: usize = 58_000;
/// The longest text in a cell, in columns.
const CELL: usize = 240;
/// The longest detail of an invariant.
const DETAIL: usize = 720;
/// The longest paragraph.
const PARAGRAPH: usize = 1_200;
/// The most rows of a table.
const ROWS: usize = 40;
/// The most lines of a witness, and the most witnesses.
const WITNESS: usize = 24;
const WITNESSES: usize = 4;

impl Render for Markdown {
    fn render(&self, summary: &Summary) -> Result<Vec<u8>, ReportError> {
        let mut out = String::new();
        verdict(&mut out, summary);
        failures(&mut out, summary);
        figures(&mut out, summary);
        invariants(&mut out, summary);
        objectives(&mut out, summary);
        latency(&mut out, summary);
        faults(&mut out, summary);
        blast_radius(&mut out, summary);
        who_got_what(&mut out, summary);
        list(&mut out, "Notes", &summary.notes);
        let _ = writeln!(
            out,
            "\n<sub>Repeat: `{}` · schedule `{}` · run `{}` · {}</sub>",
            words::repeat(summary),
            code(&summary.schedule_hash),
            code(&summary.run_id),
            cell(&machine(summary)),
        );
        Ok(cut(out).into_bytes())
    }
}

fn verdict(out: &mut String, summary: &Summary) {
    let (headline, tone) = words::headline(summary);
    let icon = match tone {
        Tone::Pass => "✅",
        Tone::Unknown => "⚠️",
        Tone::Fail => "❌",
    };
    let _ = writeln!(out, "## {icon} {headline}: {}\n", cell(words::title(summary)));
    if !summary.verdict_reason.trim().is_empty() {
        let _ = writeln!(out, "{}\n", text(&summary.verdict_reason, PARAGRAPH));
    }
    let code = summary.exit_code;
    let _ = writeln!(out, "Exit code {code}: {}.", words::exit_meaning(code));
    if summary.partial {
        let ended = text(words::ended(summary), CELL);
        let _ = writeln!(
            out,
            "\n> [!WARNING]\n> **Partial run.** It was cut short ({ended}); everything below is about a part of it."
        );
    }
    list(out, "The harness distrusts its own measurement", &summary.distrust);
}

fn list(out: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n**{title}**\n");
    for item in items.iter().take(ROWS) {
        let _ = writeln!(out, "- {}", text(item, CELL * 2));
    }
    more(out, items.len(), ROWS);
}

fn more(out: &mut String, there_are: usize, shown: usize) {
    if there_are > shown {
        let _ = writeln!(out, "\n… and {} more in report.html.", there_are - shown);
    }
}

fn failures(out: &mut String, summary: &Summary) {
    let failed: Vec<_> = summary.invariants.iter().filter(|f| f.verdict == Verdict::Fail).collect();
    for finding in failed.iter().take(WITNESSES) {
        let _ = writeln!(out, "\n### ❌ {} {}\n", cell(&finding.id), cell(&finding.name));
        let _ = writeln!(out, "{}\n", text(&finding.detail, PARAGRAPH));
        witness(out, finding);
    }
    more(out, failed.len(), WITNESSES);
}

fn witness(out: &mut String, finding: &Finding) {
    if finding.witness.is_empty() {
        return;
    }
    let _ = writeln!(out, "| | at | source | buyer | what |\n|---|--:|---|---|---|");
    let shown = chosen(&finding.witness);
    for line in &shown {
        let mark = if line.offending { "➤" } else { "" };
        let at = line.at_us.map(|us| format!("{} s", format::moment_us(us))).unwrap_or_default();
        let what = cell(&line.text);
        let what = if line.offending { format!("**{what}**") } else { what };
        let _ = writeln!(out, "| {mark} | {at} | {} | {} | {what} |", cell(&line.source), cell(&line.user));
    }
    more(out, finding.witness.len(), shown.len());
}

/// The lines of a long witness that matter most, still in time order.
fn chosen(witness: &[WitnessLine]) -> Vec<&WitnessLine> {
    let offending = witness.iter().filter(|line| line.offending).count().min(WITNESS);
    let mut others = WITNESS - offending;
    let mut guilty = offending;
    witness
        .iter()
        .filter(|line| {
            let left = if line.offending { &mut guilty } else { &mut others };
            let keep = *left > 0;
            *left = left.saturating_sub(1);
            keep
        })
        .collect()
}

fn figures(out: &mut String, summary: &Summary) {
    let (goods, load) = (&summary.goodput, &summary.load);
    let _ = writeln!(out, "\n### Key figures\n\n| | |\n|---|---|");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "| {name} | {value} |");
    };
    row(
        "Goodput",
        format!(
            "**{}** committed orders per second ({} in all)",
            format::number(goods.per_second),
            format::count(goods.committed_orders)
        ),
    );
    row("Sold", format!("**{}** of {} units", format::signed(goods.units_sold), format::signed(goods.stock)));
    if let Some(text) = shares::sold_out_at_payment(summary) {
        row("At payment", text);
    }
    if let Some((step, stats)) = words::order_step(summary) {
        let step = cell(step);
        row(
            &format!("TP99 of {step}"),
            percentile(stats.us_p99, stats.us_p99_interval, || words::missing(stats, "TP99", 1_000)),
        );
        row(
            &format!("TP999 of {step}"),
            percentile(stats.us_p999, stats.us_p999_interval, || words::missing(stats, "TP999", 10_000)),
        );
    }
    row(
        "Arrivals",
        format!(
            "{} planned, {} sent, {} dropped",
            format::count(load.planned),
            format::count(load.sent),
            format::count(load.dropped)
        ),
    );
    row("Peak", format!("{} arrivals per second planned", format::number(load.peak_rps)));
    let starved = if load.starved { " · **the generator was starved of processor time**" } else { "" };
    row("Send lag", format!("{}{starved}", words::send_lag(load)));
    if let Some(text) = words::suppressed(summary) {
        row("Retries", cell(&text));
    }
}

fn percentile(value: Option<u64>, interval: Option<[u64; 2]>, missing: impl Fn() -> String) -> String {
    match (value, interval) {
        (None, _) => cell(&missing()),
        (Some(value), Some([low, high])) => {
            format!("**{}** (95%: {} to {})", format::micros(value), format::micros(low), format::micros(high))
        }
        (Some(value), None) => format!("**{}**", format::micros(value)),
    }
}

fn invariants(out: &mut String, summary: &Summary) {
    if summary.invariants.is_empty() {
        let _ = writeln!(out, "\n### Invariants\n\nNone were judged.");
        return;
    }
    let _ = writeln!(out, "\n### Invariants");
    if let Some(text) = words::client_side(summary) {
        let _ = writeln!(out, "\n{text}");
    }
    let _ = writeln!(out, "\n| | id | invariant | detail |\n|---|---|---|---|");
    let mut findings: Vec<_> = summary.invariants.iter().collect();
    // What is cut of a long table should be what passed.
    findings
        .sort_by_key(|f| std::cmp::Reverse(if summary.invariants.len() > ROWS { f.verdict } else { Verdict::Pass }));
    for finding in findings.iter().take(ROWS) {
        let tone = Tone::from(finding.verdict);
        let (id, name) = (cell(&finding.id), cell(&finding.name));
        let _ = writeln!(out, "| {} {} | {id} | {name} | {} |", tone.sign(), tone.name(), parts(&finding.detail));
    }
    more(out, findings.len(), ROWS);
}

fn objectives(out: &mut String, summary: &Summary) {
    if summary.slos.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### Objectives\n\n| | objective | measured |\n|---|---|---|");
    for slo in summary.slos.iter().take(ROWS) {
        let sign = words::slo_tone(slo.met).sign();
        let _ =
            writeln!(out, "| {sign} {} | {} | {} |", words::slo_word(slo.met), cell(&slo.name), cell(&slo.measured));
    }
    more(out, summary.slos.len(), ROWS);
}

fn latency(out: &mut String, summary: &Summary) {
    if summary.latency.steps.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### Latency from the intended start\n");
    let _ = writeln!(out, "| {} |\n|---|--:|--:|--:|--:|--:|", words::LATENCY_COLUMNS.join(" | "));
    for (step, stats) in words::in_step_order(summary, &summary.latency.steps).into_iter().take(ROWS) {
        let _ =
            writeln!(out, "| {} | {} |", cell(step), words::latency_cells(stats, format::micros_within).join(" | "));
    }
    more(out, summary.latency.steps.len(), ROWS);
    by_cohort(out, summary);
    let gaps = words::gaps(summary);
    if !gaps.is_empty() {
        let _ = writeln!(out);
    }
    for gap in gaps.iter().take(ROWS) {
        let _ = writeln!(out, "- {}", text(gap, DETAIL));
    }
    more(out, gaps.len(), ROWS);
}

fn by_cohort(out: &mut String, summary: &Summary) {
    let rows = words::cohort_steps(summary);
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n| {} |\n|---|--:|--:|--:|--:|--:|", words::LATENCY_COLUMNS.join(" | "));
    for (name, stats) in rows.iter().take(ROWS) {
        let _ =
            writeln!(out, "| {} | {} |", cell(name), words::latency_cells(stats, format::micros_within).join(" | "));
    }
    more(out, rows.len(), ROWS);
}

fn faults(out: &mut String, summary: &Summary) {
    if summary.faults.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n### Faults\n\n| fault | kind | on | injected | healed | steady again | recovery | what it hit |\n|---|---|---|--:|--:|--:|--:|---|"
    );
    for fault in summary.faults.iter().take(ROWS) {
        let on = fault.link.as_deref().or(fault.role.as_deref()).unwrap_or("");
        let recovery = match (fault.recovery_ms, fault.injected_at_ms) {
            (Some(ms), _) => format::millis(ms),
            (None, Some(_)) => "not seen".to_owned(),
            (None, None) => format::NONE.to_owned(),
        };
        let recovery = words::recovery(fault).map_or(recovery.clone(), |said| format!("{recovery} ({})", cell(&said)));
        let injected = format::moment_ms(fault.injected_at_ms);
        let injected = words::trigger(fault).map_or(injected.clone(), |said| format!("{injected} ({})", cell(&said)));
        let hit = fault.error.as_ref().map_or_else(|| fault.hit.clone(), |error| format!("failed: {error}"));
        let _ = writeln!(
            out,
            "| {} | {} {} | {} | {} | {} | {} | {recovery} | {} |",
            cell(&fault.id),
            cell(&fault.kind),
            cell(&fault.detail),
            cell(on),
            injected,
            format::moment_ms(fault.healed_at_ms),
            format::moment_ms(fault.recovered_at_ms),
            cell(&hit),
        );
    }
    more(out, summary.faults.len(), ROWS);
}

/// The most cohorts beside each other.
const COHORTS: usize = 8;

fn blast_radius(out: &mut String, summary: &Summary) {
    let Some(matrix) = blast::matrix(summary) else { return };
    let cohorts: Vec<_> = matrix.cohorts.iter().take(COHORTS).map(|name| cell(name)).collect();
    let _ = writeln!(out, "\n### Blast radius\n\n| fault | {} |", cohorts.join(" | "));
    let _ = writeln!(out, "|---|{}", "---|".repeat(cohorts.len()));
    for fault in matrix.faults.iter().take(ROWS) {
        let figures = fault.cells.iter().take(COHORTS).map(|figures| {
            let lines = Measure::ALL.into_iter().map(|measure| {
                let effect = measure.of(figures);
                let (name, short, change) = (measure.name(), measure.short(effect), blast::change(effect));
                if change.is_empty() { format!("{name} {short}") } else { format!("**{name} {short} {change}**") }
            });
            lines.collect::<Vec<_>>().join("<br>")
        });
        let figures: Vec<_> = figures.collect();
        let remark = blast::remark(fault).map(|remark| format!("<br>{}", cell(&remark))).unwrap_or_default();
        let _ = writeln!(out, "| {}{remark} | {} |", cell(&fault.fault), figures.join(" | "));
    }
    more(out, matrix.faults.len(), ROWS);
    more(out, matrix.cohorts.len(), COHORTS);
    let _ = writeln!(out, "\n<sub>{}</sub>", blast::ABOUT);
    if blast::doubtful(matrix) {
        let _ = writeln!(out, "<sub>{}</sub>", blast::DOUBT);
    }
}

fn who_got_what(out: &mut String, summary: &Summary) {
    let Some(shares) = &summary.shares else { return };
    let heads = shares::COLUMNS.map(|name| name.trim_start_matches('#').to_owned());
    let lines = shares::COLUMNS.map(|name| if name.starts_with('#') { "--:" } else { "---" });
    let _ = writeln!(out, "\n### {}\n\n| {} |\n|{}|", shares::TITLE, heads.join(" | "), lines.join("|"));
    let rows = shares::rows(shares);
    for row in rows.iter().take(ROWS) {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    more(out, rows.len(), ROWS);
    for line in shares::marks(shares) {
        let _ = writeln!(out, "\n{}", cell(&line));
    }
}

fn machine(summary: &Summary) -> String {
    let machine = &summary.machine;
    if machine.cpus == 0 {
        return "unknown machine".to_owned();
    }
    format!("{} × {}, {}", machine.cpus, machine.cpu_model, format::bytes(machine.memory_bytes as f64))
}

fn cell(foreign: &str) -> String {
    text(foreign, CELL)
}

/// A detail with its parts below each other.
fn parts(detail: &str) -> String {
    format::parts(detail, DETAIL).iter().map(|part| text(part, DETAIL)).collect::<Vec<_>>().join("<br>")
}

/// Foreign text on one line in which nothing is markup, a mention or a reference to an issue.
fn text(foreign: &str, width: usize) -> String {
    let line = format::shorten(&format::one_line(foreign), width);
    let mut out = String::with_capacity(line.len() + 8);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // A space of no width keeps a service's reply from calling people or linking to issues.
            '@' if chars.peek().is_some_and(|next| next.is_alphanumeric()) => out.push_str("@\u{200b}"),
            '#' if chars.peek().is_some_and(char::is_ascii_digit) => out.push_str("#\u{200b}"),
            c => out.push(c),
        }
    }
    out
}

/// Text within backquotes: nothing can be escaped there, so what would end it is left out.
fn code(foreign: &str) -> String {
    if foreign.trim().is_empty() {
        return format::NONE.to_owned();
    }
    format::shorten(&format::one_line(foreign), 80).replace(['`', '<', '>', '|'], "")
}

/// Cuts what is too long at the end of a line.
fn cut(mut out: String) -> String {
    if out.len() <= LIMIT {
        return out;
    }
    let mut at = LIMIT;
    while !out.is_char_boundary(at) {
        at -= 1;
    }
    let at = out[..at].rfind('\n').unwrap_or(at);
    out.truncate(at);
    out.push_str("\n\n… cut here; the whole is in report.html.\n");
    out
}
