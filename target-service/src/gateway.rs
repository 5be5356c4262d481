//! What every public request passes first: the bound on requests in flight, the time limit, the headers
//! that say who answered, and the measurement.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::app::App;
use crate::degrade::instead::Instead;
use crate::degrade::levels::Level;
use crate::problem::{Kind, Problem};
use crate::switches::SwitchId;

/// No request of this service needs a larger body.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Which tier answered.
pub(crate) const TIER: HeaderName = HeaderName::from_static("x-served-by-tier");
/// How much was given up then.
pub(crate) const DEGRADE_LEVEL: HeaderName = HeaderName::from_static("x-degrade-level");

/// Counts requests in flight, up to a bound.
#[derive(Debug)]
pub struct Admission {
    in_flight: AtomicUsize,
    bound: usize,
}

/// A request's place among those in flight, given up when dropped.
pub struct Place(Arc<Admission>);

impl Admission {
    /// At most `bound` requests at once.
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicUsize::new(0), bound })
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A place, if there is one left or the bound is off.
    pub(crate) fn enter(self: &Arc<Self>, bounded: bool) -> Option<Place> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        if bounded && before >= self.bound { None } else { Some(place) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The middleware of the public listener.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let level = app.degrade.level();
    let mut response = match Instead::of(&app, level, &request).filter(|_| route.is_some()) {
        Some(Instead { reply, is_probe: false }) => reply,
        instead => {
            let served = match app.admission.enter(app.switches.is_on(SwitchId::K8)) {
                None => Problem::new(Kind::Overloaded).into_response(),
                Some(place) => answer(&app, request, next, place).await,
            };
            app.degrade.request(served.status().as_u16());
            match instead {
                Some(instead) if served.status().is_server_error() => instead.reply,
                _ => served,
            }
        }
    };
    stamp(response.headers_mut(), level);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    app.metrics.request(method, route, response.status().as_u16(), started.elapsed());
    response
}

/// Says who answered, and how much is given up.
pub(crate) fn stamp(headers: &mut HeaderMap, level: Level) {
    headers.insert(TIER, HeaderValue::from_static("service"));
    headers.insert(DEGRADE_LEVEL, HeaderValue::from(u16::from(level.number())));
}

async fn answer(app: &Arc<App>, request: Request, next: Next, place: Place) -> Response {
    let span = if app.trace_requests { request_span(&request) } else { tracing::Span::none() };
    let answered = if request.method() == Method::POST {
        timeout(app.request_timeout, detached(request, next, place).instrument(span)).await
    } else {
        timeout(app.request_timeout, next.run(request).instrument(span)).await
    };
    answered.unwrap_or_else(|_| Problem::new(Kind::Timeout).into_response())
}

/// Runs a request that may change something to its end even if the client gives up on it. Half-done work
/// would cost a database connection, and the key would look free while its order is still being made.
/// Every step of such work has a time limit of its own.
async fn detached(request: Request, next: Next, place: Place) -> Response {
    let (parts, body) = request.into_parts();
    // The body comes from the client at the client's pace, so it is read before.
    let body = match to_bytes(body, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(_) => return Problem::new(Kind::TooLarge).into_response(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    let work = async move {
        let response = next.run(request).await;
        drop(place);
        response
    };
    match tokio::spawn(work.in_current_span()).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a request's task failed");
            Problem::new(Kind::Internal).into_response()
        }
    }
}

/// Work that goes on when nobody waits for it any more: given up on, it is handed to a task of its own. It spares the task
/// that [`detached`] has for every request, of which hardly any is given up on.
pub(crate) struct KeepGoing<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> KeepGoing<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)) }
    }
}

impl<T: Send + 'static> Future for KeepGoing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that work that panics is not gone on with.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let outcome = work.as_mut().poll(context);
        if outcome.is_pending() {
            self.work = Some(work);
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for KeepGoing<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

fn request_span(request: &Request) -> tracing::Span {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or("");
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), traceparent)
}

/// Only known methods become a label: a client must not be able to invent time series.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let admission = Admission::new(1);
        let first = admission.enter(true).unwrap();
        assert!(admission.enter(true).is_none());
        assert!(admission.enter(false).is_some());
        assert_eq!(admission.in_flight(), 1);
        drop(first);
        assert!(admission.enter(true).is_some());
    }

    #[tokio::test]
    async fn work_that_was_given_up_on_is_finished() {
        let (begun, may_end) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
        let (tell, ended) = tokio::sync::oneshot::channel();
        let work = {
            let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
            KeepGoing::new(async move {
                begun.notify_one();
                may_end.notified().await;
                let _ = tell.send("done");
            })
        };
        tokio::select! {
            () = work => panic!("it cannot have ended"),
            () = begun.notified() => {}
        }
        may_end.notify_one();
        assert_eq!(ended.await, Ok("done"));
    }
}
