//! The calibration in short, through the binary: the harness tells the truth to within 2% in every mode, and a calibration
//! that is wrong on purpose is found out. On a machine that has other things to do, a figure may be too long by what the
//! command itself says that the machine took; the formulas behind the truth are tested exactly where they stand.

use std::process::Output;

use crate::support::{Room, Sandbox};
use serde_json::Value;

fn calibrate(sandbox: &Sandbox, arguments: &[&str]) -> (Output, Value) {
    let mut command = sandbox.command(&["calibrate", "--seconds", "2", "--output", "json"]);
    // No tool of this machine, so that it is known which are missing.
    let output = command.args(arguments).env("PATH", "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (output, report)
}

fn row<'a>(report: &'a Value, mode: &str, quantile: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["mode"] == mode && row["quantile"] == quantile).unwrap_or_else(|| panic!("{report:#}"))
}

fn error(report: &Value, mode: &str, quantile: &str) -> f64 {
    row(report, mode, quantile)["error"].as_f64().unwrap()
}

/// What is wrong with the harness by this report. Each figure may be off by 2%; where all turns of a mode were spoiled, it may
/// be too long besides by what the machine took, as the command says. A busy machine makes nothing shorter.
fn wrong(report: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in report["rows"].as_array().unwrap() {
        let (truth, Some(ours)) = (row["truth_us"].as_f64().unwrap(), row["ours_us"].as_f64()) else { continue };
        let spoiled = report["spoiled"].as_array().unwrap().iter().filter(|turn| turn["mode"] == row["mode"]);
        let explained = match spoiled.collect::<Vec<_>>()[..] {
            [_, _, last] => last["explains_us"].as_f64().unwrap(),
            _ => 0.0,
        };
        if ours < truth * 0.98 || ours > truth * 1.02 + explained {
            wrong
                .push(format!("{} {}: {ours} instead of {truth}, {explained} explained", row["mode"], row["quantile"]));
        }
    }
    wrong
}

#[test]
fn the_harness_tells_the_truth() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "ours"]);

    let truth = |mode, quantile| row(&report, mode, quantile)["truth_us"].as_f64().unwrap();
    assert_eq!((truth("fixed", "p50"), truth("fixed", "max")), (200_000.0, 200_000.0));
    // Of 2,000 requests, 800 come before a stall of 200 ms, and one in fifty is slow.
    assert_eq!((truth("stall", "p50"), truth("stall", "max")), (20_000.0, 199_500.0));
    assert_eq!((truth("bimodal", "p50"), truth("bimodal", "p99")), (20_000.0, 200_000.0));
    // Each of 2,000 requests waits 0.1 ms longer than the one before.
    assert_eq!(
        (truth("queue", "p50"), truth("queue", "p99"), truth("queue", "max")),
        (101_000.0, 199_000.0, 201_000.0)
    );
    assert_eq!(wrong(&report), [""; 0], "{report:#}");

    let errors = report["rows"].as_array().unwrap().iter().filter_map(|row| row["error"].as_f64());
    let max_error = report["max_error"].as_f64().unwrap();
    assert_eq!(max_error, errors.map(f64::abs).fold(0.0, f64::max));
    // Whether it is trusted is a matter of the error alone, and where it is not, the machine is what is to blame.
    let (code, spoiled) = (output.status.code(), report["spoiled"].as_array().unwrap());
    if max_error <= 0.02 {
        assert_eq!(code, Some(harness::exit::PASS), "{report:#}");
    } else {
        assert_eq!(code, Some(harness::exit::UNKNOWN), "{report:#}");
        assert!(
            spoiled.len() >= 3 && spoiled.iter().all(|turn| !turn["why"].as_str().unwrap().is_empty()),
            "{report:#}"
        );
    }
    // Turns as short as these have too few requests for the highest percentile, and say so.
    let missing = &row(&report, "fixed", "p99.9")["missing"];
    assert_eq!(missing, "not enough samples for TP999 (2,000 of 10,000 needed)");
    assert!(row(&report, "fixed", "p99.9")["ours_us"].is_null());
    assert_eq!(sandbox.left_behind(), [""; 0]);
}

#[test]
fn other_tools_stand_beside_it_and_one_that_is_missing_is_told() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "fixed", "--only", "goose", "--only", "wrk"]);
    let said_by = |tool: &str| {
        let others = row(&report, "fixed", "p50")["others_us"].as_array().unwrap();
        others.iter().find(|other| other["tool"] == tool).unwrap()["us"].as_f64()
    };
    assert!(said_by("goose").is_some_and(|us| us > 150_000.0), "{report:#}");
    assert_eq!((said_by("wrk"), said_by("oha")), (None, None));
    assert_eq!(report["missing"].as_array().unwrap().len(), 1, "oha was not asked for: {report:#}");
    assert!(report["missing"][0]["why"].as_str().unwrap().contains("wrk is not installed (apt-get install wrk)"));

    // A machine that is too busy spoils the short turns; otherwise the missing tool was asked for by name.
    let trusted = report["max_error"].as_f64().unwrap() <= 0.02;
    let wanted = if trusted { harness::exit::NO_STACK } else { harness::exit::UNKNOWN };
    assert_eq!(output.status.code(), Some(wanted), "{report:#}");
    let kept = std::fs::read(sandbox.path("reports/calibration/latest.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), report);
    assert_eq!(sandbox.left_behind(), [""; 0]);
}

#[test]
fn a_server_that_is_slower_than_it_says_is_found() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "fixed", "--only", "ours", "--mistake", "slow-server"]);
    // By 20 ms, which takes a very busy machine to explain.
    assert!(error(&report, "fixed", "p50") > 0.09, "{report:#}");
    let explained = |turn: &Value| turn["explains_us"].as_f64().unwrap() > 15_000.0;
    assert!(!wrong(&report).is_empty() || report["spoiled"].as_array().unwrap().iter().any(explained), "{report:#}");
    assert_eq!(output.status.code(), Some(harness::exit::UNKNOWN));
}

#[test]
fn latencies_from_the_actual_start_are_found() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "queue", "--only", "ours", "--mistake", "from-send"]);
    // No more than 64 requests are ever under way, of 1.1 ms each; who waits for a connection is not counted.
    assert!(error(&report, "queue", "p99") < -0.4, "{report:#}");
    assert!(!wrong(&report).is_empty(), "{report:#}");
    assert_eq!(output.status.code(), Some(harness::exit::UNKNOWN));
}

#[test]
fn mistakes_on_the_command_line_are_told_with_what_is_accepted() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &[&str]); 2] = [
        (&["--seconds", "0"], &["'0'", "--seconds", "1..=100"]),
        (&["--only", "ab"], &["'ab'", "--only", "fixed, stall, bimodal, queue, ours, oha, wrk, goose"]),
    ];
    for (arguments, says) in cases {
        let output = sandbox.command(&["calibrate"]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(harness::exit::USAGE), "{said}");
        assert!(says.iter().all(|word| said.contains(word)), "{said}");
    }
}
