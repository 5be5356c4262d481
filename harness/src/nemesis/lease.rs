//! A fault in effect, let for a time.
//!
//! Whoever injects a fault gets a lease of it and not the fault. The fault itself is kept by a task of the lease's own,
//! which heals it when the time is over, when everything is to be healed, or when the lease is dropped, whichever comes
//! first. So a fault is healed in time also if the task that waits for it hangs, panics or is aborted. If the process itself
//! dies, the guard ends what was started, and what was armed in a proxy has died with the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::within;
use super::world::{Healing, World};
use crate::fault::Hit;
use crate::history::Micros;

/// How often healing is tried before it is declared failed.
const ATTEMPTS: u32 = 3;
/// How long each attempt may take: a process that is started again may need a while.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(25);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// When healing was complete, and what the fault really hit; or why it could not be healed.
pub type Healed = Result<(Micros, Hit), String>;

/// A fault in effect that is healed when its time is over. Dropping the lease heals it at once.
#[derive(Debug)]
#[must_use = "a fault is healed as soon as its lease is dropped"]
pub struct Lease {
    ended: CancellationToken,
    outcome: Option<oneshot::Receiver<Healed>>,
}

impl Lease {
    /// Takes a fault in effect, to be healed at a time of the run, or as soon as `heal_now` is cancelled. The task that keeps
    /// it is tracked, so that the end of all healing can be waited for.
    pub fn grant(
        tracker: &TaskTracker,
        world: &Arc<dyn World>,
        heal_now: &CancellationToken,
        mut fault: Box<dyn Healing>,
        expires_us: Micros,
    ) -> Lease {
        let ended = CancellationToken::new();
        let (tell, outcome) = oneshot::channel();
        let (world, heal_now, dropped) = (world.clone(), heal_now.clone(), ended.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = world.sleep_until(expires_us) => {}
                () = heal_now.cancelled() => {}
                () = dropped.cancelled() => {}
            }
            let healed = heal(&mut *fault, &*world).await.map(|hit| (world.now_us(), hit));
            if let Err(Err(error)) = tell.send(healed) {
                tracing::error!("a fault whose task has ended could not be healed: {error}");
            }
        });
        Lease { ended, outcome: Some(outcome) }
    }

    /// Waits until the fault was healed.
    ///
    /// # Errors
    /// It could not be, however often it was tried.
    pub async fn over(mut self) -> Healed {
        match self.outcome.take() {
            Some(outcome) => outcome.await.unwrap_or_else(|_| Err("the task that heals it has failed".to_owned())),
            None => Err("it was waited for before".to_owned()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Heals a fault: bounded in time, and tried again.
pub(super) async fn heal(fault: &mut dyn Healing, world: &dyn World) -> Result<Hit, String> {
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        match within(ATTEMPT_LIMIT, world, fault.heal()).await {
            Ok(hit) => return Ok(hit),
            Err(error) => last = error,
        }
        tracing::warn!("healing failed at attempt {attempt} of {ATTEMPTS}: {last}");
        world.sleep_until(world.now_us() + PAUSE.as_micros() as Micros).await;
    }
    Err(format!("{last} (tried {ATTEMPTS} times)"))
}
