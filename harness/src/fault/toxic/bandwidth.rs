//! Bandwidth: each direction of a connection carries so many bytes per second.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, LinkToxic, Next, Wrong};
use crate::fault::proxy::chunk::{Chunk, Side};

/// How long the bytes that leave at once take to carry: short enough that a transfer looks like a slow line rather than
/// like a stutter.
const SLICE: Duration = Duration::from_millis(10);
/// The smallest slice, so that a fast line is not cut into confetti.
const SMALLEST_SLICE: usize = 512;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bandwidth {
    pub(super) bytes_per_second: u64,
}

impl ArmedToxic for Bandwidth {
    fn name(&self) -> &'static str {
        "bandwidth"
    }

    fn validate(&self) -> Result<(), Wrong> {
        match self.bytes_per_second {
            0 => Err(Wrong::new("bytes_per_second", "is 0", "at least 1; a black hole lets nothing through")),
            _ => Ok(()),
        }
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        let per_slice = u128::from(self.bytes_per_second) * SLICE.as_millis() / 1000;
        let slice = usize::try_from(per_slice).unwrap_or(usize::MAX).max(SMALLEST_SLICE);
        Box::new(LinkBandwidth { bytes_per_second: self.bytes_per_second, slice, free_at: [None; 2] })
    }
}

struct LinkBandwidth {
    bytes_per_second: u64,
    slice: usize,
    /// When the line of each side will have carried everything planned so far.
    free_at: [Option<Instant>; 2],
}

impl LinkToxic for LinkBandwidth {
    fn delay(&mut self, side: Side, due: Instant, len: usize) -> Instant {
        let free_at = &mut self.free_at[side as usize];
        let start = free_at.map_or(due, |free| free.max(due));
        let nanos = len as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let end = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *free_at = Some(end);
        end
    }

    /// The line starts empty: what is planned anew is everything that is still to be carried.
    fn replan(&mut self, now: Instant) {
        self.free_at = [Some(now); 2];
    }

    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        next.touch(chunk.payload.len());
        while chunk.payload.len() > self.slice {
            let mut piece = chunk.piece(self.slice);
            piece.due = self.delay(piece.side, piece.due, self.slice);
            next.pass(piece);
        }
        chunk.due = self.delay(chunk.side, chunk.due, chunk.payload.len());
        next.pass(chunk);
    }
}
