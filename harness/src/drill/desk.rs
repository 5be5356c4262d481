//! The desk of a drill: it sees what the run does, hears what people say, and tells everybody who looks.
//!
//! It is the run's [`Audience`]. Page and terminal show its [`Snapshot`]s and hand it what people do, which it writes down at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::file::{Drill, Step};
use super::flow::{Flow, StepView};
use super::log::{Entry, Log};
use crate::history::recorder::{Glimpse, Onlooker};
use crate::history::{Event, FaultPlan, Micros};
use crate::load::clock::unix_us;
use crate::progress::{Audience, Underway};
use crate::scenario::Scenario;

/// How often a snapshot is made.
pub const TICK: Duration = Duration::from_millis(250);
/// Points of the curves that are kept: half an hour.
const MOST_POINTS: usize = 7_200;
/// Alerts that are kept for the page.
const MOST_ALERTS: usize = 50;

/// A line of the checklist, as it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Its id.
    pub id: String,
    /// What has to be so.
    pub text: String,
    /// Who answers for it.
    pub owner: String,
    /// What shows it.
    pub evidence: String,
}

/// A fault as it is shown. Those of a surprise are shown once they were injected.
#[derive(Debug, Clone, Serialize)]
pub struct FaultView {
    /// Its id.
    pub id: String,
    /// What it is, and where.
    pub what: String,
    #[serde(skip)]
    kind: String,
    /// When it is to be injected, in seconds of the load's clock.
    pub planned_s: f64,
    /// When it was.
    pub injected_s: Option<f64>,
    /// When it was healed.
    pub healed_s: Option<f64>,
    /// When the steady state held again.
    pub recovered_s: Option<f64>,
    /// Why it could not be injected or healed, or why it was not.
    pub trouble: Option<String>,
}

/// A step of the runbook as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct StepState {
    /// Its id.
    pub id: String,
    /// What is to be done.
    pub text: String,
    /// The role that does it, and who that is.
    pub owner: String,
    /// When it is due, for people.
    pub when: String,
    /// How long it may take, in seconds.
    pub within_s: f64,
    /// Since when it is due, in seconds of the load's clock; none before.
    pub due_s: Option<f64>,
    /// When it was acknowledged.
    pub done_s: Option<f64>,
    /// By whom.
    pub by: String,
}

/// An alert as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct AlertView {
    /// When it came, in seconds of the load's clock; none before that runs.
    pub at_s: Option<f64>,
    /// Its name.
    pub name: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// For people.
    pub summary: String,
}

/// One point of the curves.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Point {
    /// When, in seconds of the load's clock.
    pub at_s: f64,
    /// Arrivals planned per second.
    pub planned: f64,
    /// Arrivals sent per second.
    pub achieved: f64,
    /// Units available.
    pub stock: Option<i64>,
    /// 99th percentile of all steps over the last second, in microseconds.
    pub us_p99: Option<u64>,
    /// The share of requests without an answer over the last second, from 0 to 1.
    pub errors: Option<f64>,
    /// Whether the steady state holds.
    pub steady: bool,
}

/// All that is shown, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The drill's name.
    pub drill: String,
    /// Its title.
    pub title: String,
    /// Whether people are asked to acknowledge.
    pub attended: bool,
    /// `getting-ready`, `load`, `settling` or `over`.
    pub stage: Stage,
    /// What the harness said last.
    pub said: String,
    /// Length of the load in seconds.
    pub duration_s: f64,
    /// Units at the start.
    pub stock_total: i64,
    /// What is on sale.
    pub item: String,
    /// The latest point of the curves.
    pub now: Point,
    /// Arrivals sent, and dropped, so far.
    pub sent: u64,
    /// Arrivals that were dropped so far.
    pub dropped: u64,
    /// Orders acknowledged to buyers so far.
    pub orders: u64,
    /// How degraded the service says it is; none if it does not say.
    pub degrade_level: Option<i64>,
    /// Whether the service has meters that are read.
    pub tells_meters: bool,
    /// Its breakers by dependency: 0 is closed.
    pub breakers: BTreeMap<String, f64>,
    /// Whether there are faults that are not shown before their time.
    pub surprise: bool,
    /// The faults.
    pub faults: Vec<FaultView>,
    /// The steps of the journey.
    pub steps: Vec<StepView>,
    /// The checklist.
    pub checklist: Vec<Checked>,
    /// The runbook.
    pub runbook: Vec<StepState>,
    /// Alerts, the latest last.
    pub alerts: Vec<AlertView>,
    /// Who stopped it, if somebody or something did.
    pub stopped: Option<String>,
    /// How it came out, once it is over.
    pub verdict: Option<String>,
}

/// How far the drill has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before the load.
    GettingReady,
    /// The load is under way.
    Load,
    /// The load is over: recoveries, drain, audit.
    Settling,
    /// It was judged.
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Desk {
    drill: Drill,
    attended: bool,
    sale: Sale,
    log: Log,
    state: Mutex<State>,
    flow: Mutex<Flow>,
    load: OnceLock<Underway>,
    stop: watch::Sender<Option<String>>,
    feed: watch::Sender<Arc<str>>,
}

/// What does not change.
#[derive(Debug)]
struct Sale {
    duration_us: Micros,
    stock: i64,
    item: String,
    order: Vec<String>,
    /// Arrivals planned in each quarter of a second.
    planned: Vec<u32>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    said: String,
    checklist: Vec<Checked>,
    faults: Vec<FaultView>,
    runbook: Vec<StepState>,
    alerts: Vec<AlertView>,
    points: Vec<Point>,
    last_sent: (Micros, u64),
    stock: Option<i64>,
    steady: bool,
    degrade_level: Option<i64>,
    breakers: BTreeMap<String, f64>,
    stopped: Option<String>,
    verdict: Option<String>,
    /// Steps of which the terminal was told that they are due.
    told: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds(us: Micros) -> f64 {
    us as f64 / 1e6
}

impl Desk {
    /// A desk that writes down what people do in a folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(
        drill: &Drill,
        scenario: &Scenario,
        checklist: Vec<Checked>,
        attended: bool,
        folder: &Path,
    ) -> std::io::Result<Desk> {
        let log = Log::create(folder)?;
        log.write(&Entry::Opened { unix_us: unix_us(), attended });
        for Checked { id, evidence, .. } in &checklist {
            let (id, evidence) = (id.clone(), evidence.clone());
            log.write(&Entry::Checked { unix_us: unix_us(), id, evidence });
        }
        let duration_us = scenario.load.duration.micros();
        let slot = TICK.as_micros() as Micros;
        let mut planned = vec![0; usize::try_from(duration_us / slot + 1).unwrap_or(0)];
        for arrival in scenario.plan() {
            if let Some(count) = planned.get_mut(usize::try_from(arrival.at_us / slot).unwrap_or(usize::MAX)) {
                *count += 1;
            }
        }
        let item = scenario.item.first();
        let sale = Sale {
            duration_us,
            stock: item.map_or(0, |item| item.stock),
            item: item.map(|item| item.title.clone()).unwrap_or_default(),
            order: scenario.step_order(),
            planned,
        };
        let runbook = drill.runbook.iter().map(|step| step_state(drill, step)).collect();
        let state = State {
            stage: Stage::GettingReady,
            said: String::new(),
            checklist,
            faults: Vec::new(),
            runbook,
            alerts: Vec::new(),
            points: Vec::new(),
            last_sent: (0, 0),
            stock: None,
            steady: true,
            degrade_level: None,
            breakers: BTreeMap::new(),
            stopped: None,
            verdict: None,
            told: 0,
        };
        let desk = Desk {
            drill: drill.clone(),
            attended,
            sale,
            log,
            state: Mutex::new(state),
            flow: Mutex::default(),
            load: OnceLock::new(),
            stop: watch::Sender::new(None),
            feed: watch::Sender::new("".into()),
        };
        desk.publish();
        Ok(desk)
    }

    /// Microseconds of the load's clock; none before that runs.
    fn now_us(&self) -> Option<Micros> {
        self.load.get().map(|load| load.clock.now_us())
    }

    /// The snapshots as JSON, one for each tick.
    pub fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.feed.subscribe()
    }

    /// The curves so far, as JSON, for whoever comes late.
    pub fn curves(&self) -> String {
        serde_json::to_string(&lock(&self.state).points).unwrap_or_default()
    }

    /// Acknowledges a step of the runbook.
    ///
    /// # Errors
    /// There is none, it is not due yet, or somebody did so before.
    pub fn acknowledge(&self, id: &str, by: &str, via: &str) -> Result<(), String> {
        let now_us = self.now_us();
        let by: String = by.trim().chars().filter(|c| !c.is_control()).take(60).collect();
        let mut state = lock(&self.state);
        let known = || self.drill.runbook.iter().map(|step| step.id.as_str()).collect::<Vec<_>>().join(", ");
        let Some(step) = state.runbook.iter_mut().find(|step| step.id == id) else {
            return Err(format!("there is no step \"{id}\"; one of {}", known()));
        };
        if step.done_s.is_some() {
            return Err(format!("\"{id}\" was acknowledged already"));
        }
        let (Some(_), Some(now_us)) = (step.due_s, now_us) else {
            return Err(format!("\"{id}\" is not due yet: {}", step.when));
        };
        step.done_s = Some(seconds(now_us));
        step.by.clone_from(&by);
        drop(state);
        self.log.write(&Entry::Acknowledged { unix_us: unix_us(), id: id.to_owned(), by, via: via.to_owned() });
        self.publish();
        Ok(())
    }

    /// Heals all faults and ends the load.
    pub fn press_stop(&self, via: &str) {
        self.log.write(&Entry::StopPressed { unix_us: unix_us(), via: via.to_owned() });
        self.stop.send_if_modified(|wanted| {
            let first = wanted.is_none();
            wanted.get_or_insert_with(|| format!("somebody pressed stop on the {via}"));
            first
        });
        self.publish();
    }

    /// Takes an alert of the monitoring.
    pub fn alert(&self, name: &str, status: &str, summary: &str) {
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
        let (name, status, summary) = (clean(name), clean(status), clean(summary));
        let entry =
            Entry::Alert { unix_us: unix_us(), name: name.clone(), status: status.clone(), summary: summary.clone() };
        self.log.write(&entry);
        let at_s = self.now_us().map(seconds);
        let mut state = lock(&self.state);
        if state.alerts.len() == MOST_ALERTS {
            state.alerts.remove(0);
        }
        state.alerts.push(AlertView { at_s, name, status, summary });
        drop(state);
        self.publish();
    }

    /// Says how it came out; the last snapshot.
    pub fn judged(&self, verdict: String) {
        let mut state = lock(&self.state);
        state.stage = Stage::Over;
        state.verdict = Some(verdict);
        drop(state);
        self.publish();
    }

    /// Makes a snapshot at each tick until it is dropped; `notice` hears what people at a terminal have to know.
    pub async fn keep_ticking(&self, notice: impl Fn(&str)) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.tick();
            self.tell_due(&notice);
            self.publish();
        }
    }

    /// Reads the service's meters once a second until it is dropped. By itself, since a service that does not answer must not
    /// hold up those who look.
    pub async fn keep_reading(&self) {
        loop {
            self.read_meters().await;
            tokio::time::sleep(4 * TICK).await;
        }
    }

    /// Asks the service's own meters, where it has some. One that does not answer says nothing.
    async fn read_meters(&self) {
        let Some(meters) = self.load.get().and_then(|load| load.meters.clone()) else { return };
        let Ok(told) = meters.read().await else { return };
        for (name, value) in told {
            let mut state = lock(&self.state);
            let before = match name.strip_prefix("breaker:") {
                Some(dependency) => state.breakers.insert(dependency.to_owned(), value),
                None => state.degrade_level.replace(value as i64).map(|level| level as f64),
            };
            drop(state);
            if before != Some(value) {
                self.log.write(&Entry::Meter { unix_us: unix_us(), name, value });
            }
        }
    }

    fn tick(&self) {
        let Some(load) = self.load.get() else { return };
        let now_us = load.clock.now_us();
        let sent = load.counts.sent.load(Ordering::Relaxed);
        let recent = lock(&self.flow).recent(now_us);
        let mut state = lock(&self.state);
        let due: Vec<Option<f64>> = self.drill.runbook.iter().map(|step| due_s(step, &state.faults, now_us)).collect();
        for (step, due) in state.runbook.iter_mut().zip(due) {
            step.due_s = step.due_s.or(due);
        }
        if state.stage == Stage::GettingReady && now_us >= 0 {
            state.stage = Stage::Load;
            // What was done before is over.
            state.said.clear();
        }
        if state.stage == Stage::Load && now_us > self.sale.duration_us {
            state.stage = Stage::Settling;
        }
        if state.stage != Stage::Load {
            return;
        }
        let slot = usize::try_from(now_us / TICK.as_micros() as Micros).unwrap_or(0);
        let (before_us, before) = state.last_sent;
        let elapsed = seconds(now_us - before_us).max(0.05);
        let point = Point {
            at_s: seconds(now_us),
            planned: f64::from(self.sale.planned.get(slot).copied().unwrap_or(0)) / TICK.as_secs_f64(),
            achieved: sent.saturating_sub(before) as f64 / elapsed,
            stock: state.stock,
            us_p99: recent.us_p99,
            errors: recent.errors,
            steady: state.steady,
        };
        state.last_sent = (now_us, sent);
        if state.points.len() < MOST_POINTS {
            state.points.push(point);
        }
    }

    /// Tells the terminal which steps have become due.
    fn tell_due(&self, notice: &impl Fn(&str)) {
        if !self.attended {
            return;
        }
        let mut state = lock(&self.state);
        let due = state.runbook.iter().filter(|step| step.due_s.is_some()).count();
        if due == state.told {
            return;
        }
        state.told = due;
        for step in state.runbook.iter().filter(|step| step.due_s.is_some() && step.done_s.is_none()) {
            notice(&format!("→ {}: {} (within {} s; type: ack {})", step.owner, step.text, step.within_s, step.id));
        }
    }

    /// Gives everybody who looks the state of things; nothing is written where nobody does.
    fn publish(&self) {
        if self.feed.receiver_count() > 0 {
            let text = serde_json::to_string(&self.snapshot()).unwrap_or_default();
            self.feed.send_replace(text.into());
        }
    }

    /// The state of things.
    pub fn snapshot(&self) -> Snapshot {
        let now_us = self.now_us();
        let steps = lock(&self.flow).view(&self.sale.order, now_us.unwrap_or(0));
        let state = lock(&self.state);
        let surprise = self.drill.surprise.is_some();
        let shown = |fault: &&FaultView| !surprise || fault.injected_s.is_some();
        let counts = self.load.get().map(|load| &load.counts);
        let count = |counter: Option<&AtomicU64>| counter.map_or(0, |counter| counter.load(Ordering::Relaxed));
        let mut now = state.points.last().cloned().unwrap_or_default();
        if state.stage != Stage::Load {
            now = Point { planned: 0.0, achieved: 0.0, stock: state.stock, steady: state.steady, ..now };
        }
        now.at_s = now_us.map_or(0.0, seconds);
        Snapshot {
            drill: self.drill.name.clone(),
            title: self.drill.title.clone(),
            attended: self.attended,
            stage: state.stage,
            said: state.said.clone(),
            duration_s: seconds(self.sale.duration_us),
            stock_total: self.sale.stock,
            item: self.sale.item.clone(),
            now,
            sent: count(counts.map(|live| &live.sent)),
            dropped: count(counts.map(|live| &live.dropped)),
            orders: count(counts.map(|live| &live.orders)),
            degrade_level: state.degrade_level,
            tells_meters: self.load.get().is_none_or(|load| load.meters.is_some()),
            breakers: state.breakers.clone(),
            surprise,
            faults: state.faults.iter().filter(shown).cloned().collect(),
            steps,
            checklist: state.checklist.clone(),
            runbook: state.runbook.clone(),
            alerts: state.alerts.clone(),
            stopped: state.stopped.clone().or_else(|| self.stop.borrow().clone()),
            verdict: state.verdict.clone(),
        }
    }

    fn fault(&self, id: &str, change: impl FnOnce(&mut FaultView)) {
        if let Some(fault) = lock(&self.state).faults.iter_mut().find(|fault| fault.id == id) {
            change(fault);
        }
    }
}

fn step_state(drill: &Drill, step: &Step) -> StepState {
    let when = match (&step.at, &step.after) {
        (Some(at), _) => format!("at {at}"),
        (None, Some(after)) => format!("after {after}"),
        (None, None) => String::new(),
    };
    // In a surprise, what a step waits for would give it away.
    let when = if drill.surprise.is_some() && step.after.is_some() { "after a fault".to_owned() } else { when };
    StepState {
        id: step.id.clone(),
        text: step.text.clone(),
        owner: format!("{} ({})", step.owner, drill.person(&step.owner)),
        when,
        within_s: step.within.0.as_secs_f64(),
        due_s: None,
        done_s: None,
        by: String::new(),
    }
}

/// Since when a step is due.
fn due_s(step: &Step, faults: &[FaultView], now_us: Micros) -> Option<f64> {
    if let Some(at) = step.at {
        return (now_us >= at.micros()).then_some(at.0.as_secs_f64());
    }
    let after = step.after.as_deref()?;
    let meant = faults.iter().filter(|fault| Drill::is_meant(after, &fault.id, &fault.kind));
    meant.filter_map(|fault| fault.injected_s).min_by(f64::total_cmp)
}

fn view_of(plan: &FaultPlan) -> FaultView {
    let place = plan.link.as_deref().or(plan.role.as_deref()).unwrap_or_default();
    FaultView {
        id: plan.id.clone(),
        what: format!("{} {} on {place}", plan.kind, plan.detail),
        kind: plan.kind.clone(),
        planned_s: seconds(plan.at_us),
        injected_s: None,
        healed_s: None,
        recovered_s: None,
        trouble: None,
    }
}

impl Onlooker for Desk {
    fn ops(&self, ops: &mut dyn Iterator<Item = Glimpse<'_>>) {
        let mut flow = lock(&self.flow);
        ops.for_each(|op| flow.count(&op));
    }

    fn event(&self, event: &Event) {
        match event {
            Event::FaultPlanned(plan) => lock(&self.state).faults.push(view_of(plan)),
            Event::FaultInjected { id, at_us } => self.fault(id, |fault| fault.injected_s = Some(seconds(*at_us))),
            Event::FaultHealed { id, at_us, .. } => self.fault(id, |fault| fault.healed_s = Some(seconds(*at_us))),
            Event::FaultRecovered { id, at_us, .. } => {
                self.fault(id, |fault| fault.recovered_s = Some(seconds(*at_us)));
            }
            Event::FaultSkipped { id, why, .. } => self.fault(id, |fault| fault.trouble = Some(why.clone())),
            Event::FaultFailed { id, error, .. } => self.fault(id, |fault| fault.trouble = Some(error.clone())),
            Event::Sample(sample) => {
                let mut state = lock(&self.state);
                state.stock = sample.available.or(state.stock);
                state.steady = sample.steady;
                state.degrade_level = sample.degrade_level.or(state.degrade_level);
            }
            Event::LoadTotals(_) => lock(&self.state).stage = Stage::Settling,
            Event::Stopped { stop, why, .. } => {
                let mut state = lock(&self.state);
                state.stopped = Some(format!("{stop}: {why}"));
                state.stage = Stage::Settling;
            }
            _ => {}
        }
    }
}

impl Audience for Desk {
    fn said(&self, what: &str) {
        what.clone_into(&mut lock(&self.state).said);
        self.publish();
    }

    fn begins(&self, load: Underway) {
        let _ = self.load.set(load);
    }

    fn wants_to_stop(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async move {
            let mut wanted = self.stop.subscribe();
            let pressed = wanted.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default());
            match pressed {
                Ok(why) => why,
                Err(_) => std::future::pending().await,
            }
        })
    }
}
