//! A TCP proxy that stands on one link of the stack, counts what passes, and can be poisoned.
//!
//! This module owns the proxy's life: its thread, its address, its books, and the arming of toxics. What a toxic does is
//! [`super::toxic`]'s business; when one is armed is the nemesis's.
//!
//! Each proxy has a thread of its own with a single-threaded runtime, so that its processor time can be told from that of
//! the roles around it, and so that proxies do not make each other late. Everything a connection touches belongs to that
//! thread; other threads talk to it by sending orders, which it carries out between two steps of its connections.
//!
//! What the proxy adds to a connection's semantics is meant to be nothing: half-closes are passed on, a reset on one side
//! becomes a reset on the other, and a client whose upstream cannot be reached is reset. The one thing it cannot imitate
//! is a refused connection: its listener has accepted before it can know.

pub(crate) mod chunk;
mod copy;
pub mod endpoint;
mod http;
pub(crate) mod lane;
mod link;
mod postgres;
mod redis;
mod server;
mod stream;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use endpoint::{Endpoint, EndpointError};

use self::server::{Counters, Order, Shared};
use super::toxic::{Toxic, ToxicHit, ToxicId};

/// How often the runtime looks at its sockets and the timer, in tasks: delays must not wait behind many connections.
const EVENT_INTERVAL: u32 = 16;

/// The number of the next proxy of this process, for the names of threads.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What the bytes on a link mean, as far as the proxy cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.x: a call is a request, counted when its head is complete.
    Http,
    /// The Postgres protocol: a call is an `Execute` or a simple `Query`.
    Postgres,
    /// The Redis protocol: a call is a command.
    Redis,
    /// Anything else: nothing is counted as a call.
    #[default]
    Opaque,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Postgres => "Postgres",
            Self::Redis => "Redis",
            Self::Opaque => "a protocol that is not read",
        })
    }
}

/// What a proxy needs to know.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The name of the link, such as `service→postgres`.
    pub name: String,
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where to forward to. Nothing needs to listen there yet.
    pub upstream: Endpoint,
    /// What the bytes mean.
    pub protocol: Protocol,
    /// Chooses the connections that a toxic strikes, and every other random number of the proxy.
    pub seed: u64,
}

/// Why a proxy does not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The listener could not be opened.
    #[error("proxy `{name}` cannot listen on {addr}: {source}; choose a free port, or 0 to let the kernel choose")]
    Listen {
        /// The proxy.
        name: String,
        /// The address asked for.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The thread, its runtime or its timer could not be made.
    #[error("proxy `{name}` cannot start: {source}")]
    Start {
        /// The proxy.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The proxy has been shut down.
    #[error("proxy `{name}` is not running any more")]
    Stopped {
        /// The proxy.
        name: String,
    },
    /// A toxic that makes no sense on this proxy.
    #[error("toxic `{toxic}` cannot be armed on proxy `{name}`: {reason}")]
    Toxic {
        /// The proxy.
        name: String,
        /// The kind of toxic.
        toxic: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// The books of a proxy since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that exist now.
    pub live: u64,
    /// Connections whose upstream could not be reached; their clients were reset.
    pub failed_connects: u64,
    /// Bytes read from clients, whether or not a toxic let them through.
    pub bytes_up: u64,
    /// Bytes read from the upstream, whether or not a toxic let them through.
    pub bytes_down: u64,
    /// Calls seen from clients; see [`Protocol`] for what counts.
    pub calls: u64,
    /// Microseconds that clients waited for the upstream, over all connections: from a call's arrival here until the last of
    /// its answer was read from the upstream. What toxics add on the way back is not in it.
    pub waited_us: u64,
}

/// A running proxy. Dropping it shuts it down.
#[derive(Debug)]
pub struct Proxy {
    name: String,
    protocol: Protocol,
    listen_addr: SocketAddr,
    thread_id: u32,
    counters: Arc<Counters>,
    orders: Mutex<Option<UnboundedSender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Opens the listener and starts the thread. The proxy accepts connections when this returns.
    pub fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        let name = config.name.clone();
        let protocol = config.protocol;
        let counters = Arc::<Counters>::default();
        let (orders, received) = unbounded_channel();
        let (started, outcome) = mpsc::sync_channel(1);
        let books = counters.clone();
        let thread = thread::Builder::new()
            .name(format!("proxy-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
            .spawn(move || thread_main(&config, books, received, &started))
            .map_err(|source| ProxyError::Start { name: name.clone(), source })?;
        let (listen_addr, thread_id) =
            outcome.recv().unwrap_or_else(|_| Err(ProxyError::Stopped { name: name.clone() }))?;
        Ok(Self {
            name,
            protocol,
            listen_addr,
            thread_id,
            counters,
            orders: Mutex::new(Some(orders)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The name of the link.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the proxy takes the bytes for.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where clients connect to. It stays the same for the life of the proxy.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    /// The kernel's id of the proxy's thread, under which its processor time is booked in `/proc/self/task`.
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// The books so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Where connections that are accepted now are sent, in no particular order.
    pub fn upstreams(&self) -> Result<Vec<Endpoint>, ProxyError> {
        self.order(Shared::all_upstreams)
    }

    /// Sends connections accepted from now on to another upstream; existing ones stay where they are.
    pub fn set_upstream(&self, upstream: Endpoint) -> Result<(), ProxyError> {
        self.share_among(vec![upstream])
    }

    /// Deals connections accepted from now on out to several upstreams in turns. One that cannot be reached is passed over.
    pub fn share_among(&self, upstreams: Vec<Endpoint>) -> Result<(), ProxyError> {
        self.order(move |shared| shared.set_upstreams(upstreams))
    }

    /// Arms a toxic. When this returns, no connection moves another byte without it.
    pub fn arm(&self, toxic: Toxic) -> Result<ToxicId, ProxyError> {
        self.validate(&toxic)?;
        self.order(move |shared| shared.arm(&toxic))
    }

    /// Disarms a toxic and says what it has hit; `None` if no such toxic is armed. What it held back is released, in order,
    /// right after this returns.
    pub fn disarm(&self, id: ToxicId) -> Result<Option<ToxicHit>, ProxyError> {
        self.order(move |shared| shared.disarm(id))
    }

    /// What an armed toxic has hit so far; `None` if no such toxic is armed.
    pub fn hits(&self, id: ToxicId) -> Result<Option<ToxicHit>, ProxyError> {
        self.order(move |shared| shared.hits(id))
    }

    /// Closes the listener and all connections, and waits for the thread, which takes no longer than one step of it.
    /// Doing it again is harmless.
    pub fn shutdown(&self) {
        self.orders.lock().unwrap().take();
        let thread = self.thread.lock().unwrap().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(proxy = %self.name, "the proxy's thread had panicked");
        }
    }

    fn validate(&self, toxic: &Toxic) -> Result<(), ProxyError> {
        let armed = toxic.kind.arm(toxic.direction);
        let refuse = |reason: String| Err(ProxyError::Toxic { name: self.name.clone(), toxic: armed.name(), reason });
        if !(0.0..=1.0).contains(&toxic.fraction) {
            return refuse(format!("`fraction` is {}; it must be from 0 to 1", toxic.fraction));
        }
        match armed.needs() {
            Some(needed) if needed != self.protocol => {
                let spoken = self.protocol;
                return refuse(format!("it needs {needed}, and this proxy speaks {spoken}"));
            }
            _ => {}
        }
        armed.validate().or_else(|wrong| refuse(format!("`{}` {}; {}", wrong.key, wrong.what, wrong.help)))
    }

    /// Has something done on the proxy's thread and waits for the result.
    fn order<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Result<T, ProxyError> {
        let stopped = || ProxyError::Stopped { name: self.name.clone() };
        let (done, result) = mpsc::sync_channel(1);
        let order: Order = Box::new(move |shared| {
            // The receiver waits below for as long as this order exists.
            let _ = done.send(work(shared));
        });
        self.orders.lock().unwrap().as_ref().ok_or_else(stopped)?.send(order).map_err(|_| stopped())?;
        result.recv().map_err(|_| stopped())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// What the thread reports when it is ready: its address and id.
type Started = Result<(SocketAddr, u32), ProxyError>;

fn thread_main(
    config: &ProxyConfig,
    counters: Arc<Counters>,
    orders: UnboundedReceiver<Order>,
    started: &mpsc::SyncSender<Started>,
) {
    let failed = |source| ProxyError::Start { name: config.name.clone(), source };
    let runtime =
        match tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build() {
            Ok(runtime) => runtime,
            Err(source) => return drop(started.send(Err(failed(source)))),
        };
    runtime.block_on(async {
        match prepare(config, counters) {
            Ok((shared, listener, addr)) => {
                let id = nix::unistd::gettid().as_raw().unsigned_abs();
                drop(started.send(Ok((addr, id))));
                server::run(shared, listener, orders).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
}

fn prepare(
    config: &ProxyConfig,
    counters: Arc<Counters>,
) -> Result<(Arc<Shared>, TcpListener, SocketAddr), ProxyError> {
    let cannot_listen = |source| ProxyError::Listen { name: config.name.clone(), addr: config.listen, source };
    let listener = server::listen(config.listen).map_err(cannot_listen)?;
    let addr = listener.local_addr().map_err(cannot_listen)?;
    let shared =
        Shared::new(config, counters).map_err(|source| ProxyError::Start { name: config.name.clone(), source })?;
    Ok((Arc::new(shared), listener, addr))
}
