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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::fault::proxy::Protocol;
use crate::fault::proxy::chunk::{Chunk, Side};

mod bandwidth;
mod black_hole;
pub(crate) mod chain;
mod cut_reply;
mod cutter;
mod http_cut_reply;
mod latency;
mod limit_data;
mod pick;
mod refuse;
mod reset;
mod slicer;
mod slow_close;
mod timeout;

pub use cut_reply::CutPoint;
pub use http_cut_reply::RequestPattern;
pub use latency::Distribution;
pub use pick::Pick;

/// Which direction of a connection a toxic strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
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
        let direction = if matches!(kind, ToxicKind::Latency { .. }) { Direction::Down } else { Direction::Both };
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

/// What a toxic does.
#[derive(Debug, Clone, PartialEq)]
pub enum ToxicKind {
    /// Delays every chunk of the struck directions.
    Latency {
        /// The delay that the others are spread around, or, for [`Distribution::Pareto`], that they begin at.
        delay: Duration,
        /// How far they are spread; none is spread by zero, and none is negative.
        jitter: Duration,
        /// How they are spread.
        distribution: Distribution,
    },
    /// Swallows everything, the ends of streams included. New connections are accepted but, unless only `Down` is struck,
    /// never reach the upstream. When it is disarmed, the connections on which something was swallowed are reset.
    BlackHole,
    /// Swallows everything, and closes the connection on both sides so long after it was armed, or after the connection
    /// was made if that is later. When it is disarmed before, the connections on which something was swallowed are reset.
    Timeout {
        /// How long bytes are swallowed before the connection is closed.
        after: Duration,
    },
    /// Resets existing connections so long after it was armed, and new ones so long after they came.
    Reset {
        /// How long a connection works before; zero resets at once.
        after: Duration,
    },
    /// Resets new connections and leaves existing ones alone.
    Refuse,
    /// Lets each struck direction of each connection carry so many bytes per second.
    Bandwidth {
        /// The rate.
        bytes_per_second: u64,
    },
    /// Lets the end of each struck direction arrive later than its bytes.
    SlowClose {
        /// By how much.
        delay: Duration,
    },
    /// Cuts what was written at once into small pieces, with a pause between two of them.
    Slicer {
        /// The mean size of a piece in bytes.
        size: u32,
        /// The largest deviation from it, uniform on both sides; less than `size`.
        variation: u32,
        /// The least time between two pieces.
        delay: Duration,
    },
    /// Closes the connection on both sides when a struck direction has carried so many bytes since it was armed.
    LimitData {
        /// How many it still carries.
        bytes: u64,
    },
    /// Postgres only: lets a statement take effect, withholds its whole reply and resets the connection on both sides once
    /// the server has said that it is ready again. Needs [`Protocol::Postgres`].
    CutReply {
        /// Which replies.
        after: CutPoint,
        /// Which of them.
        pick: Pick,
    },
    /// HTTP only: lets a request be carried out, withholds its whole reply and resets the connection on both sides once the
    /// reply is complete. Needs [`Protocol::Http`].
    HttpCutReply {
        /// Which requests.
        request: RequestPattern,
        /// Which of them.
        pick: Pick,
    },
}

impl ToxicKind {
    /// The one place that knows all kinds.
    pub(crate) fn arm(&self, direction: Direction) -> Box<dyn ArmedToxic> {
        match self.clone() {
            Self::Latency { delay, jitter, distribution } => {
                Box::new(latency::Latency(latency::Delays { delay, jitter, distribution }))
            }
            Self::BlackHole => Box::new(black_hole::BlackHole { direction }),
            Self::Timeout { after } => Box::new(timeout::Timeout { after, direction }),
            Self::Reset { after } => Box::new(reset::Reset { after }),
            Self::Refuse => Box::new(refuse::Refuse),
            Self::Bandwidth { bytes_per_second } => Box::new(bandwidth::Bandwidth { bytes_per_second }),
            Self::SlowClose { delay } => Box::new(slow_close::SlowClose { delay }),
            Self::Slicer { size, variation, delay } => Box::new(slicer::Slicer { size, variation, delay }),
            Self::LimitData { bytes } => Box::new(limit_data::LimitData { bytes }),
            Self::CutReply { after, pick } => Box::new(cut_reply::CutReply { after, picker: pick::Picker::new(pick) }),
            Self::HttpCutReply { request, pick } => {
                Box::new(http_cut_reply::HttpCutReply { request, picker: pick::Picker::new(pick) })
            }
        }
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

/// What a toxic really hit while it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ToxicHit {
    /// Connections on which it did something.
    pub connections: u64,
    /// Bytes that it delayed, swallowed or withheld.
    pub bytes: u64,
    /// Chunks of them, as they were read.
    pub chunks: u64,
    /// Calls whose reply it cut; 0 for a toxic that does not look at calls.
    pub calls: u64,
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
}

/// Where a chunk goes after the last toxic.
pub(crate) trait Sink {
    fn leave(&mut self, chunk: Chunk);
    fn reset(&mut self);
}

/// What follows a toxic on its connection: the toxics armed after it, then the destination.
pub(crate) struct Next<'a, 's> {
    rest: &'a mut [chain::Struck],
    sink: &'a mut (dyn Sink + 's),
    tally: &'a mut Tally,
}

impl Next<'_, '_> {
    /// Passes a chunk on.
    pub(crate) fn pass(&mut self, chunk: Chunk) {
        chain::run(self.rest, self.sink, chunk);
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
