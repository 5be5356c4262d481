//! The sweeper: gives back what unpaid holds have tied up, round after round, through any outage.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::switches::SwitchId;

/// Holds released in one statement. Enough to catch up quickly, few enough not to keep the hot row long.
const BATCH: i64 = 200;

/// Runs until the service shuts down.
pub async fn run(app: Arc<App>, interval: Duration) {
    let mut troubled = false;
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        app.snapshots.close_stale();
        match round(&app).await {
            Ok(()) => troubled = false,
            // One line per outage, not one per round.
            Err(error) if !troubled => {
                tracing::warn!(%error, "expired holds cannot be released at the moment");
                troubled = true;
            }
            Err(_) => {}
        }
    }
}

/// Releases everything that is due now, and remembers whose it was.
async fn round(app: &App) -> Result<(), crate::store::StoreError> {
    while app.switches.is_on(SwitchId::C3) && !app.shutdown.is_cancelled() {
        let released = app.inventory.expire(app.clock.now_us(), BATCH).await?;
        if released == 0 {
            break;
        }
        app.metrics.expired(released);
        tracing::debug!(released, "expired holds released");
    }
    if app.switches.is_on(SwitchId::C5) || app.switches.is_on(SwitchId::C7) {
        app.abuse.learn(&app.store).await?;
    }
    Ok(())
}
