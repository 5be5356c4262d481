//! A private Postgres cluster in a folder of the run: real, durable, and gone afterwards.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;

use super::database::Database;
use super::host::Host;
use super::process::{Process, RunAs, Spec, drop_to};
use super::{Local, StackError, disk};
use crate::doctor;
use crate::fault::proxy::Endpoint;
use crate::scenario::Replication;
use crate::scenario::topology::STANDBY;
use crate::scenario::value::Size;

/// A private cluster, reachable by a Unix socket, and from the rest of the stack by TCP if it has a host of its own.
#[derive(Debug)]
pub struct Postgres {
    /// Its processes.
    pub process: Arc<Process>,
    socket_folder: PathBuf,
    network: Option<SocketAddr>,
    disk: Option<PathBuf>,
}

/// The port that names the socket file. Nothing listens on TCP but on a host of its own, or in a container.
pub const PORT: u16 = 5432;

/// Where a cluster is, and what is special about it.
#[derive(Debug)]
struct Place {
    role: &'static str,
    data: PathBuf,
    sockets: PathBuf,
    run_as: Option<RunAs>,
}

impl Place {
    fn make(&self) -> Result<(), StackError> {
        for path in [&self.data, &self.sockets] {
            std::fs::create_dir_all(path).map_err(|e| StackError::io(format!("cannot make {}", path.display()), e))?;
            self.give(path)?;
        }
        Ok(())
    }

    /// Gives a file to the user that the cluster runs as.
    fn give(&self, path: &Path) -> Result<(), StackError> {
        let Some(user) = self.run_as else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .map_err(|e| StackError::io(format!("cannot give {} to user {}", path.display(), user.uid), e))
    }

    fn cluster(self, bin: &Path, logs: &Path, disk: Option<PathBuf>, own: &[String]) -> Result<Postgres, StackError> {
        let Place { role, data, sockets, run_as } = self;
        let program = std::fs::canonicalize(bin.join("postgres"))
            .map_err(|e| StackError::io(format!("cannot find {}/postgres", bin.display()), e))?;
        let arguments = [places(&data, &sockets), settings(own), SHARED.map(str::to_owned).to_vec()].concat();
        let log = logs.join(format!("{role}.log"));
        let spec = Spec { role, program, called: None, arguments, folder: data, log, run_as };
        Ok(Postgres { process: Arc::new(Process::new(spec)), socket_folder: sockets, network: None, disk })
    }
}

impl Postgres {
    /// Makes a cluster below `folder` with the programs of `bin`, on a disk of its own if one is asked for. Nothing is
    /// started yet.
    ///
    /// # Errors
    /// `initdb` failed, and the message has what it said; or the disk cannot be had.
    pub fn create(
        bin: &Path,
        folder: &Path,
        logs: &Path,
        run_as: Option<RunAs>,
        small_disk: Option<Size>,
    ) -> Result<Postgres, StackError> {
        let disk = small_disk.map(|size| disk::make(folder, size, run_as)).transpose()?;
        // A disk has a folder of its own at its root, and `initdb` wants an empty one.
        let data = disk.as_ref().unwrap_or(&folder.to_owned()).join("postgres");
        let place = Place { role: "postgres", data, sockets: folder.join("pg"), run_as };
        place.make()?;
        initdb(bin, &place.data, run_as)?;
        drop_templates(bin, &place.data, run_as)?;
        place.cluster(bin, logs, disk, &log_sizes(small_disk))
    }

    /// Copies this cluster, which has to run, to one that follows it over the address: its standby. Nothing of it is started
    /// yet.
    ///
    /// # Errors
    /// The copy failed; the message has what was said.
    pub fn copy(&self, bin: &Path, folder: &Path, logs: &Path, primary: SocketAddr) -> Result<Postgres, StackError> {
        let run_as = self.process.run_as();
        let place = Place { role: STANDBY, data: folder.join(STANDBY), sockets: folder.join("sb"), run_as };
        place.make()?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&place.data, private)
            .map_err(|e| StackError::io(format!("cannot close {} to others", place.data.display()), e))?;
        base_backup(bin, &self.socket_folder, &place.data, run_as)?;
        let signal = place.data.join("standby.signal");
        std::fs::write(&signal, "").map_err(|e| StackError::io(format!("cannot write {}", signal.display()), e))?;
        place.give(&signal)?;
        let (host, port) = (primary.ip(), primary.port());
        let follow = format!("primary_conninfo=host={host} port={port} user=postgres application_name={STANDBY}");
        let own = ["max_wal_size=2GB".to_owned(), "wal_retrieve_retry_interval=200ms".to_owned(), follow];
        place.cluster(bin, logs, None, &own)
    }

    /// Waits until the standby follows; from then on, if it is to be synchronous, commits wait for it.
    ///
    /// # Errors
    /// It does not follow in time.
    pub async fn followed(&self, replication: Replication, limit: Duration) -> Result<(), StackError> {
        let session = self.database().connect().await?;
        let seen = match replication {
            Replication::Async => "state = 'streaming'",
            Replication::Sync => {
                let named = format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'");
                session.run(&[&named, "SELECT pg_reload_conf()"]).await?;
                "sync_state = 'sync'"
            }
        };
        let end = Instant::now() + limit;
        while session.number(&format!("SELECT count(*) FROM pg_stat_replication WHERE {seen}")).await? == 0 {
            if Instant::now() > end {
                return Err(StackError::Other(format!("the standby does not follow after {limit:?}")));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        Ok(())
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
            match self.database().value("SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    if let Some(status) = self.process.ended() {
                        let tail = self.process.log_tail();
                        let role = self.process.role();
                        return Err(StackError::Other(format!("{role} ended with {status}:\n{tail}")));
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

    /// How to ask it directly.
    pub fn database(&self) -> Database {
        Database::in_folder(&self.socket_folder, PORT)
    }

    /// Bytes of write-ahead log written since the cluster was made.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn wal_bytes(&self) -> Result<u64, StackError> {
        self.database().wal_bytes().await
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
    fn database(&self) -> Option<Database> {
        Some(Postgres::database(self))
    }
    fn disk(&self) -> Option<PathBuf> {
        self.disk.clone()
    }
}

/// Processes share memory in the data folder, which goes with the run; elsewhere, it would stay behind when they are killed.
const SHARED: [&str; 2] = ["-c", "dynamic_shared_memory_type=mmap"];

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

/// Two thirds of a new cluster's thousand files are databases to copy others from, and no other is ever made in it. Without
/// them the guard has so much less to remove, which on a busy disk is most of its time, and a standby so much less to copy.
fn drop_templates(bin: &Path, data: &Path, run_as: Option<RunAs>) -> Result<(), StackError> {
    // Between statements that -j tells apart by an empty line.
    const STATEMENTS: &str = "UPDATE pg_database SET datistemplate = false;\n\n\
        DROP DATABASE template0;\n\nDROP DATABASE template1;\n";
    let mut command = Command::new(bin.join("postgres"));
    // Nothing is at stake yet, so nothing need be on disk (-F).
    command.args(["--single", "-F", "-j"]).args(SHARED).arg("-D").arg(data).arg("postgres");
    command.current_dir(data).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    drop_to(&mut command, run_as);
    let cannot = |e| StackError::io(format!("cannot run {}/postgres --single", bin.display()), e);
    let mut child = command.spawn().map_err(cannot)?;
    // The pipe takes all of it at once, and its end is the end of the session.
    child.stdin.take().map_or(Ok(()), |mut to| to.write_all(STATEMENTS.as_bytes())).map_err(cannot)?;
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(StackError::Other(format!("postgres --single failed with {}:\n{}", output.status, said.trim())))
}

/// Copies a running cluster with all that is needed to start on it.
fn base_backup(bin: &Path, sockets: &Path, data: &Path, run_as: Option<RunAs>) -> Result<(), StackError> {
    // Some distributions have it among the programs of the client.
    let own = bin.join("pg_basebackup");
    let program = if own.exists() { own } else { doctor::on_path("pg_basebackup").unwrap_or(own) };
    let mut command = Command::new(&program);
    command.arg("-D").arg(data).arg("-h").arg(sockets).arg("-p").arg(PORT.to_string());
    command.args(["-U", "postgres", "-c", "fast", "-X", "stream", "--no-sync"]);
    command.current_dir(data).stdin(Stdio::null());
    drop_to(&mut command, run_as);
    let output = command.output().map_err(|e| StackError::io(format!("cannot run {}", program.display()), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(StackError::Other(format!("pg_basebackup failed with {}:\n{}", output.status, said.trim())))
}

/// Where the embedded one keeps its data, and how it is reached.
fn places(data: &Path, sockets: &Path) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
    let sockets = format!("unix_socket_directories={}", sockets.display());
    for setting in ["listen_addresses=".to_owned(), sockets, format!("port={PORT}")] {
        arguments.extend(["-c".to_owned(), setting]);
    }
    arguments
}

/// How much log a primary keeps, by the disk that it has to itself.
pub fn log_sizes(small_disk: Option<Size>) -> Vec<String> {
    let (most, kept) = match small_disk {
        // A quarter for the log, which leaves the rest to what the sale writes.
        Some(Size(bytes)) => (format!("max_wal_size={}MB", (bytes >> 22).max(32)), "wal_keep_size=0"),
        // What a standby that was away has to catch up with.
        None => ("max_wal_size=2GB".to_owned(), "wal_keep_size=256MB"),
    };
    vec![most, kept.to_owned(), "min_wal_size=32MB".to_owned()]
}

/// Durable as in production: fsync and synchronous_commit are on. The rest keeps a short run undisturbed by checkpoints. The
/// same wherever it runs, but for what is a cluster's `own`.
pub fn settings(own: &[String]) -> Vec<String> {
    let mut arguments = Vec::new();
    for setting in [
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "max_connections=200",
        "shared_buffers=256MB",
        "checkpoint_timeout=15min",
        "autovacuum_naptime=10s",
        "log_min_messages=warning",
        "log_min_error_statement=panic",
    ]
    .into_iter()
    .chain(own.iter().map(String::as_str))
    {
        arguments.extend(["-c".to_owned(), setting.to_owned()]);
    }
    arguments
}
