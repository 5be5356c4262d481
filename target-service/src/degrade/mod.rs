//! Giving up what is not needed, so that the rest works (L1 to L5), and not calling what does not answer (L7).
//!
//! Three state machines without a clock of their own decide: [`breaker`], [`hysteresis`] and [`levels`]. This module holds the
//! level that everybody asks for, and what was seen that it follows from; [`watch`] looks, again and again; [`instead`] is what
//! is answered while much is given up.

pub mod breaker;
pub mod hysteresis;
pub mod instead;
pub mod levels;
pub mod watch;
pub mod window;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::probe::Probe;
use crate::metrics::DegradeMeters;
use crate::switches::{SwitchId, Switches};
use levels::{Level, Levels, SWITCHES, Signals, TRIGGERS};
use window::Window;

/// What the core, a read of an item's state or an order, may take.
pub const CORE_LIMIT: Duration = Duration::from_millis(200);
/// How far back it is looked.
const WINDOW: Duration = Duration::from_secs(1);
/// Fewer reads and orders than these are no reason to enter a level, and fewer than those no reason to leave it.
const LEAST_CORE: (u64, u64) = (5, 2);
/// The same for requests.
const LEAST_REQUESTS: (u64, u64) = (20, 1);
/// Of what everybody gets a static reply to, one request in so many is served all the same, to see how it goes.
const PROBE_EVERY: u64 = 20;
/// Changes of level that are remembered.
const MOST_CHANGES: usize = 64;

/// What is known of the database.
const UNKNOWN: u8 = 0;
const THERE: u8 = 1;
const GONE: u8 = 2;

/// The level, and what it follows from.
pub struct Degrade {
    epoch: Instant,
    level: AtomicU8,
    decided: Mutex<Decided>,
    core: Mutex<Window>,
    requests: Mutex<Window>,
    database: AtomicU8,
    probe: Probe,
    asked_static: AtomicU64,
    meters: DegradeMeters,
}

#[derive(Default)]
struct Decided {
    levels: Levels,
    signals: Signals,
    changes: VecDeque<Change>,
}

/// One change of the level.
struct Change {
    at_us: i64,
    from: Level,
    to: Level,
}

impl Degrade {
    /// Nothing is given up yet.
    pub fn new(meters: DegradeMeters) -> Self {
        Self {
            epoch: Instant::now(),
            level: AtomicU8::new(0),
            decided: Mutex::default(),
            core: Mutex::new(Window::new(WINDOW)),
            requests: Mutex::new(Window::new(WINDOW)),
            database: AtomicU8::new(UNKNOWN),
            probe: Probe::default(),
            asked_static: AtomicU64::new(0),
            meters,
        }
    }

    /// How much is given up at the moment.
    pub fn level(&self) -> Level {
        Level::numbered(self.level.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Notes how long a read of an item's state or an order took, and whether it failed.
    pub fn core(&self, took: Duration, failed: bool) {
        lock(&self.core).note(self.epoch.elapsed(), failed || took > CORE_LIMIT);
    }

    /// Notes a request that was really served, or turned away.
    pub fn request(&self, status: u16) {
        lock(&self.requests).note(self.epoch.elapsed(), status >= 500);
    }

    /// Whether a request that would get a static reply is served all the same, to see how it goes.
    fn is_probe(&self) -> bool {
        self.asked_static.fetch_add(1, Ordering::Relaxed).is_multiple_of(PROBE_EVERY)
    }

    fn database(&self, there: bool) {
        self.database.store(if there { THERE } else { GONE }, Ordering::Relaxed);
    }

    /// What is seen now, with what the dependency is like that only extras come from.
    fn signals(&self, extras: Option<f64>) -> Signals {
        let (now, level) = (self.epoch.elapsed(), self.level());
        let least = |of: (u64, u64), at: Level| if level >= at { of.1 } else { of.0 };
        let core = lock(&self.core).tally(now).share(least(LEAST_CORE, Level::Snapshot));
        let database = match self.database.load(Ordering::Relaxed) {
            UNKNOWN => None,
            known => Some(if known == GONE { 1.0 } else { 0.0 }),
        };
        // Where nobody comes, nobody is turned away.
        let requests = lock(&self.requests).tally(now).share(least(LEAST_REQUESTS, Level::Static)).unwrap_or(0.0);
        [extras, core, database, Some(requests)]
    }

    /// Looks at what is seen.
    fn see(&self, signals: Signals, switches: &Switches, at_us: i64) {
        let allowed: [bool; TRIGGERS] = SWITCHES.map(|switch| switches.is_on(SwitchId::L5) && switches.is_on(switch));
        let mut decided = lock(&self.decided);
        decided.signals = signals;
        decided.levels.see(self.epoch.elapsed(), signals, allowed);
        self.settle(&mut decided, at_us);
    }

    /// Fixes the level, or leaves it to what is seen again.
    pub fn force(&self, level: Option<Level>, at_us: i64) {
        let mut decided = lock(&self.decided);
        decided.levels.force(level);
        self.settle(&mut decided, at_us);
    }

    fn settle(&self, decided: &mut Decided, at_us: i64) {
        let (from, to) = (self.level(), decided.levels.level());
        if from == to {
            return;
        }
        self.level.store(to.number(), Ordering::Relaxed);
        self.meters.changed(from, to);
        if decided.changes.len() == MOST_CHANGES {
            decided.changes.pop_front();
        }
        decided.changes.push_back(Change { at_us, from, to });
        tracing::info!(from = from.number(), to = to.number(), signals = ?decided.signals, "another degrade level");
    }

    /// All of it, for people and drills.
    pub fn told(&self) -> Value {
        let decided = lock(&self.decided);
        let change =
            |change: &Change| json!({"at": change.at_us, "from": change.from.number(), "to": change.to.number()});
        json!({
            "level": self.level().number(),
            "forced": decided.levels.forced().map(Level::number),
            "signals": {
                "extras": decided.signals[0],
                "core": decided.signals[1],
                "database": decided.signals[2],
                "requests": decided.signals[3],
            },
            "changes": decided.changes.iter().map(change).collect::<Vec<_>>(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
