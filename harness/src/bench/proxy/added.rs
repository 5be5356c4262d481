//! The time that passing through adds to a round trip: requests one after the other, straight and through the proxy.
//!
//! Client and server have a processor each, and the proxy's thread is where the system puts it. Where client and server
//! happened to share one, the way straight would wake no other processor, which is most of what a round trip costs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{Context, Figure, REQUEST, Unmeasured, at, connect, proxy_to, us};
use crate::bench::{median, server};
use crate::fault::proxy::Protocol;

/// Turns of each way.
const TURNS: usize = 40;
/// Round trips of a turn.
const TRIPS: usize = 1_000;
/// Round trips before the first turn, until caches and frequencies are what they will be.
const WARM_UP: usize = 2_000;

/// The median of the differences between neighbouring turns, for the median and the 99th percentile of a round trip.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say(&format!("{TURNS} turns of {TRIPS} round trips straight and through a proxy"));
    let server = server::start(&context.cores)?;
    let proxy = proxy_to(server.address, Protocol::Http)?;
    let (mut straight, mut through) = (connect(server.address)?, connect(proxy.listen_addr())?);
    context.cores.on_client(|| {
        [&mut straight, &mut through].into_iter().try_for_each(|stream| trips(stream, WARM_UP).map(drop))
    })?;
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    let (mut all_straight, mut all_through) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        context.goes_on()?;
        // Which comes first alternates, so that a machine that gets slower favours neither.
        let mut taken = context.cores.on_client(|| -> io::Result<_> {
            let first = if turn % 2 == 0 { Some(trips(&mut straight, TRIPS)?) } else { None };
            let proxied = trips(&mut through, TRIPS)?;
            Ok([first.map_or_else(|| trips(&mut straight, TRIPS), Ok)?, proxied])
        })?;
        let [direct, proxied] = &mut taken;
        p50.push(us(at(proxied, 0.5)) - us(at(direct, 0.5)));
        p99.push(us(at(proxied, 0.99)) - us(at(direct, 0.99)));
        all_straight.append(direct);
        all_through.append(proxied);
    }
    let expected = (WARM_UP + TURNS * TRIPS) as u64;
    let calls = proxy.stats().calls;
    if calls != expected {
        return Err(Unmeasured::Failed(format!("the proxy counted {calls} calls of {expected}")));
    }
    let figure = |name: &str, quantile: f64, differences: Vec<f64>| {
        let (value, [low, high]) = median(differences);
        let (direct, proxied) =
            (us(at(&mut all_straight.clone(), quantile)), us(at(&mut all_through.clone(), quantile)));
        Figure::new(name, value, "us").detail(&format!(
            "median of {TURNS} turns of {TRIPS} HTTP requests, one after the other, client and server on a processor each, \
             calls counted, 95% interval {low:.1} to {high:.1}; over all turns {direct:.1} us straight and {proxied:.1} us \
             through the proxy"
        ))
    };
    Ok(vec![figure("proxy_added_us_p50", 0.5, p50), figure("proxy_added_us_p99", 0.99, p99)])
}

/// So many round trips, in nanoseconds.
fn trips(stream: &mut TcpStream, count: usize) -> io::Result<Vec<u64>> {
    (0..count).map(|_| trip(stream)).collect()
}

fn trip(stream: &mut TcpStream) -> io::Result<u64> {
    let begun = Instant::now();
    stream.write_all(REQUEST)?;
    let mut reply = [0; server::REPLY.len()];
    stream.read_exact(&mut reply)?;
    let taken = begun.elapsed();
    if reply != *server::REPLY {
        return Err(io::Error::other("another reply came back than was sent"));
    }
    Ok(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX))
}
