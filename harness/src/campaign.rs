//! Many rehearsals, one after the other or side by side.
//!
//! Each is a process of its own (`seckill run`), so that they share nothing but the machine: the load generator's threads
//! and the memory of one cannot disturb the next, and one that crashes takes no other with it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::Verdict;
use crate::summary::Summary;

/// A rehearsal that is to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// What it belongs to, as the caller counts.
    pub of: usize,
    /// The scenario file.
    pub scenario: PathBuf,
    /// Its variant, if it has any.
    pub variant: Option<String>,
    /// The seed.
    pub seed: u64,
    /// Overrides: `path=value`.
    pub set: Vec<String>,
    /// The run folder.
    pub folder: PathBuf,
}

/// What a rehearsal came to.
#[derive(Debug)]
pub struct Ended {
    /// The rehearsal.
    pub job: Job,
    /// How long it took, from the start of its process to its end.
    pub took: Duration,
    /// How often it was made again because it had come to unknown.
    pub repeated: u64,
    /// Its summary, or why there is none.
    pub result: Result<Summary, String>,
}

/// How a campaign goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Rehearsals at once.
    pub at_once: usize,
    /// How often one is made again that came to unknown: that says something of the machine, and nothing of the service.
    pub repeats: u64,
    /// A rehearsal that takes longer is broken itself.
    pub longest: Duration,
}

/// Works through the jobs in their order; what they came to arrives in the channel, which closes after the last. When
/// `cancel` is cancelled, those under way end in order, and nothing more arrives.
pub fn start(jobs: Vec<Job>, manner: Manner, cancel: &CancellationToken) -> UnboundedReceiver<Ended> {
    let (send, receive) = unbounded_channel();
    let jobs = Arc::new(Mutex::new(VecDeque::from(jobs)));
    let cancel = cancel.clone();
    tokio::spawn(async move {
        let mut workers = JoinSet::new();
        for _ in 0..manner.at_once.max(1) {
            let (jobs, cancel, send) = (jobs.clone(), cancel.clone(), send.clone());
            workers.spawn(async move {
                while !cancel.is_cancelled() {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(job) = next else { return };
                    let ended = until_known(job, manner, &cancel).await;
                    if cancel.is_cancelled() || send.send(ended).is_err() {
                        return;
                    }
                }
            });
        }
        workers.join_all().await;
    });
    receive
}

async fn until_known(job: Job, manner: Manner, cancel: &CancellationToken) -> Ended {
    let mut repeated = 0;
    loop {
        let started = Instant::now();
        let result = rehearse(&job, manner.longest, cancel).await;
        let unknown = result.as_ref().is_ok_and(|summary| summary.verdict == Verdict::Unknown);
        if !unknown || repeated == manner.repeats || cancel.is_cancelled() {
            return Ended { job, took: started.elapsed(), repeated, result };
        }
        let _ = std::fs::remove_dir_all(&job.folder);
        repeated += 1;
    }
}

/// One rehearsal in a process of its own.
async fn rehearse(job: &Job, longest: Duration, cancel: &CancellationToken) -> Result<Summary, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let mut command = tokio::process::Command::new(program);
    command.arg("run").arg(&job.scenario).args(["--quiet", "--output", "json"]);
    command.arg("--seed").arg(job.seed.to_string()).arg("--out").arg(&job.folder);
    if let Some(variant) = &job.variant {
        command.args(["--variant", variant]);
    }
    for set in &job.set {
        command.args(["--set", set]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("cannot start the run: {error}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let mut output = std::pin::pin!(tokio::time::timeout(longest, child.wait_with_output()));
    let output = tokio::select! {
        output = &mut output => output,
        () = cancel.cancelled() => {
            // It heals its faults and takes its stack down before it ends.
            if let Some(pid) = pid {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            output.await
        }
    };
    let output = output.map_err(|_| format!("it did not end within {longest:?}"))?.map_err(|e| e.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        format!("no summary, {}: {last}", output.status)
    })
}
