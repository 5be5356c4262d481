//! Twenty thousand virtual buyers in one process: how soon they are ready, what they weigh, and how late they send while
//! half of them wait for a reply.

use std::time::Duration;

use super::send_lag::{lags, tail};
use super::{Context, Figure, Unmeasured};
use crate::calibrate::mode::Mode;
use crate::calibrate::server;
use crate::measure::stats::{P99, P999};
use crate::workbench::drive::{Shot, drive_watched};
use crate::workbench::rss_bytes;

/// Virtual buyers, each with a connection of its own when it is needed.
const BUYERS: u32 = 20_000;
/// Arrivals per second.
const RATE: f64 = 5_000.0;
/// Each request takes so long that 10,000 buyers are busy at once; there may be no more descriptors than buyers.
const SERVICE: Duration = Duration::from_secs(2);

/// Loads a slow server.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let server = server::start(&context.cores, Mode::Fixed { service_us: SERVICE.as_micros() as u64 })?;
    context.say(&format!("{BUYERS} virtual buyers at {RATE:.0} requests per second, 8 s"));
    let before = rss_bytes();
    let mut largest = before;
    let shot = Shot::constant(RATE, Duration::from_secs(8), BUYERS);
    let driven = drive_watched(context, server.address, &shot, |_| largest = largest.max(rss_bytes()))?;
    let lags = lags(&driven)?;
    driven.forget();
    let busy = driven.totals.busy_max;
    let detail = format!(
        "{RATE:.0} requests per second that take {:.1} s each: up to {busy} of {BUYERS} buyers busy at once",
        SERVICE.as_secs_f64()
    );
    let mut figures = vec![
        Figure::new("virtual_buyers_20000_ready_s", driven.ready_s, "s")
            .detail("until goose has launched all of them, and as many are connected as there are descriptors for"),
        Figure::new("virtual_buyers_20000_rss_bytes", largest.saturating_sub(before) as f64, "bytes")
            .detail("what the process grew by, recorder included"),
    ];
    figures.extend(tail("virtual_buyers_20000_send_lag_us_p99", &lags, P99, &detail));
    figures.extend(tail("virtual_buyers_20000_send_lag_us_p999", &lags, P999, &detail));
    Ok(figures)
}
