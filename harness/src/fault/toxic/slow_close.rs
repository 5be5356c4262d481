//! Slow close: the end of a stream arrives later than its bytes.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, LinkToxic, Next, Wrong, not_too_long};
use crate::fault::proxy::chunk::{Chunk, Side};

#[derive(Debug, Clone, Copy)]
pub(super) struct SlowClose {
    pub(super) delay: Duration,
}

impl ArmedToxic for SlowClose {
    fn name(&self) -> &'static str {
        "slow_close"
    }

    fn validate(&self) -> Result<(), Wrong> {
        not_too_long("delay", self.delay)
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(*self)
    }
}

impl LinkToxic for SlowClose {
    /// Only an end has no bytes.
    fn delay(&mut self, _side: Side, due: Instant, len: usize) -> Instant {
        if len == 0 { due + self.delay } else { due }
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        if chunk.end.is_some() && !self.delay.is_zero() {
            next.touch(0);
            chunk.due += self.delay;
        }
        next.pass(chunk);
    }
}
