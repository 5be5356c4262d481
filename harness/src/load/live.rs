//! What can be seen of a load while it runs: counters, the first time a reason was heard, and sliding windows by cohort.
//!
//! One thread writes, the generator's, and others look; so nothing here is locked, and what a scenario does not ask for is
//! not kept. A reader may catch a window between two writes and see an op less, which no decision here depends on.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::history::{Micros, Outcome};
use crate::scenario::Scenario;
use crate::scenario::timeline::{Cause, When};

/// Counters to look at while the load runs.
#[derive(Debug, Default)]
pub struct Live {
    /// Arrivals sent.
    pub sent: AtomicU64,
    /// Arrivals dropped.
    pub dropped: AtomicU64,
    /// Ops ok.
    pub ok: AtomicU64,
    /// Ops definitely refused.
    pub fail: AtomicU64,
    /// Ops indeterminate.
    pub info: AtomicU64,
    /// Orders acknowledged.
    pub orders: AtomicU64,
    /// Reasons that something waits for.
    reasons: Vec<Reason>,
    /// By cohort; empty where nobody asks.
    windows: Vec<Window>,
}

#[derive(Debug)]
struct Reason {
    text: String,
    /// When it was first heard; negative infinity stands for never.
    first_us: AtomicI64,
}

/// One op, as it is seen while the load runs.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The number of its cohort.
    pub cohort: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether there was an answer, be it a refusal; as objectives count errors.
    pub answered: bool,
    /// Why it failed or is indeterminate.
    pub reason: &'a str,
    /// When it ended.
    pub at_us: Micros,
    /// From the intended start.
    pub latency_us: u64,
}

impl Live {
    /// With what a scenario asks for.
    pub fn of(scenario: &Scenario) -> Live {
        let causes = scenario.timeline().into_iter().filter_map(|fault| match fault.when {
            When::After { cause: Cause::First(reason), .. } => Some(reason),
            _ => None,
        });
        Live::new(causes, scenario.cohort.len(), scenario.longest_window())
    }

    fn new(reasons: impl Iterator<Item = String>, cohorts: usize, longest: Option<Duration>) -> Live {
        let reasons = reasons.map(|text| Reason { text, first_us: AtomicI64::new(Micros::MIN) }).collect();
        let windows = longest.map(|longest| (0..cohorts).map(|_| Window::new(longest)).collect()).unwrap_or_default();
        Live { reasons, windows, ..Live::default() }
    }

    /// Counts one op; `bought` if it is the first to tell a buyer of an order.
    pub fn count(&self, outcome: Outcome, bought: bool) {
        let counter = match outcome {
            Outcome::Ok => &self.ok,
            Outcome::Fail => &self.fail,
            Outcome::Info => &self.info,
            Outcome::Dropped => &self.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if bought {
            self.orders.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps of an op what somebody waits for.
    pub fn see(&self, seen: Seen<'_>) {
        if let Some(window) = self.windows.get(usize::from(seen.cohort)) {
            window.record(seen);
        }
        if !seen.reason.is_empty() {
            let waited_for = |reason: &&Reason| reason.text == seen.reason;
            for reason in self.reasons.iter().filter(waited_for) {
                let _ = reason.first_us.compare_exchange(Micros::MIN, seen.at_us, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// When a reason was first heard that the scenario waits for.
    pub fn first(&self, reason: &str) -> Option<Micros> {
        let known = self.reasons.iter().find(|known| known.text == reason)?;
        Some(known.first_us.load(Ordering::Relaxed)).filter(|at_us| *at_us != Micros::MIN)
    }

    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        [&self.ok, &self.fail, &self.info].iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// What ended within the last `length` before a time of the run: of one cohort, or of all. Nothing, where the scenario
    /// asks for no window.
    pub fn window(&self, cohort: Option<usize>, now_us: Micros, length: Duration) -> View {
        let from = slot_before(now_us, length);
        let mut view = View::empty();
        let wanted = |index: &usize| cohort.is_none_or(|cohort| cohort == *index);
        for window in self.windows.iter().enumerate().filter(|(index, _)| wanted(index)).map(|(_, window)| window) {
            window.add_to(&mut view, from, now_us.div_euclid(SLOT_US));
        }
        view
    }
}

/// Length of the slots that a window slides by.
const SLOT_US: Micros = 200_000;
/// Buckets of latency: each is 3% wide, and the last begins at nineteen hours.
const BUCKETS: usize = 1_024;

/// The last seconds of something, in slots that are used again and again. One thread writes.
#[derive(Debug)]
pub struct Window(Box<[Slot]>);

#[derive(Debug)]
struct Slot {
    /// Which slot of the run this is now.
    number: AtomicI64,
    ops: AtomicU32,
    unanswered: AtomicU32,
    latencies: Box<[AtomicU32]>,
}

impl Window {
    /// One that can look back as long.
    pub fn new(longest: Duration) -> Window {
        let slots = longest.as_micros() as usize / SLOT_US as usize + 3;
        let slot = || Slot {
            number: AtomicI64::new(Micros::MIN),
            ops: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            latencies: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        };
        Window((0..slots).map(|_| slot()).collect())
    }

    /// Keeps an op.
    pub fn record(&self, seen: Seen<'_>) {
        let number = seen.at_us.div_euclid(SLOT_US);
        let slot = &self.0[number.rem_euclid(self.0.len() as i64) as usize];
        if slot.number.load(Ordering::Relaxed) != number {
            for counter in slot.latencies.iter().chain([&slot.ops, &slot.unanswered]) {
                counter.store(0, Ordering::Relaxed);
            }
            slot.number.store(number, Ordering::Release);
        }
        // There is one writer, so these need no exclusive access to the cache line.
        let add = |counter: &AtomicU32| counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        add(&slot.ops);
        if !seen.answered {
            add(&slot.unanswered);
        }
        if seen.outcome != Outcome::Dropped {
            add(&slot.latencies[bucket(seen.latency_us)]);
        }
    }

    /// What ended within the last `length` before a time of the run.
    pub fn last(&self, now_us: Micros, length: Duration) -> View {
        let mut view = View::empty();
        self.add_to(&mut view, slot_before(now_us, length), now_us.div_euclid(SLOT_US));
        view
    }

    fn add_to(&self, view: &mut View, from: i64, until: i64) {
        for slot in self.0.iter().filter(|slot| (from + 1..=until).contains(&slot.number.load(Ordering::Acquire))) {
            view.ops += u64::from(slot.ops.load(Ordering::Relaxed));
            view.unanswered += u64::from(slot.unanswered.load(Ordering::Relaxed));
            for (sum, counter) in view.latencies.iter_mut().zip(&slot.latencies) {
                *sum += u64::from(counter.load(Ordering::Relaxed));
            }
        }
    }
}

fn slot_before(now_us: Micros, length: Duration) -> i64 {
    (now_us - length.as_micros() as Micros).div_euclid(SLOT_US)
}

/// The bucket of a latency: exact below 64 µs, then 32 buckets for each doubling.
fn bucket(us: u64) -> usize {
    if us < 64 {
        return us as usize;
    }
    let doublings = us.ilog2();
    let within = (us >> (doublings - 5)) as usize & 31;
    (64 + (doublings as usize - 6) * 32 + within).min(BUCKETS - 1)
}

/// The lowest latency of a bucket.
fn lowest(bucket: usize) -> u64 {
    if bucket < 64 {
        return bucket as u64;
    }
    let (doublings, within) = ((bucket - 64) / 32 + 6, (bucket - 64) % 32);
    (32 + within as u64) << (doublings - 5)
}

/// What ended within some seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Ops, dropped arrivals included.
    pub ops: u64,
    /// Those without an answer.
    pub unanswered: u64,
    latencies: Vec<u64>,
}

impl View {
    fn empty() -> View {
        View { ops: 0, unanswered: 0, latencies: vec![0; BUCKETS] }
    }

    /// Ops with a latency: those that were sent.
    pub fn samples(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// A percentile of the latencies from the intended start, in microseconds, at most 3% too low; none without any.
    pub fn percentile_us(&self, share: f64) -> Option<u64> {
        let all: u64 = self.latencies.iter().sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let reaches = |count: &u64| {
            below += count;
            below >= rank
        };
        self.latencies.iter().position(reaches).map(lowest)
    }

    /// The share of the ops that have no answer; none without any.
    pub fn error_fraction(&self) -> Option<f64> {
        (self.ops > 0).then(|| self.unanswered as f64 / self.ops as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cohort: u16, at_us: Micros, latency_us: u64, reason: &str) -> Seen<'_> {
        let outcome = if reason.is_empty() { Outcome::Ok } else { Outcome::Info };
        Seen { cohort, outcome, answered: reason.is_empty(), reason, at_us, latency_us }
    }

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut before = None;
        for us in (0..200).chain((8..36).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + (1 << (n - 1))])) {
            let bucket = bucket(us);
            assert!(before <= Some(bucket), "{us}");
            before = Some(bucket);
            assert!(
                lowest(bucket) <= us && us as f64 <= lowest(bucket) as f64 * 1.032 + 1.0,
                "{us}: {}",
                lowest(bucket)
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_window_forgets_what_is_older_and_tells_cohorts_apart() {
        let live = Live::new(std::iter::empty(), 2, Some(Duration::from_secs(2)));
        for ms in 0..10_000 {
            live.see(seen(0, ms * 1_000, 1_000 + ms as u64, ""));
        }
        live.see(seen(1, 9_999_000, 5_000_000, "timeout"));
        let second = |cohort| live.window(cohort, 9_999_999, Duration::from_secs(1));
        assert_eq!((second(Some(0)).ops, second(Some(0)).unanswered), (1_000, 0));
        assert_eq!(second(Some(1)).error_fraction(), Some(1.0));
        assert_eq!((second(None).ops, second(None).unanswered), (1_001, 1));
        let median = second(Some(0)).percentile_us(0.5).unwrap();
        assert!((10_100..=10_500).contains(&median), "{median}");
        assert!(second(None).percentile_us(1.0).unwrap() > 4_800_000);
        // Two seconds later nothing is left, although the slots still hold it.
        let later = live.window(None, 12_500_000, Duration::from_secs(2));
        assert_eq!((later.ops, later.percentile_us(0.99), later.error_fraction()), (0, None, None));
    }

    #[test]
    fn the_first_time_counts_and_only_of_what_is_waited_for() {
        let live = Live::new(["sold-out".to_owned()].into_iter(), 1, None);
        assert_eq!(live.first("sold-out"), None);
        live.see(seen(0, 5, 1, "too-early"));
        live.see(seen(0, 7, 1, "sold-out"));
        live.see(seen(0, 9, 1, "sold-out"));
        assert_eq!((live.first("sold-out"), live.first("too-early")), (Some(7), None));
        assert_eq!(live.window(None, 9, Duration::from_secs(1)).ops, 0, "nobody asked for a window");
    }
}
