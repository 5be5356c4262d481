//! What faults of processes have in common: whom they hit, what goes on while they last, and how a process comes up again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::stack::{Component, Stack, StackError};

/// How long a part may take to come up again.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Kills every component of a role; says how many processes that hit.
pub(super) async fn kill_all(stack: &Stack, role: &str) -> Result<usize, StackError> {
    let mut hit = 0;
    for component in stack.components_of(role)? {
        hit += component.kill().await?;
    }
    Ok(hit)
}

/// Starts every component of a role that is not running, and waits until all of them do their work.
pub(super) async fn all_up(stack: &Stack, role: &str) -> Result<(), StackError> {
    for component in stack.components_of(role)? {
        up_again(component).await?;
        lead_again(component, role).await?;
    }
    Ok(())
}

/// Brings every component of a role up anew, where a fault was to end it and it is not known how far that came: one that was asked
/// to end is not to do so later.
pub(super) async fn all_anew(stack: &Stack, role: &str) -> Result<(), StackError> {
    kill_all(stack, role).await?;
    all_up(stack, role).await
}

/// Tells a Redis that has taken over a role that it leads: it was started as the replica of the one that is dead, and is
/// started in the same way again.
async fn lead_again(component: &dyn Component, role: &str) -> Result<(), StackError> {
    match component.cache() {
        Some(cache) if component.role() != role => cache.ask(&["REPLICAOF", "NO", "ONE"]).await,
        _ => Ok(()),
    }
}

/// What a supervisor does: starts it until it stays up, within bounds. One that runs already is only waited for.
pub(super) async fn up_again(component: &dyn Component) -> Result<(), StackError> {
    let end = Instant::now() + PATIENCE;
    loop {
        start_if_down(component).await?;
        match component.ready(PATIENCE).await {
            Ok(()) => return Ok(()),
            Err(_) if component.ended().is_some() && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Starts a component that is not running. A second start of one that is would hide the first from its supervisor.
pub(super) async fn start_if_down(component: &dyn Component) -> Result<(), StackError> {
    if component.ended().is_some() || component.pids().is_empty() {
        // Here, and not on the blocking pool: see `Process::start`.
        component.start().await?;
    }
    Ok(())
}

/// Ends a component in order. One that does not obey is killed, as a supervisor would; false then.
pub(super) async fn farewell(component: &dyn Component, within: Duration) -> Result<bool, StackError> {
    let obeyed = component.stop(within).await?;
    if !obeyed {
        component.kill().await?;
    }
    Ok(obeyed)
}

/// What a fault goes on doing while it lasts. It is told to stop, never cut off, so that nothing is left half done; it ends,
/// too, when whoever made the fault drops it.
#[derive(Debug)]
pub(super) struct Ongoing<T> {
    stop: CancellationToken,
    task: Option<JoinHandle<Result<T, StackError>>>,
    ended: Option<T>,
}

impl<T: Send + Clone + 'static> Ongoing<T> {
    /// Starts the work. It is given the stack, and what tells it to stop.
    pub(super) fn start<W, F>(stack: &Arc<Stack>, work: W) -> Ongoing<T>
    where
        W: FnOnce(Arc<Stack>, CancellationToken) -> F,
        F: Future<Output = Result<T, StackError>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        // A task runs on one of the runtime's workers, so it may start processes.
        let task = tokio::spawn(work(stack.clone(), stop.clone()));
        Ongoing { stop, task: Some(task), ended: None }
    }

    /// Tells it to stop and waits for what it has to say. It may be asked again: if nobody waited to the end, and after it.
    pub(super) async fn stop(&mut self) -> Result<T, StackError> {
        self.stop.cancel();
        if let Some(task) = &mut self.task {
            let said = task.await;
            self.task = None;
            let said = said.unwrap_or_else(|e| Err(StackError::Other(format!("the fault's work failed: {e}"))));
            self.ended = Some(said?);
        }
        self.ended.clone().ok_or_else(|| StackError::Other("the fault's work has failed before".to_owned()))
    }
}

impl<T> Drop for Ongoing<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits; false if it is to stop before the time is over.
pub(super) async fn goes_on(stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = stop.cancelled() => false,
    }
}
