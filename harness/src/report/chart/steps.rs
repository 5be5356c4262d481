//! Percentiles by step as bars on one logarithmic axis: which step is slow, and how much its tail differs.

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, Room, fit, log_label, log_range, log_ticks, log_us, render, text_width};
use crate::report::{format, words};
use crate::summary::{LatencyStats, Summary};

const ROW: f64 = 30.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 26.0;

/// The most steps that are drawn; the table has them all.
const MOST: usize = 24;

/// Draws it; nothing if no step has a percentile.
pub(in crate::report) fn draw(summary: &Summary) -> Result<Option<String>, ReportError> {
    let mut steps = words::in_step_order(summary, &summary.latency.steps);
    steps.retain(|(_, stats)| stats.us_p50.is_some());
    steps.truncate(MOST);
    let low = steps.iter().filter_map(|(_, s)| s.us_p50).min();
    let (Some(low), Some(high)) = (low, steps.iter().map(|(_, s)| s.us_max).max()) else { return Ok(None) };
    let axis = Axis { range: log_range(low, high) };
    let label = format!(
        "Latency percentiles of {} on a logarithmic axis, from {} to {}.",
        format::plural(steps.len() as u64, "step"),
        format::micros(low),
        format::micros(high)
    );
    let svg = render(
        &label,
        |_| TOP + steps.len() as f64 * ROW + BOTTOM,
        |canvas| {
            let left = axis.left(canvas.room, &steps);
            axis.grid(canvas, left)?;
            for (row, (name, stats)) in steps.iter().enumerate() {
                let y = TOP + (row as f64 + 0.5) * ROW;
                let name = fit(&format::one_line(name), left - 10.0);
                canvas.text(&name, left - 8.0, y, HPos::Right, Paint::Ink)?;
                axis.bar(canvas, left, y, stats)?;
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

struct Axis {
    range: std::ops::Range<f64>,
}

impl Axis {
    /// Room for the longest name, within reason.
    fn left(&self, room: Room, steps: &[(&String, &LatencyStats)]) -> f64 {
        let longest = steps.iter().map(|(name, _)| text_width(name, super::TEXT)).fold(30.0, f64::max);
        longest.min(room.pick(170.0, 96.0)) + 12.0
    }

    fn x(&self, canvas: &Canvas<'_>, left: f64, us: u64) -> f64 {
        self.place(canvas, left, log_us(us))
    }

    fn place(&self, canvas: &Canvas<'_>, left: f64, log: f64) -> f64 {
        let width = canvas.room.width - left - 24.0;
        left + (log - self.range.start) / (self.range.end - self.range.start) * width
    }

    fn grid(&self, canvas: &Canvas<'_>, left: f64) -> Drawn {
        let dense = self.range.end - self.range.start < canvas.room.pick(4.2, 1.5);
        let foot = canvas.height - BOTTOM;
        for tick in log_ticks(&self.range, dense) {
            let x = self.place(canvas, left, tick);
            canvas.path(&[(x, TOP), (x, foot)], Paint::Grid.line(1.0))?;
            canvas.text(&log_label(tick), x, foot + 13.0, HPos::Center, Paint::Muted)?;
        }
        Ok(())
    }

    /// From the median to the largest; the marks differ in shape, so that they can be told apart without colour.
    fn bar(&self, canvas: &Canvas<'_>, left: f64, y: f64, stats: &LatencyStats) -> Drawn {
        let Some(p50) = stats.us_p50 else { return Ok(()) };
        let at = |us| self.x(canvas, left, us);
        canvas.path(&[(at(p50), y), (at(stats.us_max), y)], Paint::Max.line(1.5))?;
        if let Some(far) = stats.us_p999.or(stats.us_p99) {
            canvas.path(&[(at(p50), y), (at(far), y)], Paint::P99.line(4.0))?;
        }
        let max = at(stats.us_max);
        canvas.path(&[(max, y - 5.0), (max, y + 5.0)], Paint::Max.line(1.5))?;
        if let Some(p999) = stats.us_p999 {
            let x = at(p999);
            canvas.polygon(&[(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)], Paint::P99.solid())?;
        }
        if let Some(p99) = stats.us_p99 {
            let x = at(p99);
            canvas.rect(x - 4.5..x + 4.5, y - 4.5..y + 4.5, Paint::Panel.solid())?;
            canvas.rect(x - 3.5..x + 3.5, y - 3.5..y + 3.5, Paint::P99.solid())?;
        }
        canvas.dot(at(p50), y, 5.5, Paint::Panel.solid())?;
        canvas.dot(at(p50), y, 4.5, Paint::P50.solid())
    }
}
