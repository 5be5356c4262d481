//! What all toxics that cut or falsify replies have in common: a reply is kept back until it is complete, and then passed on
//! whole, passed on with other bytes, or dropped together with its connection.
//!
//! The client of a cut reply cannot know whether its call took effect, though it did: an indeterminate operation, made on
//! purpose.

use rand_chacha::ChaCha8Rng;

use super::pick::Picker;
use super::{LinkToxic, Next};
use crate::fault::proxy::chunk::{Chunk, Payload, ReplyPart};

/// The largest reply that is kept back whole; a larger one is passed on and not cut.
const KEPT_BYTES: usize = 1024 * 1024;

/// What is done to a reply.
pub(super) enum Deed {
    /// Nothing.
    Spare,
    /// It never arrives.
    Cut,
    /// This arrives instead.
    Falsify(Vec<u8>),
}

/// Decides which replies something is done to, and what.
pub(super) trait Judge: Send {
    /// Whether the reply under way may turn out to match, given what is known before its end.
    fn may_match(&self, reply: &ReplyPart) -> bool;

    /// Whether a complete reply matches.
    fn matches(&self, reply: &ReplyPart) -> bool;

    /// What is done to a complete reply that was picked.
    fn deed(&self, _reply: &[u8], _rng: &mut ChaCha8Rng) -> Deed {
        Deed::Cut
    }
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
        let chunk = self.with_kept(chunk);
        if chunk.end.is_some() { self.split_end(chunk, next) } else { next.pass(chunk) }
    }

    fn strike(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        self.kept.extend_from_slice(chunk.payload.bytes());
        let whole = std::mem::take(&mut self.kept);
        let deed = self.judge.deed(&whole, &mut self.rng);
        if !matches!(deed, Deed::Spare) {
            next.touch(whole.len());
            next.touch_call();
        }
        let passed = match deed {
            Deed::Cut => return next.reset(),
            Deed::Spare => whole,
            Deed::Falsify(bytes) => bytes,
        };
        chunk.payload = Payload::from(passed);
        if chunk.end.is_some() {
            return self.split_end(chunk, next);
        }
        next.pass(chunk);
    }

    /// The end of the stream has no bytes of its own: those that stand before it go first, as a chunk of their own.
    fn split_end(&mut self, mut chunk: Chunk, next: &mut Next<'_, '_>) {
        let payload = std::mem::take(&mut chunk.payload);
        if !payload.is_empty() {
            let partial = chunk.partial_reply();
            next.pass(Chunk { reply: partial, ..Chunk::new(chunk.side, payload, chunk.arrived) });
        }
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
                if late || !self.judge.matches(reply) || !self.picker.take(&mut self.rng) {
                    return self.pass(chunk, next);
                }
                self.strike(chunk, next);
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
