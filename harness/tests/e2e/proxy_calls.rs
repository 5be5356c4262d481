//! Toxics that read what passes: requests of HTTP, statements of Postgres, commands of Redis.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::fault::cut_after_commit::CutAfterCommit;
use harness::fault::cut_reply::CutReply;
use harness::fault::link::Poison;
use harness::fault::proxy::{Protocol, Proxy};
use harness::fault::toxic::{
    CallPattern, CommandPattern, CutPoint, Direction, Distribution, Garbage, Pick, RequestPattern, StatementPattern,
    Toxic, ToxicHit, ToxicKind,
};

use crate::support::proxied::*;

/// A server that answers each request with its own body, and remembers the calls.
fn http_server(seen: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    server(move |mut stream| {
        while let Some((call, body)) = read_message(&mut stream) {
            seen.lock().unwrap().push(call);
            let reply = format!("HTTP/1.1 201 Created\r\nx-real: yes\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Reads a head and a body of declared length: the first line without the version, and the body.
fn read_message(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let line = head.lines().next().unwrap_or_default();
    Some((line.replace(" HTTP/1.1", ""), String::from_utf8_lossy(&body).into_owned()))
}

fn ask(stream: &mut TcpStream, call: &str, body: &str) -> Option<(String, String)> {
    let request = format!("{call} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // In three writes, so that nothing may depend on how the request is sliced.
    let bytes = request.as_bytes();
    for piece in [&bytes[..7], &bytes[7..bytes.len() - 3], &bytes[bytes.len() - 3..]] {
        stream.write_all(piece).unwrap();
        std::thread::sleep(ms(1));
    }
    read_message(stream).map(|(status, body)| (status.replace("HTTP/1.1 ", ""), body))
}

fn created(body: &str) -> Option<(String, String)> {
    Some(("201 Created".to_owned(), body.to_owned()))
}

fn orders() -> RequestPattern {
    RequestPattern { method: Some("POST".into()), path: Some("/items/*/orders".into()) }
}

#[test]
fn proxy_status_is_answered_and_never_reaches_the_service() {
    let seen = Arc::default();
    let proxy = proxy_to(http_server(Arc::clone(&seen)), Protocol::Http);
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream, "POST /items/7/orders", "before"), created("before"));
    let kind = ToxicKind::HttpStatus { status: 503, request: orders(), pick: Pick::All };
    let id = arm(&proxy, kind);
    for _ in 0..20 {
        let (status, body) = ask(&mut stream, "POST /items/7/orders", "during").unwrap();
        assert_eq!(status, "503 Service Unavailable");
        assert!(body.contains(r#""status":503"#), "{body}");
        assert_eq!(ask(&mut stream, "GET /items/7", "other"), created("other"));
    }
    let hit = proxy.disarm(id).unwrap().unwrap();
    assert_eq!((hit.connections, hit.calls), (1, 20));
    assert_eq!(ask(&mut stream, "POST /items/7/orders", "after"), created("after"));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|call| call.starts_with("POST")).count(), 2);
    assert_eq!(seen.len(), 22);
}

#[test]
fn proxy_status_never_overtakes_a_reply() {
    let seen = Arc::default();
    let proxy = proxy_to(http_server(Arc::clone(&seen)), Protocol::Http);
    arm(&proxy, ToxicKind::HttpStatus { status: 500, request: orders(), pick: Pick::All });
    let mut stream = connect(&proxy);
    let order = "POST /items/7/orders HTTP/1.1\r\nContent-Length: 1\r\n\r\n";
    stream.write_all(format!("GET /a HTTP/1.1\r\n\r\n{order}x").as_bytes()).unwrap();
    let statuses: Vec<_> = (0..2).map(|_| read_message(&mut stream).unwrap().0).collect();
    assert_eq!(statuses, ["HTTP/1.1 201 Created"; 2]);
    // Behind nothing, it is answered; and what is pipelined behind it follows.
    stream.write_all(format!("{order}xGET /b HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    let statuses: Vec<_> = (0..2).map(|_| read_message(&mut stream).unwrap().0).collect();
    assert_eq!(statuses, ["HTTP/1.1 500 Internal Server Error", "HTTP/1.1 201 Created"]);
    assert_eq!(*seen.lock().unwrap(), ["GET /a", "POST /items/7/orders", "GET /b"]);
}

#[test]
fn proxy_status_fails_the_first_of_the_link_or_of_each_connection() {
    for (pick, expected) in [(Pick::First(3), [2, 1, 0]), (Pick::FirstOfEach(2), [2, 2, 2])] {
        let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
        arm(&proxy, ToxicKind::HttpStatus { status: 502, request: RequestPattern::default(), pick });
        for expected in expected {
            let mut stream = connect(&proxy);
            let failed = (0..2).filter(|_| ask(&mut stream, "GET /", "").unwrap().0.starts_with("502")).count();
            assert_eq!(failed, expected, "{pick:?}");
        }
    }
}

#[test]
fn proxy_calls_are_picked_the_same_for_the_same_seed() {
    let answered = || {
        let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
        arm(&proxy, ToxicKind::HttpStatus { status: 500, request: RequestPattern::default(), pick: Pick::Share(0.5) });
        let mut stream = connect(&proxy);
        let failed = |_| ask(&mut stream, "GET /", "").unwrap().0.starts_with("500");
        (0..30).map(failed).collect::<Vec<bool>>()
    };
    let first = answered();
    assert!(first.contains(&true) && first.contains(&false));
    assert_eq!(first, answered());
}

/// Which of 120 connections a fault of a scenario strikes, by whether the first call of each is lost.
fn struck(fault: &impl Poison, proxy: &Proxy, mut is_lost: impl FnMut(&Proxy) -> bool) -> Vec<bool> {
    let id = proxy.arm(fault.toxic()).unwrap();
    let struck: Vec<bool> = (0..120).map(|_| is_lost(proxy)).collect();
    let hit = proxy.disarm(id).unwrap().unwrap();
    let lost = struck.iter().filter(|lost| **lost).count() as u64;
    assert_eq!((hit.connections, hit.calls), (lost, lost));
    struck
}

#[test]
fn proxy_cuts_replies_on_a_share_of_the_connections_and_on_the_same_for_the_same_seed() {
    let http = || {
        let fault: CutReply = toml::from_str("link = 'client→service'\nfraction = 0.25").unwrap();
        let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
        struck(&fault, &proxy, |proxy| ask(&mut connect(proxy), "POST /items/7/orders", "").is_none())
    };
    let postgres = || {
        let fault: CutAfterCommit = toml::from_str("link = 'service→postgres'\nfraction = 0.25").unwrap();
        let proxy = proxy_to(fake_postgres(Arc::default()), Protocol::Postgres);
        struck(&fault, &proxy, |proxy| query(&mut postgres_session(proxy), "INSERT 1").is_err())
    };
    for (struck, again) in [(http(), http()), (postgres(), postgres())] {
        let share = struck.iter().filter(|struck| **struck).count();
        assert!((18..=42).contains(&share), "{share} of 120 for a quarter");
        assert_eq!(struck, again);
    }
}

#[test]
fn proxy_duplicates_reach_the_service_twice_and_the_client_once() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let proxy = proxy_to(http_server(seen.clone()), Protocol::Http);
    let id = arm(&proxy, ToxicKind::HttpDuplicate { after: ms(50), request: orders(), pick: Pick::All });
    let mut stream = connect(&proxy);
    let begun = Instant::now();
    for n in 0..10 {
        assert_eq!(ask(&mut stream, &format!("POST /items/{n}/orders"), "body"), created("body"));
        assert_eq!(ask(&mut stream, "GET /items/7", ""), created(""));
    }
    eventually("all copies have come", || seen.lock().unwrap().len() == 30);
    assert!(begun.elapsed() >= ms(50));
    assert_silent(&mut stream, ms(20));
    let mut orders: Vec<String> =
        seen.lock().unwrap().iter().filter(|call| call.starts_with("POST")).cloned().collect();
    orders.sort();
    assert_eq!(orders.len(), 20);
    assert!(orders.chunks(2).all(|pair| pair[0] == pair[1]), "{orders:?}");
    assert_eq!(proxy.disarm(id).unwrap().unwrap().calls, 10);
    assert_eq!(proxy.stats().accepted, 1, "the copies are no connections of clients");
}

#[test]
fn proxy_garbage_keeps_status_and_framing() {
    let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
    let mut stream = connect(&proxy);
    for garbage in [Garbage::Bytes, Garbage::Half, Garbage::Empty, Garbage::Html] {
        let id = arm(&proxy, ToxicKind::HttpBody { garbage, request: orders(), pick: Pick::All });
        let (status, body) = ask(&mut stream, "POST /items/7/orders", "0123456789").unwrap();
        assert_eq!(status, "201 Created");
        match garbage {
            Garbage::Bytes => assert_ne!(body, "0123456789"),
            Garbage::Half => assert_eq!(body, "01234"),
            Garbage::Empty => assert_eq!(body, ""),
            Garbage::Html => assert!(body.starts_with("<!doctype html>")),
        }
        // What is not meant is left alone, and so is a reply without a body.
        assert_eq!(ask(&mut stream, "GET /items/7", "other"), created("other"));
        assert_eq!(ask(&mut stream, "POST /items/7/orders", ""), created(""));
        assert_eq!(proxy.disarm(id).unwrap().unwrap().calls, 1);
        assert_eq!(ask(&mut stream, "POST /items/7/orders", "healed"), created("healed"));
    }
}

#[test]
fn proxy_toxics_on_calls_compose() {
    // A copy of each order, then a status for each order: the copies arrive, the orders do not.
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let proxy = proxy_to(http_server(seen.clone()), Protocol::Http);
    arm(&proxy, ToxicKind::HttpDuplicate { after: Duration::ZERO, request: orders(), pick: Pick::All });
    arm(&proxy, ToxicKind::HttpStatus { status: 500, request: orders(), pick: Pick::All });
    // What the proxy answers is a reply like any other to a toxic that was armed later.
    arm(&proxy, ToxicKind::HttpBody { garbage: Garbage::Html, request: orders(), pick: Pick::All });
    arm(&proxy, ToxicKind::Slicer { size: 3, variation: 2, delay: Duration::from_micros(100) });
    let mut stream = connect(&proxy);
    for _ in 0..5 {
        let (status, body) = ask(&mut stream, "POST /items/7/orders", "body").unwrap();
        assert!(status.starts_with("500") && body.starts_with("<!doctype"), "{status} {body}");
        assert_eq!(ask(&mut stream, "GET /items/7", "other"), created("other"));
    }
    eventually("all copies have come", || seen.lock().unwrap().iter().filter(|c| c.starts_with("POST")).count() == 5);
}

#[test]
fn proxy_slow_calls_are_slow_and_others_are_not() {
    let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
    let mut stream = connect(&proxy);
    for direction in [Direction::Up, Direction::Down] {
        let kind = slow(CallPattern::Request(orders()), Duration::from_secs(3600));
        let id = proxy.arm(Toxic::new(kind).direction(direction)).unwrap();
        assert_eq!(ask(&mut stream, "GET /items/7", "fast"), created("fast"));
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&mut stream, "POST /items/7/orders", "slow"));
            eventually("a call is held back", || proxy.hits(id).unwrap().unwrap().calls == 1);
            std::thread::sleep(ms(30));
            assert!(!asking.is_finished());
            // Healing releases it.
            let hit = proxy.disarm(id).unwrap().unwrap();
            assert_eq!((hit.connections, hit.calls), (1, 1));
            assert_eq!(asking.join().unwrap(), created("slow"));
        });
    }
}

fn slow(calls: CallPattern, delay: Duration) -> ToxicKind {
    let distribution = Distribution::Uniform;
    ToxicKind::SlowCall { calls, delay, jitter: Duration::ZERO, distribution, pick: Pick::All }
}

#[test]
fn proxy_slow_commits_keep_their_delay_when_another_toxic_heals() {
    let commits = Arc::new(AtomicU64::new(0));
    let proxy = proxy_to(fake_postgres(commits.clone()), Protocol::Postgres);
    let mut session = postgres_session(&proxy);
    let verb = StatementPattern { verb: Some("commit".into()), contains: None };
    let id = arm(&proxy, slow(CallPattern::Statement(verb), ms(200)));
    let other = proxy.arm(latency(3_600_000, 0).direction(Direction::Up)).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| query(&mut session, "COMMIT"));
        eventually("the commit is held back", || proxy.hits(other).unwrap().unwrap().chunks == 1);
        assert_eq!(commits.load(Ordering::SeqCst), 0, "it has not reached the database");
        proxy.disarm(other).unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), "COMMIT");
    });
    assert!(begun.elapsed() >= ms(200), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(query(&mut session, "SELECT 1").unwrap(), "SELECT 1");
    }
    assert_eq!(proxy.hits(id).unwrap().unwrap().calls, 1, "only the commit: {:?}", begun.elapsed());
    // A reply that is delayed belongs to a statement that has taken effect.
    let insert = StatementPattern { verb: None, contains: Some("INSERT 7".into()) };
    let kind = slow(CallPattern::Statement(insert), ms(100));
    proxy.arm(Toxic::new(kind).direction(Direction::Down)).unwrap();
    let begun = Instant::now();
    assert_eq!(query(&mut session, "INSERT 7").unwrap(), "INSERT 0 1");
    assert!(begun.elapsed() >= ms(100));
}

/// A server that speaks just enough Redis: it decrements, and queues what comes after `MULTI`.
fn fake_redis(taken: Arc<AtomicU64>) -> SocketAddr {
    server(move |mut stream| {
        let (mut queued, mut line) = (None, Vec::new());
        loop {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            line.push(byte[0]);
            if !line.ends_with(b"\r\n") {
                continue;
            }
            let command = String::from_utf8(std::mem::take(&mut line)).unwrap();
            let reply = match (command.split_whitespace().next().unwrap_or_default(), &mut queued) {
                ("MULTI", _) => {
                    queued = Some(0);
                    "+OK\r\n".to_owned()
                }
                ("EXEC", Some(n)) => {
                    taken.fetch_add(*n, Ordering::SeqCst);
                    let reply = format!("*{n}\r\n{}", ":1\r\n".repeat(*n as usize));
                    queued = None;
                    reply
                }
                ("DECR", Some(n)) => {
                    *n += 1;
                    "+QUEUED\r\n".to_owned()
                }
                ("DECR", None) if command.contains("missing") => "-ERR no such key\r\n".to_owned(),
                ("DECR", None) => format!(":{}\r\n", taken.fetch_add(1, Ordering::SeqCst)),
                _ => "$4\r\nPONG\r\n".to_owned(),
            };
            // In two writes, so that the cut must not depend on how the reply is sliced.
            let bytes = reply.as_bytes();
            for piece in [&bytes[..2], &bytes[2..]] {
                if stream.write_all(piece).is_err() {
                    return;
                }
                std::thread::sleep(ms(1));
            }
        }
    })
}

/// Sends a command and waits for a reply that ends so.
fn command(stream: &mut TcpStream, command: &str, end: &str) -> Result<(), ErrorKind> {
    stream.write_all(format!("{command}\r\n").as_bytes()).map_err(|error| error.kind())?;
    let mut reply = Vec::new();
    while !reply.ends_with(end.as_bytes()) || !reply.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| {
            assert!(reply.is_empty(), "part of a cut reply arrived");
            error.kind()
        })?;
        reply.push(byte[0]);
    }
    Ok(())
}

#[test]
fn proxy_cuts_the_reply_after_a_command_took_effect() {
    let taken = Arc::new(AtomicU64::new(0));
    let proxy = proxy_to(fake_redis(taken.clone()), Protocol::Redis);
    let decr = CommandPattern { name: Some("decr".into()), contains: Some("stock".into()) };
    let id = arm(&proxy, ToxicKind::RedisCutReply { command: decr, pick: Pick::All });
    for n in 1..=100 {
        let mut stream = connect(&proxy);
        command(&mut stream, "PING", "PONG\r\n").unwrap();
        command(&mut stream, "DECR price", "\r\n").unwrap();
        command(&mut stream, "DECR missing-stock", "key\r\n").unwrap();
        assert_eq!(command(&mut stream, "DECR stock", "\r\n"), Err(ErrorKind::ConnectionReset));
        assert_eq!(taken.load(Ordering::SeqCst), 2 * n);
    }
    // What is only queued has taken no effect, so it is not what this is about.
    let mut stream = connect(&proxy);
    for (text, end) in [("MULTI", "OK\r\n"), ("DECR stock", "QUEUED\r\n"), ("EXEC", ":1\r\n")] {
        command(&mut stream, text, end).unwrap();
    }
    let hit = proxy.disarm(id).unwrap().unwrap();
    assert_eq!((hit.connections, hit.calls), (100, 100));
    assert_eq!(proxy.stats().calls, 403);
    command(&mut connect(&proxy), "DECR stock", "\r\n").unwrap();
}

#[test]
fn proxy_slow_commands_of_redis() {
    let proxy = proxy_to(fake_redis(Arc::default()), Protocol::Redis);
    let decr = CommandPattern { name: Some("DECR".into()), contains: None };
    let id = arm(&proxy, slow(CallPattern::Command(decr), ms(100)));
    let mut stream = connect(&proxy);
    command(&mut stream, "PING", "PONG\r\n").unwrap();
    assert_eq!(proxy.hits(id).unwrap().unwrap(), ToxicHit::default());
    let begun = Instant::now();
    command(&mut stream, "DECR stock", "\r\n").unwrap();
    assert!(begun.elapsed() >= ms(100));
    assert_eq!(proxy.disarm(id).unwrap().unwrap().calls, 1);
}

#[test]
fn proxy_toxics_on_calls_need_their_protocol() {
    let request = RequestPattern::default;
    let command = CommandPattern::default;
    let kinds = [
        (ToxicKind::HttpStatus { status: 500, request: request(), pick: Pick::All }, Protocol::Http),
        (ToxicKind::HttpDuplicate { after: ms(0), request: request(), pick: Pick::All }, Protocol::Http),
        (ToxicKind::HttpBody { garbage: Garbage::Bytes, request: request(), pick: Pick::All }, Protocol::Http),
        (slow(CallPattern::Request(request()), ms(1)), Protocol::Http),
        (slow(CallPattern::Statement(StatementPattern::default()), ms(1)), Protocol::Postgres),
        (slow(CallPattern::Command(command()), ms(1)), Protocol::Redis),
        (ToxicKind::RedisCutReply { command: command(), pick: Pick::All }, Protocol::Redis),
    ];
    for (kind, needed) in kinds {
        for protocol in [Protocol::Http, Protocol::Postgres, Protocol::Redis, Protocol::Opaque] {
            let proxy = proxy_to(echo_server(), protocol);
            let armed = proxy.arm(Toxic::new(kind.clone()));
            assert_eq!(armed.is_ok(), protocol == needed, "{kind:?} on {protocol}");
        }
    }
    let proxy = proxy_to(echo_server(), Protocol::Http);
    for status in [100, 199, 600] {
        let kind = ToxicKind::HttpStatus { status, request: request(), pick: Pick::All };
        let error = proxy.arm(Toxic::new(kind)).unwrap_err().to_string();
        assert!(error.contains("`status` is") && error.contains("from 200 to 599"), "{error}");
    }
}

#[test]
fn proxy_toxics_on_calls_that_never_come_change_nothing() {
    let nothing = || RequestPattern { method: None, path: Some("/nowhere".into()) };
    let proxy = proxy_to(http_server(Arc::default()), Protocol::Http);
    let kinds = [
        ToxicKind::HttpStatus { status: 500, request: nothing(), pick: Pick::All },
        ToxicKind::HttpStatus { status: 500, request: RequestPattern::default(), pick: Pick::First(0) },
        ToxicKind::HttpDuplicate { after: ms(0), request: nothing(), pick: Pick::All },
        ToxicKind::HttpBody { garbage: Garbage::Bytes, request: nothing(), pick: Pick::All },
        ToxicKind::HttpCutReply { request: nothing(), pick: Pick::All },
        slow(CallPattern::Request(nothing()), Duration::from_secs(3600)),
        slow(CallPattern::Request(RequestPattern::default()), Duration::ZERO),
    ];
    let ids = kinds.map(|kind| arm(&proxy, kind));
    let mut stream = connect(&proxy);
    for n in 0..50 {
        let body = "x".repeat(n * 100);
        assert_eq!(ask(&mut stream, "POST /items/7/orders", &body), created(&body));
    }
    for id in &ids[..6] {
        assert_eq!(proxy.disarm(*id).unwrap().unwrap(), ToxicHit::default());
    }

    let proxy = proxy_to(fake_postgres(Arc::default()), Protocol::Postgres);
    let never = StatementPattern { verb: Some("VACUUM".into()), contains: None };
    let id = arm(&proxy, slow(CallPattern::Statement(never), Duration::from_secs(3600)));
    arm(&proxy, ToxicKind::CutReply { after: CutPoint::Statement { contains: "never".into() }, pick: Pick::All });
    let mut session = postgres_session(&proxy);
    assert_eq!(query(&mut session, "INSERT 1").unwrap(), "INSERT 0 1");
    assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit::default());

    // Bytes that are no protocol at all pass through every parser, in any size.
    for protocol in [Protocol::Http, Protocol::Postgres, Protocol::Redis] {
        let proxy = proxy_to(echo_server(), protocol);
        let kind = match protocol {
            Protocol::Http => slow(CallPattern::Request(RequestPattern::default()), Duration::ZERO),
            Protocol::Postgres => slow(CallPattern::Statement(StatementPattern::default()), Duration::ZERO),
            _ => slow(CallPattern::Command(CommandPattern::default()), Duration::ZERO),
        };
        proxy.arm(Toxic::new(kind).direction(Direction::Both)).unwrap();
        transfer(&proxy, &pattern(2 << 20), || {});
    }
}
