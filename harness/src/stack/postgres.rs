//! A private Postgres cluster in a folder of the run: real, durable, and gone afterwards.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use super::host::Host;
use super::process::{Process, RunAs, Spec, drop_to};
use super::{Local, StackError};
use crate::fault::proxy::Endpoint;

/// A private cluster, reachable by a Unix socket, and from the rest of the stack by TCP if it has a host of its own.
#[derive(Debug)]
pub struct Postgres {
    /// Its processes.
    pub process: Arc<Process>,
    socket_folder: PathBuf,
    network: Option<SocketAddr>,
}

/// The port that names the socket file. Nothing listens on TCP but on a host of its own.
pub const PORT: u16 = 5432;

impl Postgres {
    /// Makes a cluster below `folder` with the programs of `bin`. Nothing is started yet.
    ///
    /// # Errors
    /// `initdb` failed; the message has what it said.
    pub fn create(bin: &Path, folder: &Path, logs: &Path, run_as: Option<RunAs>) -> Result<Postgres, StackError> {
        let data = folder.join("postgres");
        let socket_folder = folder.join("pg");
        for path in [&data, &socket_folder] {
            std::fs::create_dir_all(path).map_err(|e| StackError::io(format!("cannot make {}", path.display()), e))?;
            if let Some(user) = run_as {
                std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                    .map_err(|e| StackError::io(format!("cannot give {} to user {}", path.display(), user.uid), e))?;
            }
        }
        initdb(bin, &data, run_as)?;
        let program = std::fs::canonicalize(bin.join("postgres"))
            .map_err(|e| StackError::io(format!("cannot find {}/postgres", bin.display()), e))?;
        let arguments = settings(&data, &socket_folder);
        let log = logs.join("postgres.log");
        let spec = Spec { role: "postgres", program, arguments, folder: data, log, run_as };
        Ok(Postgres { process: Arc::new(Process::new(spec)), socket_folder, network: None })
    }

    /// Has it run on a host of its own, where it listens on TCP. It must not be started yet.
    ///
    /// # Errors
    /// Its settings cannot be written, or somebody has a share in its process already.
    pub fn move_to(&mut self, host: &Host) -> Result<(), StackError> {
        let process = Arc::get_mut(&mut self.process);
        let process = process.ok_or_else(|| StackError::Other("postgres is in use and cannot be moved".to_owned()))?;
        let access = process.folder().join("pg_hba.conf");
        let cannot = |e| StackError::io(format!("cannot let the stack reach postgres in {}", access.display()), e);
        let mut file = OpenOptions::new().append(true).open(&access).map_err(cannot)?;
        writeln!(file, "host all all {}/32 trust", host.outside).map_err(cannot)?;
        // Of a setting that is given twice, the last counts.
        let listen = ["-c".to_owned(), format!("listen_addresses={}", host.inside)];
        process.move_to(host.namespace(), listen);
        self.network = Some(SocketAddr::from((host.inside, PORT)));
        Ok(())
    }

    /// Where the proxy finds it.
    pub fn endpoint(&self) -> Endpoint {
        self.network.map_or_else(|| Endpoint::Unix(self.socket()), Endpoint::Tcp)
    }

    /// Where its Unix socket is.
    pub fn socket(&self) -> PathBuf {
        self.socket_folder.join(format!(".s.PGSQL.{PORT}"))
    }

    /// Waits until it answers a query.
    ///
    /// # Errors
    /// It ended, or did not answer in time; the message has the end of its log.
    pub async fn ready(&self, limit: Duration) -> Result<(), StackError> {
        let end = Instant::now() + limit;
        loop {
            match self.query_one("SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    if let Some(status) = self.process.ended() {
                        let tail = self.process.log_tail();
                        return Err(StackError::Other(format!("postgres ended with {status}:\n{tail}")));
                    }
                    if Instant::now() > end {
                        let tail = self.process.log_tail();
                        return Err(StackError::Other(format!(
                            "postgres is not ready after {limit:?}: {error}\n{tail}"
                        )));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// One value as text, by a connection of its own that does not pass any proxy.
    ///
    /// # Errors
    /// It cannot be reached, or refuses the query.
    pub async fn query_one(&self, sql: &str) -> Result<String, StackError> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket_folder).port(PORT).user("postgres").dbname("postgres");
        config.connect_timeout(Duration::from_secs(2));
        let (client, connection) =
            config.connect(NoTls).await.map_err(|e| StackError::Other(format!("cannot reach postgres: {e}")))?;
        let task = tokio::spawn(connection);
        let rows = client.simple_query(sql).await;
        drop(client);
        let _ = task.await;
        let rows = rows.map_err(|e| StackError::Other(format!("`{sql}`: {e}")))?;
        rows.iter()
            .find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            })
            .ok_or_else(|| StackError::Other(format!("`{sql}` gave no row")))
    }

    /// Bytes of write-ahead log written since the cluster was made.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn wal_bytes(&self) -> Result<u64, StackError> {
        let text = self.query_one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await?;
        text.parse().map_err(|_| StackError::Other(format!("`{text}` is no position in the log")))
    }
}

impl Local for Postgres {
    fn process(&self) -> &Arc<Process> {
        &self.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(Postgres::ready(self, limit))
    }
    fn farewell(&self) -> Signal {
        // An immediate shutdown: the cluster is thrown away, so a last checkpoint would be for nobody.
        Signal::SIGQUIT
    }
    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { Postgres::wal_bytes(self).await.ok() })
    }
}

fn initdb(bin: &Path, data: &Path, run_as: Option<RunAs>) -> Result<(), StackError> {
    let mut command = Command::new(bin.join("initdb"));
    command.arg("-D").arg(data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    command.current_dir(data).stdin(Stdio::null());
    drop_to(&mut command, run_as);
    let output = command.output().map_err(|e| StackError::io(format!("cannot run {}/initdb", bin.display()), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(StackError::Other(format!("initdb failed with {}:\n{}", output.status, said.trim())))
}

/// Durable as in production: fsync and synchronous_commit are on. The rest keeps a short run undisturbed by checkpoints.
fn settings(data: &Path, sockets: &Path) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    for setting in [
        "listen_addresses=",
        &format!("unix_socket_directories={}", sockets.display()),
        &format!("port={PORT}"),
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "max_connections=200",
        "shared_buffers=256MB",
        "max_wal_size=2GB",
        "checkpoint_timeout=15min",
        "autovacuum_naptime=10s",
        "log_min_messages=warning",
        "log_min_error_statement=panic",
    ] {
        arguments.extend(["-c".to_owned(), setting.to_owned()]);
    }
    arguments
}
