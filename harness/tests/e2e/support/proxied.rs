//! A proxy between real sockets: upstreams that speak just enough, clients, and what is asked of them.
#![allow(dead_code, reason = "each file of tests uses its own part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::fault::proxy::{Endpoint, Protocol, Proxy, ProxyConfig};
use harness::fault::toxic::{Distribution, Toxic, ToxicId, ToxicKind};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn proxy_to(upstream: impl Into<Endpoint>, protocol: Protocol) -> Proxy {
    let listen = "127.0.0.1:0".parse().unwrap();
    Proxy::start(ProxyConfig { name: "test→upstream".into(), listen, upstream: upstream.into(), protocol, seed: 7 })
        .unwrap()
}

/// Serves every connection of a listener with `serve`, on a thread each.
pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    addr
}

pub fn echo(mut stream: impl Read + Write) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 || stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

pub fn echo_server() -> SocketAddr {
    server(echo)
}

pub fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.listen_addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Duration> {
    let begun = Instant::now();
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, bytes);
    Ok(begun.elapsed())
}

/// Reads to the end; the error of a stream that was reset.
pub fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind())
}

pub fn assert_reset(stream: &mut TcpStream) {
    assert_eq!(read_all(stream), Err(ErrorKind::ConnectionReset));
}

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn latency(delay_ms: u64, jitter_ms: u64) -> Toxic {
    let (delay, jitter) = (Duration::from_millis(delay_ms), Duration::from_millis(jitter_ms));
    Toxic::new(ToxicKind::Latency { delay, jitter, distribution: Distribution::Uniform })
}

/// Bytes that look like nothing else in the stream, so that a swap or a loss shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Sends bytes through and back while `meanwhile` runs, and compares.
pub fn transfer(proxy: &Proxy, bytes: &[u8], meanwhile: impl FnOnce()) {
    let mut stream = connect(proxy);
    let mut reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(move || read_all(&mut reader).unwrap());
        scope.spawn(move || {
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        meanwhile();
        assert!(reading.join().unwrap() == bytes, "the bytes that came back differ");
    });
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], (body.len() as u32 + 4).to_be_bytes().as_slice(), body].concat()
}

/// A server that speaks just enough Postgres: it counts the commits that it has carried out.
pub fn fake_postgres(commits: Arc<AtomicU64>) -> SocketAddr {
    server(move |mut stream| {
        let mut start = [0; 9];
        if stream.read_exact(&mut start).is_err() {
            return;
        }
        let ready = |status: u8| message(b'Z', &[status]);
        stream.write_all(&[message(b'R', &[0; 4]), ready(b'I')].concat()).unwrap();
        let mut status = b'I';
        loop {
            let mut header = [0; 5];
            if stream.read_exact(&mut header).is_err() {
                return;
            }
            let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
            stream.read_exact(&mut body).unwrap();
            let sql = String::from_utf8(body).unwrap();
            let tag = match sql.trim_end_matches('\0') {
                "BEGIN" => {
                    status = b'T';
                    "BEGIN"
                }
                "COMMIT" => {
                    status = b'I';
                    commits.fetch_add(1, Ordering::SeqCst);
                    "COMMIT"
                }
                insert if insert.starts_with("INSERT") => {
                    commits.fetch_add(u64::from(status == b'I'), Ordering::SeqCst);
                    "INSERT 0 1"
                }
                _ => "SELECT 1",
            };
            // In two writes, so that the cut must not depend on how the reply is sliced.
            let complete = message(b'C', format!("{tag}\0").as_bytes());
            if stream.write_all(&complete[..3]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
            if stream.write_all(&[&complete[3..], &ready(status)].concat()).is_err() {
                return;
            }
        }
    })
}

/// Opens a session and reads up to the first `ReadyForQuery`.
pub fn postgres_session(proxy: &Proxy) -> TcpStream {
    let mut stream = connect(proxy);
    stream.write_all(&[0, 0, 0, 9, 0, 3, 0, 0, 0]).unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    stream
}

pub fn query(stream: &mut TcpStream, sql: &str) -> Result<String, ErrorKind> {
    let kind = |error: std::io::Error| error.kind();
    stream.write_all(&message(b'Q', format!("{sql}\0").as_bytes())).map_err(kind)?;
    let mut reply = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| {
            assert!(reply.is_empty(), "part of a cut reply arrived: {reply:?}");
            error.kind()
        })?;
        reply.push(byte[0]);
        if reply.len() > 6 && reply[reply.len() - 6..reply.len() - 1] == *b"Z\0\0\0\x05" {
            let tag = &reply[5..reply.len() - 7];
            return Ok(String::from_utf8(tag.to_vec()).unwrap());
        }
    }
}

/// Arms a kind on every connection.
pub fn arm(proxy: &Proxy, kind: ToxicKind) -> ToxicId {
    proxy.arm(Toxic::new(kind)).unwrap()
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Reads until `len` bytes have come: the pieces in which they came.
pub fn pieces(stream: &mut TcpStream, len: usize) -> Vec<Vec<u8>> {
    let (mut pieces, mut have) = (Vec::new(), 0);
    while have < len {
        let mut buffer = [0; 64 * 1024];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the stream ended after {have} of {len} bytes");
        have += n;
        pieces.push(buffer[..n].to_vec());
    }
    pieces
}

/// Asserts that nothing comes for a while.
pub fn assert_silent(stream: &mut TcpStream, time: Duration) {
    stream.set_read_timeout(Some(time)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
}
