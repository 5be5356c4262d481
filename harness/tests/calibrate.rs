//! The calibration in short, through the binary: the harness tells the truth, and a calibration that is wrong on purpose is
//! found out. The bounds are for machines that have other things to do; the formulas behind the truth are tested exactly
//! where they stand.

mod support;

use std::process::Output;

use serde_json::Value;
use support::Sandbox;

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

#[test]
fn the_harness_tells_the_truth_and_a_tool_that_is_missing_is_told() {
    let sandbox = Sandbox::new();
    let names = ["--only", "fixed", "--only", "queue", "--only", "goose", "--only", "wrk"];
    let (output, report) = calibrate(&sandbox, &names);

    let truth = |mode, quantile| row(&report, mode, quantile)["truth_us"].as_f64().unwrap();
    assert_eq!((truth("fixed", "p50"), truth("fixed", "max")), (200_000.0, 200_000.0));
    // Each of 2,000 requests waits 0.1 ms longer than the one before.
    assert_eq!(
        (truth("queue", "p50"), truth("queue", "p99"), truth("queue", "max")),
        (101_000.0, 199_000.0, 201_000.0)
    );
    assert!(error(&report, "fixed", "p50").abs() < 0.05, "{report:#}");
    for quantile in ["p50", "p99", "max"] {
        assert!(error(&report, "queue", quantile).abs() < 0.25, "{report:#}");
    }
    let errors = report["rows"].as_array().unwrap().iter().map(|row| row["error"].as_f64().unwrap().abs());
    let max_error = report["max_error"].as_f64().unwrap();
    assert_eq!(max_error, errors.fold(0.0, f64::max));

    let said_by = |tool: &str| {
        let others = row(&report, "fixed", "p50")["others_us"].as_array().unwrap();
        others.iter().find(|other| other["tool"] == tool).unwrap()["us"].as_f64()
    };
    assert!(said_by("goose").is_some_and(|us| us > 150_000.0), "{report:#}");
    assert_eq!((said_by("wrk"), said_by("oha")), (None, None));
    assert_eq!(report["missing"].as_array().unwrap().len(), 1, "oha was not asked for: {report:#}");
    assert!(report["missing"][0]["why"].as_str().unwrap().contains("wrk is not installed (apt-get install wrk)"));

    // A machine that is too busy spoils the short turns; otherwise the missing tool was asked for by name.
    let wanted = if max_error > 0.02 { harness::exit::UNKNOWN } else { harness::exit::NO_STACK };
    assert_eq!(output.status.code(), Some(wanted), "{report:#}");
    let kept = std::fs::read(sandbox.path("reports/calibration/latest.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), report);
    assert_eq!(sandbox.left_behind(), [""; 0]);
}

#[test]
fn a_server_that_is_slower_than_it_says_is_found() {
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "fixed", "--only", "ours", "--mistake", "slow-server"]);
    assert!(error(&report, "fixed", "p50") > 0.09, "{report:#}");
    assert_eq!(output.status.code(), Some(harness::exit::UNKNOWN));
}

#[test]
fn latencies_from_the_actual_start_are_found() {
    let sandbox = Sandbox::new();
    let (output, report) = calibrate(&sandbox, &["--only", "queue", "--only", "ours", "--mistake", "from-send"]);
    // No more than 64 requests are ever under way, of 1.1 ms each; who waits for a connection is not counted.
    assert!(error(&report, "queue", "p99") < -0.4, "{report:#}");
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
