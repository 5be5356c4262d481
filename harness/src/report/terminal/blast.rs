//! The blast radius as a table of the terminal.

use std::fmt::Write as _;

use super::super::blast::{self, Measure};
use super::super::format;
use super::{Ink, Page, cell, widest};
use crate::summary::{Change, Summary};

/// The most rows; the page has all.
const MOST: usize = 40;

impl Page {
    /// A row for each fault and cohort. What changed says so in a word, coloured or not.
    pub(super) fn blast(&mut self, summary: &Summary) {
        let Some(matrix) = blast::matrix(summary) else { return };
        self.heading("Blast radius: what each fault changed for whom, against the undisturbed part of the run");
        let narrow = self.width / 5;
        let faults = widest(matrix.faults.iter().map(|fault| fault.fault.as_str())).clamp(5, narrow.min(28));
        let cohorts = widest(matrix.cohorts.iter().map(String::as_str)).clamp(6, narrow.min(20));
        let (mut head, mut widths) = (String::new(), Vec::new());
        let text = |measure: Measure, effect| {
            format!("{} {}", measure.short(effect), blast::change(effect)).trim_end().to_owned()
        };
        for measure in Measure::ALL {
            let cells = matrix.faults.iter().flat_map(|fault| &fault.cells);
            let width = cells.map(|c| format::columns(&text(measure, measure.of(c)))).max().unwrap_or(0);
            widths.push(width.max(measure.name().len()));
            let _ = write!(head, "  {}", format::pad(measure.name(), width));
        }
        let head = format!("  {}  {}{head}", format::pad("fault", faults), format::pad("cohort", cohorts));
        let head = self.ink(Ink::Dim, &head);
        self.line(&head);
        let rows: usize = matrix.faults.iter().map(|fault| fault.cells.len()).sum();
        let mut left = MOST;
        for fault in &matrix.faults {
            for (n, figures) in fault.cells.iter().enumerate().take(left) {
                let name = if n == 0 { cell(&fault.fault, faults) } else { " ".repeat(faults) };
                let mut row = format!("  {name}  {}", cell(&figures.cohort, cohorts));
                for (measure, width) in Measure::ALL.into_iter().zip(&widths) {
                    let effect = measure.of(figures);
                    let text = format::pad(&text(measure, effect), *width);
                    let text = match effect.change {
                        Change::None => text,
                        Change::Worse => self.ink(Ink::Red, &text),
                        Change::Better => self.ink(Ink::Green, &text),
                    };
                    let _ = write!(row, "  {text}");
                }
                self.line(&row);
            }
            left = left.saturating_sub(fault.cells.len());
        }
        if rows > MOST {
            self.line(&format!("  … and {} more in report.html", rows - MOST));
        }
        for fault in &matrix.faults {
            if let Some(remark) = blast::remark(fault) {
                self.paragraph(2, &format::one_line(&format!("{}: {remark}", fault.fault)), Some(Ink::Amber));
            }
        }
        if blast::doubtful(matrix) {
            self.paragraph(2, blast::DOUBT, Some(Ink::Dim));
        }
    }
}
