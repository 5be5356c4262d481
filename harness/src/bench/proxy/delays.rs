//! How exactly a proxy delays: by how much a reply's way from server to client differs from the delay that was asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{Context, Figure, Unmeasured, at, latency, monotonic_ns, proxy_to, refused, server, us};
use crate::bench::median;
use crate::fault::proxy::Protocol;
use crate::fault::toxic::Toxic;

/// Connections that ask.
const CONNECTIONS: usize = 1_000;
/// The delays in milliseconds, and how often each connection asks in a turn.
const DELAYS: [(u64, u64); 4] = [(1, 3), (10, 3), (100, 3), (1_000, 2)];
/// Turns of each delay. Where the machine is taken away for a moment, all connections are late that wait at that moment, and one
/// such moment is enough for a turn's hundredth: so the middle of some turns is given, and the worst of them is told.
const TURNS: usize = 5;
/// Every connection asks at a moment of its own within this time.
const SPREAD_MS: u64 = 1_000;

/// The 99th percentile of the error of the delay for which it is worst: the median of the turns.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    let server = server::start(&context.cores, server::STAMP)?;
    let proxy = proxy_to(server.address, Protocol::Opaque)?;
    context.say(&format!("{TURNS} turns of {} delays on {CONNECTIONS} connections", DELAYS.len()));
    // By delay, the median and the 99th percentile of each turn.
    let mut turns: [(Vec<f64>, Vec<f64>); DELAYS.len()] = Default::default();
    for _ in 0..TURNS {
        for ((delay_ms, rounds), (p50, p99)) in DELAYS.into_iter().zip(&mut turns) {
            context.goes_on()?;
            let toxic = Toxic::new(latency(Duration::from_millis(delay_ms)));
            let id = proxy.arm(toxic).map_err(|error| refused(&error))?;
            // Not on the runtime's own threads: the client is a single thread, as the generator is one.
            let asking = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut errors = asking.block_on(errors(proxy.listen_addr(), rounds, delay_ms * 1_000_000))?;
            proxy.disarm(id).map_err(|error| refused(&error))?;
            p50.push(us(at(&mut errors, 0.5)));
            p99.push(us(at(&mut errors, 0.99)));
        }
    }
    let (mut worst, mut told) = (0.0_f64, Vec::new());
    for ((delay_ms, _), (p50, p99)) in DELAYS.into_iter().zip(turns) {
        let worst_turn = p99.iter().copied().fold(0.0, f64::max);
        let (p50, p99) = (median(p50).0, median(p99).0);
        worst = worst.max(p99);
        told.push(format!("{delay_ms} ms: p50 {p50:.0}, p99 {p99:.0} us ({worst_turn:.0} in the worst turn)"));
    }
    let detail = format!(
        "worst of four delays over {CONNECTIONS} connections, the median of {TURNS} turns of each, from the server's write to the \
         client's read, {}",
        told.join("; ")
    );
    Ok(vec![Figure::new("delay_error_us_p99", worst, "us").detail(&detail)])
}

/// All connections ask, and note by how many nanoseconds the way of the reply differed from the delay.
async fn errors(address: SocketAddr, rounds: u64, delay_ns: u64) -> Result<Vec<u64>, Unmeasured> {
    let mut tasks = JoinSet::new();
    // The storm of connecting is not what is to be measured.
    let connected = Arc::new(Barrier::new(CONNECTIONS));
    for number in 0..CONNECTIONS as u64 {
        tasks.spawn(one(address, number, rounds, delay_ns, connected.clone()));
    }
    let mut all = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        all.extend(joined.map_err(|error| Unmeasured::Failed(error.to_string()))??);
    }
    Ok(all)
}

async fn one(
    address: SocketAddr,
    number: u64,
    rounds: u64,
    delay_ns: u64,
    connected: Arc<Barrier>,
) -> std::io::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    asked(&mut stream).await?;
    connected.wait().await;
    let mut errors = Vec::new();
    for round in 0..rounds {
        // Primes spread the moments evenly, and the same ones come in every measurement.
        let pause = (number * 7_919 + round * 104_729) % SPREAD_MS;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        errors.push(asked(&mut stream).await?.abs_diff(delay_ns));
    }
    Ok(errors)
}

/// One request, and how many nanoseconds its reply was on its way.
async fn asked(stream: &mut TcpStream) -> std::io::Result<u64> {
    stream.write_all(&[1; server::STAMP_BYTES]).await?;
    let mut sent = [0; server::STAMP_BYTES];
    stream.read_exact(&mut sent).await?;
    Ok(monotonic_ns().saturating_sub(u64::from_be_bytes(sent)))
}
