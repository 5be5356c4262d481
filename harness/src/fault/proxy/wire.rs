//! What the proxy understands of the bytes it forwards: where calls begin and where their replies end.
//!
//! The parsers here only listen. They are incremental, never change or hold back a byte, and when a stream stops making
//! sense to them (encryption, an upgrade, a malformed length) they stop counting on that connection for good.

use super::Protocol;
use super::chunk::ReplyPart;

/// The parsers of one connection.
#[derive(Debug)]
pub(crate) enum Wire {
    Opaque,
}

/// A reply that ends inside a chunk: the offset of the first byte after it, and what is known about it.
pub(crate) type ReplyEnd = (usize, ReplyPart);

impl Wire {
    pub(crate) fn new(_protocol: Protocol) -> Self {
        Self::Opaque
    }

    /// Whether the texts of calls are kept from now on, so that replies can be told apart by them.
    pub(crate) fn watch(&mut self, _watch: bool) {}

    /// Listens to bytes from the client; the number of calls among them.
    pub(crate) fn up(&mut self, _bytes: &[u8]) -> u64 {
        0
    }

    /// Listens to bytes from the upstream; adds the replies that end among them.
    pub(crate) fn down(&mut self, _bytes: &[u8], _ends: &mut Vec<ReplyEnd>) {}

    /// Listens to the end of the upstream's bytes: the reply that ends with it, if one was under way.
    pub(crate) fn down_end(&mut self) -> Option<ReplyPart> {
        None
    }

    /// The call whose reply is under way or awaited.
    pub(crate) fn current(&self) -> Option<ReplyPart> {
        None
    }
}
