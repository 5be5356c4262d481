//! Prints lines for whoever reads them.

use std::io::Write;

/// In this crate, `println!` comes from here. That of the standard library panics when nobody reads any more what is printed, as
/// after `| head -1`.
#[cfg(not(test))]
macro_rules! println {
    ($($what:tt)*) => { $crate::print::line(format_args!($($what)*)) };
}

/// Prints a line, whether anybody reads it or not.
pub fn line(what: std::fmt::Arguments<'_>) {
    let _ = std::io::stdout().lock().write_all(format!("{what}\n").as_bytes());
}
