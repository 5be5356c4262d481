//! Black hole: bytes vanish and nobody is told.

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Dial, Direction, Fate, LinkToxic, Next};
use crate::fault::proxy::chunk::Chunk;

#[derive(Debug, Clone, Copy)]
pub(super) struct BlackHole {
    /// The direction asked for decides whether a new connection can reach the upstream at all.
    pub(super) direction: Direction,
}

impl ArmedToxic for BlackHole {
    fn name(&self) -> &'static str {
        "black_hole"
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkBlackHole { holds_new: self.direction != Direction::Down, swallowed: false })
    }
}

struct LinkBlackHole {
    holds_new: bool,
    swallowed: bool,
}

impl LinkToxic for LinkBlackHole {
    /// What opens a connection vanishes as well, so the upstream does not see a new one.
    fn on_connect(&mut self) -> Dial {
        if self.holds_new { Dial::Hold } else { Dial::Proceed }
    }

    /// The end of the stream is swallowed too: neither side learns that the other has gone.
    fn on_chunk(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        next.touch(chunk.payload.len());
        self.swallowed = true;
    }

    /// A stream with a hole in it must not go on.
    fn on_heal(&mut self, _next: &mut Next<'_, '_>) -> Fate {
        if self.swallowed { Fate::Reset } else { Fate::Live }
    }
}
