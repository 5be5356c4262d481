//! What a buyer reads before ordering: the static page, the small dynamic state, and the server's time.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

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

/// What is left of an item, and when it is sold.
pub(super) struct Shelf {
    item: i64,
    available: i64,
    pub(super) opens_at: i64,
    pub(super) closes_at: i64,
}

impl Shelf {
    /// As the database has it.
    pub(super) async fn read(app: &App, item: i64) -> Result<Self, Problem> {
        let mut lease = app.store.lease().await?;
        let row = lease.query_opt(STATE, &[&item]).await?;
        drop(lease);
        let row = row.ok_or_else(|| Problem::because(Kind::NotFound, "no such item"))?;
        Ok(Self { item, available: row.get(0), opens_at: row.get(1), closes_at: row.get(2) })
    }

    /// As a buyer sees it at this time.
    pub(super) fn state(&self, now: i64) -> Value {
        json!({
            "item": self.item,
            "available": self.available,
            "as_of": now,
            "stale": false,
            "opens_at": self.opens_at,
            "closes_at": self.closes_at,
            "on_sale": self.available > 0 && (self.opens_at..self.closes_at).contains(&now),
        })
    }
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
    let mut state = Shelf::read(&app, id).await?.state(app.clock.now_us());
    if let Some(extras) = extras {
        state["you"] = json!(extras);
    }
    Ok(fresh(StatusCode::OK, &state))
}

pub(super) async fn time(State(app): State<Arc<App>>) -> Response {
    fresh(StatusCode::OK, &json!({"unix_us": app.clock.now_us()}))
}
