//! Limit data: a connection is closed when it has carried so many bytes.

use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, LinkToxic, Next};
use crate::fault::proxy::chunk::{Chunk, End};

#[derive(Debug, Clone, Copy)]
pub(super) struct LimitData {
    pub(super) bytes: u64,
}

impl ArmedToxic for LimitData {
    fn name(&self) -> &'static str {
        "limit_data"
    }

    fn strike(&self, _rng: ChaCha8Rng) -> Box<dyn LinkToxic> {
        Box::new(LinkLimitData { left: [self.bytes; 2], closed: false })
    }
}

struct LinkLimitData {
    /// What each side may still carry.
    left: [u64; 2],
    closed: bool,
}

impl LinkToxic for LinkLimitData {
    fn on_chunk(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        if self.closed {
            return next.touch(chunk.payload.len());
        }
        let left = &mut self.left[chunk.side as usize];
        let len = chunk.payload.len() as u64;
        if len < *left {
            *left -= len;
            return next.pass(chunk);
        }
        self.closed = true;
        let (side, arrived, beyond) = (chunk.side, chunk.arrived, len - *left);
        // No more than was read, so it fits.
        let within = *left as usize;
        if beyond == 0 && len > 0 {
            next.pass(chunk);
        } else if within > 0 {
            let piece = chunk.piece(within);
            next.pass(piece);
        }
        next.touch(beyond as usize);
        next.pass(Chunk::end(side, End::Close, arrived));
    }
}
