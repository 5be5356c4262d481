//! A private Redis in a folder of the run: it keeps what it knows on disk as far as it is told to, and is gone afterwards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::process::{Process, Spec};
use super::{Local, StackError};
use crate::doctor::RedisProgram;
use crate::fault::proxy::Endpoint;
use crate::scenario::Aof;
use crate::scenario::topology::{REDIS, REDIS_REPLICA};

/// A private Redis, reachable only by a Unix socket.
#[derive(Debug)]
pub struct Redis {
    process: Arc<Process>,
    cache: Cache,
}

/// How to reach a Redis directly, past every proxy.
#[derive(Debug, Clone)]
pub struct Cache {
    socket: PathBuf,
}

/// It answers at once, or is in trouble.
const ANSWER: Duration = Duration::from_secs(2);

impl Redis {
    /// Sets one up below `folder`, as the replica of the one at that address if there is one. Nothing is started yet.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn create(
        program: &RedisProgram,
        folder: &Path,
        logs: &Path,
        aof: Aof,
        follows: Option<SocketAddr>,
    ) -> Result<Redis, StackError> {
        let role = if follows.is_some() { REDIS_REPLICA } else { REDIS };
        let folder = folder.join(role);
        std::fs::create_dir(&folder).map_err(|e| StackError::io(format!("cannot make {}", folder.display()), e))?;
        let socket = folder.join("redis.sock");
        let (appends, fsync) = match aof {
            Aof::Always => ("yes", "always"),
            Aof::Everysec => ("yes", "everysec"),
            Aof::No => ("yes", "no"),
            Aof::Off => ("no", "no"),
        };
        let settings: [(&str, &str); 11] = [
            ("--port", "0"),
            ("--unixsocket", &socket.display().to_string()),
            ("--unixsocketperm", "700"),
            ("--dir", &folder.display().to_string()),
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
        let spec = Spec {
            role,
            program: program.path.clone(),
            called: Some(program.called.clone()),
            arguments,
            folder,
            log: logs.join(format!("{role}.log")),
            run_as: None,
        };
        Ok(Redis { process: Arc::new(Process::new(spec)), cache: Cache { socket } })
    }

    /// Where its Unix socket is.
    pub fn socket(&self) -> &Path {
        &self.cache.socket
    }
}

impl Redis {
    /// Waits until it has a copy of the one that it follows.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn follows(&self, limit: Duration) -> Result<(), StackError> {
        let end = Instant::now() + limit;
        while !self.cache.ask::<String>(&["INFO", "replication"]).await?.contains("master_link_status:up") {
            if Instant::now() > end {
                let (role, tail) = (self.process.role(), self.process.log_tail());
                return Err(StackError::Other(format!("{role} does not follow after {limit:?}:\n{tail}")));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        Ok(())
    }
}

impl Cache {
    /// Where it listens, for a proxy that is to lead there.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket.clone())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(&self) -> Result<MultiplexedConnection, StackError> {
        let failed = |e: redis::RedisError| StackError::Other(format!("cannot reach redis: {e}"));
        let client = Client::open(format!("redis+unix://{}", self.socket.display())).map_err(failed)?;
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
