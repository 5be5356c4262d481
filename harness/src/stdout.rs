//! Prints results to stdout, and keeps it for them: goose announces its users there, whatever it is told.

use std::io::Write;
use std::os::fd::AsRawFd;

/// Prints a result. Whoever reads only its beginning closes the pipe early, which is no failure.
pub fn print(result: &[u8]) {
    let _ = std::io::stdout().write_all(result);
}

/// Lets what `work` prints to stdout go to stderr instead, or nowhere if it is to be quiet; afterwards stdout is what it
/// was.
pub fn kept_for_results<T>(quiet: bool, work: impl FnOnce() -> T) -> T {
    let copy = |from: i32, to: i32| {
        // SAFETY: the call takes descriptors by number only; if one is closed it fails and nothing changes.
        unsafe { libc::dup2(from, to) }
    };
    // SAFETY: the same; the copy is closed below.
    let stdout = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
    if stdout < 0 {
        return work();
    }
    match std::fs::File::options().write(true).open("/dev/null") {
        Ok(nowhere) if quiet => copy(nowhere.as_raw_fd(), libc::STDOUT_FILENO),
        _ => copy(libc::STDERR_FILENO, libc::STDOUT_FILENO),
    };
    let result = work();
    let _ = std::io::stdout().flush();
    copy(stdout, libc::STDOUT_FILENO);
    // SAFETY: the descriptor was made above, and nobody else knows it.
    unsafe { libc::close(stdout) };
    result
}
