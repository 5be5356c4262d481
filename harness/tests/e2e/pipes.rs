//! Output that nobody reads to its end, as after `| head -1`: commands end as if it were read, and a rehearsal goes on.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Room, Sandbox};

const SHORT: &str = include_str!("support/short.toml");

/// Where everything ends up that nobody reads: to write there is an error from the first byte on.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Whatever a command comes to when its stdout is read, it comes to when it is not; and it has nothing to say about that.
#[track_caller]
fn ends_alike(mut command: impl FnMut() -> Command) {
    let read = command().output().unwrap();
    assert!(!read.stdout.is_empty(), "{:?} prints nothing", command());
    let unread = command().stdout(nobody()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&unread.stderr);
    assert_eq!(unread.status.code(), read.status.code(), "{:?}: {said}", command());
    assert!(!said.contains("panicked"), "{:?}: {said}", command());
}

#[test]
fn what_prints_ends_quietly_when_nobody_reads() {
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["faults"],
        &["faults", "latency", "--output", "json"],
        &["schema", "scenario"],
        &["schema", "drill"],
        &["schema", "summary"],
        &["schema", "history"],
        &["completions", "bash"],
        &["man"],
        &["doctor"],
        &["doctor", "--output", "json"],
        &["run", "short.toml", "--dry-run"],
        &["run", "short.toml", "--dry-run", "--output", "json"],
    ] {
        ends_alike(|| sandbox.command(arguments));
    }
    let target = Path::new(env!("CARGO_BIN_EXE_seckill")).with_file_name("seckill-target");
    for arguments in [&["bugs"][..], &["bugs", "--output", "json"], &["catalogue"], &["catalogue", "--output", "json"]]
    {
        ends_alike(|| sandbox.command_of(&target, arguments));
    }
}

#[test]
fn a_rehearsal_that_nobody_listens_to_goes_on_and_is_healed_and_judged() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let run = ["run", "short.toml", "--out", "run"];
    let ended = sandbox.command(&run).env("SECKILL_LOG", "info").stdout(nobody()).stderr(nobody()).status().unwrap();
    assert_eq!(ended.code(), Some(0), "a rehearsal must not end by what it prints");
    sandbox.assert_nothing_left();
    for arguments in [
        &["check", "run"][..],
        &["check", "run", "--output", "json"],
        &["report", "run"],
        &["baseline", "save", "run", "--replace"],
        &["baseline", "show", "short"],
        &["baseline", "show", "short", "--output", "json"],
        &["baseline", "diff", "short", "run"],
        &["trend"],
    ] {
        ends_alike(|| sandbox.command(arguments));
    }
}
