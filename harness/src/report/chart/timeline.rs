//! The timeline of phases and faults: what was broken when, and how long it took to recover.

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, TimeAxis, TimePlot, fit, render, text_width, time_label, to_s};
use crate::report::format;
use crate::summary::{FaultSummary, Summary};

const PHASE_ROW: f64 = 30.0;
const ROW: f64 = 40.0;
const BOTTOM: f64 = 24.0;

/// The most faults that are drawn; the table has them all.
const MOST: usize = 20;

/// Draws it; nothing if there are neither phases nor faults.
pub(in crate::report) fn draw(summary: &Summary, time: &TimeAxis) -> Result<Option<String>, ReportError> {
    if summary.phases.is_empty() && summary.faults.is_empty() {
        return Ok(None);
    }
    let faults = &summary.faults[..summary.faults.len().min(MOST)];
    let label = format!(
        "Timeline of {} and {}, with the time that each fault took to heal and to recover.",
        format::plural(summary.phases.len() as u64, "phase"),
        format::plural(summary.faults.len() as u64, "fault")
    );
    let svg = render(
        &label,
        |_| 6.0 + PHASE_ROW + faults.len() as f64 * ROW + BOTTOM,
        |canvas| {
            let axis = Axis { time, left: TimePlot::left(canvas.room), width: canvas.room.width - TimePlot::RIGHT };
            axis.grid(canvas)?;
            axis.phases(canvas, summary)?;
            for (row, fault) in faults.iter().enumerate() {
                axis.fault(canvas, fault, 6.0 + PHASE_ROW + row as f64 * ROW)?;
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

struct Axis<'t> {
    time: &'t TimeAxis,
    left: f64,
    width: f64,
}

impl Axis<'_> {
    fn x(&self, s: f64) -> f64 {
        let span = &self.time.span;
        let share = (s.clamp(span.start, span.end) - span.start) / (span.end - span.start);
        self.left + share * (self.width - self.left)
    }

    fn grid(&self, canvas: &Canvas<'_>) -> Drawn {
        let foot = canvas.height - BOTTOM;
        for tick in self.time.ticks(canvas.room) {
            let x = self.x(tick);
            canvas.path(&[(x, 6.0), (x, foot)], Paint::Grid.line(1.0))?;
            canvas.text(&time_label(tick), x, foot + 12.0, HPos::Center, Paint::Muted)?;
        }
        Ok(())
    }

    fn phases(&self, canvas: &Canvas<'_>, summary: &Summary) -> Drawn {
        canvas.text("phases", self.left - 8.0, 6.0 + 11.0, HPos::Right, Paint::Muted)?;
        for (i, phase) in summary.phases.iter().enumerate() {
            let (from, until) = (self.x(to_s(phase.from_us)), self.x(to_s(phase.until_us)));
            let paint = if i % 2 == 0 { Paint::PhaseA } else { Paint::PhaseB };
            canvas.rect(from..until, 6.0..28.0, paint.solid())?;
            let name = format::one_line(&phase.name);
            let name = fit(&name, until - from - 6.0);
            if text_width(&name, super::TEXT) <= until - from - 2.0 && name != "…" {
                canvas.text(&name, (from + until) / 2.0, 17.0, HPos::Center, Paint::Ink)?;
            }
        }
        Ok(())
    }

    /// One row: the name and what happened above, the bar below, so that long names have room on a phone too.
    fn fault(&self, canvas: &Canvas<'_>, fault: &FaultSummary, top: f64) -> Drawn {
        let seconds = |ms: Option<f64>| ms.filter(|ms| ms.is_finite()).map(|ms| ms / 1e3);
        let bar = top + 22.0..top + 34.0;
        let middle = (bar.start + bar.end) / 2.0;
        let planned = seconds(Some(fault.planned_at_ms)).unwrap_or(0.0);
        let injected = seconds(fault.injected_at_ms);
        let healed = seconds(fault.healed_at_ms);
        let start = self.x(injected.unwrap_or(planned));
        if injected.is_some() {
            let end = self.x(healed.unwrap_or(self.time.span.end)).max(start + 2.0);
            canvas.rect(start..end, bar.clone(), Paint::Fault.solid())?;
            if let Some(recovered) = seconds(fault.recovered_at_ms) {
                let recovered = self.x(recovered);
                canvas.path(&[(end, middle), (recovered.max(end), middle)], Paint::Recovery.line(4.0))?;
                canvas.dot(recovered.max(end), middle, 4.0, Paint::Recovery.solid())?;
            }
        } else {
            canvas.path(&[(start - 5.0, bar.start), (start + 5.0, bar.end)], Paint::Bad.line(2.0))?;
            canvas.path(&[(start - 5.0, bar.end), (start + 5.0, bar.start)], Paint::Bad.line(2.0))?;
        }
        let label = fit(&caption(fault), self.width - 12.0);
        let wide = text_width(&label, super::TEXT);
        let x = start.min(self.width - wide).max(8.0);
        canvas.text(&label, x, top + 12.0, HPos::Left, Paint::Ink)
    }
}

/// `kill-db (kill): healed after 3.02 s, recovered in 1.20 s`.
fn caption(fault: &FaultSummary) -> String {
    let name = format::one_line(&fault.id);
    let kind = format::one_line(&fault.kind);
    let what = match (fault.injected_at_ms, fault.healed_at_ms) {
        (None, _) => "not injected".to_owned(),
        (Some(_), None) => "never healed".to_owned(),
        (Some(from), Some(until)) => match recovery_ms(fault) {
            Some(ms) => format!("{}, recovered in {}", format::millis(until - from), format::millis(ms)),
            None => format!("{}, no recovery seen", format::millis(until - from)),
        },
    };
    if name.contains(&kind) { format!("{name}: {what}") } else { format!("{name} ({kind}): {what}") }
}

/// From healing to recovery.
fn recovery_ms(fault: &FaultSummary) -> Option<f64> {
    fault.recovery_ms.or_else(|| Some((fault.recovered_at_ms? - fault.healed_at_ms?).max(0.0)))
}
