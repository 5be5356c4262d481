//! A virtual buyer's connection: the one way in which requests leave the harness, whatever the protocol.
//!
//! A request is rendered once, as HTTP/1.1, and handed to [`Connection::exchange`]. Each protocol has a file of its own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

pub mod entry;
mod http1;
mod http2;
mod stream;
#[cfg(test)]
mod tests;

pub use entry::Entry;

/// Replies are pages and small JSON; more than this is not a shop's reply.
const MAX_REPLY: usize = 16 << 20;

/// Why no reply was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Provably no byte reached the kernel: the attempt cannot have taken effect.
    NotSent,
    /// Not sent either, because this machine had no descriptor, port or memory left for another connection: what is
    /// measured then is the generator.
    Exhausted,
    /// Not sent either: no encryption was agreed on (TLS).
    Handshake,
    /// The other side said, as HTTP/2 lets it, that it had not looked at the request: it cannot have taken effect.
    Refused,
    /// The whole reply did not come in time.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The stream ended before the reply did.
    EarlyEnd,
    /// What came is not HTTP.
    Malformed,
}

impl Broken {
    /// Whether the request certainly took no effect.
    pub fn took_no_effect(self) -> bool {
        matches!(self, Broken::NotSent | Broken::Exhausted | Broken::Handshake | Broken::Refused)
    }

    /// The reason as it stands in the history.
    pub fn reason(self) -> &'static str {
        match self {
            Broken::NotSent => "not-sent",
            Broken::Exhausted => "generator-exhausted",
            Broken::Handshake => "tls-handshake",
            Broken::Refused => "refused-stream",
            Broken::Timeout => "timeout",
            Broken::Reset => "reset",
            Broken::EarlyEnd => "early-end",
            Broken::Malformed => "malformed",
        }
    }
}

/// A reply, read whole. It borrows the connection's buffer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Seconds of `Retry-After`, if it was given as a number.
    pub retry_after_s: Option<u32>,
    /// The last part of the path in `Location`, if there is one: `17` of `/tickets/17`.
    pub location: Option<&'a str>,
    /// The head as it came: the status line and the headers.
    pub head: &'a [u8],
    /// The body without its transfer coding.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The values of a header, in the order of the reply. The head is looked through anew, since few steps ask.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let (key, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A virtual buyer's connection. It reconnects when it has to.
#[derive(Debug)]
pub struct Connection(Transport);

/// A connection by its protocol. Plain HTTP/1.1 is neither boxed nor dispatched dynamically: it pays for no other.
#[derive(Debug)]
enum Transport {
    Http1(http1::Connection),
    Http2(http2::Connection),
}

/// A request under way.
pub enum Exchange<'a> {
    /// Over HTTP/1.1.
    Http1(http1::Exchange<'a>),
    /// Over HTTP/2. Boxed, so that the plain case is not moved about at this one's size.
    Http2(Pin<Box<dyn Future<Output = Result<Reply<'a>, Broken>> + Send + 'a>>),
}

impl<'a> Future for Exchange<'a> {
    type Output = Result<Reply<'a>, Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Exchange::Http1(exchange) => Pin::new(exchange).poll(cx),
            Exchange::Http2(exchange) => exchange.as_mut().poll(cx),
        }
    }
}

/// The beginning of a reply that may be a stream of events.
#[derive(Debug)]
pub enum Opened<'a> {
    /// It is one; its bytes come with [`Connection::more`].
    Stream,
    /// It is a reply as any other, read whole.
    Reply(Reply<'a>),
}

impl Connection {
    /// A connection to `entry`, made when it is first needed.
    pub fn new(entry: &Entry) -> Connection {
        let entry = entry.clone();
        Connection(if entry.http2 {
            Transport::Http2(http2::Connection::new(entry))
        } else {
            Transport::Http1(http1::Connection::new(entry))
        })
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        match &mut self.0 {
            Transport::Http1(connection) => connection.warm(limit).await,
            Transport::Http2(connection) => connection.warm(limit).await,
        }
    }

    /// Sends a request and reads the whole reply within `limit`.
    ///
    /// # Errors
    /// [`Broken`] says what is known of an attempt without a reply.
    pub fn exchange<'a>(&'a mut self, request: &'a [u8], limit: Duration) -> Exchange<'a> {
        self.exchange_by(request, Instant::now() + limit)
    }

    /// The same before a deadline, for who knows the time already.
    pub fn exchange_by<'a>(&'a mut self, request: &'a [u8], deadline: Instant) -> Exchange<'a> {
        match &mut self.0 {
            Transport::Http1(connection) => Exchange::Http1(connection.exchange(request, deadline)),
            Transport::Http2(connection) => Exchange::Http2(Box::pin(connection.exchange(request, deadline))),
        }
    }

    /// Sends a request whose reply may be a stream of events, and reads its head within `limit`; a reply that is none is
    /// read whole.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    pub async fn open(&mut self, request: &[u8], limit: Duration) -> Result<Opened<'_>, Broken> {
        match &mut self.0 {
            Transport::Http1(connection) => connection.open(request, limit).await,
            Transport::Http2(connection) => connection.open(request, limit).await,
        }
    }

    /// The next bytes of a stream; none at its end. Nothing is lost if this is given up.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn more(&mut self) -> Result<Option<&[u8]>, Broken> {
        match &mut self.0 {
            Transport::Http1(connection) => connection.more().await,
            Transport::Http2(connection) => connection.more().await,
        }
    }

    /// Ends a stream whose rest nobody wants.
    pub fn close(&mut self) {
        match &mut self.0 {
            Transport::Http1(connection) => connection.close(),
            Transport::Http2(connection) => connection.close(),
        }
    }
}

/// Whether a content type is that of a stream of events.
fn is_event_stream(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Why a connection could not be made: because of the other side, or of this one.
fn not_connected(error: &io::Error) -> Broken {
    let ours =
        [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| ours.contains(&code)) { Broken::Exhausted } else { Broken::NotSent }
}
