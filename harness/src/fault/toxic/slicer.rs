//! Slicer: what was written at once arrives in small pieces, with pauses between them.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, LinkToxic, Next, Wrong, not_too_long};
use crate::fault::proxy::chunk::{Chunk, Side};

#[derive(Debug, Clone, Copy)]
pub(super) struct Slicer {
    pub(super) size: u32,
    pub(super) variation: u32,
    pub(super) delay: Duration,
}

impl ArmedToxic for Slicer {
    fn name(&self) -> &'static str {
        "slicer"
    }

    fn validate(&self) -> Result<(), Wrong> {
        if self.size == 0 {
            return Err(Wrong::new("size", "is 0", "a piece has at least 1 byte"));
        }
        if self.variation >= self.size {
            let help = format!("less than `size` ({}), so that each piece has a byte", self.size);
            return Err(Wrong::new("variation", format!("is {}", self.variation), help));
        }
        not_too_long("delay", self.delay)
    }

    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkSlicer { slicer: *self, rng, last: [None; 2] })
    }
}

struct LinkSlicer {
    slicer: Slicer,
    rng: ChaCha8Rng,
    /// When the last piece of each side leaves.
    last: [Option<Instant>; 2],
}

impl LinkSlicer {
    fn size(&mut self) -> usize {
        let Slicer { size, variation, .. } = self.slicer;
        let drawn = if variation == 0 { size } else { self.rng.random_range(size - variation..=size + variation) };
        drawn as usize
    }
}

impl LinkToxic for LinkSlicer {
    fn delay(&mut self, side: Side, due: Instant, len: usize) -> Instant {
        if len == 0 {
            return due;
        }
        let last = &mut self.last[side as usize];
        let due = last.map_or(due, |last| due.max(last + self.slicer.delay));
        *last = Some(due);
        due
    }

    fn replan(&mut self, _now: Instant) {
        self.last = [None; 2];
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        let len = chunk.payload.len();
        let mut size = self.size();
        while chunk.payload.len() > size {
            let mut piece = chunk.piece(size);
            piece.due = self.delay(piece.side, piece.due, size);
            next.pass(piece);
            size = self.size();
        }
        let due = self.delay(chunk.side, chunk.due, chunk.payload.len());
        if due > chunk.due || chunk.payload.len() < len {
            next.touch(len);
        }
        chunk.due = due;
        next.pass(chunk);
    }
}
