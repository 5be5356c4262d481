//! Ordering, paying, cancelling, and asking what became of an attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;

use super::{fresh, parse_body, parse_id, user_of};
use crate::app::App;
use crate::bugs::Bug;
use crate::idempotency::{Entry, InFlightGuard, parse_key};
use crate::order::{Claim, Reservation, Settlement, Wanted};
use crate::problem::{Kind, Problem};
use crate::settle;

#[derive(Deserialize)]
struct NewOrder {
    quantity: i64,
}

#[derive(Deserialize)]
pub(super) struct Lookup {
    idempotency_key: Option<String>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(item): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let outcome = reserve(&app, &item, &headers, &body).await;
    let told = match &outcome {
        Ok(Reservation::Held(_)) => "held",
        Ok(Reservation::Replayed(_)) => "replayed",
        Ok(Reservation::Refused(refusal)) => Problem::from(*refusal).kind.slug(),
        Err(problem) => problem.kind.slug(),
    };
    app.metrics.order(told, began.elapsed());
    let (status, order) = match outcome? {
        Reservation::Held(order) => (StatusCode::CREATED, order),
        Reservation::Replayed(order) => (StatusCode::OK, order),
        Reservation::Refused(refusal) => return Err(refusal.into()),
    };
    let mut response = fresh(status, &order);
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{}", order.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn reserve(app: &App, item: &str, headers: &HeaderMap, body: &Bytes) -> Result<Reservation, Problem> {
    let now = app.clock.now_us();
    let user = user_of(app, headers)?;
    let key = key_of(headers)?;
    if let Some(token) = headers.get("challenge-token") {
        app.challenges.spend(&user, token.to_str().unwrap_or_default(), &key)?;
    }
    let item = parse_id(item)?;
    let quantity = quantity_of(parse_body::<NewOrder>(body)?.quantity, app.bug)?;
    if app.damaged.load(Ordering::Relaxed) {
        return Err(Problem::because(Kind::DatabaseUnavailable, "an earlier bug damaged the data: POST /reset first"));
    }
    // Held until the attempt has truly ended, so that nobody takes a key under way for a free one.
    let _guard = enter(app, &user, &key)?;
    let wanted = Wanted { item, user, key, quantity, now };
    // Whoever was refused stays so, whatever came back since: the request may be a copy that was long on its way.
    if let Some(refusal) = app.refusals.recall(&wanted) {
        return Ok(Reservation::Refused(refusal));
    }
    let outcome = app.inventory.reserve(&wanted).await?;
    if let Reservation::Refused(refusal) = &outcome {
        let kept = app.refusals.remember(&wanted, *refusal);
        // What cannot be kept must not be told: it may have to be taken back.
        kept.map_err(|error| {
            Problem::because(Kind::Overloaded, format!("the refusal cannot be written down: {error}"))
        })?;
    }
    Ok(outcome)
}

fn key_of(headers: &HeaderMap) -> Result<String, Problem> {
    let raw = headers.get("idempotency-key").ok_or(Kind::KeyMissing)?;
    parse(raw.to_str().unwrap_or_default())
}

fn parse(raw: &str) -> Result<String, Problem> {
    parse_key(raw).map_err(|error| Problem::because(Kind::BadRequest, error))
}

/// A quantity is at least one; how many a user may have is the item's business. With the seeded bug, any
/// number is let through.
fn quantity_of(quantity: i64, bug: Option<Bug>) -> Result<i32, Problem> {
    let smallest = if bug == Some(Bug::NegativeStock) { i64::from(i32::MIN) } else { 1 };
    if quantity < smallest {
        return Err(Problem::because(Kind::BadRequest, "quantity must be at least 1"));
    }
    // More than any limit allows, so the limit refuses it like any other excess.
    Ok(i32::try_from(quantity).unwrap_or(i32::MAX))
}

/// Enters the key among those in flight. The seeded bug that relies on twins lets them through.
fn enter(app: &App, user: &str, key: &str) -> Result<Option<InFlightGuard>, Problem> {
    if app.bug == Some(Bug::KeyCheckedThenInserted) {
        return Ok(None);
    }
    match app.in_flight.enter(user, key) {
        Entry::Entered(guard) => Ok(Some(guard)),
        Entry::Busy => Err(Kind::InFlight.into()),
        Entry::Full => Err(Kind::Overloaded.into()),
    }
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(lookup): Query<Lookup>,
) -> Result<Response, Problem> {
    let user = user_of(&app, &headers)?;
    let key = parse(&lookup.idempotency_key.ok_or(Kind::KeyMissing)?)?;
    // "Not found" must not be said of an order that is being made at this moment.
    if app.in_flight.is_busy(&user, &key) {
        return Err(Kind::InFlight.into());
    }
    let order = app.inventory.find(&user, &key).await?;
    let order = order.ok_or_else(|| Problem::because(Kind::NotFound, "no order under this key"))?;
    Ok(fresh(StatusCode::OK, &order))
}

pub(super) async fn pay(
    State(app): State<Arc<App>>,
    Path(order): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claim = claim(&app, &order, &headers)?;
    match &app.payments {
        None => settled(app.inventory.confirm(&claim).await?),
        Some(payments) => settled(settle::pay(&app, payments, &claim).await?),
    }
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(order): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claim = claim(&app, &order, &headers)?;
    settled(app.inventory.release(&claim).await?)
}

fn claim(app: &App, order: &str, headers: &HeaderMap) -> Result<Claim, Problem> {
    let now = app.clock.now_us();
    let user = user_of(app, headers)?;
    Ok(Claim { order: parse_id(order)?, user, now })
}

fn settled(settlement: Settlement) -> Result<Response, Problem> {
    match settlement {
        Settlement::Settled(order) => Ok(fresh(StatusCode::OK, &order)),
        Settlement::Refused(refusal) => Err(refusal.into()),
    }
}
