//! The calibration server: a process of its own that answers each request exactly when its [`Mode`] says, and tells at its
//! end how exact it was.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use serde::{Deserialize, Serialize};

use super::mode::{Mode, Shop};
use crate::load::clock::{arm, monotonic_ns};
use crate::priority::{make_real_time, prefer};
use crate::workbench::Unmeasured;
use crate::workbench::cores::{self, Cores};
use crate::workbench::serve::{self, Poll, Server};

/// The hidden subcommand of the server process.
pub const SUBCOMMAND: &str = "__calibration-server";

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

/// A wake-up takes tens of microseconds, so the last part of every wait is spent looking at the clock.
const SPIN_NS: i64 = 100_000;

/// What the server says of itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Told {
    /// Replies sent.
    pub replies: u64,
    /// How much later than due the latest of them was sent, in microseconds.
    pub late_us_max: u64,
}

/// Starts it on the server's processor. It knows nobody yet: its first request is the beginning of its time.
///
/// # Errors
/// The process does not start, or does not tell its address.
pub fn start(cores: &Cores, mode: Mode) -> Result<Server, Unmeasured> {
    let mode = serde_json::to_string(&mode).map_err(io::Error::from)?;
    Ok(Server::start(cores, SUBCOMMAND, &[&mode])?)
}

/// Ends it; what it says of itself.
///
/// # Errors
/// It says nothing sensible.
pub fn end(server: Server) -> Result<Told, Unmeasured> {
    let said = server.end()?;
    serde_json::from_str(&said)
        .map_err(|error| Unmeasured::Failed(format!("the calibration server said {said:?} at its end: {error}")))
}

/// What the server process does; returns its exit code.
pub fn main(core: usize, mode: &str) -> i32 {
    cores::pin(core);
    if make_real_time().is_err() {
        prefer();
    }
    let mode = serde_json::from_str(mode).map_err(io::Error::from);
    match mode.and_then(|mode| serve(Shop::new(mode))) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the calibration server: {error}");
            1
        }
    }
}

/// Counted by the serving thread, told by the one that sees the parent go.
#[derive(Debug, Default)]
struct Tally {
    replies: AtomicU64,
    late_us_max: AtomicU64,
}

fn serve(mut shop: Shop) -> io::Result<()> {
    let tally = Arc::new(Tally::default());
    let listener = serve::listen({
        let tally = tally.clone();
        move || {
            let (replies, late) = (&tally.replies, &tally.late_us_max);
            let told = Told { replies: replies.load(Ordering::Relaxed), late_us_max: late.load(Ordering::Relaxed) };
            serde_json::to_string(&told).unwrap_or_default()
        }
    })?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let timer_fd = timer.as_fd().as_raw_fd();
    let poll = Poll::new()?;
    poll.add(listener.as_raw_fd())?;
    poll.add(timer_fd)?;
    let mut streams: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut due = BinaryHeap::new();
    let mut ready = Vec::new();
    let mut number = 0_u64;
    loop {
        let next = answer_due(&mut due, &streams, &tally);
        let spins = next.is_some_and(|next| next - monotonic_ns() < SPIN_NS);
        if let Some(next) = next.filter(|_| !spins) {
            arm(&timer, next - SPIN_NS)?;
        }
        poll.ready(&mut ready, !spins)?;
        let now = monotonic_ns();
        for fd in ready.drain(..) {
            if fd == listener.as_raw_fd() {
                serve::accept_all(&listener, &poll, &mut streams)?;
            } else if fd == timer_fd {
                // Only read so that it is quiet again; what is due is looked up above.
                let _ = nix::unistd::read(&timer, &mut [0; 8]);
            } else if let Some(stream) = streams.get_mut(&fd) {
                match serve::asked(stream) {
                    Ok(true) => {
                        number += 1;
                        due.push(Reverse((shop.due_ns(now), number, fd)));
                    }
                    Ok(false) => {}
                    Err(_) => drop(streams.remove(&fd)),
                }
            }
        }
    }
}

/// Sends all replies that are due, and gives the time of the next one.
fn answer_due(
    due: &mut BinaryHeap<Reverse<(i64, u64, RawFd)>>,
    streams: &HashMap<RawFd, TcpStream>,
    tally: &Tally,
) -> Option<i64> {
    while let Some(Reverse((at, _, fd))) = due.peek().copied() {
        let late = monotonic_ns() - at;
        if late < 0 {
            return Some(at);
        }
        due.pop();
        // A client that has gone, or does not read, gets none.
        if let Some(mut stream) = streams.get(&fd)
            && stream.write_all(REPLY).is_ok()
        {
            tally.replies.fetch_add(1, Ordering::Relaxed);
            tally.late_us_max.fetch_max(late as u64 / 1_000, Ordering::Relaxed);
        }
    }
    None
}
