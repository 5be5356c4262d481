//! A gate's result for people and for CI: markdown with the ten worst first, JUnit, and GitHub's annotations.

use std::fmt::Write as _;

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::place::sentence;
use super::{Decision, Judged, Metric, Report, pairs::Measure};
use crate::check::Verdict;
use crate::measure::stats::text_us;
use crate::report::format;

/// Findings that a summary begins with.
const WORST: usize = 10;

/// The result as markdown, which a terminal shows as well.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let sign = match report.decision {
        Decision::Same => "✓",
        Decision::Undecided => "○",
        Decision::Unknown => "?",
        Decision::Violated | Decision::Regression => "✗",
    };
    let _ = writeln!(text, "## {sign} {}: {}\n", report.decision.name(), format::one_line(&report.title));
    let _ = writeln!(text, "{}\n", format::one_line(&report.reason));
    let _ =
        writeln!(text, "- old: {}\n- new: {}", format::one_line(&report.old.name), format::one_line(&report.new.name));
    let used = report.rounds.iter().filter(|round| round.used).count();
    let _ = writeln!(
        text,
        "- {used} rounds of {} at most, turns of {} ms, {:.0} s; exit code {}\n",
        report.rounds_at_most, report.turn_ms, report.took_s, report.exit_code
    );
    if !report.findings.is_empty() {
        let _ = writeln!(text, "### The worst first\n\n| what | where |\n|---|---|");
        for finding in report.findings.iter().take(WORST) {
            let _ = writeln!(text, "| {} | {} |", cell(&finding.what), cell(&finding.r#where));
        }
        if report.findings.len() > WORST {
            let _ = writeln!(text, "\n{} more are in gate.json.", report.findings.len() - WORST);
        }
        text.push('\n');
    }
    text.push_str(&table(report));
    if !report.notices.is_empty() {
        text.push_str("\n### Worth reading\n\n");
        for notice in &report.notices {
            let _ = writeln!(text, "- {}", format::one_line(notice));
        }
    }
    text
}

/// Every metric, those that are worse first.
fn table(report: &Report) -> String {
    let mut text =
        "| metric | of | old | new | worse by | 95% interval | pairs | judged |\n|---|---|--:|--:|--:|---|--:|---|\n"
            .to_owned();
    let mut metrics: Vec<&Metric> = report.metrics.iter().collect();
    let rank = |judged| {
        [Judged::Worse, Judged::Undecided, Judged::Better, Judged::Same, Judged::TooFew]
            .iter()
            .position(|j| *j == judged)
    };
    metrics.sort_by(|a, b| {
        let far = |metric: &Metric| metric.worse_by.unwrap_or(0.0) / metric.effect;
        rank(a.judged).cmp(&rank(b.judged)).then(far(b).total_cmp(&far(a)))
    });
    for metric in metrics {
        let of: Vec<&str> =
            [&metric.step, &metric.role, &metric.phase].into_iter().flatten().map(String::as_str).collect();
        let percent = |share: f64| format!("{:+.1}%", share * 100.0);
        let interval =
            metric.interval.map_or("–".to_owned(), |[low, high]| format!("{} … {}", percent(low), percent(high)));
        let judged = match (metric.judged, &metric.missing) {
            (_, Some(missing)) => missing.as_str(),
            (Judged::Worse, None) => "**worse**",
            (Judged::Same, None) => "not worse",
            (Judged::Better, None) => "better",
            (Judged::Undecided | Judged::TooFew, None) => "open",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {interval} | {} | {} |",
            metric.name,
            cell(&of.join(", ")),
            number(metric, metric.old),
            number(metric, metric.new),
            metric.worse_by.map_or("–".to_owned(), percent),
            metric.pairs,
            cell(judged),
        );
    }
    text
}

fn number(metric: &Metric, value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    match metric.name.as_str() {
        name if name.starts_with("us_") => text_us(value as u64),
        name if name == Measure::Unanswered.name() => format!("{:.2}%", value * 100.0),
        name if name == Measure::Throughput.name() => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A text that does not break the table.
fn cell(text: &str) -> String {
    format::one_line(text).replace('|', "\\|")
}

/// Lines by which GitHub's runner shows the result beside the change: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
pub fn annotations(report: &Report) -> String {
    // What a value and a property may not contain is escaped as the runner's own toolkit does it.
    let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let title = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
    let mut text = String::new();
    let scenario = &report.scenario;
    match report.decision {
        Decision::Regression => {
            for finding in report.findings.iter().take(WORST) {
                let heading = title(&format!("regression in {scenario}: {}", finding.r#where));
                let _ = writeln!(text, "::error title={heading}::{}", escaped(&finding.what));
            }
        }
        Decision::Violated | Decision::Unknown => {
            let level = if report.decision == Decision::Violated { "error" } else { "warning" };
            let heading = title(&format!("{scenario}: {}", report.decision.name()));
            let _ = writeln!(text, "::{level} title={heading}::{}", escaped(&report.reason));
        }
        Decision::Same | Decision::Undecided => {
            let heading = title(&format!("{scenario}: {}", report.decision.name()));
            let _ = writeln!(text, "::notice title={heading}::{}", escaped(&report.reason));
        }
    }
    for notice in report.notices.iter().take(WORST) {
        let _ = writeln!(text, "::notice title={}::{}", title(&format!("{scenario}: worth reading")), escaped(notice));
    }
    text
}

/// The result as a JUnit document: a case for the invariants of either side, one for each metric, one for each counted finding.
pub fn junit(report: &Report) -> Vec<u8> {
    let name = format::one_line(&report.scenario);
    let mut document = Document::new(format!("seckill gate {name}"));
    let failure = |message: &str| {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(format::one_line(message)).set_type("regression");
        status
    };
    let skipped = |message: &str| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(format::one_line(message));
        status
    };
    let mut invariants = TestSuite::new("invariants");
    for (side, of) in [("old", 0), ("new", 1)] {
        let runs = || report.rounds.iter().map(|round| if of == 0 { &round.old } else { &round.new });
        let status = match runs().find(|run| run.verdict == Verdict::Fail) {
            Some(run) => failure(&run.reason),
            None if runs().any(|run| run.verdict == Verdict::Pass) => TestCaseStatus::success(),
            None => skipped("they were not judged"),
        };
        let mut case = TestCase::new(format!("{side} side"), status);
        case.set_classname(format!("{name}.invariants"));
        invariants.add_test_case(case);
    }
    document.add_test_suite(invariants);
    let mut metrics = TestSuite::new("metrics");
    for metric in &report.metrics {
        let status = match metric.judged {
            Judged::Worse => failure(&sentence(metric)),
            Judged::Same | Judged::Better => TestCaseStatus::success(),
            Judged::Undecided => skipped(&format!("neither shown nor excluded: {}", sentence(metric))),
            Judged::TooFew => skipped(metric.missing.as_deref().unwrap_or("too few samples")),
        };
        let of: Vec<&str> =
            [&metric.phase, &metric.step, &metric.role].into_iter().flatten().map(String::as_str).collect();
        let mut case = TestCase::new(format::one_line(&[&of.join(" "), metric.name.as_str()].join(" ")), status);
        case.set_classname(format!("{name}.metrics"));
        metrics.add_test_case(case);
    }
    document.add_test_suite(metrics);
    let mut counted = TestSuite::new("counted");
    let all = report.findings.iter().filter(|finding| finding.step.is_none() && finding.phase.is_none());
    let all: Vec<_> =
        all.filter(|finding| !report.metrics.iter().any(|metric| metric.name == finding.metric)).collect();
    for finding in &all {
        let mut case = TestCase::new(format::one_line(&finding.r#where), failure(&finding.what));
        case.set_classname(format!("{name}.counted"));
        counted.add_test_case(case);
    }
    if all.is_empty() {
        let mut case = TestCase::new("hops, calls, memory and log", TestCaseStatus::success());
        case.set_classname(format!("{name}.counted"));
        counted.add_test_case(case);
    }
    document.add_test_suite(counted);
    let mut bytes = Vec::new();
    // Writing into memory cannot fail but for characters that XML has none for, and those were taken out above.
    let _ = document.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Build, Finding, Round, SideRun, testing};
    use crate::history::Machine;
    use crate::scenario::gate::Effects;

    fn report(decision: Decision, findings: usize) -> Report {
        let finding = |n: usize| Finding {
            what: format!("TP99 of order, number {n}: 23 ms instead of 20 ms (+15.0% worse)"),
            r#where: "step order, hop client→service".into(),
            metric: "us_p99".into(),
            step: Some("order".into()),
            phase: None,
            hop: Some("client→service".into()),
            resource: Some("waiting".into()),
            severity: 1.5,
        };
        let metric = |judged, missing: Option<&str>| Metric {
            phase: None,
            judged,
            missing: missing.map(str::to_owned),
            ..testing::metric()
        };
        let run = |verdict| SideRun {
            folder: "round-1-new".into(),
            verdict,
            exit_code: 0,
            reason: "I1: 3 units too many".into(),
        };
        let new = if decision == Decision::Violated { Verdict::Fail } else { Verdict::Pass };
        Report {
            format: 1,
            scenario: "gate".into(),
            title: "A | gate".into(),
            old: Build { name: "old".into(), set: Vec::new() },
            new: Build { name: "new".into(), set: Vec::new() },
            decision,
            exit_code: 13,
            reason: "100% worse\nthan before".into(),
            findings: (0..findings).map(finding).collect(),
            notices: vec!["a hop vanished".into()],
            metrics: vec![
                metric(Judged::Same, None),
                metric(Judged::TooFew, Some("not enough samples")),
                metric(Judged::Worse, None),
            ],
            rounds: vec![Round { seed: 1, old: run(Verdict::Pass), new: run(new), used: true }],
            rounds_at_most: 8,
            turn_ms: 250.0,
            alpha: 0.01,
            effect: Effects::default(),
            took_s: 30.0,
            machine: Machine::default(),
            seed: 1,
        }
    }

    #[test]
    fn markdown_begins_with_the_ten_worst_and_keeps_its_tables_whole() {
        let text = markdown(&report(Decision::Regression, 12));
        assert_eq!(text.matches("| step order, hop client→service |").count(), 10);
        assert!(
            text.contains("2 more are in gate.json") && text.contains("### Worth reading\n\n- a hop vanished"),
            "{text}"
        );
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| us_p99")).collect();
        assert!(rows[0].contains("**worse**") && rows[2].contains("not enough samples"), "{rows:?}");
        assert!(rows.iter().all(|row| row.matches(" | ").count() == 7));
    }

    #[test]
    fn annotations_are_lines_of_their_own_whatever_is_in_them() {
        let lines = annotations(&report(Decision::Regression, 12));
        assert_eq!(
            lines
                .lines()
                .filter(|line| line.starts_with("::error title=regression in gate%3A step order%2C hop"))
                .count(),
            10
        );
        let violated = annotations(&report(Decision::Violated, 0));
        assert!(
            violated.starts_with("::error title=gate%3A an invariant is violated::100%25 worse%0Athan before\n"),
            "{violated}"
        );
        assert!(annotations(&report(Decision::Same, 0)).starts_with("::notice "));
    }

    #[test]
    fn junit_fails_what_is_worse_and_skips_what_was_not_judged() {
        let of = |decision| String::from_utf8(junit(&report(decision, 1))).unwrap();
        let text = of(Decision::Regression);
        assert!(
            text.contains("tests=\"6\" skipped=\"1\" failures=\"1\"") && text.contains("not enough samples"),
            "{text}"
        );
        assert!(
            text.contains("TP99 of order: 23 ms instead of 20 ms (+15.0% worse, 95% from +10.0% to +20.0%)"),
            "{text}"
        );
        assert!(of(Decision::Violated).contains("I1: 3 units too many"));
    }
}
