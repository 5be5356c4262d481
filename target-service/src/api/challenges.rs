//! Challenges, and the tokens that answering them gives.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::{fresh, user_of};
use crate::app::App;
use crate::problem::{Kind, Problem};

pub(super) async fn create(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let user = user_of(&app, &headers)?;
    Ok(fresh(StatusCode::CREATED, &json!({"id": app.challenges.pose(&user)})))
}

pub(super) async fn answer(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = user_of(&app, &headers)?;
    let token = app.challenges.answer(&user, &id);
    let token = token.ok_or_else(|| Problem::because(Kind::NotFound, "no such challenge of this user"))?;
    Ok(fresh(StatusCode::CREATED, &json!({"token": token})))
}
