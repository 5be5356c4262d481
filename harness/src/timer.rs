//! A delay queue on a timerfd of its own.
//!
//! tokio's timers tick once a millisecond, which is as much as a whole delay that a fault may ask for, and three times what
//! the generator may be late. A timerfd fires within tens of microseconds, and one of them, armed for the earliest deadline,
//! serves all connections of a proxy, or the schedule and all buyers of a generator.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes tasks at given moments.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: AsyncFd<Fd>,
    queue: Mutex<Queue>,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[derive(Debug, Default)]
struct Queue {
    entries: BinaryHeap<Reverse<Entry>>,
    armed_for: Option<Instant>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    /// Keeps entries of the same moment in the order in which they came.
    nth: u64,
    waker: Waker,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

impl Timer {
    /// Must be called inside a runtime, whose driver watches the timerfd.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: `Fd` owns its descriptor, never replaces it, and closes it only when the `AsyncFd` drops it.
        let fd = unsafe { AsyncFd::register_with_interest(Fd(fd), Interest::READABLE) }?;
        Ok(Self { fd, queue: Mutex::default(), ended: AtomicBool::new(false) })
    }

    /// Waits until `at`, or until waiting has ended for all.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep<'_> {
        Sleep { timer: self, at, asked: None }
    }

    /// Nobody waits any longer: those who do are woken, and every further wait is over at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let woken = std::mem::take(&mut self.queue().entries);
        woken.into_iter().for_each(|Reverse(entry)| entry.waker.wake());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Between two statements a queue is always whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes `waker` at `at` or shortly after. There is no way to take it back: a task must bear to be woken in vain.
    pub(crate) fn wake_at(&self, at: Instant, waker: Waker) {
        let mut queue = self.queue();
        if self.ended.load(Ordering::Acquire) {
            return waker.wake();
        }
        queue.count += 1;
        let nth = queue.count;
        queue.entries.push(Reverse(Entry { at, nth, waker }));
        if queue.armed_for.is_none_or(|armed| at < armed) {
            self.arm(&mut queue, at);
        }
    }

    /// Waits for the timerfd and wakes whoever is due.
    pub(crate) async fn fire(&self) {
        // Polling an AsyncFd fails only when the runtime shuts down, and then this future is not polled again.
        let Ok(mut guard) = self.fd.readable().await else { return std::future::pending().await };
        // The timerfd is never read. The driver is edge-triggered and setting the timer anew forgets the expiry.
        guard.clear_ready();
        let mut queue = self.queue();
        queue.armed_for = None;
        let now = Instant::now();
        while let Some(Reverse(first)) = queue.entries.peek() {
            if first.at > now {
                let at = first.at;
                self.arm(&mut queue, at);
                break;
            }
            // Waking only pushes the task to the run queue, so the lock may be kept.
            if let Some(Reverse(entry)) = queue.entries.pop() {
                entry.waker.wake();
            }
        }
    }

    fn arm(&self, queue: &mut Queue, at: Instant) {
        queue.armed_for = Some(at);
        // A zero would disarm the timer.
        let after = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(after));
        // It can only fail for a malformed time, which the above is not.
        let set = self.fd.get_ref().0.set(expiration, TimerSetTimeFlags::empty());
        debug_assert!(set.is_ok(), "setting a timerfd failed: {set:?}");
    }
}

/// A wait of [`Timer::sleep_until`].
#[derive(Debug)]
pub(crate) struct Sleep<'a> {
    timer: &'a Timer,
    at: Instant,
    /// Whom the timer was asked to wake.
    asked: Option<Waker>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at || self.timer.ended.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        // A task that something else has woken meanwhile is already in the queue.
        if !self.asked.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let waker = cx.waker().clone();
            self.timer.wake_at(self.at, waker.clone());
            self.asked = Some(waker);
        }
        Poll::Pending
    }
}
