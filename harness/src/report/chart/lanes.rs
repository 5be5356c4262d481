//! A witness as a drawing: a lane for each buyer, time from left to right, faults shaded, offending lines marked.
//!
//! The numbers beside the marks are those of the rows of the witness's table.

use std::ops::Range;

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, Room, TimeAxis, fit, render, round_ticks, text_width, to_s};
use crate::check::WitnessLine;
use crate::report::format;

const LANE: f64 = 34.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 26.0;

/// The most lanes that are drawn; those with offending lines come first.
const MOST: usize = 14;

/// Draws it; nothing if no line has a time.
pub(in crate::report) fn draw(witness: &[WitnessLine], time: &TimeAxis) -> Result<Option<String>, ReportError> {
    let lanes = lanes(witness);
    let Some(span) = span(witness).filter(|_| !lanes.is_empty()) else { return Ok(None) };
    let label = format!(
        "The witness drawn: {} in {}, {} of them offending.",
        format::plural(witness.iter().filter(|l| l.at_us.is_some()).count() as u64, "event"),
        format::plural(lanes.len() as u64, "lane"),
        witness.iter().filter(|l| l.offending && l.at_us.is_some()).count()
    );
    let svg = render(
        &label,
        |_| TOP + lanes.len() as f64 * LANE + BOTTOM,
        |canvas| {
            let drawing = Drawing { span: span.clone(), left: left(canvas.room, &lanes) };
            drawing.frame(canvas, time, &lanes)?;
            for (row, lane) in lanes.iter().enumerate() {
                drawing.lane(canvas, witness, lane, TOP + (row as f64 + 0.5) * LANE)?;
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

struct Lane {
    name: String,
    /// Places of its lines in the witness.
    lines: Vec<usize>,
}

/// One lane for each buyer, in order of appearance; what concerns no buyer goes by its source.
fn lanes(witness: &[WitnessLine]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    for (i, line) in witness.iter().enumerate().filter(|(_, line)| line.at_us.is_some()) {
        // The run's own prefix is the same for all buyers, and would fill a narrow label.
        let buyer = line.user.rsplit('-').next().unwrap_or(&line.user);
        let name = format::one_line(if buyer.is_empty() { &line.source } else { buyer });
        match lanes.iter_mut().find(|lane| lane.name == name) {
            Some(lane) => lane.lines.push(i),
            None => lanes.push(Lane { name, lines: vec![i] }),
        }
    }
    if lanes.len() > MOST {
        let guilty = |lane: &Lane| lane.lines.iter().any(|i| witness[*i].offending);
        let (mut kept, rest): (Vec<_>, Vec<_>) = lanes.into_iter().partition(guilty);
        kept.extend(rest);
        kept.truncate(MOST);
        lanes = kept;
    }
    lanes
}

/// From the first moment to the last, in seconds, with some air.
fn span(witness: &[WitnessLine]) -> Option<Range<f64>> {
    let from = witness.iter().filter_map(|l| l.at_us).min()?;
    let until = witness.iter().filter_map(|l| l.until_us.max(l.at_us)).max()?;
    let (from, until) = (to_s(from), to_s(until.max(from)));
    let air = ((until - from) * 0.06).max(0.000_5);
    Some(from - air..until + air)
}

fn left(room: Room, lanes: &[Lane]) -> f64 {
    let longest = lanes.iter().map(|lane| text_width(&lane.name, super::TEXT)).fold(30.0, f64::max);
    longest.min(room.pick(150.0, 78.0)) + 14.0
}

struct Drawing {
    span: Range<f64>,
    left: f64,
}

impl Drawing {
    fn x(&self, canvas: &Canvas<'_>, s: f64) -> f64 {
        let share = (s.clamp(self.span.start, self.span.end) - self.span.start) / (self.span.end - self.span.start);
        self.left + share * (canvas.room.width - self.left - 12.0)
    }

    fn frame(&self, canvas: &Canvas<'_>, time: &TimeAxis, lanes: &[Lane]) -> Drawn {
        let foot = canvas.height - BOTTOM;
        let mut named_until = 0.0;
        for band in time.bands.iter().filter(|b| b.from < self.span.end && b.until > self.span.start) {
            let (from, until) = (self.x(canvas, band.from), self.x(canvas, band.until));
            canvas.rect(from..until.max(from + 1.0), TOP..foot, Paint::Fault.tint(0.13))?;
            let name = fit(&band.label, 140.0);
            if from >= named_until {
                canvas.text(&name, from + 2.0, TOP - 9.0, HPos::Left, Paint::Fault)?;
                named_until = from + text_width(&name, super::TEXT) + 8.0;
            }
        }
        let wanted = canvas.room.pick(7, 3);
        for tick in round_ticks(&self.span, wanted) {
            let x = self.x(canvas, tick);
            canvas.path(&[(x, TOP), (x, foot)], Paint::Grid.line(1.0))?;
            canvas.text(&self.tick_label(tick), x, foot + 13.0, HPos::Center, Paint::Muted)?;
        }
        for (row, lane) in lanes.iter().enumerate() {
            let y = TOP + (row as f64 + 0.5) * LANE;
            canvas.path(&[(self.left, y), (canvas.room.width - 12.0, y)], Paint::Grid.line(1.0))?;
            canvas.text(&fit(&lane.name, self.left - 12.0), self.left - 8.0, y, HPos::Right, Paint::Ink)?;
        }
        Ok(())
    }

    /// As many decimals as the span needs to tell its ticks apart.
    fn tick_label(&self, tick: f64) -> String {
        let decimals = match self.span.end - self.span.start {
            width if width > 5.0 => 0,
            width if width > 0.5 => 1,
            width if width > 0.05 => 2,
            width if width > 0.005 => 3,
            _ => 4,
        };
        format!("{tick:.decimals$} s")
    }

    /// Spans are bars, moments are dots; offending ones are red with a cross, so that colour is not the only sign.
    fn lane(&self, canvas: &Canvas<'_>, witness: &[WitnessLine], lane: &Lane, y: f64) -> Drawn {
        let mut numbered_until = f64::MIN;
        for &i in lane.lines.iter().take(200) {
            let line = &witness[i];
            let Some(at) = line.at_us else { continue };
            let from = self.x(canvas, to_s(at));
            let until = self.x(canvas, to_s(line.until_us.unwrap_or(at).max(at)));
            let paint = match line.source.as_str() {
                _ if line.offending => Paint::Bad,
                "fault" => Paint::Fault,
                _ => Paint::Sent,
            };
            if until - from > 3.0 {
                canvas.rect(from..until, y - 4.0..y + 4.0, paint.tint(if line.offending { 1.0 } else { 0.8 }))?;
            } else if !line.offending {
                canvas.dot(from, y, 5.5, Paint::Panel.solid())?;
                canvas.dot(from, y, 4.5, paint.solid())?;
            }
            if line.offending {
                let x = (from + until) / 2.0;
                canvas.dot(x, y, 7.0, Paint::Panel.solid())?;
                canvas.path(&[(x - 5.0, y - 5.0), (x + 5.0, y + 5.0)], Paint::Bad.line(2.5))?;
                canvas.path(&[(x - 5.0, y + 5.0), (x + 5.0, y - 5.0)], Paint::Bad.line(2.5))?;
            }
            let number = (i + 1).to_string();
            let x = (from + until) / 2.0;
            let half = text_width(&number, 10.0) / 2.0;
            if x - half > numbered_until + 2.0 {
                canvas.sized_text(&number, 10.0, (x, y - 12.0), HPos::Center, paint_of_number(line))?;
                numbered_until = x + half;
            }
        }
        Ok(())
    }
}

fn paint_of_number(line: &WitnessLine) -> Paint {
    if line.offending { Paint::Bad } else { Paint::Muted }
}
