//! One direction of one connection: the queue of what is held back, and its writing.
//!
//! A lane keeps the order of bytes whatever the toxics plan, and is bounded in bytes: when it is full, nothing more is
//! read, and the sender feels it as a full socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::chunk::{Chunk, End, Side};
use crate::fault::toxic::Sink;
use crate::timer::Timer;

/// Bytes that one direction of one connection may hold back. With a delay of d seconds a connection therefore carries at
/// most this much per d seconds.
pub(crate) const HELD_BYTES: usize = 1024 * 1024;
/// What a queued chunk costs besides its bytes, so that many tiny chunks are bounded as well.
const CHUNK_OVERHEAD: usize = size_of::<Chunk>();

/// The state of one direction.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) side: Side,
    queue: VecDeque<Chunk>,
    held: usize,
    /// The latest moment planned so far: nothing that came later may leave earlier.
    latest: Instant,
    /// The moment for which the timer was last asked to wake the connection.
    wake_at: Option<Instant>,
    /// What was last read filled a buffer, so there is more to come.
    pub(crate) bulk: bool,
    /// Nothing more will be read.
    pub(crate) ended: bool,
    /// The end has been passed on, or can no longer be.
    pub(crate) closed: bool,
    /// The destination does not take bytes any more.
    pub(crate) broken: bool,
    /// The end of the whole connection has been reached in this direction.
    pub(crate) over: Option<End>,
}

/// What came of an attempt to write out what is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is due any more; later chunks may be queued.
    Clear,
    /// The destination is full.
    Blocked,
}

impl Lane {
    pub(crate) fn new(side: Side, now: Instant) -> Self {
        Self {
            side,
            queue: VecDeque::new(),
            held: 0,
            latest: now,
            wake_at: None,
            bulk: false,
            ended: false,
            closed: false,
            broken: false,
            over: None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.held >= HELD_BYTES
    }

    pub(crate) fn push(&mut self, mut chunk: Chunk) {
        chunk.payload.compact();
        chunk.due = chunk.due.max(self.latest);
        self.latest = chunk.due;
        self.held += chunk.payload.len() + CHUNK_OVERHEAD;
        self.queue.push_back(chunk);
    }

    /// Gives every queued chunk a new moment to leave, in order.
    pub(crate) fn replan(&mut self, mut plan: impl FnMut(&Chunk) -> Instant) {
        let Some(first) = self.queue.front() else { return };
        let mut latest = first.arrived;
        for chunk in &mut self.queue {
            latest = latest.max(plan(chunk));
            chunk.due = latest;
        }
        self.latest = latest;
        self.wake_at = None;
    }

    /// Writes what is due, and asks the timer for the rest.
    pub(crate) fn flush<W: AsyncWrite + Unpin>(&mut self, dst: &mut W, timer: &Timer, cx: &mut Context<'_>) -> Flushed {
        if self.queue.is_empty() {
            return Flushed::Clear;
        }
        let now = Instant::now();
        while let Some(chunk) = self.queue.front_mut() {
            if chunk.due > now {
                if self.wake_at != Some(chunk.due) {
                    self.wake_at = Some(chunk.due);
                    timer.wake_at(chunk.due, cx.waker().clone());
                }
                return Flushed::Clear;
            }
            let before = chunk.payload.len();
            let written = write_chunk(chunk, dst, cx);
            self.held -= before - chunk.payload.len();
            match written {
                Written::Whole => {
                    let end = chunk.end;
                    self.held -= CHUNK_OVERHEAD;
                    self.queue.pop_front();
                    self.reached(end);
                }
                Written::Part => return Flushed::Blocked,
                Written::Failed => {
                    self.break_off();
                    return Flushed::Clear;
                }
            }
        }
        Flushed::Clear
    }

    /// Takes note of an end that has been passed on. What stands behind the end of a connection never leaves.
    fn reached(&mut self, end: Option<End>) {
        self.closed |= end.is_some();
        if end.is_some_and(|end| end != End::Half) {
            self.over = end;
            self.queue.clear();
            self.held = 0;
        }
    }

    /// Gives up a destination that does not take bytes any more.
    fn break_off(&mut self) {
        self.queue.clear();
        self.held = 0;
        self.broken = true;
        self.ended = true;
        self.closed = true;
    }
}

enum Written {
    Whole,
    Part,
    Failed,
}

fn write_chunk<W: AsyncWrite + Unpin>(chunk: &mut Chunk, dst: &mut W, cx: &mut Context<'_>) -> Written {
    while !chunk.payload.is_empty() {
        match Pin::new(&mut *dst).poll_write(cx, chunk.payload.bytes()) {
            Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Written::Failed,
            Poll::Ready(Ok(n)) => chunk.payload.advance(n),
            Poll::Pending => return Written::Part,
        }
    }
    if matches!(chunk.end, None | Some(End::Reset)) {
        return Written::Whole;
    }
    match Pin::new(dst).poll_shutdown(cx) {
        // Shutting down a socket whose peer is gone fails, and means the same.
        Poll::Ready(_) => Written::Whole,
        Poll::Pending => Written::Part,
    }
}

/// Where a chunk goes after the last toxic: straight to the destination if nothing is in its way, else to the queue.
pub(crate) struct Outlet<'a, 'c, 'w, W> {
    pub(crate) lane: &'a mut Lane,
    pub(crate) dst: &'a mut W,
    pub(crate) cx: &'a mut Context<'c>,
    pub(crate) now: Instant,
    /// The other direction, for replies that a toxic gives by itself.
    pub(crate) back: &'a mut Lane,
    /// What toxics ask of the connection.
    pub(crate) asked: &'w mut Asked,
}

/// What toxics ask of a connection beyond passing chunks on.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// To be reset.
    pub(crate) reset: bool,
    /// To forget so many requests: a toxic has answered them.
    pub(crate) answered: u32,
    /// To deliver these once more, each so long from now.
    pub(crate) copies: Vec<(Vec<u8>, Duration)>,
}

impl<W: AsyncWrite + Unpin> Sink for Outlet<'_, '_, '_, W> {
    fn leave(&mut self, mut chunk: Chunk) {
        // What follows a cut must not arrive.
        if chunk.side != self.lane.side {
            return self.back.push(chunk);
        }
        if self.asked.reset || self.lane.over.is_some() {
            return;
        }
        if !self.lane.is_idle() || chunk.due > self.now {
            return self.lane.push(chunk);
        }
        match write_chunk(&mut chunk, self.dst, self.cx) {
            Written::Whole => self.lane.reached(chunk.end),
            Written::Part => self.lane.push(chunk),
            Written::Failed => self.lane.break_off(),
        }
    }

    fn reset(&mut self) {
        self.asked.reset = true;
    }

    fn answered(&mut self) {
        self.asked.answered += 1;
    }

    fn copy(&mut self, bytes: Vec<u8>, after: Duration) {
        self.asked.copies.push((bytes, after));
    }
}

/// Takes what a healed toxic gives back: it joins the queue of its direction.
pub(crate) struct Queues<'a> {
    pub(crate) up: &'a mut Lane,
    pub(crate) down: &'a mut Lane,
    pub(crate) reset: bool,
}

impl Sink for Queues<'_> {
    fn leave(&mut self, chunk: Chunk) {
        match chunk.side {
            Side::Up => self.up.push(chunk),
            Side::Down => self.down.push(chunk),
        }
    }

    fn reset(&mut self) {
        self.reset = true;
    }
}

/// Takes what toxics pass on for a connection that has no lanes yet.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn leave(&mut self, _chunk: Chunk) {}

    fn reset(&mut self) {}
}
