//! What the proxy understands of the bytes it forwards: where calls begin and where their replies end.
//!
//! The parsers here only listen. They are incremental, never change or hold back a byte, and when a stream stops making
//! sense to them (encryption, an upgrade, a malformed length) they stop counting on that connection for good.

use super::Protocol;
use super::chunk::{CallPart, ReplyPart};
use super::http::Http;
use super::postgres::Postgres;
use super::redis::Redis;

/// Calls whose replies are awaited on one connection. A client that pipelines deeper than this is not listened to any
/// more.
pub(super) const IN_FLIGHT: usize = 4096;

/// The parsers of one connection.
#[derive(Debug)]
pub(crate) enum Wire {
    Opaque,
    Http(Box<Http>),
    Postgres(Box<Postgres>),
    Redis(Box<Redis>),
}

/// A reply that ends inside a chunk: the offset of the first byte after it, and what is known about it.
pub(crate) type ReplyEnd = (usize, ReplyPart);
/// A call that ends inside a chunk, likewise.
pub(crate) type CallEnd = (usize, CallPart);

impl Wire {
    pub(crate) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Opaque => Self::Opaque,
            Protocol::Http => Self::Http(Box::default()),
            Protocol::Postgres => Self::Postgres(Box::default()),
            Protocol::Redis => Self::Redis(Box::default()),
        }
    }

    /// Whether the texts of calls are kept from now on, so that calls and replies can be told apart.
    pub(crate) fn watch(&mut self, watch: bool) {
        match self {
            Self::Opaque => {}
            Self::Http(http) => http.watch = watch,
            Self::Postgres(postgres) => postgres.watch = watch,
            Self::Redis(redis) => redis.watch = watch,
        }
    }

    /// Listens to bytes from the client; the number of calls among them. While the texts of calls are kept, adds those that
    /// end among the bytes.
    pub(crate) fn up(&mut self, bytes: &[u8], ends: &mut Vec<CallEnd>) -> u64 {
        match self {
            Self::Opaque => 0,
            Self::Http(http) => http.up(bytes, ends),
            Self::Postgres(postgres) => postgres.up(bytes, ends),
            Self::Redis(redis) => redis.up(bytes, ends),
        }
    }

    /// The call of which a part has come.
    pub(crate) fn asking(&self) -> Option<CallPart> {
        match self {
            Self::Opaque => None,
            Self::Http(http) => http.asking(),
            Self::Postgres(postgres) => postgres.asking(),
            Self::Redis(redis) => redis.asking(),
        }
    }

    /// The oldest call was answered by somebody else, so no reply to it will come.
    pub(crate) fn answered(&mut self) {
        if let Self::Http(http) = self {
            http.answered();
        }
    }

    /// Listens to bytes from the upstream; adds the replies that end among them.
    pub(crate) fn down(&mut self, bytes: &[u8], ends: &mut Vec<ReplyEnd>) {
        match self {
            Self::Opaque => {}
            Self::Http(http) => http.down(bytes, ends),
            Self::Postgres(postgres) => postgres.down(bytes, ends),
            Self::Redis(redis) => redis.down(bytes, ends),
        }
    }

    /// Listens to the end of the upstream's bytes: the reply that ends with it, if one was under way.
    pub(crate) fn down_end(&mut self) -> Option<ReplyPart> {
        match self {
            Self::Http(http) => http.down_end(),
            Self::Opaque | Self::Postgres(_) | Self::Redis(_) => None,
        }
    }

    /// The call whose reply is under way or awaited.
    pub(crate) fn current(&self) -> Option<ReplyPart> {
        match self {
            Self::Opaque => None,
            Self::Http(http) => http.current(),
            Self::Postgres(postgres) => postgres.current(),
            Self::Redis(redis) => redis.current(),
        }
    }
}
