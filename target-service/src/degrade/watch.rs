//! Looking at what the level of degrading follows from, again and again, and keeping it visible while it is given up: who does
//! not ask a dependency any more, or reads from memory, would not see that it is well again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::items::Shelf;
use crate::app::App;
use crate::switches::SwitchId;

use super::levels::{Level, SWITCHES};

/// How often it is decided.
const DECIDE: Duration = Duration::from_millis(50);
/// How often the database and the dependencies are asked, and what is shown from memory is read again.
const ASK: Duration = Duration::from_millis(100);

/// Runs until the service shuts down.
pub async fn run(app: Arc<App>) {
    tokio::join!(decide(&app), ask_database(&app), ask_profiles(&app), refresh(&app));
}

/// Waits, and says whether to go on.
async fn after(app: &App, pause: Duration) -> bool {
    tokio::select! {
        () = app.shutdown.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

async fn decide(app: &App) {
    while after(app, DECIDE).await {
        let extras = app.profiles.as_ref().and_then(|profiles| profiles.dependency().illness());
        app.degrade.see(app.degrade.signals(extras), &app.switches, app.clock.now_us());
    }
}

/// Whether anybody wants to know of the database.
fn watches(app: &App) -> bool {
    app.switches.is_on(SwitchId::L5) && SWITCHES[1..].iter().any(|id| app.switches.is_on(*id))
}

/// Over a connection of its own: a full pool is load, not absence.
async fn ask_database(app: &App) {
    while after(app, ASK).await {
        if watches(app) {
            let answer = app.degrade.probe.ask(&app.store, "SELECT 1").await;
            app.degrade.database(answer.is_ok());
        }
    }
}

/// While nobody is shown extras, nobody would notice that they can be had again.
async fn ask_profiles(app: &App) {
    let Some(profiles) = &app.profiles else { return };
    while after(app, ASK).await {
        if app.degrade.level() >= Level::ExtrasOff || profiles.dependency().is_troubled() {
            profiles.probe().await;
        }
    }
}

/// One statement for all items that anybody looked at, however many look at them.
async fn refresh(app: &App) {
    while after(app, ASK).await {
        let known = app.shelves.known();
        if app.degrade.level() >= Level::Snapshot && !known.is_empty() {
            let (began, sale) = (Instant::now(), app.shelves.sale());
            let read = Shelf::read_all(&app.store, &known).await;
            app.degrade.core(began.elapsed(), read.is_err());
            if let Ok(shelves) = read {
                let now = app.clock.now_us();
                shelves.into_iter().for_each(|shelf| app.shelves.keep(shelf, now, sale));
            }
        }
    }
}
