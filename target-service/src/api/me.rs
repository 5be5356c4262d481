//! What the shop knows of the buyer who asks, loaded on its own (P2): an item's page and state are the same for everybody, come from
//! caches, and do not wait for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::{fresh, user_of};
use crate::app::App;
use crate::degrade::levels::Level;
use crate::extras;
use crate::problem::Problem;

pub(super) async fn get(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let user = user_of(&app, &headers)?;
    let extras = match &app.profiles {
        Some(profiles) if app.degrade.level() < Level::ExtrasOff => profiles.of(&user).await,
        _ => extras::DEFAULT,
    };
    let mut me = json!(extras);
    me["user"] = user.into();
    Ok(fresh(StatusCode::OK, &me))
}
