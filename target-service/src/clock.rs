//! The service's notion of now, which a drill may skew.
//!
//! Every time that is stored or compared comes from here, never from the database: one clock decides
//! whether the sale is open and when a hold ends.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock plus an offset.
#[derive(Debug, Default)]
pub struct Clock {
    offset_us: AtomicI64,
}

impl Clock {
    /// Now, in unix microseconds.
    pub fn now_us(&self) -> i64 {
        system_now_us() + self.offset_us.load(Ordering::Relaxed)
    }

    /// By how much the clock is off, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.offset_us.load(Ordering::Relaxed) / 1000
    }

    /// Skews the clock.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.offset_us.store(offset_ms.saturating_mul(1000), Ordering::Relaxed);
    }

    /// Skews the clock so that it reads `now_us` at this moment.
    pub fn set_now_us(&self, now_us: i64) {
        self.offset_us.store(now_us.saturating_sub(system_now_us()), Ordering::Relaxed);
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
        clock.set_offset_ms(60_000);
        let ahead = clock.now_us() - system_now_us();
        assert!((59_900_000..=60_000_000).contains(&ahead), "{ahead}");
        clock.set_now_us(1_000_000);
        assert!((1_000_000..1_100_000).contains(&clock.now_us()));
    }
}
