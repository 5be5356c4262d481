//! Watches the stack beside the load: the steady-state probe, the stock's curve, and what each role consumes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::history::recorder::EventSink;
use crate::history::{Event, Micros, RoleCost, RoleUse};
use crate::load::clock::{Clock, WallWatch};
use crate::load::live::Live;
use crate::stack::Stack;

mod hypothesis;
mod waits;

pub use hypothesis::Hypothesis;
use hypothesis::Round;
use waits::Waits;

/// Rounds of probes in a row in which all held.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Streak {
    /// Whether there was a round at all.
    looked: bool,
    /// Rounds in the streak, counted up to as many as are needed.
    held: u32,
    /// When the first of those began.
    first_began_us: Micros,
    /// When it was answered.
    first_answered_us: Micros,
    /// The probe that has held for the shortest time, and since when.
    youngest: Option<(usize, Micros)>,
    /// Units available as the last round saw them.
    available: Option<i64>,
}

/// A recovery that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The first moment from which the hypothesis held.
    pub at_us: Micros,
    /// The probe that was the last to hold again, where there are several and one had not held.
    pub last_probe: Option<String>,
}

/// Knows whether the steady-state hypothesis holds.
#[derive(Debug, Clone)]
pub struct Steady {
    status: watch::Receiver<Streak>,
    hold: u32,
    names: Arc<[String]>,
}

impl Steady {
    /// When the hypothesis held from `from_us` on: the answer to the first of enough good rounds in a row, all begun
    /// after that time. None if it did not happen within the limit.
    pub async fn holds_from(&self, from_us: Micros, limit: Duration) -> Option<Recovery> {
        let mut status = self.status.clone();
        let hold = self.hold;
        let good = |s: &Streak| s.held >= hold && s.first_began_us >= from_us;
        let waited = tokio::time::timeout(limit, status.wait_for(good)).await;
        let streak = *waited.ok()?.ok()?;
        let last = streak.youngest.filter(|(_, since)| self.names.len() > 1 && *since >= from_us);
        let last_probe = last.map(|(index, _)| self.names[index].clone());
        Some(Recovery { at_us: streak.first_answered_us, last_probe })
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

    /// Whether it holds now, as far as is known.
    pub fn now(&self) -> bool {
        let status = self.status.borrow();
        status.held > 0 || !status.looked
    }
}

/// The sampler under way.
#[derive(Debug)]
pub struct Sampler {
    steady: Steady,
    usage: Arc<Mutex<Usage>>,
    waits: Vec<(&'static str, Arc<Mutex<Waits>>)>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to watch; with `ask_waits` also what the sessions of the databases wait for.
    pub fn start(
        mut hypothesis: Hypothesis,
        ask_waits: bool,
        stack: &Arc<Stack>,
        clock: Clock,
        events: &EventSink,
        live: &Arc<Live>,
    ) -> Sampler {
        hypothesis.look_at(live);
        let stop = CancellationToken::new();
        let (sender, receiver) = watch::channel(Streak::default());
        let steady = Steady { status: receiver, hold: hypothesis.hold, names: hypothesis.names() };
        let probing = tokio::spawn(keep_probing(hypothesis, clock, events.clone(), sender, stop.clone()));
        let usage = Arc::new(Mutex::new(Usage::default()));
        let wall = WallWatch::anchored_at(clock.epoch_unix_us());
        let watching =
            tokio::spawn(keep_watching(usage.clone(), stack.clone(), clock, wall, events.clone(), stop.clone()));
        let mut tasks = vec![probing, watching];
        let mut waits = Vec::new();
        let databases = stack.components.iter().filter_map(|c| Some((c.role(), c.database()?)));
        for (role, database) in databases.filter(|_| ask_waits) {
            let seen = Arc::new(Mutex::new(Waits::default()));
            tasks.push(tokio::spawn(waits::keep_asking(database, seen.clone(), stop.clone())));
            waits.push((role, seen));
        }
        Sampler { steady, usage, waits, stop, tasks }
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
        let mut costs = self.usage.lock().unwrap_or_else(PoisonError::into_inner).costs();
        for (role, waits) in &self.waits {
            if let Some(cost) = costs.iter_mut().find(|cost| cost.role == *role) {
                cost.waits = waits.lock().unwrap_or_else(PoisonError::into_inner).busiest();
            }
        }
        costs
    }
}

async fn keep_probing(
    mut hypothesis: Hypothesis,
    clock: Clock,
    events: EventSink,
    status: watch::Sender<Streak>,
    stop: CancellationToken,
) {
    let mut streaks = Streaks::new(&hypothesis);
    let mut last_written = Micros::MIN;
    let mut was_steady = true;
    while !stop.is_cancelled() {
        let round = hypothesis.round(clock).await;
        let _ = status.send(streaks.after(&round));
        let sample = round.sample;
        let changed = sample.steady != was_steady;
        if changed || sample.at_us - last_written >= 100_000 {
            last_written = sample.at_us;
            was_steady = sample.steady;
            events.event(&Event::Sample(sample));
        }
        tokio::select! {
            () = tokio::time::sleep(hypothesis.every) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// How long what has held.
struct Streaks {
    hold: usize,
    /// When the latest good rounds began and were answered.
    good: VecDeque<(Micros, Micros)>,
    /// For each probe, since when it has held: the beginning of the first round and its answer; none while it does not.
    since: Vec<Option<(Micros, Micros)>>,
}

impl Streaks {
    fn new(hypothesis: &Hypothesis) -> Streaks {
        Streaks { hold: hypothesis.hold as usize, good: VecDeque::new(), since: vec![None; hypothesis.names().len()] }
    }

    /// What is known after a round.
    fn after(&mut self, round: &Round) -> Streak {
        let began = round.sample.at_us;
        for (since, answered) in self.since.iter_mut().zip(&round.held) {
            *since = answered.map(|answered| since.unwrap_or((began, answered)));
        }
        if round.sample.steady {
            self.good.push_back((began, round.answered_us));
        } else {
            self.good.clear();
        }
        // Only the newest rounds count, so that a streak from before a fault was healed is not taken for a recovery.
        while self.good.len() > self.hold {
            self.good.pop_front();
        }
        let held_since = self.since.iter().enumerate().filter_map(|(index, since)| Some((since.as_ref()?.1, index)));
        let youngest = held_since.max().map(|(answered, index)| (index, answered));
        let (first_began_us, first_answered_us) = self.good.front().copied().unwrap_or_default();
        let (held, available) = (self.good.len() as u32, round.sample.available);
        Streak { looked: true, held, first_began_us, first_answered_us, youngest, available }
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
    /// Looks of the last second: when, and the CPU-seconds of each role by then.
    looks: VecDeque<(Instant, BTreeMap<&'static str, f64>)>,
    /// Processors in use by role in its busiest second.
    cores_peak: BTreeMap<&'static str, f64>,
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
        self.note_busiest(Instant::now());
    }

    /// Holds what was used within the last second against the busiest one so far.
    fn note_busiest(&mut self, now: Instant) {
        let totals = self.totals();
        // The oldest look that is a second away or less is followed by one that is kept for the next time.
        while self.looks.len() > 1 && now - self.looks[1].0 >= Duration::from_secs(1) {
            self.looks.pop_front();
        }
        if let Some((then, before)) = self.looks.front() {
            let seconds = (now - *then).as_secs_f64();
            for (role, cpu_s) in totals.iter().filter(|_| seconds >= 0.9) {
                let cores = (cpu_s - before.get(role).copied().unwrap_or(0.0)) / seconds;
                let peak = self.cores_peak.entry(role).or_default();
                *peak = peak.max(cores);
            }
        }
        self.looks.push_back((now, totals));
    }

    /// CPU-seconds by role since watching began.
    fn totals(&self) -> BTreeMap<&'static str, f64> {
        let mut totals: BTreeMap<&'static str, f64> = BTreeMap::new();
        for (key, cpu_s) in &self.cpu_s {
            *totals.entry(key.0).or_default() += cpu_s - self.before.get(key).copied().unwrap_or(0.0);
        }
        totals
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

    /// What the roles of the stack have consumed so far.
    fn used(&self, stack: &Stack) -> Vec<RoleUse> {
        let totals = self.totals();
        let of =
            |role: &'static str| RoleUse { role: role.to_owned(), cpu_s: totals.get(role).copied().unwrap_or(0.0) };
        stack.components.iter().map(|component| of(component.role())).collect()
    }

    fn costs(&self) -> Vec<RoleCost> {
        let mut roles: BTreeMap<&str, RoleCost> = BTreeMap::new();
        let totals = self.totals();
        for role in self.rss_peak.keys().chain(totals.keys()) {
            roles.entry(role).or_insert_with(|| RoleCost { role: (*role).to_owned(), ..RoleCost::default() });
        }
        for (role, cost) in &mut roles {
            cost.cpu_s = totals.get(role).copied().unwrap_or(0.0);
            cost.rss_peak_bytes = self.rss_peak.get(role).copied().unwrap_or(0);
            cost.cores_peak = self.cores_peak.get(role).copied();
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
        let roles = {
            let mut usage = usage.lock().unwrap_or_else(PoisonError::into_inner);
            usage.look(&stack);
            usage.used(&stack)
        };
        events.event(&Event::Used { at_us: clock.now_us(), roles });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Sample;

    #[test]
    fn the_busiest_second_is_not_the_mean() {
        let (mut usage, start) = (Usage { started: true, ..Usage::default() }, Instant::now());
        // Four quiet seconds, one in which a processor and a half are busy, and quiet again.
        let mut cpu_s = 0.0;
        for quarter in 0..40u32 {
            cpu_s += if (16..20).contains(&quarter) { 0.375 } else { 0.01 };
            usage.note(("service", 1, 1), cpu_s);
            usage.note_busiest(start + Duration::from_millis(250) * quarter);
        }
        let peak = usage.cores_peak["service"];
        assert!((peak - 1.5).abs() < 0.01, "{peak}");
        assert!(usage.looks.len() <= 6, "old looks are forgotten");
    }

    /// Rounds 10 ms apart, each answered 1 ms later, of two probes that hold or not.
    fn after(rounds: &[[bool; 2]]) -> Streak {
        let mut streaks = Streaks { hold: 2, good: VecDeque::new(), since: vec![None; 2] };
        let mut streak = Streak::default();
        for (number, held) in (0..).zip(rounds) {
            let (at_us, answered_us) = (number * 10_000, number * 10_000 + 1_000);
            let sample = Sample { at_us, steady: held.iter().all(|held| *held), ..Sample::default() };
            let held = held.iter().map(|held| held.then_some(answered_us)).collect();
            streak = streaks.after(&Round { sample, answered_us, held });
        }
        streak
    }

    #[test]
    fn the_hypothesis_holds_when_all_its_probes_do_and_the_youngest_is_known() {
        let streak = after(&[[true, true], [true, true], [true, true]]);
        assert_eq!((streak.held, streak.first_began_us, streak.youngest), (2, 10_000, Some((1, 1_000))));
        let streak = after(&[[true, true], [false, false], [true, false], [false, true]]);
        assert_eq!((streak.held, streak.youngest), (0, Some((1, 31_000))));
        let streak = after(&[[false, false], [true, false], [true, true], [true, true]]);
        assert_eq!((streak.held, streak.first_began_us, streak.first_answered_us), (2, 20_000, 21_000));
        assert_eq!(streak.youngest, Some((1, 21_000)));
    }

    #[tokio::test]
    async fn a_recovery_names_the_probe_that_was_the_last_to_hold_again() {
        let (status, receiver) = watch::channel(Streak::default());
        let steady = Steady { status: receiver, hold: 2, names: ["page".to_owned(), "shop".to_owned()].into() };
        assert!(steady.now(), "nothing is known yet");
        let recovered = async |from_us| steady.holds_from(from_us, Duration::from_millis(1)).await;
        status.send_replace(after(&[[true, false], [true, true]]));
        assert_eq!(recovered(0).await, None, "one round is not enough");
        status.send_replace(after(&[[true, false], [true, true], [true, true]]));
        let last = Recovery { at_us: 11_000, last_probe: Some("shop".to_owned()) };
        assert_eq!(recovered(5_000).await, Some(last));
        assert_eq!(recovered(20_000).await, None, "it held before that");
        status.send_replace(after(&[[true, true]; 9]));
        let recovery = recovered(70_000).await.unwrap();
        assert_eq!((recovery.at_us, recovery.last_probe), (71_000, None), "nothing had been lost");
    }
}
