//! Every protocol against real servers: what a reply says, and what is known where there is none.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Broken, Connection, Entry, Opened};
use crate::load::testing::{Body, Server, accept, certified, full, pieces, serve};
use crate::scenario;

const LIMIT: Duration = Duration::from_secs(10);
const ANY: [&str; 2] = ["h2", "http/1.1"];

/// The entry of a scenario that says this of its connections.
fn entry(dir: &Path, address: SocketAddr, connection: &str) -> Entry {
    entry_called(dir, address, connection, "")
}

/// The same of a service that says more of itself.
fn entry_called(dir: &Path, address: SocketAddr, connection: &str, more: &str) -> Entry {
    let text = format!(
        r#"
name = "x"
target.external.address = "{address}"
{more}
item = [{{ id = 1, price_cents = 100, stock = 1, per_user_limit = 1, closes_at = "10m", hold = "1m" }}]
load = {{ duration = "1s", virtual_buyers = 1, connection = {{ {connection} }} }}
steady_state = {{ step = "page", within = "1s" }}
step = {{ page = {{ path = "/" }} }}
cohort = {{ buyers = {{ journey = ["page"], arrivals = [{{ constant = {{ rate = 1, lasts = "1s" }} }}] }} }}
"#
    );
    let path = dir.join("x.toml");
    std::fs::write(&path, text).unwrap();
    let scenario = scenario::load(&path, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario;
    Entry::of(&scenario, address, None).unwrap()
}

#[test]
fn a_service_is_asked_for_by_the_name_that_it_goes_by() {
    let dir = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:8081".parse().unwrap();
    let host = |more: &str| {
        let lines = entry_called(dir.path(), address, "", more).header_lines();
        lines.lines().next().unwrap().to_owned()
    };
    assert_eq!(host(""), "host: 127.0.0.1:8081");
    assert_eq!(host("target.external.host = \"shop.example:8443\""), "host: shop.example:8443");
}

fn ask(path: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-key: k\r\ncontent-length: 2\r\n\r\n{{}}").into_bytes()
}

/// What a scenario can say of its connections, and whether the server then has TLS. `CA` stands for the authority's file.
const WAYS: [(&str, bool); 6] = [
    ("", false),
    ("reuse = false", false),
    ("http = '2'", false),
    ("tls = { ca = 'CA', name = 'shop.test' }", true),
    ("tls = { ca = 'CA', name = 'shop.test' }, http = '2'", true),
    ("tls = { ca = 'CA', name = 'shop.test' }, http = '2', reuse = false", true),
];

/// Each of them, with a server of its own and how it is reached.
fn ways(dir: &Path) -> impl Iterator<Item = (String, Server, Entry)> {
    let ca = dir.join("ca.pem");
    let tls = certified("shop.test", &ca, &ANY);
    WAYS.into_iter().map(move |(way, encrypted)| {
        let server = serve(encrypted.then(|| tls.clone()), answer);
        let way = way.replace("CA", ca.to_str().unwrap());
        let entry = entry(dir, server.address, &way);
        (way, server, entry)
    })
}

fn answer(request: Request<Bytes>) -> Response<Body> {
    assert_eq!((request.headers()["x-key"].as_bytes(), &request.body()[..]), (&b"k"[..], &b"{}"[..]));
    let reply = Response::builder();
    match request.uri().path() {
        "/whole" => reply.header("etag", "v1").body(full("hello")),
        "/pieces" => reply.body(pieces(vec![(0, Some("hel".into())), (5, Some("lo".into()))])),
        "/large" => reply.body(full("x".repeat(300_000))),
        "/none" => reply.status(204).body(full("")),
        "/slow" => reply.status(429).header("retry-after", "7").header("location", "/tickets/17?x").body(full("")),
        "/cut" => reply.body(pieces(vec![(0, Some("hel".into())), (5, None)])),
        _ => reply
            .header("content-type", "text/event-stream; charset=utf-8")
            .body(pieces(vec![(0, Some("one".into())), (5, Some("two".into()))])),
    }
    .unwrap()
}

#[tokio::test]
async fn every_protocol_says_the_same() {
    let dir = tempfile::TempDir::new().unwrap();
    for (way, server, entry) in ways(dir.path()) {
        let mut connection = Connection::new(&entry);
        for _ in 0..2 {
            for (path, status, body) in [("/whole", 200, "hello"), ("/pieces", 200, "hello"), ("/none", 204, "")] {
                let request = ask(path);
                let reply =
                    connection.exchange(&request, LIMIT).await.unwrap_or_else(|b| panic!("{way} {path}: {b:?}"));
                assert_eq!((reply.status, reply.body), (status, body.as_bytes()), "{way} {path}");
                assert_eq!(reply.header("ETag").next(), (path == "/whole").then_some("v1"), "{way} {path}");
            }
            let slow = ask("/slow");
            let reply = connection.exchange(&slow, LIMIT).await.unwrap();
            assert_eq!((reply.status, reply.retry_after_s, reply.location), (429, Some(7), Some("17")), "{way}");
            assert_eq!(connection.exchange(&ask("/large"), LIMIT).await.unwrap().body.len(), 300_000, "{way}");
        }
        let made = server.connections.load(Ordering::Relaxed);
        assert_eq!(made, if way.contains("reuse") { 10 } else { 1 }, "{way}: connections");
        // Cut in the middle, it is not known what became of the request; the next one is none the worse.
        let cut = connection.exchange(&ask("/cut"), LIMIT).await.unwrap_err();
        assert_eq!(cut, if entry.http2 { Broken::Reset } else { Broken::EarlyEnd }, "{way}");
        assert_eq!(connection.exchange(&ask("/whole"), LIMIT).await.unwrap().body, b"hello", "{way}");
    }
}

#[tokio::test]
async fn a_stream_of_events_is_read_as_it_comes_and_anything_else_whole() {
    let dir = tempfile::TempDir::new().unwrap();
    for (way, _server, entry) in ways(dir.path()) {
        let mut connection = Connection::new(&entry);
        for _ in 0..2 {
            assert!(matches!(connection.open(&ask("/events"), LIMIT).await.unwrap(), Opened::Stream), "{way}");
            let mut read = Vec::new();
            while let Some(bytes) = connection.more().await.unwrap() {
                read.extend_from_slice(bytes);
            }
            assert_eq!(read, b"onetwo", "{way}");
            let Opened::Reply(reply) = connection.open(&ask("/whole"), LIMIT).await.unwrap() else { panic!("{way}") };
            assert_eq!(reply.body, b"hello", "{way}");
            // One that is left in the middle does not get into the next reply.
            assert!(matches!(connection.open(&ask("/events"), LIMIT).await.unwrap(), Opened::Stream), "{way}");
            assert_eq!(connection.more().await.unwrap(), Some(&b"one"[..]), "{way}");
            connection.close();
            assert_eq!(connection.exchange(&ask("/pieces"), LIMIT).await.unwrap().body, b"hello", "{way}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_fails_has_sent_nothing_of_the_request() {
    let dir = tempfile::TempDir::new().unwrap();
    let (ca, other) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    let tls = certified("shop.test", &ca, &["http/1.1"]);
    certified("shop.test", &other, &ANY);
    let shop = serve(Some(tls), answer).address;
    let plain = serve(None, answer).address;
    let silent = accept(async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let (ca, other) = (ca.display(), other.display());
    for (address, connection, broken) in [
        (shop, format!("tls = {{ ca = '{ca}', name = 'shop.test' }}"), None),
        (shop, "tls = { verify = false }".to_owned(), None),
        (shop, format!("tls = {{ ca = '{ca}', name = 'another.test' }}"), Some(Broken::Handshake)),
        (shop, format!("tls = {{ ca = '{ca}' }}"), Some(Broken::Handshake)),
        (shop, format!("tls = {{ ca = '{other}', name = 'shop.test' }}"), Some(Broken::Handshake)),
        // HTTP/2 is not what this one speaks.
        (shop, format!("tls = {{ ca = '{ca}', name = 'shop.test' }}, http = '2'"), Some(Broken::Handshake)),
        (plain, "tls = { verify = false }".to_owned(), Some(Broken::Handshake)),
        (silent, "tls = { verify = false }".to_owned(), Some(Broken::NotSent)),
    ] {
        let mut connection_made = Connection::new(&entry(dir.path(), address, &connection));
        let limit = if address == silent { Duration::from_millis(100) } else { LIMIT };
        let result = connection_made.exchange(&ask("/whole"), limit).await.map(|reply| reply.status);
        assert_eq!(result, broken.map_or(Ok(200), Err), "{connection}");
    }
}

#[tokio::test]
async fn nobody_there_is_known_in_every_protocol() {
    let dir = tempfile::TempDir::new().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for connection in ["", "http = '2'", "tls = { verify = false }", "tls = { verify = false }, http = '2'"] {
        let mut connection = Connection::new(&entry(dir.path(), nobody, connection));
        assert_eq!(connection.exchange(&ask("/"), LIMIT).await.unwrap_err(), Broken::NotSent);
    }
}

/// A frame of HTTP/2 (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A server of HTTP/2 by hand: sends its settings, waits for the request's head, answers with these frames, and then hangs up
/// or stays silent.
fn by_hand(frames: Vec<u8>, hangs_up: bool) -> SocketAddr {
    accept(move |mut stream| {
        let frames = frames.clone();
        async move {
            stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                if head[3] == 1 {
                    stream.write_all(&frames).await.unwrap();
                    if hangs_up {
                        stream.shutdown().await.unwrap();
                    }
                }
            }
        }
    })
}

#[tokio::test]
async fn http_2_says_which_requests_were_never_looked_at() {
    let dir = tempfile::TempDir::new().unwrap();
    let code = |code: u8| [0, 0, 0, code];
    let go_away = |last: u8, why: u8| frame(7, 0, 0, &[code(last), code(why)].concat());
    let (status_200, refused) = (frame(1, 4, 1, &[0x88]), frame(3, 0, 1, &code(7)));
    for (frames, hangs_up, broken) in [
        (refused.clone(), false, Broken::Refused),
        (go_away(0, 0), true, Broken::Refused),
        (go_away(0, 11), true, Broken::Refused),
        // The request is not above the last one of this connection, which then ends without a reply.
        (go_away(1, 0), true, Broken::EarlyEnd),
        (go_away(1, 2), true, Broken::EarlyEnd),
        (frame(3, 0, 1, &code(2)), false, Broken::Reset),
        (Vec::new(), true, Broken::EarlyEnd),
        (Vec::new(), false, Broken::Timeout),
        // Whoever has begun to answer has looked at it.
        ([status_200.clone(), refused].concat(), false, Broken::Reset),
        ([status_200.clone(), go_away(0, 0)].concat(), true, Broken::Reset),
        (status_200, true, Broken::EarlyEnd),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true, Broken::Malformed),
    ] {
        let entry = entry(dir.path(), by_hand(frames.clone(), hangs_up), "http = '2'");
        let limit = if broken == Broken::Timeout { Duration::from_millis(100) } else { LIMIT };
        let mut connection = Connection::new(&entry);
        let result = connection.exchange(&ask("/"), limit).await.map(|reply| reply.status);
        assert_eq!(result, Err(broken), "{frames:?}");
    }
}
