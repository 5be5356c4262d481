//! The processes of a stack: start, watch, kill, pause, and start again on the same data.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};

use super::StackError;
use super::guard::processes_in;

/// The user that a process runs as, where that is not the harness's own.
#[derive(Debug, Clone, Copy)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `service`, `postgres`, ...
    pub role: &'static str,
    /// The program, with symbolic links resolved.
    pub program: PathBuf,
    /// The name that it is called by, where it tells by that what it is to do.
    pub called: Option<String>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The folder it works in. It has one of its own, by which its descendants are known.
    pub folder: PathBuf,
    /// Where its stderr goes, appended.
    pub log: PathBuf,
    /// The user it runs as.
    pub run_as: Option<RunAs>,
}

/// A process of the stack, with its descendants.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    /// The network namespace that it runs in, if not in the harness's own.
    namespace: Option<PathBuf>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// A process that is not yet started.
    pub fn new(spec: Spec) -> Process {
        Process { spec, namespace: None, child: Mutex::new(None) }
    }

    /// Has it run in a network namespace from its next start on, with further arguments.
    pub fn move_to(&mut self, namespace: PathBuf, arguments: impl IntoIterator<Item = String>) {
        self.namespace = Some(namespace);
        self.spec.arguments.extend(arguments);
    }

    /// The folder that it works in.
    pub fn folder(&self) -> &Path {
        &self.spec.folder
    }

    /// Its role.
    pub fn role(&self) -> &'static str {
        self.spec.role
    }

    /// The user it runs as, where that is not the harness's own.
    pub fn run_as(&self) -> Option<RunAs> {
        self.spec.run_as
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// Starts it. The kernel kills it when the **thread** that called this ends, whatever else happens.
    ///
    /// So this is for the main thread and for tasks, which run on the runtime's workers: both live as long as the
    /// runtime. It must never be called on the blocking pool, whose threads end when they have had nothing to do for
    /// some seconds, and would take the process with them.
    ///
    /// # Errors
    /// The program cannot be started, or its log cannot be written.
    pub fn start(&self) -> Result<(), StackError> {
        let spec = &self.spec;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(|e| StackError::io(format!("cannot write the log {}", spec.log.display()), e))?;
        let out = log.try_clone().map_err(|e| StackError::io("cannot share the log", e))?;
        let mut command = Command::new(&spec.program);
        if let Some(name) = &spec.called {
            command.arg0(name);
        }
        command.args(&spec.arguments).current_dir(&spec.folder);
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        if let Some(namespace) = &self.namespace {
            enter(&mut command, namespace)?;
        }
        drop_to(&mut command, spec.run_as);
        let child = command
            .spawn()
            .map_err(|e| StackError::io(format!("cannot start {} ({})", spec.role, spec.program.display()), e))?;
        *self.child.lock().unwrap_or_else(|e| e.into_inner()) = Some(child);
        Ok(())
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        match child.as_mut()?.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            _ => None,
        }
    }

    /// It and its descendants.
    pub fn pids(&self) -> Vec<i32> {
        processes_in(&self.spec.folder, std::slice::from_ref(&self.spec.program))
    }

    /// Sends a signal to it and all its descendants; returns how many there were.
    pub fn signal_all(&self, signal: Signal) -> usize {
        let pids = self.pids();
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        pids.len()
    }

    /// Kills it and all its descendants with SIGKILL, and waits until they are gone; returns how many there were.
    ///
    /// A database whose postmaster alone is killed leaves its backends to finish what they do, and refuses to start
    /// while they live: a power cut takes all of them at once, and that is what is rehearsed.
    ///
    /// # Errors
    /// Something is still there after five seconds.
    pub fn kill_all(&self) -> Result<usize, StackError> {
        let mut hit = 0;
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let count = self.signal_all(Signal::SIGKILL);
            hit = hit.max(count);
            // A process on its way out loses its folder before it is gone; a database that is started again in between
            // finds its predecessor alive, and refuses. Only a child that was waited for is gone.
            if self.reap() && count == 0 {
                return Ok(hit);
            }
            if Instant::now() > end {
                return Err(StackError::Other(format!("{} does not die: {count} processes are left", self.spec.role)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to end (SIGTERM, or what the role understands as a fast stop) and waits.
    pub fn stop(&self, signal: Signal, limit: Duration) -> bool {
        let pid = self.child.lock().unwrap_or_else(|e| e.into_inner()).as_ref().map(|c| c.id() as i32);
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if self.reap() && self.pids().is_empty() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether the process that was started last is gone, and nothing of it is left in the kernel's table.
    fn reap(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The end of its log, for an error message.
    pub fn log_tail(&self) -> String {
        tail_of(&self.spec.log)
    }
}

/// The end of a log, for an error message.
pub fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Lets a command run in a network namespace. This comes before a change of user, who might not enter.
fn enter(command: &mut Command, namespace: &Path) -> Result<(), StackError> {
    let cannot = |e| StackError::io(format!("cannot open the network namespace {}", namespace.display()), e);
    let file = std::fs::File::open(namespace).map_err(cannot)?;
    // SAFETY: setns is a single system call, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let entered = nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET);
            entered.map_err(std::io::Error::from)
        });
    }
    Ok(())
}

/// Lets a command run as another user, and die with the thread that started it.
pub fn drop_to(command: &mut Command, run_as: Option<RunAs>) {
    let parent = std::process::id();
    // SAFETY: all calls are async-signal-safe, and nothing is allocated between fork and exec. The parent-death signal is
    // set last, since a change of user clears it.
    unsafe {
        command.pre_exec(move || {
            if let Some(user) = run_as {
                nix::unistd::setgroups(&[Gid::from_raw(user.gid)])?;
                nix::unistd::setgid(Gid::from_raw(user.gid))?;
                nix::unistd::setuid(Uid::from_raw(user.uid))?;
            }
            // A group of its own keeps the terminal's Ctrl-C away: the harness decides when it ends.
            nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // A harness that was killed before that line sends nothing any more, and its guard may have looked already.
            if nix::unistd::getppid().as_raw().unsigned_abs() != parent {
                return Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        });
    }
}
