//! A private Redis in a folder of the run: it keeps what it knows on disk as far as it is told to, and is gone afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::host::Host;
use super::process::{Process, Spec};
use super::{Local, StackError};
use crate::doctor::RedisProgram;
use crate::fault::proxy::Endpoint;
use crate::scenario::Aof;
use crate::scenario::topology::{REDIS, REDIS_REPLICA};

/// The port of a Redis on a host of its own, or in a container. Any other is reachable only by a Unix socket.
pub const PORT: u16 = 6379;

/// A private Redis, reachable by a Unix socket, and from the rest of the stack by TCP if it has a host of its own.
#[derive(Debug)]
pub struct Redis {
    process: Arc<Process>,
    cache: Cache,
    network: Option<SocketAddr>,
}

/// How to reach a Redis directly, past every proxy.
#[derive(Debug, Clone)]
pub struct Cache {
    endpoint: Endpoint,
}

/// It answers at once, or is in trouble.
const ANSWER: Duration = Duration::from_secs(2);

impl Redis {
    /// Sets one up below `folder`, as the replica of the one at that address if there is one, and on the host if there is
    /// one. Nothing is started yet.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn create(
        program: &RedisProgram,
        folder: &Path,
        logs: &Path,
        aof: Aof,
        follows: Option<SocketAddr>,
        host: Option<&Host>,
    ) -> Result<Redis, StackError> {
        let role = if follows.is_some() { REDIS_REPLICA } else { REDIS };
        let folder = folder.join(role);
        std::fs::create_dir(&folder).map_err(|e| StackError::io(format!("cannot make {}", folder.display()), e))?;
        let socket = folder.join("redis.sock");
        let mut arguments: Vec<String> = [
            ("--unixsocket", socket.display().to_string()),
            ("--unixsocketperm", "700".to_owned()),
            ("--dir", folder.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        let network = host.map(|host| SocketAddr::from((host.inside, PORT)));
        arguments.extend(listens(network));
        arguments.extend(settings(aof, follows));
        let spec = Spec {
            role,
            program: program.path.clone(),
            called: Some(program.called.clone()),
            arguments,
            folder,
            log: logs.join(format!("{role}.log")),
            run_as: None,
        };
        let mut process = Process::new(spec);
        if let Some(host) = host {
            process.move_to(host.namespace(), []);
        }
        let cache = Cache { endpoint: Endpoint::Unix(socket) };
        Ok(Redis { process: Arc::new(process), cache, network })
    }

    /// Where the proxy finds it.
    pub fn endpoint(&self) -> Endpoint {
        self.network.map_or_else(|| self.cache.endpoint(), Endpoint::Tcp)
    }

    /// How to ask it directly.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// Where it listens on TCP: at an address that nobody but the stack can reach, or nowhere.
pub fn listens(at: Option<SocketAddr>) -> Vec<String> {
    match at {
        None => ["--port", "0"].map(str::to_owned).to_vec(),
        Some(at) => {
            let (ip, port) = (at.ip().to_string(), at.port().to_string());
            ["--bind", &ip, "--port", &port, "--protected-mode", "no"].map(str::to_owned).to_vec()
        }
    }
}

/// What a Redis is told wherever it runs: what it keeps on disk, and whom it follows.
pub fn settings(aof: Aof, follows: Option<SocketAddr>) -> Vec<String> {
    let (appends, fsync) = match aof {
        Aof::Always => ("yes", "always"),
        Aof::Everysec => ("yes", "everysec"),
        Aof::No => ("yes", "no"),
        Aof::Off => ("no", "no"),
    };
    let settings = [
        ("--daemonize", "no"),
        ("--save", ""),
        ("--appendonly", appends),
        ("--appendfsync", fsync),
        // Stock that is thrown out because memory is short would be sold again.
        ("--maxmemory-policy", "noeviction"),
        // A replica is served at once, without waiting for others that might want the same copy.
        ("--repl-diskless-sync-delay", "0"),
        ("--loglevel", "warning"),
    ];
    let mut arguments: Vec<String> =
        settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect();
    if let Some(first) = follows {
        arguments.extend(["--replicaof".to_owned(), first.ip().to_string(), first.port().to_string()]);
    }
    arguments
}

impl Cache {
    /// The one that listens at this address.
    pub fn at(address: SocketAddr) -> Cache {
        Cache { endpoint: Endpoint::Tcp(address) }
    }

    /// Where it listens, for a proxy that is to lead there.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Waits until it has a copy of the one that it follows.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn follows(&self, limit: Duration) -> Result<(), StackError> {
        let end = Instant::now() + limit;
        while !self.ask::<String>(&["INFO", "replication"]).await?.contains("master_link_status:up") {
            if Instant::now() > end {
                return Err(StackError::Other(format!("the replica of redis does not follow after {limit:?}")));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        Ok(())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(&self) -> Result<MultiplexedConnection, StackError> {
        let failed = |e: redis::RedisError| StackError::Other(format!("cannot reach redis: {e}"));
        let url = match &self.endpoint {
            Endpoint::Unix(socket) => format!("redis+unix://{}", socket.display()),
            Endpoint::Tcp(address) => format!("redis://{address}"),
        };
        let client = Client::open(url).map_err(failed)?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)
    }

    /// Has one command carried out.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> Result<T, StackError> {
        let mut connection = self.connect().await?;
        let mut words = redis::Cmd::new();
        words.arg(command);
        words.query_async(&mut connection).await.map_err(|e| StackError::Other(format!("`{}`: {e}", command.join(" "))))
    }
}

impl Local for Redis {
    fn process(&self) -> &Arc<Process> {
        &self.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move {
            let end = Instant::now() + limit;
            // While it reads its log of commands it answers with an error.
            while let Err(error) = self.cache.ask::<String>(&["PING"]).await {
                if let Some(status) = self.process.ended() {
                    let tail = self.process.log_tail();
                    return Err(StackError::Other(format!("redis ended with {status}:\n{tail}")));
                }
                if Instant::now() > end {
                    return Err(StackError::Other(format!("redis is not ready after {limit:?}: {error}")));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
    }
    fn farewell(&self) -> Signal {
        Signal::SIGTERM
    }
    fn cache(&self) -> Option<Cache> {
        Some(self.cache.clone())
    }
}
