//! What each toxic does to the bytes of any protocol, by itself and together with others, and that it does nothing where
//! its parameters say so. Nothing here asserts an upper bound on time that a busy machine could break.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use harness::fault::proxy::{Protocol, ProxyError};
use harness::fault::toxic::{Direction, Distribution, Down, Toxic, ToxicHit, ToxicKind};

use crate::support::proxied::*;

#[test]
fn proxy_timeout_swallows_and_then_closes() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut old = connect(&proxy);
    round_trip(&mut old, b"old").unwrap();
    let begun = Instant::now();
    let id = arm(&proxy, ToxicKind::Timeout { after: ms(150) });
    let mut idle = connect(&proxy);
    old.write_all(b"lost").unwrap();
    for stream in [&mut old, &mut idle] {
        assert_eq!(read_all(stream), Ok(Vec::new()));
        assert!(begun.elapsed() >= ms(150));
    }
    eventually("the connections end", || proxy.stats().live == 0);
    assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit { connections: 2, bytes: 4, chunks: 1, calls: 0 });
    round_trip(&mut connect(&proxy), b"healed").unwrap();
}

#[test]
fn proxy_timeout_healed_early_resets_only_what_has_a_hole() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let (mut holed, mut whole) = (connect(&proxy), connect(&proxy));
    let id = arm(&proxy, ToxicKind::Timeout { after: Duration::from_secs(3600) });
    holed.write_all(b"lost").unwrap();
    eventually("bytes are swallowed", || proxy.hits(id).unwrap().unwrap().bytes == 4);
    proxy.disarm(id).unwrap();
    assert_reset(&mut holed);
    round_trip(&mut whole, b"untouched").unwrap();
}

#[test]
fn proxy_timeout_of_replies_lets_requests_through() {
    let (seen, requests) = mpsc::channel();
    let upstream = server(move |mut stream| {
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            seen.send(buffer[..n].to_vec()).unwrap();
            stream.write_all(b"never seen").unwrap();
        }
    });
    let proxy = proxy_to(upstream, Protocol::Opaque);
    proxy.arm(Toxic::new(ToxicKind::Timeout { after: ms(200) }).direction(Direction::Down)).unwrap();
    let mut stream = connect(&proxy);
    stream.write_all(b"request").unwrap();
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), b"request");
    assert_eq!(read_all(&mut stream), Ok(Vec::new()));
}

#[test]
fn proxy_resets_after_a_while() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut old = connect(&proxy);
    round_trip(&mut old, b"old").unwrap();
    let begun = Instant::now();
    let id = arm(&proxy, ToxicKind::Reset { after: ms(100) });
    let mut new = connect(&proxy);
    assert_reset(&mut old);
    assert!(begun.elapsed() >= ms(100));
    assert_reset(&mut new);
    let mut busy = connect(&proxy);
    let born = Instant::now();
    while round_trip(&mut busy, b"still here").is_ok() {}
    assert!(born.elapsed() >= ms(90), "reset after {:?}", born.elapsed());
    assert_eq!(proxy.disarm(id).unwrap().unwrap().connections, 3);
}

#[test]
fn proxy_slow_close_delays_the_end_and_nothing_else() {
    let closing = server(|mut stream| {
        let mut asked = [0; 8];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
    });
    let proxy = proxy_to(closing, Protocol::Opaque);
    let id = arm(&proxy, ToxicKind::SlowClose { delay: Duration::from_secs(3600) });
    let mut stream = connect(&proxy);
    stream.write_all(b"question").unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    assert_silent(&mut stream, ms(100));
    assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit { connections: 1, ..ToxicHit::default() });
    assert_eq!(read_all(&mut stream), Ok(Vec::new()));

    arm(&proxy, ToxicKind::SlowClose { delay: ms(100) });
    let mut stream = connect(&proxy);
    stream.write_all(b"question").unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    let begun = Instant::now();
    assert_eq!(read_all(&mut stream), Ok(Vec::new()));
    assert!(begun.elapsed() >= ms(90), "{:?}", begun.elapsed());
}

#[test]
fn proxy_a_reset_travels_behind_the_bytes_that_are_held_back() {
    let resetting = server(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        stream.write_all(b"last words").unwrap();
        // Closing a socket with unread bytes resets it.
    });
    let proxy = proxy_to(resetting, Protocol::Opaque);
    arm(&proxy, ToxicKind::Latency { delay: ms(100), jitter: ms(0), distribution: Distribution::Uniform });
    let mut stream = connect(&proxy);
    stream.write_all(b"more than one byte").unwrap();
    let mut words = [0; 10];
    stream.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"last words");
    assert_reset(&mut stream);
}

#[test]
fn proxy_slicer_cuts_small_pieces_and_keeps_the_bytes() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let kind = ToxicKind::Slicer { size: 100, variation: 40, delay: ms(2) };
    let id = proxy.arm(Toxic::new(kind).direction(Direction::Down)).unwrap();
    let mut stream = connect(&proxy);
    let bytes = pattern(3000);
    let begun = Instant::now();
    stream.write_all(&bytes).unwrap();
    let pieces = pieces(&mut stream, bytes.len());
    // A slow reader may find two pieces together, but hardly most of them.
    assert!(pieces.len() >= 12, "{} pieces", pieces.len());
    assert!(begun.elapsed() >= ms(40), "21 pauses of 2 ms are the least: {:?}", begun.elapsed());
    assert!(pieces.concat() == bytes);
    assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit { connections: 1, bytes: 3000, chunks: 1, calls: 0 });
    arm(&proxy, ToxicKind::Slicer { size: 1000, variation: 999, delay: Duration::ZERO });
    transfer(&proxy, &pattern(2 << 20), || {});
}

#[test]
fn proxy_slicer_heals_at_once() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let kind = ToxicKind::Slicer { size: 10, variation: 0, delay: Duration::from_secs(3600) };
    let id = arm(&proxy, kind);
    let mut stream = connect(&proxy);
    let bytes = pattern(1000);
    stream.write_all(&bytes).unwrap();
    eventually("the first piece has come back", || proxy.hits(id).unwrap().unwrap().chunks >= 1);
    thread::sleep(ms(20));
    proxy.disarm(id).unwrap();
    assert!(pieces(&mut stream, bytes.len()).concat() == bytes);
}

#[test]
fn proxy_limit_data_closes_after_exactly_so_many_bytes() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let id = proxy.arm(Toxic::new(ToxicKind::LimitData { bytes: 10 }).direction(Direction::Down)).unwrap();
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"1234").unwrap();
    stream.write_all(b"56789abcdef").unwrap();
    assert_eq!(read_all(&mut stream).unwrap(), b"56789a");
    eventually("the connection ends", || proxy.stats().live == 0);
    assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit { connections: 1, bytes: 5, chunks: 1, calls: 0 });

    // A limit that is just reached closes as well, and it is counted from the arming on.
    let mut old = connect(&proxy);
    round_trip(&mut old, b"before").unwrap();
    arm(&proxy, ToxicKind::LimitData { bytes: 4 });
    old.write_all(b"1234").unwrap();
    // Requests count for themselves, and none of these bytes could come back before the end.
    assert_eq!(read_all(&mut old), Ok(Vec::new()));
}

#[test]
fn proxy_limit_data_of_requests_delivers_them_first() {
    let (seen, requests) = mpsc::channel();
    let upstream = server(move |mut stream| seen.send(read_all(&mut stream)).unwrap());
    let proxy = proxy_to(upstream, Protocol::Opaque);
    proxy.arm(Toxic::new(ToxicKind::LimitData { bytes: 3 }).direction(Direction::Up)).unwrap();
    let mut stream = connect(&proxy);
    stream.write_all(b"abcdef").unwrap();
    assert_eq!(requests.recv_timeout(PATIENCE).unwrap().unwrap(), b"abc");
    assert_eq!(read_all(&mut stream), Ok(Vec::new()));
}

#[test]
fn proxy_delays_in_each_direction() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    for distribution in [Distribution::Uniform, Distribution::Normal, Distribution::Pareto] {
        let kind = ToxicKind::Latency { delay: ms(30), jitter: Duration::from_micros(10), distribution };
        let id = proxy.arm(Toxic::new(kind).direction(Direction::Both)).unwrap();
        let taken = round_trip(&mut stream, b"twice").unwrap();
        assert!(taken >= ms(59), "{distribution}: {taken:?}");
        assert_eq!(proxy.disarm(id).unwrap().unwrap().chunks, 2);
    }
}

#[test]
fn proxy_connect_latency_delays_the_dialling_and_nothing_else() {
    let accepted = mpsc::channel();
    let upstream = server(move |stream| {
        accepted.0.send(()).unwrap();
        echo(stream);
    });
    let accepted = accepted.1;
    let proxy = proxy_to(upstream, Protocol::Opaque);
    let mut old = connect(&proxy);
    round_trip(&mut old, b"old").unwrap();
    accepted.recv_timeout(PATIENCE).unwrap();
    let wait = |ms: u64| {
        let delay = Duration::from_millis(ms);
        ToxicKind::ConnectLatency { delay, jitter: Duration::ZERO, distribution: Distribution::Uniform }
    };
    let ids = [wait(60), wait(60)].map(|kind| arm(&proxy, kind));
    round_trip(&mut old, b"untouched").unwrap();
    let begun = Instant::now();
    let mut new = connect(&proxy);
    round_trip(&mut new, b"new").unwrap();
    assert!(begun.elapsed() >= ms(120), "{:?}", begun.elapsed());
    accepted.recv_timeout(PATIENCE).unwrap();
    for id in ids {
        assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit { connections: 1, ..ToxicHit::default() });
    }
    // Healing lets those go on that wait, and what they have sent meanwhile is not lost.
    let id = arm(&proxy, wait(3_600_000));
    let mut waiting = connect(&proxy);
    waiting.write_all(b"sent").unwrap();
    assert_silent(&mut waiting, ms(50));
    assert!(accepted.try_recv().is_err(), "the upstream was dialled");
    proxy.disarm(id).unwrap();
    let mut back = [0; 4];
    waiting.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"sent");
}

#[test]
fn proxy_flapping_resets_again_and_again() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut old = connect(&proxy);
    round_trip(&mut old, b"old").unwrap();
    let begun = Instant::now();
    let id = arm(&proxy, ToxicKind::Flapping { down: ms(100), up: ms(300), how: Down::Reset });
    assert_reset(&mut old);
    let mut resets = 0;
    while resets < 3 {
        // Down: refused until it is up again, works then, and is reset when it goes down. A reset can be here before
        // `connect` has returned, and is then what it returns.
        let Ok(mut stream) = TcpStream::connect(proxy.listen_addr()) else { continue };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if round_trip(&mut stream, b"up").is_ok() {
            assert_reset(&mut stream);
            resets += 1;
        }
    }
    assert!(begun.elapsed() >= ms(1150), "three periods take 1.2 s: {:?}", begun.elapsed());
    assert!(proxy.disarm(id).unwrap().unwrap().connections > 3);
    round_trip(&mut connect(&proxy), b"healed").unwrap();
}

#[test]
fn proxy_flapping_that_stalls_loses_nothing() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut old = connect(&proxy);
    let begun = Instant::now();
    let id = arm(&proxy, ToxicKind::Flapping { down: ms(150), up: ms(1), how: Down::Stall });
    round_trip(&mut old, b"old").unwrap();
    assert!(begun.elapsed() >= ms(150), "{:?}", begun.elapsed());
    assert!(proxy.disarm(id).unwrap().unwrap().connections >= 1);
    let id = arm(&proxy, ToxicKind::Flapping { down: Duration::from_secs(3600), up: ms(1), how: Down::Stall });
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"held").unwrap();
        assert_silent(stream, ms(30));
    }
    proxy.disarm(id).unwrap();
    for stream in [&mut old, &mut new] {
        stream.read_exact(&mut [0; 4]).unwrap();
    }
    arm(&proxy, ToxicKind::Flapping { down: ms(2), up: ms(2), how: Down::Stall });
    transfer(&proxy, &pattern(4 << 20), || {});
}

/// Every kind with parameters that leave nothing for it to do.
fn without_effect() -> Vec<ToxicKind> {
    let distribution = Distribution::Pareto;
    vec![
        ToxicKind::Latency { delay: Duration::ZERO, jitter: Duration::ZERO, distribution },
        ToxicKind::ConnectLatency { delay: Duration::ZERO, jitter: Duration::ZERO, distribution },
        ToxicKind::Bandwidth { bytes_per_second: u64::MAX },
        ToxicKind::SlowClose { delay: Duration::ZERO },
        ToxicKind::Slicer { size: u32::MAX / 2, variation: 0, delay: Duration::ZERO },
        ToxicKind::LimitData { bytes: u64::MAX },
        ToxicKind::Reset { after: Duration::from_secs(3600) },
    ]
}

#[test]
fn proxy_toxics_of_no_effect_change_nothing() {
    let bytes = pattern(4 << 20);
    for kind in without_effect() {
        let proxy = proxy_to(echo_server(), Protocol::Opaque);
        let id = arm(&proxy, kind);
        transfer(&proxy, &bytes, || {});
        eventually("the connection ends", || proxy.stats().live == 0);
        proxy.disarm(id).unwrap();
    }
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    for kind in without_effect() {
        arm(&proxy, kind);
    }
    transfer(&proxy, &bytes, || {});
    for kind in [ToxicKind::BlackHole, ToxicKind::Refuse, ToxicKind::Timeout { after: Duration::ZERO }] {
        let id = proxy.arm(Toxic::new(kind).fraction(0.0)).unwrap();
        round_trip(&mut connect(&proxy), b"spared").unwrap();
        assert_eq!(proxy.disarm(id).unwrap().unwrap(), ToxicHit::default());
    }
}

#[test]
fn proxy_toxics_compose_in_the_order_of_arming() {
    let kinds = || {
        let (delay, jitter) = (ms(3), ms(3));
        [
            ToxicKind::Latency { delay, jitter, distribution: Distribution::Normal },
            ToxicKind::Slicer { size: 5000, variation: 4000, delay: Duration::from_micros(10) },
            ToxicKind::Bandwidth { bytes_per_second: 64 << 20 },
            ToxicKind::SlowClose { delay: ms(2) },
        ]
    };
    let bytes = pattern(1 << 20);
    for first in 0..kinds().len() {
        let proxy = proxy_to(echo_server(), Protocol::Opaque);
        let mut kinds = kinds();
        kinds.rotate_left(first);
        let ids = kinds.map(|kind| proxy.arm(Toxic::new(kind).direction(Direction::Both)).unwrap());
        transfer(&proxy, &bytes, || {});
        eventually("the connection ends", || proxy.stats().live == 0);
        for id in ids {
            let hit = proxy.disarm(id).unwrap().unwrap();
            assert_eq!(hit.connections, 1, "toxic {id} of order {first}");
        }
    }
}

#[test]
fn proxy_what_is_armed_first_acts_first() {
    // A limit before a delay: the delay applies to what the limit lets through, and to the closing.
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    proxy.arm(Toxic::new(ToxicKind::LimitData { bytes: 4 }).direction(Direction::Down)).unwrap();
    let late = ToxicKind::Latency { delay: ms(100), jitter: Duration::ZERO, distribution: Distribution::Uniform };
    let late = arm(&proxy, late);
    let mut stream = connect(&proxy);
    let begun = Instant::now();
    stream.write_all(b"123456").unwrap();
    assert_eq!(read_all(&mut stream).unwrap(), b"1234");
    assert!(begun.elapsed() >= ms(100));
    assert_eq!(proxy.disarm(late).unwrap().unwrap().bytes, 4);

    // A black hole behind a timeout swallows the closing, too; before it, it does not.
    let timeout = || Toxic::new(ToxicKind::Timeout { after: ms(50) }).direction(Direction::Down);
    let hole = || Toxic::new(ToxicKind::BlackHole).direction(Direction::Down);
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let mut stream = connect(&proxy);
    round_trip(&mut stream, b"hello").unwrap();
    let ids = [timeout(), hole()].map(|toxic| proxy.arm(toxic).unwrap());
    assert_silent(&mut stream, ms(150));
    for id in ids {
        proxy.disarm(id).unwrap();
    }
    // A stream whose end was swallowed has a hole.
    assert_reset(&mut stream);
    let mut stream = connect(&proxy);
    for toxic in [hole(), timeout()] {
        proxy.arm(toxic).unwrap();
    }
    assert_eq!(read_all(&mut stream), Ok(Vec::new()));
}

#[test]
fn proxy_toxics_of_all_kinds_come_and_go_in_traffic_without_loss() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    transfer(&proxy, &pattern(16 << 20), || {
        for round in 0..10 {
            let side = [Direction::Up, Direction::Down, Direction::Both][round % 3];
            let kinds = [
                ToxicKind::Slicer { size: 3000, variation: 2999, delay: Duration::from_micros(50) },
                ToxicKind::Latency { delay: ms(1), jitter: ms(5), distribution: Distribution::Pareto },
                ToxicKind::SlowClose { delay: ms(5) },
                ToxicKind::Bandwidth { bytes_per_second: 1 << 20 },
            ];
            let mut ids = kinds.map(|kind| proxy.arm(Toxic::new(kind).direction(side)).unwrap());
            ids.rotate_left(round % 4);
            thread::sleep(ms(5));
            for id in ids {
                proxy.disarm(id).unwrap().unwrap();
                thread::sleep(ms(1));
            }
        }
    });
}

#[test]
fn proxy_refuses_parameters_by_name() {
    let proxy = proxy_to(echo_server(), Protocol::Opaque);
    let day_and_more = Duration::from_secs(100_000);
    let kinds = [
        (ToxicKind::Slicer { size: 0, variation: 0, delay: Duration::ZERO }, "`size`"),
        (ToxicKind::Slicer { size: 5, variation: 5, delay: Duration::ZERO }, "`variation`"),
        (ToxicKind::Slicer { size: 5, variation: 0, delay: day_and_more }, "`delay`"),
        (ToxicKind::SlowClose { delay: day_and_more }, "`delay`"),
        (ToxicKind::Timeout { after: day_and_more }, "`after`"),
        (ToxicKind::Reset { after: day_and_more }, "`after`"),
        (ToxicKind::Bandwidth { bytes_per_second: 0 }, "`bytes_per_second`"),
        (ToxicKind::Flapping { down: ms(0), up: ms(1), how: Down::Reset }, "`down`"),
        (ToxicKind::Flapping { down: ms(1), up: ms(0), how: Down::Stall }, "`up`"),
    ];
    for (kind, key) in kinds {
        match proxy.arm(Toxic::new(kind)) {
            Err(ProxyError::Toxic { reason, .. }) => assert!(reason.starts_with(key), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn proxy_half_closes_survive_the_toxics_of_no_effect() {
    let answering = server(|mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
    });
    let proxy = proxy_to(answering, Protocol::Opaque);
    for kind in without_effect() {
        arm(&proxy, kind);
    }
    let mut stream = connect(&proxy);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream).unwrap(), b"question");
}
