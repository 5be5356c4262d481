//! Calls to other processes: kept connections over TCP or a Unix socket, and a limit on the time and on the size of a reply.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, Limited};
use hyper::Uri;
use hyper::body::Incoming;
use hyper::http::{HeaderValue, Method, Request, Response, header};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use crate::config::Address;

/// No reply that is read whole may be larger.
const MAX_REPLY_BYTES: usize = 256 * 1024;
/// A connection that was idle for longer may be gone without our knowing.
const IDLE: Duration = Duration::from_secs(20);

/// Why a call has no reply. Unless nothing was sent, the other side may have done what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The circuit breaker is open: nothing was sent.
    #[error("it is not asked for the moment, since it did not answer of late")]
    CutOff,
    /// It took too long.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    /// No connection, or one that broke.
    #[error("{0}")]
    Broken(String),
    /// The reply is larger than any that makes sense, or its body broke off.
    #[error("the reply cannot be read: {0}")]
    Unreadable(String),
}

/// One other process.
#[derive(Clone, Debug)]
pub struct Outbound {
    client: Client<Connector, Body>,
    address: Address,
}

impl Outbound {
    /// Calls go to `address`. Connects to nothing yet.
    pub fn new(address: Address) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(256)
            .set_host(false)
            .build(Connector { address: address.clone() });
        Self { client, address }
    }

    /// Where calls go to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request, whose URI holds a path, and gives the reply as soon as its head is there.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // The pool keeps connections by authority, and there is only one here.
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority("upstream")
            .path_and_query(path)
            .build()
            .unwrap_or_else(|_| Uri::from_static("http://upstream/"));
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("upstream"));
        self.client.request(request).await
    }

    /// Sends a small request and reads the whole reply, all within a limit.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<(u16, Bytes), CallError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).map_err(|error| CallError::Broken(error.to_string()))?;
        let exchange = async {
            let reply = self.send(request).await.map_err(|error| CallError::Broken(explain(&error)))?;
            let status = reply.status().as_u16();
            let body = Limited::new(reply.into_body(), MAX_REPLY_BYTES).collect().await;
            let body = body.map_err(|error| CallError::Unreadable(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

/// The library's own message hides the cause, which is what a person needs.
pub fn explain(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Connects to one address, whatever the URI says.
#[derive(Clone, Debug)]
struct Connector {
    address: Address,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.address.clone();
        Box::pin(async move {
            Ok(TokioIo::new(match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Stream::Tcp(stream)
                }
                Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            }))
        })
    }
}

/// A connection of either kind.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
