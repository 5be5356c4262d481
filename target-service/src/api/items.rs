//! What a buyer reads before ordering: the static page, the small dynamic state, and the server's time.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::{fresh, parse_id, user_of};
use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::store::orders::spread_stock;
use crate::switches::SwitchId;

const STATE: &str = concat!("SELECT ", spread_stock!(), ", opens_at_us, closes_at_us FROM item i WHERE id = $1");

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    if let Some(slow) = &app.slow_pages {
        slow.wait().await;
    }
    let page = app.pages.get(&app.store, id, app.switches.is_on(SwitchId::P5)).await?;
    let page = page.ok_or_else(|| Problem::because(Kind::NotFound, "no such item"))?;
    Ok(page.reply(&headers))
}

/// The small part of a page that changes; with what the shop knows of the buyer, if he shows who he is.
pub(super) async fn state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    // A token that is not ours is no reason not to show the state.
    let extras = match (&app.profiles, user_of(&app, &headers)) {
        (Some(profiles), Ok(user)) => Some(profiles.of(&user).await),
        _ => None,
    };
    let mut lease = app.store.lease().await?;
    let row = lease.query_opt(STATE, &[&id]).await?;
    drop(lease);
    let row = row.ok_or_else(|| Problem::because(Kind::NotFound, "no such item"))?;
    let (available, opens_at, closes_at): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let now = app.clock.now_us();
    let mut state = json!({
        "item": id,
        "available": available,
        "as_of": now,
        "stale": false,
        "opens_at": opens_at,
        "closes_at": closes_at,
        "on_sale": available > 0 && (opens_at..closes_at).contains(&now),
    });
    if let Some(extras) = extras {
        state["you"] = json!(extras);
    }
    Ok(fresh(StatusCode::OK, &state))
}

pub(super) async fn time(State(app): State<Arc<App>>) -> Response {
    fresh(StatusCode::OK, &json!({"unix_us": app.clock.now_us()}))
}
