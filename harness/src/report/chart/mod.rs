//! Charts as inline SVG, drawn with plotters.
//!
//! This module owns what all charts share: the canvas, the colours, axes, and the shading of faults. Each chart has a
//! file of its own. A chart is drawn twice, for a wide page and for a phone, and the style sheet shows the one that
//! fits: scaling one drawing down to a phone would leave letters that nobody can read.
//!
//! Plotters knows only literal colours and whole pixels. So charts are drawn several times too large and the view box
//! shrinks them; and each colour is a marker that is replaced by a CSS variable afterwards, so that the reader's light
//! or dark scheme decides what it looks like.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ReportError;
use super::format;
use crate::summary::Summary;

pub(super) mod arrivals;
pub(super) mod blast;
pub(super) mod capacity;
pub(super) mod forecast;
pub(super) mod lanes;
pub(super) mod latency;
pub(super) mod outcomes;
pub(super) mod steps;
pub(super) mod stock;
pub(super) mod timeline;
pub(crate) mod trend;
pub(super) mod variants;

/// Units of the drawing for each CSS pixel.
const SCALE: f64 = 4.0;

/// Height of the letters in a chart, in CSS pixels.
const TEXT: f64 = 11.0;

/// The most points that a line is drawn through; a longer series is merged first.
const MOST_POINTS: usize = 900;

pub(super) type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// A linear axis whose grid lines are exactly those asked for; plotters' own choice is many more.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// What a mark stands for. Its look is decided by the style sheet: `--ink`, `--grid`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Paint {
    Ink,
    Muted,
    Grid,
    Panel,
    Planned,
    Sent,
    Dropped,
    P50,
    P99,
    Max,
    Ok,
    Fail,
    Bad,
    Info,
    Stock,
    Orders,
    Fault,
    Recovery,
    PhaseA,
    PhaseB,
    Worse,
    Better,
}

impl Paint {
    const ALL: [(Paint, &'static str); 22] = [
        (Paint::Ink, "ink"),
        (Paint::Muted, "muted"),
        (Paint::Grid, "grid"),
        (Paint::Panel, "panel"),
        (Paint::Planned, "planned"),
        (Paint::Sent, "sent"),
        (Paint::Dropped, "dropped"),
        (Paint::P50, "p50"),
        (Paint::P99, "p99"),
        (Paint::Max, "max"),
        (Paint::Ok, "ok"),
        (Paint::Fail, "refused"),
        (Paint::Bad, "bad"),
        (Paint::Info, "info"),
        (Paint::Stock, "stock"),
        (Paint::Orders, "orders"),
        (Paint::Fault, "fault"),
        (Paint::Recovery, "recovery"),
        (Paint::PhaseA, "phase-a"),
        (Paint::PhaseB, "phase-b"),
        (Paint::Worse, "worse"),
        (Paint::Better, "better"),
    ];

    /// The marker that stands for this paint until the drawing is finished.
    fn rgb(self) -> RGBColor {
        RGBColor(0xC0, 0xDE, self as u8)
    }

    fn solid(self) -> ShapeStyle {
        self.rgb().filled()
    }

    fn tint(self, alpha: f64) -> ShapeStyle {
        self.rgb().mix(alpha).filled()
    }

    fn line(self, width: f64) -> ShapeStyle {
        self.rgb().stroke_width((width * SCALE) as u32)
    }
}

/// The room that a chart has, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) width: f64,
    pub(super) narrow: bool,
}

impl Room {
    const WIDE: Room = Room { width: 960.0, narrow: false };
    const NARROW: Room = Room { width: 360.0, narrow: true };

    /// One of two values, by the room that there is.
    fn pick<T>(self, wide: T, narrow: T) -> T {
        if self.narrow { narrow } else { wide }
    }
}

/// A drawing under way: plotters' area with measures in CSS pixels.
pub(super) struct Canvas<'a> {
    area: Area<'a>,
    room: Room,
    height: f64,
}

impl<'a> Canvas<'a> {
    fn at(x: f64, y: f64) -> (i32, i32) {
        ((x * SCALE).round() as i32, (y * SCALE).round() as i32)
    }

    fn rect(&self, x: Range<f64>, y: Range<f64>, style: ShapeStyle) -> Drawn {
        self.area.draw(&Rectangle::new([Self::at(x.start, y.start), Self::at(x.end, y.end)], style))
    }

    fn path(&self, points: &[(f64, f64)], style: ShapeStyle) -> Drawn {
        let points: Vec<_> = points.iter().map(|&(x, y)| Self::at(x, y)).collect();
        self.area.draw(&PathElement::new(points, style))
    }

    fn polygon(&self, points: &[(f64, f64)], style: ShapeStyle) -> Drawn {
        let points: Vec<_> = points.iter().map(|&(x, y)| Self::at(x, y)).collect();
        self.area.draw(&Polygon::new(points, style))
    }

    fn dot(&self, x: f64, y: f64, radius: f64, style: ShapeStyle) -> Drawn {
        self.area.draw(&Circle::new(Self::at(x, y), (radius * SCALE) as i32, style))
    }

    fn text(&self, text: &str, x: f64, y: f64, align: HPos, paint: Paint) -> Drawn {
        self.sized_text(text, TEXT, (x, y), align, paint)
    }

    fn bold_text(&self, text: &str, (x, y): (f64, f64), align: HPos, paint: Paint) -> Drawn {
        let style = TextStyle { font: text_style(TEXT, paint).font.style(FontStyle::Bold), ..text_style(TEXT, paint) };
        let style = style.pos(Pos::new(align, VPos::Center));
        self.area.draw_text(text, &style, Self::at(x, y))
    }

    fn sized_text(&self, text: &str, size: f64, (x, y): (f64, f64), align: HPos, paint: Paint) -> Drawn {
        let style = text_style(size, paint).pos(Pos::new(align, VPos::Center));
        self.area.draw_text(text, &style, Self::at(x, y))
    }
}

/// Plotters takes a font's height for its size and divides again when it writes the SVG.
fn text_style(size: f64, paint: Paint) -> TextStyle<'static> {
    ("sans-serif", size * SCALE * 1.24).into_font().color(&paint.rgb())
}

/// About how wide a text will be. There is no font to measure with; East Asian characters are as wide as high.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if format::columns(c.encode_utf8(&mut [0; 4])) == 2 { size } else { size * 0.57 }).sum()
}

/// The text cut to what fits into so many CSS pixels.
fn fit(text: &str, width: f64) -> String {
    if text_width(text, TEXT) <= width {
        return text.to_owned();
    }
    let mut used = text_width("…", TEXT);
    let kept = text.chars().take_while(|c| {
        used += text_width(c.encode_utf8(&mut [0; 4]), TEXT);
        used <= width
    });
    format!("{}…", kept.collect::<String>().trim_end())
}

/// Draws a chart for the wide page and for the phone; `label` says in a sentence what there is to see.
///
/// `draw` gets the room and gives the chart's height first, since some charts grow with what they show.
pub(super) fn render(
    label: &str,
    height: impl Fn(Room) -> f64,
    draw: impl Fn(&Canvas<'_>) -> Drawn,
) -> Result<String, ReportError> {
    let mut out = String::new();
    for room in [Room::WIDE, Room::NARROW] {
        let height = height(room).max(40.0);
        let mut svg = String::new();
        {
            let size = ((room.width * SCALE) as u32, (height * SCALE) as u32);
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let canvas = Canvas { area, room, height };
            draw(&canvas).and_then(|()| canvas.area.present()).map_err(|e| ReportError::Chart(e.to_string()))?;
        }
        out.push_str(&finish(&svg, room, height, label));
    }
    Ok(out)
}

/// Turns plotters' document into an element of the page: named for screen readers, coloured by the style sheet.
fn finish(svg: &str, room: Room, height: f64, label: &str) -> String {
    let body = svg.find(">\n").map_or("", |at| &svg[at + 2..]);
    let label = escape(&format::one_line(label));
    let class = room.pick("wide", "narrow");
    let view = format!("0 0 {} {}", room.width * SCALE, height * SCALE);
    // Where a chart over time has its plot, as fractions of its width, for the page's readout.
    let (left, right) = (TimePlot::left(room) / room.width, 1.0 - TimePlot::RIGHT / room.width);
    let mut out = format!(
        "<svg class=\"chart {class}\" viewBox=\"{view}\" data-left=\"{left:.4}\" data-right=\"{right:.4}\" role=\"img\" \
         aria-label=\"{label}\"><title>{label}</title>\n"
    );
    let mut body =
        body.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "").replace("\n</text>", "</text>");
    for (paint, name) in Paint::ALL {
        let RGBColor(r, g, b) = paint.rgb();
        body = body.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--{name})\""));
    }
    out.push_str(&body);
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A fault's band on the time axis, in seconds.
#[derive(Debug, Clone)]
struct Band {
    from: f64,
    until: f64,
    label: String,
}

/// The time axis that all charts of a run share, so that they can be compared by looking down the page.
#[derive(Debug, Clone)]
pub(super) struct TimeAxis {
    span: Range<f64>,
    bands: Vec<Band>,
}

impl TimeAxis {
    /// Wide enough for the series, the phases and the faults.
    pub(super) fn of(summary: &Summary) -> TimeAxis {
        let series = &summary.series;
        let bins = series.planned.len().max(series.sent.len()).max(series.dropped.len());
        let slow =
            [&series.ok, &series.fail, &series.info, &series.orders].map(Vec::len).into_iter().max().unwrap_or(0);
        let slow = slow.max(series.us_max.len()).max(series.us_p50.len()).max(series.us_p99.len());
        let load = (bins as f64 * to_s(series.bin_us)).max(slow as f64 * to_s(series.latency_bin_us));
        let faults = summary.faults.iter().flat_map(|f| [f.injected_at_ms, f.healed_at_ms, f.recovered_at_ms]);
        let end = faults.flatten().filter(|ms| ms.is_finite()).map(|ms| ms / 1e3);
        let end = end.chain(summary.phases.iter().map(|p| to_s(p.until_us))).fold(load, f64::max);
        let end = if end > 0.0 { end } else { 1.0 };
        // The stack is sampled long after the load, until the last hold has run out; the load must not shrink to a sliver for it.
        let sampled = series.stock.iter().map(|(at, _)| to_s(*at)).fold(end, f64::max).min(end * 1.3);
        let start = summary.phases.iter().map(|p| to_s(p.from_us)).fold(0.0, f64::min).max(-end * 0.25);
        let span = start..sampled;
        let bands = summary.faults.iter().filter_map(|fault| {
            let from = fault.injected_at_ms.filter(|ms| ms.is_finite())? / 1e3;
            let until = fault.healed_at_ms.filter(|ms| ms.is_finite()).map_or(span.end, |ms| ms / 1e3);
            Some(Band { from, until: until.max(from), label: format::one_line(&fault.id) })
        });
        TimeAxis { bands: bands.collect(), span }
    }

    /// Its start and end, in seconds.
    pub(super) fn span(&self) -> Range<f64> {
        self.span.clone()
    }

    fn ticks(&self, room: Room) -> Vec<f64> {
        time_ticks(&self.span, room.pick(10, 5))
    }
}

fn to_s(us: i64) -> f64 {
    us as f64 / 1e6
}

/// Round moments within a span, in steps that people count time in.
fn time_ticks(span: &Range<f64>, wanted: usize) -> Vec<f64> {
    let width = span.end - span.start;
    if width <= 10.0 {
        return round_ticks(span, wanted);
    }
    let steps = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
        86_400.0,
    ];
    let step = steps.into_iter().find(|step| width / step <= wanted as f64).unwrap_or(width / 4.0);
    ticks_by(span, step)
}

/// Round numbers within a range: multiples of 1, 2 or 5 times a power of ten.
fn round_ticks(range: &Range<f64>, wanted: usize) -> Vec<f64> {
    let width = range.end - range.start;
    if !width.is_finite() || width <= 0.0 {
        return vec![range.start];
    }
    let rough = width / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    ticks_by(range, step)
}

fn ticks_by(range: &Range<f64>, step: f64) -> Vec<f64> {
    let first = (range.start / step - 1e-9).ceil();
    let last = (range.end / step + 1e-9).floor();
    let n = (last - first).clamp(0.0, 60.0) as i32;
    (0..=n).map(|i| (first + f64::from(i)) * step).collect()
}

/// Round numbers for counts: whole, from zero.
fn count_ticks(top: f64, wanted: usize) -> Vec<f64> {
    let mut ticks = round_ticks(&(0.0..top), wanted);
    ticks.retain(|tick| tick.fract() == 0.0);
    ticks
}

/// A moment as an axis says it.
fn time_label(s: f64) -> String {
    if s.abs() < 120.0 {
        return format!("{} s", format::number((s * 1e3).round() / 1e3));
    }
    let sign = if s < 0.0 { "-" } else { "" };
    let s = s.abs().round() as u64;
    format!("{sign}{}:{:02}", s / 60, s % 60)
}

/// A count as an axis says it.
fn count_label(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", format::number(value / 1e6)),
        v if v >= 1e5 => format!("{}k", format::number(value / 1e3)),
        _ => format::signed(value.round() as i64),
    }
}

/// Ticks of a logarithmic axis over microseconds: powers of ten, with 2 and 5 between them where there is room.
fn log_ticks(range: &Range<f64>, dense: bool) -> Vec<f64> {
    let marks: &[f64] = if dense { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let mut ticks = Vec::new();
    for power in 0..12 {
        for mark in marks {
            let tick = (mark * 10f64.powi(power)).log10();
            if tick >= range.start - 1e-9 && tick <= range.end + 1e-9 {
                ticks.push(tick);
            }
        }
    }
    ticks
}

/// A latency on a logarithmic axis: its power of ten, in microseconds. Nothing is faster than one microsecond.
fn log_us(us: u64) -> f64 {
    (us.max(1) as f64).log10()
}

/// The bounds of a logarithmic axis: whole decades where they fit tightly, else a little air.
fn log_range(low: u64, high: u64) -> Range<f64> {
    let (low, high) = (log_us(low), log_us(high.max(low)));
    let start = ((low - 0.08) * 10.0).floor() / 10.0;
    let end = ((high + 0.08) * 10.0).ceil() / 10.0;
    start.max(0.0)..end.max(start.max(0.0) + 1.0)
}

/// A tick of a logarithmic axis in words.
fn log_label(tick: f64) -> String {
    let us = 10f64.powf(tick).round();
    match us {
        us if us >= 1e6 => format!("{} s", format::number(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", format::number(us / 1e3)),
        us => format!("{} µs", format::number(us)),
    }
}

/// A chart over time with its faults shaded, ready for its series.
struct TimePlot<'a> {
    plot: Plot<'a>,
}

/// The vertical axis of a chart.
struct YAxis<'f> {
    range: Range<f64>,
    ticks: Vec<f64>,
    label: &'f dyn Fn(&f64) -> String,
}

impl YAxis<'static> {
    /// For counts: from zero to a little above the largest.
    fn counts(largest: f64, room: Room) -> YAxis<'static> {
        let top = if largest.is_finite() && largest > 0.0 { largest * 1.06 } else { 1.0 };
        YAxis { range: 0.0..top, ticks: count_ticks(top, room.pick(6, 4)), label: &|v| count_label(*v) }
    }
}

impl<'a> TimePlot<'a> {
    const LABEL_ROW: f64 = 15.0;
    const BOTTOM: f64 = 24.0;
    const RIGHT: f64 = 12.0;

    fn left(room: Room) -> f64 {
        room.pick(58.0, 50.0)
    }

    /// Draws the frame: grid, labels of the axes, the faults' bands and their names above the plot.
    fn new(canvas: &Canvas<'a>, time: &TimeAxis, y: YAxis<'_>) -> Drawn<TimePlot<'a>> {
        let room = canvas.room;
        let (names, rows) = place_names(time, room);
        let top = 8.0 + rows as f64 * Self::LABEL_ROW;
        let px = |v: f64| (v * SCALE) as u32;
        let plot = ChartBuilder::on(&canvas.area)
            .margin_top(px(top))
            .margin_right(px(Self::RIGHT))
            .x_label_area_size(px(Self::BOTTOM))
            .y_label_area_size(px(Self::left(room)))
            .build_cartesian_2d(
                Axis { range: time.span.clone(), ticks: time.ticks(room) },
                Axis { range: y.range, ticks: y.ticks },
            )?;
        let mut this = TimePlot { plot };
        this.shade(time)?;
        this.mesh(y.label)?;
        for (row, x, label) in names {
            let y = 8.0 + (row as f64 + 0.35) * Self::LABEL_ROW;
            canvas.text(&label, x, y, HPos::Left, Paint::Fault)?;
        }
        Ok(this)
    }

    fn mesh(&mut self, label: &dyn Fn(&f64) -> String) -> Drawn {
        self.plot
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(Paint::Grid.line(1.0))
            .axis_style(Paint::Grid.line(1.0))
            .set_all_tick_mark_size((5.0 * SCALE) as i32)
            .label_style(text_style(TEXT, Paint::Muted))
            .x_label_formatter(&|s| time_label(*s))
            .y_label_formatter(label)
            .draw()
    }

    fn shade(&mut self, time: &TimeAxis) -> Drawn {
        let y = self.plot.as_coord_spec().get_y_range();
        for band in &time.bands {
            let (low, high) = (y.start, y.end);
            let shape = Rectangle::new([(band.from, low), (band.until, high)], Paint::Fault.tint(0.13));
            self.plot.draw_series(std::iter::once(shape))?;
            let edge = PathElement::new(vec![(band.from, low), (band.from, high)], Paint::Fault.line(1.0));
            self.plot.draw_series(std::iter::once(edge))?;
        }
        Ok(())
    }

    /// A line with gaps where there is no value.
    fn line(&mut self, points: &[(f64, Option<f64>)], style: ShapeStyle) -> Drawn {
        for piece in points.split(|(_, y)| y.is_none()) {
            let piece: Vec<_> = piece.iter().filter_map(|(x, y)| y.map(|y| (*x, y))).collect();
            match piece.as_slice() {
                [] => {}
                [(x, y)] => {
                    let dot = Circle::new((*x, *y), (1.3 * SCALE) as i32, style.filled());
                    self.plot.draw_series(std::iter::once(dot))?;
                }
                _ => {
                    self.plot.draw_series(std::iter::once(PathElement::new(piece, style)))?;
                }
            }
        }
        Ok(())
    }

    fn area(&mut self, outline: Vec<(f64, f64)>, style: ShapeStyle) -> Drawn {
        if outline.len() > 2 {
            self.plot.draw_series(std::iter::once(Polygon::new(outline, style)))?;
        }
        Ok(())
    }
}

/// Where the names of the faults go above a plot: rows such that none covers another. What finds no room is left out;
/// the timeline names every fault.
fn place_names(time: &TimeAxis, room: Room) -> (Vec<(usize, f64, String)>, usize) {
    let left = TimePlot::left(room);
    let width = room.width - left - TimePlot::RIGHT;
    let most_rows = room.pick(3, 4);
    let mut ends: Vec<f64> = Vec::new();
    let mut placed = Vec::new();
    for band in &time.bands {
        let label = fit(&band.label, room.pick(170.0, 120.0));
        let share = (band.from - time.span.start) / (time.span.end - time.span.start);
        let wide = text_width(&label, TEXT);
        let x = (left + share * width).min(room.width - wide - 4.0).max(4.0);
        let row = ends.iter().position(|end| *end + 6.0 <= x).unwrap_or(ends.len());
        if row >= most_rows {
            continue;
        }
        if row == ends.len() {
            ends.push(0.0);
        }
        ends[row] = x + wide;
        placed.push((row, x, label));
    }
    (placed, ends.len())
}

/// How many bins to merge into one so that a series has few enough points.
pub(super) fn merge_factor(bins: usize) -> usize {
    bins.div_ceil(MOST_POINTS).max(1)
}

/// Counts of merged bins: sums, so that the unit becomes "per merged bin".
pub(super) fn merge_counts(series: &[u32], factor: usize) -> Vec<f64> {
    series.chunks(factor).map(|bins| bins.iter().map(|n| f64::from(*n)).sum()).collect()
}

/// The corners of a series of bins: each bin is a level, so that a sudden step looks as sudden as it was.
fn stairs(values: &[f64], bin_s: f64) -> Vec<(f64, f64)> {
    let mut corners = Vec::with_capacity(values.len() * 2);
    for (i, value) in values.iter().enumerate() {
        let from = i as f64 * bin_s;
        // A level that goes on needs no corner of its own.
        if i > 0 && values[i - 1] == *value {
            if let Some(last) = corners.last_mut() {
                *last = (from + bin_s, *value);
            }
            continue;
        }
        corners.push((from, *value));
        corners.push((from + bin_s, *value));
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(round_ticks(&(0.0..430.0), 5), vec![0.0, 100.0, 200.0, 300.0, 400.0]);
        assert_eq!(time_ticks(&(-3.0..31.0), 10), vec![0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!(count_ticks(1.0, 5), vec![0.0, 1.0]);
        assert_eq!(round_ticks(&(1.0..1.0), 5), vec![1.0]);
    }

    #[test]
    fn texts_are_cut_to_their_room() {
        assert_eq!(fit("short", 100.0), "short");
        assert_eq!(fit("", 0.0), "");
        let cut = fit("a long name of a fault", 60.0);
        assert!(cut.ends_with('…') && text_width(&cut, TEXT) <= 60.0, "{cut}");
    }

    #[test]
    fn stairs_keep_the_edge_vertical() {
        assert_eq!(stairs(&[1.0, 1.0, 5.0], 0.1).len(), 4);
        let corners = stairs(&[1.0, 5.0], 1.0);
        assert_eq!(corners, vec![(0.0, 1.0), (1.0, 1.0), (1.0, 5.0), (2.0, 5.0)]);
    }

    #[test]
    fn log_ranges_are_never_empty() {
        for (low, high) in [(0, 0), (1, 1), (500, 700), (90, 9_000_000), (5, 1)] {
            let range = log_range(low, high);
            assert!(range.end - range.start >= 1.0, "{low} {high} {range:?}");
            assert!(!log_ticks(&range, true).is_empty());
        }
    }
}
