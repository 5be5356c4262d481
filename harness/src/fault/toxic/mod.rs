//! Toxics: what can be done to the connections of a proxy.
//!
//! This module owns the vocabulary (what a toxic is, whom it strikes, what it has hit) and how toxics compose; each kind
//! lives in a file of its own. A toxic has two halves: an [`ArmedToxic`], one per arming, decides what a struck
//! connection gets, and a [`LinkToxic`], one per struck connection, has hooks that the connection calls. Neither the proxy
//! nor the connection knows which kind it is dealing with.
//!
//! Toxics compose in the order of arming: a chunk that one passes on reaches the next. Which connections are struck is
//! drawn per connection from the seed of the proxy, the number of the arming and the number of the connection (in the
//! order of acceptance), so the same seed strikes the same connections.
//!
//! A toxic armed while data is already held back strikes what is read from then on. When a toxic is disarmed, what is
//! held back is planned anew with the toxics that remain, and leaves at once if none of them delays; bytes never change
//! their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::{Chunk, Payload, ReplyPart, Side};

mod bandwidth;
mod black_hole;
mod call_pattern;
pub(crate) mod chain;
mod connect_latency;
mod cut_reply;
mod cutter;
mod flapping;
mod http_body;
mod http_cut_reply;
mod http_duplicate;
mod http_status;
mod kind;
mod latency;
mod limit_data;
mod pick;
mod redis_cut_reply;
mod refuse;
mod reset;
mod slicer;
mod slow_call;
mod slow_close;
mod tally;
mod timeout;

pub use call_pattern::{CallPattern, CommandPattern, StatementPattern};
pub use cut_reply::CutPoint;
pub use flapping::Down;
pub use http_body::Garbage;
pub use http_cut_reply::RequestPattern;
pub use kind::ToxicKind;
pub use latency::Distribution;
pub use pick::Pick;
pub use tally::ToxicHit;

use tally::{Hits, Tally};

/// Which direction of a connection a toxic strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From who connects to who listens: requests.
    Up,
    /// From who listens to who connects: replies.
    Down,
    /// Both, each for itself.
    #[default]
    Both,
}

impl Direction {
    pub(crate) fn covers(self, side: Side) -> bool {
        match self {
            Self::Both => true,
            Self::Up => side == Side::Up,
            Self::Down => side == Side::Down,
        }
    }
}

/// A toxic as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Toxic {
    /// What it does.
    pub kind: ToxicKind,
    /// Which direction it strikes.
    pub direction: Direction,
    /// The fraction of connections that it strikes, from 0 to 1.
    pub fraction: f64,
}

impl Toxic {
    /// A toxic that strikes every connection, and both directions of it unless the kind has a natural one: a delay of a
    /// round trip is added once, to its reply.
    pub fn new(kind: ToxicKind) -> Self {
        let direction = match kind {
            ToxicKind::Latency { .. } => Direction::Down,
            ToxicKind::SlowCall { .. } => Direction::Up,
            _ => Direction::Both,
        };
        Self { kind, direction, fraction: 1.0 }
    }

    /// The same toxic, striking only one direction.
    pub fn direction(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    /// The same toxic, striking only a fraction of the connections.
    pub fn fraction(self, fraction: f64) -> Self {
        Self { fraction, ..self }
    }
}

/// Names an armed toxic of one proxy. Ids are given in the order of arming, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToxicId(pub(crate) u64);

impl std::fmt::Display for ToxicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A parameter that makes no sense. Parameters have the same names here and in scenario files.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) key: &'static str,
    /// What is wrong with it, to be read behind its name.
    pub(crate) what: String,
    /// What is accepted.
    pub(crate) help: String,
}

impl Wrong {
    pub(crate) fn new(key: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { key, what: what.into(), help: help.into() }
    }
}

/// Longer than any rehearsal, and short enough for every sum of times to exist.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Says so if a time is longer than anything that is meant.
fn not_too_long(key: &'static str, time: Duration) -> Result<(), Wrong> {
    if time > LONGEST {
        return Err(Wrong::new(key, format!("is {time:?}"), "a day is the most"));
    }
    Ok(())
}

/// A toxic that is armed on a proxy.
pub(crate) trait ArmedToxic: Send {
    /// The name used in messages.
    fn name(&self) -> &'static str;

    /// Says what is wrong with the parameters, if anything is.
    fn validate(&self) -> Result<(), Wrong> {
        Ok(())
    }

    /// The protocol that the proxy must speak for this toxic to make sense.
    fn needs(&self) -> Option<Protocol> {
        None
    }

    /// The direction it really strikes, given the one that was asked for.
    fn direction(&self, asked: Direction) -> Direction {
        asked
    }

    /// Makes the part of one struck connection.
    fn strike(&self, rng: ChaCha8Rng) -> Box<dyn LinkToxic>;
}

/// What to do about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dial {
    Proceed,
    /// Reset the client at once.
    Refuse,
    /// Do not connect to the upstream; swallow what the client sends until the toxic is disarmed, then reset it.
    Hold,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Live,
    Reset,
}

/// A toxic on one connection. Every hook has a default that leaves the connection alone.
pub(crate) trait LinkToxic: Send {
    /// Called for a new connection before the upstream is dialled.
    fn on_connect(&mut self) -> Dial {
        Dial::Proceed
    }

    /// How long a new connection waits before the upstream is dialled, counted from its acceptance.
    fn opens_in(&self) -> Duration {
        Duration::ZERO
    }

    /// Called for a connection that existed when the toxic was armed.
    fn on_armed(&mut self) -> Fate {
        Fate::Live
    }

    /// When a chunk that could leave at `due` may really leave. Also called again for queued chunks when another toxic is
    /// disarmed, so it must depend on nothing but its arguments and what [`replan`](Self::replan) resets.
    fn delay(&mut self, _side: Side, due: Instant, _len: usize) -> Instant {
        due
    }

    /// Called before queued chunks are planned anew.
    fn replan(&mut self, _now: Instant) {}

    /// Called for every chunk of the directions it strikes, the end of the stream included. What is not passed on is
    /// swallowed.
    fn on_chunk(&mut self, chunk: Chunk, next: &mut Next<'_, '_>) {
        next.pass(chunk);
    }

    /// The next moment at which [`on_time`](Self::on_time) is to be called.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }

    /// Called at that moment or shortly after. Whoever does not move the moment is called again.
    fn on_time(&mut self, _now: Instant, _next: &mut Next<'_, '_>) -> Fate {
        Fate::Live
    }

    /// Called when the toxic is disarmed: the moment to pass on what it kept to itself.
    fn on_heal(&mut self, _next: &mut Next<'_, '_>) -> Fate {
        Fate::Live
    }

    /// Whether chunks must come split by replies, with [`Chunk::reply`] filled in.
    fn needs_replies(&self) -> bool {
        false
    }

    /// Whether chunks must come split by calls, with [`Chunk::call`] filled in.
    fn needs_calls(&self) -> bool {
        false
    }
}

/// Where a chunk goes after the last toxic.
pub(crate) trait Sink {
    fn leave(&mut self, chunk: Chunk);
    fn reset(&mut self);
    /// The oldest call gets no reply from the upstream any more.
    fn answered(&mut self) {}
    /// These bytes are to be sent to the upstream once more, on a connection of their own.
    fn copy(&mut self, _bytes: Vec<u8>, _after: Duration) {}
}

/// What follows a toxic on its connection: the toxics armed after it, then the destination.
pub(crate) struct Next<'a, 's> {
    id: ToxicId,
    rest: &'a mut [chain::Struck],
    sink: &'a mut (dyn Sink + 's),
    tally: &'a mut Tally,
}

impl Next<'_, '_> {
    /// Passes a chunk on.
    pub(crate) fn pass(&mut self, chunk: Chunk) {
        chain::run(self.rest, self.sink, chunk);
    }

    /// Makes a chunk leave later because of the call that it is part of. The toxic's `delay` must know nothing of it.
    pub(crate) fn hold(&mut self, chunk: &mut Chunk, time: Duration) {
        chunk.due += time;
        chunk.holds.push((self.id, time));
    }

    /// Answers a call in the place of the upstream, which must not have got it; nothing else may await a reply.
    pub(crate) fn answer(&mut self, reply: Payload, texts: Vec<Arc<str>>, now: Instant) {
        self.sink.answered();
        let part = ReplyPart { complete: true, texts, ..ReplyPart::default() };
        self.pass(Chunk { reply: Some(part), ..Chunk::new(Side::Down, reply, now) });
    }

    /// Sends a copy of a call to the upstream so long from now, on a connection of its own.
    pub(crate) fn copy(&mut self, bytes: Vec<u8>, after: Duration) {
        self.sink.copy(bytes, after);
    }

    /// Resets the connection.
    pub(crate) fn reset(&mut self) {
        self.sink.reset();
    }

    /// Counts a chunk of `len` bytes as hit.
    pub(crate) fn touch(&mut self, len: usize) {
        self.tally.touch(len);
    }

    /// Counts a call as hit.
    pub(crate) fn touch_call(&mut self) {
        self.tally.touch_call();
    }
}
