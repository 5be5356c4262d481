//! Timeout: bytes vanish, and after a while the connection is closed.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Direction, Fate, LinkToxic, Next, Wrong, not_too_long};
use crate::fault::proxy::chunk::{Chunk, End, Side};

#[derive(Debug, Clone, Copy)]
pub(super) struct Timeout {
    pub(super) after: Duration,
    /// The direction in which the bytes vanish, and in which the end is told first.
    pub(super) direction: Direction,
}

impl ArmedToxic for Timeout {
    fn name(&self) -> &'static str {
        "timeout"
    }

    fn validate(&self) -> Result<(), Wrong> {
        not_too_long("after", self.after)
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        let side = if self.direction.covers(Side::Down) { Side::Down } else { Side::Up };
        Box::new(LinkTimeout { at: Some(Instant::now() + self.after), side, swallowed: false })
    }
}

struct LinkTimeout {
    /// When the connection is closed, until it was.
    at: Option<Instant>,
    side: Side,
    swallowed: bool,
}

impl LinkToxic for LinkTimeout {
    fn wakes_at(&self) -> Option<Instant> {
        self.at
    }

    fn on_time(&mut self, now: Instant, next: &mut Next<'_, '_>) -> Fate {
        self.at = None;
        next.pass(Chunk::end(self.side, End::Close, now));
        Fate::Live
    }

    fn on_chunk(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        next.touch(chunk.payload.len());
        self.swallowed = true;
    }

    /// A stream with a hole in it must not go on.
    fn on_heal(&mut self, _next: &mut Next<'_, '_>) -> Fate {
        if self.swallowed { Fate::Reset } else { Fate::Live }
    }
}
