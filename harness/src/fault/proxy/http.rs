//! Listens to HTTP/1.x: counts requests and finds where replies end.
//!
//! Of a head only what frames the message is read: `Content-Length`, `Transfer-Encoding` and the start line. Whoever
//! upgrades the connection or sends something malformed is not listened to any more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{CallPart, ReplyPart};
use super::wire::{CallEnd, IN_FLIGHT, ReplyEnd};

/// The longest head that is understood.
const HEAD_BYTES: usize = 64 * 1024;

/// The parsers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Http {
    requests: Framer,
    replies: Framer,
    /// Requests whose replies have not ended, oldest first.
    in_flight: VecDeque<Request>,
    /// The request under way began with the bytes that came last.
    begun_here: bool,
    pub(super) watch: bool,
}

#[derive(Debug, Default)]
struct Request {
    /// A reply to `HEAD` has no body, whatever its head says.
    is_head: bool,
    /// `METHOD /path`, if the connection was watched when the request was sent.
    line: Option<Arc<str>>,
    /// No earlier request awaited a reply when it was sent.
    alone: bool,
}

impl Request {
    fn reply(&self, complete: bool) -> ReplyPart {
        ReplyPart { complete, texts: self.line.iter().cloned().collect(), ..ReplyPart::default() }
    }

    fn call(&self, first: bool, complete: bool) -> CallPart {
        CallPart { first, complete, texts: self.line.iter().cloned().collect(), alone: self.alone }
    }
}

impl Http {
    pub(super) fn up(&mut self, bytes: &[u8], ends: &mut Vec<CallEnd>) -> u64 {
        let (mut calls, watch) = (0, self.watch);
        let mut first = self.requests.is_fresh();
        let Self { requests, in_flight, .. } = self;
        requests.feed(bytes, |event, at| match event {
            Event::Head(head) => {
                calls += 1;
                let line = watch.then(|| call_of(head).into());
                let alone = in_flight.is_empty();
                in_flight.push_back(Request { is_head: head.starts_with(b"HEAD "), line, alone });
                request_body(head)
            }
            Event::End => {
                if let Some(request) = in_flight.back().filter(|_| watch) {
                    ends.push((at, request.call(first, true)));
                }
                first = true;
                Body::None
            }
        });
        self.begun_here = first;
        if in_flight.len() > IN_FLIGHT {
            self.give_up();
        }
        calls
    }

    /// A part of a request that has not ended; without its text as long as its head has not.
    pub(super) fn asking(&self) -> Option<CallPart> {
        let first = self.begun_here;
        match self.requests.state {
            State::Opaque => None,
            State::Head => (!self.requests.is_fresh()).then(|| CallPart { first, ..CallPart::default() }),
            _ => self.in_flight.back().map(|request| request.call(first, false)),
        }
    }

    /// The oldest request was answered by somebody else: no reply to it will come.
    pub(super) fn answered(&mut self) {
        self.in_flight.pop_front();
    }

    pub(super) fn down(&mut self, bytes: &[u8], ends: &mut Vec<ReplyEnd>) {
        let Self { replies, in_flight, .. } = self;
        let mut upgraded = false;
        replies.feed(bytes, |event, at| match event {
            Event::Head(head) => {
                let body = reply_body(head, in_flight.front().is_some_and(|request| request.is_head));
                upgraded |= body == Body::Opaque;
                body
            }
            Event::End => {
                if let Some(request) = in_flight.pop_front() {
                    ends.push((at, request.reply(true)));
                }
                Body::None
            }
        });
        if upgraded {
            self.give_up();
        }
    }

    pub(super) fn down_end(&mut self) -> Option<ReplyPart> {
        match self.replies.state {
            State::UntilClose => self.in_flight.pop_front().map(|request| request.reply(true)),
            _ => None,
        }
    }

    pub(super) fn current(&self) -> Option<ReplyPart> {
        self.in_flight.front().map(|request| request.reply(false))
    }

    fn give_up(&mut self) {
        self.requests.state = State::Opaque;
        self.replies.state = State::Opaque;
        self.in_flight.clear();
    }
}

/// How the body after a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
    /// Not a message of its own: the real head follows.
    Interim,
    /// Another protocol follows.
    Opaque,
}

enum Event<'a> {
    /// A complete head; the answer says what follows.
    Head(&'a [u8]),
    /// The message has ended; the answer is ignored.
    End,
}

/// Splits a byte stream into messages.
#[derive(Debug, Default)]
struct Framer {
    state: State,
    /// The beginning of a head that is not complete yet.
    head: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Body {
        left: u64,
    },
    /// In the line with the size of a chunk; what follows a `;` is not part of it.
    Size {
        size: u64,
        extension: bool,
    },
    Data {
        left: u64,
    },
    Trailer {
        line: usize,
    },
    UntilClose,
    Opaque,
}

impl Framer {
    /// Whether the next byte begins a message.
    fn is_fresh(&self) -> bool {
        self.state == State::Head && self.head.is_empty()
    }

    /// Feeds bytes and reports what they complete, with the offset behind it.
    fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Event<'_>, usize) -> Body) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let (used, ended) = match &mut self.state {
                State::Opaque | State::UntilClose => return,
                State::Head => match self.take_head(rest) {
                    Some((used, head)) => {
                        let body = on(Event::Head(head.as_deref().unwrap_or(&rest[..used])), at + used);
                        self.state = state_of(body);
                        (used, matches!(body, Body::None | Body::Length(0)))
                    }
                    None => return,
                },
                State::Body { left } => {
                    let used = skip(left, rest);
                    (used, *left == 0)
                }
                State::Data { left } => {
                    let used = skip(left, rest);
                    if *left == 0 {
                        self.state = State::Size { size: 0, extension: false };
                    }
                    (used, false)
                }
                State::Size { .. } | State::Trailer { .. } => (1, self.chunk_line(rest[0])),
            };
            at += used;
            if ended {
                self.state = State::Head;
                on(Event::End, at);
            }
        }
    }

    /// Takes a head from the front of `bytes`: how many of them belong to it, and the whole head if it began earlier.
    fn take_head(&mut self, bytes: &[u8]) -> Option<(usize, Option<Vec<u8>>)> {
        if self.head.is_empty() {
            // An empty line before a request is to be ignored.
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if let Some(end) = head_end(&bytes[blank..], 0) {
                return Some((blank + end, (blank > 0).then(|| bytes[blank..blank + end].to_vec())));
            }
            self.head.extend_from_slice(&bytes[blank..]);
            return None;
        }
        let before = self.head.len();
        // The end of the head may straddle the seam, by three bytes at most.
        let taken = bytes.len().min(HEAD_BYTES);
        self.head.extend_from_slice(&bytes[..taken]);
        match head_end(&self.head, before.saturating_sub(3)) {
            Some(end) => {
                let mut head = std::mem::take(&mut self.head);
                head.truncate(end);
                Some((end - before, Some(head)))
            }
            None => {
                if self.head.len() > HEAD_BYTES {
                    self.state = State::Opaque;
                    self.head = Vec::new();
                }
                None
            }
        }
    }

    /// Takes one byte of a line between chunks; whether the message ends with it.
    fn chunk_line(&mut self, byte: u8) -> bool {
        match (&mut self.state, byte) {
            (State::Size { size: 0, .. }, b'\n') => self.state = State::Trailer { line: 0 },
            (State::Size { size, .. }, b'\n') => self.state = State::Data { left: size.saturating_add(2) },
            (State::Size { size, extension: false }, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                *size = size.saturating_mul(16).saturating_add(u64::from(digit));
            }
            (State::Size { extension, .. }, b';') => *extension = true,
            (State::Trailer { line: 0 }, b'\n') => return true,
            (State::Trailer { line }, b'\n') => *line = 0,
            (_, b'\r') => {}
            (State::Trailer { line }, _) => *line += 1,
            _ => {}
        }
        false
    }
}

fn state_of(body: Body) -> State {
    match body {
        Body::None | Body::Interim => State::Head,
        Body::Length(left) => State::Body { left },
        Body::Chunked => State::Size { size: 0, extension: false },
        Body::UntilClose => State::UntilClose,
        Body::Opaque => State::Opaque,
    }
}

/// Counts down over as many bytes as there are.
fn skip(left: &mut u64, bytes: &[u8]) -> usize {
    let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= used as u64;
    used
}

/// The offset behind the empty line that ends a head, looking from `from` on.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        if bytes[..at].ends_with(b"\r\n\r\n") || bytes[..at].ends_with(b"\n\n") {
            return Some(at);
        }
    }
    None
}

/// The method and target of a request head.
fn call_of(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.rsplit_once(' ').map_or(line.as_ref(), |(call, _version)| call).to_owned()
}

/// The two headers that frame a body: the length, and whether it is chunked.
fn framing(head: &[u8]) -> (Option<u64>, bool) {
    let (mut length, mut chunked) = (None, false);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        // Only two names matter, and most lines are told from them by their first letter.
        match line.first() {
            Some(b'c' | b'C') => length = value_of(line, b"content-length").and_then(number).or(length),
            Some(b't' | b'T') => {
                chunked |= value_of(line, b"transfer-encoding")
                    .is_some_and(|value| value.len() >= 7 && value[value.len() - 7..].eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
    }
    (length, chunked)
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    (found.eq_ignore_ascii_case(name) && rest.first() == Some(&b':')).then(|| rest[1..].trim_ascii())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn request_body(head: &[u8]) -> Body {
    match framing(head) {
        _ if head.starts_with(b"CONNECT ") => Body::Opaque,
        (_, true) => Body::Chunked,
        (Some(length), false) => Body::Length(length),
        (None, false) => Body::None,
    }
}

fn reply_body(head: &[u8], to_head: bool) -> Body {
    // `HTTP/1.1 200 OK`
    let status = head.split(|byte| *byte == b' ').nth(1).and_then(|status| number(status.get(..3)?));
    match (status, framing(head)) {
        (None, _) | (Some(101), _) => Body::Opaque,
        (Some(100..=199), _) => Body::Interim,
        (Some(204 | 304), _) => Body::None,
        _ if to_head => Body::None,
        (_, (_, true)) => Body::Chunked,
        (_, (Some(length), false)) => Body::Length(length),
        (_, (None, false)) => Body::UntilClose,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUESTS: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /b?q=1 HTTP/1.1\r\ncontent-LENGTH: 12\r\n\r\nGET / HTTP/1\
        \r\nPUT /c HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=1\r\nab\r\nc\r\n0\r\nTrail: er\r\n\r\n\
        HEAD /d HTTP/1.1\r\n\r\nGET /e HTTP/1.1\r\n\r\n";
    const REPLIES: [&[u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\r\n\r\n.",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 409 Conflict\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n and so on",
    ];

    fn parse(up: &[&[u8]], down: &[&[u8]]) -> (u64, Vec<(usize, String)>, Option<ReplyPart>) {
        let mut http = Http { watch: true, ..Http::default() };
        let calls = up.iter().map(|bytes| http.up(bytes, &mut Vec::new())).sum();
        let (mut found, mut offset) = (Vec::new(), 0);
        for bytes in down {
            let mut ends = Vec::new();
            http.down(bytes, &mut ends);
            found.extend(ends.iter().map(|(at, reply)| (offset + at, reply.texts[0].to_string())));
            offset += bytes.len();
        }
        (calls, found, http.down_end())
    }

    fn expected() -> Vec<(usize, String)> {
        let mut at = 0;
        let calls = ["GET /a", "POST /b?q=1", "PUT /c", "HEAD /d"];
        let end = |(reply, call): (&&[u8], &str)| {
            at += reply.len();
            (at, call.to_owned())
        };
        REPLIES.iter().zip(calls).map(end).collect()
    }

    #[test]
    fn proxy_http_framing_survives_any_cut() {
        let replies = REPLIES.concat();
        for cut in 0..=REQUESTS.len() {
            let (calls, found, last) = parse(&[&REQUESTS[..cut], &REQUESTS[cut..]], &[&replies]);
            assert_eq!((calls, found), (5, expected()), "requests cut at {cut}");
            assert_eq!(last.unwrap().texts[0].as_ref(), "GET /e");
        }
        for cut in 0..=replies.len() {
            let (_, found, last) = parse(&[REQUESTS], &[&replies[..cut], &replies[cut..]]);
            assert_eq!(found, expected(), "replies cut at {cut}");
            assert!(last.is_some());
        }
    }

    #[test]
    fn proxy_http_stops_listening_after_an_upgrade() {
        let mut http = Http::default();
        assert_eq!(http.up(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", &mut Vec::new()), 1);
        http.down(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &mut Vec::new());
        assert_eq!(http.up(b"GET /ws HTTP/1.1\r\n\r\n", &mut Vec::new()), 0);
        assert_eq!(http.current(), None);
    }

    #[test]
    fn proxy_http_tells_the_parts_of_requests_apart() {
        let mut http = Http { watch: true, ..Http::default() };
        let mut up = |bytes: &[u8]| {
            let mut ends = Vec::new();
            http.up(bytes, &mut ends);
            let tell = |part: &CallPart| (part.first, part.alone, part.texts.first().map(|text| text.to_string()));
            (ends.iter().map(|(at, part)| (*at, tell(part))).collect::<Vec<_>>(), http.asking().map(|part| tell(&part)))
        };
        let line = |line: &str| Some(line.to_owned());
        assert_eq!(up(b"POST /a HT"), (vec![], Some((true, false, None))));
        assert_eq!(up(b"TP/1.1\r\n"), (vec![], Some((false, false, None))));
        assert_eq!(up(b"Content-Length: 4\r\n\r\nbo"), (vec![], Some((false, true, line("POST /a")))));
        let rest = b"dyGET /b HTTP/1.1\r\n\r\nPUT /c HTTP/1.1\r\nContent-Length: 1\r\n\r\n";
        let ends = vec![(2, (false, true, line("POST /a"))), (21, (true, false, line("GET /b")))];
        assert_eq!(up(rest), (ends, Some((true, false, line("PUT /c")))));
        assert_eq!(up(b"x"), (vec![(1, (false, false, line("PUT /c")))], None));
    }

    proptest! {
        #[test]
        fn proxy_http_never_panics(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            parse(&chunks, &chunks);
        }

        #[test]
        fn proxy_http_counts_the_same_in_any_pieces(cuts in prop::collection::vec(0..REQUESTS.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, REQUESTS.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &REQUESTS[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&pieces, &[]).0, 5);
        }
    }
}
