//! Drives the load: goose runs the virtual buyers, our dispatcher hands them the schedule. The only file that knows goose.
//!
//! Goose supplies the users and their life cycle: each user is one virtual buyer in one long transaction. The schedule,
//! the requests and the measurement are ours, since goose has no arrival rates, starts its clock after its throttle, and
//! stops it at the headers. Everything runs on one thread with a current-thread runtime; a second one would only add
//! hand-overs on the cores that the target needs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Transaction};
use goose::{GooseAttack, GooseError};
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Semaphore;

use super::arrival::Arrival;
use super::buyer::Buyer;
use super::client::Entry;
use super::clock::Clock;
use super::dispatch::Dispatch;
use super::live::{Live, Seen};
use super::pool::Pool;
use super::retry::Retries;
use super::slice::{Slice, Sliced};
use crate::history::recorder::{EventSink, NameId, OpSink, RawOp, Recorder};
use crate::history::{Event, INTENTS_PER_ARRIVAL, LoadTotals, Micros, Outcome, Role};
use crate::priority;
use crate::scenario::Scenario;
use crate::scenario::journey::Journey;
use crate::timer::Timer;

/// Why the load could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Goose refused.
    #[error("goose cannot start the virtual buyers: {0}")]
    Goose(String),
    /// A thread, timer or runtime could not be had.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The buyers did not come in time.
    #[error("only {came} of {wanted} virtual buyers were ready after {seconds} s; lower load.virtual_buyers")]
    NotReady {
        /// Buyers that were ready.
        came: usize,
        /// Buyers wanted.
        wanted: usize,
        /// How long was waited.
        seconds: u64,
    },
    /// The generator's thread died.
    #[error("the load generator panicked; the run's evidence stops there")]
    Panicked,
}

/// Names of a cohort and its steps, as the recorder knows them.
#[derive(Debug)]
pub struct CohortNames {
    /// The cohort.
    pub cohort: NameId,
    /// Its steps, in the order of the journey.
    pub steps: Vec<NameId>,
}

/// What all buyers share.
#[derive(Debug)]
pub struct Shared {
    /// How the target is reached.
    pub entry: Entry,
    /// The header lines that every request has, `host` among them.
    pub host_header: Vec<u8>,
    /// Compiled journeys, by cohort.
    pub journeys: Vec<Journey>,
    /// Recorder names, by cohort.
    pub names: Vec<CohortNames>,
    /// The run's clock.
    pub clock: Clock,
    /// Limit of each exchange.
    pub request_timeout: Duration,
    /// How buyers try again, by cohort.
    pub retries: Vec<Retries>,
    /// Seed of everything random.
    pub seed: u64,
    /// Buyers' names start with it.
    pub user_prefix: String,
    /// Idempotency keys start with it.
    pub key_prefix: String,
    /// Counters to look at.
    pub live: Arc<Live>,
    cpu_share_wanted: f64,
    pool: Pool,
    sink: Mutex<OpSink>,
    events: EventSink,
    exhausted: AtomicBool,
    stop: AtomicBool,
    /// Made on the generator's thread, before any buyer comes.
    timer: OnceLock<Timer>,
}

impl Shared {
    /// Whether the run is being cut short.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Cuts the run short: nothing new starts, what is in flight ends, and nobody waits any longer.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(timer) = self.timer.get() {
            timer.end();
        }
    }

    /// Waits until a time of the run, to within some tens of microseconds; no longer once the run is being cut short.
    pub async fn rest_until(&self, at_us: Micros) {
        if let Some(timer) = self.timer.get().filter(|_| !self.stopping()) {
            timer.sleep_until(self.clock.instant_at(at_us).into_std()).await;
        }
    }

    /// Buyers who have come and have nothing to do.
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }

    /// Counts an arrival whose first request is being sent.
    pub fn count_sent(&self) {
        self.live.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// This machine had nothing left to make a connection with: what was refused then was refused by the generator. It
    /// is told once.
    pub fn exhausted(&self) {
        if !self.exhausted.swap(true, Ordering::Relaxed) {
            let why = "the generator ran out of file descriptors or ports, so some requests were never sent: raise \
                       `ulimit -n`, lower load.virtual_buyers, or see why the service closes its connections";
            self.events.event(&Event::Distrust { at_us: self.clock.now_us(), why: why.to_owned() });
        }
    }

    /// Records an op.
    pub fn record(&self, op: RawOp<'_>) {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).record(op);
    }
}

/// A load that is ready to start: the buyers have come and are warm.
#[derive(Debug)]
pub struct Ready {
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<Result<LoadTotals, LoadError>>,
}

/// What a load needs to know.
#[derive(Debug)]
pub struct LoadSpec<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// How the target is reached.
    pub entry: Entry,
    /// The run's clock; its epoch must be far enough ahead for the buyers to come.
    pub clock: Clock,
    /// The arrivals that this generator drives.
    pub slice: Slice,
    /// Buyers' names start with it.
    pub user_prefix: String,
    /// Idempotency keys start with it.
    pub key_prefix: String,
}

/// Starts the generator's thread: goose launches the buyers, they connect, and the schedule begins at the clock's epoch.
///
/// # Errors
/// The thread cannot be started.
pub fn start(spec: &LoadSpec<'_>, recorder: &Recorder) -> Result<Ready, LoadError> {
    let journeys = Journey::all(spec.scenario);
    let names = journeys
        .iter()
        .map(|j| CohortNames {
            cohort: recorder.intern(&j.cohort),
            steps: j.steps.iter().map(|s| recorder.intern(&s.name)).collect(),
        })
        .collect();
    let load = &spec.scenario.load;
    let plan = spec.slice.of(spec.scenario.plan());
    let buyers = spec.slice.share(load.virtual_buyers) as usize;
    let shared = Arc::new(Shared {
        entry: spec.entry.clone(),
        cpu_share_wanted: cpu_share_wanted(plan.clone(), &journeys),
        host_header: spec.entry.header_lines().into_bytes(),
        retries: journeys.iter().map(|journey| Retries::new(journey.retry.clone())).collect(),
        journeys,
        names,
        clock: spec.clock,
        request_timeout: load.request_timeout.0,
        seed: spec.scenario.seed,
        user_prefix: spec.user_prefix.clone(),
        key_prefix: spec.key_prefix.clone(),
        live: Arc::new(Live::of(spec.scenario)),
        pool: Pool::new(buyers),
        sink: Mutex::new(recorder.sink()),
        events: recorder.events(),
        exhausted: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        timer: OnceLock::new(),
    });
    let patience = load.patience.micros();
    let for_thread = shared.clone();
    let events = recorder.events();
    let thread = std::thread::Builder::new()
        .name("generator".into())
        .spawn(move || generate(&for_thread, plan, patience, &events))
        .map_err(|source| LoadError::System { what: "start the generator's thread", source })?;
    Ok(Ready { shared, thread })
}

impl Ready {
    /// What the buyers share: live counters, and the way to stop.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Waits until the last journey has ended.
    ///
    /// # Errors
    /// The generator failed; what it recorded until then is in the history.
    pub async fn finished(self) -> Result<LoadTotals, LoadError> {
        let Ready { shared, thread } = self;
        let totals = tokio::task::spawn_blocking(move || thread.join())
            .await
            .map_err(|_| LoadError::Panicked)?
            .map_err(|_| LoadError::Panicked)??;
        // The sink hands over its last batch when it is dropped, so nobody may hold on to what the buyers shared.
        shared.sink.lock().unwrap_or_else(PoisonError::into_inner).flush();
        // Only now have all arrivals been either sent or dropped.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sent, dropped) = (count(&shared.live.sent), count(&shared.live.dropped));
        let suppressed = shared.journeys.iter().zip(&shared.retries).filter(|(_, retries)| retries.suppressed() > 0);
        let retries_suppressed = suppressed.map(|(j, retries)| (j.cohort.clone(), retries.suppressed())).collect();
        Ok(LoadTotals { sent, dropped, retries_suppressed, ..totals })
    }
}

/// The generator's thread from start to end.
fn generate(shared: &Arc<Shared>, plan: Sliced, patience: Micros, events: &EventSink) -> Result<LoadTotals, LoadError> {
    prefer_this_thread(shared.cpu_share_wanted);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| LoadError::System { what: "make the generator's runtime", source })?;
    runtime.block_on(async {
        // Made before the buyers connect: they may leave no descriptor for it.
        let timer = Timer::new().map_err(|source| LoadError::System { what: "make a timer", source })?;
        let _ = shared.timer.set(timer);
        let ringing = shared.clone();
        tokio::spawn(async move {
            while let Some(timer) = ringing.timer.get() {
                timer.fire().await;
            }
        });
        let attack = attack(shared)?;
        let dispatcher = tokio::spawn(dispatch(shared.clone(), plan, patience, events.clone()));
        let goose = attack.execute();
        let mut dispatcher = std::pin::pin!(dispatcher);
        let mut goose = std::pin::pin!(goose);
        // Goose ends when all its users have, and they do when the dispatcher closes the pool. If goose ends first, or
        // the dispatcher fails, the other must not be waited for.
        tokio::select! {
            outcome = &mut dispatcher => {
                shared.pool.close();
                let outcome = outcome.map_err(|_| LoadError::Panicked)?;
                goose.await.map_err(|e| LoadError::Goose(e.to_string()))?;
                outcome
            }
            outcome = &mut goose => {
                outcome.map_err(|e| LoadError::Goose(e.to_string()))?;
                dispatcher.await.map_err(|_| LoadError::Panicked)?
            }
        }
    })
}

/// The users, as goose is told to run them: all at once, each one long transaction, and none of its own metrics.
fn attack(shared: &Arc<Shared>) -> Result<GooseAttack, LoadError> {
    let fail = |e: GooseError| LoadError::Goose(e.to_string());
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(format!("http://{}/", shared.entry.address));
    configuration.users = Some(shared.pool_size());
    configuration.increase_rate = Some("100000".into());
    configuration.iterations = Some(1);
    configuration.quiet = 3;
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_error_summary = true;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // Goose's users share one client that nobody uses: the requests go over connections of our own.
    let client = goose::client::GooseClientBuilder::new().without_cookies();
    let state = shared.clone();
    let number = Arc::new(AtomicU64::new(0));
    let cold = shared.pool_size().saturating_sub(connected_ahead());
    let warming = Arc::new(Semaphore::new(64));
    let transaction = Transaction::new(Arc::new(move |_user: &mut GooseUser| {
        let shared = state.clone();
        let warming = warming.clone();
        let index = number.fetch_add(1, Ordering::Relaxed) as usize;
        Box::pin(async move {
            let warming = (index >= cold).then_some(warming);
            // A task of its own, so that a request does not pass through all that goose has around its users. And a panic
            // inside a transaction would leave goose waiting for this user for ever.
            let life = tokio::spawn(live(shared.clone(), index, warming));
            if life.await.is_err() {
                tracing::error!("virtual buyer {index} panicked");
                shared.stop();
            }
            Ok(())
        })
    }));
    GooseAttack::initialize_with_config(configuration)
        .map_err(fail)?
        .set_client_builder_without_cookies(client)
        .map_err(fail)
        .map(|attack| {
            attack.register_scenario(goose::goose::Scenario::new("rehearsal").register_transaction(transaction))
        })
}

/// Descriptors that are not for buyers' connections.
const OTHER_DESCRIPTORS: u64 = 500;

/// Buyers who connect ahead of the load: as many as there are descriptors for, at three each, since the proxy in this
/// process has two for every connection. Further ones connect when it is their turn. They come first, so that they are
/// the last to be called.
fn connected_ahead() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 3).unwrap_or(usize::MAX)
}

/// The life of one virtual buyer, who connects ahead of the load if there is something to do that by.
async fn live(shared: Arc<Shared>, index: usize, warming: Option<Arc<Semaphore>>) {
    let mut buyer = Buyer::new(&shared);
    if let Some(warming) = warming
        && let Ok(permit) = warming.acquire().await
    {
        buyer.warm().await;
        drop(permit);
    }
    while let Some(arrival) = shared.pool.next(index).await {
        buyer.walk(arrival).await;
    }
}

impl Shared {
    fn pool_size(&self) -> usize {
        self.pool.size()
    }

    fn drop_arrival(&self, arrival: Arrival) {
        let names = &self.names[usize::from(arrival.cohort)];
        let journey = &self.journeys[usize::from(arrival.cohort)];
        let now = self.clock.now_us();
        self.live.count(Outcome::Dropped, false);
        self.live.see(Seen {
            cohort: arrival.cohort,
            outcome: Outcome::Dropped,
            answered: false,
            reason: "no-idle-buyer",
            at_us: now,
            latency_us: 0,
        });
        self.record(RawOp {
            intent: arrival.n * INTENTS_PER_ARRIVAL,
            user: journey.user_of(arrival, self.seed),
            attempt: 0,
            status: 0,
            role: journey.steps.first().map_or(Role::Read, |s| s.role),
            outcome: Outcome::Dropped,
            state: crate::history::OrderState::Unknown,
            cohort: names.cohort,
            step: names.steps[0],
            reason: "no-idle-buyer",
            order: "",
            ticket: "",
            token: "",
            item: journey.item,
            quantity: 0,
            amount_cents: -1,
            intended_us: arrival.at_us,
            invoked_us: now,
            completed_us: now,
        });
    }
}

/// Hands out the schedule, from the epoch until the last journey has ended.
async fn dispatch(
    shared: Arc<Shared>,
    plan: Sliced,
    patience: Micros,
    events: EventSink,
) -> Result<LoadTotals, LoadError> {
    wait_for_buyers(&shared).await?;
    let late = shared.clock.now_us();
    if late > 0 {
        let why = format!("the virtual buyers were ready {} ms after the load should have started", late / 1_000);
        events.event(&Event::Distrust { at_us: late, why });
    }
    shared.pool.reset_busy();
    let before = ThreadTime::now();
    let mut dispatch = Dispatch::new(plan, patience);
    let mut last_flush = 0;
    while !shared.stopping() {
        let now = shared.clock.now_us();
        let turn = dispatch.turn(&shared.pool, now);
        turn.dropped.into_iter().for_each(|arrival| shared.drop_arrival(arrival));
        if now - last_flush > 100_000 {
            last_flush = now;
            shared.sink.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
        let Some(next) = turn.next else { break };
        shared.rest_until(next).await;
    }
    let (planned, rest) = dispatch.end(&shared.pool);
    rest.into_iter().for_each(|arrival| shared.drop_arrival(arrival));
    let spent = ThreadTime::now().since(&before);
    Ok(LoadTotals {
        planned,
        sent: 0,
        dropped: 0,
        generator_cpu_s: spent.cpu_s,
        generator_wait_s: spent.wait_s,
        busy_max: shared.pool.busy_max() as u64,
        buyers: shared.pool_size() as u64,
        retries_suppressed: BTreeMap::new(),
    })
}

async fn wait_for_buyers(shared: &Shared) -> Result<(), LoadError> {
    let seconds = 60;
    let wanted = shared.pool_size();
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    while shared.pool.idle() < wanted {
        if shared.stopping() {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err(LoadError::NotReady { came: shared.pool.idle(), wanted, seconds });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What the calling thread has consumed.
#[derive(Debug, Clone, Copy)]
struct ThreadTime {
    cpu_s: f64,
    wait_s: f64,
}

impl ThreadTime {
    /// From the scheduler's own statistics: time on a processor, and time runnable without one.
    fn now() -> ThreadTime {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut fields = text.split_whitespace().map(|f| f.parse::<f64>().unwrap_or(0.0) / 1e9);
        ThreadTime { cpu_s: fields.next().unwrap_or(0.0), wait_s: fields.next().unwrap_or(0.0) }
    }

    fn since(self, before: &ThreadTime) -> ThreadTime {
        ThreadTime { cpu_s: self.cpu_s - before.cpu_s, wait_s: self.wait_s - before.wait_s }
    }
}

/// Asks the kernel to run the generator before the target when both want a processor: a late generator measures itself.
///
/// Round-robin real-time priority is asked for only where the load leaves the thread idle for more than half of the time:
/// the kernel takes the processor from real-time threads that use more than 95% of a second, for the rest of that second.
fn prefer_this_thread(cpu_share_wanted: f64) {
    if cpu_share_wanted > 0.5 || priority::make_real_time().is_err() {
        // Without the privilege nothing changes, which the send lag in the report then shows.
        priority::prefer();
    }
}

/// Processor time of the generator for one request, a little more than measured.
const CPU_PER_REQUEST_S: f64 = 40e-6;

/// The share of a processor that the plan's busiest second wants, were each arrival to make every step of its journey.
fn cpu_share_wanted(plan: Sliced, journeys: &[Journey]) -> f64 {
    let mut seconds: BTreeMap<Micros, usize> = BTreeMap::new();
    for arrival in plan {
        let journey = &journeys[usize::from(arrival.cohort)];
        for walk in 0..journey.walks() {
            let at = arrival.at_us + Micros::from(walk) * journey.every().as_micros() as Micros;
            *seconds.entry(at / 1_000_000).or_default() += journey.steps.len();
        }
    }
    seconds.values().max().map_or(0.0, |most| *most as f64 * CPU_PER_REQUEST_S)
}
