//! What the harness needs to measure itself, for `seckill bench` and `seckill calibrate`: the real load path without a
//! stack, servers and other clients as processes of their own, and each of them on its processor.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::history::HistoryError;
use crate::history::recorder::replace_json;
use crate::load::driver::LoadError;
use crate::scenario::ScenarioError;

pub mod clients;
pub mod cores;
pub mod drive;
pub mod serve;

use cores::Cores;

/// What a measurement has to work with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The runtime that waits for the load to end.
    pub runtime: &'a tokio::runtime::Runtime,
    /// Whether somebody wants it to end.
    pub cancel: &'a CancellationToken,
    /// Which processor runs what.
    pub cores: Cores,
    /// A private folder, removed at the end.
    pub folder: PathBuf,
    name: &'static str,
    folders: AtomicU64,
}

impl<'a> Context<'a> {
    /// The same for every measurement of the command `name`.
    ///
    /// # Errors
    /// The private folder cannot be made.
    pub fn new(
        name: &'static str,
        runtime: &'a tokio::runtime::Runtime,
        cancel: &'a CancellationToken,
    ) -> Result<Context<'a>, Unmeasured> {
        let folder = std::env::temp_dir().join(format!("seckill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| {
            Unmeasured::Failed(format!(
                "cannot make {}: {error}\nhelp: set TMPDIR to a folder with room",
                folder.display()
            ))
        })?;
        Ok(Context { runtime, cancel, cores: Cores::choose(), folder, name, folders: AtomicU64::new(0) })
    }

    /// Tells how it is getting on, on stderr.
    pub fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.name);
    }

    /// A new folder for one run.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn fresh_folder(&self) -> std::io::Result<PathBuf> {
        let folder = self.folder.join(format!("run-{}", self.folders.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// Somebody wants it to end.
    pub fn goes_on(&self) -> Result<(), Unmeasured> {
        if self.cancel.is_cancelled() { Err(Unmeasured::Interrupted) } else { Ok(()) }
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Unmeasured {
    /// Something is not on this machine.
    #[error("{0}")]
    Missing(String),
    /// The measurement went wrong.
    #[error("{0}")]
    Failed(String),
    /// Somebody wanted it to end.
    #[error("interrupted")]
    Interrupted,
    /// The system refused something.
    #[error("the system refused something: {0}")]
    Io(#[from] std::io::Error),
    /// The load could not be driven.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The history could not be written or read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The scenario of the measurement was refused.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// A measurement that was not made.
#[derive(Debug, Clone, Serialize)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Why, and what to do about it.
    pub why: String,
}

/// Memory of this process, in bytes; 0 where the system does not tell.
pub fn rss_bytes() -> u64 {
    let status = procfs::process::Process::myself().and_then(|me| me.status());
    status.ok().and_then(|status| status.vmrss).unwrap_or(0) * 1024
}

/// Processor seconds that this process has used, user and system together.
pub fn process_cpu_s() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0.0, |t| t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}

/// Writes a report down as JSON and prints it, as JSON or as `text` makes it. Returns the exit code: that of the
/// measurement, unless the report could not be kept.
pub fn publish<R: Serialize>(path: &str, report: &R, text: Option<fn(&R) -> String>, code: i32) -> i32 {
    publish_of(path, report, report, text, code)
}

/// The same where what is kept in the file is more than what was found this time.
pub fn publish_of<R: Serialize>(
    path: &str,
    kept: &impl Serialize,
    report: &R,
    text: Option<fn(&R) -> String>,
    code: i32,
) -> i32 {
    if let Err(error) = keep(Path::new(path), kept) {
        eprintln!("error: cannot write {path}: {error}");
        return exit::INTERNAL;
    }
    match text {
        None => println!("{}", serde_json::to_string_pretty(report).unwrap_or_default()),
        Some(text) => println!("{}\nwritten to {path}", text(report)),
    }
    code
}

fn keep(path: &Path, report: &impl Serialize) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    replace_json(path, report)
}
