//! The charts of the page with their captions, legends and readouts.

use askama::Template;

use super::super::ReportError;
use super::super::chart::{self, TimeAxis};
use super::Readout;
use crate::check::WitnessLine;
use crate::summary::Summary;

/// A chart with its caption and the meaning of its marks.
#[derive(Template)]
#[template(path = "figure.html")]
pub(super) struct Figure {
    title: &'static str,
    unit: String,
    svg: String,
    legend: Vec<Key>,
    /// The figures behind it, as JSON, if they can be read off under a pointer.
    readout: Option<String>,
}

/// One entry of a legend: the shape of the mark, its colour's name, and what it stands for.
struct Key {
    shape: &'static str,
    paint: &'static str,
    text: &'static str,
}

const fn key(shape: &'static str, paint: &'static str, text: &'static str) -> Key {
    Key { shape, paint, text }
}

impl Figure {
    fn new(title: &'static str, unit: impl Into<String>, svg: Option<String>, legend: Vec<Key>) -> Option<Figure> {
        Some(Figure { title, unit: unit.into(), svg: svg?, legend, readout: None })
    }

    /// A chart over time: its faults are shaded, and its figures can be read off.
    fn over_time(mut self, summary: &Summary, readout: Readout) -> Figure {
        if broken(summary) {
            self.legend.push(key("band", "fault", "fault"));
        }
        self.readout = Some(readout.json());
        self
    }
}

fn broken(summary: &Summary) -> bool {
    summary.faults.iter().any(|fault| fault.injected_at_ms.is_some())
}

/// What can be drawn of any run; a figure is absent where there is nothing to draw.
type Drawn = Result<Option<Figure>, ReportError>;

/// Phases, faults and recoveries.
pub(super) fn timeline(summary: &Summary, time: &TimeAxis) -> Drawn {
    let mut legend = Vec::new();
    if broken(summary) {
        legend.push(key("area", "fault", "fault in effect"));
        legend.push(key("dot", "recovery", "healed, until steady again"));
    }
    let svg = chart::timeline::draw(summary, time)?;
    Ok(Figure::new("Phases and faults", "seconds since the load began", svg, legend))
}

/// Faults by cohorts.
pub(super) fn blast(summary: &Summary) -> Drawn {
    let legend = vec![
        key("area", "worse", "worse"),
        key("area", "better", "better"),
        key("area", "phase-a", "no change"),
        key("frame", "muted", "cannot be told"),
    ];
    Ok(Figure::new("Blast radius", "what each fault changed for whom", chart::blast::draw(summary)?, legend))
}

/// Planned, sent and dropped arrivals.
pub(super) fn arrivals(summary: &Summary, time: &TimeAxis) -> Drawn {
    let mut legend = vec![key("area", "planned", "planned"), key("line", "sent", "sent")];
    if summary.load.dropped > 0 {
        legend.push(key("area", "dropped", "dropped"));
    }
    let unit = chart::arrivals::bin_width(summary).map(|width| format!("per {width}")).unwrap_or_default();
    let figure = Figure::new("Arrivals", unit, chart::arrivals::draw(summary, time)?, legend);
    Ok(figure.map(|figure| figure.over_time(summary, Readout::arrivals(summary, time))))
}

/// Percentiles over time.
pub(super) fn latency(summary: &Summary, time: &TimeAxis) -> Drawn {
    let legend = vec![key("line", "p50", "TP50"), key("line", "p99", "TP99"), key("line", "max", "largest")];
    let svg = chart::latency::draw(summary, time)?;
    let figure = Figure::new("Latency over time", "by intended start, logarithmic", svg, legend);
    Ok(figure.map(|figure| figure.over_time(summary, Readout::latency(summary, time))))
}

/// Percentiles by step.
pub(super) fn ranges(summary: &Summary) -> Drawn {
    let legend = vec![
        key("dot", "p50", "TP50"),
        key("square", "p99", "TP99"),
        key("diamond", "p99", "TP999"),
        key("tick", "max", "largest"),
    ];
    Ok(Figure::new("Latency by step", "logarithmic", chart::steps::draw(summary)?, legend))
}

/// Stock and orders.
pub(super) fn stock(summary: &Summary, time: &TimeAxis) -> Drawn {
    let mut legend =
        vec![key("line", "stock", "stock available, as sampled"), key("line", "orders", "orders acknowledged so far")];
    if summary.series.stock.iter().any(|(_, units)| units.is_none()) {
        legend.push(key("area", "info", "the service did not answer"));
    }
    let figure = Figure::new("Stock and orders", "units, orders", chart::stock::draw(summary, time)?, legend);
    Ok(figure.map(|figure| figure.over_time(summary, Readout::stock(summary, time))))
}

/// Outcomes of requests.
pub(super) fn outcomes(summary: &Summary, time: &TimeAxis) -> Drawn {
    let legend = vec![key("area", "ok", "ok"), key("area", "refused", "refused"), key("area", "info", "indeterminate")];
    let unit = chart::outcomes::bin_width(summary).map(|width| format!("per {width}, stacked")).unwrap_or_default();
    let figure = Figure::new("Outcomes of requests", unit, chart::outcomes::draw(summary, time)?, legend);
    Ok(figure.map(|figure| figure.over_time(summary, Readout::outcomes(summary, time))))
}

/// The lanes of a witness.
pub(super) fn lanes(lines: &[WitnessLine], time: &TimeAxis) -> Drawn {
    let legend = vec![key("dot", "sent", "what led up to it"), key("cross", "bad", "what shows the violation")];
    let unit = "a lane for each buyer; numbers are the rows below";
    Ok(Figure::new("The witness, drawn", unit, chart::lanes::draw(lines, time)?, legend))
}
