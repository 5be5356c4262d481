//! One keep-alive HTTP/1.1 connection of a virtual buyer.
//!
//! It is ours because three things matter here that general clients do not give: whether any byte was handed to the
//! kernel at all (only then is an attempt indeterminate rather than refused), prebuilt request bytes, and a reply that is
//! read whole before the clock stops. Heads are parsed by `httparse`.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Broken, Reply};

/// A virtual buyer's connection. It reconnects when it has to.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    decoded: Vec<u8>,
}

struct Head {
    status: u16,
    length: usize,
    framing: Framing,
    close: bool,
    retry_after_s: Option<u32>,
    /// Where in the buffer the last part of the `Location` lies.
    location: Option<Range<usize>>,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// Replies are pages and small JSON; more than this is not a shop's reply.
const MAX_REPLY: usize = 16 << 20;

impl Connection {
    /// A connection to `address`, made when it is first needed.
    pub fn new(address: SocketAddr) -> Connection {
        Connection { address, stream: None, buffer: Vec::new(), decoded: Vec::new() }
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        if self.stream.is_some() {
            return None;
        }
        match tokio::time::timeout(limit, connect(self.address)).await {
            Ok(Ok(stream)) => self.stream = Some(stream),
            Ok(Err(error)) => return Some(not_connected(&error)),
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
                if head.close {
                    self.stream = None;
                }
                let body: &[u8] = match head.framing {
                    Framing::Chunked => &self.decoded,
                    Framing::Length(n) => &self.buffer[head.length..head.length + n],
                    Framing::UntilEnd => &self.buffer[head.length..],
                };
                let location = head.location.and_then(|at| std::str::from_utf8(&self.buffer[at]).ok());
                let (status, retry_after_s) = (head.status, head.retry_after_s);
                Ok(Reply { status, retry_after_s, location, head: &self.buffer[..head.length], body })
            }
            Err(broken) => {
                self.stream = None;
                Err(broken)
            }
        }
    }

    async fn attempt(&mut self, request: &[u8], sent: &mut bool) -> Result<Head, Broken> {
        if self.stream.as_ref().is_some_and(is_dead) {
            self.stream = None;
        }
        if self.stream.is_none() {
            self.stream = Some(connect(self.address).await.map_err(|error| not_connected(&error))?);
        }
        let stream = self.stream.as_mut().ok_or(Broken::NotSent)?;
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
        self.read_reply(request.starts_with(b"HEAD ")).await
    }

    async fn read_reply(&mut self, bodiless: bool) -> Result<Head, Broken> {
        let mut head = loop {
            if let Some(head) = parse_head(&self.buffer, bodiless)? {
                // An interim reply (1xx) is followed by the real one.
                if head.status >= 200 {
                    break head;
                }
                self.buffer.drain(..head.length);
                continue;
            }
            if self.fill().await? == 0 {
                return Err(Broken::EarlyEnd);
            }
        };
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
                if decode_chunks(&self.buffer[head.length..], &mut self.decoded)? {
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
        Ok(head)
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

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An idle connection that is readable was closed by the other side, or sends what nobody asked for.
fn is_dead(stream: &TcpStream) -> bool {
    let mut byte = [0u8; 1];
    !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn broken_by(error: &io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Broken::EarlyEnd,
        _ => Broken::Reset,
    }
}

/// Why a connection could not be made: because of the other side, or of this one.
fn not_connected(error: &io::Error) -> Broken {
    let ours =
        [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| ours.contains(&code)) { Broken::Exhausted } else { Broken::NotSent }
}

/// Where the last part of a `Location` lies in the buffer that its head was parsed from.
fn last_part(buffer: &[u8], location: &[u8]) -> Option<Range<usize>> {
    let path = location.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or(location).trim_ascii_end();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let last = path.rsplit(|b| *b == b'/').next()?;
    let start = (last.as_ptr() as usize).checked_sub(buffer.as_ptr() as usize)?;
    (!last.is_empty()).then_some(start..start + last.len())
}

fn parse_head(buffer: &[u8], bodiless: bool) -> Result<Option<Head>, Broken> {
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

/// Decodes a chunked body from its start; true when it is whole.
fn decode_chunks(mut rest: &[u8], out: &mut Vec<u8>) -> Result<bool, Broken> {
    out.clear();
    loop {
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((start, 0))) => {
                // Trailers, if any, end with an empty line.
                let tail = &rest[start..];
                return Ok(tail.starts_with(b"\r\n") || tail.windows(4).any(|w| w == b"\r\n\r\n"));
            }
            Ok(httparse::Status::Complete((start, size))) => {
                let size = usize::try_from(size).map_err(|_| Broken::Malformed)?;
                let end = start.checked_add(size).ok_or(Broken::Malformed)?;
                if end > MAX_REPLY {
                    return Err(Broken::Malformed);
                }
                if rest.len() < end + 2 {
                    return Ok(false);
                }
                out.extend_from_slice(&rest[start..end]);
                rest = &rest[end + 2..];
            }
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => return Err(Broken::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

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
                let mut connection = Connection::new(serve(reply, piece, false).await);
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
        let mut connection = Connection::new(serve(b"HTTP/1.0 200 OK\r\n\r\nbye", 2, true).await);
        for _ in 0..2 {
            assert_eq!(connection.exchange(GET, LIMIT).await.unwrap().body, b"bye");
        }
    }

    #[tokio::test]
    async fn tells_apart_what_is_not_known_from_what_did_not_happen() {
        let mut cut = Connection::new(serve(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel", 9, true).await);
        assert_eq!(cut.exchange(GET, LIMIT).await.unwrap_err(), Broken::EarlyEnd);
        let mut silent = Connection::new(serve(b"", 1, false).await);
        assert_eq!(silent.exchange(GET, Duration::from_millis(30)).await.unwrap_err(), Broken::Timeout);
        let mut garbage = Connection::new(serve(b"SSH-2.0-x\r\n\r\n", 20, false).await);
        assert_eq!(garbage.exchange(GET, LIMIT).await.unwrap_err(), Broken::Malformed);
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(Connection::new(nobody).exchange(GET, LIMIT).await.unwrap_err(), Broken::NotSent);
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
            let mut connection = Connection::new(serve(reply, 7, false).await);
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
        let mut connection = Connection::new(address);
        for _ in 0..3 {
            assert_eq!(connection.exchange(GET, LIMIT).await.unwrap().body, b"ok");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
