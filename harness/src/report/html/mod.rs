//! `report.html`: the whole run on one page that opens offline, on a phone, in the dark and on paper.
//!
//! The page is built of parts, each a template of its own (`harness/templates`): figures, tables and witnesses. All text
//! is escaped by the templates; only other templates and the charts are put in as they are.

use askama::Template;

use super::chart::TimeAxis;
use super::words::{self, Tone};
use super::{Render, ReportError, blast, format, shares};
use crate::check::{Verdict, WitnessLine};
use crate::summary::{LatencyStats, Summary};

mod figures;
mod readout;
mod tables;

use figures::Figure;
use readout::Readout;
use tables::Table;

/// The longest text of a cell or a paragraph, in columns.
const LONGEST: usize = 1_200;

/// The most remarks of a kind that are shown.
const REMARKS: usize = 40;

/// The most rows of a witness that are shown.
const WITNESS_ROWS: usize = 120;

/// The run as one page.
#[derive(Debug, Clone, Copy, Default)]
pub struct Html;

impl Render for Html {
    fn render(&self, summary: &Summary) -> Result<Vec<u8>, ReportError> {
        Ok(without_controls(Page::of(summary)?.render()?).into_bytes())
    }
}

/// Escaping does not know control characters, some of which make a page invalid and others reorder its text. Our own
/// templates have none but line breaks, so any other came from outside.
fn without_controls(page: String) -> String {
    let foreign =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if page.contains(foreign) { page.replace(foreign, "\u{fffd}") } else { page }
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    summary: &'a Summary,
    title: String,
    ended: String,
    reason: String,
    distrust: Vec<String>,
    notes: Vec<String>,
    headline: &'static str,
    tone: &'static str,
    exit_meaning: &'static str,
    facts: Vec<(&'static str, String)>,
    cards: Vec<Card>,
    invariants: Vec<Invariant<'a>>,
    client_side: Option<String>,
    tally: String,
    slos: Vec<(Tone, &'static str, &'a str, &'a str)>,
    timeline: Option<Figure>,
    faults: Option<Table>,
    blast: Option<Figure>,
    blast_about: Vec<String>,
    blast_table: Option<Table>,
    arrivals: Option<Figure>,
    load: Table,
    starved: Option<String>,
    latency: Option<Figure>,
    ranges: Option<Figure>,
    steps: Option<Table>,
    cohorts: Option<Table>,
    phases: Option<Table>,
    phase_steps: Vec<(String, Table)>,
    stock: Option<Figure>,
    sales: Table,
    purchases: Table,
    shares: Option<Table>,
    marks: Vec<String>,
    outcomes: Option<Figure>,
    reasons: Option<Table>,
    outcome_steps: Option<Table>,
    cost: Option<Table>,
    wal: Option<String>,
    links: Option<Table>,
    machine: Vec<(&'static str, String)>,
    repeat: String,
    proves: &'static [&'static str],
    cannot: &'static [&'static str],
    glossary: &'static [(&'static str, &'static str)],
}

/// A key figure at the top of the page.
struct Card {
    label: String,
    value: String,
    note: String,
    tone: &'static str,
}

/// An invariant and, if it failed, why.
struct Invariant<'a> {
    id: &'a str,
    name: &'a str,
    demand: &'static str,
    /// Its parts.
    detail: Vec<String>,
    tone: Tone,
    witness: Option<Witness>,
}

/// A violation, readable by a person.
#[derive(Template)]
#[template(path = "witness.html")]
struct Witness {
    chart: Option<Figure>,
    rows: Vec<WitnessRow>,
    left_out: usize,
}

struct WitnessRow {
    number: usize,
    at: String,
    lasted: String,
    source: String,
    user: String,
    text: String,
    offending: bool,
}

impl<'a> Page<'a> {
    fn of(summary: &'a Summary) -> Result<Page<'a>, ReportError> {
        let time = TimeAxis::of(summary);
        let (headline, tone) = words::headline(summary);
        let cohorts = words::cohort_steps(summary);
        Ok(Page {
            summary,
            title: clip(words::title(summary)),
            ended: clip(words::ended(summary)),
            reason: clip(&summary.verdict_reason),
            distrust: remarks(&summary.distrust),
            notes: remarks(&summary.notes),
            headline,
            tone: tone.name(),
            exit_meaning: words::exit_meaning(summary.exit_code),
            facts: facts(summary),
            cards: cards(summary),
            invariants: invariants(summary, &time)?,
            client_side: words::client_side(summary),
            tally: tally(summary),
            slos: summary
                .slos
                .iter()
                .map(|s| (words::slo_tone(s.met), words::slo_word(s.met), s.name.as_str(), s.measured.as_str()))
                .collect(),
            timeline: figures::timeline(summary, &time)?,
            faults: tables::faults(summary),
            blast: figures::blast(summary)?,
            blast_about: blast_about(summary),
            blast_table: tables::blast(summary),
            arrivals: figures::arrivals(summary, &time)?,
            load: tables::load(summary),
            starved: starved(summary),
            latency: figures::latency(summary, &time)?,
            ranges: figures::ranges(summary)?,
            steps: tables::latency("step", words::in_step_order(summary, &summary.latency.steps)),
            cohorts: tables::latency("cohort · step", cohorts.iter().map(|(name, stats)| (name, *stats))),
            phases: tables::latency("phase", in_order(summary)),
            phase_steps: phase_steps(summary),
            stock: figures::stock(summary, &time)?,
            sales: tables::sales(summary),
            purchases: tables::purchases(summary),
            shares: tables::shares(summary),
            marks: summary.shares.as_ref().map(shares::marks).unwrap_or_default(),
            outcomes: figures::outcomes(summary, &time)?,
            reasons: tables::reasons(summary),
            outcome_steps: tables::outcome_steps(summary),
            cost: tables::cost(summary),
            wal: summary.cost.wal_bytes_per_order.map(format::bytes),
            links: tables::links(summary),
            machine: machine(summary),
            repeat: words::repeat(summary),
            proves: words::PROVES,
            cannot: words::CANNOT,
            glossary: words::GLOSSARY,
        })
    }
}

/// The phases' latencies as they came in time; what the timeline does not name comes last.
fn in_order(summary: &Summary) -> Vec<(&String, &LatencyStats)> {
    let mut phases: Vec<_> = summary.latency.phases.iter().collect();
    phases.sort_by_key(|(name, _)| place(summary, name));
    phases
}

fn place(summary: &Summary, phase: &str) -> usize {
    summary.phases.iter().position(|p| p.name == phase).unwrap_or(usize::MAX)
}

fn phase_steps(summary: &Summary) -> Vec<(String, Table)> {
    let mut phases: Vec<_> = summary.latency.phase_steps.iter().collect();
    phases.sort_by_key(|(name, _)| place(summary, name));
    phases
        .into_iter()
        .filter_map(|(phase, steps)| {
            let steps = words::in_step_order(summary, steps);
            Some((phase.clone(), tables::latency("step", steps)?))
        })
        .collect()
}

/// Foreign text cut to what a page can bear; the whole is in `summary.json`.
fn clip(text: &str) -> String {
    format::shorten(&format::one_line(text), LONGEST)
}

/// Remarks, of which a page bears so many.
fn remarks(texts: &[String]) -> Vec<String> {
    let mut shown: Vec<_> = texts.iter().take(REMARKS).map(|text| clip(text)).collect();
    if texts.len() > REMARKS {
        shown.push(format!("… and {} more in summary.json.", texts.len() - REMARKS));
    }
    shown
}

fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let facts = [
        ("Scenario", summary.scenario.clone()),
        ("Run", summary.run_id.clone()),
        ("Started", summary.started_at.clone()),
        ("Ended", summary.ended.clone()),
        ("Seed", summary.seed.to_string()),
    ];
    facts.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect()
}

fn cards(summary: &Summary) -> Vec<Card> {
    let (goods, load) = (&summary.goodput, &summary.load);
    let card = |label: &str, value: String, note: String, tone: &'static str| Card {
        label: label.to_owned(),
        value,
        note,
        tone,
    };
    let oversold = goods.stock > 0 && goods.units_sold > goods.stock;
    let mut cards = vec![
        card(
            "Goodput",
            format!("{} orders/s", format::number(goods.per_second)),
            format!("{} committed", format::plural(goods.committed_orders, "order")),
            "",
        ),
        card(
            "Units sold",
            format!("{} of {}", format::signed(goods.units_sold), format::signed(goods.stock)),
            match (u64::try_from(goods.units_sold), u64::try_from(goods.stock)) {
                (Ok(sold), Ok(stock)) if oversold => format!("{} more than there were", format::count(sold - stock)),
                (Ok(sold), Ok(stock)) if stock > 0 => format!("{} of the stock", format::percent(sold, stock)),
                _ => String::new(),
            },
            if oversold { "fail" } else { "" },
        ),
    ];
    cards.extend(order_cards(summary));
    cards.extend([
        card(
            "Arrivals sent",
            format!("{} of {}", format::count(load.sent), format::count(load.planned)),
            format!("{} dropped", format::count(load.dropped)),
            if load.dropped > 0 { "unknown" } else { "" },
        ),
        card(
            "Peak",
            format!("{}/s", format::number(load.peak_rps)),
            format!("arrivals planned; {} requests/s sent", format::number(load.peak_requests_per_second)),
            "",
        ),
        card(
            "Send lag TP99",
            format::micros_or_none(load.send_lag_us_p99),
            match (load.send_lag_us_p99_interval, load.send_lag_missing.first()) {
                (Some([low, high]), _) => {
                    let (low, high, max) =
                        (format::micros(low), format::micros(high), format::micros(load.send_lag_us_max));
                    format!("95%: {low} – {high}; max {max}")
                }
                (None, missing) => missing.cloned().unwrap_or_default(),
            },
            if load.starved { "unknown" } else { "" },
        ),
        recovery_card(summary),
    ]);
    cards
}

/// The tail of the step that sells.
fn order_cards(summary: &Summary) -> Vec<Card> {
    let Some((step, stats)) = words::order_step(summary) else {
        let card = |name: &str| Card {
            label: name.to_owned(),
            value: format::NONE.to_owned(),
            note: "no samples".to_owned(),
            tone: "",
        };
        return vec![card("TP99"), card("TP999")];
    };
    let card = |name: &str, value: Option<u64>, interval: Option<[u64; 2]>, needed| Card {
        label: format!("{name} of {step}"),
        value: format::micros_or_none(value),
        note: match (value, interval) {
            (None, _) => words::missing(stats, name, needed),
            (_, Some([low, high])) => format!("95%: {} – {}", format::micros(low), format::micros(high)),
            _ => String::new(),
        },
        tone: "",
    };
    vec![
        card("TP99", stats.us_p99, stats.us_p99_interval, 1_000),
        card("TP999", stats.us_p999, stats.us_p999_interval, 10_000),
    ]
}

/// The slowest recovery: what an operator would have had to sit through. One that was never seen is slower than any.
fn recovery_card(summary: &Summary) -> Card {
    let injected: Vec<_> = summary.faults.iter().filter(|f| f.injected_at_ms.is_some()).collect();
    let recovered: Vec<f64> = injected.iter().filter_map(|f| f.recovery_ms).filter(|ms| ms.is_finite()).collect();
    let slowest = format::millis(recovered.iter().copied().fold(f64::NAN, f64::max));
    let all = recovered.len() == injected.len();
    let note = match summary.faults.len() {
        0 => "no faults planned".to_owned(),
        n => {
            let planned = format::plural(n as u64, "fault");
            let others = if all || recovered.is_empty() { String::new() } else { format!(" within {slowest}") };
            format!("{} of {planned} injected, {} recovered{others}", injected.len(), recovered.len())
        }
    };
    Card {
        label: "Slowest recovery".to_owned(),
        value: if all { slowest } else { "not recovered".to_owned() },
        note,
        tone: if all { "" } else { "unknown" },
    }
}

/// Every invariant with its explanation, and with its witness if it has one.
fn invariants<'a>(summary: &'a Summary, time: &TimeAxis) -> Result<Vec<Invariant<'a>>, ReportError> {
    let mut invariants = Vec::new();
    for finding in &summary.invariants {
        let witness = if finding.witness.is_empty() { None } else { Some(Witness::of(&finding.witness, time)?) };
        invariants.push(Invariant {
            id: &finding.id,
            name: &finding.name,
            demand: words::demand(&finding.id),
            detail: format::parts(&finding.detail, LONGEST),
            tone: finding.verdict.into(),
            witness,
        });
    }
    Ok(invariants)
}

/// `10 hold, 1 unknown, 1 violated`.
fn tally(summary: &Summary) -> String {
    let of = |verdict| summary.invariants.iter().filter(|f| f.verdict == verdict).count();
    let words = [(of(Verdict::Fail), "violated"), (of(Verdict::Unknown), "unknown"), (of(Verdict::Pass), "hold")];
    let words: Vec<_> = words.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if words.is_empty() { "none were judged".to_owned() } else { words.join(", ") }
}

impl Witness {
    fn of(lines: &[WitnessLine], time: &TimeAxis) -> Result<Witness, ReportError> {
        let chart = figures::lanes(lines, time)?;
        let rows = lines.iter().enumerate().take(WITNESS_ROWS).map(|(i, line)| WitnessRow {
            number: i + 1,
            at: line.at_us.map(|us| format!("{} s", format::moment_us(us))).unwrap_or_default(),
            lasted: match (line.at_us, line.until_us) {
                (Some(at), Some(until)) if until > at => format::micros((until - at).unsigned_abs()),
                _ => String::new(),
            },
            source: clip(&line.source),
            user: clip(&line.user),
            text: clip(&line.text),
            offending: line.offending,
        });
        Ok(Witness { rows: rows.collect(), chart, left_out: lines.len().saturating_sub(WITNESS_ROWS) })
    }
}

/// What is to be known of the matrix as a whole, and of single rows.
fn blast_about(summary: &Summary) -> Vec<String> {
    let Some(matrix) = blast::matrix(summary) else { return Vec::new() };
    let doubt = blast::doubtful(matrix).then(|| blast::DOUBT.to_owned());
    let rows = matrix.faults.iter().filter_map(|fault| Some(format!("{}: {}.", fault.fault, blast::remark(fault)?)));
    let rows: Vec<String> = rows.collect();
    std::iter::once(blast::ABOUT.to_owned()).chain(doubt).chain(remarks(&rows)).collect()
}

fn starved(summary: &Summary) -> Option<String> {
    let load = &summary.load;
    load.starved.then(|| {
        format!(
            "The generator was starved: for {}% of the load's time it was ready to run and waited for a processor. The latencies \
             on this page include that delay. Run it with more processors, or at a lower rate.",
            format::number(load.generator_wait_fraction * 100.0)
        )
    })
}

fn machine(summary: &Summary) -> Vec<(&'static str, String)> {
    let machine = &summary.machine;
    let known = machine.cpus > 0;
    let facts = [
        ("Processors", if known { format!("{} × {}", machine.cpus, machine.cpu_model) } else { String::new() }),
        ("Memory", if known { format::bytes(machine.memory_bytes as f64) } else { String::new() }),
        ("System", machine.os.clone()),
        ("Kernel", machine.kernel.clone()),
        ("seckill", machine.harness.clone()),
        ("Seed", summary.seed.to_string()),
        ("Schedule hash", summary.schedule_hash.clone()),
    ];
    facts.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect()
}
