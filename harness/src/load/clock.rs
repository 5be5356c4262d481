//! The run's clock: microseconds since the epoch on the system's monotonic clock.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerFd, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::history::Micros;

/// Tells the time of a run. Copies of it agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch_ns: i64,
    /// The same moment for the runtime's timers, to within the time that two readings take.
    epoch: Instant,
}

/// The system's monotonic clock in nanoseconds.
pub fn monotonic_ns() -> i64 {
    // The monotonic clock cannot fail on Linux, and it is not stepped by anybody.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
}

/// Sets a timer of the monotonic clock to an absolute time, with the kernel's resolution.
///
/// # Errors
/// What the system says.
pub fn arm(timer: &TimerFd, at_ns: i64) -> std::io::Result<()> {
    let at = TimeSpec::new(at_ns.div_euclid(1_000_000_000), at_ns.rem_euclid(1_000_000_000));
    Ok(timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
}

/// Wall-clock time in Unix microseconds.
pub fn unix_us() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1_000)
}

/// Largest difference between wall clock and monotonic clock that is no step. Slewing a clock moves it by at most half a
/// millisecond in each second.
const STEP_US: Micros = 50_000;

/// Holds the wall clock against the monotonic one: the ledger is stamped by wall clocks, so a step of theirs makes its
/// times worthless.
#[derive(Debug, Clone, Copy)]
pub struct WallWatch {
    /// What the wall clock said at the epoch, as it was last seen.
    epoch_unix_us: i64,
}

impl WallWatch {
    /// A watch that takes the wall clock as it was when the run was anchored to it.
    pub fn anchored_at(epoch_unix_us: i64) -> WallWatch {
        WallWatch { epoch_unix_us }
    }

    /// Looks at what the wall clock says of the epoch now; tells of a step, once.
    pub fn look(&mut self, epoch_unix_us: i64) -> Option<String> {
        let step = epoch_unix_us - self.epoch_unix_us;
        if step.abs() <= STEP_US {
            return None;
        }
        self.epoch_unix_us = epoch_unix_us;
        Some(format!(
            "this machine's wall clock was stepped by {} ms, so the times in the ledger cannot be held against those of \
             the history: stop what sets the clock, and run it again",
            step / 1_000
        ))
    }
}

impl Clock {
    /// A clock whose epoch is `delay_us` from now.
    pub fn starting_in(delay_us: Micros) -> Clock {
        // In this order, so that by the time at which a timer has waited for something, this clock says that it is due.
        let (now_ns, now) = (monotonic_ns(), Instant::now());
        Clock { epoch_ns: now_ns + delay_us * 1_000, epoch: moved(now, delay_us) }
    }

    /// A clock whose epoch is at a wall-clock time, as this machine's wall clock tells it now.
    pub fn starting_at(unix_us: i64) -> Clock {
        Clock::starting_in(unix_us - self::unix_us())
    }

    /// Microseconds since the epoch; negative before it.
    pub fn now_us(self) -> Micros {
        (monotonic_ns() - self.epoch_ns).div_euclid(1_000)
    }

    /// The epoch as wall-clock time in Unix microseconds.
    pub fn epoch_unix_us(self) -> i64 {
        unix_us() - self.now_us()
    }

    /// A time of the run for the runtime's timers. It costs no reading of the clock.
    pub fn instant_at(self, at_us: Micros) -> Instant {
        moved(self.epoch, at_us)
    }

    /// Waits until a time of the run; returns at once if it is past.
    pub async fn sleep_until(self, at_us: Micros) {
        let wait = at_us - self.now_us();
        if wait > 0 {
            tokio::time::sleep(Duration::from_micros(wait as u64)).await;
        }
    }
}

/// A moment so many microseconds later, or before if they are negative.
fn moved(moment: Instant, by_us: Micros) -> Instant {
    let by = Duration::from_micros(by_us.unsigned_abs());
    if by_us < 0 { moment.checked_sub(by).unwrap_or(moment) } else { moment + by }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_told_once_and_a_slew_is_none() {
        let mut watch = WallWatch::anchored_at(1_000_000_000);
        assert_eq!(watch.look(1_000_050_000), None);
        let told = watch.look(1_000_050_001).unwrap();
        assert!(told.contains("stepped by 50 ms"), "{told}");
        assert_eq!(watch.look(1_000_050_001), None);
        assert!(watch.look(999_990_000).unwrap().contains("stepped by -60 ms"));
    }

    #[test]
    fn the_clocks_of_this_machine_agree_with_themselves() {
        let clock = Clock::starting_in(0);
        let mut watch = WallWatch::anchored_at(clock.epoch_unix_us());
        assert_eq!(watch.look(clock.epoch_unix_us()), None);
    }

    #[test]
    fn the_timers_of_the_runtime_tell_the_same_time() {
        for delay_us in [0, 3_000_000, -3_000_000] {
            let clock = Clock::starting_in(delay_us);
            let (now_us, now) = (clock.now_us(), Instant::now());
            let apart = now.max(clock.instant_at(now_us)) - now.min(clock.instant_at(now_us));
            assert!(apart < Duration::from_millis(50), "{delay_us}: {apart:?} apart");
        }
    }
}
