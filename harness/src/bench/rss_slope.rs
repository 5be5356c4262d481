//! Whether the memory of the process stays flat: what it grows by with each request, while the generator and the recorder
//! work at nearly full speed, and what that would come to in a day.

use std::time::Duration;

use super::generator::{CONNECTIONS, sustained};
use super::{Context, Figure, Unmeasured, server};
use crate::measure::line;
use crate::workbench::drive::{Shot, drive_watched};
use crate::workbench::rss_bytes;

/// The rate, to what the generator sustains: a backlog of the plan would be memory of its own.
const KEPT: f64 = 0.7;
/// Length in seconds.
const LENGTH_S: u64 = 260;
/// Seconds at the beginning in which buffers reach their size.
const WARM_UP_S: usize = 80;
/// Parts of the rest. The memory of neighbouring seconds is alike, and that of parts is not.
const PARTS: usize = 10;
/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// Loads the bare server for some minutes.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let server = server::start(&context.cores)?;
    let rate = KEPT * sustained(context, &server)?;
    context.say(&format!("memory at {rate:.0} requests per second, {LENGTH_S} s"));
    let mut samples = Vec::new();
    let shot = Shot::constant(rate, Duration::from_secs(LENGTH_S), CONNECTIONS);
    let watch = |requests: u64| samples.push((requests as f64 / 1e6, rss_bytes() as f64));
    let driven = drive_watched(context, server.address, &shot, watch)?;
    driven.forget();
    let samples = samples.get(WARM_UP_S..).unwrap_or_default();
    let parts = means(samples, PARTS);
    for (millions, bytes) in &parts {
        context.say(&format!("  at {millions:.2} million requests: {:.2} MiB", mib(*bytes)));
    }
    let Some(line) = line::fit(&parts) else {
        return Err(Unmeasured::Failed(format!("{} samples of the memory are too few", samples.len())));
    };
    let (from, until) = (mib(samples[0].1), mib(samples[samples.len() - 1].1));
    let day = [line.slope, line.slope_interval[0], line.slope_interval[1]].map(|bytes| mib(bytes * rate * DAY_S / 1e6));
    let detail = format!(
        "{:.1} million requests at {rate:.0} per second, {from:.1} MiB at the beginning and \
         {until:.1} MiB at the end; a day at this rate would come to {:.0} MiB, {:.0} to {:.0}",
        driven.requests as f64 / 1e6,
        day[0],
        day[1],
        day[2],
    );
    let mut figure = Figure::new("rss_slope", line.slope, "bytes per million requests").detail(&detail);
    figure.interval = Some(line.slope_interval);
    Ok(vec![figure])
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// The means of so many equal parts.
fn means(samples: &[(f64, f64)], parts: usize) -> Vec<(f64, f64)> {
    let length = (samples.len() / parts).max(1);
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
    samples.chunks_exact(length).map(|part| (mean(part, |s| s.0), mean(part, |s| s.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_averaged() {
        let samples: Vec<(f64, f64)> = (0..7).map(|x| (f64::from(x), f64::from(x * 10))).collect();
        assert_eq!(means(&samples, 3), [(0.5, 5.0), (2.5, 25.0), (4.5, 45.0)]);
    }
}
