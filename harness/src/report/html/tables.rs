//! The tables of the page: what stands in them, with units; how they look is up to the template.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;

use super::super::blast::{self, Measure};
use super::super::{format, shares, words};
use super::clip;
use crate::summary::{Change, LatencyStats, Summary};

/// A table whose first columns are text and whose others are figures.
#[derive(Template)]
#[template(path = "table.html")]
pub(super) struct Table {
    head: Vec<Head>,
    rows: Vec<Vec<Cell>>,
}

struct Head {
    text: String,
    figure: bool,
}

impl Table {
    /// A leading `#` of a column's name marks one of figures.
    fn new(names: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> Table {
        let head: Vec<_> = names
            .iter()
            .map(|n| Head { text: n.trim_start_matches('#').to_owned(), figure: n.starts_with('#') })
            .collect();
        let mut rows: Vec<_> = rows.into_iter().collect();
        for row in &mut rows {
            for (cell, head) in row.iter_mut().zip(&head) {
                cell.label.clone_from(&head.text);
            }
        }
        Table { head, rows }
    }
}

/// A cell, with a second line in smaller letters.
#[derive(Default)]
struct Cell {
    /// The name of its column, for phones: there a row is a block and its cells stand below each other.
    label: String,
    text: String,
    below: String,
    tone: &'static str,
    figure: bool,
}

impl Cell {
    fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    fn figure(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), figure: true, ..Cell::default() }
    }

    fn below(mut self, text: impl Into<String>) -> Cell {
        self.below = text.into();
        self
    }

    fn toned(mut self, tone: &'static str) -> Cell {
        self.tone = tone;
        self
    }
}

/// Percentiles with their intervals, by step or by phase.
pub(super) fn latency<'a>(
    what: &str,
    stats: impl IntoIterator<Item = (&'a String, &'a LatencyStats)>,
) -> Option<Table> {
    let mut stats = stats.into_iter().peekable();
    stats.peek()?;
    let rows = stats.map(|(name, stats)| {
        vec![
            Cell::text(name),
            Cell::figure(format::count(stats.count)),
            Cell::figure(format::micros_or_none(stats.us_p50)),
            Cell::figure(format::micros_or_none(stats.us_p90)),
            tail(stats, "TP99", 1_000, stats.us_p99, stats.us_p99_interval),
            tail(stats, "TP999", 10_000, stats.us_p999, stats.us_p999_interval),
            Cell::figure(if stats.count == 0 { format::NONE.to_owned() } else { format::micros(stats.us_max) }),
            Cell::figure(if stats.count == 0 { format::NONE.to_owned() } else { format::millis(stats.us_mean / 1e3) }),
        ]
    });
    Some(Table::new(&[what, "#samples", "#TP50", "#TP90", "#TP99", "#TP999", "#largest", "#mean"], rows))
}

fn tail(stats: &LatencyStats, name: &str, needed: u64, value: Option<u64>, interval: Option<[u64; 2]>) -> Cell {
    let cell = Cell::figure(format::micros_or_none(value));
    match (value, interval) {
        (None, _) => cell.below(words::missing(stats, name, needed)),
        (_, Some([low, high])) => cell.below(format!("95%: {} – {}", format::micros(low), format::micros(high))),
        _ => cell,
    }
}

/// The faults, with what they hit and how long recovery took.
pub(super) fn faults(summary: &Summary) -> Option<Table> {
    if summary.faults.is_empty() {
        return None;
    }
    let rows = summary.faults.iter().map(|fault| {
        let on = fault.link.as_deref().or(fault.role.as_deref()).unwrap_or(format::NONE);
        let late = fault.injected_at_ms.map(|at| at - fault.planned_at_ms).filter(|late| late.abs() >= 50.0);
        let remarks = words::recovery(fault).map(|text| clip(&text)).unwrap_or_default();
        let detail =
            [Some(fault.detail.clone()), words::trigger(fault)].into_iter().flatten().collect::<Vec<_>>().join("; ");
        let injected = Cell::figure(format::moment_ms(fault.injected_at_ms));
        let recovery = match (fault.recovery_ms, fault.injected_at_ms) {
            (Some(ms), _) => Cell::figure(format::millis(ms)),
            (None, Some(_)) => Cell::figure("not seen").toned("unknown"),
            (None, None) => Cell::figure(format::NONE),
        };
        vec![
            Cell::text(&fault.id).below(clip(&detail)),
            Cell::text(&fault.kind),
            Cell::text(on),
            late.map_or(Cell { figure: true, ..Cell::text(&injected.text) }, |late| {
                Cell::figure(&injected.text).below(format!(
                    "{} {} than planned",
                    format::millis(late.abs()),
                    if late > 0.0 { "later" } else { "earlier" }
                ))
            }),
            Cell::figure(format::moment_ms(fault.healed_at_ms)),
            Cell::figure(format::moment_ms(fault.recovered_at_ms)),
            recovery.below(remarks),
            match &fault.error {
                Some(error) => Cell::text(clip(&format!("failed: {error}"))).toned("fail").below(clip(&fault.hit)),
                None => Cell::text(clip(&fault.hit)),
            },
        ]
    });
    let names = ["fault", "kind", "on", "#injected", "#healed", "#steady again", "#recovery took", "what it hit"];
    Some(Table::new(&names, rows))
}

/// The figures behind the blast radius.
pub(super) fn blast(summary: &Summary) -> Option<Table> {
    let matrix = blast::matrix(summary)?;
    let rows = matrix.faults.iter().flat_map(|fault| fault.cells.iter().map(move |cell| (fault, cell)));
    let rows = rows.map(|(fault, cell)| {
        let mut row = vec![Cell::text(clip(&fault.fault)).below(clip(&cell.cohort))];
        row.extend(Measure::ALL.into_iter().map(|measure| {
            let effect = measure.of(cell);
            let tone = match effect.change {
                Change::None => "",
                Change::Worse => "worse",
                Change::Better => "better",
            };
            Cell::figure(measure.sides(effect)).below(clip(&measure.long(effect))).toned(tone)
        }));
        let left_out = match cell.left_out {
            0 => blast::against(cell).to_owned(),
            n => format!("{}; {} without a like left out", blast::against(cell), format::count(n)),
        };
        let samples = format!("{} against {}", format::count(cell.samples), format::count(cell.undisturbed));
        row.push(Cell::figure(samples).below(left_out));
        row
    });
    Some(Table::new(&["fault, cohort", "#TP99", "#errors", "#goodput", "#samples"], rows))
}

/// What the generator did.
pub(super) fn load(summary: &Summary) -> Table {
    let load = &summary.load;
    let share =
        if load.dropped > 0 { format!(" ({})", format::percent(load.dropped, load.planned)) } else { String::new() };
    let mut rows = vec![
        vec![
            Cell::text("Arrivals"),
            Cell::text(format!(
                "{} planned, {} sent, {} dropped{share}",
                format::count(load.planned),
                format::count(load.sent),
                format::count(load.dropped)
            )),
        ],
        vec![Cell::text("Requests"), Cell::text(format!("{}, retries included", format::count(load.requests)))],
        vec![
            Cell::text("Rate"),
            Cell::text(format!(
                "{}/s offered on average, {}/s planned at the peak, {} requests/s sent at most",
                format::number(load.offered_rps),
                format::number(load.peak_rps),
                format::number(load.peak_requests_per_second)
            )),
        ],
        vec![Cell::text("Send lag"), Cell::text(words::send_lag(load))],
        vec![
            Cell::text("Generator"),
            Cell::text(format!(
                "waited for a processor {}% of the time; {} of {} virtual buyers busy at once",
                format::number(load.generator_wait_fraction * 100.0),
                format::count(load.busy_max),
                format::count(load.buyers)
            )),
        ],
    ];
    rows.extend(words::suppressed(summary).map(|text| vec![Cell::text("Retries"), Cell::text(clip(&text))]));
    Table::new(&[], rows)
}

/// What was sold.
pub(super) fn sales(summary: &Summary) -> Table {
    let goods = &summary.goodput;
    let mut rows = vec![
        noted("Committed orders", format::count(goods.committed_orders), "whatever became of them"),
        noted("Acknowledged orders", format::count(goods.acknowledged_orders), "a buyer was told so"),
        noted(
            "Units sold",
            format!("{} of {}", format::signed(goods.units_sold), format::signed(goods.stock)),
            "paid for",
        ),
        noted("Holds released", format::count(goods.released_orders), "by expiry or cancel"),
        noted(
            "Goodput",
            format!("{}/s", format::number(goods.per_second)),
            "committed orders, from the first to the last",
        ),
    ];
    let told = summary.outcomes.sold_out_at_payment;
    if told > 0 {
        rows.push(noted("Sold out at payment", format::count(told), "buyers who had an order"));
    }
    Table::new(&[], rows)
}

/// Who got what, by cohort.
pub(super) fn shares(summary: &Summary) -> Option<Table> {
    let shares = summary.shares.as_ref()?;
    let cell = |(text, head): (String, &&str)| {
        if head.starts_with('#') { Cell::figure(text) } else { Cell::text(clip(&text)) }
    };
    let rows = shares::rows(shares).into_iter().map(|row| row.into_iter().zip(&shares::COLUMNS).map(cell).collect());
    Some(Table::new(&shares::COLUMNS, rows))
}

/// How purchases ended, with their retries folded in.
pub(super) fn purchases(summary: &Summary) -> Table {
    let intents = &summary.outcomes.intents;
    Table::new(
        &[],
        [
            noted("Tried", format::count(intents.total), "retries folded in"),
            noted("Acknowledged", format::count(intents.ok), ""),
            noted("Refused", format::count(intents.fail), "sold out, and the like"),
            noted("Indeterminate", format::count(intents.info), "when the buyer gave up"),
            noted("Retried", format::count(intents.retried), "tried more than once"),
            noted("Found in the ledger", format::count(intents.recovered), "though the first answer was unclear"),
        ],
    )
}

fn noted(name: &str, value: String, note: &str) -> Vec<Cell> {
    vec![Cell::text(name).below(note), Cell::figure(value)]
}

/// Outcomes by reason, the most frequent first.
pub(super) fn reasons(summary: &Summary) -> Option<Table> {
    let outcomes = &summary.outcomes;
    let total = outcomes.ok + outcomes.fail.values().sum::<u64>() + outcomes.info;
    if total == 0 {
        return None;
    }
    let row = |outcome: &str, tone, reason: &str, n: u64| {
        vec![
            Cell::text(outcome).toned(tone),
            Cell::text(reason),
            Cell::figure(format::count(n)),
            Cell::figure(format::percent(n, total)),
        ]
    };
    let mut rows = vec![row("ok", "ok", "", outcomes.ok)];
    rows.extend(by_count(&outcomes.fail).into_iter().map(|(reason, n)| row("refused", "refused", reason, n)));
    rows.extend(
        by_count(&outcomes.info_reasons).into_iter().map(|(reason, n)| row("indeterminate", "info", reason, n)),
    );
    let named: u64 = outcomes.info_reasons.values().sum();
    if outcomes.info > named {
        rows.push(row("indeterminate", "info", "", outcomes.info - named));
    }
    Some(Table::new(&["outcome", "reason", "#requests", "#share"], rows))
}

fn by_count(reasons: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut reasons: Vec<_> = reasons.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    reasons
}

/// Outcomes by step, with the reasons in small letters.
pub(super) fn outcome_steps(summary: &Summary) -> Option<Table> {
    let steps = &summary.outcomes.steps;
    if steps.is_empty() {
        return None;
    }
    let rows = words::in_step_order(summary, steps).into_iter().map(|(step, outcomes)| {
        let of = |prefix: &str| {
            let reasons: BTreeMap<String, u64> =
                outcomes.iter().filter_map(|(name, n)| Some((name.strip_prefix(prefix)?.to_owned(), *n))).collect();
            let total: u64 = reasons.values().sum();
            let words: Vec<_> =
                by_count(&reasons).into_iter().map(|(reason, n)| format!("{reason} {}", format::count(n))).collect();
            Cell::figure(format::count(total)).below(words.join(", "))
        };
        let ok = outcomes.get("ok").copied().unwrap_or(0);
        vec![Cell::text(step), Cell::figure(format::count(ok)), of("fail:"), of("info:")]
    });
    Some(Table::new(&["step", "#ok", "#refused", "#indeterminate"], rows))
}

/// What each role consumed.
pub(super) fn cost(summary: &Summary) -> Option<Table> {
    let cost = &summary.cost;
    let roles: BTreeSet<_> = cost.cpu_s.keys().chain(cost.rss_peak_bytes.keys()).collect();
    if roles.is_empty() {
        return None;
    }
    let seconds = |value: Option<&f64>| value.map_or_else(|| format::NONE.to_owned(), |s| format::cpu_seconds(*s));
    let rows = roles.into_iter().map(|role| {
        vec![
            Cell::text(role),
            Cell::figure(seconds(cost.cpu_s.get(role))),
            Cell::figure(seconds(cost.cpu_s_per_1000_orders.get(role))),
            Cell::figure(
                cost.rss_peak_bytes.get(role).map_or_else(|| format::NONE.to_owned(), |b| format::bytes(*b as f64)),
            ),
        ]
    });
    Some(Table::new(&["role", "#CPU", "#CPU per 1,000 orders", "#peak memory"], rows))
}

/// Calls over each link.
pub(super) fn links(summary: &Summary) -> Option<Table> {
    if summary.links.is_empty() {
        return None;
    }
    let rows = summary.links.iter().map(|link| {
        vec![
            Cell::text(format!("{} → {}", link.from, link.to)),
            Cell::figure(link.calls.map_or_else(|| format::NONE.to_owned(), format::count)),
            Cell::figure(link.calls_per_order.map_or_else(|| format::NONE.to_owned(), format::number)),
            Cell::figure(format::count(link.connections)),
            Cell::figure(format::bytes(link.bytes_up as f64)),
            Cell::figure(format::bytes(link.bytes_down as f64)),
        ]
    });
    let names = ["link", "#calls", "#calls per order", "#connections", "#sent", "#received"];
    Some(Table::new(&names, rows))
}
