//! HTTP/2 (RFC 9113): one connection for each virtual buyer, with one request at a time on it, with TLS or without.
//!
//! The request arrives as it is rendered for HTTP/1.1, and the reply is written down as an HTTP/1.1 head and its body, so
//! that everything around speaks of one kind of message.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Uri, Version};
use tokio::time::Instant;

use super::entry::Entry;
use super::http1::{Framing, Head, parse_head};
use super::{Broken, MAX_REPLY, Opened, Reply};

/// A connection that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Connection {
    entry: Entry,
    sender: Option<SendRequest<Bytes>>,
    /// The head of the reply as HTTP/1.1 would write it, and the body after it.
    buffer: Vec<u8>,
    /// The body of a reply that is read piece by piece, and the piece.
    body: Option<RecvStream>,
    piece: Bytes,
}

impl Connection {
    pub fn new(entry: Entry) -> Connection {
        Connection { entry, sender: None, buffer: Vec::new(), body: None, piece: Bytes::new() }
    }

    /// Connects now, so that the first request need not. Says what was in the way, if this machine was.
    pub async fn warm(&mut self, limit: Duration) -> Option<Broken> {
        // Who connects for each request does it then.
        if !self.entry.reuse {
            return None;
        }
        let sender = tokio::time::timeout(limit, self.ready()).await.ok()?;
        match sender {
            Ok(sender) => {
                self.sender = Some(sender);
                None
            }
            Err(broken) => Some(broken),
        }
    }

    pub async fn exchange(&mut self, request: &[u8], deadline: Instant) -> Result<Reply<'_>, Broken> {
        let mut sent = false;
        let result = tokio::time::timeout_at(deadline, self.whole(request, &mut sent)).await;
        let head = self.outcome(result, sent)?;
        Ok(head.reply(&self.buffer, &[]))
    }

    pub async fn open(&mut self, request: &[u8], limit: Duration) -> Result<Opened<'_>, Broken> {
        let mut sent = false;
        let result = tokio::time::timeout(limit, self.begin(request, &mut sent)).await;
        let (head, is_stream) = self.outcome(result, sent)?;
        Ok(if is_stream { Opened::Stream } else { Opened::Reply(head.reply(&self.buffer, &[])) })
    }

    pub async fn more(&mut self) -> Result<Option<&[u8]>, Broken> {
        let Some(body) = &mut self.body else { return Ok(None) };
        match next_piece(body).await {
            Ok(Some(piece)) => {
                self.piece = piece;
                Ok(Some(&self.piece))
            }
            Ok(None) => {
                self.body = None;
                Ok(None)
            }
            Err(broken) => {
                (self.body, self.sender) = (None, None);
                Err(broken)
            }
        }
    }

    /// Ends a reply that is read piece by piece. The connection can go on.
    pub fn close(&mut self) {
        self.body = None;
    }

    fn outcome<T>(
        &mut self,
        result: Result<Result<T, Broken>, tokio::time::error::Elapsed>,
        sent: bool,
    ) -> Result<T, Broken> {
        let result = result.unwrap_or(Err(if sent { Broken::Timeout } else { Broken::NotSent }));
        if result.is_err() || !self.entry.reuse {
            // The last handle to a connection takes it along.
            self.sender = None;
        }
        result
    }

    async fn whole(&mut self, request: &[u8], sent: &mut bool) -> Result<Head, Broken> {
        let (status, headers, mut body) = self.send(request, sent).await?;
        self.read_whole(status, &headers, &mut body).await
    }

    /// The same up to the reply's head, if the reply is a stream of events.
    async fn begin(&mut self, request: &[u8], sent: &mut bool) -> Result<(Head, bool), Broken> {
        let (status, headers, mut body) = self.send(request, sent).await?;
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
        if status == 200 && kind.is_some_and(super::is_event_stream) {
            let head = self.write_head(status, &headers)?;
            self.body = Some(body);
            return Ok((head, true));
        }
        Ok((self.read_whole(status, &headers, &mut body).await?, false))
    }

    async fn send(&mut self, request: &[u8], sent: &mut bool) -> Result<(u16, HeaderMap, RecvStream), Broken> {
        self.body = None;
        let (request, body) = translate(request, self.entry.scheme()).ok_or(Broken::NotSent)?;
        let mut sender = self.ready().await?;
        // A connection that takes no more requests says so here, before anything of this one is sent.
        let (reply, mut stream) = sender.send_request(request, body.is_empty()).map_err(|_| Broken::NotSent)?;
        *sent = true;
        self.sender = Some(sender);
        if !body.is_empty() {
            // If this fails, the stream has been ended, and the reply says how.
            let _ = stream.send_data(body, true);
        }
        let (head, body) = reply.await.map_err(|error| broken_by(&error, true))?.into_parts();
        Ok((head.status.as_u16(), head.headers, body))
    }

    async fn read_whole(&mut self, status: u16, headers: &HeaderMap, body: &mut RecvStream) -> Result<Head, Broken> {
        let mut head = self.write_head(status, headers)?;
        while let Some(piece) = next_piece(body).await? {
            if self.buffer.len() + piece.len() > MAX_REPLY {
                return Err(Broken::Malformed);
            }
            self.buffer.extend_from_slice(&piece);
        }
        head.framing = Framing::Length(self.buffer.len() - head.length);
        Ok(head)
    }

    /// Writes a reply's head down as HTTP/1.1 would.
    fn write_head(&mut self, status: u16, headers: &HeaderMap) -> Result<Head, Broken> {
        self.buffer.clear();
        write!(self.buffer, "HTTP/1.1 {status} \r\n").map_err(|_| Broken::Malformed)?;
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.buffer.extend_from_slice(part);
            }
        }
        self.buffer.extend_from_slice(b"\r\n");
        parse_head(&self.buffer, true)?.ok_or(Broken::Malformed)
    }

    /// A connection that takes requests: the one at hand, or a new one.
    async fn ready(&mut self) -> Result<SendRequest<Bytes>, Broken> {
        if let Some(sender) = self.sender.take()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        let stream = self.entry.connect().await.map_err(|error| error.broken())?;
        let (sender, connection) =
            h2::client::Builder::new().enable_push(false).handshake(stream).await.map_err(|_| Broken::NotSent)?;
        // It ends when the last handle to it is gone, or the other side ends it; who waits for a reply is told why.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender.ready().await.map_err(|_| Broken::NotSent)
    }
}

async fn next_piece(body: &mut RecvStream) -> Result<Option<Bytes>, Broken> {
    let Some(piece) = body.data().await else { return Ok(None) };
    let piece = piece.map_err(|error| broken_by(&error, false))?;
    let _ = body.flow_control().release_capacity(piece.len());
    Ok(Some(piece))
}

/// What an error means for a request whose reply was awaited. Two ways to refuse a request say for certain that nobody
/// looked at it: the code REFUSED_STREAM, and a GOAWAY whose last stream comes before it (RFC 9113 8.7), which is the only
/// kind that ends a stream here; later streams of such a connection end with it. Once a reply has begun, both are lies.
fn broken_by(error: &h2::Error, before_the_reply: bool) -> Broken {
    let refused = error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if before_the_reply && refused && error.is_remote() {
        return Broken::Refused;
    }
    match error.get_io() {
        Some(error) if error.kind() == io::ErrorKind::ConnectionReset => Broken::Reset,
        Some(_) => Broken::EarlyEnd,
        None if error.is_remote() => Broken::Reset,
        None => Broken::Malformed,
    }
}

/// A rendered request as HTTP/2 sends it: what belongs to a connection of HTTP/1.1 is left out, and the host is a part of
/// the address.
fn translate(request: &[u8], scheme: &str) -> Option<(Request<()>, Bytes)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(request).ok()? else { return None };
    let host = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"))?;
    let uri = Uri::builder().scheme(scheme).authority(host.value).path_and_query(parsed.path?).build().ok()?;
    let mut translated = Request::builder()
        .method(Method::from_bytes(parsed.method?.as_bytes()).ok()?)
        .uri(uri)
        .version(Version::HTTP_2);
    for header in parsed.headers.iter() {
        if !["host", "connection"].iter().any(|own| header.name.eq_ignore_ascii_case(own)) {
            translated = translated.header(header.name, header.value);
        }
    }
    Some((translated.body(()).ok()?, Bytes::copy_from_slice(&request[length..])))
}
