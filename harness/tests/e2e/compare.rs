//! Variants of one scenario, run in turns through the real binary, and what they came to side by side.

use crate::support::{Room, Sandbox};
use harness::check::Verdict;
use harness::compare::Comparison;

const SHORT: &str = include_str!("support/short.toml");

fn with_variants(variants: &str) -> String {
    format!("{SHORT}\n[compare]\nrounds = 1\n{variants}")
}

#[test]
fn variants_are_run_in_turns_and_compared() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    let variants = r#"
order = "order"
beside = ["pay"]
[[variant]]
name = "plain"
title = "as it is"
[[variant]]
name = "wrong"
title = "with a bug"
set = ["target.pool=6", "target.bug=4"]
"#;
    sandbox.write("two.toml", &with_variants(variants));
    let ended = sandbox.seckill(&["run", "two.toml", "--out", "both", "--output", "json"]);
    let comparison: Comparison =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {}", ended.stderr));
    let [plain, wrong] = comparison.variants.as_slice() else { panic!("{comparison:#?}") };
    // The bug decides the exit code, and only its own variant is accused.
    assert_eq!((ended.code, comparison.exit_code), (Some(11), 11));
    assert_eq!((wrong.verdict, plain.violated.len()), (Verdict::Fail, 0), "{comparison:#?}");
    assert!(wrong.violated.contains(&"I1".to_owned()), "{:?}", wrong.violated);
    assert!(plain.orders_per_second.is_some_and(|e| e.median > 0.0 && e.interval[0] <= e.median));
    assert!(plain.order_us_p50.is_some() && plain.order_us_p999.is_none(), "a TP999 of a few hundred orders");
    // Each run is a whole run folder, which can be judged again, and repeats without its siblings.
    let again = sandbox.seckill(&["check", "both/plain-1"]);
    assert!(matches!(again.code, Some(0 | 12)), "{}", again.stderr);
    let resolved = std::fs::read_to_string(sandbox.path("both/wrong-1/scenario.toml")).unwrap();
    assert!(resolved.contains("bug = 4") && !resolved.contains("[[variant]]"), "{resolved}");
    assert!(plain.beside[0].step == "pay" && plain.beside[0].us_p99.is_none(), "a TP99 of a few hundred payments");
    assert!(plain.statements_per_order.is_some_and(|e| e.median > 1.0), "{:?}", plain.statements_per_order);
    let table = std::fs::read_to_string(sandbox.path("both/report.md")).unwrap();
    assert!(table.contains("| plain ") && table.contains("fail: I1") && table.contains("pay TP99"), "{table}");
    let page = std::fs::read_to_string(sandbox.path("both/report.html")).unwrap();
    assert!(page.contains("orders/s") && page.contains("<svg"), "the page has no charts");
    // The reports can be made again, and evidence is not written over.
    std::fs::remove_file(sandbox.path("both/report.html")).unwrap();
    assert_eq!(sandbox.seckill(&["report", "both"]).code, Some(11));
    assert!(sandbox.path("both/report.html").exists());
    let taken = sandbox.seckill(&["run", "two.toml", "--out", "both"]);
    assert_eq!(taken.code, Some(2));
    taken.assert_says(&["is not empty", "--out"]);
    assert_eq!(sandbox.left_behind(), [""; 0]);
}

#[test]
fn a_mistake_in_any_variant_is_told_before_the_first_is_run() {
    let sandbox = Sandbox::new();
    let variants = "[[variant]]\nname = \"fine\"\n[[variant]]\nname = \"odd\"\nset = [\"target.strategy=telepathy\"]\n";
    sandbox.write("odd.toml", &with_variants(variants));
    let ended = sandbox.seckill(&["run", "odd.toml", "--out", "none"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_says(&["there is no strategy \"telepathy\"", "conditional-update", "after --set"]);
    let ended = sandbox.seckill(&["run", "odd.toml", "--variant", "best", "--out", "none"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_says(&["--variant best", "fine, odd"]);
    let builds =
        "[[variant]]\nname = \"new\"\n[[variant]]\nname = \"old\"\nset = [\"target.program=none/seckill-target\"]\n";
    sandbox.write("builds.toml", &with_variants(builds));
    let ended = sandbox.seckill(&["run", "builds.toml", "--out", "none"]);
    assert!(matches!(ended.code, Some(2 | 20)), "{}", ended.stderr);
    ended.assert_says(&["target.program", "none/seckill-target", "cargo build --release -p target-service"]);
    let beside = "beside = [\"nothing\"]\n[[variant]]\nname = \"a\"\n";
    sandbox.write("beside.toml", &with_variants(beside));
    let ended = sandbox.seckill(&["run", "beside.toml", "--out", "none"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_says(&["compare.beside", "there is no step \"nothing\"", "login"]);
    let twice = "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"a\"\n";
    sandbox.write("twice.toml", &with_variants(twice));
    let ended = sandbox.seckill(&["run", "twice.toml", "--out", "none"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    ended.assert_says(&["variant \"a\"", "its own name"]);
    assert!(!sandbox.path("none").exists());
}
