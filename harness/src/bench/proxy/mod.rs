//! What a proxy on a link costs: the time that passing through adds, what an armed fault that does nothing changes, the
//! bytes it carries, and how exactly it delays.
//!
//! Everything is compared with the same traffic on the same machine in turns, since the machine's mood changes faster than
//! a run. Clients are threads of this process, as the proxy is one, and servers are processes of their own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Context, Figure, Unmeasured};
use crate::fault::proxy::{Protocol, Proxy, ProxyConfig};
use crate::fault::toxic::{Distribution, ToxicKind};

mod added;
mod carried;
mod delays;
pub mod server;
mod zero;

pub(super) use added::run as added;
pub(super) use carried::run as carried;
pub(super) use delays::run as delays;
pub(super) use zero::run as zero;

/// A request without a body, and what the bench's HTTP server answers.
const REQUEST: &[u8] = b"GET /items/1/state HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer 0123456789abcdef\r\n\r\n";

/// A proxy like those of a run.
fn proxy_to(upstream: SocketAddr, protocol: Protocol) -> Result<Proxy, Unmeasured> {
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = ProxyConfig { name: "client→bench".into(), listen, upstream: upstream.into(), protocol, seed: 1 };
    Proxy::start(config).map_err(|error| Unmeasured::Failed(error.to_string()))
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The same delay for every reply.
fn latency(delay: Duration) -> ToxicKind {
    ToxicKind::Latency { delay, jitter: Duration::ZERO, distribution: Distribution::Uniform }
}

/// A sample at a quantile; sorts the samples.
fn at(samples: &mut [u64], quantile: f64) -> u64 {
    samples.sort_unstable();
    let rank = crate::measure::stats::rank(samples.len() as u64, quantile);
    samples.get(rank as usize - 1).copied().unwrap_or(0)
}

/// Nanoseconds as microseconds.
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// What could not be armed or disarmed.
fn refused(error: &crate::fault::proxy::ProxyError) -> Unmeasured {
    Unmeasured::Failed(error.to_string())
}

/// The monotonic clock, which all processes of a machine share, in nanoseconds.
fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples: Vec<u64> = (1..=200).rev().collect();
        assert_eq!((at(&mut samples, 0.5), at(&mut samples, 0.99), at(&mut [7], 0.99)), (100, 198, 7));
    }
}
