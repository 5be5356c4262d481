//! Mechanisms of the reference service that a rehearsal has to tell apart: when stock is deducted, and who is kept from it.

use crate::support::{Room, Sandbox};
use serde_json::Value;

/// Copies of the scenarios that people run.
const DEDUCT_WHEN: &str = include_str!("../../../scenarios/deduct-when.toml");
const ABUSE: &str = include_str!("../../../scenarios/abuse.toml");

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

#[test]
fn the_rules_against_abuse_take_shares_from_who_abuses_and_give_them_to_people() {
    let (open, guarded) = (rehearse(ABUSE, "open"), rehearse(ABUSE, "guarded"));
    let share = |summary: &Value, name: &str, what: &str| cohort(summary, name)[what].as_f64().unwrap();
    for summary in [&open, &guarded] {
        let sum: f64 =
            summary["shares"]["cohorts"].as_array().unwrap().iter().map(|c| c["held_share"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
    assert!(open["shares"]["marks"].as_object().unwrap().is_empty(), "nobody is marked where no rule is on");
    let (hoarded, still) = (share(&open, "hoarders", "held_share"), share(&guarded, "hoarders", "held_share"));
    assert!(still < hoarded, "hoarders held {hoarded} of all, and {still} with the rules on");
    let (bought, still) = (share(&open, "bots", "sold_share"), share(&guarded, "bots", "sold_share"));
    assert!(still < bought, "bots bought {bought} of all, and {still} with the rules on");
    assert!(share(&guarded, "people", "sold_share") > share(&open, "people", "sold_share"));
    let mark = &guarded["shares"]["any_mark"];
    assert!(mark["precision"].as_f64() > Some(0.5) && mark["recall"].as_f64() > Some(0.5), "{mark}");
    let marks = &guarded["shares"]["marks"];
    assert!(marks["risk-refused"]["rightly"].as_u64() > Some(0), "{marks}");
}
