//! One figure of all variants as bars from zero, with the interval of each as a whisker.

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, Room, fit, render, round_ticks, text_width};
use crate::compare::Estimate;
use crate::report::format;

const ROW: f64 = 28.0;
const TOP: f64 = 6.0;
const BOTTOM: f64 = 24.0;

/// Draws it; nothing if no variant has the figure.
pub(in crate::report) fn draw(
    figure: &str,
    bars: &[(&str, Option<Estimate>)],
    text: fn(f64) -> String,
) -> Result<Option<String>, ReportError> {
    let largest = bars.iter().filter_map(|(_, bar)| bar.map(|b| b.interval[1])).fold(0.0, f64::max);
    if largest <= 0.0 {
        return Ok(None);
    }
    let label = format!("{figure} of {}, the largest {}.", format::plural(bars.len() as u64, "variant"), text(largest));
    let svg = render(
        &label,
        |_| TOP + bars.len() as f64 * ROW + BOTTOM,
        |canvas| {
            let left = left(canvas.room, bars);
            let width = canvas.room.width - left - 70.0;
            let x = |value: f64| left + value / largest * width;
            let foot = canvas.height - BOTTOM;
            for tick in round_ticks(&(0.0..largest), canvas.room.pick(5, 3)) {
                canvas.path(&[(x(tick), TOP), (x(tick), foot)], Paint::Grid.line(1.0))?;
                canvas.text(&text(tick), x(tick), foot + 13.0, HPos::Center, Paint::Muted)?;
            }
            for (row, (name, bar)) in bars.iter().enumerate() {
                let y = TOP + (row as f64 + 0.5) * ROW;
                canvas.text(&fit(&format::one_line(name), left - 10.0), left - 8.0, y, HPos::Right, Paint::Ink)?;
                match bar {
                    Some(bar) => one(canvas, (x(0.0), y), bar, &x, text)?,
                    None => canvas.text("not enough samples", left + 4.0, y, HPos::Left, Paint::Muted)?,
                }
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

fn left(room: Room, bars: &[(&str, Option<Estimate>)]) -> f64 {
    let longest = bars.iter().map(|(name, _)| text_width(name, super::TEXT)).fold(30.0, f64::max);
    longest.min(room.pick(190.0, 110.0)) + 12.0
}

fn one(
    canvas: &Canvas<'_>,
    (zero, y): (f64, f64),
    bar: &Estimate,
    x: &dyn Fn(f64) -> f64,
    text: fn(f64) -> String,
) -> Drawn {
    let [low, high] = bar.interval.map(x);
    canvas.rect(zero..x(bar.median).max(zero + 1.0), y - 8.0..y + 8.0, Paint::P50.tint(0.55))?;
    canvas.path(&[(low, y), (high, y)], Paint::Ink.line(1.5))?;
    for end in [low, high] {
        canvas.path(&[(end, y - 5.0), (end, y + 5.0)], Paint::Ink.line(1.5))?;
    }
    canvas.text(&text(bar.median), high.max(x(bar.median)) + 6.0, y, HPos::Left, Paint::Ink)
}
