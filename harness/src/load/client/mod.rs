//! A virtual buyer's connection: the one way in which requests leave the harness, whatever the protocol.
//!
//! A request is rendered once, as HTTP/1.1, and handed to [`Connection::exchange`]. Each protocol has a file of its own.

use std::net::SocketAddr;
use std::time::Duration;

mod http1;

/// Why no reply was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Provably no byte reached the kernel: the attempt cannot have taken effect.
    NotSent,
    /// Not sent either, because this machine had no descriptor, port or memory left for another connection: what is
    /// measured then is the generator.
    Exhausted,
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
    /// The reason as it stands in the history.
    pub fn reason(self) -> &'static str {
        match self {
            Broken::NotSent => "not-sent",
            Broken::Exhausted => "generator-exhausted",
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

/// A connection by its protocol. Nothing is boxed or dispatched dynamically, so that the plain case pays for no other.
#[derive(Debug)]
enum Transport {
    Http1(http1::Connection),
}

impl Connection {
    /// A connection to `address`, made when it is first needed.
    pub fn new(address: SocketAddr) -> Connection {
        Connection(Transport::Http1(http1::Connection::new(address)))
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        match &mut self.0 {
            Transport::Http1(connection) => connection.warm(limit).await,
        }
    }

    /// Sends a request and reads the whole reply within `limit`.
    ///
    /// # Errors
    /// [`Broken`] says what is known of an attempt without a reply.
    pub async fn exchange(&mut self, request: &[u8], limit: Duration) -> Result<Reply<'_>, Broken> {
        match &mut self.0 {
            Transport::Http1(connection) => connection.exchange(request, limit).await,
        }
    }
}
