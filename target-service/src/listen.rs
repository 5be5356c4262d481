//! Binding and serving on TCP and unix sockets alike.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::serve::{Listener, ListenerExt as _};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::config::Address;

/// A bound listener.
pub enum Bound {
    /// On TCP.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    address: Address,
    cause: io::Error,
}

/// Binds the address, and says which one it became.
pub async fn bind(address: &Address) -> Result<(Bound, Address), BindError> {
    let complain = |cause| BindError { address: address.clone(), cause };
    match address {
        Address::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await.map_err(complain)?;
            let actual = listener.local_addr().map_err(complain)?;
            Ok((Bound::Tcp(listener), Address::Tcp(actual)))
        }
        Address::Unix(path) => {
            remove_stale(path).map_err(complain)?;
            let listener = UnixListener::bind(path).map_err(complain)?;
            Ok((Bound::Unix(listener), address.clone()))
        }
    }
}

/// A process that was killed leaves its socket file behind. Anything but a socket is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The body of a reply: whole, or as the routes make it.
pub type ReplyBody = Either<Full<Bytes>, Body>;

/// What answers requests.
pub trait Serves: Clone + Send + Sync + 'static {
    /// The answer to a request.
    fn answer(self, request: Request<Incoming>) -> impl Future<Output = Response<ReplyBody>> + Send;
}

impl Serves for Router {
    async fn answer(self, request: Request<Incoming>) -> Response<ReplyBody> {
        match TowerToHyperService::new(self).call(request).await {
            Ok(response) => response.map(Either::Right),
            Err(never) => match never {},
        }
    }
}

/// How long a client may take to send a request's head, counted from the end of the one before: a connection that stays
/// silent, or half a head, does not occupy the service for ever.
const HEAD_TIME: Duration = Duration::from_secs(60);

impl Bound {
    /// Serves until the signal, then finishes the requests under way. HTTP/1.1 and HTTP/2 are both spoken, with TLS if there
    /// is an acceptor for it.
    pub async fn serve(self, what: impl Serves, tls: Option<TlsAcceptor>, stop: impl Future<Output = ()> + Send) {
        match self {
            Self::Tcp(listener) => {
                let listener = listener.tap_io(|stream| {
                    // Replies are small, and waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY could not be set");
                    }
                });
                serve(listener, what, tls, stop).await;
            }
            Self::Unix(listener) => serve(listener, what, tls, stop).await,
        }
    }
}

/// What `axum::serve` does, with a limit on the time for a head, which it has no setting for.
async fn serve<L: Listener>(
    mut listener: L,
    what: impl Serves,
    tls: Option<TlsAcceptor>,
    stop: impl Future<Output = ()> + Send,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    http.http2().timer(TokioTimer::new());
    let under_way = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (http, what, tls, watcher) = (http.clone(), what.clone(), tls.clone(), under_way.watcher());
        tokio::spawn(async move {
            match tls {
                None => answer(&http, stream, what, watcher).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
                    Ok(Ok(stream)) => answer(&http, stream, what, watcher).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS was agreed on"),
                    Err(_) => tracing::debug!("no TLS was agreed on in time"),
                },
            }
        });
    }
    // Nobody is left waiting to be accepted.
    drop(listener);
    under_way.shutdown().await;
}

/// Answers the requests of one connection to its end. Which HTTP it speaks shows with its first bytes, and the limit on a
/// head only holds from then on, so there is one on the time to the first request as well.
async fn answer<S>(http: &auto::Builder<TokioExecutor>, stream: S, what: impl Serves, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let answer = what.clone().answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let silence = async {
        tokio::time::sleep(HEAD_TIME).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let connection = watcher.watch(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended badly");
            }
        }
        () = silence => tracing::debug!("a connection asked for nothing"),
    }
}
