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

/// The routes of the admin listener.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/reset", post(control::reset))
        .route("/switches", get(control::switches))
        .route("/switches/{id}", get(control::switch).put(control::set_switch))
        .route("/clock", get(control::clock).put(control::set_clock))
        .route("/audit/stock", get(audit::stock))
        .route("/audit/ledger", get(audit::ledger))
        .route("/metrics", get(probe::metrics))
        .route("/healthz", get(probe::healthz))
        .route("/readyz", get(probe::readyz))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}
