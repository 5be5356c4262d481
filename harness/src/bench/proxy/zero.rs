//! An armed fault that adds nothing: does it change anything? Requests through the same connections of the same proxy,
//! with a latency of zero armed and with nothing armed, in short turns.
//!
//! The slowest hundredth is what the machine does to a request rather than what the proxy does, and it comes in bursts. So the turns
//! are so short that both ways have their part of each, and many of them make up one comparison.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::{Context, Figure, REQUEST, Unmeasured, at, connect, latency, proxy_to, refused};
use crate::bench::{median, server};
use crate::fault::proxy::{Protocol, Proxy};
use crate::fault::toxic::Toxic;
use crate::workbench::serve::Poll;

/// Requests with the fault armed, and as many without.
const REQUESTS: usize = 2_000_000;
/// Comparisons, each of the 99th percentiles of its turns taken together.
const COMPARISONS: usize = 40;
/// Turns of each way in a comparison; the fewer requests a turn has, the less the machine changes between neighbours.
const TURNS: usize = 100;
/// Requests of a turn.
const TURN: usize = REQUESTS / COMPARISONS / TURNS;
/// Connections, each with one request under way.
const CONNECTIONS: usize = 4;

/// Errors while the fault was armed, and the ratio of the 99th percentiles.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context
        .say(&format!("{REQUESTS} requests with a zero fault armed and as many without, {TURN} and {TURN} in turns"));
    let server = server::start(&context.cores)?;
    let proxy = proxy_to(server.address, Protocol::Http)?;
    let mut crowd = Crowd::connect(&proxy)?;
    crowd.turn(TURN * TURNS)?;
    let (mut ratios, mut errors, mut hit) = (Vec::new(), 0, 0);
    for _ in 0..COMPARISONS {
        context.goes_on()?;
        let mut taken = [Vec::new(), Vec::new()];
        for turn in 0..TURNS {
            // Which comes first alternates, so that a machine that gets slower favours neither.
            for armed in [turn % 2 == 0, turn % 2 != 0] {
                let toxic = Toxic::new(latency(Duration::ZERO));
                let id = armed.then(|| proxy.arm(toxic)).transpose().map_err(|error| refused(&error))?;
                let before = crowd.errors;
                taken[usize::from(armed)].extend(context.cores.on_client(|| crowd.turn(TURN))?);
                if let Some(id) = id {
                    errors += crowd.errors - before;
                    hit += proxy.disarm(id).map_err(|error| refused(&error))?.map_or(0, |hit| hit.chunks);
                }
            }
        }
        let [without, with] = taken.each_mut().map(|taken| at(taken, 0.99) as f64);
        ratios.push(with / without.max(1.0));
    }
    if hit < REQUESTS as u64 {
        return Err(Unmeasured::Failed(format!("the armed fault saw only {hit} of {REQUESTS} replies")));
    }
    let (ratio, interval) = median(ratios);
    let detail = format!(
        "median of {COMPARISONS} comparisons, each of {} requests in {TURNS} turns of {TURN}, over {CONNECTIONS} connections",
        TURN * TURNS
    );
    Ok(vec![
        Figure::new("zero_fault_errors", errors as f64, "errors")
            .detail(&format!("in {REQUESTS} requests while a latency of 0 is armed")),
        Figure::new("zero_fault_p99_ratio", ratio, "ratio").against("nothing armed", interval).detail(&detail),
    ])
}

/// Clients that ask again as soon as they were answered.
struct Crowd {
    poll: Poll,
    clients: HashMap<RawFd, Client>,
    /// Connections that broke and replies that were wrong.
    errors: u64,
}

struct Client {
    stream: TcpStream,
    asked: Instant,
    /// Bytes of the reply so far.
    got: usize,
}

impl Crowd {
    fn connect(proxy: &Proxy) -> std::io::Result<Crowd> {
        let mut crowd = Crowd { poll: Poll::new()?, clients: HashMap::new(), errors: 0 };
        for _ in 0..CONNECTIONS {
            let stream = connect(proxy.listen_addr())?;
            stream.set_nonblocking(true)?;
            crowd.poll.add(stream.as_raw_fd())?;
            crowd.clients.insert(stream.as_raw_fd(), Client { stream, asked: Instant::now(), got: 0 });
        }
        Ok(crowd)
    }

    /// So many requests, and how long each took in nanoseconds.
    fn turn(&mut self, requests: usize) -> Result<Vec<u64>, Unmeasured> {
        let (mut taken, mut asked, mut ready) = (Vec::with_capacity(requests), 0, Vec::new());
        for client in self.clients.values_mut() {
            client.ask()?;
            asked += 1;
        }
        let mut answered = 0;
        while answered < asked {
            self.poll.ready(&mut ready, true)?;
            for fd in ready.drain(..) {
                let Some(client) = self.clients.get_mut(&fd) else { continue };
                match client.answer() {
                    Ok(None) => continue,
                    Ok(Some(ns)) => taken.push(ns),
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidData => self.errors += 1,
                    // Without its connections the rest would be no comparison.
                    Err(error) => return Err(Unmeasured::Failed(format!("a connection broke: {error}"))),
                }
                answered += 1;
                if asked < requests {
                    client.ask()?;
                    asked += 1;
                }
            }
        }
        Ok(taken)
    }
}

impl Client {
    fn ask(&mut self) -> std::io::Result<()> {
        (self.asked, self.got) = (Instant::now(), 0);
        self.stream.write_all(REQUEST)
    }

    /// The time since the request, once its reply is whole.
    fn answer(&mut self) -> std::io::Result<Option<u64>> {
        let mut buffer = [0; 1024];
        let length = self.stream.read(&mut buffer)?;
        let rest = &server::REPLY[self.got..];
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if !rest.starts_with(&buffer[..length]) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.got += length;
        let whole = self.got == server::REPLY.len();
        Ok(whole.then(|| u64::try_from(self.asked.elapsed().as_nanos()).unwrap_or(u64::MAX)))
    }
}
