//! The gate through the real binary: what is worse is named with its place, an invariant comes before any speed, and what a round
//! leaves behind is a run like any other, of which baselines are made.

mod sides;

use crate::support::{Room, Sandbox, files};
use harness::baseline::Baseline;
use harness::baseline::diff::Difference;
use harness::gate::{Decision, Report};

const SMALL: &str = include_str!("gate/small.toml");

fn report(stdout: &str, stderr: &str) -> Report {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"))
}

#[test]
fn one_more_query_is_a_regression_on_its_hop_and_baselines_tell_it_too() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    sandbox.write("small.toml", SMALL);
    let slow = ["--new-set", "target.slow=query=1", "--keep", "--out", "gate", "--output", "json", "--quiet"];
    let ended = sandbox.seckill(&[&["gate", "small.toml"][..], &slow].concat());
    let found = report(&ended.stdout, &ended.stderr);
    assert_eq!((found.decision, found.exit_code, ended.code), (Decision::Regression, 13, Some(13)), "{}", found.reason);
    let calls: Vec<_> = found.findings.iter().filter(|finding| finding.metric == "calls").collect();
    assert_eq!(calls.len(), 1, "{:#?}", found.findings);
    assert_eq!((calls[0].hop.as_deref(), calls[0].resource.as_deref()), (Some("service→postgres"), Some("calls")));
    assert!(calls[0].what.contains("calls more for each order"), "{}", calls[0].what);
    // Both sides had as many turns, and each is a whole run that can be judged again.
    assert_eq!(found.rounds.len(), 2);
    assert!(matches!(sandbox.seckill(&["check", "gate/round-1-new"]).code, Some(0 | 12)));
    // What CI reads is there, and the gate is printed again from its folder.
    let junit = std::fs::read_to_string(sandbox.path("gate/junit.xml")).unwrap();
    assert!(junit.contains("hop service→postgres") && junit.contains("<failure"), "{junit}");
    let again = sandbox.seckill(&["gate", "gate", "--output", "github"]);
    assert_eq!(again.code, Some(13));
    assert!(again.stdout.starts_with("::error title=regression in small"), "{}", again.stdout);

    let saved = sandbox.seckill(&[
        "baseline",
        "save",
        "gate/round-1-old",
        "gate/round-2-old",
        "--name",
        "old",
        "--output",
        "json",
    ]);
    let baseline: Baseline =
        serde_json::from_str(&saved.stdout).unwrap_or_else(|error| panic!("{error}: {}", saved.stderr));
    assert_eq!((baseline.runs.len(), saved.code), (2, Some(0)));
    assert!(sandbox.path("reports/baselines/old.json").exists());
    let figures = &baseline.runs[0];
    assert!(
        figures.committed_orders > 50 && figures.cost_per_1000_orders["postgres"].wal_bytes.is_some(),
        "{figures:?}"
    );
    let taken = sandbox.seckill(&["baseline", "save", "gate/round-1-old", "--name", "old"]);
    assert_eq!(taken.code, Some(2));
    taken.assert_says(&["reports/baselines/old.json", "there is a baseline of this name", "--replace"]);
    let differ = sandbox.seckill(&["baseline", "diff", "old", "gate/round-1-new", "--output", "json"]);
    let difference: Difference =
        serde_json::from_str(&differ.stdout).unwrap_or_else(|error| panic!("{error}: {}", differ.stderr));
    assert!(
        difference.topology.iter().any(|said| said.contains("calls more") && said.contains("service→postgres")),
        "{difference:#?}"
    );
    assert_eq!(sandbox.seckill(&["baseline", "diff", "old", "gate/round-1-new", "--strict"]).code, Some(13));
    assert_eq!(sandbox.seckill(&["baseline", "diff", "old", "gate/round-1-old", "--strict"]).code, Some(0));
    let shown = sandbox.seckill(&["baseline", "show", "old"]);
    assert!(
        shown.stdout.contains("calls_per_journey") && shown.stdout.contains("service→postgres"),
        "{}",
        shown.stdout
    );
    the_pages_commands_do_what_it_says(&sandbox);
    assert_eq!(sandbox.left_behind(), [""; 0]);
}

/// Every command of docs/gate.md, with the small scenario in place of the page's, and the rounds that there are as the runs that it
/// names.
fn the_pages_commands_do_what_it_says(sandbox: &Sandbox) {
    let page = include_str!("../../../docs/gate.md");
    std::fs::create_dir_all(sandbox.path("scenarios")).unwrap();
    sandbox.write("scenarios/gate.toml", SMALL);
    for (round, run) in [("round-1-old", "A"), ("round-2-old", "B"), ("round-2-old", "latest")] {
        for name in files(&sandbox.path(&format!("gate/{round}"))) {
            let to = sandbox.path(&format!("reports/runs/{run}/{name}"));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(sandbox.path(&format!("gate/{round}/{name}")), to).unwrap();
        }
    }
    let mut run = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("target/release/seckill ")) {
        let words = line.split('#').next().unwrap().split_whitespace();
        // Two runs are a baseline as well, and there are no more.
        let words: Vec<&str> = words.filter(|word| *word != "reports/runs/C").collect();
        let ended = sandbox.seckill(&words);
        // A single small run against a baseline of three on a busy machine may be too little to say anything.
        let allowed: &[i32] = if words[0] == "gate" { &[0, 12, 13] } else { &[0] };
        assert!(ended.code.is_some_and(|code| allowed.contains(&code)), "{line}: {:?}\n{}", ended.code, ended.stderr);
        run.push(format!("{} {}", words[0], words.get(1).unwrap_or(&"")));
    }
    assert_eq!(
        run,
        [
            "gate scenarios/gate.toml",
            "gate scenarios/gate.toml",
            "baseline save",
            "gate scenarios/gate.toml",
            "baseline show",
            "baseline diff",
            "trend "
        ],
        "the page has other commands now"
    );
}

#[test]
fn an_oversell_comes_before_any_speed() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("small.toml", SMALL);
    let wrong =
        ["--set", "item.0.stock=20", "--new-set", "target.bug=4", "--out", "gate", "--output", "json", "--quiet"];
    let ended = sandbox.seckill(&[&["gate", "small.toml"][..], &wrong].concat());
    let found = report(&ended.stdout, &ended.stderr);
    assert_eq!((found.decision, ended.code, found.rounds.len()), (Decision::Violated, Some(11), 1), "{}", found.reason);
    assert!(found.reason.contains("the new side violates an invariant"), "{}", found.reason);
    // The evidence stays.
    assert!(sandbox.path("gate/round-1-new/summary.json").exists());
    let unfit = sandbox.seckill(&["baseline", "save", "gate/round-1-new"]);
    assert_eq!(unfit.code, Some(2));
    unfit.assert_says(&["gate/round-1-new", "violates an invariant", "mend the service"]);
}

#[test]
fn mistakes_are_told_before_anything_is_started() {
    let sandbox = Sandbox::new();
    sandbox.write("small.toml", SMALL);
    let says = |arguments: &[&str], words: &[&str]| {
        let ended = sandbox.seckill(&[&["gate", "small.toml"][..], arguments].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.assert_says(words);
    };
    says(&["--old", "nowhere-at-all"], &["--old nowhere-at-all", "git:REV", "image:NAME"]);
    says(&["--baseline", "nowhere"], &["reports/baselines/nowhere.json", "seckill baseline save RUN"]);
    says(&["--new-set", "target.slow=nap=1ms"], &["there is no slow-down", "sleep=3ms", "page-sleep"]);
    says(&["--rounds", "1"], &["gate.rounds", "one provisioning alone convicts nobody"]);
    says(&["--set", "gate.saturated=[\"rush\"]"], &["there is no phase", "rush"]);
    says(&["--set", "gate.effect.us_p99=0"], &["gate: the effect `us_p99` is 0", "0.1 for a tenth"]);
    assert_eq!(sandbox.left_behind(), [""; 0]);
}
