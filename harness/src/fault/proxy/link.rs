//! One connection: client, upstream and the two lanes between them, as a single task.
//!
//! While no toxic strikes it, a chunk goes from one socket to the other through a pooled buffer, without allocation or
//! queue. That is as fast as `splice(2)`, which hides the bytes from the call counters: `seckill bench proxy_carried` compares
//! them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::chunk::{BUFFER, Chunk, End, Payload, Side, give_buffer, take_buffer, take_bulk_buffer};
use super::copy;
use super::lane::{Asked, Flushed, Lane, Nowhere, Outlet, Queues};
use super::server::{Member, Shared};
use super::stream::{Upstream, reset_on_close};
use super::wire::{CallEnd, ReplyEnd, Wire};
use crate::fault::toxic::chain::Chain;
use crate::fault::toxic::{Dial, Fate, Sink, ToxicId};

/// Bytes that one direction may move before other connections get their turn: a bulk transfer must not make the delays
/// of its neighbours late. Only the last chunk of a turn may go beyond, and that only while nobody is delayed.
const TURN: usize = 4 * BUFFER;

/// Serves one accepted connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, client: TcpStream, member: Member) {
    let mut chain = Chain::default();
    let generation = shared.adopt(&mut chain, member.number).0;
    wait(&shared, &mut chain, &member).await;
    let Some(upstream) = dial(&shared, &client, &mut chain, &member).await else {
        return reset_on_close(&client);
    };
    let born = Instant::now();
    let mut link = Link {
        wire: Wire::new(shared.protocol),
        client,
        upstream,
        up: Lane::new(Side::Up, born),
        down: Lane::new(Side::Down, born),
        chain,
        generation,
        ends: Vec::new(),
        call_ends: Vec::new(),
        born,
        waiting: None,
        alarm: None,
        shared,
        member,
    };
    link.wire.watch(link.chain.reads());
    if poll_fn(|cx| link.poll(cx)).await == Ending::Reset {
        reset_on_close(&link.client);
        link.upstream.reset_on_close();
    }
}

/// Waits for as long as the toxics want a new connection to wait. Those that are disarmed meanwhile count no more.
async fn wait(shared: &Shared, chain: &mut Chain, member: &Member) {
    if shared.opens_in(chain).is_zero() {
        return;
    }
    let accepted = Instant::now();
    chain.touch_waiting();
    poll_fn(|cx| {
        member.waker(cx.waker());
        let at = accepted + shared.opens_in(chain);
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        shared.timer.wake_at(at, cx.waker().clone());
        Poll::Pending
    })
    .await;
    // Nothing has been held back for a connection that does not exist yet.
    shared.heal(chain, &mut Nowhere);
}

/// Connects to the upstream, if the toxics allow it. Without a result the client is to be reset.
async fn dial(shared: &Shared, client: &TcpStream, chain: &mut Chain, member: &Member) -> Option<Upstream> {
    match chain.on_connect() {
        (Dial::Hold, Some(toxic)) => {
            hold(shared, client, chain, member, toxic).await;
            return None;
        }
        (Dial::Refuse, _) => return None,
        _ => {}
    }
    client.set_nodelay(true).ok()?;
    reach(shared).await
}

/// Connects to the upstream.
pub(super) async fn reach(shared: &Shared) -> Option<Upstream> {
    // Where several share the work, one that is down is passed over, as a balancer in front of them would.
    for endpoint in shared.upstreams() {
        match Upstream::connect(&endpoint).await {
            Ok(upstream) => return Some(upstream),
            Err(error) => {
                tracing::debug!(proxy = %shared.name, upstream = %endpoint, %error, "an upstream refused a connection");
            }
        }
    }
    shared.counters.failed_connect();
    None
}

/// Swallows what the client sends until the toxic is disarmed or the client has gone.
async fn hold(shared: &Shared, client: &TcpStream, chain: &mut Chain, member: &Member, toxic: ToxicId) {
    let mut buffer = take_buffer();
    poll_fn(|cx| {
        member.waker(cx.waker());
        if !shared.is_armed(toxic) {
            return Poll::Ready(());
        }
        loop {
            // Nothing upstream knows of this connection, so a client that leaves may go.
            if ready!(client.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match client.try_read(&mut buffer) {
                Ok(0) => return Poll::Ready(()),
                Ok(n) => chain.touch(toxic, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
    give_buffer(buffer);
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Both directions have been closed.
    Closed,
    /// By RST on both sides.
    Reset,
}

struct Link {
    wire: Wire,
    client: TcpStream,
    upstream: Upstream,
    up: Lane,
    down: Lane,
    chain: Chain,
    /// The generation of the proxy's toxics that `chain` reflects.
    generation: u64,
    /// Reused by every chunk.
    ends: Vec<ReplyEnd>,
    call_ends: Vec<CallEnd>,
    /// Stands for "now" while no toxic needs the time: reading the clock would be the dearest part of a small chunk.
    born: Instant,
    /// From when on the client waits: since its call, or since the last part of the answer. None before its first call.
    waiting: Option<Instant>,
    /// The moment for which the timer was last asked to wake the toxics.
    alarm: Option<Instant>,
    shared: Arc<Shared>,
    member: Member,
}

impl Link {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.member.waker(cx.waker());
        if self.shared.generation() != self.generation && self.resync() == Fate::Reset {
            return Poll::Ready(Ending::Reset);
        }
        if self.chain.wakes_at().is_some() && self.wake(cx) == Fate::Reset {
            return Poll::Ready(Ending::Reset);
        }
        // Replies first: if the upstream has answered and gone, its last words must not be lost to a failing write.
        for side in [Side::Down, Side::Up] {
            if self.drive(side, cx) == Fate::Reset {
                return Poll::Ready(Ending::Reset);
            }
        }
        match (self.up.over.or(self.down.over), self.up.closed && self.down.closed) {
            (Some(End::Reset), _) => Poll::Ready(Ending::Reset),
            (Some(_), _) => Poll::Ready(Ending::Closed),
            (None, true) if self.up.broken || self.down.broken => Poll::Ready(Ending::Reset),
            (None, true) => Poll::Ready(Ending::Closed),
            (None, false) => Poll::Pending,
        }
    }

    /// Lets the toxics act whose time has come, and asks the timer for the next.
    fn wake(&mut self, cx: &mut Context<'_>) -> Fate {
        let now = Instant::now();
        if self.chain.wakes_at().is_some_and(|at| at <= now) {
            let mut queues = Queues { up: &mut self.up, down: &mut self.down, reset: false };
            if self.chain.wake(now, &mut queues) == Fate::Reset || queues.reset {
                return Fate::Reset;
            }
        }
        let next = self.chain.wakes_at();
        if let Some(at) = next.filter(|_| next != self.alarm) {
            self.shared.timer.wake_at(at, cx.waker().clone());
        }
        self.alarm = next;
        Fate::Live
    }

    /// Takes up what has been armed and disarmed since the last time.
    fn resync(&mut self) -> Fate {
        let mut queues = Queues { up: &mut self.up, down: &mut self.down, reset: false };
        let (healed, fate) = self.shared.heal(&mut self.chain, &mut queues);
        if queues.reset || fate == Fate::Reset {
            return Fate::Reset;
        }
        let (generation, first_new) = self.shared.adopt(&mut self.chain, self.member.number);
        self.generation = generation;
        self.wire.watch(self.chain.reads());
        if healed {
            self.chain.replan([&mut self.up, &mut self.down], Instant::now());
        }
        self.chain.on_armed(first_new)
    }

    /// Moves bytes in one direction until there is nothing to do or other connections must have their turn.
    fn drive(&mut self, side: Side, cx: &mut Context<'_>) -> Fate {
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let mut tract = Tract {
            shared: &self.shared,
            chain: &mut self.chain,
            wire: &mut self.wire,
            ends: &mut self.ends,
            call_ends: &mut self.call_ends,
            born: self.born,
            waiting: &mut self.waiting,
        };
        match side {
            Side::Up => {
                let fate = tract.drive(&mut self.up, &mut self.down, client, upstream, cx);
                // A toxic may have given a reply by itself.
                self.down.flush(client, &self.shared.timer, cx);
                fate
            }
            Side::Down => tract.drive(&mut self.down, &mut self.up, upstream, client, cx),
        }
    }
}

/// What a chunk meets between being read and reaching its lane.
struct Tract<'a> {
    shared: &'a Arc<Shared>,
    chain: &'a mut Chain,
    wire: &'a mut Wire,
    ends: &'a mut Vec<ReplyEnd>,
    call_ends: &'a mut Vec<CallEnd>,
    born: Instant,
    waiting: &'a mut Option<Instant>,
}

impl Tract<'_> {
    fn drive<R, W>(&mut self, lane: &mut Lane, back: &mut Lane, src: &mut R, dst: &mut W, cx: &mut Context<'_>) -> Fate
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = 0;
        while moved < TURN {
            if lane.flush(dst, &self.shared.timer, cx) == Flushed::Blocked || lane.ended || lane.is_full() {
                return Fate::Live;
            }
            let bulk = lane.bulk && self.shared.is_quiet();
            let mut buffer = if bulk { take_bulk_buffer() } else { take_buffer() };
            let mut read = ReadBuf::new(&mut buffer);
            let outcome = Pin::new(&mut *src).poll_read(cx, &mut read);
            let len = read.filled().len();
            moved += len;
            let payload = Payload::prefix(buffer, len);
            match outcome {
                Poll::Pending => return Fate::Live,
                Poll::Ready(Err(_)) if self.chain.is_empty() => return Fate::Reset,
                // The toxics decide when the other side learns of it, and whether: a black hole keeps it to itself.
                Poll::Ready(Err(_)) => {
                    return self.forward([&mut *lane, &mut *back], payload, Some(End::Reset), dst, cx);
                }
                Poll::Ready(Ok(())) => lane.bulk = len >= BUFFER,
            }
            let end = payload.is_empty().then_some(End::Half);
            if self.forward([&mut *lane, &mut *back], payload, end, dst, cx) == Fate::Reset {
                return Fate::Reset;
            }
        }
        cx.waker().wake_by_ref();
        Fate::Live
    }

    /// Sends what was read, or the end of the stream, through the toxics.
    fn forward<W>(
        &mut self,
        [lane, back]: [&mut Lane; 2],
        payload: Payload,
        end: Option<End>,
        dst: &mut W,
        cx: &mut Context<'_>,
    ) -> Fate
    where
        W: AsyncWrite + Unpin,
    {
        let side = lane.side;
        self.listen(side, &payload);
        lane.ended = end.is_some();
        let now = if self.chain.is_empty() { self.born } else { Instant::now() };
        let chunk = Chunk { end, ..Chunk::new(side, payload, now) };
        let mut asked = Asked::default();
        let mut outlet = Outlet { lane, dst, cx, now, back, asked: &mut asked };
        match side {
            _ if self.chain.is_empty() => outlet.leave(chunk),
            Side::Down if self.chain.needs_replies() => self.run_by_replies(chunk, &mut outlet),
            Side::Up if self.chain.needs_calls() => self.run_by_calls(chunk, &mut outlet),
            _ => self.chain.run(chunk, &mut outlet),
        }
        // What was just queued may be the first thing the timer has to wake this connection for.
        lane.flush(dst, &self.shared.timer, cx);
        (0..asked.answered).for_each(|_| self.wire.answered());
        for (bytes, after) in asked.copies {
            tokio::spawn(copy::deliver(self.shared.clone(), bytes, after));
        }
        if asked.reset { Fate::Reset } else { Fate::Live }
    }

    fn listen(&mut self, side: Side, payload: &Payload) {
        self.shared.counters.read(side, payload.len());
        self.ends.clear();
        self.call_ends.clear();
        match side {
            Side::Up => {
                let calls = self.wire.up(payload.bytes(), self.call_ends);
                self.shared.counters.calls(calls);
                if calls > 0 {
                    *self.waiting = Some(Instant::now());
                }
            }
            Side::Down => {
                self.wire.down(payload.bytes(), self.ends);
                if let Some(since) = self.waiting {
                    let now = Instant::now();
                    self.shared.counters.waited(now - *since);
                    *since = now;
                }
            }
        }
    }

    /// Splits a chunk where calls end, so that a toxic sees at most one call in each part.
    fn run_by_calls(&mut self, mut chunk: Chunk, sink: &mut dyn Sink) {
        let mut cut = 0;
        for (end, call) in std::mem::take(self.call_ends) {
            let payload = chunk.payload.split_to(end - cut);
            cut = end;
            let part = Chunk { call: Some(call), ..Chunk::new(chunk.side, payload, chunk.arrived) };
            self.chain.run(part, sink);
        }
        if !chunk.payload.is_empty() || chunk.end.is_some() {
            chunk.call = self.wire.asking();
            self.chain.run(chunk, sink);
        }
    }

    /// Splits a chunk where replies end, so that a toxic sees at most one reply in each part.
    fn run_by_replies(&mut self, mut chunk: Chunk, sink: &mut dyn Sink) {
        if chunk.end.is_some() {
            chunk.reply = self.wire.down_end();
            return self.chain.run(chunk, sink);
        }
        let mut cut = 0;
        for (end, reply) in std::mem::take(self.ends) {
            let payload = chunk.payload.split_to(end - cut);
            cut = end;
            let part = Chunk { reply: Some(reply), ..Chunk::new(chunk.side, payload, chunk.arrived) };
            self.chain.run(part, sink);
        }
        if !chunk.payload.is_empty() {
            chunk.reply = self.wire.current();
            self.chain.run(chunk, sink);
        }
    }
}
