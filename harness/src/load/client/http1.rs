//! An HTTP/1.1 connection of a virtual buyer, over plain TCP or TLS.
//!
//! It is ours because three things matter here that general clients do not give: whether any byte was handed to the
//! kernel at all (only then is an attempt indeterminate rather than refused), prebuilt request bytes, and a reply that is
//! read whole before the clock stops. Heads are parsed by `httparse`.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::entry::Entry;
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
}

pub(super) struct Head {
    pub status: u16,
    pub length: usize,
    pub framing: Framing,
    close: bool,
    retry_after_s: Option<u32>,
    /// Where in the buffer the last part of the `Location` lies.
    location: Option<Range<usize>>,
}

#[derive(Debug)]
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
        let (status, retry_after_s) = (self.status, self.retry_after_s);
        Reply { status, retry_after_s, location, head: &buffer[..self.length], body }
    }
}

impl Connection {
    /// A connection to `entry`, made when it is first needed.
    pub fn new(entry: Entry) -> Connection {
        Connection { entry, stream: None, buffer: Vec::new(), decoded: Vec::new(), left: None }
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        // Who connects for each request does it then.
        if self.stream.is_some() || !self.entry.reuse {
            return None;
        }
        match tokio::time::timeout(limit, self.entry.connect()).await {
            Ok(Ok(stream)) => self.stream = Some(stream),
            Ok(Err(error)) => return Some(error.broken()),
            Err(_) => {}
        }
        None
    }

    /// Sends a request and reads the whole reply within `limit`.
    ///
    /// # Errors
    /// [`Broken`] says what is known of an attempt without a reply.
    pub async fn exchange(&mut self, request: &[u8], limit: Duration) -> Result<Reply<'_>, Broken> {
        let mut sent = false;
        let result = match tokio::time::timeout(limit, self.attempt(request, &mut sent)).await {
            Ok(result) => result,
            Err(_) if sent => Err(Broken::Timeout),
            Err(_) => Err(Broken::NotSent),
        };
        match result {
            Ok(head) => {
                if head.close || !self.entry.reuse {
                    self.stream = None;
                }
                Ok(head.reply(&self.buffer, &self.decoded))
            }
            Err(broken) => {
                self.stream = None;
                Err(broken)
            }
        }
    }

    /// Sends a request and reads the head of the reply, and its whole body unless it is a stream of events.
    pub async fn open(&mut self, request: &[u8], limit: Duration) -> Result<Opened<'_>, Broken> {
        let mut sent = false;
        let result = match tokio::time::timeout(limit, self.begin(request, &mut sent)).await {
            Ok(result) => result,
            Err(_) if sent => Err(Broken::Timeout),
            Err(_) => Err(Broken::NotSent),
        };
        if result.is_err() {
            self.stream = None;
        }
        let Some(head) = result? else { return Ok(Opened::Stream) };
        if head.close || !self.entry.reuse {
            self.stream = None;
        }
        Ok(Opened::Reply(head.reply(&self.buffer, &self.decoded)))
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
                self.left = None;
            }
            if !self.decoded.is_empty() {
                return Ok(Some(&self.decoded));
            }
            if !over && self.fill().await? == 0 {
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

    async fn attempt(&mut self, request: &[u8], sent: &mut bool) -> Result<Head, Broken> {
        let bodiless = self.send(request, sent).await?;
        let mut head = self.read_head(bodiless).await?;
        self.read_body(&mut head).await?;
        Ok(head)
    }

    /// The reply, read whole; none if it is a stream of events.
    async fn begin(&mut self, request: &[u8], sent: &mut bool) -> Result<Option<Head>, Broken> {
        let bodiless = self.send(request, sent).await?;
        let mut head = self.read_head(bodiless).await?;
        let kind = Reply { status: head.status, retry_after_s: None, location: None, head: &self.buffer, body: b"" };
        if head.status == 200 && kind.header("content-type").next().is_some_and(super::is_event_stream) {
            self.left = Some(head.framing);
            self.buffer.drain(..head.length);
            return Ok(None);
        }
        self.read_body(&mut head).await?;
        Ok(Some(head))
    }

    /// Sends a request; says whether its reply has no body whatever its head says.
    async fn send(&mut self, request: &[u8], sent: &mut bool) -> Result<bool, Broken> {
        if self.left.take().is_some() || self.stream.as_mut().is_some_and(Stream::is_dead) {
            self.stream = None;
        }
        if self.stream.is_none() {
            self.stream = Some(self.entry.connect().await.map_err(|error| error.broken())?);
        }
        let stream = self.stream.as_mut().ok_or(Broken::NotSent)?;
        *sent = stream.may_have_sent();
        self.buffer.clear();
        let mut rest = request;
        while !rest.is_empty() {
            match stream.write(rest).await {
                Ok(0) | Err(_) if !*sent => return Err(Broken::NotSent),
                Ok(0) => return Err(Broken::EarlyEnd),
                Err(error) => return Err(broken_by(&error)),
                Ok(n) => {
                    *sent = true;
                    rest = &rest[n..];
                }
            }
        }
        if stream.may_have_sent() {
            // What TLS could not hand over at once is handed over now.
            stream.flush().await.map_err(|error| broken_by(&error))?;
        }
        Ok(request.starts_with(b"HEAD "))
    }

    async fn read_head(&mut self, bodiless: bool) -> Result<Head, Broken> {
        loop {
            if let Some(head) = parse_head(&self.buffer, bodiless)? {
                // An interim reply (1xx) is followed by the real one.
                if head.status >= 200 {
                    return Ok(head);
                }
                self.buffer.drain(..head.length);
                continue;
            }
            if self.fill().await? == 0 {
                return Err(Broken::EarlyEnd);
            }
        }
    }

    async fn read_body(&mut self, head: &mut Head) -> Result<(), Broken> {
        match head.framing {
            Framing::Length(n) => {
                if n > MAX_REPLY {
                    return Err(Broken::Malformed);
                }
                while self.buffer.len() < head.length + n {
                    if self.fill().await? == 0 {
                        return Err(Broken::EarlyEnd);
                    }
                }
            }
            Framing::Chunked => loop {
                self.decoded.clear();
                if decode_chunks(&self.buffer[head.length..], &mut self.decoded)?.0 {
                    break;
                }
                if self.fill().await? == 0 {
                    return Err(Broken::EarlyEnd);
                }
            },
            Framing::UntilEnd => {
                while self.fill().await? > 0 {}
                head.close = true;
            }
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<usize, Broken> {
        let stream = self.stream.as_mut().ok_or(Broken::EarlyEnd)?;
        if self.buffer.len() > MAX_REPLY {
            return Err(Broken::Malformed);
        }
        self.buffer.reserve(4096);
        stream.read_buf(&mut self.buffer).await.map_err(|e| broken_by(&e))
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
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Malformed),
    };
    let status = response.code.ok_or(Broken::Malformed)?;
    let mut framing = Framing::UntilEnd;
    let mut close = response.version == Some(0);
    let mut retry_after_s = None;
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
            retry_after_s = value().parse().ok();
        } else if header.name.eq_ignore_ascii_case("location") {
            location = last_part(buffer, header.value);
        }
    }
    if bodiless || status == 204 || status == 304 || status < 200 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head { status, length, framing, close, retry_after_s, location }))
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

    fn connect(address: SocketAddr) -> Connection {
        Connection::new(Entry::plain(address))
    }

    const LIMIT: Duration = Duration::from_secs(5);
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
                    let got = connection.exchange(GET, LIMIT).await.unwrap();
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
            assert_eq!(connection.exchange(GET, LIMIT).await.unwrap().body, b"bye");
        }
    }

    #[tokio::test]
    async fn tells_apart_what_is_not_known_from_what_did_not_happen() {
        let mut cut = connect(serve(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel", 9, true).await);
        assert_eq!(cut.exchange(GET, LIMIT).await.unwrap_err(), Broken::EarlyEnd);
        let mut silent = connect(serve(b"", 1, false).await);
        assert_eq!(silent.exchange(GET, Duration::from_millis(30)).await.unwrap_err(), Broken::Timeout);
        let mut garbage = connect(serve(b"SSH-2.0-x\r\n\r\n", 20, false).await);
        assert_eq!(garbage.exchange(GET, LIMIT).await.unwrap_err(), Broken::Malformed);
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(connect(nobody).exchange(GET, LIMIT).await.unwrap_err(), Broken::NotSent);
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
            assert_eq!(connection.exchange(GET, LIMIT).await.unwrap().location, part);
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
            assert_eq!(connection.exchange(GET, LIMIT).await.unwrap().body, b"ok");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
