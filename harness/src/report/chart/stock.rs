//! The stock burning down, as sampled, beside the orders acknowledged so far.

use super::super::ReportError;
use super::arrivals::solid;
use super::{Drawn, Paint, TimeAxis, TimePlot, YAxis, render, to_s};
use crate::report::format;
use crate::summary::Summary;

/// Draws it; nothing if there are neither samples nor orders.
pub(in crate::report) fn draw(summary: &Summary, time: &TimeAxis) -> Result<Option<String>, ReportError> {
    let orders = cumulative(summary);
    let samples = &summary.series.stock;
    let seen = samples.iter().any(|(_, units)| units.is_some());
    if !seen && orders.is_empty() {
        return Ok(None);
    }
    let units = samples.iter().filter_map(|(_, units)| *units).map(|units| units as f64);
    let largest = units.chain(orders.last().map(|(_, n)| *n)).chain([summary.goodput.stock as f64]).fold(0.0, f64::max);
    let lowest = samples.iter().filter_map(|(_, units)| *units).min().unwrap_or(0).min(0) as f64;
    let label = format!(
        "Stock available as sampled, from {} units, and orders acknowledged so far, {} in the end.",
        format::signed(summary.goodput.stock),
        format::count(summary.goodput.acknowledged_orders)
    );
    let svg = render(
        &label,
        |room| room.pick(280.0, 250.0),
        |canvas| {
            let mut y = YAxis::counts(largest, canvas.room);
            // Stock below zero is the very thing to see; the axis must not hide it.
            y.range.start = if lowest < 0.0 { lowest.min(-largest * 0.06) } else { 0.0 };
            let mut chart = TimePlot::new(canvas, time, y)?;
            silence(&mut chart, summary, largest)?;
            for piece in burn_down(samples) {
                chart.area(under(&piece), Paint::Stock.tint(0.18))?;
                chart.line(&solid(piece), Paint::Stock.line(2.0))?;
            }
            chart.line(&solid(orders.clone()), Paint::Orders.line(2.0))
        },
    )?;
    Ok(Some(svg))
}

/// The orders so far; empty if there were none.
fn cumulative(summary: &Summary) -> Vec<(f64, f64)> {
    let series = &summary.series;
    if series.latency_bin_us <= 0 || series.orders.iter().all(|n| *n == 0) {
        return Vec::new();
    }
    let bin_s = to_s(series.latency_bin_us);
    let mut sum = 0.0;
    let mut line = vec![(0.0, 0.0)];
    for (i, n) in series.orders.iter().enumerate() {
        sum += f64::from(*n);
        line.push(((i + 1) as f64 * bin_s, sum));
    }
    line
}

/// The samples as pieces of a stair, one for each time in which the service answered.
fn burn_down(samples: &[(i64, Option<i64>)]) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    for piece in samples.split(|(_, units)| units.is_none()) {
        let mut line: Vec<(f64, f64)> = Vec::new();
        for (at, units) in piece {
            let (x, y) = (to_s(*at), units.unwrap_or(0) as f64);
            match line.last().copied() {
                Some((_, before)) if before != y => line.extend([(x, before), (x, y)]),
                _ => line.push((x, y)),
            }
        }
        if !line.is_empty() {
            pieces.push(line);
        }
    }
    pieces
}

fn under(line: &[(f64, f64)]) -> Vec<(f64, f64)> {
    super::arrivals::closed(line.to_vec())
}

/// A bar at the foot of the chart for each time in which the service did not answer.
fn silence(chart: &mut TimePlot<'_>, summary: &Summary, largest: f64) -> Drawn {
    let samples = &summary.series.stock;
    let thick = (largest * 0.025).max(0.02);
    let mut i = 0;
    while i < samples.len() {
        if samples[i].1.is_some() {
            i += 1;
            continue;
        }
        let from = to_s(samples[i].0);
        while i < samples.len() && samples[i].1.is_none() {
            i += 1;
        }
        let until = samples.get(i).or(samples.last()).map_or(from, |(at, _)| to_s(*at));
        let bar = plotters::prelude::Rectangle::new([(from, 0.0), (until, thick)], Paint::Info.solid());
        chart.plot.draw_series(std::iter::once(bar))?;
    }
    Ok(())
}
