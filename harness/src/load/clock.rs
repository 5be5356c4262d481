//! The run's clock: microseconds since the epoch on the system's monotonic clock.

use nix::time::{ClockId, clock_gettime};

use crate::history::Micros;

/// Tells the time of a run. Copies of it agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch_ns: i64,
}

fn monotonic_ns() -> i64 {
    // The monotonic clock cannot fail on Linux, and it is not stepped by anybody.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Wall-clock time in Unix microseconds.
pub fn unix_us() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1_000)
}

impl Clock {
    /// A clock whose epoch is `delay_us` from now.
    pub fn starting_in(delay_us: Micros) -> Clock {
        Clock { epoch_ns: monotonic_ns() + delay_us * 1_000 }
    }

    /// Microseconds since the epoch; negative before it.
    pub fn now_us(self) -> Micros {
        (monotonic_ns() - self.epoch_ns).div_euclid(1_000)
    }

    /// The epoch as wall-clock time in Unix microseconds.
    pub fn epoch_unix_us(self) -> i64 {
        unix_us() - self.now_us()
    }

    /// A time of the run on the system's monotonic clock, for a timer that takes absolute times.
    pub fn monotonic_ns_at(self, at_us: Micros) -> i64 {
        self.epoch_ns + at_us * 1_000
    }

    /// Waits until a time of the run; returns at once if it is past.
    pub async fn sleep_until(self, at_us: Micros) {
        let wait = at_us - self.now_us();
        if wait > 0 {
            tokio::time::sleep(std::time::Duration::from_micros(wait as u64)).await;
        }
    }
}
