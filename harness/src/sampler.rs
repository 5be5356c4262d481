//! Watches the stack beside the load: the steady-state probe, the stock's curve, and what each role consumes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::history::recorder::EventSink;
use crate::history::{Event, Micros, RoleCost, Sample};
use crate::load::client::Connection;
use crate::load::clock::{Clock, WallWatch};
use crate::scenario::Scenario;
use crate::scenario::journey::{CompiledStep, Journey};
use crate::scenario::template::Values;
use crate::stack::Stack;

/// Probes in a row that held.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Streak {
    /// Probes in the streak, counted up to as many as are needed.
    held: u32,
    /// When the first of those began.
    first_began_us: Micros,
    /// When it was answered.
    first_answered_us: Micros,
    /// Units available as the last probe saw them.
    available: Option<i64>,
}

/// A recovery that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The first moment from which the hypothesis held.
    pub at_us: Micros,
    /// The probe that was the last to hold again, where there are several.
    pub last_probe: Option<String>,
}

/// Knows whether the steady-state hypothesis holds.
#[derive(Debug, Clone)]
pub struct Steady {
    status: watch::Receiver<Streak>,
    hold: u32,
}

impl Steady {
    /// When the hypothesis held from `from_us` on: the answer to the first of enough good probes in a row, all begun
    /// after that time. None if it did not happen within the limit.
    pub async fn holds_from(&self, from_us: Micros, limit: Duration) -> Option<Recovery> {
        let mut status = self.status.clone();
        let hold = self.hold;
        let good = |s: &Streak| s.held >= hold && s.first_began_us >= from_us;
        let waited = tokio::time::timeout(limit, status.wait_for(good)).await;
        waited.ok()?.ok().map(|s| Recovery { at_us: s.first_answered_us, last_probe: None })
    }

    /// Waits until so many units are available at most. It may never end.
    pub async fn available_at_most(&self, most: f64) {
        let mut status = self.status.clone();
        let few = |s: &Streak| s.available.is_some_and(|available| available as f64 <= most);
        if status.wait_for(few).await.is_err() {
            std::future::pending().await
        }
    }

    /// Units available as last seen.
    pub fn available(&self) -> Option<i64> {
        self.status.borrow().available
    }

    /// Whether it holds now.
    pub fn now(&self) -> bool {
        self.status.borrow().held > 0
    }
}

/// The steady-state probe: one request, made again and again over a connection of its own.
#[derive(Debug)]
pub struct Probe {
    connection: Connection,
    request: Vec<u8>,
    within: Duration,
    every: Duration,
    hold: u32,
    available: String,
    item: i64,
    step: String,
}

impl Probe {
    /// The probe that the scenario declares, through the stack's first link.
    pub fn new(scenario: &Scenario, stack: &Stack) -> Probe {
        let spec = &scenario.steady_state;
        let step: CompiledStep =
            Journey::compile_probe(scenario, spec.step.get_ref()).expect("a validated scenario compiles");
        let item = scenario.item.first().map_or(0, |i| i.id);
        let values = Values { user: "probe", key: "probe", item, quantity: 1, captured: &[], cookies: "" };
        let request = step.request(&values, stack.entry.header_lines().as_bytes());
        Probe {
            connection: Connection::new(&stack.entry),
            request,
            within: spec.within.0,
            every: spec.every.0,
            hold: spec.hold,
            available: spec.available.clone(),
            item,
            step: step.name,
        }
    }

    /// Makes one probe.
    pub async fn once(&mut self, clock: Clock) -> Sample {
        let began = clock.now_us();
        let mut sample = Sample { at_us: began, item: self.item, ..Sample::default() };
        match self.connection.exchange(&self.request, self.within).await {
            Ok(reply) if (200..300).contains(&reply.status) => {
                sample.steady = true;
                sample.available = serde_json::from_slice::<serde_json::Value>(reply.body)
                    .ok()
                    .and_then(|json| json.pointer(&self.available)?.as_i64());
            }
            Ok(reply) => sample.why_not = Some(format!("`{}` answered {}", self.step, reply.status)),
            Err(broken) => sample.why_not = Some(format!("`{}`: {}", self.step, broken.reason())),
        }
        sample.probe_us = u64::try_from(clock.now_us() - began).unwrap_or(0);
        sample
    }

    /// Waits until the hypothesis holds before the load begins.
    ///
    /// # Errors
    /// Why it does not, after the limit.
    pub async fn must_hold(&mut self, limit: Duration) -> Result<(), String> {
        let clock = Clock::starting_in(0);
        let mut held = 0;
        let mut why = String::new();
        while clock.now_us() < limit.as_micros() as Micros {
            let sample = self.once(clock).await;
            held = if sample.steady { held + 1 } else { 0 };
            if held >= self.hold {
                return Ok(());
            }
            why = sample.why_not.unwrap_or(why);
            tokio::time::sleep(self.every.min(Duration::from_millis(20))).await;
        }
        Err(format!("the steady-state hypothesis does not hold before the load: {why} (within {:?})", self.within))
    }
}

/// The sampler under way.
#[derive(Debug)]
pub struct Sampler {
    steady: Steady,
    usage: Arc<Mutex<Usage>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to watch.
    pub fn start(probe: Probe, stack: &Arc<Stack>, clock: Clock, events: &EventSink) -> Sampler {
        let stop = CancellationToken::new();
        let (sender, receiver) = watch::channel(Streak::default());
        let steady = Steady { status: receiver, hold: probe.hold };
        let probing = tokio::spawn(keep_probing(probe, clock, events.clone(), sender, stop.clone()));
        let usage = Arc::new(Mutex::new(Usage::default()));
        let wall = WallWatch::anchored_at(clock.epoch_unix_us());
        let watching =
            tokio::spawn(keep_watching(usage.clone(), stack.clone(), clock, wall, events.clone(), stop.clone()));
        Sampler { steady, usage, stop, tasks: vec![probing, watching] }
    }

    /// Knows whether the steady-state hypothesis holds.
    pub fn steady(&self) -> Steady {
        self.steady.clone()
    }

    /// Stops watching; gives what each role consumed since the start.
    pub async fn stop(self) -> Vec<RoleCost> {
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).costs()
    }
}

async fn keep_probing(
    mut probe: Probe,
    clock: Clock,
    events: EventSink,
    status: watch::Sender<Streak>,
    stop: CancellationToken,
) {
    let mut good: VecDeque<(Micros, Micros)> = VecDeque::new();
    let mut last_written = Micros::MIN;
    let mut was_steady = true;
    while !stop.is_cancelled() {
        let sample = probe.once(clock).await;
        if sample.steady {
            good.push_back((sample.at_us, clock.now_us()));
        } else {
            good.clear();
        }
        // Only the newest probes count, so that a streak from before a fault was healed is not taken for a recovery.
        while good.len() > probe.hold as usize {
            good.pop_front();
        }
        let (first_began_us, first_answered_us) = good.front().copied().unwrap_or_default();
        let held = good.len() as u32;
        let _ = status.send(Streak { held, first_began_us, first_answered_us, available: sample.available });
        let changed = sample.steady != was_steady;
        if changed || sample.at_us - last_written >= 100_000 {
            last_written = sample.at_us;
            was_steady = sample.steady;
            events.event(&Event::Sample(sample));
        }
        tokio::select! {
            () = tokio::time::sleep(probe.every) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Processor time and memory by role, summed over all processes that were ever seen.
#[derive(Debug, Default)]
struct Usage {
    /// CPU-seconds by role and process (id and start time); the last value seen stays when the process is gone.
    cpu_s: HashMap<(&'static str, i32, u64), f64>,
    /// What had been used when watching began, to be taken off.
    before: HashMap<(&'static str, i32, u64), f64>,
    rss_peak: BTreeMap<&'static str, u64>,
    started: bool,
}

impl Usage {
    fn look(&mut self, stack: &Stack) {
        let per_second = procfs::ticks_per_second() as f64;
        for component in &stack.components {
            let role = component.role();
            let (mut private, mut shared) = (0, 0);
            for pid in component.pids() {
                let Ok(process) = procfs::process::Process::new(pid) else { continue };
                if let Ok(stat) = process.stat() {
                    let cpu_s = (stat.utime + stat.stime) as f64 / per_second;
                    self.note((role, pid, stat.starttime), cpu_s);
                }
                if let Ok(status) = process.status() {
                    // Shared memory is counted once, or a database's buffers would count for each of its backends.
                    private += status.rssanon.unwrap_or(0) * 1024;
                    shared = u64::max(shared, status.rssshmem.unwrap_or(0) * 1024);
                }
            }
            self.peak(role, private + shared);
        }
        self.look_at_ourselves(per_second);
        self.started = true;
    }

    /// The harness's own threads, by what they do.
    fn look_at_ourselves(&mut self, per_second: f64) {
        let Ok(myself) = procfs::process::Process::myself() else { return };
        if let Ok(status) = myself.status() {
            self.peak("harness", status.vmrss.unwrap_or(0) * 1024);
        }
        let Ok(tasks) = myself.tasks() else { return };
        for stat in tasks.flatten().filter_map(|t| t.stat().ok()) {
            let role = match stat.comm.as_str() {
                name if name.starts_with("generator") => "generator",
                name if name.starts_with("proxy") => "proxy",
                _ => "harness",
            };
            self.note((role, stat.pid, stat.starttime), (stat.utime + stat.stime) as f64 / per_second);
        }
    }

    fn note(&mut self, key: (&'static str, i32, u64), cpu_s: f64) {
        if !self.started {
            self.before.insert(key, cpu_s);
        }
        self.cpu_s.insert(key, cpu_s);
    }

    fn peak(&mut self, role: &'static str, bytes: u64) {
        let peak = self.rss_peak.entry(role).or_default();
        *peak = (*peak).max(bytes);
    }

    fn costs(&self) -> Vec<RoleCost> {
        let mut roles: BTreeMap<&str, RoleCost> = BTreeMap::new();
        let mut totals: BTreeMap<&'static str, f64> = BTreeMap::new();
        for (key, cpu_s) in &self.cpu_s {
            *totals.entry(key.0).or_default() += cpu_s - self.before.get(key).copied().unwrap_or(0.0);
        }
        for role in self.rss_peak.keys().chain(totals.keys()) {
            roles.entry(role).or_insert_with(|| RoleCost { role: (*role).to_owned(), ..RoleCost::default() });
        }
        for (role, cost) in &mut roles {
            cost.cpu_s = totals.get(role).copied().unwrap_or(0.0);
            cost.rss_peak_bytes = self.rss_peak.get(role).copied().unwrap_or(0);
        }
        roles.into_values().collect()
    }
}

async fn keep_watching(
    usage: Arc<Mutex<Usage>>,
    stack: Arc<Stack>,
    clock: Clock,
    mut wall: WallWatch,
    events: EventSink,
    stop: CancellationToken,
) {
    let before = Processors::now();
    loop {
        usage.lock().unwrap_or_else(PoisonError::into_inner).look(&stack);
        if let Some(why) = wall.look(clock.epoch_unix_us()) {
            events.event(&Event::Distrust { at_us: clock.now_us(), why });
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
            () = stop.cancelled() => break,
        }
    }
    usage.lock().unwrap_or_else(PoisonError::into_inner).look(&stack);
    let stolen = Processors::now().stolen_since(&before);
    if stolen > 0.02 {
        let text = format!(
            "the host took {:.0}% of this machine's processor time for others (steal): latencies and send lag include that",
            stolen * 100.0
        );
        events.event(&Event::Note { at_us: clock.now_us(), text });
    }
}

/// Processor time of the whole machine, in ticks.
struct Processors {
    all: u64,
    stolen: u64,
}

impl Processors {
    fn now() -> Processors {
        use procfs::CurrentSI;
        let Ok(stat) = procfs::KernelStats::current() else { return Processors { all: 0, stolen: 0 } };
        let t = stat.total;
        let stolen = t.steal.unwrap_or(0);
        let waiting = t.iowait.unwrap_or(0) + t.irq.unwrap_or(0) + t.softirq.unwrap_or(0);
        Processors { all: t.user + t.nice + t.system + t.idle + waiting + stolen, stolen }
    }

    /// The share of all processor time that the host gave to others.
    fn stolen_since(&self, before: &Processors) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}
