//! `junit.xml`: the run as test cases, for any CI.
//!
//! One case for each invariant and objective, and two that say whether the harness itself is to be believed.
//! `failure` is what was asserted and did not hold, `error` a fault of the harness, `skipped` what could not be judged.
//! The names of cases are the same in every run, so that a CI can follow one of them over time.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::words::{self, Tone};
use super::{Render, ReportError, format};
use crate::check::{Finding, WitnessLine};
use crate::summary::{SloResult, Summary};

/// The run as a JUnit document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Junit;

impl Render for Junit {
    fn render(&self, summary: &Summary) -> Result<Vec<u8>, ReportError> {
        let mut report = Report::new(format!("seckill {}", format::one_line(&summary.scenario)));
        report.add_test_suite(invariants(summary));
        report.add_test_suite(objectives(summary));
        report.add_test_suite(harness(summary));
        let mut out = Vec::new();
        report.serialize(&mut out)?;
        Ok(out)
    }
}

fn suite(summary: &Summary, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.add_property(("run_id", summary.run_id.as_str()));
    suite.add_property(("seed", summary.seed.to_string().as_str()));
    suite.add_property(("schedule_hash", summary.schedule_hash.as_str()));
    suite
}

fn case(summary: &Summary, suite: &str, name: String, status: TestCaseStatus) -> TestCase {
    let mut case = TestCase::new(name, status);
    case.set_classname(format!("{}.{suite}", format::one_line(&summary.scenario)));
    case
}

/// The status of a case by how it was judged; the message is what a CI shows in its list.
fn status(tone: Tone, kind: &str, message: &str) -> TestCaseStatus {
    match tone {
        Tone::Pass => TestCaseStatus::success(),
        Tone::Fail => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(message).set_type(kind);
            status
        }
        Tone::Unknown => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message);
            status
        }
    }
}

fn invariants(summary: &Summary) -> TestSuite {
    let mut suite = suite(summary, "invariants");
    for finding in &summary.invariants {
        let detail = format::one_line(&finding.detail);
        let mut status = status(finding.verdict.into(), "invariant violated", &detail);
        if Tone::from(finding.verdict) == Tone::Fail {
            status.set_description(witness_text(finding));
        }
        let name = format!("{} {}", format::one_line(&finding.id), format::one_line(&finding.name));
        let mut case = case(summary, "invariants", name, status);
        if Tone::from(finding.verdict) == Tone::Pass {
            case.set_system_out(detail);
        }
        suite.add_test_case(case);
    }
    suite
}

/// The detail and the witness as text.
fn witness_text(finding: &Finding) -> String {
    let mut out = finding.detail.clone();
    if !finding.witness.is_empty() {
        out.push_str("\n\nWitness, in time order (! marks the offending lines):\n");
    }
    for line in &finding.witness {
        out.push_str(&witness_line(line));
        out.push('\n');
    }
    out
}

fn witness_line(line: &WitnessLine) -> String {
    let mark = if line.offending { '!' } else { ' ' };
    let at = line.at_us.map(|us| format!("{} s", format::moment_us(us))).unwrap_or_default();
    let text = format::one_line(&line.text);
    let (source, user) = (format::one_line(&line.source), format::one_line(&line.user));
    format!("{mark} {at:>16}  {source:<7} {user:<12} {text}")
}

fn objectives(summary: &Summary) -> TestSuite {
    let mut suite = suite(summary, "objectives");
    for SloResult { name, met, measured } in &summary.slos {
        let message = format!("measured: {}", format::one_line(measured));
        let mut case = case(
            summary,
            "objectives",
            format::one_line(name),
            status(words::slo_tone(*met), "objective missed", &message),
        );
        if *met == Some(true) {
            case.set_system_out(message);
        }
        suite.add_test_case(case);
    }
    suite
}

fn harness(summary: &Summary) -> TestSuite {
    let mut suite = suite(summary, "harness");
    // A run that was stopped has failed the objective that stopped it.
    let complete = if summary.partial && summary.stopped.is_none() {
        error("partial run", &format!("the run was cut short: {}", format::one_line(&summary.ended)))
    } else {
        TestCaseStatus::success()
    };
    suite.add_test_case(case(summary, "harness", "the run is complete".to_owned(), complete));
    let trusted = match summary.distrust.as_slice() {
        [] => TestCaseStatus::success(),
        [first, ..] => {
            let mut status = error("distrust", &format::one_line(first));
            status.set_description(summary.distrust.join("\n"));
            status
        }
    };
    suite.add_test_case(case(summary, "harness", "the measurement is to be trusted".to_owned(), trusted));
    suite
}

fn error(kind: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(message).set_type(kind);
    status
}
