//! A Postgres cluster of the test's own, on a unix socket in a folder of its own.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tempfile::TempDir;

/// A running cluster. It is killed, and its folder removed, when dropped.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    server: Option<Child>,
    settings: Vec<String>,
}

impl Postgres {
    /// Makes and starts a cluster with durable commits.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further settings, each as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if let Some(user) = other_user() {
            chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres = Self { folder, bin: find_bin(), server: None, settings };
        let output = postgres
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(postgres.data())
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        postgres.launch();
        postgres
    }

    /// The connection string.
    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.path().display())
    }

    /// The server's socket.
    pub fn socket(&self) -> String {
        format!("{}/.s.PGSQL.5432", self.folder.path().display())
    }

    /// Kills every process of the cluster at once, as a power cut would.
    pub fn kill_hard(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let postmaster = server.id();
        // Stopped first, so that it cannot react to the death of its children.
        signal(postmaster, Signal::SIGSTOP);
        for child in children_of(postmaster) {
            signal(child, Signal::SIGKILL);
        }
        signal(postmaster, Signal::SIGKILL);
        server.wait().unwrap();
    }

    /// Starts the cluster, and waits until it accepts connections.
    pub fn launch(&mut self) {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=32MB", "-c", "max_connections=100"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("log")).unwrap());
        // SAFETY: prctl is async-signal-safe. A cluster must not outlive a test that is killed.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT).map_err(Into::into));
        }
        let lock = self.data().join("postmaster.pid");
        let _ = std::fs::remove_file(lock);
        self.server = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(15);
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "Postgres did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The server says so itself, in the eighth line of its lock file.
    fn is_ready(&self) -> bool {
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        lock.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    /// A client of the test's own.
    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// What the server has logged since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The servers refuse to run as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        if let Some(user) = other_user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill_hard();
    }
}

fn signal(process: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(process as i32), signal);
}

fn children_of(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn other_user() -> Option<User> {
    if geteuid().is_root() { User::from_name("postgres").unwrap() } else { None }
}

fn find_bin() -> PathBuf {
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    debian.sort();
    let complete = |bin: &Path| bin.join("initdb").exists() && bin.join("postgres").exists();
    on_path.chain(debian.into_iter().rev()).find(|bin| complete(bin)).expect("initdb and postgres are needed")
}
