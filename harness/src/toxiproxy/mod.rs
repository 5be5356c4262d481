//! Toxiproxy's HTTP API, so that tests which have a client for it can use our proxies: by themselves (`seckill proxy`), or
//! those of a running stack (`seckill stack up`).
//!
//! This module owns the API: its addresses, the shapes of its JSON, its status codes and errors, which are those of
//! Toxiproxy 2. What a toxic does is [`crate::fault::toxic`]'s business. Where Toxiproxy would listen for everybody or lead
//! anywhere, this stays on this machine unless it is told otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Captured, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit;

mod addresses;
mod collection;
mod toxics;

use addresses::may_listen;
use collection::AskedProxy;
pub use collection::{Collection, Links};

/// The version of Toxiproxy whose API this is; clients look at it to know what they may ask for.
const VERSION: &str = "2.12.0";

/// Why a request is not carried out, as Toxiproxy writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    error: String,
    status: u16,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { error: error.into(), status: status.as_u16() }
    }

    fn bad(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error)
    }

    fn forbidden(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, error)
    }

    fn absent(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error)
    }

    fn conflict(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, error)
    }

    fn internal(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self)).into_response()
    }
}

/// What `seckill proxy` was asked for.
#[derive(Debug)]
pub struct Service {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Proxies to begin with: a JSON file as Toxiproxy's server takes it.
    pub config: Option<PathBuf>,
    /// Besides loopback, where upstreams may be, and proxies and the API may listen.
    pub allowed: Vec<IpNet>,
    /// Chooses the connections that a toxic strikes.
    pub seed: u64,
}

/// Runs the API until it is cancelled; the exit code. Its address and those of the configured proxies go to stdout.
pub fn run(service: Service, runtime: &tokio::runtime::Runtime, cancel: &CancellationToken) -> i32 {
    let Service { listen, config, allowed, seed } = service;
    let complain = |message: String, code: i32| {
        eprintln!("error: {message}");
        code
    };
    if !may_listen(listen, &allowed) {
        let message = format!("--listen {listen} is not on loopback\nhelp: name its private network: --allow NETWORK");
        return complain(message, exit::USAGE);
    }
    let collection = Arc::new(Collection::new(allowed, seed));
    let configured = match config.map(|path| configured(&collection, &path)).transpose() {
        Ok(views) => views.unwrap_or_default(),
        Err(message) => return complain(message, exit::USAGE),
    };
    let listener = match runtime.block_on(TcpListener::bind(listen)) {
        Ok(listener) => listener,
        Err(error) => {
            let help = "help: --listen 127.0.0.1:0 lets the kernel choose a port";
            return complain(format!("cannot listen on {listen}: {error}\n{help}"), exit::NO_STACK);
        }
    };
    let address = listener.local_addr().unwrap_or(listen);
    println!("toxiproxy API  {address}");
    configured.iter().for_each(|view| println!("{view}"));
    match runtime.block_on(serve(listener, collection, cancel.clone())) {
        Ok(()) => exit::PASS,
        Err(error) => complain(format!("the API ended: {error}"), exit::INTERNAL),
    }
}

fn configured(collection: &Collection, path: &Path) -> Result<Vec<collection::View>, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let help = "help: a list such as [{\"name\": \"redis\", \"listen\": \"127.0.0.1:26379\", \"upstream\": \"127.0.0.1:6379\"}]";
    let text = std::fs::read(path).map_err(|error| told(error.to_string()))?;
    let asked = serde_json::from_slice(&text).map_err(|error| told(format!("{error}\n{help}")))?;
    collection.populate(asked).map_err(|refusal| told(format!("{}\n{help}", refusal.error)))
}

/// The API for the proxies of a running stack, beside it.
#[derive(Debug)]
pub struct Beside {
    /// Where it listens: on loopback, on a port that the kernel chose.
    pub address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
    cancel: CancellationToken,
}

/// How long a request may still take when the API ends.
const FAREWELL: Duration = Duration::from_secs(2);

impl Beside {
    /// Starts it.
    ///
    /// # Errors
    /// A proxy has been shut down, or the system refuses a port.
    pub async fn start(links: Arc<dyn Links>) -> Result<Beside, String> {
        let collection = Collection::lent(&links).map_err(|error| error.to_string())?;
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listening = listening.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listening.map_err(|error| format!("no port for the API of its proxies: {error}"))?;
        let cancel = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::new(collection), cancel.clone()));
        Ok(Beside { address, serving, cancel })
    }

    /// Ends it, and waits until it has let go of the proxies.
    pub async fn end(self) {
        self.cancel.cancel();
        let _ = tokio::time::timeout(FAREWELL, self.serving).await;
    }
}

/// Serves the API until it is cancelled.
///
/// # Errors
/// What the system says.
pub async fn serve(
    listener: TcpListener,
    collection: Arc<Collection>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(collection)).with_graceful_shutdown(cancel.cancelled_owned()).await
}

type Book = State<Arc<Collection>>;
type Name = Captured<String>;
type Names = Captured<(String, String)>;

fn router(collection: Arc<Collection>) -> Router {
    let version = format!("{{\"version\": \"{VERSION}\"}}\n");
    let json = [(header::CONTENT_TYPE, "application/json;charset=utf-8")];
    Router::new()
        .route("/version", get(move || async move { (json, version) }))
        .route("/metrics", get(metrics))
        .route("/reset", post(reset))
        .route("/populate", post(populate))
        .route("/proxies", get(proxies).post(add))
        .route("/proxies/{proxy}", get(view).post(change).patch(change).delete(remove))
        .route("/proxies/{proxy}/toxics", get(toxics).post(add_toxic))
        .route(
            "/proxies/{proxy}/toxics/{toxic}",
            get(toxic).post(change_toxic).patch(change_toxic).delete(remove_toxic),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(middleware::from_fn(no_browsers))
        .with_state(collection)
}

/// A page in somebody's browser can send requests to loopback; no program that tests something is a browser.
async fn no_browsers(request: Request, next: Next) -> Response {
    let agent = request.headers().get(header::USER_AGENT);
    if agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/")) {
        return (StatusCode::FORBIDDEN, "User agent not allowed\n").into_response();
    }
    next.run(request).await
}

/// Does what waits for the threads of proxies, or for names to be resolved, where waiting holds nobody up.
async fn done<T: Send + 'static>(
    State(book): Book,
    work: impl FnOnce(&Collection) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let working = tokio::task::spawn_blocking(move || work(&book));
    working.await.unwrap_or_else(|error| Err(Refusal::internal(error.to_string())))
}

fn answer<T: Serialize>(status: StatusCode, result: Result<T, Refusal>) -> Response {
    match result {
        Ok(value) => (status, axum::Json(value)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn nothing(result: Result<(), Refusal>) -> Response {
    result.map(|()| StatusCode::NO_CONTENT).into_response()
}

/// Clients do not always say that what they send is JSON.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("bad request body: {error}")))
}

async fn metrics(State(book): Book) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], book.metrics()).into_response()
}

async fn reset(book: Book) -> Response {
    nothing(done(book, Collection::reset).await)
}

async fn populate(book: Book, body: Bytes) -> Response {
    let all = done(book, move |book| book.populate(read(&body)?)).await;
    answer(StatusCode::CREATED, all.map(|proxies| serde_json::json!({ "proxies": proxies })))
}

async fn proxies(book: Book) -> Response {
    answer(StatusCode::OK, done(book, |book| Ok(book.views())).await)
}

async fn add(book: Book, body: Bytes) -> Response {
    answer(StatusCode::CREATED, done(book, move |book| book.add(read(&body)?)).await)
}

async fn view(book: Book, Captured(name): Name) -> Response {
    answer(StatusCode::OK, done(book, move |book| book.view(&name)).await)
}

async fn change(book: Book, Captured(name): Name, body: Bytes) -> Response {
    let change = move |book: &Collection| {
        // Which proxy it is comes first: one that does not exist is not found, whatever was sent.
        book.view(&name)?;
        book.change(&name, &read::<AskedProxy>(&body)?)
    };
    answer(StatusCode::OK, done(book, change).await)
}

async fn remove(book: Book, Captured(name): Name) -> Response {
    nothing(done(book, move |book| book.remove(&name)).await)
}

async fn toxics(book: Book, Captured(proxy): Name) -> Response {
    answer(StatusCode::OK, done(book, move |book| book.toxics(&proxy)).await)
}

async fn add_toxic(book: Book, Captured(proxy): Name, body: Bytes) -> Response {
    let add = move |book: &Collection| {
        book.view(&proxy)?;
        book.add_toxic(&proxy, read(&body)?)
    };
    answer(StatusCode::OK, done(book, add).await)
}

async fn toxic(book: Book, Captured((proxy, toxic)): Names) -> Response {
    answer(StatusCode::OK, done(book, move |book| book.toxic(&proxy, &toxic)).await)
}

async fn change_toxic(book: Book, Captured((proxy, toxic)): Names, body: Bytes) -> Response {
    let change = move |book: &Collection| {
        book.toxic(&proxy, &toxic)?;
        book.change_toxic(&proxy, &toxic, &read(&body)?)
    };
    answer(StatusCode::OK, done(book, change).await)
}

async fn remove_toxic(book: Book, Captured((proxy, toxic)): Names) -> Response {
    nothing(done(book, move |book| book.remove_toxic(&proxy, &toxic)).await)
}
