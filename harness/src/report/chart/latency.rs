//! Latency over time on a logarithmic axis: what the buyers felt, and when.

use super::super::ReportError;
use super::{Paint, TimeAxis, TimePlot, YAxis, log_label, log_range, log_ticks, log_us, merge_factor, render, to_s};
use crate::report::format;
use crate::summary::Summary;

/// Draws it; nothing if there are no samples.
pub(in crate::report) fn draw(summary: &Summary, time: &TimeAxis) -> Result<Option<String>, ReportError> {
    let series = &summary.series;
    let seen = || series.us_p50.iter().chain(&series.us_p99).chain(&series.us_max).flatten().copied();
    let (Some(low), Some(high)) = (seen().min(), seen().max()) else { return Ok(None) };
    if series.latency_bin_us <= 0 {
        return Ok(None);
    }
    let range = log_range(low, high);
    let label = format!(
        "Latency from the intended start over time on a logarithmic axis, from {} to {}.",
        format::micros(low),
        format::micros(high)
    );
    let svg = render(
        &label,
        |room| room.pick(300.0, 260.0),
        |canvas| {
            let dense = range.end - range.start < canvas.room.pick(2.2, 1.6);
            let y = YAxis { range: range.clone(), ticks: log_ticks(&range, dense), label: &|v| log_label(*v) };
            let mut chart = TimePlot::new(canvas, time, y)?;
            for (series_of, paint, width) in [
                (&series.us_max, Paint::Max, 1.0),
                (&series.us_p99, Paint::P99, 1.75),
                (&series.us_p50, Paint::P50, 2.25),
            ] {
                let line = merged(series_of, series.latency_bin_us);
                chart.line(&line, paint.line(width))?;
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

/// Points in the middle of their bins. Merged bins show their worst value: a peak must not vanish for want of pixels.
fn merged(series: &[Option<u64>], bin_us: i64) -> Vec<(f64, Option<f64>)> {
    let factor = merge_factor(series.len());
    let bin_s = to_s(bin_us) * factor as f64;
    let worst = series.chunks(factor).map(|bins| bins.iter().flatten().max().copied());
    worst.enumerate().map(|(i, us)| ((i as f64 + 0.5) * bin_s, us.map(log_us))).collect()
}
