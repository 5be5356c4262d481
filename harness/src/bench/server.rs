//! The server that clients are measured against: one thread, keep-alive HTTP/1.1, one small JSON reply, as cheap as it
//! can be, so that the client is the bottleneck. It runs as a process of its own and ends when its parent does.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

use super::cores::{self, Cores};

/// The hidden subcommand of the server process.
pub const SUBCOMMAND: &str = "__bench-server";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n\
    {\"item\":1,\"available\":42,\"ok\":true}";

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts it on the server's processor.
    ///
    /// # Errors
    /// The process does not start, or does not tell its address.
    pub fn start(cores: &Cores) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SUBCOMMAND).arg(cores.server.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the server has no output"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| io::Error::other("the server told no address"));
        match address {
            Ok(address) => Ok(Server { child, address }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Closes its input, which is its sign to go, and waits until it is gone.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// What the server process does; `core` is its processor. Returns its exit code.
pub fn main(core: usize) -> i32 {
    cores::pin(core);
    cores::prefer();
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the server of the measurement: {error}");
            1
        }
    }
}

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    // The parent never writes: the read ends when the parent closes the pipe or dies.
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let poll = Poll::new()?;
    poll.add(listener.as_raw_fd())?;
    let mut streams: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut ready = Vec::new();
    loop {
        poll.wait(&mut ready)?;
        for fd in ready.drain(..) {
            if fd == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    poll.add(stream.as_raw_fd())?;
                    streams.insert(stream.as_raw_fd(), stream);
                }
            } else if streams.get_mut(&fd).is_some_and(|stream| answer(stream).is_err()) {
                streams.remove(&fd);
            }
        }
    }
}

/// Answers what can be read now. Clients send whole requests without bodies and wait for the reply, so the requests are
/// counted by the empty lines that end them.
fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0u8; 4096];
    let length = match stream.read(&mut buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    if buffer[..length].ends_with(b"\r\n\r\n") {
        stream.write_all(REPLY)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The kernel's epoll, level-triggered.
struct Poll(OwnedFd);

impl Poll {
    fn new() -> io::Result<Poll> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else owns it.
        Ok(Poll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: the event outlives the call, which only reads it.
        let added = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if added == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits, and appends the descriptors that can be read.
    fn wait(&self, ready: &mut Vec<RawFd>) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: the array has room for as many events as the call is told.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, -1) };
        match usize::try_from(count) {
            Ok(count) => ready.extend(events[..count].iter().map(|event| event.u64 as RawFd)),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
