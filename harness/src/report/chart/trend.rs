//! One figure over the runs: a point for each, the levels as lines, and a mark where the level changed.

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, render, round_ticks};
use crate::report::format;
use crate::trend::Series;

const HEIGHT: f64 = 150.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 24.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 14.0;

/// A value of a figure as people read it, by the unit in its name.
pub(crate) fn text(name: &str, value: f64) -> String {
    match name {
        name if name.starts_with("us_") => format::micros(value.round() as u64),
        name if name.contains("bytes") => format::bytes(value),
        _ => format::number(value),
    }
}

/// Draws it.
pub(crate) fn draw(figure: &Series) -> Result<String, ReportError> {
    let known: Vec<(usize, f64)> =
        figure.values.iter().enumerate().filter_map(|(n, value)| Some((n, (*value)?))).collect();
    let top = known.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let label = format!(
        "{} {} over {}, at {} since the last of {}.",
        figure.name,
        figure.of,
        format::plural(figure.values.len() as u64, "run"),
        text(&figure.name, figure.level),
        format::plural(figure.changes.len() as u64, "change")
    );
    render(
        &label,
        |_| HEIGHT,
        |canvas| {
            let runs = figure.values.len().max(2) as f64 - 1.0;
            let width = canvas.room.width - LEFT - RIGHT;
            let x = |run: f64| LEFT + run / runs * width;
            let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
            for tick in round_ticks(&(0.0..top), 4) {
                canvas.path(&[(LEFT, y(tick)), (LEFT + width, y(tick))], Paint::Grid.line(1.0))?;
                canvas.text(&text(&figure.name, tick), LEFT - 6.0, y(tick), HPos::Right, Paint::Muted)?;
            }
            for (run, value) in &known {
                canvas.dot(x(*run as f64), y(*value), 2.5, Paint::P99.solid())?;
            }
            levels(canvas, figure, &x, &y)
        },
    )
}

fn levels(canvas: &Canvas<'_>, figure: &Series, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) -> Drawn {
    let last = figure.values.len() as f64 - 1.0;
    let mut from = 0.0;
    for (n, change) in figure.changes.iter().enumerate() {
        let at = change.run as f64 - 0.5;
        canvas.path(&[(x(from), y(change.before)), (x(at), y(change.before))], Paint::Ink.line(1.5))?;
        canvas.path(&[(x(at), TOP), (x(at), HEIGHT - BOTTOM)], Paint::Worse.line(1.0))?;
        let percent = format!("{:+.0}%", (change.after / change.before - 1.0) * 100.0);
        // Neighbouring marks must not write over each other.
        canvas.text(&percent, x(at), TOP - 8.0 + 10.0 * (n % 2) as f64, HPos::Center, Paint::Ink)?;
        from = at;
    }
    canvas.path(&[(x(from), y(figure.level)), (x(last.max(from)), y(figure.level))], Paint::Ink.line(1.5))?;
    canvas.text("oldest", x(0.0), HEIGHT - 10.0, HPos::Left, Paint::Muted)?;
    canvas.text("newest", x(last.max(1.0)), HEIGHT - 10.0, HPos::Right, Paint::Muted)
}
