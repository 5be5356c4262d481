//! Listens to the Redis protocol (RESP2 and RESP3): counts commands, and tells where a reply ends and whether the command took
//! effect.
//!
//! Each command has one reply, in order. Whoever subscribes, monitors or turns replies off gets something else, and whoever
//! speaks TLS says nothing that can be read: such a connection is not listened to any more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{CallPart, ReplyPart};
use super::wire::{CallEnd, IN_FLIGHT, ReplyEnd};

/// How much of a command is kept as its text.
const LOOK: usize = 1024;
/// The longest line that is understood: a length, a simple value, or a command that somebody typed.
const LINE: usize = 64 * 1024;
/// How deeply values may be nested.
const DEPTH: usize = 32;

/// The parsers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Redis {
    front: Front,
    back: Back,
    /// Commands whose replies have not ended, oldest first; the text of those that were watched.
    in_flight: VecDeque<Option<Arc<str>>>,
    opaque: bool,
    pub(super) watch: bool,
}

impl Redis {
    pub(super) fn up(&mut self, bytes: &[u8], ends: &mut Vec<CallEnd>) -> u64 {
        let (mut calls, mut at) = (0, 0);
        while at < bytes.len() && !self.opaque {
            let first = self.front.is_fresh();
            let Some(used) = self.front.feed(&bytes[at..]) else {
                self.give_up();
                return calls;
            };
            at += used;
            if !self.front.complete {
                break;
            }
            let words = self.front.take();
            if words.is_empty() {
                // An empty line is no command, and is not answered.
                continue;
            }
            calls += 1;
            if unpaired(&words) || self.in_flight.len() >= IN_FLIGHT {
                self.give_up();
                return calls;
            }
            let text: Option<Arc<str>> = self.watch.then(|| String::from_utf8_lossy(&words).into());
            if self.watch {
                let alone = self.in_flight.is_empty();
                ends.push((at, CallPart { first, complete: true, texts: text.iter().cloned().collect(), alone }));
            }
            self.in_flight.push_back(text);
        }
        calls
    }

    pub(super) fn asking(&self) -> Option<CallPart> {
        (!self.opaque && !self.front.is_fresh()).then(CallPart::default)
    }

    pub(super) fn down(&mut self, bytes: &[u8], ends: &mut Vec<ReplyEnd>) {
        let mut at = 0;
        while at < bytes.len() && !self.opaque {
            let Some(used) = self.back.feed(&bytes[at..]) else { return self.give_up() };
            at += used;
            if !self.back.complete {
                return;
            }
            let reply = std::mem::take(&mut self.back);
            if reply.pushed {
                continue;
            }
            if let Some(text) = self.in_flight.pop_front() {
                let failed = reply.failed || (reply.null && text.as_deref().is_some_and(|text| is(text, "EXEC")));
                let texts: Vec<_> = text.into_iter().collect();
                ends.push((at, ReplyPart { complete: true, texts, committed: !failed && !reply.queued, failed }));
            }
        }
    }

    pub(super) fn current(&self) -> Option<ReplyPart> {
        let text = self.in_flight.front()?;
        Some(ReplyPart { texts: text.iter().cloned().collect(), ..ReplyPart::default() })
    }

    fn give_up(&mut self) {
        self.opaque = true;
        self.in_flight.clear();
    }
}

/// Whether a command's text begins with this name.
fn is(text: &str, name: &str) -> bool {
    text.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(name))
}

/// Commands after which replies do not follow commands one by one.
fn unpaired(words: &[u8]) -> bool {
    let mut words = words.split(|byte| *byte == b' ').map(<[u8]>::to_ascii_uppercase);
    let name = words.next().unwrap_or_default();
    let names: [&[u8]; 8] =
        [b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"MONITOR", b"SYNC", b"PSYNC"];
    names.contains(&name.as_slice()) || (name == b"CLIENT" && words.next().as_deref() == Some(b"REPLY"))
}

/// Collects the bytes of a line up to its CRLF. Gives the bytes used, and the line when it is complete; `None` if it is too
/// long.
fn line(kept: &mut Vec<u8>, bytes: &[u8]) -> Option<(usize, Option<Vec<u8>>)> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            kept.extend_from_slice(&bytes[..end]);
            if kept.last() == Some(&b'\r') {
                kept.pop();
            }
            Some((end + 1, Some(std::mem::take(kept))))
        }
        None => {
            kept.extend_from_slice(bytes);
            (kept.len() <= LINE).then_some((bytes.len(), None))
        }
    }
}

/// A number behind the type of a value, such as the 3 of `*3`.
fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line.get(1..)?).ok()?.parse().ok()
}

/// The command under way: an array of bulk strings, or a line.
#[derive(Debug, Default)]
struct Front {
    kept: Vec<u8>,
    /// Strings that are still to come.
    left: i64,
    /// Bytes of the string under way, with its CRLF.
    string: u64,
    /// The words so far, with spaces between them.
    words: Vec<u8>,
    started: bool,
    complete: bool,
}

impl Front {
    fn is_fresh(&self) -> bool {
        !self.started
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).words
    }

    /// Takes bytes up to the end of the command: how many; `None` if they make no sense.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        self.started = true;
        let mut at = 0;
        while at < bytes.len() && !self.complete {
            if self.string > 0 {
                at += self.take_string(&bytes[at..]);
                continue;
            }
            let (used, found) = line(&mut self.kept, &bytes[at..])?;
            at += used;
            let Some(found) = found else { continue };
            match (found.first(), self.left) {
                (Some(b'*'), 0) => {
                    self.left = number(&found)?;
                    self.complete = self.left <= 0;
                }
                (Some(b'$'), 1..) => {
                    // The CRLF belongs to the string.
                    self.string = u64::try_from(number(&found)?).ok()?.checked_add(2)?;
                }
                (Some(first), 0) if first.is_ascii_alphabetic() => {
                    self.words.extend_from_slice(&found[..found.len().min(LOOK)]);
                    self.complete = true;
                }
                (None, 0) => self.complete = true,
                _ => return None,
            }
        }
        Some(at)
    }

    fn take_string(&mut self, bytes: &[u8]) -> usize {
        let used = bytes.len().min(usize::try_from(self.string).unwrap_or(usize::MAX));
        let content = usize::try_from(self.string.saturating_sub(2)).unwrap_or(usize::MAX).min(used);
        let room = LOOK.saturating_sub(self.words.len());
        self.words.extend_from_slice(&bytes[..content.min(room)]);
        self.string -= used as u64;
        if self.string == 0 {
            self.left -= 1;
            self.complete = self.left == 0;
            if !self.complete && self.words.len() < LOOK {
                self.words.push(b' ');
            }
        }
        used
    }
}

/// The reply under way: one value, which may hold others.
#[derive(Debug, Default)]
struct Back {
    kept: Vec<u8>,
    /// Values that are still to come, from the outermost aggregate to the innermost.
    open: Vec<Aggregate>,
    /// Bytes of the string under way, with its CRLF.
    string: u64,
    complete: bool,
    /// It was pushed by the server and answers no command.
    pushed: bool,
    failed: bool,
    /// The command was put aside until `EXEC`.
    queued: bool,
    null: bool,
}

#[derive(Debug)]
struct Aggregate {
    left: u64,
    /// Attributes stand before the value that they are about, and count for nothing themselves.
    attribute: bool,
}

impl Back {
    /// Takes bytes up to the end of the value: how many; `None` if they make no sense.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.complete {
            if self.string > 0 {
                let used = (bytes.len() - at).min(usize::try_from(self.string).unwrap_or(usize::MAX));
                at += used;
                self.string -= used as u64;
                if self.string == 0 {
                    self.ended();
                }
                continue;
            }
            let (used, found) = line(&mut self.kept, &bytes[at..])?;
            at += used;
            if let Some(found) = found {
                self.head(&found)?;
            }
        }
        Some(at)
    }

    /// Takes the line that begins a value.
    fn head(&mut self, head: &[u8]) -> Option<()> {
        let kind = *head.first()?;
        if self.open.is_empty() && kind != b'|' {
            self.failed = matches!(kind, b'-' | b'!');
            self.queued = head == b"+QUEUED";
            self.pushed = kind == b'>';
            self.null = kind == b'_' || (matches!(kind, b'*' | b'$') && number(head)? < 0);
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => self.ended(),
            b'$' | b'!' | b'=' => match number(head)? {
                ..0 => self.ended(),
                length => self.string = length.unsigned_abs() + 2,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                let left = u64::try_from(number(head)?.max(0)).ok()?.checked_mul(each)?;
                let attribute = kind == b'|';
                if left > 0 {
                    self.open.push(Aggregate { left, attribute });
                } else if !attribute {
                    self.ended();
                }
            }
            _ => return None,
        }
        (self.open.len() <= DEPTH).then_some(())
    }

    /// A value has ended, and with it every aggregate whose last it was.
    fn ended(&mut self) {
        while let Some(inner) = self.open.last_mut() {
            inner.left -= 1;
            if inner.left > 0 {
                return;
            }
            if self.open.pop().is_some_and(|ended| ended.attribute) {
                return;
            }
        }
        self.complete = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMANDS: &[u8] = b"*3\r\n$3\r\nSET\r\n$5\r\nstock\r\n$2\r\n\r\n\r\nPING\r\n\r\n*1\r\n$4\r\nEXEC\r\n\
        *2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$7\r\nHGETALL\r\n*3\r\n$4\r\nDECR\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$5\r\nMULTI\r\n";
    const REPLIES: [(&[u8], &str, bool, bool); 7] = [
        (b"+QUEUED\r\n", "SET stock \r\n", false, false),
        (b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n$4\r\nPONG\r\n", "PING", true, false),
        (b"*-1\r\n", "EXEC", false, true),
        (b"|1\r\n+ttl\r\n:3\r\n*3\r\n$3\r\n\r\n+\r\n*2\r\n:1\r\n*0\r\n_\r\n", "GET ", true, false),
        (b"%2\r\n+a\r\n*1\r\n#t\r\n+b\r\n=5\r\ntxt:x\r\n", "HGETALL", true, false),
        (b"-ERR no\r\n", "DECR a b", false, true),
        (b"$-1\r\n", "MULTI", true, false),
    ];

    type Found = Vec<(usize, String, bool, bool)>;

    fn parse(up: &[&[u8]], down: &[&[u8]]) -> (u64, Vec<usize>, Found) {
        let mut redis = Redis { watch: true, ..Redis::default() };
        let (mut calls, mut call_ends, mut offset) = (0, Vec::new(), 0);
        for bytes in up {
            let mut ends = Vec::new();
            calls += redis.up(bytes, &mut ends);
            call_ends.extend(ends.iter().map(|(at, _)| offset + at));
            offset += bytes.len();
        }
        let (mut found, mut offset) = (Vec::new(), 0);
        for bytes in down {
            let mut ends = Vec::new();
            redis.down(bytes, &mut ends);
            let tell =
                |(at, reply): &ReplyEnd| (offset + at, reply.texts[0].to_string(), reply.committed, reply.failed);
            found.extend(ends.iter().map(tell));
            offset += bytes.len();
        }
        (calls, call_ends, found)
    }

    fn replies() -> Vec<u8> {
        REPLIES.iter().flat_map(|(bytes, ..)| bytes.to_vec()).collect()
    }

    fn expected() -> Found {
        let mut at = 0;
        let tell = |(bytes, text, committed, failed): &(&[u8], &str, bool, bool)| {
            at += bytes.len();
            (at, (*text).to_owned(), *committed, *failed)
        };
        REPLIES.iter().map(tell).collect()
    }

    #[test]
    fn proxy_redis_frames_survive_any_cut() {
        let replies = replies();
        let whole = parse(&[COMMANDS], &[&replies]);
        assert_eq!((whole.0, whole.1.len(), whole.1.last()), (7, 7, Some(&COMMANDS.len())));
        assert_eq!(whole.2, expected());
        for cut in 0..=COMMANDS.len() {
            assert_eq!(parse(&[&COMMANDS[..cut], &COMMANDS[cut..]], &[&replies]), whole, "commands cut at {cut}");
        }
        for cut in 0..=replies.len() {
            assert_eq!(parse(&[COMMANDS], &[&replies[..cut], &replies[cut..]]), whole, "replies cut at {cut}");
        }
    }

    #[test]
    fn proxy_redis_stops_listening_where_replies_are_not_paired() {
        for start in ["SUBSCRIBE a\r\n", "*3\r\n$6\r\nclient\r\n$5\r\nreply\r\n$3\r\nOFF\r\n", "\x16\x03\x01\r\n"] {
            let mut redis = Redis::default();
            redis.up(start.as_bytes(), &mut Vec::new());
            assert_eq!(redis.up(b"PING\r\n", &mut Vec::new()), 0, "{start:?}");
            assert_eq!((redis.current(), redis.asking()), (None, None));
        }
    }

    proptest! {
        #[test]
        fn proxy_redis_counts_the_same_in_any_pieces(cuts in prop::collection::vec(0..COMMANDS.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, COMMANDS.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &COMMANDS[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&pieces, &[]), parse(&[COMMANDS], &[]));
        }

        #[test]
        fn proxy_redis_never_panics(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut redis = Redis { watch: true, ..Redis::default() };
            for chunk in &chunks {
                redis.up(chunk, &mut Vec::new());
                redis.up(b"\r\n*1\r\n$4\r\nPING\r\n", &mut Vec::new());
                redis.down(chunk, &mut Vec::new());
            }
        }
    }
}
