//! The reports of realistic, broken, empty and hostile runs.
//!
//! The pages are also written to the build's folder for temporary files, to be looked at in a browser.

mod fixture;

use harness::report::{Html, Junit, Markdown, Render, Terminal};
use harness::summary::Summary;

fn all() -> Vec<(&'static str, Summary)> {
    vec![
        ("pass", fixture::passing()),
        ("fail", fixture::failing()),
        ("unknown", fixture::unknown()),
        ("partial", fixture::partial()),
        ("empty", fixture::empty()),
        ("blast", fixture::blast()),
        ("hostile", fixture::hostile()),
    ]
}

fn text(format: impl Render, summary: &Summary) -> String {
    String::from_utf8(format.render(summary).expect("renders")).expect("is UTF-8")
}

const PLAIN: Terminal = Terminal { color: false, width: 110 };

/// Checks that tags nest and close, and gives the names of all elements.
fn elements(name: &str, html: &str) -> Vec<String> {
    let void = ["meta", "path", "circle", "rect", "line", "polyline", "polygon", "br", "img", "link"];
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let body = html.strip_prefix("<!doctype html>").expect("starts with a doctype");
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').unwrap_or_else(|| panic!("{name}: a tag is never closed: {:.80}", rest));
        let tag = &rest[..end];
        assert!(!tag.contains('<'), "{name}: stray < before {tag:.80}");
        rest = &rest[end + 1..];
        if let Some(closing) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closing), "{name}: </{closing}> closes something else");
            continue;
        }
        let element = tag.split([' ', '\n', '/']).next().unwrap().to_owned();
        seen.push(element.clone());
        if element == "style" || element == "script" {
            let end = format!("</{element}>");
            let close = rest.find(&end).expect("it is closed");
            rest = &rest[close + end.len()..];
        } else if !void.contains(&element.as_str()) {
            open.push(element);
        }
    }
    assert!(open.is_empty(), "{name}: never closed: {open:?}");
    seen
}

#[test]
fn pages_are_well_formed_and_keep_to_themselves() {
    for (name, summary) in all() {
        let html = text(Html, &summary);
        let seen = elements(name, &html);
        assert_eq!(seen.iter().filter(|e| *e == "script").count(), 1, "{name}: only our own script");
        for forbidden in ["img", "link", "iframe", "object", "embed"] {
            assert!(!seen.iter().any(|e| e == forbidden), "{name} has <{forbidden}>");
        }
        for part in html.split('<') {
            let tag = part.split('>').next().unwrap();
            assert!(!tag.contains("http:") && !tag.contains("https:"), "{name} refers outside: {tag:.120}");
        }
        assert!(!html.contains("@import") && !html.contains("url("), "{name} loads something");
        assert!(
            !html.contains("NaN") && !html.contains(">inf") && !html.contains("\"inf"),
            "{name} shows a number that is none"
        );
        assert!(!html.contains('\0'), "{name} has a NUL");
    }
}

#[test]
fn charts_are_drawn_named_and_coloured_by_the_style_sheet() {
    let html = text(Html, &fixture::failing());
    let charts: Vec<_> = html.split("<svg class=\"chart").skip(1).collect();
    // Six charts and two witnesses, each for the wide page and for the phone.
    assert_eq!(charts.len(), 16);
    for chart in charts {
        let head = &chart[..chart.find("</title>").expect("has a title")];
        assert!(head.contains("role=\"img\"") && head.contains("aria-label=\""), "{head}");
        let chart = &chart[..chart.find("</svg>").unwrap()];
        assert!(!chart.contains("\"#"), "a colour was not replaced: {:?}", chart.split("\"#").nth(1).map(|s| &s[..8]));
        assert!(chart.contains("var(--"));
    }
}

#[test]
fn an_empty_run_says_what_is_missing() {
    let html = text(Html, &fixture::empty());
    assert!(!html.contains("<svg class=\"chart"));
    for words in [
        "Partial run",
        "No arrivals were recorded",
        "No latencies were recorded",
        "none were judged",
        "No faults were planned",
    ] {
        assert!(html.contains(words), "{words}");
    }
}

#[test]
fn cohorts_stand_beside_each_other_where_there_are_several() {
    let mut summary = fixture::cohorts();
    for (name, report) in
        [("html", text(Html, &summary)), ("markdown", text(Markdown, &summary)), ("terminal", text(PLAIN, &summary))]
    {
        for words in ["bots · order", "people · order", "5,200", "1,714", "bots 1,711, people 3"] {
            assert!(report.contains(words), "{name} does not say {words}:\n{report}");
        }
    }
    // One cohort is the whole crowd: its steps are the steps.
    summary.latency.cohorts.remove("bots");
    summary.load.retries_suppressed.clear();
    for report in [text(Html, &summary), text(Markdown, &summary), text(PLAIN, &summary)] {
        assert!(!report.contains("people · order") && !report.contains("want of budget"), "{report}");
    }
}

#[test]
fn every_report_says_whom_each_fault_reached() {
    let summary = fixture::blast();
    let html = text(Html, &summary);
    let map = html.split("<svg class=\"chart").find(|chart| chart.contains("Heat map of")).expect("it is drawn");
    let title = &map[map.find("<title>").unwrap()..map.find("</title>").unwrap()];
    assert!(title.contains("4 faults by 3 cohorts"), "{title}");
    assert!(title.contains("lost-replies: flash-buyers (TP99 ×1.9, errors +24.3 pp, goodput ×0.71);"), "{title}");
    assert!(title.contains("nothing-alike: nothing changed"), "{title}");
    // What changed is bold, and coloured by which way.
    assert!(map.contains("var(--worse)") && map.contains("var(--better)") && map.contains("font-weight=\"bold\""));
    assert!(html.contains("12.4 ms → 23.6 ms") && html.contains("×1.9 (95%: ×1.71 to ×2.28)"));
    for (name, report) in [("html", html), ("markdown", text(Markdown, &summary)), ("terminal", text(PLAIN, &summary))]
    {
        let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["+24.3 pp", "×0.71", "too few", "×4.2 ?", "cannot be told apart from", "no recovery was seen"] {
            assert!(report.contains(words), "{name} does not say {words}:\n{report}");
        }
        assert!(!text(Markdown, &fixture::passing()).contains("Blast radius"));
    }
    assert!(!text(PLAIN, &fixture::passing()).contains("Blast radius"));
    assert!(!text(Html, &fixture::passing()).contains("Heat map"));
}

#[test]
fn every_fault_says_when_it_was_injected_healed_and_recovered_from_and_what_it_hit() {
    let summary = fixture::passing();
    for (name, report) in
        [("html", text(Html, &summary)), ("markdown", text(Markdown, &summary)), ("terminal", text(PLAIN, &summary))]
    {
        for words in ["9.00 s", "12.00 s", "12.24 s", "240 ms", "8 connections, 4,112 segments delayed"] {
            assert!(report.contains(words), "{name} does not say {words}:\n{report}");
        }
    }
}

#[test]
fn absent_percentiles_are_explained() {
    let html = text(Html, &fixture::passing());
    assert!(html.contains("not enough samples for TP999 (5,104 of 10,000 needed)"));
    assert!(html.contains("not enough samples for TP99 (812 of 1,000 needed)"));
}

#[test]
fn a_recovery_that_was_never_seen_is_the_slowest() {
    let mut summary = fixture::passing();
    assert!(text(Html, &summary).contains("3 of 3 faults injected, 3 recovered<"));
    summary.faults[1].recovered_at_ms = None;
    summary.faults[1].recovery_ms = None;
    let html = text(Html, &summary);
    assert!(html.contains(">not recovered<") && html.contains("3 of 3 faults injected, 2 recovered within 240 ms<"));
}

#[test]
fn steps_stand_in_the_order_of_the_journey() {
    let summary = fixture::passing();
    let reports = [
        (text(Html, &summary), "<h3>By step</h3>", "<div>"),
        (text(Markdown, &summary), "| step |", "\n| "),
        (text(PLAIN, &summary), "Latency from", "\n  "),
    ];
    for (report, heading, lead) in reports {
        let table = &report[report.find(heading).unwrap()..];
        let places = ["page", "poll", "order", "pay"].map(|step| table.find(&format!("{lead}{step}")).unwrap());
        assert!(places.is_sorted(), "{heading}: {places:?}");
    }
}

#[test]
fn what_failed_stands_before_what_passed() {
    let html = text(Html, &fixture::failing());
    let witness = html.find("id=\"witness-1\"").expect("the witness of I1");
    assert!(witness < html.find("id=\"invariants\"").unwrap());
    assert!(html.contains("row 6031: reserve 1 for order 5331"));
    let markdown = text(Markdown, &fixture::failing());
    assert!(markdown.find("### ❌ I1").unwrap() < markdown.find("### Key figures").unwrap());
}

#[test]
fn a_pull_request_can_hold_the_markdown_of_any_run() {
    for (name, summary) in all() {
        let markdown = text(Markdown, &summary);
        assert!(markdown.len() < 60_000, "{name}: {} bytes", markdown.len());
        assert!(markdown.starts_with("## "), "{name}");
    }
    let hostile = text(Markdown, &fixture::hostile());
    assert!(!hostile.contains("<script") && !hostile.contains("<img") && !hostile.contains("@someone"));
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    for color in [false, true] {
        for width in [0, 100] {
            for (name, summary) in all() {
                let out = text(Terminal { color, width }, &summary);
                let foreign = out.replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[2m", "");
                let foreign = foreign.replace("\x1b[1;31m", "").replace("\x1b[1;32m", "").replace("\x1b[1;33m", "");
                assert!(!foreign.contains(|c: char| c.is_control() && c != '\n'), "{name}");
                assert_eq!(out.contains('\x1b'), color, "{name}");
            }
        }
    }
}

#[test]
fn junit_tells_violations_from_faults_of_the_harness() {
    let fail = text(Junit, &fixture::failing());
    assert_eq!(fail.matches("<failure").count(), 3, "two invariants and one objective");
    assert_eq!(fail.matches("<skipped").count(), 1);
    assert_eq!(fail.matches("<error").count(), 0);
    let unknown = text(Junit, &fixture::unknown());
    assert_eq!(unknown.matches("<error").count(), 1);
    let partial = text(Junit, &fixture::partial());
    assert_eq!(partial.matches("<error").count(), 2);
    for (name, summary) in all() {
        let xml = text(Junit, &summary);
        let cases = summary.invariants.len() + summary.slos.len() + 2;
        assert_eq!(xml.matches("<testcase").count(), cases, "{name}");
        assert!(
            !xml.contains(|c: char| c.is_control() && c != '\n' && c != '\t'),
            "{name}: characters that XML forbids"
        );
    }
}

#[test]
fn a_consistent_run_that_misses_an_objective_is_not_green() {
    let mut summary = fixture::passing();
    summary.exit_code = 10;
    assert!(text(Html, &summary).contains("verdict fail"));
    assert!(text(PLAIN, &summary).starts_with("✗ SLO MISSED"));
}

#[test]
fn long_runs_are_merged_into_few_points() {
    let mut summary = fixture::passing();
    summary.series.planned = vec![40; 36_000];
    summary.series.sent = vec![40; 36_000];
    summary.series.us_max = (0..14_400).map(|i| Some(1_000 + i % 977)).collect();
    let html = text(Html, &summary);
    assert!(html.len() < 1_500_000, "{} bytes", html.len());
    assert!(html.contains("per 4.00 s"));
}

#[test]
fn markdown_reads_well() {
    for (name, summary) in all().into_iter().filter(|(name, _)| *name != "hostile") {
        insta::assert_snapshot!(format!("markdown-{name}"), text(Markdown, &summary));
    }
}

#[test]
fn junit_reads_well() {
    for (name, summary) in all().into_iter().filter(|(name, _)| *name != "hostile") {
        insta::assert_snapshot!(format!("junit-{name}"), text(Junit, &summary));
    }
}

#[test]
fn the_terminal_reads_well() {
    for (name, summary) in all().into_iter().filter(|(name, _)| *name != "hostile") {
        insta::assert_snapshot!(format!("terminal-{name}"), text(PLAIN, &summary));
    }
    insta::assert_snapshot!("terminal-narrow", text(Terminal { color: false, width: 60 }, &fixture::failing()));
    insta::assert_snapshot!("terminal-color", text(Terminal { color: true, width: 110 }, &fixture::failing()));
}

#[test]
fn pages_are_written_to_be_looked_at() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("reports");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, summary) in all() {
        std::fs::write(folder.join(format!("{name}.html")), Html.render(&summary).unwrap()).unwrap();
    }
}
