//! The lifecycle of a run, top to bottom: provision, warm up, see that it is well, load and break it, heal, drain, audit,
//! take down, judge.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::fault::proxy::{Protocol, Proxy};
use crate::history::recorder::Recorder;
use crate::history::{
    COMPLETED, Event, FinalState, HEALED_WITHIN_US, HistoryError, LinkCalls, Machine, RunInfo, STOPPED,
};
use crate::judge::{self, JudgeError};
use crate::load::clock::{Clock, WallWatch, unix_us};
use crate::load::driver::{self, LoadError, LoadSpec};
use crate::nemesis::{Nemesis, RealWorld, stop};
use crate::progress::Progress;
use crate::sampler::{Hypothesis, Sampler};
use crate::scenario::{Item, Loaded, Scenario, Target};
use crate::shard::{self, Part};
use crate::stack::control::ItemSetup;
use crate::stack::{self, Provision, Stack, StackError};
use crate::summary::Summary;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run folder cannot be written.
    #[error("cannot write the run folder {}: {source}\nhelp: free some space there, or name another place with --out", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The run folder cannot be made: it is somewhere where this user may not write, or where something else is.
    #[error("cannot make the run folder {}: {source}\nhelp: name another place with --out", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is too little room for the run folder.
    #[error(
        "{} has {} KiB left, and a run needs {} at least\nhelp: free some space there, or name another place with --out",
        path.display(),
        left / 1024,
        NEEDED / 1024
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes that are left there.
        left: u64,
    },
    /// The run folder holds a run already.
    #[error("{} holds a run already, and evidence is never written over\nhelp: name another folder with --out, or remove this one", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The stack could not be provisioned, or is not well before the load begins.
    #[error("the stack could not be provisioned: {0}")]
    Stack(#[from] StackError),
    /// The load could not be driven.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The history could not be written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The run could not be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Interrupted before there was anything to judge.
    #[error("interrupted before the load began; nothing was recorded")]
    Interrupted,
}

/// A run that has ended and was judged.
#[derive(Debug)]
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// Its summary.
    pub summary: Summary,
}

/// Runs a scenario into `folder`. `cancel` ends it early: faults are healed, and what was seen is judged as partial.
///
/// # Errors
/// Nothing could be judged; whatever was started is gone.
pub async fn run(
    loaded: &Loaded,
    folder: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Finished, RunError> {
    record(loaded, &Part::whole(), folder, progress, cancel).await?;
    progress.say("judging the evidence");
    let summary = judge::judge_and_report(folder)?;
    Ok(Finished { folder: folder.to_owned(), summary })
}

/// Drives one part of a scenario and records it into `folder`, without judging it; returns how it ended.
///
/// # Errors
/// Nothing was recorded, or not to the end; whatever was started is gone.
pub async fn record(
    loaded: &Loaded,
    part: &Part,
    folder: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<&'static str, RunError> {
    let logs = prepare_folder(loaded, folder)?;
    let scenario = &loaded.scenario;
    progress.say("provisioning the stack");
    let provision = Provision { run_id: part.run_id.clone(), logs, listen: stack::LOCAL };
    let stack = tokio::select! {
        stack = stack::up(scenario, &provision) => Arc::new(stack?),
        () = cancel.cancelled() => return Err(RunError::Interrupted),
    };
    let outcome = on_stack(scenario, part, folder, &stack, progress, cancel).await;
    if part.leads()
        && let Some(cleaned) = stack.clean_up().await
    {
        // Nothing was recorded that it could be told in.
        eprintln!("{}", cleaned.unwrap_or_else(|why| why));
    }
    progress.say("taking the stack down");
    take_down(stack).await;
    outcome
}

/// Bytes that there must be room for: the history of a short run, its logs and its reports.
const NEEDED: u64 = 4 << 20;

/// What setting up two sales at once may take on a busy machine, in microseconds.
const SETTING_UP_US: i64 = 500_000;

/// Makes the run folder with the scenario as resolved and the files that it names; returns the folder of the logs.
fn prepare_folder(loaded: &Loaded, folder: &Path) -> Result<PathBuf, RunError> {
    let logs = folder.join("logs");
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => RunError::Folder { path, source },
            _ => RunError::Unwritable { path, source },
        }
    };
    if folder.join("run.json").exists() {
        return Err(RunError::Taken { path: folder.to_owned() });
    }
    std::fs::create_dir_all(&logs).map_err(fail(&logs))?;
    let left =
        nix::sys::statvfs::statvfs(&logs).map_or(u64::MAX, |disk| disk.blocks_available() * disk.fragment_size());
    if left < NEEDED {
        return Err(RunError::Full { path: folder.to_owned(), left });
    }
    let scenario = folder.join("scenario.toml");
    std::fs::write(&scenario, &loaded.resolved).map_err(fail(&scenario))?;
    for file in &loaded.attached {
        let path = folder.join(&file.name);
        std::fs::write(&path, &file.content).map_err(fail(&path))?;
    }
    Ok(logs)
}

async fn take_down(stack: Arc<Stack>) {
    // Everybody who shared the stack has ended by now; the guard would clean up even if not.
    if let Some(stack) = Arc::into_inner(stack) {
        stack.down().await;
    }
}

/// Everything that needs the stack; returns how the run ended.
async fn on_stack(
    scenario: &Scenario,
    part: &Part,
    folder: &Path,
    stack: &Arc<Stack>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<&'static str, RunError> {
    progress.say("warming up and probing the steady state");
    if part.leads() {
        // The sale is set up once far in the future, so that the warm-up finds its items; the real times follow below.
        set_up_sale(scenario, stack, unix_us() + 3_600_000_000).await?;
    }
    let mut hypothesis = Hypothesis::new(scenario, stack);
    tokio::select! {
        held = hypothesis.must_hold(Duration::from_secs(15)) => held.map_err(StackError::Other)?,
        () = cancel.cancelled() => return Err(RunError::Interrupted),
    }
    let lead_us = shard::lead_us(scenario, part.slice);
    let epoch = || part.start_unix_us.map_or_else(|| Clock::starting_in(lead_us), Clock::starting_at);
    let mut clock = match &part.meeting {
        None => epoch(),
        // Both set their sales up after this, side by side.
        Some(meeting) => tokio::select! {
            clock = meeting.clock(lead_us + SETTING_UP_US) => clock,
            () = cancel.cancelled() => return Err(RunError::Interrupted),
        },
    };
    if part.leads() {
        set_up_sale(scenario, stack, part.start_unix_us.unwrap_or_else(|| clock.epoch_unix_us())).await?;
    }
    if part.start_unix_us.is_some() {
        progress.say("ready: waiting for the start");
        tokio::select! {
            () = clock.sleep_until(-lead_us) => {}
            () = cancel.cancelled() => return Err(RunError::Interrupted),
        }
        // While it was waited, the wall clock may have been set right.
        clock = epoch();
    }
    let info = run_info(scenario, part, clock);
    let spec = LoadSpec {
        scenario,
        entry: stack.entry.clone(),
        clock,
        slice: part.slice,
        user_prefix: info.user_prefix.clone(),
        key_prefix: info.key_prefix.clone(),
    };
    let recorder = Recorder::create(folder, &info)?;
    if let Some(onlooker) = progress.onlooker() {
        recorder.show_to(onlooker);
    }
    for text in &stack.notes {
        recorder.event(&Event::Note { at_us: clock.now_us(), text: text.clone() });
    }
    let how = load_and_break(&spec, part, &recorder, stack, hypothesis, progress, cancel).await;
    let (how, costs) = match how {
        Ok(ended) => ended,
        Err(error) => {
            recorder.event(&Event::Distrust { at_us: clock.now_us(), why: error.to_string() });
            clean_up(stack, part, clock, &recorder).await;
            recorder.close(&format!("failed: {error}"))?;
            return Err(error.into());
        }
    };
    recorder.event(&Event::Cost(costs));
    recorder.event(&Event::Links(stack.links.iter().map(link_calls).collect()));
    if is_whole(how) && part.leads() {
        audit(&spec, stack, folder, &recorder, progress, cancel).await;
    }
    clean_up(stack, part, clock, &recorder).await;
    // The sampler looks at the wall clock while the load runs; this is for before and after.
    if let Some(why) = WallWatch::anchored_at(info.epoch_unix_us).look(clock.epoch_unix_us()) {
        recorder.event(&Event::Distrust { at_us: clock.now_us(), why });
    }
    recorder.close(how)?;
    Ok(how)
}

/// Takes the traces of the run out of somebody else's shop, and writes down what came of it.
async fn clean_up(stack: &Stack, part: &Part, clock: Clock, recorder: &Recorder) {
    if !part.leads() {
        return;
    }
    let Some(cleaned) = stack.clean_up().await else { return };
    if let Err(why) = &cleaned {
        eprintln!("{why}");
    }
    let (at_us, clean) = (clock.now_us(), cleaned.is_ok());
    recorder.event(&Event::CleanedUp { at_us, clean, text: cleaned.unwrap_or_else(|why| why) });
}

/// Whether a run that ended so was healed, drained and audited.
fn is_whole(how: &str) -> bool {
    [COMPLETED, STOPPED].contains(&how)
}

/// The load with its faults, until everything is healed and the last hold has run out.
async fn load_and_break(
    spec: &LoadSpec<'_>,
    part: &Part,
    recorder: &Recorder,
    stack: &Arc<Stack>,
    hypothesis: Hypothesis,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(&'static str, Vec<crate::history::RoleCost>), LoadError> {
    let (scenario, clock, events) = (spec.scenario, spec.clock, recorder.events());
    let wal_before = wal_bytes(stack).await;
    let load = driver::start(spec, recorder)?;
    for phase in &scenario.phase {
        let (from_us, until_us) = (phase.from.micros(), phase.until.micros());
        events.event(&Event::Phase { name: phase.name.clone(), from_us, until_us });
    }
    let shared = load.shared();
    let sampler = Sampler::start(hypothesis, scenario.audit.waits, stack, clock, &events, &shared.live);
    let world = RealWorld::of(scenario, stack, clock, &events, &sampler.steady(), &shared.live);
    let nemesis = Nemesis::start(scenario.timeline(), &world);
    let watcher = progress.watch(scenario, clock, shared.clone(), sampler.steady(), nemesis.in_effect(), stack.clone());
    let health = recorder.health();
    let (live, steady) = (shared.live.clone(), sampler.steady());
    let mut finished = std::pin::pin!(load.finished());
    let (totals, how) = tokio::select! {
        totals = &mut finished => (totals?, COMPLETED),
        () = cancel.cancelled() => {
            progress.say("interrupted: healing the faults and ending the load");
            nemesis.heal_now();
            shared.stop();
            (finished.await?, "interrupted")
        }
        met = stop::watch_or(progress.stop_wanted(), scenario, &live, &steady, clock) => {
            progress.say(&format!("stopped by \"{}\" ({}): healing the faults and ending the load", met.name, met.why));
            events.event(&Event::Stopped { stop: met.name, at_us: met.at_us, why: met.why });
            nemesis.heal_now();
            shared.stop();
            let (totals, late) = tokio::join!(finished, nemesis.healed_within(HEALED_WITHIN_US, &*world));
            if !late.is_empty() {
                progress.say(&format!("not healed in time, so the verdict is unknown at best: {}", late.join(", ")));
            }
            (totals?, STOPPED)
        }
        () = health.failed() => {
            let why = health.error().unwrap_or_default();
            events.event(&Event::Distrust { at_us: clock.now_us(), why });
            nemesis.heal_now();
            shared.stop();
            (finished.await?, "stopped: the history could not be written")
        }
    };
    watcher.stop().await;
    drop(shared);
    events.event(&Event::LoadTotals(totals));
    if how != COMPLETED {
        nemesis.heal_now();
    }
    nemesis.finished().await;
    if is_whole(how) {
        let steady = sampler.steady().holds_from(clock.now_us(), Duration::from_secs(15)).await;
        if steady.is_none() {
            let why = "the steady-state hypothesis does not hold after everything was healed".to_owned();
            events.event(&Event::Distrust { at_us: clock.now_us(), why });
        }
        if part.leads() {
            drain(spec, part, progress, cancel).await;
        }
    }
    let mut costs = sampler.stop().await;
    add_wal(&mut costs, &wal_before, &wal_bytes(stack).await);
    let how = if is_whole(how) && cancel.is_cancelled() { "interrupted" } else { how };
    Ok((how, costs))
}

/// Waits until nobody buys any more, and nothing is held.
async fn drain(spec: &LoadSpec<'_>, part: &Part, progress: &Progress, cancel: &CancellationToken) {
    let LoadSpec { scenario, clock, .. } = spec;
    let hold = scenario.longest_hold().0;
    let drained = async {
        if part.slice.count() > 1 {
            progress.say("waiting until the other shards must have ended");
            clock.sleep_until(shard::all_ended_by(scenario)).await;
        }
        progress.say("draining: the last holds run out");
        tokio::time::sleep(hold + scenario.audit.grace.0).await;
    };
    tokio::select! {
        () = drained => {}
        () = cancel.cancelled() => {}
    }
}

/// The final audit from one snapshot, then the drain probe. Whatever keeps the audit from being made or kept makes the
/// verdict unknown, and what the buyers saw is judged without it.
async fn audit(
    spec: &LoadSpec<'_>,
    stack: &Stack,
    folder: &Path,
    recorder: &Recorder,
    progress: &Progress,
    cancel: &CancellationToken,
) {
    progress.say("auditing");
    let Some(audited) = stack.audit(&spec.scenario.item).await else { return };
    let mut state: FinalState = match audited {
        Ok(state) => state,
        Err(error) => {
            let why = format!("the final audit could not be made: {error}");
            recorder.event(&Event::Distrust { at_us: spec.clock.now_us(), why });
            return;
        }
    };
    if spec.scenario.audit.drain_probe && !cancel.is_cancelled() {
        progress.say("buying what is left");
        let LoadSpec { scenario, entry, user_prefix, key_prefix, .. } = spec;
        tokio::select! {
            probes = crate::drain::probe(scenario, &state.stock, entry, user_prefix, key_prefix) => state.probes = probes,
            () = cancel.cancelled() => {
                let why = "interrupted while what is left was bought".to_owned();
                recorder.event(&Event::Distrust { at_us: spec.clock.now_us(), why });
            }
        }
    }
    if let Err(error) = crate::history::audit::write_audit(folder, &state) {
        recorder.event(&Event::Distrust { at_us: spec.clock.now_us(), why: error.to_string() });
    }
}

/// Puts the scenario's items on sale, at times counted from an epoch in Unix microseconds: by the shop's own command, or by its
/// audit listener. Where there is neither, nothing can be set up.
///
/// # Errors
/// The target refuses, or is not what the scenario says.
pub async fn set_up_sale(scenario: &Scenario, stack: &Stack, epoch_unix_us: i64) -> Result<(), StackError> {
    let items = items_from(scenario, epoch_unix_us);
    if let Some(shop) = &stack.shop
        && shop.set_up(&items).await?
    {
        return Ok(());
    }
    let Some(control) = &stack.control else { return Ok(()) };
    control.reset(&items).await.map_err(|error| match &scenario.target {
        Target::Reference(_) => error,
        Target::External(_) => StackError::Setting {
            key: stack::external::AUDIT,
            what: error.to_string(),
            help: "it must be the service's audit listener: POST /reset, GET /audit/stock and GET /audit/ledger"
                .to_owned(),
        },
    })
}

/// The items as a shop is told to sell them, at times counted from an epoch in Unix microseconds.
fn items_from(scenario: &Scenario, epoch_unix_us: i64) -> Vec<ItemSetup> {
    let told = |item: &Item| ItemSetup {
        id: item.id,
        title: item.title.clone(),
        price_cents: item.price_cents,
        stock: item.stock,
        per_user_limit: item.per_user_limit,
        opens_at: epoch_unix_us + item.opens_at.micros(),
        closes_at: epoch_unix_us + item.closes_at.micros(),
        hold_ms: item.hold.micros() / 1_000,
    };
    scenario.item.iter().map(told).collect()
}

/// What the buyers of a run are called, before their number.
pub fn user_prefix(run_id: &str) -> String {
    format!("r{run_id}-u")
}

fn run_info(scenario: &Scenario, part: &Part, clock: Clock) -> RunInfo {
    let run_id = &part.run_id;
    let (_, schedule_hash) = scenario.plan().count_and_hash();
    RunInfo {
        run_id: run_id.clone(),
        scenario: scenario.name.clone(),
        seed: scenario.seed,
        schedule_hash,
        timeline_hash: scenario.timeline_hash(),
        epoch_unix_us: part.start_unix_us.unwrap_or_else(|| clock.epoch_unix_us()),
        user_prefix: user_prefix(run_id),
        key_prefix: format!("r{run_id}-k"),
        duration_us: scenario.load.duration.micros(),
        machine: machine(),
        closed: None,
        shard: part.shard(),
        merged: Vec::new(),
    }
}

/// The machine's fingerprint.
pub fn machine() -> Machine {
    use procfs::Current;
    let cpu_model =
        procfs::CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_owned)).unwrap_or_default();
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("").trim_matches('"');
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        cpu_model,
        memory_bytes: procfs::Meminfo::current().map_or(0, |m| m.mem_total),
        kernel: procfs::sys::kernel::Version::current()
            .map(|v| format!("{}.{}.{}", v.major, v.minor, v.patch))
            .unwrap_or_default(),
        os: pretty.to_owned(),
        harness: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

async fn wal_bytes(stack: &Stack) -> Vec<(&'static str, u64)> {
    let mut all = Vec::new();
    for component in &stack.components {
        if let Some(bytes) = component.wal_bytes().await {
            all.push((component.role(), bytes));
        }
    }
    all
}

fn add_wal(costs: &mut [crate::history::RoleCost], before: &[(&str, u64)], after: &[(&str, u64)]) {
    for cost in costs {
        let find = |list: &[(&str, u64)]| list.iter().find(|(role, _)| *role == cost.role).map(|(_, bytes)| *bytes);
        if let (Some(before), Some(after)) = (find(before), find(after)) {
            cost.wal_bytes = Some(after.saturating_sub(before));
        }
    }
}

fn link_calls(proxy: &Proxy) -> LinkCalls {
    let stats = proxy.stats();
    let (from, to) = proxy.name().split_once('→').unwrap_or((proxy.name(), ""));
    LinkCalls {
        from: from.to_owned(),
        to: to.to_owned(),
        calls: (proxy.protocol() != Protocol::Opaque).then_some(stats.calls),
        connections: stats.accepted,
        bytes_up: stats.bytes_up,
        bytes_down: stats.bytes_down,
        waited_us: stats.waited_us,
    }
}
