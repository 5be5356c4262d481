//! What all toxics that cut replies have in common: a reply is kept back until it is complete, and then either passed on
//! whole or dropped together with its connection.
//!
//! The client of a cut reply cannot know whether its call took effect, though it did: an indeterminate operation, made on
//! purpose.

use rand_chacha::ChaCha8Rng;

use super::pick::Picker;
use super::{LinkToxic, Next};
use crate::fault::proxy::chunk::{Chunk, Payload, ReplyPart};

/// The largest reply that is kept back whole; a larger one is passed on and not cut.
const KEPT_BYTES: usize = 1024 * 1024;

/// Decides which replies are to be cut.
pub(super) trait Judge: Send {
    /// Whether the reply under way may turn out to match, given what is known before its end.
    fn may_match(&self, reply: &ReplyPart) -> bool;

    /// Whether a complete reply matches.
    fn matches(&self, reply: &ReplyPart) -> bool;
}

pub(super) struct Cutter<J> {
    judge: J,
    picker: Picker,
    rng: ChaCha8Rng,
    kept: Vec<u8>,
    /// The reply under way is being passed on, so it is too late to cut it.
    passing: bool,
}

impl<J: Judge> Cutter<J> {
    pub(super) fn new(judge: J, picker: Picker, rng: ChaCha8Rng) -> Self {
        Self { judge, picker, rng, kept: Vec::new(), passing: false }
    }

    /// Puts what was kept back in front of a chunk.
    fn with_kept(&mut self, mut chunk: Chunk) -> Chunk {
        if !self.kept.is_empty() {
            let mut bytes = std::mem::take(&mut self.kept);
            bytes.extend_from_slice(chunk.payload.bytes());
            chunk.payload = Payload::from(bytes);
        }
        chunk
    }

    fn pass(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        if chunk.end.is_some() && !self.kept.is_empty() {
            // The end of the stream has no bytes of its own: what was kept back goes first, as a chunk of its own.
            let payload = Payload::from(std::mem::take(&mut self.kept));
            let partial = chunk.partial_reply();
            next.pass(Chunk { reply: partial, ..Chunk::new(chunk.side, payload, chunk.arrived) });
        }
        let chunk = self.with_kept(chunk);
        next.pass(chunk);
    }

    fn keep(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        if self.kept.len() + chunk.payload.len() > KEPT_BYTES {
            self.passing = true;
            return self.pass(chunk, next);
        }
        self.kept.extend_from_slice(chunk.payload.bytes());
    }
}

impl<J: Judge> LinkToxic for Cutter<J> {
    fn on_chunk(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        match &chunk.reply {
            Some(reply) if !reply.complete && !self.passing && self.judge.may_match(reply) => self.keep(chunk, next),
            Some(reply) if !reply.complete => {
                self.passing = true;
                self.pass(chunk, next);
            }
            Some(reply) => {
                let late = std::mem::take(&mut self.passing);
                if !late && self.judge.matches(reply) && self.picker.take(&mut self.rng) {
                    next.touch(self.kept.len() + chunk.payload.len());
                    next.touch_call();
                    self.kept.clear();
                    return next.reset();
                }
                self.pass(chunk, next);
            }
            None => self.pass(chunk, next),
        }
    }

    fn on_heal(&mut self, next: &mut Next<'_, '_>) -> super::Fate {
        if !self.kept.is_empty() {
            let payload = Payload::from(std::mem::take(&mut self.kept));
            next.pass(Chunk::new(crate::fault::proxy::chunk::Side::Down, payload, std::time::Instant::now()));
        }
        super::Fate::Live
    }

    fn needs_replies(&self) -> bool {
        true
    }
}
