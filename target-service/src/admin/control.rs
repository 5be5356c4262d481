//! Resetting the sale, skewing the clock, and fixing the level of degrading.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::abuse::NO_CAP;
use crate::api::{fresh, parse_body};
use crate::app::App;
use crate::bugs;
use crate::deduct::{Deduct, FOR_EVER_MS};
use crate::degrade::levels::Level;
use crate::problem::{Kind, Problem};
use crate::store::schema::{self, NewItem};
use crate::switches::SwitchId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    items: Vec<NewItem>,
    now: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSkew {
    offset_ms: i64,
    #[serde(default)]
    gain_ppm: i64,
}

/// A clock that loses all of every second stands still.
const SLOWEST_PPM: i64 = -1_000_000;

pub(super) async fn reset(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let Reset { mut items, now } = parse_body(&body)?;
    for item in &items {
        check(item)
            .map_err(|complaint| Problem::because(Kind::BadRequest, format!("item {}: {complaint}", item.id)))?;
    }
    if !app.switches.is_on(SwitchId::C6) {
        items.iter_mut().for_each(|item| item.per_user_limit = NO_CAP);
    }
    if app.deduct == Deduct::Order {
        // What is deducted for good is a hold that does not end.
        items.iter_mut().for_each(|item| item.hold_ms = FOR_EVER_MS);
    }
    // An open snapshot would keep the tables from being emptied.
    app.snapshots.close_all();
    app.inventory.forget().await;
    schema::reset(&app.store, &items, bugs::relaxed_guards(app.bug)).await?;
    app.damaged.store(false, Ordering::Relaxed);
    // Requests of the run before may have been answered while the tables were emptied.
    app.inventory.forget().await;
    let forgotten = app.refusals.clear();
    forgotten
        .map_err(|error| Problem::because(Kind::Internal, format!("refused keys cannot be forgotten: {error}")))?;
    app.pages.clear();
    app.shelves.clear();
    app.abuse.forget();
    if let Some(now) = now {
        app.clock.set_now_us(now);
    }
    Ok(fresh(StatusCode::OK, &json!({"items": items.len(), "now": app.clock.now_us()})))
}

/// The database would refuse these too, but not in words for a person.
fn check(item: &NewItem) -> Result<(), &'static str> {
    if item.price_cents < 0 || item.stock < 0 {
        return Err("price_cents and stock must not be negative");
    }
    if item.per_user_limit < 1 || item.hold_ms < 1 {
        return Err("per_user_limit and hold_ms must be at least 1");
    }
    if item.opens_at >= item.closes_at {
        return Err("opens_at must be before closes_at");
    }
    Ok(())
}

pub(super) async fn clock(State(app): State<Arc<App>>) -> Response {
    fresh(
        StatusCode::OK,
        &json!({
            "offset_ms": app.clock.offset_ms(),
            "gain_ppm": app.clock.gain_ppm(),
            "unix_us": app.clock.now_us(),
        }),
    )
}

pub(super) async fn set_clock(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let ClockSkew { offset_ms, gain_ppm } = parse_body(&body)?;
    if gain_ppm < SLOWEST_PPM {
        return Err(Problem::because(
            Kind::BadRequest,
            format!("gain_ppm below {SLOWEST_PPM} would let time run back"),
        ));
    }
    app.clock.set(offset_ms, gain_ppm);
    tracing::info!(offset_ms, gain_ppm, "clock skewed");
    Ok(clock(State(app)).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forced {
    /// Nothing leaves the level to what is seen.
    level: Option<u8>,
}

pub(super) async fn degrade(State(app): State<Arc<App>>) -> Response {
    fresh(StatusCode::OK, &app.degrade.told())
}

pub(super) async fn set_degrade(State(app): State<Arc<App>>, body: Bytes) -> Result<Response, Problem> {
    let Forced { level } = parse_body(&body)?;
    let known = |number| {
        Level::numbered(number).ok_or_else(|| {
            let highest = Level::Static.number();
            Problem::because(
                Kind::BadRequest,
                format!("levels are 0 to {highest}, or null to let it follow what is seen"),
            )
        })
    };
    let level = level.map(known).transpose()?;
    app.degrade.force(level, app.clock.now_us());
    tracing::info!(level = ?level, "degrade level forced");
    Ok(degrade(State(app)).await)
}
