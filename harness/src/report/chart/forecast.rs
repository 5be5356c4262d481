//! TP99 of a planned sale against the rate: what is expected, its limit, and where the plan is.

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::capacity::{TOP, against_rate};
use super::{Paint, log_range};
use crate::forecast::Forecast;
use crate::report::format;

/// Draws it; nothing without a curve.
pub(in crate::report) fn draw(forecast: &Forecast) -> Result<Option<String>, ReportError> {
    let Some(last) = forecast.curve.last() else { return Ok(None) };
    let limit = forecast.latency.iter().find(|latency| latency.step == forecast.model.step).and_then(|l| l.limit_us);
    let seen = || forecast.curve.iter().map(|point| point.us_p99).chain(limit);
    let (low, high) = (seen().fold(f64::INFINITY, f64::min), seen().fold(1.0, f64::max));
    let range = log_range(low as u64, high as u64);
    let most = last.rate * 1.03;
    let peak = forecast.peak_arrivals_per_second;
    let label = format!(
        "TP99 of {} against arrivals per second, up to {}; {} are planned.",
        forecast.model.step,
        format::number(most),
        format::number(peak)
    );
    let svg = against_rate(&label, (300.0, 260.0), &range, most, |frame, y| {
        let canvas = frame.canvas;
        let more = peak * (1.0 + forecast.plan.headroom);
        canvas.rect(frame.x(peak)..frame.x(more.min(most)), TOP..frame.foot(), Paint::P50.tint(0.15))?;
        canvas.path(&[(frame.x(peak), TOP), (frame.x(peak), frame.foot())], Paint::P50.line(1.5))?;
        canvas.text("planned, and its headroom", frame.x(peak) - 4.0, TOP - 9.0, HPos::Right, Paint::Ink)?;
        if let Some(limit) = limit {
            canvas.path(&[(frame.left, y(limit)), (frame.x(most), y(limit))], Paint::Bad.line(1.5))?;
            canvas.text("limit", frame.left + 4.0, y(limit) - 8.0, HPos::Left, Paint::Ink)?;
        }
        let line: Vec<(f64, f64)> = forecast.curve.iter().map(|p| (frame.x(p.rate), y(p.us_p99))).collect();
        canvas.path(&line, Paint::P99.line(2.0))?;
        line.iter().try_for_each(|(x, y)| canvas.dot(*x, *y, 3.0, Paint::P99.solid()))
    })?;
    Ok(Some(svg))
}

/// Draws how well points that were held back were predicted: a dot is what was measured, a bar the interval of the
/// prediction.
pub(in crate::report) fn draw_validation(forecast: &Forecast) -> Result<Option<String>, ReportError> {
    let seen = || {
        forecast.validation.iter().flat_map(|row| {
            let ends = row.us_p99.interval.unwrap_or([row.us_p99.predicted; 2]);
            [Some(ends[0]), Some(ends[1]), row.us_p99.measured].into_iter().flatten()
        })
    };
    if forecast.validation.is_empty() {
        return Ok(None);
    }
    let (low, high) = (seen().fold(f64::INFINITY, f64::min), seen().fold(1.0, f64::max));
    let range = log_range(low as u64, high as u64);
    let most = forecast.validation.iter().map(|row| row.rate).fold(0.0, f64::max) * 1.06;
    let label = format!(
        "TP99 of {} at {} rates that were held back: predicted and measured.",
        forecast.model.step,
        forecast.validation.len()
    );
    let svg = against_rate(&label, (300.0, 260.0), &range, most, |frame, y| {
        let canvas = frame.canvas;
        for row in &forecast.validation {
            let x = frame.x(row.rate);
            if let Some([from, to]) = row.us_p99.interval {
                canvas.path(&[(x, y(from)), (x, y(to))], Paint::P50.line(5.0))?;
            }
            let predicted = y(row.us_p99.predicted);
            canvas.path(&[(x - 7.0, predicted), (x + 7.0, predicted)], Paint::Ink.line(1.5))?;
            let Some(measured) = row.us_p99.measured else { continue };
            match row.judged {
                true => canvas.dot(x, y(measured), 4.0, Paint::Ok.solid())?,
                false => canvas.dot(x, y(measured), 4.0, Paint::Info.line(1.5))?,
            }
        }
        Ok(())
    })?;
    Ok(Some(svg))
}
