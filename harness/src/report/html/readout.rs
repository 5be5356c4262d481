//! The figures behind the charts over time, for the line of figures that follows a pointer over a chart.
//!
//! It is a convenience: the charts and tables say everything without it, on paper too.

use serde::Serialize;

use super::super::chart::{TimeAxis, merge_counts, merge_factor};
use crate::summary::Summary;

/// What can be read off one chart: bins of one width, and a value of each series in each bin.
#[derive(Serialize)]
pub(super) struct Readout {
    /// Start and end of the time axis, in seconds.
    from: f64,
    until: f64,
    /// Width of a bin, in seconds.
    bin: f64,
    /// `us` for durations in microseconds, else empty.
    unit: &'static str,
    series: Vec<(&'static str, Vec<Option<f64>>)>,
}

impl Readout {
    fn new(time: &TimeAxis, bin_us: i64, unit: &'static str, series: Vec<(&'static str, Vec<Option<f64>>)>) -> Readout {
        let span = time.span();
        Readout { from: span.start, until: span.end, bin: bin_us as f64 / 1e6, unit, series }
    }

    /// As an attribute of the chart's element; the template escapes it.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn arrivals(summary: &Summary, time: &TimeAxis) -> Readout {
        let s = &summary.series;
        let factor = merge_factor(s.planned.len().max(s.sent.len()));
        let series = [("planned", &s.planned), ("sent", &s.sent), ("dropped", &s.dropped)];
        Self::counts(time, s.bin_us, factor, &series)
    }

    pub(super) fn outcomes(summary: &Summary, time: &TimeAxis) -> Readout {
        let s = &summary.series;
        let factor = merge_factor(s.ok.len().max(s.fail.len()).max(s.info.len()));
        let series = [("ok", &s.ok), ("refused", &s.fail), ("indeterminate", &s.info)];
        Self::counts(time, s.latency_bin_us, factor, &series)
    }

    fn counts(time: &TimeAxis, bin_us: i64, factor: usize, series: &[(&'static str, &Vec<u32>)]) -> Readout {
        let merged =
            series.iter().map(|(name, bins)| (*name, merge_counts(bins, factor).into_iter().map(Some).collect()));
        Self::new(time, bin_us.saturating_mul(factor as i64), "", merged.collect())
    }

    pub(super) fn latency(summary: &Summary, time: &TimeAxis) -> Readout {
        let s = &summary.series;
        let factor = merge_factor(s.us_p50.len().max(s.us_p99.len()).max(s.us_max.len()));
        let worst = |bins: &[Option<u64>]| -> Vec<Option<f64>> {
            bins.chunks(factor).map(|bins| bins.iter().flatten().max().map(|us| *us as f64)).collect()
        };
        let series = vec![("TP50", worst(&s.us_p50)), ("TP99", worst(&s.us_p99)), ("largest", worst(&s.us_max))];
        Self::new(time, s.latency_bin_us.saturating_mul(factor as i64), "us", series)
    }

    pub(super) fn stock(summary: &Summary, time: &TimeAxis) -> Readout {
        let s = &summary.series;
        let mut sum = 0.0;
        let orders: Vec<_> = s
            .orders
            .iter()
            .map(|n| {
                sum += f64::from(*n);
                Some(sum)
            })
            .collect();
        let mut stock = vec![None; orders.len()];
        for (at, units) in &s.stock {
            let bin = at.checked_div(s.latency_bin_us).and_then(|bin| usize::try_from(bin).ok());
            if let Some(slot) = bin.and_then(|bin| stock.get_mut(bin)) {
                *slot = units.map(|units| units as f64);
            }
        }
        Self::new(time, s.latency_bin_us, "", vec![("available", stock), ("acknowledged", orders)])
    }
}
