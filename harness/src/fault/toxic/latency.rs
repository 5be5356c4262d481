//! Latency: every chunk leaves later.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Direction, LinkToxic, Next};
use crate::fault::proxy::chunk::{Chunk, Side};

/// Longer than any rehearsal, and short enough for every sum of times to exist.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
}

impl ArmedToxic for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn validate(&self) -> Result<(), String> {
        match self.delay.max(self.jitter) {
            longest if longest > LONGEST => Err(format!("{longest:?} is too long; a day is the most")),
            _ => Ok(()),
        }
    }

    /// `delay` is what a round trip gets on top, so without a direction only the replies are delayed.
    fn direction(&self, asked: Direction) -> Direction {
        match asked {
            Direction::Both => Direction::Down,
            one => one,
        }
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkLatency { latency: *self, rng })
    }
}

struct LinkLatency {
    latency: Latency,
    rng: ChaCha8Rng,
}

impl LinkToxic for LinkLatency {
    fn delay(&mut self, _side: Side, due: Instant, _len: usize) -> Instant {
        let Latency { delay, jitter } = self.latency;
        if jitter.is_zero() {
            return due + delay;
        }
        let drawn = self.rng.random_range(Duration::ZERO..=2 * jitter);
        due + (delay + drawn).saturating_sub(jitter)
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        next.touch(chunk.payload.len());
        chunk.due = self.delay(chunk.side, chunk.due, chunk.payload.len());
        next.pass(chunk);
    }
}
