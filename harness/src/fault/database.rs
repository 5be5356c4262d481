//! What faults of a database have in common: which one it is, and sessions of the harness's own on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use crate::scenario::About;
use crate::stack::database::{Database, OWN_NAME, Session};
use crate::stack::{Stack, StackError};

/// How long a fault waits for a database that something else has down, before it cannot be healed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The database that a fault is done to, where a scenario does not say otherwise.
pub(super) fn postgres() -> Spanned<String> {
    Spanned::new(0..0, "postgres".to_owned())
}

/// The role has to be a database that the harness has started.
pub(super) fn check_role(role: &Spanned<String>, about: &mut About<'_>) {
    let known = about.scenario().databases();
    if about.scenario().roles().contains(&role.get_ref().as_str()) && !known.contains(&role.get_ref().as_str()) {
        let what = format!("\"{}\" is no Postgres", role.get_ref());
        return about.wrong(role.span(), what, format!("the databases of this stack are {}", known.join(", ")));
    }
    about.role(role);
}

/// A session on the database of a role, also where another fault has it down for a moment.
pub(super) async fn session(stack: &Stack, role: &str) -> Result<Session, StackError> {
    database(stack, role)?.connect_within(PATIENCE).await
}

/// The database of a role.
pub(super) fn database(stack: &Stack, role: &str) -> Result<Database, StackError> {
    let found = stack.component(role)?.database();
    found.ok_or_else(|| StackError::Other(format!("`{role}` is no Postgres that the harness could ask")))
}

/// Which of `pg_stat_activity` are sessions of the service, or of whoever else is not the harness.
pub(super) fn theirs() -> String {
    format!("backend_type = 'client backend' AND application_name <> '{OWN_NAME}'")
}

/// Something that goes on until a fault is healed, and ends with it in any case.
#[derive(Debug)]
pub(super) struct Background<T> {
    task: JoinHandle<T>,
    stop: CancellationToken,
    came_to: Option<T>,
}

impl<T: Copy + Send + 'static> Background<T> {
    /// Starts what `work` makes; it is to end soon after its token is cancelled.
    pub(super) fn start<F>(stack: &Arc<Stack>, work: impl FnOnce(Arc<Stack>, CancellationToken) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(stack.clone(), stop.clone()));
        Background { task, stop, came_to: None }
    }

    /// Asks it to end, and waits until it has; what it came to. May be asked again.
    pub(super) async fn stop(&mut self) -> Result<T, StackError> {
        if let Some(known) = self.came_to {
            return Ok(known);
        }
        self.stop.cancel();
        let ended = (&mut self.task).await;
        let came_to = ended.map_err(|error| StackError::Other(format!("the fault's own task failed: {error}")))?;
        self.came_to = Some(came_to);
        Ok(came_to)
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
