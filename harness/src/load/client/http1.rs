//! An HTTP/1.1 connection of a virtual buyer, over plain TCP or TLS.
//!
//! It is ours because three things matter here that general clients do not give: whether any byte was handed to the
//! kernel at all (only then is an attempt indeterminate rather than refused), prebuilt request bytes, and a reply that is
//! read whole before the clock stops. Heads are parsed by `httparse`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::io::poll_read_buf;

use super::entry::{ConnectError, Entry};
use super::stream::Stream;
use super::{Broken, MAX_REPLY, Opened, Reply};

/// A virtual buyer's connection. It reconnects when it has to.
#[derive(Debug)]
pub struct Connection {
    entry: Entry,
    stream: Option<Stream>,
    buffer: Vec<u8>,
    decoded: Vec<u8>,
    /// What is left of a body that is read piece by piece.
    left: Option<Framing>,
    /// The head of the reply before, and its bytes.
    last_head: Option<(Vec<u8>, Head)>,
    connecting: Option<Connecting>,
    alarm: Alarm,
}

/// A connection that is being made.
struct Connecting(Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>);

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Head {
    pub status: u16,
    pub length: usize,
    pub framing: Framing,
    close: bool,
    retry_after: Option<RetryAfter>,
    /// Where in the buffer the last part of the `Location` lies.
    location: Option<Range<usize>>,
}

/// The two ways to say when to come again (RFC 9110 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RetryAfter {
    Seconds(u32),
    /// Heads that are alike may come at different times, so this is held against the clock only when it is asked for.
    At(jiff::Timestamp),
}

impl RetryAfter {
    fn parse(value: &str) -> Option<RetryAfter> {
        match value.parse() {
            Ok(seconds) => Some(RetryAfter::Seconds(seconds)),
            Err(_) => jiff::fmt::rfc2822::parse(value).ok().map(|at| RetryAfter::At(at.timestamp())),
        }
    }

    /// Whole seconds from `now` on, rounded up; none that is past.
    fn seconds(self, now: jiff::Timestamp) -> u32 {
        match self {
            RetryAfter::Seconds(seconds) => seconds,
            RetryAfter::At(at) => {
                let left_ms = (at.as_millisecond() - now.as_millisecond()).max(0);
                u32::try_from(left_ms.unsigned_abs().div_ceil(1_000)).unwrap_or(u32::MAX)
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

impl Head {
    /// The reply whose head this is, from the bytes of both, and the body where that was decoded.
    pub fn reply<'a>(&self, buffer: &'a [u8], decoded: &'a [u8]) -> Reply<'a> {
        let body: &[u8] = match self.framing {
            Framing::Chunked => decoded,
            Framing::Length(n) => &buffer[self.length..self.length + n],
            Framing::UntilEnd => &buffer[self.length..],
        };
        let location = self.location.clone().and_then(|at| std::str::from_utf8(&buffer[at]).ok());
        let retry_after_s = self.retry_after.map(|after| after.seconds(jiff::Timestamp::now()));
        let status = self.status;
        Reply { status, retry_after_s, location, head: &buffer[..self.length], body }
    }
}

impl Connection {
    /// A connection to `entry`, made when it is first needed.
    pub fn new(entry: Entry) -> Connection {
        Connection {
            entry,
            stream: None,
            buffer: Vec::new(),
            decoded: Vec::new(),
            left: None,
            last_head: None,
            connecting: None,
            alarm: Alarm::default(),
        }
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        // Who connects for each request does it then.
        if self.stream.is_some() || !self.entry.reuse {
            return None;
        }
        let connected = timeout(limit, poll_fn(|cx| self.poll_connect(cx))).await;
        self.connecting = None;
        connected.ok()?.err()
    }

    /// Sends a request and reads the whole reply before the deadline.
    ///
    /// # Errors
    /// [`Broken`] says what is known of an attempt without a reply.
    pub fn exchange<'a>(&'a mut self, request: &'a [u8], deadline: Instant) -> Exchange<'a> {
        self.begin();
        Exchange { connection: Some(self), request, deadline, sent: Sent::default(), head: None }
    }

    /// Sends a request and reads the head of the reply, and its whole body unless it is a stream of events.
    pub async fn open(&mut self, request: &[u8], limit: Duration) -> Result<Opened<'_>, Broken> {
        self.begin();
        let mut sent = Sent::default();
        let mut head = None;
        let whole = poll_fn(|cx| self.poll_open(cx, request, &mut sent, &mut head));
        let whole = match timeout_at(Instant::now() + limit, whole).await {
            Ok(whole) => whole,
            Err(_) => Err(sent.after_timeout()),
        };
        match (whole, head) {
            (Ok(false), Some(head)) => {
                self.left = Some(head.framing);
                self.buffer.drain(..head.length);
                Ok(Opened::Stream)
            }
            (whole, head) => {
                self.end(head.as_ref().filter(|_| whole.is_ok()));
                whole?;
                Ok(Opened::Reply(head.ok_or(Broken::EarlyEnd)?.reply(&self.buffer, &self.decoded)))
            }
        }
    }

    /// The next bytes of a stream of events; none at its end.
    pub async fn more(&mut self) -> Result<Option<&[u8]>, Broken> {
        loop {
            self.decoded.clear();
            let over = match &mut self.left {
                None => return Ok(None),
                Some(Framing::Chunked) => {
                    let (whole, used) = decode_chunks(&self.buffer, &mut self.decoded)?;
                    self.buffer.drain(..used);
                    whole
                }
                Some(Framing::Length(left)) => {
                    let n = self.buffer.len().min(*left);
                    self.decoded.extend(self.buffer.drain(..n));
                    *left -= n;
                    *left == 0
                }
                Some(Framing::UntilEnd) => {
                    std::mem::swap(&mut self.buffer, &mut self.decoded);
                    false
                }
            };
            if over {
                // Streams are few and long; their connections are not used again.
                self.close();
            }
            if !self.decoded.is_empty() {
                return Ok(Some(&self.decoded));
            }
            if !over && poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                let until_end = matches!(self.left, Some(Framing::UntilEnd));
                self.close();
                return if until_end { Ok(None) } else { Err(Broken::EarlyEnd) };
            }
        }
    }

    /// Ends a stream of events. What is left of it is still under way, so the connection goes with it.
    pub fn close(&mut self) {
        (self.stream, self.left) = (None, None);
    }

    /// What is left of the reply before is forgotten, and a stream that nobody ended is ended.
    fn begin(&mut self) {
        self.buffer.clear();
        if self.left.take().is_some() {
            self.stream = None;
        }
    }

    /// Keeps the connection if the reply with this head was read whole and leaves it open.
    fn end(&mut self, head: Option<&Head>) {
        if head.is_none_or(|head| head.close) || !self.entry.reuse {
            (self.stream, self.connecting) = (None, None);
        }
    }

    /// Makes sure of a connection: one that was closed by the other side while it was idle is replaced.
    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.connecting.is_none() && self.stream.as_mut().is_some_and(|stream| !stream.is_dead()) {
            return Poll::Ready(Ok(()));
        }
        self.stream = None;
        let connecting = self.connecting.get_or_insert_with(|| {
            let entry = self.entry.clone();
            Connecting(Box::pin(async move { entry.connect().await }))
        });
        let connected = ready!(connecting.0.as_mut().poll(cx));
        self.connecting = None;
        self.stream = Some(connected.map_err(|error| error.broken())?);
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, request: &[u8], sent: &mut Sent) -> Poll<Result<(), Broken>> {
        if sent.whole {
            return Poll::Ready(Ok(()));
        }
        if !sent.began {
            ready!(self.poll_connect(cx))?;
            sent.began = true;
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Broken::NotSent)) };
        sent.maybe |= stream.may_have_sent();
        while sent.bytes < request.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &request[sent.bytes..])) {
                Ok(0) | Err(_) if !sent.maybe => return Poll::Ready(Err(Broken::NotSent)),
                Ok(0) => return Poll::Ready(Err(Broken::EarlyEnd)),
                Err(error) => return Poll::Ready(Err(broken_by(&error))),
                Ok(n) => {
                    sent.maybe = true;
                    sent.bytes += n;
                }
            }
        }
        if stream.may_have_sent() {
            // What TLS could not hand over at once is handed over now.
            ready!(Pin::new(stream).poll_flush(cx)).map_err(|error| broken_by(&error))?;
        }
        sent.whole = true;
        Poll::Ready(Ok(()))
    }

    /// The head of the reply, into `known`.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        bodiless: bool,
        known: &mut Option<Head>,
    ) -> Poll<Result<(), Broken>> {
        while known.is_none() {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Broken::EarlyEnd));
            }
            *known = self.final_head(bodiless)?;
        }
        Poll::Ready(Ok(()))
    }

    /// The rest of a reply whose head is known.
    fn poll_body(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<(), Broken>> {
        let mut ended = false;
        while !self.is_whole(head, ended)? {
            if ended {
                return Poll::Ready(Err(Broken::EarlyEnd));
            }
            ended = ready!(self.poll_fill(cx))? == 0;
        }
        Poll::Ready(Ok(()))
    }

    /// The head of the reply, and its body unless it is a stream of events; says whether it is whole.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        request: &[u8],
        sent: &mut Sent,
        known: &mut Option<Head>,
    ) -> Poll<Result<bool, Broken>> {
        ready!(self.poll_send(cx, request, sent))?;
        ready!(self.poll_head(cx, request.starts_with(b"HEAD "), known))?;
        let Some(head) = known else { return Poll::Ready(Err(Broken::EarlyEnd)) };
        let kind = Reply { status: head.status, retry_after_s: None, location: None, head: &self.buffer, body: b"" };
        if head.status == 200 && kind.header("content-type").next().is_some_and(super::is_event_stream) {
            return Poll::Ready(Ok(false));
        }
        self.poll_body(cx, head).map_ok(|()| true)
    }

    /// The head of the reply, if it is there. An interim reply (1xx) is followed by the real one.
    fn final_head(&mut self, bodiless: bool) -> Result<Option<Head>, Broken> {
        loop {
            match self.parsed_head(bodiless)? {
                Some(head) if head.status < 200 => drop(self.buffer.drain(..head.length)),
                head => return Ok(head),
            }
        }
    }

    /// A reply with the very head of the one before, as most have within a second, need not be parsed again.
    fn parsed_head(&mut self, bodiless: bool) -> Result<Option<Head>, Broken> {
        if bodiless {
            return parse_head(&self.buffer, bodiless);
        }
        if let Some((bytes, head)) = &self.last_head
            && self.buffer.starts_with(bytes)
        {
            return Ok(Some(head.clone()));
        }
        let head = parse_head(&self.buffer, bodiless)?;
        if let Some(head) = &head {
            let (bytes, last) = self.last_head.get_or_insert_with(|| (Vec::new(), head.clone()));
            bytes.clear();
            bytes.extend_from_slice(&self.buffer[..head.length]);
            last.clone_from(head);
        }
        Ok(head)
    }

    /// Whether the body is there, too; `ended` says that no more will come.
    fn is_whole(&mut self, head: &mut Head, ended: bool) -> Result<bool, Broken> {
        match head.framing {
            Framing::Length(n) if n > MAX_REPLY => Err(Broken::Malformed),
            Framing::Length(n) => Ok(self.buffer.len() >= head.length + n),
            Framing::Chunked => {
                self.decoded.clear();
                Ok(decode_chunks(&self.buffer[head.length..], &mut self.decoded)?.0)
            }
            Framing::UntilEnd => {
                head.close = true;
                Ok(ended)
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Broken::EarlyEnd)) };
        if self.buffer.len() > MAX_REPLY {
            return Poll::Ready(Err(Broken::Malformed));
        }
        self.buffer.reserve(4096);
        poll_read_buf(Pin::new(stream), cx, &mut self.buffer).map_err(|error| broken_by(&error))
    }
}

/// How much of a request has left.
#[derive(Debug, Default)]
struct Sent {
    /// There was a connection to send it over.
    began: bool,
    /// Something of it may have reached the kernel.
    maybe: bool,
    bytes: usize,
    whole: bool,
}

impl Sent {
    fn after_timeout(&self) -> Broken {
        if self.maybe { Broken::Timeout } else { Broken::NotSent }
    }
}

/// A request under way. One state machine without futures in futures, since this is what a busy generator does all the time.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// Nobody's once the reply has been handed over.
    connection: Option<&'a mut Connection>,
    request: &'a [u8],
    deadline: Instant,
    sent: Sent,
    head: Option<Head>,
}

impl Exchange<'_> {
    fn poll_reply(&mut self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(connection.poll_send(cx, self.request, &mut self.sent))?;
        ready!(connection.poll_head(cx, self.request.starts_with(b"HEAD "), &mut self.head))?;
        match &mut self.head {
            Some(head) => connection.poll_body(cx, head),
            None => Poll::Ready(Err(Broken::EarlyEnd)),
        }
    }
}

impl<'a> Future for Exchange<'a> {
    type Output = Result<Reply<'a>, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let connection = this.connection.take().expect("an exchange is polled only until it has ended");
        let result = match this.poll_reply(connection, cx) {
            Poll::Ready(result) => result,
            Poll::Pending if connection.alarm.poll(cx, this.deadline).is_ready() => Err(this.sent.after_timeout()),
            Poll::Pending => {
                this.connection = Some(connection);
                return Poll::Pending;
            }
        };
        connection.end(this.head.as_ref().filter(|_| result.is_ok()));
        Poll::Ready(match (result, this.head.take()) {
            (Ok(()), Some(head)) => Ok(head.reply(&connection.buffer, &connection.decoded)),
            (result, _) => Err(result.err().unwrap_or(Broken::EarlyEnd)),
        })
    }
}

/// A time limit that costs next to nothing while it is kept: the timer of an earlier exchange is left to ring, and is set
/// anew only then. So a connection sets its timer once in the length of a limit instead of twice in each exchange.
#[derive(Debug, Default)]
struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
}

impl Alarm {
    /// Ready when the deadline has passed; until then the task will be woken by it, or before.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
            self.waker = None;
        }
        loop {
            let wakes_us = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if wakes_us && !timer.is_elapsed() {
                return Poll::Pending;
            }
            if timer.as_mut().poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

fn broken_by(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Broken::EarlyEnd,
        _ => Broken::Reset,
    }
}

/// Where the last part of a `Location` lies in the buffer that its head was parsed from.
fn last_part(buffer: &[u8], location: &[u8]) -> Option<Range<usize>> {
    let path = location.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or(location).trim_ascii_end();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let last = path.rsplit(|b| *b == b'/').next()?;
    let start = (last.as_ptr() as usize).checked_sub(buffer.as_ptr() as usize)?;
    (!last.is_empty()).then_some(start..start + last.len())
}

pub(super) fn parse_head(buffer: &[u8], bodiless: bool) -> Result<Option<Head>, Broken> {
    let mut headers = [MaybeUninit::uninit(); 48];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, buffer, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Malformed),
    };
    let status = response.code.ok_or(Broken::Malformed)?;
    let mut framing = Framing::UntilEnd;
    let mut close = response.version == Some(0);
    let mut retry_after = None;
    let mut location = None;
    for header in response.headers.iter() {
        let value = || std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            if !matches!(framing, Framing::Chunked) {
                framing = Framing::Length(value().parse().map_err(|_| Broken::Malformed)?);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if value().to_ascii_lowercase().ends_with("chunked") {
                framing = Framing::Chunked;
            }
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = value().eq_ignore_ascii_case("close") || (close && !value().eq_ignore_ascii_case("keep-alive"));
        } else if header.name.eq_ignore_ascii_case("retry-after") {
            retry_after = RetryAfter::parse(value());
        } else if header.name.eq_ignore_ascii_case("location") {
            location = last_part(buffer, header.value);
        }
    }
    if bodiless || status == 204 || status == 304 || status < 200 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head { status, length, framing, close, retry_after, location }))
}

/// Decodes the chunks of a body that are there, after those in `out`; says whether it is whole, and how many bytes that took.
fn decode_chunks(chunks: &[u8], out: &mut Vec<u8>) -> Result<(bool, usize), Broken> {
    let mut rest = chunks;
    loop {
        let used = chunks.len() - rest.len();
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((start, 0))) => {
                // Trailers, if any, end with an empty line.
                let tail = &rest[start..];
                let whole = tail.starts_with(b"\r\n") || tail.windows(4).any(|w| w == b"\r\n\r\n");
                return Ok((whole, if whole { chunks.len() } else { used }));
            }
            Ok(httparse::Status::Complete((start, size))) => {
                let size = usize::try_from(size).map_err(|_| Broken::Malformed)?;
                let end = start.checked_add(size).ok_or(Broken::Malformed)?;
                if end > MAX_REPLY {
                    return Err(Broken::Malformed);
                }
                if rest.len() < end + 2 {
                    return Ok((false, used));
                }
                out.extend_from_slice(&rest[start..end]);
                rest = &rest[end + 2..];
            }
            Ok(httparse::Status::Partial) => return Ok((false, used)),
            Err(_) => return Err(Broken::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::load::client::not_connected;

    /// A server that reads one request and writes `reply` in pieces of `piece` bytes, then closes if asked.
    async fn serve(reply: &'static [u8], piece: usize, then_close: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut buffer = [0u8; 1024];
                    while let Ok(n) = stream.read(&mut buffer).await {
                        if n == 0 {
                            break;
                        }
                        for chunk in reply.chunks(piece) {
                            stream.write_all(chunk).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                        if then_close {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn when_to_come_again_is_said_in_seconds_or_as_a_date() {
        let now: jiff::Timestamp = "2026-03-01T12:00:00.400Z".parse().unwrap();
        let told = |value| RetryAfter::parse(value).map(|after| after.seconds(now));
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 01 Mar 2026 12:00:02 GMT", Some(2)),
            ("Sun, 01 Mar 2026 11:59:00 GMT", Some(0)),
            ("soon", None),
        ] {
            assert_eq!(told(value), seconds, "{value}");
        }
    }

    fn connect(address: SocketAddr) -> Connection {
        Connection::new(Entry::plain(address))
    }

    const LIMIT: Duration = Duration::from_secs(5);

    fn within(limit: Duration) -> Instant {
        Instant::now() + limit
    }

    fn soon() -> Instant {
        within(LIMIT)
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn reads_replies_however_they_are_framed_and_cut() {
        let cases: [(&'static [u8], u16, &[u8]); 4] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello"),
            (b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", 304, b""),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Slow\r\ncontent-length: 0\r\nretry-after: 7\r\n\r\n",
                429,
                b"",
            ),
        ];
        for (reply, status, body) in cases {
            for piece in [1, 3, 1000] {
                let mut connection = connect(serve(reply, piece, false).await);
                for _ in 0..2 {
                    let got = connection.exchange(GET, soon()).await.unwrap();
                    assert_eq!((got.status, got.body), (status, body));
                    assert_eq!(got.retry_after_s, (status == 429).then_some(7));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_body_without_a_length_ends_with_the_connection() {
        let mut connection = connect(serve(b"HTTP/1.0 200 OK\r\n\r\nbye", 2, true).await);
        for _ in 0..2 {
            assert_eq!(connection.exchange(GET, soon()).await.unwrap().body, b"bye");
        }
    }

    #[tokio::test]
    async fn tells_apart_what_is_not_known_from_what_did_not_happen() {
        let mut cut = connect(serve(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel", 9, true).await);
        assert_eq!(cut.exchange(GET, soon()).await.unwrap_err(), Broken::EarlyEnd);
        let mut silent = connect(serve(b"", 1, false).await);
        assert_eq!(silent.exchange(GET, within(Duration::from_millis(30))).await.unwrap_err(), Broken::Timeout);
        let mut garbage = connect(serve(b"SSH-2.0-x\r\n\r\n", 20, false).await);
        assert_eq!(garbage.exchange(GET, soon()).await.unwrap_err(), Broken::Malformed);
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(connect(nobody).exchange(GET, soon()).await.unwrap_err(), Broken::NotSent);
    }

    #[tokio::test]
    async fn the_last_part_of_a_location_is_kept() {
        let cases: [(&'static [u8], Option<&str>); 4] = [
            (b"HTTP/1.1 202 Accepted\r\nlocation: /tickets/t-17\r\ncontent-length: 0\r\n\r\n", Some("t-17")),
            (b"HTTP/1.1 202 A\r\nLocation: http://x/q/18/?a=/b\r\ncontent-length: 2\r\n\r\n{}", Some("18")),
            (b"HTTP/1.1 202 A\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", None),
            (b"HTTP/1.1 202 A\r\ncontent-length: 0\r\n\r\n", None),
        ];
        for (reply, part) in cases {
            let mut connection = connect(serve(reply, 7, false).await);
            assert_eq!(connection.exchange(GET, soon()).await.unwrap().location, part);
        }
    }

    #[test]
    fn a_lack_of_this_machine_is_told_from_a_refusal_of_the_other() {
        for code in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS] {
            assert_eq!(not_connected(&io::Error::from_raw_os_error(code)), Broken::Exhausted, "{code}");
        }
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH] {
            assert_eq!(not_connected(&io::Error::from_raw_os_error(code)), Broken::NotSent, "{code}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_replaced() {
        let address = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 100, true).await;
        let mut connection = connect(address);
        for _ in 0..3 {
            assert_eq!(connection.exchange(GET, soon()).await.unwrap().body, b"ok");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A server that answers the n-th request of a connection with the n-th reply, and is silent after the last.
    async fn serve_in_turn(replies: &'static [&'static [u8]]) -> Entry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0u8; 1024];
                    for reply in replies {
                        if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                        // In two pieces, the first of which ends within the head.
                        for piece in [&reply[..20], &reply[20..]] {
                            stream.write_all(piece).await.unwrap();
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        Entry::plain(address)
    }

    #[tokio::test]
    async fn a_head_like_the_one_before_is_no_excuse_for_its_body() {
        const REPLIES: [&[u8]; 6] = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthree",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nretry-after: 4\r\n\r\nfour!",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nretry-after: 4\r\n\r\nfive!",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ];
        let mut connection = Connection::new(serve_in_turn(&REPLIES).await);
        let expected = ["one", "two", "three", "four!", "five!", ""];
        for (n, body) in expected.into_iter().enumerate() {
            let reply = connection.exchange(GET, soon()).await.unwrap();
            assert_eq!(std::str::from_utf8(reply.body).unwrap(), body);
            assert_eq!(reply.retry_after_s, (n == 3 || n == 4).then_some(4));
        }
    }

    #[tokio::test]
    async fn the_head_of_a_get_says_nothing_of_the_body_of_a_head() {
        const REPLIES: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo",
        ];
        let mut connection = Connection::new(serve_in_turn(&REPLIES).await);
        assert_eq!(connection.exchange(GET, soon()).await.unwrap().body, b"one");
        assert_eq!(connection.exchange(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", soon()).await.unwrap().body, b"");
        assert_eq!(connection.exchange(GET, soon()).await.unwrap().body, b"two");
    }

    #[tokio::test]
    async fn the_limit_is_that_of_each_exchange_whichever_came_before() {
        const REPLIES: [&[u8]; 2] = [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none"; 2];
        let entry = serve_in_turn(&REPLIES).await;
        let ms = Duration::from_millis;
        for (limits, last) in [([LIMIT, LIMIT], ms(60)), ([ms(400), ms(300)], ms(700)), ([ms(300), ms(900)], ms(50))] {
            let mut connection = Connection::new(entry.clone());
            for limit in limits {
                connection.exchange(GET, within(limit)).await.unwrap();
            }
            // Elsewhere, so that the timer of before would wake nobody.
            let silent = tokio::spawn(async move {
                let started = Instant::now();
                let ended = connection.exchange(GET, within(last)).await.map(drop);
                (ended, started.elapsed())
            });
            let (ended, took) = tokio::time::timeout(LIMIT, silent).await.expect("it ends by itself").unwrap();
            assert_eq!(ended, Err(Broken::Timeout));
            assert!(took >= last, "given up after {took:?} of {last:?}");
        }
    }
}
