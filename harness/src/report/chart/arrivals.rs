//! Arrivals planned, sent and dropped per bin: whether the load was what it was meant to be.

use super::super::ReportError;
use super::{Paint, TimeAxis, TimePlot, YAxis, merge_counts, merge_factor, render, stairs, to_s};
use crate::report::format;
use crate::summary::Summary;

/// The width of the bins as drawn, in words, if there is anything to draw.
pub(in crate::report) fn bin_width(summary: &Summary) -> Option<String> {
    let series = &summary.series;
    let bins = series.planned.len().max(series.sent.len());
    let us = u64::try_from(series.bin_us).ok().filter(|us| *us > 0 && bins > 0)?;
    let us = us.saturating_mul(merge_factor(bins) as u64);
    Some(if us < 1_000_000 && us.is_multiple_of(1_000) { format!("{} ms", us / 1_000) } else { format::micros(us) })
}

/// Draws it; nothing if there is nothing to draw.
pub(in crate::report) fn draw(summary: &Summary, time: &TimeAxis) -> Result<Option<String>, ReportError> {
    let Some(width) = bin_width(summary) else { return Ok(None) };
    let series = &summary.series;
    let factor = merge_factor(series.planned.len().max(series.sent.len()));
    let bin_s = to_s(series.bin_us) * factor as f64;
    let [planned, sent, dropped] = [&series.planned, &series.sent, &series.dropped].map(|s| merge_counts(s, factor));
    let largest = planned.iter().chain(&sent).chain(&dropped).copied().fold(0.0, f64::max);
    let label = format!(
        "Arrivals planned and sent per {width} over time; at most {} in one bin, {} dropped in all.",
        format::number(largest),
        format::count(summary.load.dropped)
    );
    let svg = render(
        &label,
        |room| room.pick(280.0, 240.0),
        |canvas| {
            let mut chart = TimePlot::new(canvas, time, YAxis::counts(largest, canvas.room))?;
            chart.area(closed(stairs(&planned, bin_s)), Paint::Planned.tint(0.35))?;
            chart.line(&solid(stairs(&planned, bin_s)), Paint::Planned.line(1.0))?;
            chart.line(&solid(stairs(&sent, bin_s)), Paint::Sent.line(1.5))?;
            if dropped.iter().any(|n| *n > 0.0) {
                chart.area(closed(stairs(&dropped, bin_s)), Paint::Dropped.tint(0.9))?;
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

/// The outline of the area under a line.
pub(super) fn closed(mut line: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if let (Some(&(first, _)), Some(&(last, _))) = (line.first(), line.last()) {
        line.push((last, 0.0));
        line.push((first, 0.0));
    }
    line
}

pub(super) fn solid(line: Vec<(f64, f64)>) -> Vec<(f64, Option<f64>)> {
    line.into_iter().map(|(x, y)| (x, Some(y))).collect()
}
