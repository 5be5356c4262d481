//! How the requests ended over time, stacked: sold, refused, indeterminate.

use super::super::ReportError;
use super::arrivals::solid;
use super::{Paint, TimeAxis, TimePlot, YAxis, merge_counts, merge_factor, render, stairs, to_s};
use crate::report::format;
use crate::summary::Summary;

/// The width of the bins as drawn, in words.
pub(in crate::report) fn bin_width(summary: &Summary) -> Option<String> {
    let series = &summary.series;
    let us = u64::try_from(series.latency_bin_us).ok().filter(|us| *us > 0)?;
    let us = us.saturating_mul(merge_factor(bins(summary)) as u64);
    Some(if us == 1_000_000 { "second".to_owned() } else { format::micros(us) })
}

fn bins(summary: &Summary) -> usize {
    let series = &summary.series;
    series.ok.len().max(series.fail.len()).max(series.info.len())
}

/// Draws it; nothing if nothing ended.
pub(in crate::report) fn draw(summary: &Summary, time: &TimeAxis) -> Result<Option<String>, ReportError> {
    let series = &summary.series;
    let total = [&series.ok, &series.fail, &series.info].map(|s| s.iter().map(|n| u64::from(*n)).sum::<u64>());
    let Some(width) = bin_width(summary).filter(|_| total.iter().sum::<u64>() > 0) else { return Ok(None) };
    let factor = merge_factor(bins(summary));
    let bin_s = to_s(series.latency_bin_us) * factor as f64;
    let levels = stacked([&series.ok, &series.fail, &series.info].map(|s| merge_counts(s, factor)));
    let largest = levels[2].iter().copied().fold(0.0, f64::max);
    let [ok, fail, info] = total.map(format::count);
    let label =
        format!("Outcomes of requests per {width} over time, stacked: {ok} ok, {fail} refused, {info} indeterminate.");
    let svg = render(
        &label,
        |room| room.pick(260.0, 240.0),
        |canvas| {
            let mut chart = TimePlot::new(canvas, time, YAxis::counts(largest, canvas.room))?;
            let floor = vec![0.0; levels[0].len()];
            for (low, high, paint) in [
                (&floor, &levels[0], Paint::Ok),
                (&levels[0], &levels[1], Paint::Fail),
                (&levels[1], &levels[2], Paint::Info),
            ] {
                let mut outline = stairs(high, bin_s);
                outline.extend(stairs(low, bin_s).into_iter().rev());
                chart.area(outline, paint.tint(0.85))?;
            }
            // A few indeterminate requests on top of thousands of others would be thinner than a hair.
            for (i, (low, high)) in levels[1].iter().zip(&levels[2]).enumerate() {
                if high > low {
                    let edge = stairs(&[*high], bin_s).into_iter().map(|(x, y)| (x + i as f64 * bin_s, y)).collect();
                    chart.line(&solid(edge), Paint::Info.line(2.5))?;
                }
            }
            Ok(())
        },
    )?;
    Ok(Some(svg))
}

/// Running sums of three series, all as long as the longest.
fn stacked(series: [Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let bins = series.iter().map(Vec::len).max().unwrap_or(0);
    let at = |s: &[f64], i: usize| s.get(i).copied().unwrap_or(0.0);
    let [ok, fail, info] = series;
    let first: Vec<f64> = (0..bins).map(|i| at(&ok, i)).collect();
    let second: Vec<f64> = (0..bins).map(|i| first[i] + at(&fail, i)).collect();
    let third = (0..bins).map(|i| second[i] + at(&info, i)).collect();
    [first, second, third]
}
