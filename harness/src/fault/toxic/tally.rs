//! What toxics have really hit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a toxic really hit while it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ToxicHit {
    /// Connections on which it did something.
    pub connections: u64,
    /// Bytes that it delayed, swallowed or withheld.
    pub bytes: u64,
    /// Chunks of them, as they were read.
    pub chunks: u64,
    /// Calls to which it did something; 0 for a toxic that does not look at calls.
    pub calls: u64,
}

/// Counts what one toxic does to one connection.
#[derive(Debug)]
pub(crate) struct Tally {
    hits: Arc<Hits>,
    touched: bool,
}

impl Tally {
    pub(crate) fn new(hits: Arc<Hits>) -> Self {
        Self { hits, touched: false }
    }

    pub(crate) fn touch_connection(&mut self) {
        if !self.touched {
            self.touched = true;
            self.hits.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn touch(&mut self, len: usize) {
        self.touch_connection();
        if len > 0 {
            self.hits.bytes.fetch_add(len as u64, Ordering::Relaxed);
            self.hits.chunks.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn touch_call(&mut self) {
        self.hits.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sum of the tallies of one toxic.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    connections: AtomicU64,
    bytes: AtomicU64,
    chunks: AtomicU64,
    calls: AtomicU64,
}

impl Hits {
    pub(crate) fn read(&self) -> ToxicHit {
        ToxicHit {
            connections: self.connections.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            chunks: self.chunks.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
}
