//! The service's notion of now, which a drill may set wrong: ahead or behind, and running too fast or too slow.
//!
//! Every time that is stored or compared comes from here, never from the database: one clock decides
//! whether the sale is open and when a hold ends.

use std::sync::RwLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, and how it is wrong.
#[derive(Debug, Default)]
pub struct Clock {
    error: RwLock<Error>,
}

/// How a clock is wrong: by so much at a moment, and by more from then on.
#[derive(Debug, Clone, Copy, Default)]
struct Error {
    offset_us: i64,
    /// Microseconds that it gains in each second; negative for a clock that is slow.
    gain_ppm: i64,
    /// The moment, in unix microseconds.
    since_us: i64,
}

impl Error {
    fn at(self, system_us: i64) -> i64 {
        let gained = i128::from(system_us.saturating_sub(self.since_us)) * i128::from(self.gain_ppm) / 1_000_000;
        self.offset_us.saturating_add(i64::try_from(gained).unwrap_or(0))
    }
}

impl Clock {
    /// Now, in unix microseconds.
    pub fn now_us(&self) -> i64 {
        let now = system_now_us();
        now.saturating_add(self.error().at(now))
    }

    /// By how much the clock is off at this moment, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.error().at(system_now_us()) / 1000
    }

    /// How many microseconds it gains in each second.
    pub fn gain_ppm(&self) -> i64 {
        self.error().gain_ppm
    }

    /// Sets the clock wrong: by an offset now, and by so many microseconds more with each second.
    pub fn set(&self, offset_ms: i64, gain_ppm: i64) {
        self.replace(Error { offset_us: offset_ms.saturating_mul(1000), gain_ppm, since_us: system_now_us() });
    }

    /// Sets the clock so that it reads `now_us` at this moment, and goes on at the right speed.
    pub fn set_now_us(&self, now_us: i64) {
        let since_us = system_now_us();
        self.replace(Error { offset_us: now_us.saturating_sub(since_us), gain_ppm: 0, since_us });
    }

    fn error(&self) -> Error {
        *self.error.read().unwrap_or_else(|e| e.into_inner())
    }

    fn replace(&self, error: Error) {
        *self.error.write().unwrap_or_else(|e| e.into_inner()) = error;
    }
}

fn system_now_us() -> i64 {
    // A machine whose clock stands before 1970 is treated as standing at 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_now() {
        let clock = Clock::default();
        clock.set(60_000, 0);
        let ahead = clock.now_us() - system_now_us();
        assert!((59_900_000..=60_000_000).contains(&ahead), "{ahead}");
        clock.set_now_us(1_000_000);
        assert!((1_000_000..1_100_000).contains(&clock.now_us()));
    }

    #[test]
    fn a_clock_that_is_fast_or_slow_is_off_by_more_and_more() {
        let fast = Error { offset_us: 5, gain_ppm: 500_000, since_us: 1_000 };
        assert_eq!([1_000, 3_000, 2_001_000].map(|now| fast.at(now)), [5, 1_005, 1_000_005]);
        let slow = Error { gain_ppm: -250_000, ..fast };
        assert_eq!(slow.at(4_001_000), 5 - 1_000_000);
        let clock = Clock::default();
        clock.set(0, 1_000_000_000);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(clock.offset_ms() >= 5_000, "a thousand seconds in each: {}", clock.offset_ms());
        clock.set(0, 0);
        assert_eq!((clock.offset_ms(), clock.gain_ppm()), (0, 0));
    }
}
