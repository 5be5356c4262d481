//! Binding and serving on TCP and unix sockets alike.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt as _};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};

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

/// How long a client may take to send a request's head, counted from the end of the one before: a connection that stays
/// silent, or half a head, does not occupy the service for ever.
const HEAD_TIME: Duration = Duration::from_secs(60);

impl Bound {
    /// Serves until the signal, then finishes the requests under way.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()> + Send) {
        match self {
            Self::Tcp(listener) => {
                let listener = listener.tap_io(|stream| {
                    // Replies are small, and waiting to fill a packet would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY could not be set");
                    }
                });
                serve(listener, router, stop).await;
            }
            Self::Unix(listener) => serve(listener, router, stop).await,
        }
    }
}

/// What `axum::serve` does, with a limit on the time for a head, which it has no setting for.
async fn serve<L: Listener>(mut listener: L, router: Router, stop: impl Future<Output = ()> + Send) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let under_way = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = under_way.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }
    // Nobody is left waiting to be accepted.
    drop(listener);
    under_way.shutdown().await;
}
