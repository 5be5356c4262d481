//! The payment dependency, as a process of its own: it takes money once for each idempotency key, gives it back once, and keeps
//! its books on disk. It knows nothing of stock or holds.
//!
//! It can be told to decline a share of payments, to be slow, and to answer with garbage: a drill of its callers.

pub mod books;
mod journal;

use std::hash::{DefaultHasher, Hasher as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{fresh, parse_body, unknown_route, wrong_method};
use crate::clock::Clock;
use crate::config::Address;
use crate::idempotency::parse_key;
use crate::problem::{Kind, Problem};
use crate::process;

use books::{Account, Answer};
use journal::{Journal, Unavailable};

/// How `seckill-target payment` is started.
#[derive(Args, Debug)]
pub struct Options {
    /// Where payments are taken: `unix:/path` or `127.0.0.1:port`; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    /// The listener for audits, drills and monitoring.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Address,
    /// The file that the books are kept in; it is read at the start.
    #[arg(long, value_name = "FILE", default_value = "books.jsonl")]
    books: PathBuf,
    /// The share of payments that are declined, from 0 to 1. Which ones, their keys decide.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    decline: f64,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

/// How it behaves; everything else would be a payment service without troubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Behaviour {
    /// The share of payments that are declined.
    decline: f64,
    /// What every reply to a client takes longer, in milliseconds.
    latency_ms: u64,
    /// The share of replies to clients that make no sense, although what was asked for was done.
    garbage: f64,
}

impl Behaviour {
    fn check(self) -> Result<Self, Problem> {
        let shares = [self.decline, self.garbage].iter().all(|share| (0.0..=1.0).contains(share));
        if shares && self.latency_ms <= 60_000 {
            return Ok(self);
        }
        Err(Problem::because(Kind::BadRequest, "decline and garbage are from 0 to 1, latency_ms is 60000 at most"))
    }
}

struct Payment {
    journal: Journal,
    clock: Clock,
    behaviour: RwLock<Behaviour>,
    replies: AtomicU64,
    captures: AtomicU64,
    refunds: AtomicU64,
}

/// Runs the payment dependency until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let shutdown = process::stop_on_signals()?;
    let failed = shutdown.clone();
    let journal = Journal::open(&options.books, move || failed.cancel()).context("--books")?;
    let behaviour = RwLock::new(Behaviour { decline: options.decline, ..Behaviour::default() });
    let (replies, captures, refunds) = Default::default();
    let payment = Arc::new(Payment { journal, clock: Clock::default(), behaviour, replies, captures, refunds });
    let public = Router::new()
        .route("/captures", post(capture).get(find))
        .route("/refunds", post(refund))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(&payment));
    let admin = Router::new()
        .route("/behaviour", get(behaviour_now).put(set_behaviour))
        .route("/reset", post(reset))
        .route("/audit/payments", get(audit))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(payment);
    process::serve_both((&options.listen, public, None), (&options.admin_listen, admin), &shutdown).await
}

impl From<Unavailable> for Problem {
    fn from(_: Unavailable) -> Self {
        Problem::because(Kind::Overloaded, "the books cannot be reached")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capture {
    order: String,
    amount_cents: i64,
}

async fn capture(State(payment): State<Arc<Payment>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let raw = headers.get("idempotency-key").ok_or(Kind::KeyMissing)?;
    let key = parse_key(raw.to_str().unwrap_or_default()).map_err(|error| Problem::because(Kind::BadRequest, error))?;
    let Capture { order, amount_cents } = parse_body(&body)?;
    if amount_cents < 0 || order.is_empty() {
        return Err(Problem::because(Kind::BadRequest, "an amount is not negative, and for an order"));
    }
    let decline = lot(&key) < payment.behaviour().decline;
    let at = payment.clock.now_us();
    let answer = payment.journal.ask(move |books| books.capture(&key, &order, amount_cents, decline, at)).await?;
    let (status, account) = match answer {
        Answer::New(account) => (StatusCode::CREATED, account),
        Answer::Again(account) => (StatusCode::OK, account),
        Answer::Reused => return Err(Kind::KeyReused.into()),
    };
    payment.captures.fetch_add(u64::from(status == StatusCode::CREATED), Ordering::Relaxed);
    let status = match account.state {
        books::State::Captured | books::State::Refunded => status,
        books::State::Declined => StatusCode::PAYMENT_REQUIRED,
        books::State::Voided => StatusCode::CONFLICT,
    };
    Ok(payment.reply(status, &account).await)
}

#[derive(Deserialize)]
struct ByKey {
    key: String,
}

async fn find(State(payment): State<Arc<Payment>>, Query(ByKey { key }): Query<ByKey>) -> Result<Response, Problem> {
    let account = payment.journal.ask(move |books| books.find(&key).cloned()).await?;
    let account = account.ok_or_else(|| Problem::because(Kind::NotFound, "nothing happened under this key"))?;
    Ok(payment.reply(StatusCode::OK, &account).await)
}

async fn refund(State(payment): State<Arc<Payment>>, body: Bytes) -> Result<Response, Problem> {
    // A capture is given back once, so its key is the refund's as well.
    let ByKey { key } = parse_body(&body)?;
    let key = parse_key(&key).map_err(|error| Problem::because(Kind::BadRequest, error))?;
    let at = payment.clock.now_us();
    let account = payment.journal.ask(move |books| books.refund(&key, at)).await?;
    payment.refunds.fetch_add(1, Ordering::Relaxed);
    Ok(payment.reply(StatusCode::OK, &account).await)
}

impl Payment {
    fn behaviour(&self) -> Behaviour {
        *self.behaviour.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where a key stands; late, or in words that make no sense, if it is told to.
    async fn reply(&self, status: StatusCode, account: &Account) -> Response {
        let behaviour = self.behaviour();
        if behaviour.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(behaviour.latency_ms)).await;
        }
        let number = self.replies.fetch_add(1, Ordering::Relaxed);
        if lot(number) < behaviour.garbage {
            return garbage(number, account);
        }
        document(status, account)
    }
}

/// An account with the members of a problem document where it is one, so that either kind of reader finds what it looks for.
fn document(status: StatusCode, account: &Account) -> Response {
    let mut body = json!(account);
    let kind = match account.state {
        _ if status.is_success() => return fresh(status, &body),
        books::State::Voided => ("capture-voided", "The capture was called off before it came"),
        _ => ("declined", "The payment was declined"),
    };
    (body["type"], body["title"], body["status"]) = (kind.0.into(), kind.1.into(), status.as_u16().into());
    let mut response = (status, body.to_string()).into_response();
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// What a broken dependency says: no JSON, half of it, or a fine reply to another question.
fn garbage(number: u64, account: &Account) -> Response {
    let whole = json!(account).to_string();
    match number % 3 {
        0 => (StatusCode::OK, "<html>It works!</html>").into_response(),
        1 => (StatusCode::OK, whole[..whole.len() / 2].to_owned()).into_response(),
        _ => {
            let other = Account { key: "somebody-elses".into(), state: books::State::Captured, ..account.clone() };
            (StatusCode::OK, Json(other)).into_response()
        }
    }
}

/// A number from 0 to 1 that is the same for the same thing, in every process.
fn lot(of: impl std::hash::Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    // 53 bits are what a fraction can hold.
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

async fn behaviour_now(State(payment): State<Arc<Payment>>) -> Response {
    fresh(StatusCode::OK, &payment.behaviour())
}

async fn set_behaviour(State(payment): State<Arc<Payment>>, body: Bytes) -> Result<Response, Problem> {
    let wanted = parse_body::<Behaviour>(&body)?.check()?;
    *payment.behaviour.write().unwrap_or_else(PoisonError::into_inner) = wanted;
    tracing::info!(?wanted, "told to behave");
    Ok(fresh(StatusCode::OK, &wanted))
}

async fn reset(State(payment): State<Arc<Payment>>) -> Result<Response, Problem> {
    payment.journal.reset().await?;
    Ok(fresh(StatusCode::OK, &json!({"entries": 0})))
}

#[derive(Deserialize)]
struct Page {
    after: Option<i64>,
    limit: Option<usize>,
}

async fn audit(State(payment): State<Arc<Payment>>, Query(page): Query<Page>) -> Result<Response, Problem> {
    let (after, limit) = (page.after.unwrap_or(0), page.limit.unwrap_or(5_000).clamp(1, 50_000));
    let as_of = payment.clock.now_us();
    let (entries, next) = payment.journal.ask(move |books| books.page(after, limit)).await?;
    Ok(fresh(StatusCode::OK, &json!({"as_of": as_of, "entries": entries, "next": next})))
}

async fn metrics(State(payment): State<Arc<Payment>>) -> Response {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let text = format!(
        "# TYPE payment_captures counter\npayment_captures_total {}\n# TYPE payment_refunds counter\n\
         payment_refunds_total {}\n# EOF\n",
        count(&payment.captures),
        count(&payment.refunds)
    );
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}

async fn healthz() -> Response {
    fresh(StatusCode::OK, &json!({"ready": true}))
}
