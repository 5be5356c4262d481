//! A process of somebody else's shop that faults may break: only one that we started, or that the scenario names by its file or
//! its container.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptions, StartContainerOptions, StopContainerOptionsBuilder,
};

use super::hooks::{self, Environment};
use super::reachable;
use crate::fault::proxy::Endpoint;
use crate::scenario::external::ShopProcess;
use crate::stack::process::drop_to;
use crate::stack::{Component, StackError, containers};

/// How long a process may take to do its work, unless the scenario says.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one may take to be gone after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// A process of the shop.
#[derive(Debug)]
pub struct Foreign {
    role: &'static str,
    spec: ShopProcess,
    told: Environment,
    log: PathBuf,
    ready: Endpoint,
    /// Ours, where we run it in the foreground.
    child: Mutex<Option<Child>>,
    /// The first process of a container, as this machine numbers it; 0 while it does not run.
    first: AtomicI32,
    docker: Option<Docker>,
    /// Whether it did not run before the rehearsal, so that it is ours to end.
    ours: AtomicBool,
}

impl Foreign {
    /// One that is not looked at yet.
    ///
    /// # Errors
    /// There is no engine for its container.
    pub async fn new(
        role: &str,
        spec: &ShopProcess,
        told: Environment,
        logs: &Path,
        ready: Endpoint,
    ) -> Result<Foreign, StackError> {
        // A role lives as long as the process: there are as many as the scenario names.
        let role: &'static str = role.to_owned().leak();
        let docker = if spec.container.is_some() { Some(containers::engine().await?) } else { None };
        let foreign = Foreign {
            role,
            spec: spec.clone(),
            told,
            log: logs.join(format!("{role}.log")),
            ready,
            child: Mutex::new(None),
            first: AtomicI32::new(0),
            docker,
            ours: AtomicBool::new(spec.pid_file.is_none() && spec.container.is_none()),
        };
        foreign.look().await?;
        Ok(foreign)
    }

    /// Starts it if it does not run, in which case it ends with the rehearsal.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn provision(&self) -> Result<(), StackError> {
        if let Some(file) = &self.spec.pid_file {
            // Whatever it means, it is no reason to start a second one.
            pid_in(Path::new(file)).map_err(|what| self.failed(what))?;
        }
        if self.pids().is_empty() {
            self.ours.store(true, Ordering::SeqCst);
            self.start().await?;
        }
        Ok(())
    }

    fn failed(&self, what: impl std::fmt::Display) -> StackError {
        StackError::Other(format!("target.external.process.{}: {what}", self.role))
    }

    /// Asks the engine for the first process of the container.
    async fn look(&self) -> Result<(), StackError> {
        let (Some(docker), Some(name)) = (&self.docker, &self.spec.container) else { return Ok(()) };
        let found = docker.inspect_container(name, None::<InspectContainerOptions>).await;
        let state =
            found.map_err(|error| self.failed(format!("container \"{name}\": {}", containers::words(&error))))?.state;
        let pid = state.filter(|state| state.running == Some(true)).and_then(|state| state.pid).unwrap_or(0);
        self.first.store(pid as i32, Ordering::SeqCst);
        Ok(())
    }

    /// The process that all others descend from, if it runs.
    fn root(&self) -> Option<i32> {
        if self.spec.container.is_some() {
            let first = self.first.load(Ordering::SeqCst);
            return (first > 0 && procfs::process::Process::new(first).is_ok()).then_some(first);
        }
        match &self.spec.pid_file {
            Some(file) => named_by(Path::new(file)),
            None => {
                let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
                let child = child.as_mut()?;
                matches!(child.try_wait(), Ok(None)).then(|| child.id() as i32)
            }
        }
    }

    /// Waits until it and those that descended from it are gone.
    async fn gone(&self, pids: &[i32], limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let there = |pid: &i32| {
                let stat = procfs::process::Process::new(*pid).and_then(|process| process.stat());
                stat.is_ok_and(|stat| stat.state != 'Z')
            };
            if self.root().is_none() && !pids.iter().any(there) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a process of ours in the foreground: a group of its own, which dies with us.
    fn spawn(&self, command: &[String]) -> Result<Child, StackError> {
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = open.map_err(|e| StackError::io(format!("cannot write the log {}", self.log.display()), e))?;
        let out = log.try_clone().map_err(|e| StackError::io("cannot share the log", e))?;
        let mut prepared = Command::new(&command[0]);
        prepared.args(&command[1..]).envs(self.told.iter().map(|(name, value)| (name, value)));
        prepared.stdin(Stdio::null()).stdout(out).stderr(log);
        drop_to(&mut prepared, None);
        prepared.spawn().map_err(|error| self.failed(format!("`{}` cannot be started: {error}", command.join(" "))))
    }

    fn signal(&self, pids: &[i32], signal: Signal) {
        for pid in pids {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    }

    /// Asks it to end, and waits until it has.
    async fn end(&self, limit: Duration) -> Result<bool, StackError> {
        let pids = self.pids();
        match (&self.spec.stop, &self.docker, &self.spec.container) {
            (Some(command), ..) => drop(hooks::run(&self.key("stop"), command, &self.told).await?),
            (None, Some(docker), Some(name)) => {
                let options = StopContainerOptionsBuilder::new().t(limit.as_secs().max(1) as i32).build();
                let stopped = docker.stop_container(name, Some(options)).await;
                stopped.map_err(|error| self.failed(containers::words(&error)))?;
                self.look().await?;
            }
            // To all of them, as service managers do: a shell in front of the shop hands no signal on.
            _ => self.signal(&pids, Signal::SIGTERM),
        }
        Ok(self.gone(&pids, limit).await)
    }

    fn key(&self, name: &str) -> String {
        format!("target.external.process.{}.{name}", self.role)
    }
}

/// The process id that a file begins with: some write more below it, as Postgres does. None where there is no such file.
fn pid_in(file: &Path) -> Result<Option<i32>, String> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(None) };
    let first = text.lines().next().unwrap_or_default().trim();
    match first.parse() {
        Ok(pid) if pid > 1 => Ok(Some(pid)),
        _ if text.trim().is_empty() => Ok(None),
        _ => Err(format!("{} begins with `{first}`, which is no process id", file.display())),
    }
}

/// The process that a file names. One that was started after the file was written is somebody else under the same number.
fn named_by(file: &Path) -> Option<i32> {
    let pid = pid_in(file).ok()??;
    let written = std::fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
    let booted = Duration::from_secs(procfs::boot_time_secs().ok()?);
    let began = booted + Duration::from_secs_f64(stat.starttime as f64 / procfs::ticks_per_second() as f64);
    // The kernel tells its start to the second.
    (stat.state != 'Z' && began <= written + Duration::from_secs(2)).then_some(pid)
}

/// A process and all that descended from it.
fn tree(root: i32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| (stat.pid, stat.ppid))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

impl Component for Foreign {
    fn role(&self) -> &'static str {
        self.role
    }

    fn pids(&self) -> Vec<i32> {
        self.root().map(tree).unwrap_or_default()
    }

    fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.as_mut()?.try_wait() {
            Ok(Some(status)) => Some(match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => status.to_string(),
            }),
            _ => None,
        }
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async {
            if let (Some(docker), Some(name)) = (&self.docker, &self.spec.container) {
                let started = docker.start_container(name, None::<StartContainerOptions>).await;
                started.map_err(|error| self.failed(containers::words(&error)))?;
                return self.look().await;
            }
            let Some(command) = &self.spec.start else { return Ok(()) };
            if self.spec.pid_file.is_some() {
                // It goes into the background by itself.
                return hooks::run_into(&self.log, &self.key("start"), command, &self.told).await;
            }
            let child = self.spawn(command)?;
            *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
            Ok(())
        })
    }

    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move {
            let limit = self.spec.within.map_or(PATIENCE.min(limit), |within| within.0);
            let end = Instant::now() + limit;
            while reachable("target.external.process", &self.ready, Instant::now()).await.is_err()
                || self.root().is_none()
            {
                if let Some(how) = self.ended() {
                    let tail = crate::stack::process::tail_of(&self.log);
                    return Err(self.failed(format!("it ended with {how}:\n{tail}")));
                }
                if Instant::now() > end {
                    let tail = crate::stack::process::tail_of(&self.log);
                    return Err(self.failed(format!("nobody answers at {} after {limit:?}:\n{tail}", self.ready)));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async {
            let pids = self.pids();
            match (&self.spec.kill, &self.docker, &self.spec.container) {
                (Some(command), ..) => drop(hooks::run(&self.key("kill"), command, &self.told).await?),
                (None, Some(docker), Some(name)) if !pids.is_empty() => {
                    let killed = docker.kill_container(name, None::<KillContainerOptions>).await;
                    killed.map_err(|error| self.failed(containers::words(&error)))?;
                }
                (None, Some(_), _) => {}
                _ => self.signal(&pids, Signal::SIGKILL),
            }
            if !self.gone(&pids, DEATH).await {
                return Err(self.failed("it does not die"));
            }
            Ok(pids.len())
        })
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async move {
            let pids = self.pids();
            match (&self.docker, &self.spec.container) {
                (Some(docker), Some(name)) => {
                    let done =
                        if paused { docker.pause_container(name).await } else { docker.unpause_container(name).await };
                    done.map_err(|error| self.failed(containers::words(&error)))?;
                }
                _ => self.signal(&pids, if paused { Signal::SIGSTOP } else { Signal::SIGCONT }),
            }
            Ok(pids.len())
        })
    }

    fn stop(&self, limit: Duration) -> BoxFuture<'_, Result<bool, StackError>> {
        Box::pin(self.end(limit))
    }

    fn is_ours(&self) -> bool {
        self.ours.load(Ordering::SeqCst)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Whatever way a run ends, what we run in the foreground ends with it.
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            if matches!(child.try_wait(), Ok(None)) {
                self.signal(&tree(child.id() as i32), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shop whose socket answers, whoever listens there.
    async fn shop(folder: &Path, spec: ShopProcess) -> (std::os::unix::net::UnixListener, Foreign) {
        let socket = folder.join("shop.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        (listener, Foreign::new("shop", &spec, Vec::new(), folder, Endpoint::Unix(socket)).await.unwrap())
    }

    #[test]
    fn a_file_may_say_more_than_the_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postmaster.pid");
        let written = |text: &str| {
            std::fs::write(&file, text).unwrap();
            pid_in(&file)
        };
        assert_eq!(written("4711\n/var/lib/postgresql/15/main\n1700000000\n5432\n"), Ok(Some(4711)));
        assert_eq!(written("\n"), Ok(None), "it is about to be written");
        for text in ["pid 4711", "-1", "1", "0"] {
            let error = written(text).unwrap_err();
            assert!(error.contains("postmaster.pid") && error.contains("no process id"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(pid_in(&file), Ok(None));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_understood_is_no_reason_to_start_a_second_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.pid");
        std::fs::write(&file, "the shop runs as 4711").unwrap();
        let spec = ShopProcess { pid_file: Some(file.display().to_string()), ..sleeping() };
        let (_listener, shop) = shop(folder.path(), spec).await;
        let error = shop.provision().await.unwrap_err().to_string();
        assert!(error.contains("target.external.process.shop") && error.contains("the shop runs as 4711"), "{error}");
    }

    fn sleeping() -> ShopProcess {
        // A shell with a child: both are the process.
        let start = ["sh", "-c", "sleep 60 & wait"].map(str::to_owned).to_vec();
        ShopProcess { start: Some(start), ..ShopProcess::default() }
    }

    #[tokio::test]
    async fn a_process_of_ours_is_killed_with_its_descendants_and_comes_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let (_listener, shop) = shop(folder.path(), sleeping()).await;
        assert!(shop.pids().is_empty() && shop.is_ours());
        for _ in 0..2 {
            shop.start().await.unwrap();
            shop.ready(PATIENCE).await.unwrap();
            while shop.pids().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(shop.kill().await.unwrap(), 2);
            assert!(shop.pids().is_empty() && shop.ended().unwrap().contains("signal 9"));
        }
        shop.start().await.unwrap();
        assert!(shop.stop(Duration::from_secs(5)).await.unwrap());
    }

    #[tokio::test]
    async fn one_in_the_background_is_known_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid").display().to_string();
        // It keeps what it was started with open, as many do.
        let start = ["sh", "-c", &format!("sleep 60 & echo $! > {file}")].map(str::to_owned).to_vec();
        let spec = ShopProcess { start: Some(start), pid_file: Some(file), ..ShopProcess::default() };
        let (_listener, shop) = shop(folder.path(), spec.clone()).await;
        shop.provision().await.unwrap();
        shop.ready(PATIENCE).await.unwrap();
        assert_eq!((shop.pids().len(), shop.is_ours()), (1, true));
        let again = Foreign::new("shop", &spec, Vec::new(), folder.path(), shop.ready.clone()).await.unwrap();
        again.provision().await.unwrap();
        assert!(!again.is_ours() && again.pids() == shop.pids(), "one that runs already is left to its owner");
        assert_eq!(shop.kill().await.unwrap(), 1);
        assert!(again.pids().is_empty());
    }

    #[tokio::test]
    async fn one_that_fails_says_so_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let start = ["sh", "-c", "echo no port >&2; exit 4"].map(str::to_owned).to_vec();
        let (_listener, shop) = shop(folder.path(), ShopProcess { start: Some(start), ..ShopProcess::default() }).await;
        shop.start().await.unwrap();
        // Somebody answers at its address all the time, as if it had been faster than its end.
        while shop.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = shop.ready(PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("process.shop: it ended with exit status: 4") && error.contains("no port"), "{error}");
    }

    #[test]
    fn a_file_names_only_who_was_there_when_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        assert_eq!(named_by(&file), None);
        std::fs::write(&file, std::process::id().to_string()).unwrap();
        assert_eq!(named_by(&file), Some(std::process::id() as i32));
        let old = std::time::SystemTime::now() - Duration::from_secs(3_600 * 24 * 365);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert_eq!(named_by(&file), None, "it was written before this process was there");
        std::fs::write(&file, "1").unwrap();
        assert_eq!(named_by(&file), None);
    }
}
