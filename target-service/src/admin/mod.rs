//! The listener for tests, drills and monitoring. It has no bound on requests and no authentication, and is
//! therefore never the public one.

pub mod audit;
mod control;
pub mod probe;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::api::{unknown_route, wrong_method};
use crate::app::App;
use crate::switches;

/// The routes of the admin listener.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/reset", post(control::reset))
        .route("/clock", get(control::clock).put(control::set_clock))
        .route("/degrade", get(control::degrade).put(control::set_degrade))
        .route("/audit/stock", get(audit::stock))
        .route("/audit/ledger", get(audit::ledger))
        .route("/audit/payments", get(audit::payments))
        .route("/metrics", get(probe::metrics))
        .route("/healthz", get(probe::healthz))
        .route("/readyz", get(probe::readyz))
        .with_state(Arc::clone(&app))
        .merge(switches::router(Arc::clone(&app.switches)))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
}
