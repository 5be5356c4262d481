//! The servers behind a measured proxy: one swallows bytes and says how many came, one answers with the time.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use super::monotonic_ns;
use crate::workbench::cores::{self, Cores};
use crate::workbench::serve::{self, Poll, Server};

/// The hidden subcommand of the server process.
pub const SUBCOMMAND: &str = "__bench-proxy-server";
/// Swallows everything, and answers its end with the number of bytes.
pub const SINK: &str = "sink";
/// Answers every [`STAMP_BYTES`] with the monotonic time.
pub const STAMP: &str = "stamp";
/// The length of a request for the time and of its answer.
pub const STAMP_BYTES: usize = 8;
/// What the sink reads at once.
const READ: usize = 256 << 10;

/// Starts one of the servers on the server's processor.
///
/// # Errors
/// The process does not start, or does not tell its address.
pub fn start(cores: &Cores, mode: &str) -> io::Result<Server> {
    Server::start(cores, SUBCOMMAND, &[mode])
}

/// What the server process does; `core` is its processor. Returns its exit code.
pub fn main(core: usize, mode: &str) -> i32 {
    cores::pin(core);
    crate::priority::prefer();
    let step = if mode == SINK { swallow } else { stamp };
    match serve(step) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the server of the measurement: {error}");
            1
        }
    }
}

/// Deals with what has come on a connection; an error ends the connection.
type Step = fn(&mut TcpStream, &mut u64, &mut [u8]) -> io::Result<()>;

fn serve(step: Step) -> io::Result<()> {
    let listener = serve::listen(String::new)?;
    let poll = Poll::new()?;
    poll.add(listener.as_raw_fd())?;
    let mut streams: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut counts: HashMap<RawFd, u64> = HashMap::new();
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ]);
    loop {
        poll.ready(&mut ready, true)?;
        for fd in ready.drain(..) {
            if fd == listener.as_raw_fd() {
                serve::accept_all(&listener, &poll, &mut streams)?;
            } else if let Some(stream) = streams.get_mut(&fd)
                && step(stream, counts.entry(fd).or_default(), &mut buffer).is_err()
            {
                streams.remove(&fd);
                counts.remove(&fd);
            }
        }
    }
}

fn swallow(stream: &mut TcpStream, count: &mut u64, buffer: &mut [u8]) -> io::Result<()> {
    match stream.read(buffer)? {
        0 => {
            stream.write_all(&count.to_be_bytes())?;
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        length => {
            *count += length as u64;
            Ok(())
        }
    }
}

fn stamp(stream: &mut TcpStream, _count: &mut u64, buffer: &mut [u8]) -> io::Result<()> {
    stream.read_exact(&mut buffer[..STAMP_BYTES])?;
    stream.write_all(&monotonic_ns().to_be_bytes())
}
