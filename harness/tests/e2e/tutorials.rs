//! Every command of the tutorials that no other test runs: what they print, and with which code they end. Where a command would take
//! minutes, the same one is run with a shorter load.

use std::path::{Path, PathBuf};

use crate::support::{Room, Sandbox, skipped};

const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A load that is over soon, and a generator that may be late.
const SHORT: [&str; 6] = [
    "--set",
    "load.duration=\"2s\"",
    "--set",
    "cohort.buyers.arrivals=[{constant={rate=60,from=\"200ms\",lasts=\"1500ms\"}}]",
    "--set",
    "load.send_lag_limit=\"3s\"",
];

/// The commands of a page, without the program's name and what is said of them behind a `#`.
fn commands(page: &str) -> Vec<(Vec<String>, String)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("target/release/seckill "));
    lines
        .map(|line| {
            let (command, comment) = line.split_once(" #").unwrap_or((line, ""));
            (command.split_whitespace().map(str::to_owned).collect(), comment.trim().to_owned())
        })
        .collect()
}

/// Where the pages' commands are run: with the project's scenarios, and with folders of their own.
fn sandbox() -> Option<Sandbox> {
    let program: PathBuf = Path::new(env!("CARGO_BIN_EXE_seckill")).with_file_name("seckill-target");
    if !program.is_file() {
        skipped("there is no seckill-target beside seckill: cargo build --release --workspace");
        return None;
    }
    let sandbox = Sandbox::new();
    for name in ["scenarios", "schemas"] {
        std::os::unix::fs::symlink(Path::new(HOME).join(name), sandbox.path(name)).unwrap();
    }
    Some(sandbox)
}

#[test]
fn the_page_about_the_verdict_says_what_happens() {
    let Some(sandbox) = sandbox() else { return };
    let _room = Room::for_rehearsals(1);
    let page = include_str!("../../../docs/verdict.md");
    let mut codes = Vec::new();
    for (words, comment) in commands(page) {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words[0] == "run" {
            words.extend(["--set", "load.send_lag_limit=\"3s\""]);
        }
        let ended = sandbox.seckill(&words);
        let expected = comment.strip_prefix("exit code ").map_or(0, |code| code.parse().unwrap());
        ended.assert_code(expected);
        codes.push(expected);
    }
    assert_eq!(codes, [0, 0, 11]);
    // The classes of the table are those in force.
    use harness::check::{CHECKS, WithoutBooks};
    let row =
        |start: &str| page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no row {start}"));
    let of = |class: WithoutBooks| {
        CHECKS.iter().map(|check| check.id()).filter(move |id| WithoutBooks::of(id, true) == class)
    };
    for (class, start) in
        [(WithoutBooks::Judged, "| I9"), (WithoutBooks::ConvictedOnly, "| I1 "), (WithoutBooks::NotJudged, "| I2, I3")]
    {
        let cell = row(start).split('|').nth(1).unwrap();
        let named: Vec<&str> = cell
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.starts_with('I') && word[1..].starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        let mut known: Vec<&str> = of(class).collect();
        let mut named = named;
        known.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, known, "{start}");
    }
}

#[test]
fn the_page_about_capacity_measures_what_it_says() {
    let Some(sandbox) = sandbox() else { return };
    let page = include_str!("../../../docs/capacity.md");
    let mut run = Vec::new();
    for (words, _) in commands(page) {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.contains(&"--forecast") || words[0] == "forecast" {
            // The plan itself, from probes that were measured, is the business of the test of forecast.md.
            words.push("--help");
            sandbox.seckill(&words).assert_code(0);
            continue;
        }
        let sweep = words.iter().position(|word| *word == "load.scale=8");
        if let Some(at) = sweep {
            words[at] = "load.scale=2";
        }
        words.extend(SHORT);
        if words[0] == "capacity" && sweep.is_none() {
            words.extend(["--probes", "2", "--from", "0.5", "--to", "4", "--set", "slo=[{p50=\"100ms\"}]"]);
        }
        let _room = Room::for_rehearsals(1);
        let ended = sandbox.seckill(&words);
        assert!(matches!(ended.code, Some(0 | 12)), "{words:?}: {:?}\n{}", ended.code, ended.stderr);
        let says = match (words[0], sweep) {
            ("run", _) => "Invariants",
            (_, Some(_)) => "target.reference.pool",
            _ => "95% interval",
        };
        let printed = ended.stdout.clone() + &ended.stderr;
        assert!(printed.contains(says), "{words:?} does not say {says}\n{printed}");
        run.push(words[0].to_owned());
    }
    assert_eq!(run, ["run", "capacity", "capacity"]);
    sandbox.assert_nothing_left();
}
