//! How a test says that it, or a part of it, was left out on this machine. `ci/test.sh` counts what is said here.

use std::io::Write;

/// The whole test is left out: it asserts nothing, and is not counted among those that passed.
#[allow(dead_code, reason = "each test program uses what it needs")]
pub fn skipped(why: &str) {
    say("SKIPPED", why);
}

/// A part of the test is left out; the rest of it counts.
#[allow(dead_code, reason = "each test program uses what it needs")]
pub fn skipped_in_part(why: &str) {
    say("SKIPPED IN PART", why);
}

/// Not through the macros, whose output the test runner keeps to itself. Its threads bear the names of the tests.
fn say(what: &str, why: &str) {
    let thread = std::thread::current();
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stdout(), "{what}: {}: {line}", thread.name().unwrap_or("a test"));
}
