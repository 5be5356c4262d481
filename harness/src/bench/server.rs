//! The server that clients are measured against: one thread, keep-alive HTTP/1.1, one small JSON reply, as cheap as it
//! can be, so that the client is the bottleneck. It runs as a process of its own and ends when its parent does.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use crate::workbench::cores::{self, Cores};
use crate::workbench::serve::{self, Poll, Server};

/// The hidden subcommand of the server process.
pub const SUBCOMMAND: &str = "__bench-server";

/// What every request is answered with.
pub const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n\
    {\"item\":1,\"available\":42,\"ok\":true}";

/// Starts it on the server's processor.
///
/// # Errors
/// The process does not start, or does not tell its address.
pub fn start(cores: &Cores) -> io::Result<Server> {
    Server::start(cores, SUBCOMMAND, &[])
}

/// What the server process does; `core` is its processor. Returns its exit code.
pub fn main(core: usize) -> i32 {
    cores::pin(core);
    crate::priority::prefer();
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the server of the measurement: {error}");
            1
        }
    }
}

fn serve() -> io::Result<()> {
    let listener = serve::listen(String::new)?;
    let poll = Poll::new()?;
    poll.add(listener.as_raw_fd())?;
    let mut streams: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut ready = Vec::new();
    loop {
        poll.ready(&mut ready, true)?;
        for fd in ready.drain(..) {
            if fd == listener.as_raw_fd() {
                serve::accept_all(&listener, &poll, &mut streams)?;
            } else if streams.get_mut(&fd).is_some_and(|stream| answer(stream).is_err()) {
                streams.remove(&fd);
            }
        }
    }
}

/// Answers the request that came, if it is whole.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    if serve::asked(stream)? { stream.write_all(REPLY) } else { Ok(()) }
}
