//! Other clients as child processes, on the processor on which the generator runs, with the priority that it asks for.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cores::{self, Cores};

/// Where `make bench` leaves programs that it builds for comparison.
const TOOLS: &str = "target/tools/bin";

/// How to get oha.
pub const OHA_REMEDY: &str =
    "make calibrate and make bench build it; by hand: cargo install oha --locked --root target/tools";
/// How to get wrk.
pub const WRK_REMEDY: &str = "apt-get install wrk";

/// A program on the PATH, or where `make bench` leaves what it builds.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from(TOOLS)]);
    folders.map(|folder| folder.join(OsStr::new(name))).find(|file| file.is_file())
}

/// A client that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its raw wait status; 0 if all went well.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// Processor seconds of the whole process, user and system together.
    pub cpu_s: f64,
}

/// Runs a client to its end.
///
/// # Errors
/// It does not start, or what it prints is no text.
pub fn run(cores: &Cores, program: &Path, arguments: &[String]) -> std::io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let core = cores.client;
    // SAFETY: between fork and exec there is only a system call on values made before.
    unsafe {
        command.pre_exec(move || {
            cores::pin(core);
            crate::priority::prefer();
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let mut stdout = String::new();
    let read = child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut stdout));
    let (status, cpu_s) = wait_for_cpu(child.id())?;
    read.map(|_| Ended { status, stdout, cpu_s })
}

/// Waits for a child; its raw wait status, and the processor seconds that it used.
fn wait_for_cpu(pid: u32) -> std::io::Result<(i32, f64)> {
    let mut status = 0;
    // SAFETY: a usage of all zeros is a valid value, and both pointers outlive the call.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage), usage)
    };
    if waited < 0 {
        return Err(std::io::Error::last_os_error());
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Ok((status, seconds(usage.ru_utime) + seconds(usage.ru_stime)))
}
