//! The harness's own figures: the real load path on the schedule, and the latencies of the recorded history as a summary
//! tells them.

use std::time::Duration;

use super::mode::{Mode, Plan};
use super::others::Reading;
use super::{Mistake, server};
use crate::history::{History, reader};
use crate::measure::phases;
use crate::measure::stats::{LatencyHistogram, text_us};
use crate::workbench::drive::{Driven, STEP, Shot, drive};
use crate::workbench::{Context, Unmeasured};

/// Lateness of the server or of the generator beyond which a turn says more of the machine than of the harness.
const LATE_US: u64 = 500;
/// The same for the share of the time for which the generator waited for a processor.
const WAIT_FRACTION: f64 = 0.01;

/// What the harness says, and what there is to say of its turn.
#[derive(Debug)]
pub struct Ours {
    /// Its figures; without a percentile for which there are too few requests.
    pub reading: Reading,
    /// What disturbed the turn, if anything did.
    pub disturbed: Option<Disturbance>,
}

/// The machine had other things to do.
#[derive(Debug)]
pub struct Disturbance {
    /// What shows it.
    pub why: String,
    /// By how many microseconds it can have lengthened a latency: by how late the server answered, by how late the generator
    /// sent, and by what it waited for a processor in all, since in a queue every such wait is a wait of all who come later.
    pub explains_us: u64,
}

/// Drives the schedule against a server of its own, and measures it as a run is measured.
///
/// # Errors
/// Some request was not answered or not recorded, or the server did not start.
pub fn measure(context: &Context<'_>, mode: Mode, plan: &Plan, mistake: Option<Mistake>) -> Result<Ours, Unmeasured> {
    let served = if mistake == Some(Mistake::SlowServer) { mode.a_tenth_slower() } else { mode };
    let server = server::start(&context.cores, served)?;
    let shot = Shot::constant(plan.rate.into(), Duration::from_secs(plan.seconds.into()), plan.connections);
    let driven = drive(context, server.address, &shot)?;
    let told = server::end(server)?;
    let mut history = reader::read(&driven.folder)?;
    driven.forget();
    let disturbed = disturbance(mode, plan, &driven, &told, &history);
    if mistake == Some(Mistake::FromSend) {
        history.ops.iter_mut().for_each(|op| op.intended_us = op.invoked_us);
    }
    let latency = phases::latency(&history, &[]);
    let stats = latency.steps.get(STEP).cloned().unwrap_or_default();
    let us = |value: Option<u64>| value.map(|us| us as f64);
    let reading =
        Reading { p50: us(stats.us_p50), p99: us(stats.us_p99), p999: us(stats.us_p999), max: us(Some(stats.us_max)) };
    Ok(Ours { reading, disturbed })
}

/// Whether the machine had other things to do: told by the server of itself, by the generator's lag where nothing but the
/// generator can make a request late, and by the scheduler.
fn disturbance(
    mode: Mode,
    plan: &Plan,
    driven: &Driven,
    told: &server::Told,
    history: &History,
) -> Option<Disturbance> {
    let mut lag = LatencyHistogram::default();
    if mode.sends_at_once() {
        history.ops.iter().for_each(|op| lag.record(op.send_lag_us()));
    }
    let waited_s = driven.totals.generator_wait_s;
    let share = waited_s / f64::from(plan.seconds);
    let why = if told.late_us_max > LATE_US {
        format!("the calibration server answered up to {} late", text_us(told.late_us_max))
    } else if lag.max_us() > LATE_US {
        format!("the generator sent up to {} late", text_us(lag.max_us()))
    } else if share > WAIT_FRACTION {
        format!("the generator waited for a processor during {:.1}% of the time", share * 100.0)
    } else {
        return None;
    };
    Some(Disturbance { why, explains_us: told.late_us_max + lag.max_us() + (waited_s * 1e6) as u64 })
}
