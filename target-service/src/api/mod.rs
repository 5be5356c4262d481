//! The public HTTP interface.

pub mod assets;
mod challenges;
mod checks;
mod encode;
mod events;
pub mod items;
pub mod lean;
mod me;
mod orders;
pub mod pages;
mod sessions;
pub mod view;

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::gateway;
use crate::problem::{Kind, Problem};

/// The routes of the public listener.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/items/{id}", get(items::page))
        .route("/items/{id}/page", get(items::view))
        .route("/assets/{name}", get(assets::get))
        .route("/me", get(me::get))
        .route("/items/{id}/state", get(items::state))
        .route("/items/{id}/events", get(events::item))
        .route("/items/{id}/orders", post(orders::create))
        .route("/time", get(items::time))
        .route("/sessions", post(sessions::create))
        .route("/challenges", post(challenges::create))
        .route("/challenges/{id}/answer", post(challenges::answer))
        .route("/orders", get(orders::find))
        .route("/orders/{id}/pay", post(orders::pay))
        .route("/orders/{id}/cancel", post(orders::cancel))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), gateway::guard))
        .with_state(app)
}

/// The reply to a path that is not served.
pub async fn unknown_route() -> Problem {
    Problem::because(Kind::NotFound, "no such path")
}

/// The reply to a method that a path does not support.
pub async fn wrong_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed)
}

/// Reads a JSON body; what is wrong with it is told in the reply.
pub fn parse_body<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::because(Kind::BadRequest, format!("body: {error}")))
}

/// Reads a number from the path. Anything else names nothing that exists.
pub fn parse_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::because(Kind::NotFound, "identifiers are numbers"))
}

/// A JSON reply that no cache may keep.
pub fn fresh<T: Serialize>(status: StatusCode, body: &T) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// The user whose session token the request carries.
pub fn user_of(app: &App, headers: &HeaderMap) -> Result<String, Problem> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, token)| app.sessions.user_of(token.trim()))
        .ok_or_else(|| Kind::Unauthorized.into())
}
