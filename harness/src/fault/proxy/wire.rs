//! What the proxy understands of the bytes it forwards: where calls begin and where their replies end.
//!
//! The parsers here only listen. They are incremental, never change or hold back a byte, and when a stream stops making
//! sense to them (encryption, an upgrade, a malformed length) they stop counting on that connection for good.

use super::Protocol;
use super::chunk::ReplyPart;
use super::http::Http;
use super::postgres::Postgres;

/// Calls whose replies are awaited on one connection. A client that pipelines deeper than this is not listened to any
/// more.
pub(super) const IN_FLIGHT: usize = 4096;

/// The parsers of one connection.
#[derive(Debug)]
pub(crate) enum Wire {
    Opaque,
    Http(Box<Http>),
    Postgres(Box<Postgres>),
}

/// A reply that ends inside a chunk: the offset of the first byte after it, and what is known about it.
pub(crate) type ReplyEnd = (usize, ReplyPart);

impl Wire {
    pub(crate) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Opaque => Self::Opaque,
            Protocol::Http => Self::Http(Box::default()),
            Protocol::Postgres => Self::Postgres(Box::default()),
        }
    }

    /// Whether the texts of calls are kept from now on, so that replies can be told apart by them.
    pub(crate) fn watch(&mut self, watch: bool) {
        match self {
            Self::Opaque => {}
            Self::Http(http) => http.watch = watch,
            Self::Postgres(postgres) => postgres.watch = watch,
        }
    }

    /// Listens to bytes from the client; the number of calls among them.
    pub(crate) fn up(&mut self, bytes: &[u8]) -> u64 {
        match self {
            Self::Opaque => 0,
            Self::Http(http) => http.up(bytes),
            Self::Postgres(postgres) => postgres.up(bytes),
        }
    }

    /// Listens to bytes from the upstream; adds the replies that end among them.
    pub(crate) fn down(&mut self, bytes: &[u8], ends: &mut Vec<ReplyEnd>) {
        match self {
            Self::Opaque => {}
            Self::Http(http) => http.down(bytes, ends),
            Self::Postgres(postgres) => postgres.down(bytes, ends),
        }
    }

    /// Listens to the end of the upstream's bytes: the reply that ends with it, if one was under way.
    pub(crate) fn down_end(&mut self) -> Option<ReplyPart> {
        match self {
            Self::Http(http) => http.down_end(),
            Self::Opaque | Self::Postgres(_) => None,
        }
    }

    /// The call whose reply is under way or awaited.
    pub(crate) fn current(&self) -> Option<ReplyPart> {
        match self {
            Self::Opaque => None,
            Self::Http(http) => http.current(),
            Self::Postgres(postgres) => postgres.current(),
        }
    }
}
