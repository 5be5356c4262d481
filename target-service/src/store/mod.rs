//! The database: connections that may die at any moment, and what a failed statement means.
//!
//! Owns the pool, the time limits and the meaning of errors. Knows nothing of HTTP.

mod error;
pub mod intents;
mod lease;
pub mod orders;
pub mod schema;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Status, TimeoutType,
};
use tokio_postgres::{Client, Config, NoTls};

pub use error::StoreError;
pub use lease::Lease;

/// How long anything may take that involves the database.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in the pool.
    pub pool_size: usize,
    /// How long a request waits for a connection.
    pub pool_wait: Duration,
    /// How long a new connection may take.
    pub connect: Duration,
    /// How long the client waits for a reply. Longer than the server's own limit, so that the server's
    /// definite answer normally arrives first.
    pub query: Duration,
    /// The server's limit on a statement.
    pub statement: Duration,
    /// The server's limit on waiting for a lock.
    pub lock: Duration,
}

/// The pool, and a way around it for what must not wait in its queue.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    config: Config,
    limits: Limits,
    suspicion: Arc<Suspicion>,
    statements: Arc<AtomicU64>,
    /// Taken by whoever asks the database only to hear whether it answers: one at a time.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// When a connection last failed. Connections that have been idle since are checked before use, because
/// whatever broke that one may have broken them silently.
struct Suspicion {
    epoch: Instant,
    since_us: AtomicU64,
    /// When the database last answered, on whatever connection.
    answered_us: AtomicU64,
}

impl Suspicion {
    fn new() -> Self {
        Self { epoch: Instant::now(), since_us: AtomicU64::new(0), answered_us: AtomicU64::new(0) }
    }

    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    fn raise(&self) {
        self.since_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn answered(&self) {
        self.answered_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn covers(&self, last_used: Instant) -> bool {
        let last_used_us = last_used.saturating_duration_since(self.epoch).as_micros() as u64;
        last_used_us < self.since_us.load(Ordering::Relaxed)
    }
}

/// A connection of its own, outside the pool. It closes when dropped.
pub struct DirectClient {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl std::ops::Deref for DirectClient {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for DirectClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for DirectClient {
    fn drop(&mut self) {
        // Without this a connection whose peer is silent would linger until the peer speaks.
        self.connection.abort();
    }
}

/// Why a database URL is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BadUrl {
    /// It cannot be parsed.
    #[error("--database-url: {0}; expected for example `host=127.0.0.1 port=5432 user=postgres dbname=seckill`")]
    Syntax(tokio_postgres::Error),
    /// The pool cannot be built.
    #[error("the connection pool cannot be built: {0}")]
    Pool(String),
}

impl Store {
    /// Builds the pool. Connects to nothing yet. `session` holds further settings for every pooled
    /// session, in the form of `-c name=value`.
    pub fn new(url: &str, limits: Limits, session: &str) -> Result<Self, BadUrl> {
        let config = configure(url, &limits).map_err(BadUrl::Syntax)?;
        let mut pooled = config.clone();
        if !session.is_empty() {
            pooled.options(format!("{} {session}", config.get_options().unwrap_or_default()));
        }
        let suspicion = Arc::new(Suspicion::new());
        let manager = Manager::from_config(pooled, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(limits.pool_size)
            .wait_timeout(Some(limits.pool_wait))
            .create_timeout(Some(limits.connect))
            .recycle_timeout(Some(RECYCLE_CHECK))
            .runtime(Runtime::Tokio1)
            .pre_recycle(check_suspects(Arc::clone(&suspicion)))
            .build()
            .map_err(|error| BadUrl::Pool(error.to_string()))?;
        Ok(Self { pool, config, limits, suspicion, statements: Arc::default(), asking: Arc::default() })
    }

    /// A connection from the pool, waiting a limited time for one.
    pub async fn lease(&self) -> Result<Lease, StoreError> {
        match self.pool.get().await {
            Ok(object) => {
                Ok(Lease::new(object, self.limits.query, Arc::clone(&self.suspicion), Arc::clone(&self.statements)))
            }
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(StoreError::PoolExhausted),
            Err(PoolError::Backend(error)) => Err(StoreError::Unreachable(error::explain(&error))),
            Err(error) => Err(StoreError::Unreachable(error.to_string())),
        }
    }

    /// A connection of its own, outside the pool.
    pub async fn connect(&self) -> Result<DirectClient, StoreError> {
        let connecting = tokio::time::timeout(self.limits.connect, self.config.connect(NoTls));
        let (client, connection) = connecting
            .await
            .map_err(|_| StoreError::Unreachable("connecting took too long".into()))?
            .map_err(|error| StoreError::Unreachable(error::explain(&error)))?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a dedicated database connection ended");
            }
        });
        Ok(DirectClient { client, connection })
    }

    /// Waits until no statement that was given up on before this call can still take effect: the database has answered
    /// something since, so it is neither dead nor asleep, and has had as long as it gives a statement, twice, as one may be
    /// followed by its commit.
    pub async fn outlive_statements(&self) {
        let given_up = self.suspicion.now_us();
        let answered = || self.suspicion.answered_us.load(Ordering::Relaxed) > given_up;
        while !answered() {
            tokio::time::sleep(ASK_EVERY).await;
            // Whoever sells hears of it anyway.
            if !answered()
                && let Ok(_alone) = self.asking.try_lock()
                && let Ok(mut lease) = self.lease().await
            {
                let _ = lease.batch("").await;
            }
        }
        tokio::time::sleep(self.limits.statement * 2).await;
    }

    /// How many statements were sent over pooled connections since the start.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// How the pool is doing.
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    /// The time limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A suspect connection has this long to prove itself.
const RECYCLE_CHECK: Duration = Duration::from_millis(400);

/// How often a database that has stopped answering is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_millis(100);

fn check_suspects(suspicion: Arc<Suspicion>) -> Hook {
    Hook::async_fn(move |client, metrics| {
        let suspect = suspicion.covers(metrics.recycled.unwrap_or(metrics.created));
        Box::pin(async move {
            if !suspect {
                return Ok(());
            }
            // The pool has no time limit on this.
            match tokio::time::timeout(RECYCLE_CHECK, client.simple_query("")).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(HookError::Backend(error)),
                Err(_) => Err(HookError::message("a suspect connection stayed silent")),
            }
        })
    })
}

fn configure(url: &str, limits: &Limits) -> Result<Config, tokio_postgres::Error> {
    let mut config: Config = url.parse()?;
    // Every table is reached by a key, so a plan made while the tables were empty must not scan them, and
    // a plan is made once per connection.
    let settings = format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout=60000 \
         -c enable_seqscan=off -c jit=off -c plan_cache_mode=force_generic_plan",
        limits.statement.as_millis(),
        limits.lock.as_millis(),
    );
    let options = match config.get_options() {
        Some(own) => format!("{own} {settings}"),
        None => settings,
    };
    config
        .options(options)
        .connect_timeout(limits.connect)
        .tcp_user_timeout(limits.query)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    if config.get_application_name().is_none() {
        config.application_name("seckill-target");
    }
    Ok(config)
}
