//! Bytes on their way through the proxy, and the buffers they live in.
//!
//! Buffers are pooled per thread. A proxy has one thread, so its connections share a handful of buffers that stay in the
//! processor's cache, an idle connection owns none, and passing a chunk through allocates nothing. There are two sizes: a
//! transfer that keeps filling the small one gets the large one, with which a system call moves as much as sixteen would.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::fault::toxic::ToxicId;

/// How much is read at once.
pub(crate) const BUFFER: usize = 64 * 1024;
/// How much is read at once in the middle of a bulk transfer.
pub(crate) const BULK: usize = 1024 * 1024;
/// A queued chunk that fills less than this part of a pooled buffer moves to one of its own size: queues are bounded by the
/// bytes they hold, so a byte must not occupy a whole pooled buffer.
const COMPACT_BELOW: usize = 4;
/// Buffers kept for reuse; more than this are only in use at once when many connections are backed up.
const POOLED: usize = 64;
/// The same for large ones.
const POOLED_BULK: usize = 4;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), bulk: Vec::new() }) };
}

/// Initialised buffers of [`BUFFER`] and of [`BULK`] bytes.
struct Pool {
    small: Vec<Vec<u8>>,
    bulk: Vec<Vec<u8>>,
}

/// Takes a buffer of [`BUFFER`] initialised bytes.
pub(crate) fn take_buffer() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.small.pop()).unwrap_or_else(|| vec![0; BUFFER])
}

/// Takes a buffer of [`BULK`] initialised bytes.
pub(crate) fn take_bulk_buffer() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.bulk.pop()).unwrap_or_else(|| vec![0; BULK])
}

/// Gives a buffer back; anything but a whole buffer is simply freed.
pub(crate) fn give_buffer(buffer: Vec<u8>) {
    // The pool is gone when a thread ends while it still holds chunks; then the buffer is freed like any other.
    let _ = POOL.try_with(|pool| {
        let Pool { small, bulk } = &mut *pool.borrow_mut();
        let (pool, most) = match buffer.len() {
            BUFFER => (small, POOLED),
            BULK => (bulk, POOLED_BULK),
            _ => return,
        };
        if pool.len() < most {
            pool.push(buffer);
        }
    });
}

/// The bytes of a chunk: a range of an owned buffer, which returns to the pool when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Payload {
    /// The first `len` bytes of `buffer`.
    pub(crate) fn prefix(buffer: Vec<u8>, len: usize) -> Self {
        debug_assert!(len <= buffer.len());
        Self { buffer, start: 0, end: len }
    }

    pub(crate) fn copied(bytes: &[u8]) -> Self {
        Self { buffer: bytes.to_vec(), start: 0, end: bytes.len() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `n` bytes, which have been written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
    }

    /// Splits off and returns the first `n` bytes.
    pub(crate) fn split_to(&mut self, n: usize) -> Self {
        if n == self.len() {
            return std::mem::take(self);
        }
        let head = Self::copied(&self.bytes()[..n]);
        self.advance(n);
        head
    }

    /// Moves a small payload out of a large buffer before it is queued.
    pub(crate) fn compact(&mut self) {
        if self.buffer.len() >= BUFFER && self.len() < self.buffer.len() / COMPACT_BELOW {
            *self = Self::copied(self.bytes());
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(buffer: Vec<u8>) -> Self {
        let end = buffer.len();
        Self { buffer, start: 0, end }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        give_buffer(std::mem::take(&mut self.buffer));
    }
}

/// One of the two directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// How a direction of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Only this direction; the other one goes on.
    Half,
    /// The whole connection is closed as soon as this is reached.
    Close,
    /// The whole connection is reset as soon as this is reached.
    Reset,
}

/// What is known about the call that a chunk of a reply answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplyPart {
    /// Whether the reply ends with this chunk.
    pub(crate) complete: bool,
    /// The call: for HTTP its method and path, for Postgres the statements. Empty if the call began unwatched.
    pub(crate) texts: Vec<std::sync::Arc<str>>,
    /// Whether the reply says that something was committed; known only when the reply is complete.
    pub(crate) committed: bool,
    /// Whether the reply reports an error of the server.
    pub(crate) failed: bool,
}

/// What is known about the call that a chunk is part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallPart {
    /// Whether the call begins with this chunk.
    pub(crate) first: bool,
    /// Whether the call ends with this chunk.
    pub(crate) complete: bool,
    /// The call, as in [`ReplyPart`]; empty until as much of it has come as that takes.
    pub(crate) texts: Vec<std::sync::Arc<str>>,
    /// Whether no earlier call awaits a reply.
    pub(crate) alone: bool,
}

/// Bytes (or the end of the stream) travelling in one direction.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) side: Side,
    pub(crate) payload: Payload,
    /// When it was read.
    pub(crate) arrived: Instant,
    /// When it may leave. Toxics move this; the lane keeps the order of the bytes whatever they do.
    pub(crate) due: Instant,
    /// The end of this direction; such a chunk has no bytes.
    pub(crate) end: Option<End>,
    /// The reply it belongs to, if a toxic of the connection asked for replies to be told apart.
    pub(crate) reply: Option<ReplyPart>,
    /// The call it belongs to, if a toxic of the connection asked for calls to be told apart.
    pub(crate) call: Option<CallPart>,
    /// What single toxics have added to its delay because of the call that it is part of.
    pub(crate) holds: Vec<(ToxicId, Duration)>,
}

impl Chunk {
    pub(crate) fn new(side: Side, payload: Payload, arrived: Instant) -> Self {
        Self { side, payload, arrived, due: arrived, end: None, reply: None, call: None, holds: Vec::new() }
    }

    pub(crate) fn end(side: Side, end: End, arrived: Instant) -> Self {
        Self { end: Some(end), ..Self::new(side, Payload::default(), arrived) }
    }

    /// Splits off the first `n` bytes, which must not be all of them, as a chunk of their own.
    pub(crate) fn piece(&mut self, n: usize) -> Self {
        debug_assert!(n < self.payload.len());
        let payload = self.payload.split_to(n);
        let call = self.call.as_mut().map(|call| {
            let piece = CallPart { complete: false, ..call.clone() };
            call.first = false;
            piece
        });
        let (reply, holds) = (self.partial_reply(), self.holds.clone());
        Self { due: self.due, reply, call, holds, ..Self::new(self.side, payload, self.arrived) }
    }

    /// What a toxic added to its delay.
    pub(crate) fn held_by(&self, id: ToxicId) -> Duration {
        self.holds.iter().filter(|(by, _)| *by == id).map(|(_, time)| *time).sum()
    }

    /// What is known about a part of this chunk that does not reach its end.
    pub(crate) fn partial_reply(&self) -> Option<ReplyPart> {
        self.reply.clone().map(|reply| ReplyPart { complete: false, ..reply })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_payload_splits_and_compacts() {
        let mut buffer = take_buffer();
        buffer[..6].copy_from_slice(b"abcdef");
        let mut payload = Payload::prefix(buffer, 6);
        assert_eq!(payload.split_to(2).bytes(), b"ab");
        payload.compact();
        assert_eq!(payload.buffer.len(), 4);
        payload.advance(1);
        assert_eq!(payload.bytes(), b"def");
        assert_eq!(payload.split_to(3).bytes(), b"def");
        assert!(payload.is_empty());
    }
}
