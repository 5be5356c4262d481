//! What a person reads on the terminal when a run has ended.
//!
//! The order is that of the questions: did it hold, if not why, was the load what it was meant to be, how long did buyers
//! wait, what was broken, what was sold, what did it cost. Colour is never the only carrier of a meaning.

use std::fmt::Write as _;

use super::words::{self, Tone};
use super::{Render, ReportError, format, shares};
use crate::check::{Finding, Verdict, WitnessLine};
use crate::summary::{FaultSummary, Summary};

mod blast;
mod latency;

/// The run as text for a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Whether escape sequences for colour may be used.
    pub color: bool,
    /// Columns of the terminal.
    pub width: usize,
}

impl Render for Terminal {
    fn render(&self, summary: &Summary) -> Result<Vec<u8>, ReportError> {
        let mut page = Page { out: String::new(), color: self.color, width: self.width.clamp(40, 160) };
        page.verdict(summary);
        page.invariants(summary);
        page.witnesses(summary);
        page.objectives(summary);
        page.load(summary);
        page.latency(summary);
        page.faults(summary);
        page.blast(summary);
        page.sold(summary);
        page.shares(summary);
        page.cost(summary);
        page.bullets("Notes", &summary.notes);
        Ok(page.out.into_bytes())
    }
}

/// Styles of text, as the numbers of their escape sequences.
#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Amber,
    Red,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Green => "1;32",
            Ink::Amber => "1;33",
            Ink::Red => "1;31",
        }
    }
}

impl From<Tone> for Ink {
    fn from(tone: Tone) -> Ink {
        match tone {
            Tone::Pass => Ink::Green,
            Tone::Unknown => Ink::Amber,
            Tone::Fail => Ink::Red,
        }
    }
}

struct Page {
    out: String,
    color: bool,
    width: usize,
}

impl Page {
    fn ink(&self, ink: Ink, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.out.push('\n');
        let text = self.ink(Ink::Bold, text);
        self.line(&text);
    }

    /// A paragraph, broken at words, each line with the same indent.
    fn paragraph(&mut self, indent: usize, text: &str, ink: Option<Ink>) {
        for line in wrap(text, self.width.saturating_sub(indent)) {
            let line = ink.map_or_else(|| line.clone(), |ink| self.ink(ink, &line));
            self.line(&format!("{}{line}", " ".repeat(indent)));
        }
    }

    fn bullets(&mut self, title: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.heading(title);
        for item in items {
            self.bullet(&format::one_line(item));
        }
    }

    fn bullet(&mut self, text: &str) {
        for (i, line) in wrap(text, self.width.saturating_sub(4)).iter().enumerate() {
            self.line(&format!("  {} {line}", if i == 0 { "-" } else { " " }));
        }
    }

    fn verdict(&mut self, summary: &Summary) {
        let (headline, tone) = words::headline(summary);
        let title = format::one_line(words::title(summary));
        let badge = self.ink(tone.into(), &format!("{} {headline}", tone.sign()));
        let room = self.width.saturating_sub(format::columns(headline) + 4);
        let title = self.ink(Ink::Bold, &format::shorten(&title, room));
        self.line(&format!("{badge}  {title}"));
        self.paragraph(2, &format::one_line(&summary.verdict_reason), None);
        let code = summary.exit_code;
        let facts = format!("exit code {code} ({}), seed {}", words::exit_meaning(code), summary.seed);
        self.paragraph(2, &facts, Some(Ink::Dim));
        if summary.partial {
            let ended = format::one_line(words::ended(summary));
            self.paragraph(
                2,
                &format!("! PARTIAL: the run was cut short ({ended}); all of this is about a part of it."),
                Some(Ink::Amber),
            );
        }
        self.bullets("The harness distrusts its own measurement", &summary.distrust);
    }

    fn invariants(&mut self, summary: &Summary) {
        self.heading("Invariants");
        if summary.invariants.is_empty() {
            self.line("  none were judged");
        }
        if let Some(text) = words::client_side(summary) {
            self.paragraph(2, &text, Some(Ink::Amber));
        }
        let ids = widest(summary.invariants.iter().map(|f| f.id.as_str())).min(8);
        let names = widest(summary.invariants.iter().map(|f| f.name.as_str())).min(40);
        for finding in &summary.invariants {
            let tone = Tone::from(finding.verdict);
            let sign = self.ink(tone.into(), tone.sign());
            // Without much room beside them, the details stand below the names.
            let lead = ids + names + 8;
            let (indent, below) = if self.width < lead + 32 { (8, true) } else { (lead, false) };
            let id = format::pad(&format::shorten(&format::one_line(&finding.id), ids), ids);
            let name = format::pad(&format::shorten(&format::one_line(&finding.name), names), names);
            let details = match tone {
                Tone::Fail => vec!["violated, as shown below".to_owned()],
                _ => format::parts(&finding.detail, usize::MAX),
            };
            let mut lines: Vec<_> =
                details.iter().flat_map(|part| wrap(part, self.width.saturating_sub(indent))).collect();
            if tone == Tone::Pass {
                lines = lines.iter().map(|line| self.ink(Ink::Dim, line)).collect();
            }
            let beside = if below || lines.is_empty() { String::new() } else { lines.remove(0) };
            self.line(&format!("  {sign} {id}  {name}  {beside}"));
            for line in lines {
                self.line(&format!("{}{line}", " ".repeat(indent)));
            }
        }
    }

    fn witnesses(&mut self, summary: &Summary) {
        for finding in summary.invariants.iter().filter(|f| f.verdict == Verdict::Fail) {
            self.witness(finding);
        }
    }

    /// In full: this is the one part that nobody should have to open a file for.
    fn witness(&mut self, finding: &Finding) {
        let heading = format!("Why {} {} fails", format::one_line(&finding.id), format::one_line(&finding.name));
        self.heading(&heading);
        for part in format::parts(&finding.detail, usize::MAX) {
            self.paragraph(2, &part, None);
        }
        if finding.witness.is_empty() {
            return;
        }
        self.out.push('\n');
        let times: Vec<_> = finding.witness.iter().map(time_of).collect();
        let time = widest(times.iter().map(String::as_str));
        let source = widest(finding.witness.iter().map(|l| l.source.as_str())).min(8);
        let user = widest(finding.witness.iter().map(|l| l.user.as_str())).min(20);
        let indent = 4 + time + 2 + source + 2 + if user > 0 { user + 2 } else { 0 };
        for (line, at) in finding.witness.iter().zip(&times) {
            let mark = if line.offending { "➤" } else { " " };
            let mut lead = format!("{}  {}  ", format::pad_left(at, time), cell(&line.source, source));
            if user > 0 {
                let _ = write!(lead, "{}  ", cell(&line.user, user));
            }
            let ink = line.offending.then_some(Ink::Red);
            let text = format::one_line(&line.text);
            for (i, part) in wrap(&text, self.width.saturating_sub(indent).max(24)).iter().enumerate() {
                let row =
                    if i == 0 { format!("  {mark} {lead}{part}") } else { format!("{}{part}", " ".repeat(indent)) };
                let row = ink.map_or_else(|| row.clone(), |ink| self.ink(ink, &row));
                self.line(&row);
            }
        }
    }

    fn objectives(&mut self, summary: &Summary) {
        if summary.slos.is_empty() {
            return;
        }
        self.heading("Objectives");
        let names = widest(summary.slos.iter().map(|s| s.name.as_str())).min(56);
        for slo in &summary.slos {
            let tone = words::slo_tone(slo.met);
            let sign = self.ink(tone.into(), tone.sign());
            let word = format::pad(words::slo_word(slo.met), 7);
            self.line(&format!("  {sign} {word}  {}  {}", cell(&slo.name, names), format::one_line(&slo.measured)));
        }
    }

    fn load(&mut self, summary: &Summary) {
        let load = &summary.load;
        self.heading("Load");
        let share = if load.dropped > 0 {
            format!(" ({})", format::percent(load.dropped, load.planned))
        } else {
            String::new()
        };
        let rows = [
            (
                "arrivals",
                format!(
                    "{} planned, {} sent, {} dropped{share}; {} with retries",
                    format::count(load.planned),
                    format::count(load.sent),
                    format::count(load.dropped),
                    format::plural(load.requests, "request")
                ),
            ),
            (
                "rate",
                format!(
                    "{}/s offered, peak {}/s planned, {} requests/s sent",
                    format::number(load.offered_rps),
                    format::number(load.peak_rps),
                    format::number(load.peak_requests_per_second)
                ),
            ),
            ("send lag", words::send_lag(load)),
            ("buyers", format!("{} busy at once of {}", format::count(load.busy_max), format::count(load.buyers))),
        ];
        self.pairs(&rows);
        if let Some(text) = words::suppressed(summary) {
            self.pairs(&[("retries", format::one_line(&text))]);
        }
        if load.starved {
            let share = format::number(load.generator_wait_fraction * 100.0);
            let text = format!(
                "! The generator was starved: it waited for a processor for {share}% of the load's time, so these latencies include its own delay."
            );
            self.paragraph(2, &text, Some(Ink::Amber));
        }
    }

    fn pairs(&mut self, rows: &[(&str, String)]) {
        let names = widest(rows.iter().map(|(name, _)| *name)).max(8);
        for (name, value) in rows {
            let name = self.ink(Ink::Dim, &format::pad(name, names));
            for (i, part) in wrap(value, self.width.saturating_sub(names + 4)).iter().enumerate() {
                let lead = if i == 0 { name.clone() } else { " ".repeat(names) };
                self.line(&format!("  {lead}  {part}"));
            }
        }
    }

    /// A table whose first column is text and whose others are figures.
    fn table(&mut self, rows: &[Vec<String>]) {
        let widths = column_widths(rows);
        for (n, row) in rows.iter().enumerate() {
            let mut text = String::from("  ");
            for (i, (value, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(&if i == 0 {
                    format::pad(value, *width)
                } else {
                    format!("  {}", format::pad_left(value, *width))
                });
            }
            let text = if n == 0 { self.ink(Ink::Dim, &text) } else { text };
            self.line(&text);
        }
    }

    fn faults(&mut self, summary: &Summary) {
        if summary.faults.is_empty() {
            return;
        }
        self.heading("Faults");
        for fault in &summary.faults {
            let on = fault.link.as_deref().or(fault.role.as_deref()).map(|on| format!(" on {on}")).unwrap_or_default();
            let detail = if fault.detail.trim().is_empty() { String::new() } else { format!(" {}", fault.detail) };
            self.bullet(&format::one_line(&format!("{}: {}{detail}{on}", fault.id, fault.kind)));
            // Where it was skipped, the reason that follows says so.
            if fault.skipped.is_none() {
                self.paragraph(6, &course(fault), None);
            }
            if let Some(trigger) = words::trigger(fault) {
                self.paragraph(6, &format::one_line(&trigger), fault.skipped.as_ref().map(|_| Ink::Amber));
            }
            if let Some(remarks) = words::recovery(fault) {
                self.paragraph(6, &format::one_line(&remarks), Some(Ink::Amber));
            }
            if !fault.hit.trim().is_empty() {
                self.paragraph(6, &format::one_line(&format!("hit {}", fault.hit)), Some(Ink::Dim));
            }
            if let Some(error) = &fault.error {
                self.paragraph(4, &format!("! failed: {}", format::one_line(error)), Some(Ink::Amber));
            }
        }
    }

    fn sold(&mut self, summary: &Summary) {
        let goods = &summary.goodput;
        let intents = &summary.outcomes.intents;
        self.heading("Sold");
        self.pairs(&[
            (
                "goodput",
                format!(
                    "{} committed orders/s ({} orders)",
                    format::number(goods.per_second),
                    format::count(goods.committed_orders)
                ),
            ),
            (
                "units",
                format!(
                    "{} of {} sold; {} acknowledged, {} released",
                    format::signed(goods.units_sold),
                    format::signed(goods.stock),
                    format::plural(goods.acknowledged_orders, "order"),
                    format::plural(goods.released_orders, "hold")
                ),
            ),
            (
                "purchases",
                format!(
                    "{} tried: {} ok, {} refused, {} indeterminate; {} retried, {} unclear at first and found in the ledger",
                    format::count(intents.total),
                    format::count(intents.ok),
                    format::count(intents.fail),
                    format::count(intents.info),
                    format::count(intents.retried),
                    format::count(intents.recovered)
                ),
            ),
        ]);
        if let Some(text) = shares::sold_out_at_payment(summary) {
            self.pairs(&[("at payment", text)]);
        }
    }

    fn shares(&mut self, summary: &Summary) {
        let Some(shares) = &summary.shares else { return };
        self.heading(shares::TITLE);
        let heads = shares::COLUMNS.map(|name| name.trim_start_matches('#').to_owned()).to_vec();
        let mut rows: Vec<Vec<String>> = std::iter::once(heads).chain(shares::rows(shares)).collect();
        for row in &mut rows {
            row[0] = format::shorten(&format::one_line(&row[0]), 24);
            // Who was refused stands below, by the reason.
            row.pop();
        }
        self.table(&rows);
        for line in shares::marks(shares) {
            self.line(&format!("  {line}"));
        }
    }

    fn cost(&mut self, summary: &Summary) {
        let cost = &summary.cost;
        if cost.cpu_s.is_empty() && cost.rss_peak_bytes.is_empty() && cost.wal_bytes_per_order.is_none() {
            return;
        }
        self.heading("Cost");
        let mut rows = vec![["role", "CPU", "per 1,000 orders", "peak memory"].map(str::to_owned).to_vec()];
        let roles: std::collections::BTreeSet<_> = cost.cpu_s.keys().chain(cost.rss_peak_bytes.keys()).collect();
        for role in roles {
            let cpu = |map: &std::collections::BTreeMap<String, f64>| {
                map.get(role).map_or_else(|| format::NONE.into(), |s| format::cpu_seconds(*s))
            };
            let memory =
                cost.rss_peak_bytes.get(role).map_or_else(|| format::NONE.into(), |b| format::bytes(*b as f64));
            rows.push(vec![
                format::shorten(&format::one_line(role), 24),
                cpu(&cost.cpu_s),
                cpu(&cost.cpu_s_per_1000_orders),
                memory,
            ]);
        }
        self.table(&rows);
        if let Some(wal) = cost.wal_bytes_per_order {
            self.line(&format!("  {} of write-ahead log per order", format::bytes(wal)));
        }
    }
}

/// When a fault was injected, when it was healed, and when all was well again.
fn course(fault: &FaultSummary) -> String {
    let Some(injected) = fault.injected_at_ms else { return "not injected".to_owned() };
    let injected = format::moment_ms(Some(injected));
    let Some(healed) = fault.healed_at_ms else { return format!("injected at {injected}, never healed") };
    let healed = format::moment_ms(Some(healed));
    match fault.recovery_ms {
        Some(ms) => {
            let steady = format::moment_ms(fault.recovered_at_ms);
            let took = format::millis(ms);
            format!("injected at {injected}, healed at {healed}, steady again at {steady}, {took} after healing")
        }
        None => format!("injected at {injected}, healed at {healed}, no recovery seen"),
    }
}

fn time_of(line: &WitnessLine) -> String {
    line.at_us.map(|us| format!("{} s", format::moment_us(us))).unwrap_or_default()
}

fn cell(text: &str, width: usize) -> String {
    format::pad(&format::shorten(&format::one_line(text), width), width)
}

/// How wide each column of a table is.
fn column_widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|i| widest(rows.iter().filter_map(|row| row.get(i).map(String::as_str)))).collect()
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| format::columns(&format::one_line(text))).max().unwrap_or(0)
}

/// The text broken into lines of at most so many columns, at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word = word.to_owned();
        if !line.is_empty() && format::columns(&line) + 1 + format::columns(&word) > width {
            lines.push(std::mem::take(&mut line));
        }
        // A word longer than a line, as Chinese sentences are, is broken wherever the line ends.
        while format::columns(&word) > width {
            let (head, tail) = split_at_column(&word, width);
            lines.push(head);
            word = tail;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn split_at_column(word: &str, width: usize) -> (String, String) {
    let mut used = 0;
    for (at, c) in word.char_indices() {
        used += format::columns(c.encode_utf8(&mut [0; 4]));
        if used > width {
            return (word[..at].to_owned(), word[at..].to_owned());
        }
    }
    (word.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_breaks_at_spaces_and_within_long_words() {
        assert_eq!(wrap("aaa bbb ccc ddd", 8), ["aaa bbb", "ccc ddd"]);
        assert_eq!(wrap("秒杀秒杀秒杀", 8), ["秒杀秒杀", "秒杀"]);
        assert!(wrap("", 8).is_empty());
        assert_eq!(wrap("a 0123456789", 8), ["a", "01234567", "89"]);
    }
}
