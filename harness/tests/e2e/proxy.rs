//! The proxy between real sockets. Nothing here asserts an upper bound on time that a busy machine could break.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::fault::proxy::{Endpoint, Protocol, ProxyError};
use harness::fault::toxic::{CutPoint, Direction, Pick, RequestPattern, Toxic, ToxicKind};

use crate::support::proxied::*;

#[test]
fn proxy_passes_bulk_through_tcp_intact() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let bytes = pattern(64 << 20);
    transfer(&proxy, &bytes, || {});
    eventually("the connection ends", || proxy.stats().live == 0);
    let stats = proxy.stats();
    assert_eq!((stats.accepted, stats.bytes_up, stats.bytes_down), (1, bytes.len() as u64, bytes.len() as u64));
}

#[test]
fn proxy_passes_bulk_through_a_unix_socket_intact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(echo));
    let proxy = proxy_to(Endpoint::Unix(path), Protocol::Opaque);
    transfer(&proxy, &pattern(8 << 20), || {});
}

#[test]
fn proxy_latency_is_added_once_to_a_round_trip() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"before").unwrap();
    let id = proxy.arm(latency(20, 0)).unwrap();
    for _ in 0..10 {
        let taken = round_trip(&mut stream, b"during").unwrap();
        assert!(taken >= Duration::from_millis(20), "{taken:?}");
        assert!(taken < Duration::from_secs(5), "{taken:?}");
    }
    let hit = proxy.disarm(id).unwrap().unwrap();
    assert_eq!((hit.connections, hit.bytes, hit.chunks), (1, 60, 10));
    assert_eq!(proxy.disarm(id).unwrap(), None);
    round_trip(&mut stream, b"after").unwrap();
    let both = [Direction::Up, Direction::Down].map(|side| proxy.arm(latency(20, 0).direction(side)).unwrap());
    assert!(round_trip(&mut stream, b"twice").unwrap() >= Duration::from_millis(40));
    assert_eq!(both.map(|id| proxy.hits(id).unwrap().unwrap().chunks), [1, 1]);
}

#[test]
fn proxy_jitter_keeps_the_order() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    for side in [Direction::Up, Direction::Down] {
        proxy.arm(latency(5, 5).direction(side)).unwrap();
    }
    transfer(&proxy, &pattern(8 << 20), || {});
}

#[test]
fn proxy_toxics_come_and_go_in_traffic_without_loss() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    transfer(&proxy, &pattern(32 << 20), || {
        for round in 0..20 {
            let side = if round % 2 == 0 { Direction::Up } else { Direction::Both };
            let kind = ToxicKind::Bandwidth { bytes_per_second: 1 << 20 };
            let ids = [latency(30, 10).direction(side), Toxic::new(kind)].map(|toxic| proxy.arm(toxic).unwrap());
            thread::sleep(Duration::from_millis(5));
            for id in ids {
                proxy.disarm(id).unwrap().unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
}

#[test]
fn proxy_healing_releases_what_was_held_back() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    let id = proxy.arm(latency(3_600_000, 0)).unwrap();
    stream.write_all(b"patience").unwrap();
    eventually("the reply is held back", || proxy.hits(id).unwrap().unwrap().bytes == 8);
    proxy.disarm(id).unwrap();
    let mut back = [0; 8];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"patience");
}

#[test]
fn proxy_healing_one_of_two_plans_the_rest_anew() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    let short = proxy.arm(latency(300, 0)).unwrap();
    let long = proxy.arm(latency(3_600_000, 0)).unwrap();
    let begun = Instant::now();
    stream.write_all(b"one").unwrap();
    eventually("the reply is held back", || proxy.hits(long).unwrap().unwrap().bytes == 3);
    proxy.disarm(long).unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(proxy.disarm(short).unwrap().unwrap().bytes, 3);
}

#[test]
fn proxy_bandwidth_slows_a_transfer() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    proxy.arm(Toxic::new(ToxicKind::Bandwidth { bytes_per_second: 1 << 20 }).direction(Direction::Down)).unwrap();
    let begun = Instant::now();
    transfer(&proxy, &pattern(300 << 10), || {});
    assert!(begun.elapsed() >= Duration::from_millis(290));
}

#[test]
fn proxy_strikes_the_same_connections_for_the_same_seed() {
    let struck = || {
        let proxy = proxy_to(echo_server(), Protocol::Opaque);
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..40 {
            let mut stream = connect(&proxy);
            round_trip(&mut stream, b"hello").unwrap();
            streams.push(stream);
        }
        let id = proxy.arm(Toxic::new(ToxicKind::Reset { after: Duration::ZERO }).fraction(0.5)).unwrap();
        let struck: Vec<bool> = streams.iter_mut().map(|stream| round_trip(stream, b"again").is_err()).collect();
        let hit = proxy.disarm(id).unwrap().unwrap();
        assert_eq!(hit.connections as usize, struck.iter().filter(|struck| **struck).count());
        struck
    };
    let first = struck();
    assert!(first.contains(&true) && first.contains(&false));
    assert_eq!(first, struck());
}

#[test]
fn proxy_black_hole_swallows_and_then_resets() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let (mut old, mut idle) = (connect(&proxy), connect(&proxy));
    round_trip(&mut old, b"old").unwrap();
    round_trip(&mut idle, b"idle").unwrap();
    let id = proxy.arm(Toxic::new(ToxicKind::BlackHole)).unwrap();
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"lost").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let hit = proxy.disarm(id).unwrap().unwrap();
    assert_eq!((hit.connections, hit.bytes), (2, 8));
    assert_reset(&mut old);
    assert_reset(&mut new);
    round_trip(&mut idle, b"untouched").unwrap();
}

#[test]
fn proxy_black_hole_lets_go_of_new_clients_that_leave() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    proxy.arm(Toxic::new(ToxicKind::BlackHole)).unwrap();
    drop(connect(&proxy));
    eventually("the connection ends", || proxy.stats().live == 0 && proxy.stats().accepted == 1);
}

#[test]
fn proxy_reset_and_refuse() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut old = connect(&proxy);
    round_trip(&mut old, b"old").unwrap();
    let refuse = proxy.arm(Toxic::new(ToxicKind::Refuse)).unwrap();
    assert_reset(&mut connect(&proxy));
    round_trip(&mut old, b"untouched").unwrap();
    assert_eq!(proxy.disarm(refuse).unwrap().unwrap().connections, 1);
    let reset = proxy.arm(Toxic::new(ToxicKind::Reset { after: Duration::ZERO })).unwrap();
    assert_reset(&mut old);
    assert_reset(&mut connect(&proxy));
    assert_eq!(proxy.disarm(reset).unwrap().unwrap().connections, 2);
    round_trip(&mut connect(&proxy), b"healed").unwrap();
}

#[test]
fn proxy_outlives_its_upstream() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy_to(gone, Protocol::Opaque);
    assert_reset(&mut connect(&proxy));
    assert_eq!(proxy.stats().failed_connects, 1);
    proxy.set_upstream(echo_server().into()).unwrap();
    round_trip(&mut connect(&proxy), b"back").unwrap();
}

#[test]
fn proxy_deals_connections_out_and_passes_over_who_is_down() {
    let says = |word: &'static [u8]| server(move |mut stream| stream.write_all(word).unwrap_or_default());
    let (first, second) = (says(b"1"), says(b"2"));
    let proxy = proxy_to(first, Protocol::Opaque);
    let answers = |times: usize| -> Vec<u8> {
        (0..times).flat_map(|_| read_all(&mut connect(&proxy)).expect("an answer")).collect()
    };
    proxy.share_among(vec![first.into(), second.into()]).unwrap();
    let mut both = answers(4);
    both.sort_unstable();
    assert_eq!(both, b"1122", "in turns");
    // Nobody listens on a port that was free a moment ago.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    proxy.share_among(vec![gone.into(), second.into()]).unwrap();
    assert_eq!(answers(4), b"2222", "whoever is down is passed over");
    assert_eq!(proxy.stats().failed_connects, 0, "nobody was turned away");
}

#[test]
fn proxy_passes_on_half_closes_and_resets() {
    let closing = server(|mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
    });
    let proxy = proxy_to(closing, Protocol::Opaque);
    let mut stream = connect(&proxy);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream).unwrap(), b"question");

    // Closing a socket with unread bytes resets it.
    let resetting = server(|mut stream| stream.read_exact(&mut [0; 1]).unwrap());
    proxy.set_upstream(resetting.into()).unwrap();
    let mut stream = connect(&proxy);
    stream.write_all(b"more than one byte").unwrap();
    assert_reset(&mut stream);
    eventually("all connections end", || proxy.stats().live == 0);
}

#[test]
fn proxy_shuts_down_with_its_connections() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello").unwrap();
    let task = format!("/proc/self/task/{}/comm", proxy.thread_id());
    assert!(std::fs::read_to_string(&task).unwrap().starts_with("proxy-"));
    proxy.shutdown();
    proxy.shutdown();
    assert!(matches!(read_all(&mut stream), Ok(_) | Err(ErrorKind::ConnectionReset)));
    assert!(TcpStream::connect(proxy.listen_addr()).is_err());
    assert!(matches!(proxy.arm(latency(1, 0)), Err(ProxyError::Stopped { .. })));
    assert_eq!(proxy.stats().live, 0);
}

#[test]
fn proxy_refuses_toxics_that_make_no_sense() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let kinds = [
        Toxic::new(ToxicKind::CutReply { after: CutPoint::Commit, pick: Pick::All }),
        Toxic::new(ToxicKind::Bandwidth { bytes_per_second: 0 }),
        latency(u64::MAX, 0),
        latency(1, 0).fraction(1.5),
        latency(1, 0).fraction(f64::NAN),
    ];
    for toxic in kinds {
        let error = proxy.arm(toxic).unwrap_err();
        assert!(error.to_string().starts_with("toxic `"), "{error}");
    }
}

#[test]
fn proxy_carries_five_hundred_connections_and_leaks_none() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let id = proxy.arm(latency(20, 5)).unwrap();
    let mut streams: Vec<TcpStream> = (0..500).map(|_| connect(&proxy)).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&(n as u64).to_be_bytes()).unwrap();
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 8];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(u64::from_be_bytes(back), n as u64);
    }
    assert_eq!(proxy.stats().live, 500);
    drop(streams);
    eventually("all connections end", || proxy.stats().live == 0);
    assert_eq!(proxy.disarm(id).unwrap().unwrap().connections, 500);
}

#[test]
fn proxy_cuts_the_reply_after_the_commit() {
    let commits = Arc::new(AtomicU64::new(0));
    let proxy = proxy_to(fake_postgres(commits.clone()), Protocol::Postgres);
    let mut old = postgres_session(&proxy);
    assert_eq!(query(&mut old, "INSERT 0").unwrap(), "INSERT 0 1");
    let id = proxy.arm(Toxic::new(ToxicKind::CutReply { after: CutPoint::Commit, pick: Pick::All })).unwrap();
    // All of them are hit, not most.
    const TRIES: u64 = 400;
    for n in 0..TRIES {
        let mut session = postgres_session(&proxy);
        assert_eq!(query(&mut session, "SELECT 1").unwrap(), "SELECT 1");
        if n % 2 == 0 {
            assert_eq!(query(&mut session, "BEGIN").unwrap(), "BEGIN");
            assert_eq!(query(&mut session, "INSERT 1").unwrap(), "INSERT 0 1");
            assert_eq!(query(&mut session, "COMMIT"), Err(ErrorKind::ConnectionReset));
        } else {
            assert_eq!(query(&mut session, "INSERT 1"), Err(ErrorKind::ConnectionReset));
        }
    }
    assert_eq!(query(&mut old, "INSERT 1"), Err(ErrorKind::ConnectionReset));
    assert_eq!(commits.load(Ordering::SeqCst), TRIES + 2);
    let hit = proxy.disarm(id).unwrap().unwrap();
    assert_eq!((hit.calls, hit.connections), (TRIES + 1, TRIES + 1));
    assert_eq!(query(&mut postgres_session(&proxy), "INSERT 1").unwrap(), "INSERT 0 1");
    assert_eq!(proxy.stats().calls, 1 + TRIES / 2 * 4 + TRIES / 2 * 2 + 1 + 1);
}

#[test]
fn proxy_cuts_the_reply_of_a_named_statement() {
    let commits = Arc::new(AtomicU64::new(0));
    let proxy = proxy_to(fake_postgres(commits.clone()), Protocol::Postgres);
    let after = CutPoint::Statement { contains: "place_order".into() };
    let id = proxy.arm(Toxic::new(ToxicKind::CutReply { after, pick: Pick::Every(2.try_into().unwrap()) })).unwrap();
    let mut session = postgres_session(&proxy);
    assert_eq!(query(&mut session, "SELECT place_order(1)").unwrap(), "SELECT 1");
    assert_eq!(query(&mut session, "SELECT other(1)").unwrap(), "SELECT 1");
    assert_eq!(query(&mut session, "SELECT place_order(2)"), Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.disarm(id).unwrap().unwrap().calls, 1);
}

/// A server that answers every request by a small reply in two writes, and counts them.
fn fake_http(served: Arc<AtomicU64>) -> SocketAddr {
    server(move |mut stream| {
        let mut asked = Vec::new();
        loop {
            let mut buffer = [0; 1024];
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => asked.extend_from_slice(&buffer[..n]),
                _ => return,
            }
            while let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
                asked.drain(..end + 4);
                served.fetch_add(1, Ordering::SeqCst);
                for part in ["HTTP/1.1 201 Created\r\nContent-Le", "ngth: 4\r\n\r\ndone"] {
                    if stream.write_all(part.as_bytes()).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    })
}

fn request(stream: &mut TcpStream, call: &str) -> Result<(), ErrorKind> {
    stream.write_all(format!("{call} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).map_err(|error| error.kind())?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"done") {
        let mut buffer = [0; 256];
        let n = stream.read(&mut buffer).map_err(|error| {
            assert!(reply.is_empty(), "part of a cut reply arrived");
            error.kind()
        })?;
        assert!(n > 0, "the stream ended instead of being reset");
        reply.extend_from_slice(&buffer[..n]);
    }
    Ok(())
}

#[test]
fn proxy_cuts_the_reply_of_an_http_request() {
    let served = Arc::new(AtomicU64::new(0));
    let proxy = proxy_to(fake_http(served.clone()), Protocol::Http);
    let pattern = RequestPattern { method: Some("POST".into()), path: Some("/items/*/orders".into()) };
    let id = proxy.arm(Toxic::new(ToxicKind::HttpCutReply { request: pattern, pick: Pick::All })).unwrap();
    // All of them are hit, not most.
    const TRIES: u64 = 400;
    for _ in 0..TRIES {
        let mut stream = connect(&proxy);
        request(&mut stream, "GET /items/7").unwrap();
        assert_eq!(request(&mut stream, "POST /items/7/orders"), Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(served.load(Ordering::SeqCst), 2 * TRIES);
    assert_eq!(proxy.stats().calls, 2 * TRIES);
    assert_eq!(proxy.disarm(id).unwrap().unwrap().calls, TRIES);
    request(&mut connect(&proxy), "POST /items/7/orders").unwrap();
}
