//! Prints results to stdout, and keeps it for them: goose announces its users there, whatever it is told.

use std::io::Write;
use std::os::fd::AsRawFd;

/// In this crate, `println!` and its like come from here. Those of the standard library panic when nobody reads any more what
/// is printed, as after `| head -1` or `2>&1 | head -1`: a rehearsal would die of it in the middle. Within tests, they are the
/// standard library's, which keeps the words of each test together.
#[cfg(not(test))]
macro_rules! print {
    ($($what:tt)*) => { $crate::stdout::put(std::io::stdout().lock(), format_args!($($what)*), "") };
}
#[cfg(not(test))]
macro_rules! println {
    ($($what:tt)*) => { $crate::stdout::put(std::io::stdout().lock(), format_args!($($what)*), "\n") };
}
#[cfg(not(test))]
macro_rules! eprint {
    ($($what:tt)*) => { $crate::stdout::put(std::io::stderr().lock(), format_args!($($what)*), "") };
}
#[cfg(not(test))]
macro_rules! eprintln {
    ($($what:tt)*) => { $crate::stdout::put(std::io::stderr().lock(), format_args!($($what)*), "\n") };
}

/// Prints as a whole, whether anybody reads it or not.
pub fn put(mut to: impl Write, what: std::fmt::Arguments<'_>, end: &str) {
    let _ = to.write_all(format!("{what}{end}").as_bytes());
}

/// Prints a result. Whoever reads only its beginning closes the pipe early, which is no failure.
pub fn print(result: &[u8]) {
    let _ = std::io::stdout().write_all(result);
}

/// Lets what `work` prints to stdout go nowhere; afterwards stdout is what it was. It is goose that prints, what nobody has asked
/// for, and its load ends in the middle if it cannot.
pub fn kept_for_results<T>(work: impl FnOnce() -> T) -> T {
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
        Ok(nowhere) => copy(nowhere.as_raw_fd(), libc::STDOUT_FILENO),
        Err(_) => copy(libc::STDERR_FILENO, libc::STDOUT_FILENO),
    };
    let result = work();
    let _ = std::io::stdout().flush();
    copy(stdout, libc::STDOUT_FILENO);
    // SAFETY: the descriptor was made above, and nobody else knows it.
    unsafe { libc::close(stdout) };
    result
}
