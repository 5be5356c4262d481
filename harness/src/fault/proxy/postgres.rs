//! Listens to the Postgres protocol (version 3): counts calls, and tells where a reply ends and whether it says that
//! something was committed.
//!
//! A call is an `Execute` or a simple `Query`. A reply, here, is everything up to a `ReadyForQuery`: the server commits what
//! a client sent up to its `Sync` before it says that it is ready, so that is the point after which the client must know.
//! A connection that turns to encryption is not listened to any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::chunk::{CallPart, ReplyPart};
use super::wire::{CallEnd, IN_FLIGHT, ReplyEnd};

/// How much of the body of a message is looked at.
const LOOK: usize = 1024;
/// Prepared statements whose texts are remembered per connection; more than this are forgotten all at once.
const STATEMENTS: usize = 4096;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The parsers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Postgres {
    phase: Phase,
    front: Frames,
    back: Frames,
    statements: HashMap<Box<[u8]>, Arc<str>>,
    /// The statement that was bound last; an `Execute` is taken to be about it.
    bound: Option<Arc<str>>,
    /// The statements since the last `Sync`.
    texts: Vec<Arc<str>>,
    /// Requests that await a `ReadyForQuery`, oldest first.
    in_flight: VecDeque<Vec<Arc<str>>>,
    reply: Reply,
    pub(super) watch: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the start-up message, which has no type.
    #[default]
    Start,
    /// After a request for encryption, which is answered by a single byte.
    Encryption,
    Messages,
    Opaque,
}

/// What is known about the reply under way.
#[derive(Debug, Default)]
struct Reply {
    committed: bool,
    /// A `SELECT` with rows: a commit if its text turns out to write.
    selected: bool,
    failed: bool,
    /// The session is inside a transaction, as of the last `ReadyForQuery`.
    in_transaction: bool,
}

impl Postgres {
    pub(super) fn up(&mut self, bytes: &[u8], ends: &mut Vec<CallEnd>) -> u64 {
        let (mut calls, mut at) = (0, 0);
        while at < bytes.len() {
            at += match self.phase {
                Phase::Start => self.start(&bytes[at..]),
                // Nobody may speak before the answer, so this is not the protocol we know.
                Phase::Encryption => {
                    self.phase = Phase::Opaque;
                    return calls;
                }
                Phase::Opaque => return calls,
                Phase::Messages => {
                    let mut front = std::mem::take(&mut self.front);
                    let looks = |kind| if matches!(kind, b'P' | b'B' | b'Q' | b'C') { LOOK } else { 0 };
                    front.feed(&bytes[at..], looks, |kind, body, end| {
                        let alone = self.in_flight.is_empty();
                        calls += u64::from(self.front_message(kind, body));
                        if self.watch && matches!(kind, b'Q' | b'S') {
                            let texts = self.in_flight.back().cloned().unwrap_or_default();
                            // Where a group of messages began is of no interest to anybody.
                            ends.push((at + end, CallPart { first: false, complete: true, texts, alone }));
                        }
                    });
                    self.front = front;
                    bytes.len() - at
                }
            };
        }
        if self.front.lost || self.in_flight.len() > IN_FLIGHT {
            self.phase = Phase::Opaque;
            self.in_flight.clear();
        }
        calls
    }

    /// Takes a message without a type: its length and its code, then a body. Returns the bytes used.
    fn start(&mut self, bytes: &[u8]) -> usize {
        let Some((used, length, code)) = self.front.untyped(bytes) else { return bytes.len() };
        self.phase = match code {
            SSL_REQUEST | GSS_REQUEST => Phase::Encryption,
            CANCEL_REQUEST => Phase::Opaque,
            _ if code >> 16 == 3 && length >= 8 => {
                self.front.left = u64::from(length - 8);
                // The server says that it is ready after the start-up as it does after a call.
                self.in_flight.push_back(Vec::new());
                Phase::Messages
            }
            _ => Phase::Opaque,
        };
        used
    }

    /// Takes note of a message from the client; whether it is a call.
    fn front_message(&mut self, kind: u8, body: &[u8]) -> bool {
        match kind {
            b'P' => self.parse(body),
            b'B' if self.watch => {
                let (_portal, rest) = c_string(body);
                self.bound = self.statements.get(c_string(rest).0).cloned();
            }
            b'C' if body.first() == Some(&b'S') => {
                self.statements.remove(c_string(&body[1..]).0);
            }
            b'E' => {
                self.texts.extend(self.bound.iter().filter(|_| self.watch).cloned());
                return true;
            }
            b'Q' => {
                let texts = if self.watch { vec![text(c_string(body).0)] } else { Vec::new() };
                self.in_flight.push_back(texts);
                return true;
            }
            b'S' => self.in_flight.push_back(std::mem::take(&mut self.texts)),
            _ => {}
        }
        false
    }

    /// Remembers the text of a statement. The unnamed one is used at once, so it is of interest only to a watcher.
    fn parse(&mut self, body: &[u8]) {
        let (name, rest) = c_string(body);
        if name.is_empty() && !self.watch {
            return;
        }
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(name.into(), text(c_string(rest).0));
    }

    pub(super) fn down(&mut self, bytes: &[u8], ends: &mut Vec<ReplyEnd>) {
        let mut skipped = 0;
        match (self.phase, bytes.first()) {
            (Phase::Encryption, Some(b'N')) => {
                self.phase = Phase::Start;
                skipped = 1;
            }
            (Phase::Encryption, Some(_)) => self.phase = Phase::Opaque,
            _ => {}
        }
        if self.phase != Phase::Messages {
            return;
        }
        let mut back = std::mem::take(&mut self.back);
        let looks = |kind| if matches!(kind, b'C' | b'Z') { 32 } else { 0 };
        back.feed(&bytes[skipped..], looks, |kind, body, at| match kind {
            b'C' => self.completed(c_string(body).0),
            b'E' => self.reply.failed = true,
            b'Z' => {
                let reply = self.ready(body.first() != Some(&b'I'));
                ends.extend(reply.map(|reply| (skipped + at, reply)));
            }
            _ => {}
        });
        self.back = back;
        if self.back.lost {
            self.phase = Phase::Opaque;
            self.in_flight.clear();
        }
    }

    /// Takes note of a `CommandComplete`.
    fn completed(&mut self, tag: &[u8]) {
        let verb = tag.split(|byte| *byte == b' ').next().unwrap_or_default();
        let rows = !tag.ends_with(b" 0");
        match verb {
            b"COMMIT" => self.reply.committed = true,
            _ if self.reply.in_transaction => {}
            b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" | b"COPY" if rows => self.reply.committed = true,
            b"CALL" | b"DO" => self.reply.committed = true,
            b"SELECT" if rows => self.reply.selected = true,
            _ => {}
        }
    }

    /// Takes note of a `ReadyForQuery`: the reply that it ends.
    fn ready(&mut self, in_transaction: bool) -> Option<ReplyPart> {
        let reply = std::mem::replace(&mut self.reply, Reply { in_transaction, ..Reply::default() });
        let texts = self.in_flight.pop_front()?;
        let wrote = reply.committed || (reply.selected && texts.iter().any(|text| writes(text)));
        // What ran outside a transaction and was followed by BEGIN is not committed by the time of this message.
        let committed = wrote && !reply.failed && !in_transaction;
        Some(ReplyPart { complete: true, texts, committed, failed: reply.failed })
    }

    /// A part of a group of messages. What it is about is known when it ends, and nothing is carried out before.
    pub(super) fn asking(&self) -> Option<CallPart> {
        (self.phase == Phase::Messages).then(CallPart::default)
    }

    pub(super) fn current(&self) -> Option<ReplyPart> {
        if self.phase == Phase::Opaque {
            return None;
        }
        self.in_flight.front().map(|texts| ReplyPart { texts: texts.clone(), ..ReplyPart::default() })
    }
}

/// The bytes before a NUL and those behind it.
fn c_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

/// Whether a query that returns rows also writes, as `WITH taken AS (UPDATE ...) SELECT` does.
fn writes(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    let updates = sql.contains("update ") && sql.contains(" set ");
    updates || sql.contains("insert into") || sql.contains("delete from") || sql.contains("merge into")
}

/// Splits a byte stream into messages of a type, a length and a body.
#[derive(Debug, Default)]
struct Frames {
    /// The header of the message under way, as far as it has come.
    header: [u8; 8],
    have: usize,
    /// What is left of the body.
    left: u64,
    /// How much more of the body is to be kept.
    look: usize,
    /// The beginning of a body that came in pieces.
    body: Vec<u8>,
    /// A length made no sense.
    lost: bool,
}

impl Frames {
    /// Collects a header of `N` bytes; the bytes used, and whether it is complete.
    fn header<const N: usize>(&mut self, bytes: &[u8]) -> (usize, bool) {
        let used = bytes.len().min(N - self.have);
        self.header[self.have..self.have + used].copy_from_slice(&bytes[..used]);
        self.have += used;
        (used, self.have == N)
    }

    /// Takes the header of a message without a type: the bytes used, its length and its code.
    fn untyped(&mut self, bytes: &[u8]) -> Option<(usize, u32, u32)> {
        let (used, true) = self.header::<8>(bytes) else { return None };
        self.have = 0;
        let [a, b, c, d, e, f, g, h] = self.header;
        Some((used, u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
    }

    /// Feeds bytes; reports the type of every message they complete, the beginning of its body and the offset behind it.
    fn feed(&mut self, bytes: &[u8], look: impl Fn(u8) -> usize, mut on: impl FnMut(u8, &[u8], usize)) {
        let mut at = 0;
        // The body of the start-up message is left over without a header, and completes nothing.
        if self.have == 0 && self.left > 0 {
            at = self.skip(bytes);
        }
        while at < bytes.len() && !self.lost {
            if self.have < 5 {
                let (used, complete) = self.header::<5>(&bytes[at..]);
                at += used;
                if !complete {
                    return;
                }
                let [kind, a, b, c, d, ..] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]);
                self.lost = length < 4;
                self.left = u64::from(length.saturating_sub(4));
                self.look = look(kind);
            }
            let start = at;
            let in_pieces = !self.body.is_empty() || self.left > (bytes.len() - at) as u64;
            at += self.skip(&bytes[at..]);
            if in_pieces {
                let kept = (at - start).min(self.look - self.body.len().min(self.look));
                self.body.extend_from_slice(&bytes[start..start + kept]);
            }
            if self.left == 0 && !self.lost {
                let whole = &bytes[start..at.min(start + self.look)];
                on(self.header[0], if in_pieces { &self.body } else { whole }, at);
                self.body.clear();
                self.have = 0;
            }
        }
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let used = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= used as u64;
        used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (u32::try_from(body.len()).unwrap() + 8).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const LONG: &[u8] = &[b'x'; 3000];

    /// What a client says after its start-up: six calls, four of them prepared, in six groups.
    fn client() -> Vec<u8> {
        [
            untyped(196_608, b"user\0sale\0\0"),
            message(b'Q', b"BEGIN\0"),
            message(b'P', b"s1\0INSERT INTO orders VALUES ($1)\0\0\0"),
            message(b'D', b"Ss1\0"),
            message(b'B', &[b"\0s1\0".as_slice(), LONG].concat()),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
            message(b'Q', b"COMMIT\0"),
            message(b'P', b"\0SELECT 1\0\0\0"),
            message(b'B', b"\0\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'B', b"\0s1\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
            message(b'B', b"\0s1\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
            message(b'X', b""),
        ]
        .concat()
    }

    /// What the server answers, and what is to be found in it: the texts of each reply and whether it committed.
    fn server() -> Vec<(Vec<u8>, Vec<&'static str>, bool)> {
        const INSERT: &str = "INSERT INTO orders VALUES ($1)";
        let z = |status: u8| message(b'Z', &[status]);
        vec![
            ([message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), z(b'I')].concat(), vec![], false),
            ([message(b'C', b"BEGIN\0"), z(b'T')].concat(), vec!["BEGIN"], false),
            (
                [message(b'2', b""), message(b'D', LONG), message(b'C', b"INSERT 0 1\0"), z(b'T')].concat(),
                vec![INSERT],
                false,
            ),
            ([message(b'C', b"COMMIT\0"), z(b'I')].concat(), vec!["COMMIT"], true),
            (
                [message(b'C', b"SELECT 1\0"), message(b'C', b"INSERT 0 1\0"), z(b'I')].concat(),
                vec!["SELECT 1", INSERT],
                true,
            ),
            ([message(b'2', b""), message(b'E', b"C23505\0\0"), z(b'I')].concat(), vec![INSERT], false),
        ]
    }

    fn check(up: &[&[u8]], down: &[&[u8]]) {
        let mut postgres = Postgres { watch: true, ..Postgres::default() };
        assert_eq!(up.iter().map(|bytes| postgres.up(bytes, &mut Vec::new())).sum::<u64>(), 6);
        let (mut found, mut offset) = (Vec::new(), 0);
        for bytes in down {
            let mut ends = Vec::new();
            postgres.down(bytes, &mut ends);
            found.extend(ends.into_iter().map(|(at, reply)| (offset + at, reply)));
            offset += bytes.len();
        }
        let mut end = 0;
        let expected = server();
        assert_eq!(found.len(), expected.len());
        for ((at, reply), (bytes, texts, committed)) in found.iter().zip(&expected) {
            end += bytes.len();
            let found: Vec<&str> = reply.texts.iter().map(AsRef::as_ref).collect();
            assert_eq!((*at, &found, reply.committed), (end, texts, *committed));
        }
    }

    #[test]
    fn proxy_postgres_frames_survive_any_cut() {
        let (up, down) = (client(), server().into_iter().flat_map(|(bytes, ..)| bytes).collect::<Vec<_>>());
        for cut in 0..=up.len() {
            check(&[&up[..cut], &up[cut..]], &[&down]);
        }
        for cut in 0..=down.len() {
            check(&[&up], &[&down[..cut], &down[cut..]]);
        }
    }

    #[test]
    fn proxy_postgres_listens_through_a_refused_encryption_and_not_through_a_granted_one() {
        for (answer, calls) in [(b"N", 6), (b"S", 0)] {
            let mut postgres = Postgres::default();
            assert_eq!(postgres.up(&untyped(SSL_REQUEST, b""), &mut Vec::new()), 0);
            postgres.down(answer, &mut Vec::new());
            assert_eq!(postgres.up(&client(), &mut Vec::new()), calls);
        }
        assert_eq!(Postgres::default().up(&untyped(CANCEL_REQUEST, &[0; 8]), &mut Vec::new()), 0);
    }

    #[test]
    fn proxy_postgres_knows_a_select_that_writes() {
        assert!(writes("WITH t AS (UPDATE item SET stock = stock - 1 RETURNING id) SELECT id FROM t"));
        assert!(!writes("SELECT * FROM item FOR UPDATE"));
    }

    proptest! {
        #[test]
        fn proxy_postgres_counts_the_same_in_any_pieces(
            up_cuts in prop::collection::vec(0..3000usize, 0..12),
            down_cuts in prop::collection::vec(0..3000usize, 0..12),
        ) {
            let (up, down) = (client(), server().into_iter().flat_map(|(bytes, ..)| bytes).collect::<Vec<_>>());
            check(&pieces(&up, up_cuts), &pieces(&down, down_cuts));
        }

        #[test]
        fn proxy_postgres_never_panics(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut postgres = Postgres { watch: true, ..Postgres::default() };
            postgres.up(&untyped(196_608, b""), &mut Vec::new());
            for chunk in &chunks {
                postgres.up(chunk, &mut Vec::new());
                postgres.down(chunk, &mut Vec::new());
            }
        }
    }

    fn pieces(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &bytes[pair[0].min(bytes.len())..pair[1].min(bytes.len())]).collect()
    }
}
