//! The bare handler (E5): an order goes from its connection straight to the strategy, without routes, extractors, middleware
//! and a task of its own. Everything else, and orders as well while the switch is off, takes the usual way. Both give the
//! same answers.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::Method;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::time::timeout;

use super::orders;
use crate::app::App;
use crate::degrade::levels::Level;
use crate::gateway::{self, KeepGoing, MAX_BODY_BYTES, Place};
use crate::listen::{ReplyBody, Serves};
use crate::problem::{Kind, Problem};
use crate::switches::SwitchId;

/// The label of these requests, which the usual way gives them, too.
const ROUTE: &str = "/items/{id}/orders";

/// Everything that the public listener serves.
#[derive(Clone)]
pub struct Public {
    app: Arc<App>,
    router: Router,
}

impl Public {
    /// The public interface of a service.
    pub fn new(app: &Arc<App>) -> Self {
        Self { app: Arc::clone(app), router: super::router(Arc::clone(app)) }
    }

    /// The item of an order that the bare handler takes. It makes no tracing spans.
    fn ordered(&self, request: &Request<Incoming>) -> Option<i64> {
        let path = request.uri().path().strip_prefix("/items/")?.strip_suffix("/orders")?;
        let lean =
            request.method() == Method::POST && self.app.switches.is_on(SwitchId::E5) && !self.app.trace_requests;
        if lean { path.parse().ok() } else { None }
    }
}

impl Serves for Public {
    async fn answer(self, request: Request<Incoming>) -> Response<ReplyBody> {
        match self.ordered(&request) {
            Some(item) => order(self.app, item, request).await.map(|body| Either::Left(Full::new(body))),
            None => self.router.answer(request).await,
        }
    }
}

async fn order(app: Arc<App>, item: i64, request: Request<Incoming>) -> Response<Bytes> {
    let started = Instant::now();
    let level = app.degrade.level();
    let answered = if level >= Level::Closed {
        Err(Problem::new(Kind::Degraded))
    } else {
        let answered = match app.admission.enter(app.switches.is_on(SwitchId::K8)) {
            None => Err(Problem::new(Kind::Overloaded)),
            Some(place) => match timeout(app.request_timeout, placed(&app, item, request, place)).await {
                Ok(answered) => answered,
                Err(_) => Err(Problem::new(Kind::Timeout)),
            },
        };
        let status = answered.as_ref().map_or_else(|problem| problem.kind.status(), Response::status);
        app.degrade.request(status.as_u16());
        answered
    };
    let mut response = answered.unwrap_or_else(Problem::prebuilt);
    gateway::stamp(response.headers_mut(), level);
    app.metrics.request("POST", ROUTE, response.status().as_u16(), started.elapsed());
    response
}

/// What it may change is finished even if the client gives up on it; the body comes at the client's pace, so it is read
/// before.
async fn placed(
    app: &Arc<App>,
    item: i64,
    request: Request<Incoming>,
    place: Place,
) -> Result<Response<Bytes>, Problem> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::new(Kind::TooLarge)
        } else {
            Problem::because(Kind::BadRequest, "the body did not come")
        }
    })?;
    let (app, body) = (Arc::clone(app), body.to_bytes());
    let work = KeepGoing::new(async move {
        let began = Instant::now();
        let outcome = orders::reserve(&app, item, &parts.headers, &body).await;
        let response = orders::reply(&app, &parts.headers, outcome, began);
        drop(place);
        response
    });
    Ok(work.await)
}
