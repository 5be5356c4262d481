//! The toxics of one connection, in the order of their arming.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{ArmedToxic, Dial, Direction, Fate, Hits, LinkToxic, Next, Sink, Tally, ToxicId};
use crate::fault::proxy::chunk::Chunk;
use crate::fault::proxy::lane::Lane;

/// The toxics that are armed on a proxy.
#[derive(Default)]
pub(crate) struct Rack {
    armed: Vec<Armed>,
    last_id: u64,
}

struct Armed {
    id: ToxicId,
    toxic: Box<dyn ArmedToxic>,
    direction: Direction,
    fraction: f64,
    hits: Arc<Hits>,
}

impl Rack {
    pub(crate) fn arm(&mut self, toxic: Box<dyn ArmedToxic>, asked: Direction, fraction: f64) -> ToxicId {
        self.last_id += 1;
        let id = ToxicId(self.last_id);
        let direction = toxic.direction(asked);
        self.armed.push(Armed { id, toxic, direction, fraction, hits: Arc::default() });
        id
    }

    pub(crate) fn disarm(&mut self, id: ToxicId) -> Option<Arc<Hits>> {
        let at = self.armed.iter().position(|armed| armed.id == id)?;
        Some(self.armed.remove(at).hits)
    }

    pub(crate) fn hits(&self, id: ToxicId) -> Option<Arc<Hits>> {
        self.armed.iter().find(|armed| armed.id == id).map(|armed| armed.hits.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    pub(crate) fn contains(&self, id: ToxicId) -> bool {
        self.armed.iter().any(|armed| armed.id == id)
    }
}

/// A toxic on a connection that it strikes.
pub(crate) struct Struck {
    id: ToxicId,
    direction: Direction,
    toxic: Box<dyn LinkToxic>,
    tally: Tally,
}

/// The toxics that strike one connection.
#[derive(Default)]
pub(crate) struct Chain {
    struck: Vec<Struck>,
    /// The latest arming this connection knows of.
    seen: u64,
    needs_replies: bool,
    needs_calls: bool,
    /// The earliest moment at which one of them wants to act by itself.
    wakes_at: Option<Instant>,
}

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.struck.is_empty()
    }

    pub(crate) fn needs_replies(&self) -> bool {
        self.needs_replies
    }

    pub(crate) fn needs_calls(&self) -> bool {
        self.needs_calls
    }

    /// Whether one of them reads what passes.
    pub(crate) fn reads(&self) -> bool {
        self.needs_replies || self.needs_calls
    }

    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.wakes_at
    }

    /// How long a new connection is to wait before it is made, for the toxics of its own that are still armed.
    pub(crate) fn opens_in(&self, rack: &Rack) -> Duration {
        let armed = self.struck.iter().filter(|struck| rack.contains(struck.id));
        armed.map(|struck| struck.toxic.opens_in()).sum()
    }

    /// Learns anew what its toxics need.
    fn changed(&mut self) {
        self.needs_replies = self.struck.iter().any(|struck| struck.toxic.needs_replies());
        self.needs_calls = self.struck.iter().any(|struck| struck.toxic.needs_calls());
        self.wakes_at = self.struck.iter().filter_map(|struck| struck.toxic.wakes_at()).min();
    }

    /// Takes up what was armed since the last time, and returns the index of the first new toxic.
    pub(crate) fn adopt(&mut self, rack: &Rack, seed: u64, connection: u64) -> usize {
        let first_new = self.struck.len();
        for armed in rack.armed.iter().filter(|armed| armed.id.0 > self.seen) {
            let mut rng = stream(seed, armed.id, connection);
            if rng.random::<f64>() < armed.fraction {
                self.struck.push(Struck {
                    id: armed.id,
                    direction: armed.direction,
                    toxic: armed.toxic.strike(rng),
                    tally: Tally::new(armed.hits.clone()),
                });
            }
        }
        self.seen = rack.last_id;
        self.changed();
        first_new
    }

    /// Tells the toxics from `first_new` on that they were armed on an existing connection.
    pub(crate) fn on_armed(&mut self, first_new: usize) -> Fate {
        let mut fate = Fate::Live;
        for struck in &mut self.struck[first_new..] {
            if struck.toxic.on_armed() == Fate::Reset {
                struck.tally.touch_connection();
                fate = Fate::Reset;
            }
        }
        fate
    }

    /// Counts the connection as hit by those that make it wait.
    pub(crate) fn touch_waiting(&mut self) {
        for struck in self.struck.iter_mut().filter(|struck| !struck.toxic.opens_in().is_zero()) {
            struck.tally.touch_connection();
        }
    }

    /// Asks every toxic about a new connection; the first that objects decides.
    pub(crate) fn on_connect(&mut self) -> (Dial, Option<ToxicId>) {
        for struck in &mut self.struck {
            let dial = struck.toxic.on_connect();
            if dial != Dial::Proceed {
                struck.tally.touch_connection();
                return (dial, Some(struck.id));
            }
        }
        (Dial::Proceed, None)
    }

    /// Counts bytes that a toxic swallowed before there was an upstream.
    pub(crate) fn touch(&mut self, id: ToxicId, len: usize) {
        if let Some(struck) = self.struck.iter_mut().find(|struck| struck.id == id) {
            struck.tally.touch(len);
        }
    }

    /// Removes what was disarmed; whether anything was, and what that means for the connection.
    pub(crate) fn heal(&mut self, rack: &Rack, sink: &mut dyn Sink) -> (bool, Fate) {
        let (mut healed, mut fate) = (false, Fate::Live);
        let mut at = 0;
        while at < self.struck.len() {
            if rack.contains(self.struck[at].id) {
                at += 1;
                continue;
            }
            healed = true;
            let mut gone = self.struck.remove(at);
            let rest = &mut self.struck[at..];
            if gone.toxic.on_heal(&mut Next { id: gone.id, rest, sink, tally: &mut gone.tally }) == Fate::Reset {
                fate = Fate::Reset;
            }
        }
        self.changed();
        (healed, fate)
    }

    /// Lets the toxics act whose time has come.
    pub(crate) fn wake(&mut self, now: Instant, sink: &mut dyn Sink) -> Fate {
        let mut fate = Fate::Live;
        for at in 0..self.struck.len() {
            let (head, rest) = self.struck.split_at_mut(at + 1);
            let Struck { id, toxic, tally, .. } = &mut head[at];
            if toxic.wakes_at().is_some_and(|at| at <= now) {
                tally.touch_connection();
                if toxic.on_time(now, &mut Next { id: *id, rest, sink, tally }) == Fate::Reset {
                    fate = Fate::Reset;
                }
            }
        }
        self.changed();
        fate
    }

    /// Plans what the lanes hold back anew, with the toxics that are left.
    pub(crate) fn replan(&mut self, lanes: [&mut Lane; 2], now: Instant) {
        for struck in &mut self.struck {
            struck.toxic.replan(now);
        }
        for lane in lanes {
            let side = lane.side;
            lane.replan(|chunk| {
                let covering = self.struck.iter_mut().filter(|struck| struck.direction.covers(side));
                covering.fold(chunk.arrived, |due, struck| {
                    struck.toxic.delay(side, due, chunk.payload.len()) + chunk.held_by(struck.id)
                })
            });
        }
    }

    /// Sends a chunk through all toxics.
    pub(crate) fn run(&mut self, chunk: Chunk, sink: &mut dyn Sink) {
        run(&mut self.struck, sink, chunk);
    }
}

/// Sends a chunk through the first toxic that strikes its direction; that one passes it on to the rest.
pub(super) fn run(chain: &mut [Struck], sink: &mut dyn Sink, chunk: Chunk) {
    let Some(at) = chain.iter().position(|struck| struck.direction.covers(chunk.side)) else {
        return sink.leave(chunk);
    };
    let (head, rest) = chain.split_at_mut(at + 1);
    let Struck { id, toxic, tally, .. } = &mut head[at];
    toxic.on_chunk(chunk, &mut Next { id: *id, rest, sink, tally });
}

/// The random numbers of one toxic on one connection: independent of every other, and the same for the same seed.
fn stream(seed: u64, id: ToxicId, connection: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&id.0.to_le_bytes());
    key[16..24].copy_from_slice(&connection.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}
