//! The bytes that a proxy carries in one direction, next to what this machine's kernel allows at all: a bare loop that
//! copies from socket to socket with the buffer that is best for it, and a bare `splice(2)` through a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};

use super::{Context, Figure, Unmeasured, connect, proxy_to, server};
use crate::bench::median;
use crate::fault::proxy::Protocol;

/// Turns of each way.
const TURNS: usize = 5;
/// Bytes of a turn.
const TOTAL: usize = 1 << 30;
/// What the client writes at once.
const WRITE: usize = 256 << 10;
/// What the bare loops move at once.
const BARE: usize = 1 << 20;

/// Bytes per second on a link that is not read and on one that speaks HTTP, and how that compares with the bare loops.
pub fn run(context: &Context<'_>) -> Result<Vec<Figure>, Unmeasured> {
    context.say(&format!("{TURNS} turns of {TOTAL} bytes: straight, by bare loops, and through proxies"));
    let sink = server::start(&context.cores, server::SINK)?;
    let opaque = proxy_to(sink.address, Protocol::Opaque)?;
    let http = proxy_to(sink.address, Protocol::Http)?;
    let mut turns: [Vec<f64>; 5] = Default::default();
    for _ in 0..TURNS {
        let ways: [&dyn Fn() -> io::Result<f64>; 5] = [
            &|| carry(sink.address),
            &|| bare(sink.address, copy),
            &|| bare(sink.address, spliced),
            &|| carry(opaque.listen_addr()),
            &|| carry(http.listen_addr()),
        ];
        for (turns, way) in turns.iter_mut().zip(ways) {
            context.goes_on()?;
            turns.push(way()?);
        }
    }
    let [straight, copied, spliced, opaque, http] = turns;
    let middle = |turns: &[f64]| median(turns.to_vec()).0;
    let share = |name: &str, other: &[f64], what: &str| {
        let (value, interval) = median(opaque.iter().zip(other).map(|(ours, other)| ours / other).collect());
        Figure::new(name, value, "ratio").against(what, interval)
    };
    let detail = format!(
        "median of {TURNS} turns of {TOTAL} bytes over one connection in one direction; in turns with it {:.2} GB/s \
         straight, {:.2} by a bare loop that copies {BARE} bytes at once, {:.2} by a bare splice; client, proxy and \
         server share the processors",
        middle(&straight) / 1e9,
        middle(&copied) / 1e9,
        middle(&spliced) / 1e9
    );
    Ok(vec![
        Figure::new("proxy_bytes_per_second", middle(&opaque), "bytes per second").detail(&detail),
        Figure::new("proxy_http_bytes_per_second", middle(&http), "bytes per second")
            .detail("the same as the body of one HTTP request on a link whose calls are counted"),
        share("proxy_vs_bare_copy", &copied, "a bare loop that copies"),
        share("proxy_vs_bare_splice", &spliced, "a bare splice"),
    ])
}

/// Sends [`TOTAL`] bytes as one HTTP request and waits until all have arrived; bytes per second.
fn carry(address: SocketAddr) -> io::Result<f64> {
    let mut stream = connect(address)?;
    let head = format!("POST /sink HTTP/1.1\r\nhost: bench\r\ncontent-length: {TOTAL}\r\n\r\n");
    let bytes = vec![7; WRITE];
    let begun = Instant::now();
    stream.write_all(head.as_bytes())?;
    for _ in 0..TOTAL / WRITE {
        stream.write_all(&bytes)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived)?;
    let seconds = begun.elapsed().as_secs_f64();
    let (arrived, sent) = (u64::from_be_bytes(arrived), (TOTAL + head.len()) as u64);
    if arrived != sent {
        return Err(io::Error::other(format!("{arrived} bytes of {sent} arrived")));
    }
    Ok(TOTAL as f64 / seconds)
}

/// The same through a thread that does nothing but move the bytes of one connection.
fn bare(sink: SocketAddr, relay: fn(&TcpStream, &TcpStream) -> io::Result<()>) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let relaying: JoinHandle<io::Result<()>> = std::thread::spawn(move || {
        let (client, _) = listener.accept()?;
        let upstream = connect(sink)?;
        relay(&client, &upstream)?;
        upstream.shutdown(Shutdown::Write)?;
        io::copy(&mut &upstream, &mut &client).map(drop)
    });
    let carried = carry(address)?;
    relaying.join().map_err(|_| io::Error::other("the bare loop panicked"))??;
    Ok(carried)
}

fn copy(mut client: &TcpStream, mut upstream: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BARE];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            length => upstream.write_all(&buffer[..length])?,
        }
    }
}

fn spliced(client: &TcpStream, upstream: &TcpStream) -> io::Result<()> {
    let (from, into): (OwnedFd, OwnedFd) = nix::unistd::pipe()?;
    // The kernel may allow less; then less moves at once.
    let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(BARE as i32));
    let (from, into) = (File::from(from), File::from(into));
    loop {
        let mut held = splice(client, None, into.as_fd(), None, BARE, SpliceFFlags::SPLICE_F_MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(from.as_fd(), None, upstream, None, held, SpliceFFlags::SPLICE_F_MOVE)?;
        }
    }
}
