//! The table for people, no wider than 110 columns.

use std::fmt::Write as _;

use super::Report;
use super::others::Tool;
use crate::measure::stats::text_us;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} requests per second for {} s; in milliseconds, with the error against the truth\n",
        report.rate, report.seconds
    );
    let _ = write!(out, "{:7} {:>5} {:5} {:>7}  {:>14}", "mode", "conns", "", "truth", "seckill");
    for tool in Tool::ALL {
        let _ = write!(out, "  {:>14}", tool.title());
    }
    out.push('\n');
    let mut mode = "";
    for row in &report.rows {
        let (name, connections) =
            if row.mode == mode { ("", String::new()) } else { (row.mode, row.connections.to_string()) };
        mode = row.mode;
        let ours = row.ours_us.zip(row.error).map_or_else(|| "-".into(), |(us, error)| with_error(us, error, 2));
        let _ = write!(out, "{name:7} {connections:>5} {:5} {:>7}  {ours:>14}", row.quantile, ms(row.truth_us));
        for other in &row.others_us {
            let said = other.us.map_or_else(|| "-".into(), |us| with_error(us, us / row.truth_us - 1.0, 0));
            let _ = write!(out, "  {said:>14}");
        }
        out.push('\n');
    }
    let base = &report.base_us;
    let us = |value: Option<f64>| value.map_or_else(|| "-".into(), |us| text_us(us as u64));
    let _ = writeln!(
        out,
        "\nin each of these: what this machine takes for a request that is answered at once, TP50 {}, TP99 {}",
        us(base.p50),
        us(base.p99)
    );
    for row in &report.rows {
        if let Some(why) = &row.missing {
            let _ = writeln!(out, "{} {}: {why}; a longer turn (--seconds) has them", row.mode, row.quantile);
        }
    }
    for absent in &report.missing {
        let _ = writeln!(out, "MISSING {}: {}", absent.name, absent.why);
    }
    for spoiled in &report.spoiled {
        let error = spoiled.max_error * 100.0;
        let _ = writeln!(out, "a turn of {} was off by {error:.1}%, and {}", spoiled.mode, spoiled.why);
    }
    out + &verdict(report)
}

fn verdict(report: &Report) -> String {
    let (error, limit) = (report.max_error * 100.0, report.limit * 100.0);
    if report.max_error <= report.limit {
        return format!(
            "largest error of seckill: {error:.2}%, where {limit:.0}% is allowed: it can be trusted here\n"
        );
    }
    let remedy = if report.spoiled.is_empty() {
        "nothing disturbed it, so do not believe its latencies on this machine, and report this table"
    } else {
        "the machine was busy: end what else runs, give the harness two processors of its own, and calibrate again"
    };
    format!("largest error of seckill: {error:.1}%, where {limit:.0}% is allowed: {remedy}\n")
}

fn with_error(us: f64, error: f64, digits: usize) -> String {
    format!("{} {:+.digits$}%", ms(us), error * 100.0)
}

fn ms(us: f64) -> String {
    let digits = if us < 1e5 { 2 } else { 1 };
    format!("{:.digits$}", us / 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::others::Reading;
    use super::super::{Other, Row, Spoiled};
    use super::*;
    use crate::history::Machine;
    use crate::workbench::Absent;

    fn report(ours_us: f64) -> Report {
        let error = ours_us / 920_000.0 - 1.0;
        let said = |tool: Tool| Other { tool: tool.key(), us: (tool == Tool::Oha).then_some(20_100.0) };
        Report {
            machine: Machine::default(),
            rate: 1_000,
            seconds: 10,
            base_us: Reading { p50: Some(80.0), p99: Some(120.0), ..Reading::default() },
            rows: vec![Row {
                mode: "stall",
                connections: 64,
                quantile: "p99",
                truth_us: 920_000.0,
                ours_us: Some(ours_us),
                error: Some(error),
                missing: None,
                others_us: Tool::ALL.map(said).to_vec(),
            }],
            max_error: error.abs(),
            limit: super::super::LIMIT,
            spoiled: Vec::new(),
            missing: vec![Absent { name: "wrk".into(), why: "wrk is not installed (get it)".into() }],
        }
    }

    #[test]
    fn fits_a_terminal_and_tells_each_error() {
        let text = text(&report(921_000.0));
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(text.contains("921.0 +0.11%") && text.contains("20.10 -98%") && text.contains("MISSING wrk"), "{text}");
        assert!(text.contains("TP50 80 µs, TP99 120 µs") && text.contains("it can be trusted here"), "{text}");
    }

    #[test]
    fn a_percentile_that_is_not_told_says_why() {
        let mut report = report(921_000.0);
        let why = "not enough samples for TP999 (2,000 of 10,000 needed)";
        let row = report.rows[0].clone();
        report.rows.push(Row { quantile: "p99.9", ours_us: None, error: None, missing: Some(why.into()), ..row });
        let text = text(&report);
        assert!(text.contains(&format!("stall p99.9: {why}")), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    }

    #[test]
    fn beyond_the_limit_it_says_what_to_do() {
        let mut report = report(1_000_000.0);
        assert!(text(&report).contains("8.7%, where 2% is allowed: nothing disturbed it"));
        report.spoiled.push(Spoiled {
            mode: "stall",
            max_error: 0.087,
            why: "the generator sent late".into(),
            explains_us: 9,
        });
        let text = text(&report);
        assert!(
            text.contains("off by 8.7%, and the generator sent late") && text.contains("calibrate again"),
            "{text}"
        );
    }
}
