//! Servers as processes of their own, on their own processor, that end when their parent does.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::cores::Cores;

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a hidden subcommand of this program, whose first argument is the server's processor.
    ///
    /// # Errors
    /// The process does not start, or does not tell its address.
    pub fn start(cores: &Cores, subcommand: &str, arguments: &[&str]) -> io::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(subcommand).arg(cores.server.to_string()).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the server has no output"))?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| io::Error::other("the server told no address"));
        match address {
            Ok(address) => Ok(Server { child, stdout, address }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Ends it, and gives what it says at its end.
    ///
    /// # Errors
    /// Its output cannot be read.
    pub fn end(mut self) -> io::Result<String> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        Ok(said)
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

/// Connections that may wait to be accepted.
const WAITING_CONNECTIONS: i32 = 4_096;

/// In the server's process: listens on a port that the kernel chooses, tells it, and ends the process when the parent
/// closes the pipe or dies, with whatever `last_words` are printed then.
///
/// # Errors
/// The system refuses the port.
pub fn listen(last_words: impl FnOnce() -> String + Send + 'static) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Thousands of connections may come at once; one that finds no room tries again only after a second.
    // SAFETY: the call takes numbers only, and to listen again only changes how many may wait.
    if unsafe { libc::listen(listener.as_raw_fd(), WAITING_CONNECTIONS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    std::thread::spawn(move || {
        // The parent never writes: the read ends when the pipe does.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // The parent may be gone, and then nobody listens.
        let _ = write!(io::stdout(), "{}", last_words()).and_then(|()| io::stdout().flush());
        std::process::exit(0);
    });
    Ok(listener)
}

/// Takes the connections that have come, and watches them.
///
/// # Errors
/// What the system says.
pub fn accept_all(listener: &TcpListener, poll: &Poll, streams: &mut HashMap<RawFd, TcpStream>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poll.add(stream.as_raw_fd())?;
        streams.insert(stream.as_raw_fd(), stream);
    }
    Ok(())
}

/// Whether a whole request came. Clients send requests without bodies, each when the last was answered, so that the empty
/// line that ends it is the end of what can be read.
///
/// # Errors
/// The client has gone, or sends something else.
pub fn asked(stream: &mut TcpStream) -> io::Result<bool> {
    let mut buffer = [0u8; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) if buffer[..length].ends_with(b"\r\n\r\n") => Ok(true),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The kernel's epoll, level-triggered.
#[derive(Debug)]
pub struct Poll(OwnedFd);

impl Poll {
    /// One that watches nothing yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Poll> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else owns it.
        Ok(Poll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor from now on, until it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, fd: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: the event outlives the call, which only reads it.
        let added = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if added == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Appends the descriptors that can be read; `waits` until there is one, or only looks.
    ///
    /// # Errors
    /// What the system says.
    pub fn ready(&self, ready: &mut Vec<RawFd>, waits: bool) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let timeout_ms = if waits { -1 } else { 0 };
        // SAFETY: the array has room for as many events as the call is told.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, timeout_ms) };
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
