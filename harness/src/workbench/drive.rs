//! Drives the real load path against the server of a measurement: goose's users, the pool, the buyers, the recorder and
//! its writer, exactly as a run uses them, but without a proxy between.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Context, Unmeasured, process_cpu_s};
use crate::history::recorder::Recorder;
use crate::history::{LoadTotals, RunInfo};
use crate::load::client::Entry;
use crate::load::clock::Clock;
use crate::load::driver::{self, LoadError, LoadSpec, Ready, Shared};
use crate::load::slice::Slice;
use crate::scenario::{self, Scenario};

/// The one step of the journeys, as the history names it.
pub const STEP: &str = "state";

/// How the load is driven.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The arrivals, each one request; they are summed.
    pub arrivals: Vec<Steady>,
    /// Virtual buyers, each with one connection.
    pub buyers: u32,
}

/// Evenly spaced arrivals.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    /// Arrivals per second.
    pub rate: f64,
    /// When the first ones come.
    pub from: Duration,
    /// How long they come.
    pub lasts: Duration,
}

impl Shot {
    /// One rate from start to end.
    pub fn constant(rate: f64, lasts: Duration, buyers: u32) -> Shot {
        Shot { arrivals: vec![Steady { rate, from: Duration::ZERO, lasts }], buyers }
    }
}

/// What it came to. Every request was answered and is in the history.
#[derive(Debug)]
pub struct Driven {
    /// Requests answered and recorded.
    pub requests: u64,
    /// What the generator counted, its processor time during the load included.
    pub totals: LoadTotals,
    /// Processor seconds of the whole process: start of the buyers, generator, and the history's writer to its last byte.
    pub process_cpu_s: f64,
    /// Seconds from the order to start until all buyers had come, and those were connected who connect ahead.
    pub ready_s: f64,
    /// Seconds from the first intended start to the end of the last request.
    pub wall_s: f64,
    /// The folder with the history.
    pub folder: PathBuf,
}

impl Driven {
    /// Removes the history, which need not be kept.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Drives one load against the server.
///
/// # Errors
/// The load failed, or some request was not answered or not recorded.
pub fn drive(context: &Context<'_>, address: SocketAddr, shot: &Shot) -> Result<Driven, Unmeasured> {
    drive_watched(context, address, shot, |_| ())
}

/// The same, while `watch` is told about once a second how many requests have been answered.
///
/// # Errors
/// The load failed, or some request was not answered or not recorded.
pub fn drive_watched(
    context: &Context<'_>,
    address: SocketAddr,
    shot: &Shot,
    watch: impl FnMut(u64),
) -> Result<Driven, Unmeasured> {
    let folder = context.fresh_folder()?;
    let scenario = one_step(context, address, shot)?;
    let cpu_before = process_cpu_s();
    // The buyers come and connect within this time.
    let clock = Clock::starting_in(500_000 + i64::from(shot.buyers) * 300);
    // The writer may run on any processor, as in a run; only the generator's thread is pinned.
    let recorder = Recorder::create(&folder, &info(&scenario, clock))?;
    let (user_prefix, key_prefix) = ("bench-u".into(), "bench-k".into());
    let entry = Entry::plain(address);
    let spec = LoadSpec { scenario: &scenario, entry, clock, slice: Slice::WHOLE, user_prefix, key_prefix };
    let started = Instant::now();
    let ready = context.cores.on_client(|| driver::start(&spec, &recorder))?;
    let shared = ready.shared();
    while shared.idle() < shot.buyers as usize && clock.now_us() < 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ready_s = started.elapsed().as_secs_f64();
    let totals = context.runtime.block_on(watched(ready, &shared, context.cancel, watch))?;
    context.goes_on()?;
    let wall_s = clock.now_us() as f64 / 1e6;
    let requests = shared.live.ok.load(Ordering::Relaxed);
    drop(shared);
    let closed = recorder.close("completed")?;
    let process_cpu_s = process_cpu_s() - cpu_before;
    if requests != totals.planned || closed.ops != requests || closed.ops_lost > 0 {
        return Err(Unmeasured::Failed(format!(
            "of {} planned requests {requests} were answered, {} were recorded and {} records were lost",
            totals.planned, closed.ops, closed.ops_lost
        )));
    }
    Ok(Driven { requests, totals, process_cpu_s, ready_s, wall_s, folder })
}

/// Waits for the end of the load, which somebody may want sooner.
async fn watched(
    ready: Ready,
    shared: &Shared,
    cancel: &CancellationToken,
    mut watch: impl FnMut(u64),
) -> Result<LoadTotals, LoadError> {
    let mut finished = std::pin::pin!(ready.finished());
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            totals = &mut finished => return totals,
            () = cancel.cancelled(), if !shared.stopping() => shared.stop(),
            _ = every.tick() => watch(shared.live.ok.load(Ordering::Relaxed)),
        }
    }
}

/// A scenario whose journeys are one GET. Its patience outlasts any backlog: an arrival that were dropped would be cheap.
fn one_step(context: &Context<'_>, address: SocketAddr, shot: &Shot) -> Result<Scenario, Unmeasured> {
    let arrivals: Vec<String> = shot
        .arrivals
        .iter()
        .map(|Steady { rate, from, lasts }| {
            let (from, lasts) = (from.as_micros(), lasts.as_micros());
            format!(r#"{{ constant = {{ rate = {rate:.1}, from = "{from}us", lasts = "{lasts}us" }} }}"#)
        })
        .collect();
    let text = format!(
        r#"
name = "bench"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "1s" }}]
load = {{ duration = "10m", virtual_buyers = {buyers}, request_timeout = "30s", patience = "10m" }}
step.state.path = "/items/${{item}}/state"
steady_state = {{ step = "state", within = "1s" }}
[cohort.buyers]
journey = ["{STEP}"]
arrivals = [{arrivals}]
"#,
        buyers = shot.buyers,
        arrivals = arrivals.join(", "),
    );
    let path = context.folder.join("bench.toml");
    std::fs::write(&path, text)?;
    Ok(scenario::load(&path, &[], None)?.scenario)
}

fn info(scenario: &Scenario, clock: Clock) -> RunInfo {
    RunInfo {
        run_id: "bench".into(),
        scenario: scenario.name.clone(),
        seed: scenario.seed,
        schedule_hash: String::new(),
        timeline_hash: String::new(),
        epoch_unix_us: clock.epoch_unix_us(),
        user_prefix: "bench-u".into(),
        key_prefix: "bench-k".into(),
        duration_us: scenario.load.duration.micros(),
        machine: crate::run::machine(),
        closed: None,
        shard: None,
        merged: Vec::new(),
    }
}
