//! The probes of a capacity search: latency against the rate, what held and what did not, and where the capacity lies.

use std::ops::Range;

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, count_label, log_label, log_range, log_ticks, log_us, render, round_ticks};
use crate::capacity::probe::{Outcome, Probe};
use crate::capacity::{Report, SweepReport};
use crate::report::format;

pub(super) const TOP: f64 = 22.0;
const BOTTOM: f64 = 40.0;
const RIGHT: f64 = 16.0;

/// Draws it; nothing if no probe has a 99th percentile.
pub(in crate::report) fn draw(report: &Report) -> Result<Option<String>, ReportError> {
    let seen = || report.probes.iter().filter_map(|probe| probe.us_p99);
    let (Some(low), Some(high)) = (seen().min(), seen().max()) else { return Ok(None) };
    let range = log_range(low, high);
    let most = report.probes.iter().map(|probe| probe.rate).fold(0.0, f64::max) * 1.06;
    let label = format!(
        "TP99 of the slowest step against the rate of arrivals in {}, up to {} per second.",
        format::plural(report.probes.len() as u64, "probe"),
        format::number(most)
    );
    let svg = against_rate(&label, (320.0, 280.0), &range, most, |frame, y| {
        let canvas = frame.canvas;
        if let Some(found) = &report.found {
            let [from, to] = found.rate_interval.map(|rate| frame.x(rate.min(most)));
            canvas.rect(from..to.max(from + 1.0), TOP..frame.foot(), Paint::P50.tint(0.18))?;
            let x = frame.x(found.rate.min(most));
            canvas.path(&[(x, TOP), (x, frame.foot())], Paint::P50.line(1.5))?;
            let text = format!("capacity {}", format::number(found.rate));
            let (shift, align) = if x > canvas.room.width * 0.7 { (-4.0, HPos::Right) } else { (4.0, HPos::Left) };
            canvas.text(&text, x + shift, TOP - 9.0, align, Paint::Ink)?;
        }
        report.probes.iter().try_for_each(|probe| mark(frame, probe, y))
    })?;
    Ok(Some(svg))
}

/// A plot of latencies, on a logarithmic axis, against rates up to the most. `height` is the wide page's and the phone's; `paint` gets the
/// frame, and where a latency in microseconds stands in it.
pub(super) fn against_rate(
    label: &str,
    height: (f64, f64),
    range: &Range<f64>,
    most: f64,
    paint: impl Fn(&Frame<'_, '_>, &dyn Fn(f64) -> f64) -> Drawn,
) -> Result<String, ReportError> {
    render(
        label,
        |room| room.pick(height.0, height.1),
        |canvas| {
            let frame = Frame { canvas, left: canvas.room.pick(58.0, 50.0), most };
            let at = |log: f64| frame.y((log - range.start) / (range.end - range.start));
            for tick in log_ticks(range, range.end - range.start < 2.2) {
                frame.line_across(at(tick), &log_label(tick))?;
            }
            frame.rates()?;
            paint(&frame, &|us| at(log_us(us as u64)))
        },
    )
}

/// A filled dot held, a cross did not, a ring could not be trusted: colour alone tells nobody who cannot see it.
fn mark(frame: &Frame<'_, '_>, probe: &Probe, y: &dyn Fn(f64) -> f64) -> Drawn {
    let Some(us) = probe.us_p99 else { return Ok(()) };
    let (x, y, canvas) = (frame.x(probe.rate), y(us as f64), frame.canvas);
    match probe.outcome {
        Outcome::Holds => canvas.dot(x, y, 4.0, Paint::Ok.solid()),
        Outcome::Fails | Outcome::Violates => {
            let paint = if probe.outcome == Outcome::Fails { Paint::Fail } else { Paint::Bad };
            canvas.path(&[(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)], paint.line(2.0))?;
            canvas.path(&[(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)], paint.line(2.0))
        }
        Outcome::Distrusted => canvas.dot(x, y, 4.0, Paint::Info.line(1.5)),
    }
}

/// Draws throughput against how much there was of it, and the law; nothing without points.
pub(in crate::report) fn draw_sweep(sweep: &SweepReport) -> Result<Option<String>, ReportError> {
    let most = sweep.points.iter().map(|(n, _)| f64::from(*n)).fold(0.0, f64::max) * 1.06;
    let top = sweep.points.iter().map(|(_, x)| *x).fold(0.0, f64::max) * 1.1;
    if most <= 0.0 || top <= 0.0 {
        return Ok(None);
    }
    let label = format!("Throughput against {}, up to {} per second.", sweep.path, format::number(top));
    let svg = render(
        &label,
        |room| room.pick(300.0, 260.0),
        |canvas| {
            let frame = Frame { canvas, left: canvas.room.pick(58.0, 50.0), most };
            for tick in round_ticks(&(0.0..top), canvas.room.pick(6, 4)) {
                frame.line_across(frame.y(tick / top), &count_label(tick))?;
            }
            frame.rates()?;
            if let Some(law) = sweep.law {
                let at = |step: i32| most * f64::from(step) / 120.0;
                let line = (1..=120).map(at).map(|n| (frame.x(n), frame.y((law.at(n) / top).clamp(0.0, 1.0))));
                canvas.path(&line.collect::<Vec<_>>(), Paint::P50.line(2.0))?;
            }
            let dot =
                |(n, x): &(u32, f64)| canvas.dot(frame.x(f64::from(*n)), frame.y(x / top), 4.0, Paint::Ok.solid());
            sweep.points.iter().try_for_each(dot)
        },
    )?;
    Ok(Some(svg))
}

/// A plot with a linear axis from zero below it.
pub(super) struct Frame<'c, 'a> {
    pub(super) canvas: &'c Canvas<'a>,
    pub(super) left: f64,
    most: f64,
}

impl Frame<'_, '_> {
    pub(super) fn foot(&self) -> f64 {
        self.canvas.height - BOTTOM
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + value / self.most * (self.canvas.room.width - self.left - RIGHT)
    }

    /// The height of a share of the axis.
    fn y(&self, share: f64) -> f64 {
        self.foot() - share * (self.foot() - TOP)
    }

    fn line_across(&self, y: f64, label: &str) -> Drawn {
        let right = self.canvas.room.width - RIGHT;
        self.canvas.path(&[(self.left, y), (right, y)], Paint::Grid.line(1.0))?;
        self.canvas.text(label, self.left - 6.0, y, HPos::Right, Paint::Muted)
    }

    fn rates(&self) -> Drawn {
        for tick in round_ticks(&(0.0..self.most), self.canvas.room.pick(8, 4)) {
            let x = self.x(tick);
            self.canvas.path(&[(x, TOP), (x, self.foot())], Paint::Grid.line(1.0))?;
            self.canvas.text(&count_label(tick), x, self.foot() + 13.0, HPos::Center, Paint::Muted)?;
        }
        Ok(())
    }
}
