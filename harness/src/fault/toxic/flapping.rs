//! Flapping: a link goes down and comes up again, over and over.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ArmedToxic, Dial, Fate, LinkToxic, Next, Wrong, not_too_long};
use crate::fault::proxy::chunk::{Chunk, Side};

/// What happens to connections while a flapping link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Down {
    /// They are reset, and new ones refused, as by a device in between that restarts.
    #[default]
    Reset,
    /// Bytes and new connections wait until it is up again, as by a cable that is pulled and put back.
    Stall,
}

/// Each length of time is at least this, so that a flapping link is no busy loop.
const SHORTEST: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct Flapping {
    pub(super) down: Duration,
    pub(super) up: Duration,
    pub(super) how: Down,
    /// When it first went down.
    pub(super) since: Instant,
}

impl Flapping {
    /// How far a moment is into its period, which begins with being down.
    fn phase(&self, at: Instant) -> Duration {
        let period = (self.down + self.up).as_nanos();
        let phase = at.saturating_duration_since(self.since).as_nanos() % period;
        Duration::from_nanos(u64::try_from(phase).unwrap_or(u64::MAX))
    }

    /// How long it is still down.
    fn down_for(&self, at: Instant) -> Duration {
        self.down.saturating_sub(self.phase(at))
    }

    /// When it next goes down.
    fn goes_down(&self, after: Instant) -> Instant {
        after + (self.down + self.up - self.phase(after))
    }
}

impl ArmedToxic for Flapping {
    fn name(&self) -> &'static str {
        "flapping"
    }

    fn validate(&self) -> Result<(), Wrong> {
        for (key, time) in [("down", self.down), ("up", self.up)] {
            if time < SHORTEST {
                return Err(Wrong::new(key, format!("is {time:?}"), "at least 1ms"));
            }
            not_too_long(key, time)?;
        }
        Ok(())
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        let now = Instant::now();
        match self.how {
            Down::Reset => Box::new(Resetting { flapping: *self, next: self.goes_down(now) }),
            Down::Stall => Box::new(Stalling { flapping: *self, wait: self.down_for(now) }),
        }
    }
}

struct Resetting {
    flapping: Flapping,
    next: Instant,
}

impl LinkToxic for Resetting {
    fn on_connect(&mut self) -> Dial {
        if self.flapping.down_for(Instant::now()).is_zero() { Dial::Proceed } else { Dial::Refuse }
    }

    fn on_armed(&mut self) -> Fate {
        if self.flapping.down_for(Instant::now()).is_zero() { Fate::Live } else { Fate::Reset }
    }

    fn wakes_at(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn on_time(&mut self, now: Instant, _next: &mut Next<'_, '_>) -> Fate {
        self.next = self.flapping.goes_down(now);
        Fate::Reset
    }
}

struct Stalling {
    flapping: Flapping,
    /// How long the connection waits before it is made.
    wait: Duration,
}

impl LinkToxic for Stalling {
    fn opens_in(&self) -> Duration {
        self.wait
    }

    fn delay(&mut self, _side: Side, due: Instant, _len: usize) -> Instant {
        due + self.flapping.down_for(due)
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        let due = self.delay(chunk.side, chunk.due, chunk.payload.len());
        if due > chunk.due {
            next.touch(chunk.payload.len());
            chunk.due = due;
        }
        next.pass(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_flapping_is_periodic() {
        let ms = Duration::from_millis;
        let since = Instant::now();
        let flapping = Flapping { down: ms(200), up: ms(300), how: Down::Reset, since };
        for (at, down_for, goes_down) in [(0, 200, 500), (199, 1, 500), (200, 0, 500), (499, 0, 500), (650, 50, 1000)] {
            assert_eq!(flapping.down_for(since + ms(at)), ms(down_for), "{at}");
            assert_eq!(flapping.goes_down(since + ms(at)), since + ms(goes_down), "{at}");
        }
    }
}
