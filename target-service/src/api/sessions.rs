//! Logging in: whoever names a user is that user. A rehearsal has no passwords.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::{fresh, parse_body};
use crate::app::App;
use crate::problem::{Kind, Problem};

#[derive(Deserialize)]
struct Login {
    user: String,
}

pub(super) async fn create(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let Login { user } = parse_body(&body)?;
    let token = app.sessions.open(&user).map_err(|error| Problem::because(Kind::BadRequest, error))?;
    Ok(fresh(StatusCode::CREATED, &json!({"token": token, "user": user})))
}
