//! Ordering, paying, cancelling, and asking what became of an attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use prost::Message as _;
use serde::Deserialize;

use super::checks;
use super::encode::{self, Format};
use super::{fresh, parse_body, parse_id, user_of};
use crate::app::App;
use crate::bugs::Bug;
use crate::idempotency::{Entry, InFlightGuard, Stage, parse_key};
use crate::order::{Claim, Order, Reservation, Settlement, Wanted};
use crate::problem::{Kind, Problem};
use crate::settle;
use crate::store::StoreError;
use crate::store::orders::replay;
use crate::switches::SwitchId;
use crate::wire::{NewOrder, PROTOBUF};

/// The header in which a buyer names what he asks for, so that he can ask again.
const KEY: &str = "idempotency-key";

#[derive(Deserialize)]
pub(super) struct Lookup {
    idempotency_key: Option<String>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Path(item): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let began = Instant::now();
    let outcome = match parse_id(&item) {
        Ok(item) => reserve(&app, item, &headers, &body).await,
        Err(problem) => Err(problem),
    };
    reply(&app, &headers, outcome, began).map(Body::from)
}

/// The reply to an order that came at `began`, and the count of it.
pub(super) fn reply(
    app: &App,
    headers: &HeaderMap,
    outcome: Result<Reservation, Problem>,
    began: Instant,
) -> axum::http::Response<Bytes> {
    let told = match &outcome {
        Ok(Reservation::Held(_)) => "held",
        Ok(Reservation::Replayed(_)) => "replayed",
        Ok(Reservation::Refused(refusal)) => Problem::from(*refusal).kind.slug(),
        Err(problem) => problem.kind.slug(),
    };
    app.metrics.order(told, began.elapsed());
    let (status, order) = match outcome.and_then(made) {
        Ok(made) => made,
        Err(problem) if app.switches.is_on(SwitchId::E4) => return problem.prebuilt(),
        Err(problem) => return problem.assembled(),
    };
    let format = match app.switches.is_on(SwitchId::E3) {
        _ if speaks_protobuf(app, headers, &header::ACCEPT) => Format::Protobuf,
        true => Format::WrittenJson,
        false => Format::SerialisedJson,
    };
    encode::order(status, &order, format)
}

fn made(reservation: Reservation) -> Result<(StatusCode, Order), Problem> {
    match reservation {
        Reservation::Held(order) => Ok((StatusCode::CREATED, order)),
        Reservation::Replayed(order) => Ok((StatusCode::OK, order)),
        Reservation::Refused(refusal) => Err(refusal.into()),
    }
}

/// Understands an order, and lets the strategy decide about it.
pub(super) async fn reserve(app: &App, item: i64, headers: &HeaderMap, body: &Bytes) -> Result<Reservation, Problem> {
    let now = app.clock.now_us();
    let user = user_of(app, headers)?;
    let key = key_of(headers)?;
    if let Some(token) = headers.get("challenge-token") {
        let opened = app.challenges.spend(&user, token.to_str().unwrap_or_default(), &key);
        opened.inspect_err(|_| app.metrics.dropped("service", "answer"))?;
    }
    let quantity = quantity_of(asked(app, headers, body)?.quantity, app.bug)?;
    if app.damaged.load(Ordering::Relaxed) {
        return Err(Problem::because(Kind::DatabaseUnavailable, "an earlier bug damaged the data: POST /reset first"));
    }
    let wanted = Wanted { item, user, key, quantity, now };
    // Held until the attempt has truly ended, so that nobody takes a key under way for a free one.
    let guard = match enter(app, &wanted.user, &wanted.key)? {
        Entered::Free(guard) => guard,
        Entered::Doubtful => return still_doubtful(app, &wanted).await,
    };
    // Whoever was refused stays so, whatever came back since: the request may be a copy that was long on its way.
    if let Some(refusal) = app.refusals.recall(&wanted) {
        return Ok(Reservation::Refused(refusal));
    }
    let outcome = match checks::answer(app, &wanted).await? {
        Some(answer) => answer,
        None => {
            let began = Instant::now();
            let reserved = match &app.slow_orders {
                None => app.inventory.reserve(&wanted).await,
                Some(slow) => slow.reserve(&*app.inventory, &wanted).await,
            };
            app.degrade.core(began.elapsed(), reserved.is_err());
            if let Ok(Reservation::Refused(refusal)) = &reserved {
                app.metrics.dropped("data", Problem::from(*refusal).kind.slug());
            }
            if reserved.as_ref().is_err_and(StoreError::is_uncertain) {
                keep_entered(app, guard);
            }
            reserved?
        }
    };
    if let Reservation::Refused(refusal) = &outcome {
        let kept = app.refusals.remember(&wanted, *refusal);
        // What cannot be kept must not be told: it may have to be taken back.
        kept.map_err(|error| {
            Problem::because(Kind::Overloaded, format!("the refusal cannot be written down: {error}"))
        })?;
    }
    Ok(outcome)
}

fn asked(app: &App, headers: &HeaderMap, body: &Bytes) -> Result<NewOrder, Problem> {
    if speaks_protobuf(app, headers, &header::CONTENT_TYPE) {
        NewOrder::decode(body.as_ref()).map_err(|error| Problem::because(Kind::BadRequest, format!("body: {error}")))
    } else {
        parse_body(body)
    }
}

/// Whether a header asks for Protobuf, and this service speaks it.
fn speaks_protobuf(app: &App, headers: &HeaderMap, header: &HeaderName) -> bool {
    headers.get(header).is_some_and(|value| value == PROTOBUF) && app.switches.is_on(SwitchId::E2)
}

fn key_of(headers: &HeaderMap) -> Result<String, Problem> {
    let raw = headers.get(KEY).ok_or(Kind::KeyMissing)?;
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

/// A key that no other request is working on.
enum Entered {
    /// It is ours; without a guard where a seeded bug relies on twins.
    Free(Option<InFlightGuard>),
    /// An earlier request under it was given up on, and may yet take effect.
    Doubtful,
}

/// Enters the key among those in flight. The seeded bug that relies on twins lets them through.
fn enter(app: &App, user: &str, key: &str) -> Result<Entered, Problem> {
    if app.bug == Some(Bug::KeyCheckedThenInserted) {
        return Ok(Entered::Free(None));
    }
    match app.in_flight.enter(user, key) {
        Entry::Entered(guard) => Ok(Entered::Free(Some(guard))),
        Entry::Taken(Stage::Doubtful) => Ok(Entered::Doubtful),
        Entry::Taken(Stage::Busy) => Err(Kind::InFlight.into()),
        Entry::Full => Err(Kind::Overloaded.into()),
    }
}

/// Keeps a key entered whose statement was given up on, until that can no longer take effect.
fn keep_entered(app: &App, guard: Option<InFlightGuard>) {
    let Some(guard) = guard else { return };
    guard.doubt();
    let store = app.store.clone();
    tokio::spawn(async move {
        store.outlive_statements().await;
        drop(guard);
    });
}

/// The answer to a retry under a key in doubt: an order that is there is certain. Nothing else may be said yet: a refusal would be
/// kept, and the earlier statement may take the units after it.
async fn still_doubtful(app: &App, wanted: &Wanted) -> Result<Reservation, Problem> {
    let order = app.inventory.find(&wanted.user, &wanted.key).await?;
    order.map(|order| replay(order, wanted)).ok_or_else(|| Kind::InFlight.into())
}

pub(super) async fn find(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(lookup): Query<Lookup>,
) -> Result<Response, Problem> {
    let user = user_of(&app, &headers)?;
    let key = parse(&lookup.idempotency_key.ok_or(Kind::KeyMissing)?)?;
    // "Not found" must not be said of an order that is being made at this moment, or may yet be.
    let stage = app.in_flight.stage(&user, &key);
    if stage == Some(Stage::Busy) {
        return Err(Kind::InFlight.into());
    }
    let order = app.inventory.find(&user, &key).await?;
    let order = order.ok_or_else(|| match stage {
        Some(_) => Kind::InFlight.into(),
        None => Problem::because(Kind::NotFound, "no order under this key"),
    })?;
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
        Some(payments) => {
            // Whoever names no key can pay as well.
            let key = headers.get(KEY).is_some().then(|| key_of(&headers)).transpose()?;
            settled(settle::pay(&app, payments, &claim, key.as_deref()).await?)
        }
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
