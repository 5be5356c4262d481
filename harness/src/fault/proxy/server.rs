//! The thread of a proxy: it accepts connections, runs them, and does what it is told between two steps.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::chunk::Side;
use super::endpoint::Endpoint;
use super::{Protocol, ProxyConfig, Stats, link};
use crate::fault::toxic::chain::{Chain, Rack};
use crate::fault::toxic::{Fate, Sink, Toxic, ToxicHit, ToxicId};
use crate::timer::Timer;

/// Connections the kernel queues for us: a spike must not be thinned by the proxy.
const BACKLOG: u32 = 4096;
/// How long to wait after the kernel has refused to accept, which means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// Something that another thread wants done on the proxy's thread.
pub(super) type Order = Box<dyn FnOnce(&Shared) + Send>;

/// What the connections of a proxy share. The locks are never contended: all of it lives on the proxy's thread.
pub(crate) struct Shared {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) timer: Timer,
    pub(super) counters: Arc<Counters>,
    seed: u64,
    upstreams: Mutex<Vec<Endpoint>>,
    /// The upstream of the next connection.
    turn: AtomicUsize,
    rack: Mutex<Rack>,
    /// Changes whenever something is armed or disarmed.
    generation: AtomicU64,
    members: Mutex<HashMap<u64, Option<Waker>>>,
}

impl Shared {
    pub(super) fn new(config: &ProxyConfig, counters: Arc<Counters>) -> io::Result<Self> {
        Ok(Self {
            name: config.name.clone(),
            protocol: config.protocol,
            timer: Timer::new()?,
            counters,
            seed: config.seed,
            upstreams: Mutex::new(vec![config.upstream.clone()]),
            turn: AtomicUsize::new(0),
            rack: Mutex::default(),
            generation: AtomicU64::new(0),
            members: Mutex::default(),
        })
    }

    /// The upstreams in the order in which a new connection is to try them: whose turn it is comes first.
    pub(super) fn upstreams(&self) -> Vec<Endpoint> {
        let mut upstreams = self.upstreams.lock().unwrap().clone();
        if upstreams.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % upstreams.len();
            upstreams.rotate_left(turn);
        }
        upstreams
    }

    /// The upstreams, without making it anybody's turn.
    pub(super) fn all_upstreams(&self) -> Vec<Endpoint> {
        self.upstreams.lock().unwrap().clone()
    }

    pub(super) fn set_upstreams(&self, upstreams: Vec<Endpoint>) {
        *self.upstreams.lock().unwrap() = upstreams;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn arm(&self, toxic: &Toxic) -> ToxicId {
        let id = self.rack.lock().unwrap().arm(toxic.kind.arm(toxic.direction), toxic.direction, toxic.fraction);
        self.changed();
        id
    }

    pub(super) fn disarm(&self, id: ToxicId) -> Option<ToxicHit> {
        let hits = self.rack.lock().unwrap().disarm(id)?;
        self.changed();
        Some(hits.read())
    }

    pub(super) fn hits(&self, id: ToxicId) -> Option<ToxicHit> {
        self.rack.lock().unwrap().hits(id).map(|hits| hits.read())
    }

    /// Whether nothing at all is armed, so that nobody's delays can become late.
    pub(super) fn is_quiet(&self) -> bool {
        self.rack.lock().unwrap().is_empty()
    }

    pub(super) fn is_armed(&self, id: ToxicId) -> bool {
        self.rack.lock().unwrap().contains(id)
    }

    /// How long a new connection with these toxics is to wait.
    pub(super) fn opens_in(&self, chain: &mut Chain) -> Duration {
        chain.opens_in(&self.rack.lock().unwrap())
    }

    /// Makes a chain take up new toxics; the generation it then reflects, and the index of its first new toxic.
    pub(super) fn adopt(&self, chain: &mut Chain, connection: u64) -> (u64, usize) {
        let first_new = chain.adopt(&self.rack.lock().unwrap(), self.seed, connection);
        (self.generation(), first_new)
    }

    /// Makes a chain let go of disarmed toxics.
    pub(super) fn heal(&self, chain: &mut Chain, sink: &mut dyn Sink) -> (bool, Fate) {
        chain.heal(&self.rack.lock().unwrap(), sink)
    }

    /// Wakes every connection, which then looks at the toxics before it moves another byte.
    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        for waker in self.members.lock().unwrap().values().flatten() {
            waker.wake_by_ref();
        }
    }
}

/// A connection's entry in the books of its proxy; dropping it ends the connection's life there.
pub(crate) struct Member {
    /// The number of the connection in the order of acceptance, from 1.
    pub(super) number: u64,
    shared: Arc<Shared>,
    registered: AtomicBool,
}

impl Member {
    fn enter(shared: Arc<Shared>, number: u64) -> Self {
        shared.counters.live.fetch_add(1, Ordering::Relaxed);
        shared.members.lock().unwrap().insert(number, None);
        Self { number, shared, registered: AtomicBool::new(false) }
    }

    /// Says how to wake the connection when the toxics change. A task keeps its waker for life, so once is enough.
    pub(super) fn waker(&self, waker: &Waker) {
        if !self.registered.swap(true, Ordering::Relaxed) {
            self.shared.members.lock().unwrap().insert(self.number, Some(waker.clone()));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.members.lock().unwrap().remove(&self.number);
        self.shared.counters.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The books of a proxy. Only its own thread writes them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    live: AtomicU64,
    failed_connects: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    calls: AtomicU64,
    waited_ns: AtomicU64,
}

/// A plain addition: with one writer there is nothing that an atomic one would protect.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn failed_connect(&self) {
        add(&self.failed_connects, 1);
    }

    pub(super) fn read(&self, side: Side, bytes: usize) {
        match side {
            Side::Up => add(&self.bytes_up, bytes as u64),
            Side::Down => add(&self.bytes_down, bytes as u64),
        }
    }

    pub(super) fn calls(&self, calls: u64) {
        if calls > 0 {
            add(&self.calls, calls);
        }
    }

    pub(super) fn waited(&self, time: Duration) {
        add(&self.waited_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            accepted: read(&self.accepted),
            live: read(&self.live),
            failed_connects: read(&self.failed_connects),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
            calls: read(&self.calls),
            waited_us: read(&self.waited_ns) / 1_000,
        }
    }
}

/// Opens the listener.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Runs the proxy until the sender of orders is dropped. The connections are tasks of the same runtime and end with it.
pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, mut orders: UnboundedReceiver<Order>) {
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => order(&shared),
                None => return,
            },
            () = shared.timer.fire() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    admit(&shared, client);
                    // A storm of new connections must not make the delays of the others late.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(proxy = %shared.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn admit(shared: &Arc<Shared>, client: TcpStream) {
    add(&shared.counters.accepted, 1);
    let number = shared.counters.accepted.load(Ordering::Relaxed);
    let member = Member::enter(shared.clone(), number);
    tokio::spawn(link::serve(shared.clone(), client, member));
}
