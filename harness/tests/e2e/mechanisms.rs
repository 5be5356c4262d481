//! Mechanisms of the reference service that a rehearsal has to tell apart: when stock is deducted, and who is kept from it.

use std::sync::LazyLock;

use crate::support::{Room, Sandbox};
use serde_json::Value;

/// Copies of the scenarios that people run.
const DEDUCT_WHEN: &str = include_str!("../../../scenarios/deduct-when.toml");
const ABUSE: &str = include_str!("../../../scenarios/abuse.toml");
const TWICE: &str = include_str!("../../../scenarios/twice.toml");
const LAYERS: &str = include_str!("../../../scenarios/layers.toml");

/// Rehearses one variant of a scenario; its summary. A busy machine may leave it unknown, and nothing may convict the service.
fn rehearse(text: &str, variant: &str) -> Value {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", text);
    let ended = sandbox.seckill(&["run", "scenario.toml", "--variant", variant, "--out", "run", "--output", "json"]);
    assert!(matches!(ended.code, Some(0 | 12)), "{variant}: {}\n{}", ended.stdout, ended.stderr);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let wrong: Vec<&Value> =
        summary["invariants"].as_array().unwrap().iter().filter(|i| i["verdict"] == "fail").collect();
    assert!(wrong.is_empty(), "{variant}: {wrong:#?}");
    let report = std::fs::read_to_string(sandbox.path("run/report.md")).unwrap();
    assert_eq!(report.contains("Who got what"), summary["shares"].is_object(), "{report}");
    sandbox.assert_nothing_left();
    summary
}

fn told(summary: &Value, step: &str, how: &str) -> u64 {
    summary["outcomes"]["steps"][step][how].as_u64().unwrap_or(0)
}

/// Buyers who had an order and were told at payment that it is sold out, units sold, and units held for nobody at the end.
fn came_to(summary: &Value) -> (u64, u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap();
    let goods = &summary["goodput"];
    (number(&summary["outcomes"]["sold_out_at_payment"]), number(&goods["units_sold"]), number(&goods["units_held"]))
}

const STOCK: u64 = 120;

#[test]
fn deducted_at_order_the_stock_is_locked_by_who_never_pays() {
    let summary = rehearse(DEDUCT_WHEN, "at-order");
    let (told_at_payment, sold, held) = came_to(&summary);
    assert_eq!(told_at_payment, 0);
    // A unit that came back from a late payment may have found nobody who still wanted it.
    assert!(held > 0 && sold < STOCK && sold + held > STOCK - 5, "{sold} sold, {held} held");
    assert!(told(&summary, "order", "fail:sold-out") > 0);
}

#[test]
fn deducted_at_payment_buyers_with_an_order_are_told_that_it_is_sold_out() {
    let summary = rehearse(DEDUCT_WHEN, "at-payment");
    let (told_at_payment, sold, held) = came_to(&summary);
    assert!(told_at_payment > 0, "{:#}", summary["outcomes"]);
    assert_eq!((sold, held), (STOCK, 0));
}

#[test]
fn held_for_a_time_stock_goes_on_to_who_pays_and_the_race_at_the_end_is_run() {
    let summary = rehearse(DEDUCT_WHEN, "hold");
    let (told_at_payment, sold, held) = came_to(&summary);
    assert_eq!((told_at_payment, held), (0, 0));
    assert!(sold > 0 && summary["goodput"]["released_orders"].as_u64() > Some(0));
    let (paid, late) = (told(&summary, "pay", "ok"), told(&summary, "pay", "fail:hold-expired"));
    assert!(paid > 0 && late > 0, "{paid} paid, {late} came too late");
    assert!(told(&summary, "pay", "fail:payment-declined") > 0);
}

fn cohort<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let cohorts = summary["shares"]["cohorts"].as_array().unwrap();
    cohorts.iter().find(|cohort| cohort["cohort"] == name).unwrap()
}

/// A figure of a cohort.
fn share(summary: &Value, name: &str, what: &str) -> f64 {
    cohort(summary, name)[what].as_f64().unwrap()
}

fn invariant<'a>(summary: &'a Value, id: &str) -> &'a Value {
    summary["invariants"].as_array().unwrap().iter().find(|found| found["id"] == id).unwrap()
}

/// Without any rule: what each rule on its own is held against.
static OPEN: LazyLock<Value> = LazyLock::new(|| {
    let open = rehearse(ABUSE, "open");
    assert!(open["shares"]["marks"].as_object().unwrap().is_empty(), "nobody is marked where no rule is on");
    assert_eq!(told(&open, "order", "fail:limit-reached"), 0, "there is no cap");
    open
});

/// Rehearses a rule and holds it against the open variant: what a cohort has of something is less with it. Its summary.
#[track_caller]
fn takes_from(variant: &str, name: &str, what: &str) -> Value {
    let guarded = rehearse(ABUSE, variant);
    let sum: f64 =
        guarded["shares"]["cohorts"].as_array().unwrap().iter().map(|c| c["held_share"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    let (without, with) = (share(&OPEN, name, what), share(&guarded, name, what));
    assert!(with < without, "{variant}: {what} of the {name} was {without}, and is {with} with the rule");
    guarded
}

/// How many of those whom a rule refused deserved it.
fn rightly(summary: &Value, mark: &str) -> u64 {
    summary["shares"]["marks"][mark]["rightly"].as_u64().unwrap_or(0)
}

#[test]
fn a_cap_bounds_what_one_account_has_at_once() {
    let capped = takes_from("capped", "resellers", "sold_share");
    assert!(told(&capped, "order", "fail:limit-reached") > 0);
    let most = |summary: &Value| invariant(summary, "I6")["detail"].as_str().unwrap().to_owned();
    assert!(most(&capped).contains("more than 3 units at once"), "{}", most(&capped));
    assert!(!most(&OPEN).contains("more than 3 units at once"), "{}", most(&OPEN));
}

/// The cap that a scenario promises and the service does not keep is a violation.
#[test]
fn a_promised_cap_that_is_switched_off_is_convicted() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", ABUSE);
    let off = ["--variant", "capped", "--set", "target.switches.C6=off"];
    let ended = sandbox.seckill(&[&["run", "scenario.toml", "--out", "run", "--output", "json"], &off[..]].concat());
    ended.assert_code(11);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(invariant(&summary, "I6")["verdict"], "fail", "{:#}", summary["invariants"]);
}

#[test]
fn who_left_orders_unpaid_holds_less_when_he_is_tagged() {
    let tagged = takes_from("tagged", "hoarders", "held_unit_s");
    assert!(rightly(&tagged, "non-payer") > 0, "{:#}", tagged["shares"]);
}

#[test]
fn who_left_an_order_unpaid_holds_less_with_a_pause() {
    let paused = takes_from("cool-down", "hoarders", "held_unit_s");
    assert!(rightly(&paused, "cooling-down") > 0, "{:#}", paused["shares"]);
}

#[test]
fn who_behaves_like_a_machine_buys_less() {
    let risky = takes_from("risk", "bots", "sold_share");
    assert!(rightly(&risky, "risk-refused") > 0, "{:#}", risky["shares"]);
}

#[test]
fn all_rules_together_give_to_people_what_they_take_from_who_abuses() {
    let guarded = takes_from("guarded", "hoarders", "held_unit_s");
    assert!(share(&guarded, "bots", "sold_share") < share(&OPEN, "bots", "sold_share"));
    assert!(share(&guarded, "people", "sold_share") > share(&OPEN, "people", "sold_share"));
    let mark = &guarded["shares"]["any_mark"];
    assert!(mark["precision"].as_f64() > Some(0.5) && mark["recall"].as_f64() > Some(0.5), "{mark}");
}

/// R6: each kind of request comes twice, at the same time and long after, and nothing comes of it.
#[test]
fn every_request_sent_twice_is_one_session_one_order_one_payment_and_one_release() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    sandbox.write("twice.toml", TWICE);
    let patient = ["--set", "load.patience=10s", "--set", "load.send_lag_limit=5s", "--set", "steady_state.within=2s"];
    let ended = sandbox.seckill(&[&["run", "twice.toml", "--out", "run", "--output", "json"], &patient[..]].concat());
    ended.assert_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    for kind in ["login", "order", "pay", "cancel", "capture"] {
        for when in ["at-once", "late"] {
            let id = format!("{kind}-{when}");
            let faults = summary["faults"].as_array().unwrap();
            let hit = faults.iter().find(|fault| fault["id"] == *id).unwrap()["hit"].as_str().unwrap_or_default();
            assert!(hit.contains("requests delivered twice"), "{id} hit {hit:?}");
        }
    }
    for id in ["I1", "I3", "I4", "I6", "I7", "I8"] {
        assert_eq!(invariant(&summary, id)["verdict"], "pass", "{:#}", invariant(&summary, id));
    }
    for step in ["login", "order", "pay", "cancel"] {
        assert!(told(&summary, step, "ok") > 0, "{step}: {:#}", summary["outcomes"]["steps"]);
    }
    sandbox.assert_nothing_left();
}

/// V4: nobody has a page, and with the checks of both upper layers off the data layer oversells nothing. With them on, the same buyers
/// are turned away earlier.
#[test]
fn without_the_checks_of_the_upper_layers_nothing_is_oversold() {
    let (bare, guarded) = (rehearse(LAYERS, "bare"), rehearse(LAYERS, "guarded"));
    for summary in [&bare, &guarded] {
        assert_eq!(invariant(summary, "I1")["verdict"], "pass", "{:#}", invariant(summary, "I1"));
        assert!(told(summary, "order-unknown", "fail:unauthorized") > 0);
        assert!(told(summary, "order-absurd", "fail:bad-request") > 0);
        assert!(told(summary, "order", "fail:too-early") > 0 && told(summary, "order", "fail:sold-out") > 0);
    }
    let often = |summary: &Value| told(summary, "order", "fail:quota-exceeded");
    assert!(often(&guarded) > 0 && often(&bare) == 0, "{} and {}", often(&guarded), often(&bare));
}
