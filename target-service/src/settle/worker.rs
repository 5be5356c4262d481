//! Finishes the payments that somebody began and did not end: a request that got no clear answer, a process that was killed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::Payments;
use super::finish;
use crate::app::App;
use crate::store::intents;

/// How often it is looked for something to do.
const EVERY: Duration = Duration::from_millis(100);
/// How long after a failure an intent is taken up again, in microseconds.
pub(super) const AGAIN_US: i64 = 300_000;
/// Intents worked on at once: enough to catch up after an outage, few enough to leave the pool to buyers.
const AT_ONCE: i64 = 8;

/// Runs until the service shuts down.
pub async fn run(app: Arc<App>, payments: Arc<Payments>) {
    let mut troubled = false;
    while !app.shutdown.is_cancelled() {
        let taken = intents::take_due(&app.store, app.clock.now_us(), AT_ONCE).await;
        let more = match taken {
            Ok(taken) => {
                let more = taken.len() as i64 == AT_ONCE;
                let failures = work_off(&app, &payments, taken).await;
                if let Some(error) = failures.first().filter(|_| !troubled) {
                    tracing::warn!(error, "payments cannot be finished at the moment");
                }
                troubled = !failures.is_empty();
                more && failures.is_empty()
            }
            Err(error) => {
                // One line per outage, not one per round.
                if !troubled {
                    tracing::warn!(%error, "unfinished payments cannot be looked for at the moment");
                }
                troubled = true;
                false
            }
        };
        if !more {
            tokio::select! {
                () = app.shutdown.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

async fn work_off(app: &Arc<App>, payments: &Arc<Payments>, taken: Vec<intents::Intent>) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for intent in taken {
        let (app, payments) = (Arc::clone(app), Arc::clone(payments));
        tasks.spawn(async move {
            let (key, now) = (intent.key.clone(), app.clock.now_us());
            let outcome = finish(&app, &payments, intent, now).await;
            match outcome {
                Ok(state) => {
                    tracing::info!(key, state = state.as_str(), "an unfinished payment was finished");
                    None
                }
                Err(error) => {
                    let _ = intents::release(&app.store, &key, app.clock.now_us() + AGAIN_US).await;
                    Some(error.to_string())
                }
            }
        });
    }
    let outcomes = tasks.join_all().await;
    outcomes.into_iter().flatten().collect()
}
