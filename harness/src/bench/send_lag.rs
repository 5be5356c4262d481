//! How late requests leave, at rates that a core can keep up with: the generator's own error, from the recorded history.

use std::time::Duration;

use super::{Context, Figure, Unmeasured, server};
use crate::history::reader;
use crate::measure::stats::{LatencyHistogram, P99, P999, Percentile};
use crate::workbench::drive::{Driven, Shot, drive};

/// Buyers: more than are ever busy at once, so that no arrival waits for one even if the server rests for a tenth of a
/// second.
pub const BUYERS: u32 = 1_000;

/// The lag between the intended and the real start at 5,000 and at 10,000 requests per second; the names without a rate
/// are those of the higher one.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let server = server::start(&context.cores)?;
    let mut figures = Vec::new();
    for (rate, suffix) in [(10_000.0, ""), (5_000.0, "_at_5000")] {
        context.say(&format!("send lag at {rate:.0} requests per second, 5 s"));
        let shot = Shot::constant(rate, Duration::from_secs(5), BUYERS);
        let driven = drive(context, server.address, &shot)?;
        let lags = lags(&driven)?;
        driven.forget();
        let detail = format!(
            "open loop, {rate:.0} requests per second, {} requests, p50 {} us, longest {} us, {:.1} us of CPU each",
            lags.count(),
            lags.quantile_us(0.5),
            lags.max_us(),
            driven.totals.generator_cpu_s * 1e6 / driven.requests as f64
        );
        figures.extend(tail(&format!("send_lag_us_p99{suffix}"), &lags, P99, &detail));
        figures.extend(tail(&format!("send_lag_us_p999{suffix}"), &lags, P999, &detail));
    }
    Ok(figures)
}

/// A percentile of the lag with its interval; none for want of samples.
pub fn tail(name: &str, lags: &LatencyHistogram, percentile: Percentile, detail: &str) -> Option<Figure> {
    let mut figure = Figure::new(name, lags.percentile_us(percentile)? as f64, "us").detail(detail);
    figure.interval = lags.interval_us(percentile).map(|bounds| bounds.map(|us| us as f64));
    Some(figure)
}

/// The lag of every request that was recorded.
pub fn lags(driven: &Driven) -> Result<LatencyHistogram, Unmeasured> {
    let mut lags = LatencyHistogram::default();
    reader::read(&driven.folder)?.ops.iter().for_each(|op| lags.record(op.send_lag_us()));
    Ok(lags)
}
