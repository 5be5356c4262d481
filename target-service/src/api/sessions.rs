//! Logging in: whoever names a user is that user. A rehearsal has no passwords.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::{fresh, parse_body};
use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::switches::SwitchId;

#[derive(Deserialize)]
struct Login {
    user: String,
}

/// The header in which a device says which one it is. It is believed: who lies looks like many devices.
const DEVICE: &str = "x-device-id";

pub(super) async fn create(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let Login { user } = parse_body(&body)?;
    let token = app.sessions.open(&user).map_err(|error| Problem::because(Kind::BadRequest, error))?;
    if app.switches.is_on(SwitchId::C8) {
        let device = headers.get(DEVICE).and_then(|value| value.to_str().ok());
        app.abuse.logged_in(&user, device, app.clock.now_us());
    }
    Ok(fresh(StatusCode::CREATED, &json!({"token": token, "user": user})))
}
