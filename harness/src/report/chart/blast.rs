//! The blast radius as a heat map: faults by cohorts, and in each cell what became of TP99, errors and goodput.
//!
//! Colour says how much and which way (orange is worse, blue is better, which everybody can tell apart); the figure
//! stands in the cell, and what changed is bold with a bar at its edge, so that nothing depends on colour. On a phone
//! each fault is a block of its own with a row for each cohort.

use std::ops::Range;

use plotters::style::text_anchor::HPos;

use super::super::ReportError;
use super::{Canvas, Drawn, Paint, Room, TEXT, fit, render, text_width};
use crate::report::blast::{self, Measure};
use crate::report::format;
use crate::summary::{BlastCell, BlastFault, BlastRadius, Change, Effect, Likeness, Summary};

/// Height of one figure.
const STRIP: f64 = 20.0;
/// Air between figures, and between cells.
const GAP: f64 = 2.0;
const HEAD: f64 = 24.0;
/// Between the rows of the wide drawing, and the blocks of the narrow one.
const AIR: f64 = 10.0;
const LABEL: f64 = 218.0;
/// Cohorts beside each other on the wide page; more of them stand below.
const ABREAST: usize = 6;
/// The widest cell: figures far from their names are hard to read.
const WIDEST: f64 = 248.0;
const NARROW_LABEL: f64 = 112.0;
/// The most faults and cohorts that are drawn; the table has them all.
const MOST: usize = 20;

/// Draws it; nothing if there is no matrix.
pub(in crate::report) fn draw(summary: &Summary) -> Result<Option<String>, ReportError> {
    let Some(matrix) = blast::matrix(summary) else { return Ok(None) };
    let map = Map {
        faults: &matrix.faults[..matrix.faults.len().min(MOST)],
        cohorts: &matrix.cohorts[..matrix.cohorts.len().min(MOST)],
    };
    let svg = render(&label(matrix), |room| map.height(room), |canvas| map.draw(canvas))?;
    Ok(Some(svg))
}

/// In words for who does not see it: what changed, fault by fault.
fn label(matrix: &BlastRadius) -> String {
    let changes = matrix.faults.iter().take(MOST).map(|fault| {
        let reached = blast::reached(fault).unwrap_or_else(|| "nothing changed".to_owned());
        // A name that looks like an address stays a name.
        let [name, reached] = [fault.fault.as_str(), reached.as_str()].map(|text| text.replace(':', " "));
        format::shorten(&format!("{name}: {reached}"), 240)
    });
    format!(
        "Heat map of {} by {}. {}.",
        format::plural(matrix.faults.len() as u64, "fault"),
        format::plural(matrix.cohorts.len() as u64, "cohort"),
        changes.collect::<Vec<_>>().join("; ")
    )
}

struct Map<'a> {
    faults: &'a [BlastFault],
    cohorts: &'a [String],
}

impl Map<'_> {
    const ROW: f64 = 3.0 * STRIP + 2.0 * GAP;

    fn height(&self, room: Room) -> f64 {
        let (faults, cohorts) = (self.faults.len() as f64, self.cohorts.len());
        if room.narrow {
            let notes = self.faults.iter().filter(|fault| !fault.overlapped_by.is_empty()).count() as f64;
            return faults * (2.0 * HEAD - 6.0 + cohorts as f64 * (STRIP + GAP) + AIR) + notes * 15.0;
        }
        cohorts.div_ceil(ABREAST) as f64 * (HEAD + faults * (Self::ROW + AIR))
    }

    fn draw(&self, canvas: &Canvas<'_>) -> Drawn {
        if canvas.room.narrow { self.blocks(canvas) } else { self.grid(canvas) }
    }

    fn grid(&self, canvas: &Canvas<'_>) -> Drawn {
        let mut top = 0.0;
        let abreast = self.cohorts.len().min(ABREAST);
        let cell = ((canvas.room.width - LABEL) / abreast as f64).min(WIDEST);
        for (band, cohorts) in self.cohorts.chunks(ABREAST).enumerate() {
            for (n, name) in cohorts.iter().enumerate() {
                let name = fit(&format::one_line(name), cell - AIR);
                canvas.bold_text(&name, (LABEL + n as f64 * cell, top + HEAD / 2.0), HPos::Left, Paint::Ink)?;
            }
            top += HEAD;
            for fault in self.faults {
                beside(canvas, fault, top)?;
                for (n, figures) in fault.cells.iter().skip(band * ABREAST).take(cohorts.len()).enumerate() {
                    let from = LABEL + n as f64 * cell;
                    for (row, measure) in Measure::ALL.into_iter().enumerate() {
                        let y = top + row as f64 * (STRIP + GAP);
                        let place = Place { x: from..from + cell - AIR, y: y..y + STRIP };
                        place.strip(canvas, measure, figures, true)?;
                    }
                }
                top += Self::ROW + AIR;
            }
        }
        Ok(())
    }

    fn blocks(&self, canvas: &Canvas<'_>) -> Drawn {
        let width = canvas.room.width;
        let column = (width - NARROW_LABEL) / Measure::ALL.len() as f64;
        let mut top = 0.0;
        for fault in self.faults {
            let name = bold_fit(&format::one_line(&fault.fault), width);
            canvas.bold_text(&name, (0.0, top + HEAD / 2.0), HPos::Left, Paint::Ink)?;
            top += HEAD;
            if let Some(with) = with(fault) {
                canvas.text(&fit(&with, width), 0.0, top + 2.0, HPos::Left, Paint::Muted)?;
                top += 15.0;
            }
            for (n, measure) in Measure::ALL.into_iter().enumerate() {
                let x = NARROW_LABEL + (n + 1) as f64 * column - 6.0;
                canvas.text(measure.name(), x, top + (HEAD - 6.0) / 2.0, HPos::Right, Paint::Muted)?;
            }
            top += HEAD - 6.0;
            for figures in fault.cells.iter().take(self.cohorts.len()) {
                let name = fit(&format::one_line(&figures.cohort), NARROW_LABEL - 8.0);
                canvas.text(&name, 0.0, top + STRIP / 2.0, HPos::Left, Paint::Ink)?;
                for (n, measure) in Measure::ALL.into_iter().enumerate() {
                    let from = NARROW_LABEL + n as f64 * column;
                    let place = Place { x: from..from + column - GAP, y: top..top + STRIP };
                    place.strip(canvas, measure, figures, false)?;
                }
                top += STRIP + GAP;
            }
            top += AIR;
        }
        Ok(())
    }
}

/// The name of a fault beside its row, in two lines if need be, and when it was.
fn beside(canvas: &Canvas<'_>, fault: &BlastFault, top: f64) -> Drawn {
    let room = LABEL - 14.0;
    let line = |n: usize| top + (n as f64 + 0.5) * (STRIP + GAP) - GAP / 2.0;
    let name = format::one_line(&fault.fault);
    let first = first_line(&name, room);
    canvas.bold_text(&first, (0.0, line(0)), HPos::Left, Paint::Ink)?;
    let rest = name[first.len()..].trim_start();
    let mut next = 1;
    if !rest.is_empty() {
        canvas.bold_text(&bold_fit(rest, room), (0.0, line(1)), HPos::Left, Paint::Ink)?;
        next = 2;
    }
    let time = format!("{} to {}", format::moment_ms(Some(fault.from_ms)), format::moment_ms(Some(fault.until_ms)));
    match with(fault) {
        Some(with) if next == 2 => canvas.text(&fit(&with, room), 0.0, line(2), HPos::Left, Paint::Muted),
        Some(with) => {
            canvas.text(&fit(&time, room), 0.0, line(1), HPos::Left, Paint::Muted)?;
            canvas.text(&fit(&with, room), 0.0, line(2), HPos::Left, Paint::Muted)
        }
        None => canvas.text(&fit(&time, room), 0.0, line(next), HPos::Left, Paint::Muted),
    }
}

fn with(fault: &BlastFault) -> Option<String> {
    let others = &fault.overlapped_by;
    (!others.is_empty()).then(|| format::one_line(&format!("together with {}", others.join(", "))))
}

/// Bold letters are wider.
const BOLD: f64 = 1.1;

fn bold_fit(text: &str, width: f64) -> String {
    fit(text, width / BOLD)
}

/// As much of a name as a line holds, broken behind a dash or a space where there is one in its second half.
fn first_line(name: &str, width: f64) -> String {
    let mut used = 0.0;
    let fits = |(_, c): &(usize, char)| {
        used += text_width(c.encode_utf8(&mut [0; 4]), TEXT) * BOLD;
        used <= width
    };
    let end = name.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
    if end == name.len() {
        return name.to_owned();
    }
    let broken = name[..end].rfind([' ', '-', '_', '/']).map(|at| at + 1).filter(|at| at * 2 > end);
    name[..broken.unwrap_or(end)].to_owned()
}

/// Where a figure stands.
struct Place {
    x: Range<f64>,
    y: Range<f64>,
}

impl Place {
    fn strip(&self, canvas: &Canvas<'_>, measure: Measure, cell: &BlastCell, named: bool) -> Drawn {
        let effect = measure.of(cell);
        let middle = (self.y.start + self.y.end) / 2.0;
        let paint = self.ground(canvas, measure, effect)?;
        if named {
            canvas.text(measure.name(), self.x.start + 9.0, middle, HPos::Left, paint)?;
        }
        let (text, x) = (measure.short(effect), self.x.end - 6.0);
        match effect.change {
            Change::None => canvas.text(&text, x, middle, HPos::Right, paint),
            _ => canvas.bold_text(&text, (x, middle), HPos::Right, paint),
        }
    }

    /// Fills it by what changed; gives the colour of what is written on it.
    fn ground(&self, canvas: &Canvas<'_>, measure: Measure, effect: &Effect) -> Drawn<Paint> {
        let (x, y) = (self.x.clone(), self.y.clone());
        let paint = match effect.change {
            Change::Worse => Paint::Worse,
            Change::Better => Paint::Better,
            Change::None => {
                // What cannot be told is an empty frame.
                let told = effect.effect.is_some() && effect.against != Likeness::Run;
                if told {
                    canvas.rect(x, y, Paint::PhaseA.tint(0.7))?;
                    return Ok(Paint::Ink);
                }
                let corners = [(x.start, y.start), (x.end, y.start), (x.end, y.end), (x.start, y.end)];
                canvas.path(&[corners[0], corners[1], corners[2], corners[3], corners[0]], Paint::Grid.line(1.0))?;
                return Ok(Paint::Muted);
            }
        };
        let alpha = [0.25, 0.45, 0.65][usize::from(measure.strength(effect)).clamp(1, 3) - 1];
        canvas.rect(x.clone(), y.clone(), paint.tint(alpha))?;
        canvas.rect(x.start..x.start + 4.0, y, paint.solid())?;
        Ok(Paint::Ink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_break_where_they_may() {
        assert_eq!(first_line("dead-database", 200.0), "dead-database");
        let long = "the-connection-between-service-and-database-is-cut";
        let first = first_line(long, 200.0);
        assert!(first.ends_with('-') && long.starts_with(&first), "{first}");
        let wide = "数据库主库连接池耗尽导致的长时间不可用故障";
        let first = first_line(wide, 150.0);
        assert!(!first.is_empty() && first.len() < wide.len() && wide.starts_with(&first), "{first}");
    }
}
