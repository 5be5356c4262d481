//! Drives the real load path against the server of a measurement: goose's users, the pool, the buyers, the recorder and
//! its writer, exactly as a run uses them, but without a proxy between.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use super::server::Server;
use super::{Context, Unmeasured};
use crate::history::RunInfo;
use crate::history::recorder::Recorder;
use crate::load::clock::Clock;
use crate::load::driver::{self, LoadSpec};
use crate::load::slice::Slice;
use crate::scenario::{self, Scenario};

/// How the load is driven.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    /// Arrivals per second, each one request, evenly spaced.
    pub rate: f64,
    /// How long they come.
    pub lasts: Duration,
    /// Virtual buyers, each with one connection.
    pub buyers: u32,
}

/// What it came to. Every request was answered and is in the history.
#[derive(Debug)]
pub struct Driven {
    /// Requests answered and recorded.
    pub requests: u64,
    /// Processor seconds of the generator's thread during the load, recording included.
    pub thread_cpu_s: f64,
    /// Processor seconds of the whole process: start of the buyers, generator, and the history's writer to its last byte.
    pub process_cpu_s: f64,
    /// Seconds from the first intended start to the end of the last request.
    pub wall_s: f64,
    /// The folder with the history.
    pub folder: PathBuf,
}

/// Drives one load against the server.
///
/// # Errors
/// The load failed, or some request was not answered or not recorded.
pub fn drive(context: &Context<'_>, server: &Server, shot: &Shot) -> Result<Driven, Unmeasured> {
    let folder = context.fresh_folder()?;
    let scenario = one_step(context, server, shot)?;
    let cpu_before = process_cpu_s();
    // The buyers come and connect within this time.
    let clock = Clock::starting_in(500_000 + i64::from(shot.buyers) * 300);
    // The writer may run on any processor, as in a run; only the generator's thread is pinned.
    let recorder = Recorder::create(&folder, &info(&scenario, clock))?;
    let spec = LoadSpec {
        scenario: &scenario,
        address: server.address,
        clock,
        slice: Slice::WHOLE,
        user_prefix: "bench-u".into(),
        key_prefix: "bench-k".into(),
    };
    let ready = context.cores.on_client(|| driver::start(&spec, &recorder))?;
    let shared = ready.shared();
    let totals = context.runtime.block_on(ready.finished())?;
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
    Ok(Driven { requests, thread_cpu_s: totals.generator_cpu_s, process_cpu_s, wall_s, folder })
}

/// A scenario whose journeys are one GET. Its patience outlasts any backlog: an arrival that were dropped would be cheap.
fn one_step(context: &Context<'_>, server: &Server, shot: &Shot) -> Result<Scenario, Unmeasured> {
    let text = format!(
        r#"
name = "bench"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "1s" }}]
load = {{ duration = "10m", virtual_buyers = {buyers}, request_timeout = "2s", patience = "10m" }}
step.state.path = "/items/${{item}}/state"
steady_state = {{ step = "state", within = "1s" }}
[cohort.buyers]
journey = ["state"]
arrivals = [{{ constant = {{ rate = {rate:.1}, lasts = "{lasts}us" }} }}]
"#,
        address = server.address,
        buyers = shot.buyers,
        rate = shot.rate,
        lasts = shot.lasts.as_micros(),
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

/// Processor seconds that this process has used, user and system together.
fn process_cpu_s() -> f64 {
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}
