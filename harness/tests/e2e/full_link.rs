//! Rehearsals of the whole link through the real binary: access layer, payment and profiles as processes of their own, each of
//! them broken. What they prove about money rests on the books of the payment dependency.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Room, Sandbox};

const FULL_LINK: &str = include_str!("../../../scenarios/full-link.toml");
const SHORT: &str = include_str!("support/short.toml");

/// How fast a busy machine is, nobody can promise.
const PATIENT: [&str; 3] = ["load.send_lag_limit=5s", "load.patience=10s", "steady_state.within=2s"];

fn summary(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap()
}

fn invariant<'a>(summary: &'a Value, id: &str) -> &'a Value {
    summary["invariants"].as_array().unwrap().iter().find(|found| found["id"] == id).unwrap()
}

/// The books of the payment dependency in a run folder.
fn books(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("payments.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(books: &[Value], kind: &str) -> usize {
    books.iter().filter(|entry| entry["kind"] == kind).count()
}

fn rehearse(sandbox: &Sandbox, scenario: &str, code: i32) -> Value {
    let room = Room::for_rehearsals(2);
    let mut arguments = vec!["run", scenario, "--out", "run", "--quiet"];
    PATIENT.iter().for_each(|set| arguments.extend(["--set", set]));
    let ended = sandbox.seckill(&arguments);
    drop(room);
    ended.assert_code(code);
    sandbox.assert_nothing_left();
    summary(&sandbox.path("run"))
}

/// The short rehearsal with a payment dependency, and this instead of its faults.
fn short_with(faults: &str) -> String {
    let from = SHORT.find("# A fault that takes effect later").unwrap();
    let until = SHORT.find("[steady_state]").unwrap();
    let text = format!("{}{faults}\n{}", &SHORT[..from], &SHORT[until..]);
    text.replace("[target.reference]", "[target.reference]\npayment = true")
}

#[test]
fn the_whole_link_passes_with_each_of_its_parts_broken() {
    let sandbox = Sandbox::new();
    // Objectives are about speed, and this is not.
    let scenario = &FULL_LINK[..FULL_LINK.find("[[slo]]").unwrap()];
    sandbox.write("full-link.toml", scenario);
    let summary = rehearse(&sandbox, "full-link.toml", 0);
    let run = sandbox.path("run");
    for id in ["slow-payment", "silent-profiles", "dead-payment", "dead-access-process", "dead-service", "dead-access"]
    {
        let fault = summary["faults"].as_array().unwrap().iter().find(|fault| fault["id"] == id).unwrap();
        assert!(fault["healed_at_ms"].is_number(), "{fault:#}");
    }
    for (id, what) in [("payment-answers-nonsense", "replies falsified"), ("payment-unavailable", "requests answered")]
    {
        let fault = summary["faults"].as_array().unwrap().iter().find(|fault| fault["id"] == id).unwrap();
        assert!(fault["hit"].as_str().unwrap().contains(what), "{fault:#}");
    }
    let links = summary["links"].to_string();
    for (from, to) in [("client", "access"), ("access", "service"), ("service", "payment"), ("service", "profile")] {
        let link = summary["links"].as_array().unwrap().iter().find(|l| l["from"] == from && l["to"] == to);
        assert!(link.expect(&links)["calls"].as_u64().unwrap() > 0, "{links}");
    }
    let calls = |from: &str| {
        let found = summary["links"].as_array().unwrap().iter().find(|link| link["from"] == from).unwrap();
        found["calls"].as_u64().unwrap()
    };
    assert!(calls("access") < calls("client"), "the access layer answers some of it itself: {links}");
    let money = invariant(&summary, "I7");
    assert_eq!(money["verdict"], "pass", "{money:#}");
    assert!(money["detail"].as_str().unwrap().contains("in the books of the payment dependency"), "{money:#}");
    let books = books(&run);
    assert!(count(&books, "capture") > 100 && count(&books, "decline") > 0, "{} entries", books.len());
    for role in ["payment", "profile", "access-1", "access-2", "service"] {
        assert!(run.join(format!("logs/{role}.log")).exists(), "{role} has a log");
    }

    // The same evidence with one capture more convicts.
    let path = run.join("payments.jsonl");
    let refund = books.iter().position(|entry| entry["kind"] == "refund");
    let mut text = fs::read_to_string(&path).unwrap();
    let audit = run.join("audit.json");
    let audited = fs::read_to_string(&audit).unwrap();
    let rows = |n: usize| format!("\"payment_rows\": {n}");
    let (had, mut has) = (books.len(), books.len() + 1);
    if let Some(refund) = refund {
        // A refund that never happened.
        text = text.lines().enumerate().filter(|(n, _)| *n != refund).map(|(_, line)| format!("{line}\n")).collect();
        has -= 2;
    } else {
        text.push_str(&books[0].to_string().replace("\"kind\":\"decline\"", "\"kind\":\"capture\""));
    }
    fs::write(&path, text).unwrap();
    assert!(audited.contains(&rows(had)), "{}", &audited[..200.min(audited.len())]);
    fs::write(&audit, audited.replace(&rows(had), &rows(has))).unwrap();
    sandbox.seckill(&["check", "run"]).assert_code(11);
}

#[test]
fn a_payment_dependency_that_falls_silent_leaves_no_money_wrong() {
    let sandbox = Sandbox::new();
    // Longer than a hold: some captures are only called off when it is back.
    let silent = "[[fault]]\nid = \"silent-payment\"\nat = \"2s\"\nlasts = \"3s\"\n\
                  inject.black-hole = { link = \"service→payment\" }\n";
    sandbox.write("short.toml", &short_with(silent));
    let summary = rehearse(&sandbox, "short.toml", 0);
    assert_eq!(invariant(&summary, "I7")["verdict"], "pass");
    let unclear = &summary["outcomes"]["info_reasons"];
    assert!(unclear.to_string().contains("payment-unclear"), "{unclear:#}");
    let books = books(&sandbox.path("run"));
    assert!(count(&books, "void") > 0, "captures that never came were called off: {}", books.len());
    assert!(count(&books, "capture") > 0);
}

#[test]
fn a_service_killed_between_capture_and_settling_loses_nothing() {
    let sandbox = Sandbox::new();
    // It dies while the stock is selling out and payments are slow, for longer than a hold lasts: money was taken for orders
    // that have run out when it is back.
    let faults = "[[fault]]\nid = \"slow-payment\"\nat = \"1100ms\"\nlasts = \"4s\"\n\
                  inject.latency = { link = \"service→payment\", delay = \"250ms\" }\n\n\
                  [[fault]]\nid = \"dead-service\"\nat = \"1800ms\"\nlasts = \"1500ms\"\n\
                  inject.kill = { role = \"service\" }\n";
    sandbox.write("short.toml", &short_with(faults));
    let summary = rehearse(&sandbox, "short.toml", 0);
    assert_eq!(invariant(&summary, "I7")["verdict"], "pass");
    let books = books(&sandbox.path("run"));
    assert!(count(&books, "refund") > 0, "somebody's money was under way when the service died: {books:#?}");
}
