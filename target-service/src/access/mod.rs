//! The access layer, as a process of its own in front of the service: it answers what it can from memory, refuses what is too
//! much, and passes the rest on over kept connections to the services behind it, in turns.
//!
//! What it answers itself says so (`X-Served-By-Tier: access`) and how old it is; it never decides about an order.

mod cache;
mod esi;
mod forward;
pub mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use clap::Args;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::api::assets::{self, Asset};
use crate::api::{fresh, unknown_route, wrong_method};
use crate::config::{Address, Secret, SwitchSetting, at_least_one, parse_duration};
use crate::gateway::{Admission, DEGRADE_LEVEL, TIER};
use crate::metrics::{Dropped, FUNNEL_DROPPED};
use crate::outbound::Outbound;
use crate::problem::{Kind, Problem};
use crate::switches::{self, SwitchId, Switches};
use crate::{process, tls};

use cache::{Cache, What};
use rules::{Objection, Rules};

/// How `seckill-target access` is started.
#[derive(Args, Debug)]
pub struct Options {
    /// Where buyers come: `unix:/path` or `127.0.0.1:port`; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    /// The listener for drills and monitoring.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Address,
    /// Speak TLS with buyers, with certificate.pem and key.pem in this folder; they are made if there are none.
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    /// A service to pass requests on to; may be repeated, and they take turns.
    #[arg(long = "service", value_name = "ADDR", required = true)]
    services: Vec<Address>,
    /// Threads that run the process.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub workers: usize,
    /// Requests under way at once; further ones are told to come back later.
    #[arg(long, default_value_t = 4096, value_parser = at_least_one)]
    max_in_flight: usize,
    /// How long a service may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "1900ms", value_parser = parse_duration)]
    timeout: Duration,
    /// How old an item's state from memory may be.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    state_ttl: Duration,
    /// How old an item's page from memory may be.
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_duration)]
    page_ttl: Duration,
    /// The secret that the services sign sessions with, in hexadecimal digits: with it, V2 sees whose a token is.
    #[arg(long, value_name = "HEX")]
    secret: Option<Secret>,
    /// Turn a mechanism on or off; may be repeated. M2, P5, P9, K8, L4 and V2 are those of this layer.
    #[arg(long = "switch", value_name = "ID=on|off")]
    switches: Vec<SwitchSetting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    tier: &'static str,
    outcome: &'static str,
}

/// What the handlers share.
struct Access {
    services: Vec<Outbound>,
    turn: AtomicUsize,
    admission: Arc<Admission>,
    timeout: Duration,
    switches: Arc<Switches>,
    cache: Cache,
    served: Family<Served, Counter>,
    rules: Rules,
    dropped: Family<Dropped, Counter>,
    /// How much the service said that it gives up.
    level: AtomicU16,
}

/// Runs a process of the access layer until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let shutdown = process::stop_on_signals()?;
    let acceptor = options.tls.as_deref().map(tls::acceptor).transpose()?;
    let switches = Switches::with(&options.switches);
    let access = Arc::new(Access {
        services: options.services.into_iter().map(Outbound::new).collect(),
        turn: AtomicUsize::new(0),
        admission: Admission::new(options.max_in_flight),
        timeout: options.timeout,
        switches: Arc::clone(&switches),
        cache: Cache::new(options.page_ttl, options.state_ttl),
        served: Family::default(),
        rules: Rules::new(options.secret.as_ref()),
        dropped: Family::default(),
        level: AtomicU16::new(0),
    });
    let public = Router::new().fallback(handle).with_state(Arc::clone(&access));
    let admin = Router::new()
        .route("/purge", post(purge))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .with_state(access)
        .merge(switches::router(switches))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    process::serve_both((&options.listen, public, acceptor), (&options.admin_listen, admin), &shutdown).await
}

/// Every request: a place, then memory where it may answer, then the service.
async fn handle(State(access): State<Arc<Access>>, request: Request) -> Response {
    let Some(_place) = access.admission.enter(access.switches.is_on(SwitchId::K8)) else {
        access.count("access", "refused");
        return access.own(Problem::new(Kind::Overloaded).into_response());
    };
    if let Some(asset) = access.asset(&request) {
        access.count("access", "asset");
        return access.own(asset.reply());
    }
    match access.cacheable(&request) {
        Some((What::View, item)) if access.switches.is_on(SwitchId::P9) => access.assembled(item, request).await,
        Some((what, item)) => access.from_memory(what, item, request).await,
        None => {
            let response = forward::forward(&access, request).await;
            access.told(response)
        }
    }
}

impl Access {
    /// The service whose turn it is, and the others after it.
    fn in_turn(&self) -> impl Iterator<Item = &Outbound> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.services.len()).map(move |n| &self.services[first.wrapping_add(n) % self.services.len()])
    }

    fn count(&self, tier: &'static str, outcome: &'static str) {
        self.served.get_or_create(&Served { tier, outcome }).inc();
    }

    /// What is wrong with a request that came whole, if this layer looks at it (V2).
    fn objection(&self, request: &Parts, body: &[u8]) -> Option<Problem> {
        let looks = self.switches.is_on(SwitchId::V2);
        let Objection { rule, problem } = looks.then(|| self.rules.objection(request, body))??;
        self.dropped.get_or_create(&Dropped { stage: "access", reason: rule }).inc();
        Some(problem)
    }

    /// Says that the reply is this layer's own. A copy tells how much was given up when it was made.
    fn own(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(TIER, HeaderValue::from_static("access"));
        headers.entry(DEGRADE_LEVEL).or_insert(HeaderValue::from(self.level.load(Ordering::Relaxed)));
        response
    }

    /// Hears what a service says of itself. A reply that says nothing is none of this layer's all the same.
    fn heard(&self, headers: &mut HeaderMap) {
        headers.entry(TIER).or_insert(HeaderValue::from_static("service"));
        let level = headers.get(DEGRADE_LEVEL).and_then(|level| level.to_str().ok()?.parse().ok());
        if let Some(level) = level {
            self.level.store(level, Ordering::Relaxed);
        }
    }

    /// What to tell a client of a service's reply, or of its absence.
    fn told(&self, forwarded: Result<Response, Problem>) -> Response {
        match forwarded {
            Ok(response) => {
                self.count("service", "passed-on");
                response
            }
            Err(problem) => {
                self.count("access", problem.kind.slug());
                self.own(problem.into_response())
            }
        }
    }

    /// The part of a page that a request asks for, if this build has it: it is the same wherever it comes from. Another build's is the
    /// service's business.
    fn asset(&self, request: &Request) -> Option<&'static Asset> {
        let is_ours = request.method() == Method::GET && self.switches.is_on(SwitchId::P5);
        is_ours.then(|| assets::find(request.uri().path())).flatten()
    }

    /// What a request asks for that may come from memory. Whoever shows who he is gets what is his own, and that is for nobody
    /// else.
    fn cacheable(&self, request: &Request) -> Option<(What, i64)> {
        let uri = request.uri();
        if request.method() != Method::GET
            || uri.query().is_some()
            || request.headers().contains_key(header::AUTHORIZATION)
        {
            return None;
        }
        let mut parts = uri.path().strip_prefix("/items/")?.split('/');
        let item = parts.next()?.parse().ok()?;
        let what = match (parts.next(), parts.next()) {
            (None, None) => What::Page,

            (Some("page"), None) => What::View,
            (Some("state"), None) => What::State,
            _ => return None,
        };
        self.switches.is_on(what.switch()).then_some((what, item))
    }

    /// The page with the item's state in it. Both are had at the same time, the state in the way in which everybody has it.
    async fn assembled(self: &Arc<Self>, item: i64, mut request: Request) -> Response {
        // A page that somebody has is not the one that he would get now.
        request.headers_mut().remove(header::IF_NONE_MATCH);
        let state = async {
            let path = format!("/items/{item}/state");
            if self.switches.is_on(SwitchId::M2) {
                let asked = Request::get(&path).body(axum::body::Body::empty()).ok()?;
                Some(self.from_memory(What::State, item, asked).await)
            } else {
                Some(forward::fetch(self, &path).await.reply())
            }
        };
        let (page, state) = tokio::join!(self.from_memory(What::View, item, request), state);
        self.own(esi::assembled(page, state).await)
    }

    /// Answers from memory; one of those who come at once and find nothing there asks the service for all of them.
    async fn from_memory(self: &Arc<Self>, what: What, item: i64, request: Request) -> Response {
        let known = request.headers().clone();
        let (access, path) = (Arc::clone(self), request.uri().path().to_owned());
        match self.cache.get(what, item, async move { forward::fetch(&access, &path).await }).await {
            Ok((kept, false)) => {
                self.count("access", what.name());
                self.own(kept.reply(&known, false))
            }
            // The service made it for this very request.
            Ok((kept, true)) => {
                self.count("service", what.name());
                kept.reply(&known, true)
            }
            Err(other) => {
                let gone = other.status.is_server_error() && self.switches.is_on(SwitchId::L4);
                if gone && let Some(last) = self.cache.last(what, item).await {
                    self.count("access", "static");
                    return self.own(last.without_service(what));
                }
                let own = other.headers.get(TIER).is_some_and(|tier| tier != "service");
                self.count(if own { "access" } else { "service" }, "not-kept");
                other.reply()
            }
        }
    }
}

/// Forgets all that is kept (P7). Every reply to a request that comes after this one's is from then on.
async fn purge(State(access): State<Arc<Access>>) -> Response {
    let purges = access.cache.purge();
    tracing::info!(purges, "purged");
    fresh(axum::http::StatusCode::OK, &json!({ "purges": purges }))
}

async fn metrics(State(access): State<Arc<Access>>) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    registry.register("access_requests", "Requests by who answered them, and how", access.served.clone());
    registry.register(FUNNEL_DROPPED.0, FUNNEL_DROPPED.1, access.dropped.clone());
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Problem::because(Kind::Internal, error))?;
    text.insert_str(0, &format!("# TYPE access_in_flight gauge\naccess_in_flight {}\n", access.admission.in_flight()));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response())
}

/// It is ready when it listens: what it cannot get from a service, it can say so of.
async fn healthz(State(access): State<Arc<Access>>) -> Response {
    let services: Vec<String> = access.services.iter().map(|service| service.address().to_string()).collect();
    fresh(axum::http::StatusCode::OK, &json!({"ready": true, "services": services}))
}
