//! The latencies of each step, with their intervals as far as the terminal has room for them.

use super::super::{format, words};
use super::{Ink, Page, column_widths};
use crate::summary::{LatencyStats, Summary};

impl Page {
    pub(super) fn latency(&mut self, summary: &Summary) {
        self.heading("Latency from the intended start");
        if summary.latency.steps.is_empty() {
            self.line("  no samples");
            return;
        }
        let by_step = words::in_step_order(summary, &summary.latency.steps).into_iter();
        let all: Vec<_> =
            by_step.map(|(step, stats)| (step.clone(), stats)).chain(words::cohort_steps(summary)).collect();
        let with_intervals = latency_rows(&all, format::micros_within);
        if self.fits(&with_intervals) {
            self.table(&with_intervals);
            if all.iter().any(|(_, stats)| stats.us_p99_interval.is_some()) {
                self.paragraph(2, "in parentheses: the 95% confidence interval", Some(Ink::Dim));
            }
        } else {
            self.table(&latency_rows(&all, |value, _| format::micros_or_none(value)));
            all.iter().for_each(|(name, stats)| self.intervals(name, stats));
        }
        for gap in words::gaps(summary) {
            self.paragraph(2, &format::one_line(&gap), Some(Ink::Dim));
        }
    }

    /// The intervals of a step as sentences, for terminals that have no room for them in the table.
    fn intervals(&mut self, step: &str, stats: &LatencyStats) {
        for (name, interval) in [("TP99", stats.us_p99_interval), ("TP999", stats.us_p999_interval)] {
            if let Some([low, high]) = interval {
                let (low, high) = (format::micros(low), format::micros(high));
                let text = format!("{step}: {name} lies between {low} and {high} with 95% confidence");
                self.paragraph(2, &format::one_line(&text), Some(Ink::Dim));
            }
        }
    }

    /// Whether a table's lines are no longer than a line of the terminal.
    fn fits(&self, rows: &[Vec<String>]) -> bool {
        let widths = column_widths(rows);
        widths.iter().map(|width| width + 2).sum::<usize>() <= self.width
    }
}

/// The rows of the table, whose tails are written by `tail`.
fn latency_rows(
    steps: &[(String, &LatencyStats)],
    tail: impl Fn(Option<u64>, Option<[u64; 2]>) -> String,
) -> Vec<Vec<String>> {
    let mut rows = vec![words::LATENCY_COLUMNS.map(str::to_owned).to_vec()];
    for (step, stats) in steps {
        let mut row = vec![format::shorten(&format::one_line(step), 24)];
        row.extend(words::latency_cells(stats, &tail));
        rows.push(row);
    }
    rows
}
