//! The live page of a drill: one HTML file without any outside asset, snapshots pushed as server-sent events, and the few things
//! that people can do. It never sees the run, only the desk.
//!
//! On loopback everybody on this machine may use it. Elsewhere a token is asked for, which is a part of the address that is
//! printed. A page of somebody else's in the same browser can do nothing: names that lead here by a trick are refused (`Host`), and
//! so is whatever is sent from a page of another origin.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;

const PAGE: &str = include_str!("../../templates/live.html");
/// The header in which the page sends its token.
const TOKEN: &str = "x-drill-token";
/// The page takes nothing from anywhere else, and nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// How long those who look have to take the last snapshot.
const FAREWELL: Duration = Duration::from_secs(2);
/// Alerts of one message that are read.
const MOST_ALERTS: usize = 100;

/// The page under way.
#[derive(Debug)]
pub struct Page {
    /// Where it is, with its token if it needs one.
    pub url: String,
    serving: JoinHandle<std::io::Result<()>>,
    over: CancellationToken,
}

#[derive(Debug)]
struct Served {
    desk: Arc<Desk>,
    token: Option<String>,
    over: CancellationToken,
}

impl Page {
    /// Serves it to whoever comes to this socket.
    ///
    /// # Errors
    /// What the system says.
    pub fn serve(desk: Arc<Desk>, listener: TcpListener) -> std::io::Result<Page> {
        let address = listener.local_addr()?;
        let token = (!address.ip().is_loopback()).then(|| format!("{:032x}", rand::random::<u128>()));
        let url = match &token {
            None => format!("http://{address}/"),
            Some(token) => format!("http://{}/?token={token}", reached_at(address)),
        };
        let over = CancellationToken::new();
        let served = Arc::new(Served { desk, token, over: over.clone() });
        let ended = over.clone().cancelled_owned();
        let serving = async move { axum::serve(listener, router(served)).with_graceful_shutdown(ended).await };
        Ok(Page { url, serving: tokio::spawn(serving), over })
    }

    /// Ends it, when everybody who looks has the last snapshot.
    pub async fn end(self) {
        self.over.cancel();
        let _ = tokio::time::timeout(FAREWELL, self.serving).await;
    }
}

/// An address that means "all of this machine's" is no place to go to.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => own_address().unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    SocketAddr::new(ip, address.port())
}

/// The address that this machine would be reached at from its own network: no packet is sent to find out.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/state", get(state))
        .route("/ack/{step}", post(acknowledge))
        .route("/stop", post(stop))
        .route("/alerts", post(alerts))
        .layer(middleware::from_fn_with_state(served.clone(), guard))
        .with_state(served)
}

type Desked = State<Arc<Served>>;

#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    token: String,
}

/// Who may look, and who may do something.
async fn guard(State(served): Desked, Query(asked): Query<Asked>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Some(wanted) = &served.token {
        let bearer = text_of(headers, "authorization").and_then(|text| text.strip_prefix("Bearer "));
        let given = [text_of(headers, TOKEN), bearer, Some(asked.token.as_str())];
        if !given.into_iter().flatten().any(|given| same(given, wanted)) {
            let text = "The address that the drill printed has a token: use that one.\n";
            return (StatusCode::UNAUTHORIZED, text).into_response();
        }
    }
    let host = text_of(headers, "host").unwrap_or_default();
    if !is_address(host) {
        return (StatusCode::FORBIDDEN, "Ask for this page by its address, not by a name.\n").into_response();
    }
    if request.method() == Method::POST {
        let origin = text_of(headers, "origin");
        if origin.is_some_and(|origin| origin != format!("http://{host}")) {
            return (StatusCode::FORBIDDEN, "This was sent from a page of another origin.\n").into_response();
        }
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Compares without telling by its time how much is right.
fn same(given: &str, wanted: &str) -> bool {
    let pairs = given.bytes().zip(wanted.bytes());
    given.len() == wanted.len() && pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Whether a host is an address or this machine's own name, which no other site's name server can claim.
fn is_address(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)
}

async fn state(State(served): Desked) -> impl IntoResponse {
    axum::Json(served.desk.snapshot())
}

/// The curves so far, then a snapshot at each tick until the drill is over.
async fn events(State(served): Desked) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let snapshots = served.desk.subscribe();
    let curves = Event::default().event("curves").data(served.desk.curves());
    let first = serde_json::to_string(&served.desk.snapshot()).unwrap_or_default();
    let first = Event::default().event("snapshot").data(first);
    let begin = vec![curves, first].into_iter();
    let stream = stream::unfold((begin, snapshots, served), |(mut begin, mut snapshots, served)| async move {
        if let Some(event) = begin.next() {
            return Some((Ok(event), (begin, snapshots, served)));
        }
        loop {
            tokio::select! {
                biased;
                changed = snapshots.changed() => changed.ok()?,
                () = served.over.cancelled() => return None,
            }
            let text = snapshots.borrow_and_update().clone();
            if !text.is_empty() {
                return Some((Ok(Event::default().event("snapshot").data(&*text)), (begin, snapshots, served)));
            }
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

#[derive(Debug, Default, Deserialize)]
struct Who {
    #[serde(default)]
    by: String,
}

async fn acknowledge(State(served): Desked, Path(step): Path<String>, body: axum::body::Bytes) -> Response {
    let Who { by } = serde_json::from_slice(&body).unwrap_or_default();
    told(served.desk.acknowledge(&step, &by, "page"))
}

async fn stop(State(served): Desked) -> Response {
    served.desk.press_stop("page");
    told(Ok(()))
}

/// The form in which Alertmanager calls webhooks: a list of alerts, each with its status, labels and annotations.
async fn alerts(State(served): Desked, body: axum::body::Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(alerts) = message.get("alerts").and_then(Value::as_array) else {
        let help = "send what Alertmanager sends: {\"alerts\": [{\"status\": \"firing\", \"labels\": {\"alertname\": \"...\"}}]}";
        return told(Err(help.to_owned()));
    };
    let name_of = |alert: &Value| alert.pointer("/labels/alertname").and_then(Value::as_str).map(str::to_owned);
    let named = |alert: &Value| name_of(alert).filter(|name| !name.trim().is_empty());
    for alert in alerts.iter().take(MOST_ALERTS) {
        let text = |pointer: &str| alert.pointer(pointer).and_then(Value::as_str);
        // One that says nothing must not become the moment at which a fault was detected.
        let Some(name) = &named(alert) else { continue };
        let summary = text("/annotations/summary").or(text("/annotations/description")).unwrap_or_default();
        served.desk.alert(name, text("/status").unwrap_or("firing"), summary);
    }
    match alerts.iter().position(|alert| named(alert).is_none()) {
        Some(number) => told(Err(format!("alert {} has no labels.alertname; the others were taken", number + 1))),
        None => told(Ok(())),
    }
}

fn told(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => (StatusCode::CONFLICT, axum::Json(serde_json::json!({ "error": why }))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_here_by_a_trick_are_no_address() {
        for host in ["127.0.0.1:8080", "127.0.0.1", "[::1]:80", "10.1.2.3:1", "localhost:9"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:80", "127.0.0.1.evil.example:80"] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_the_same_only_if_all_of_it_is() {
        assert!(same("0123", "0123"));
        assert!(!same("0124", "0123") && !same("012", "0123") && !same("", "0123"));
    }
}
