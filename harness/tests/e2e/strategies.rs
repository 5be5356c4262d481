//! Strategies through everything that takes something away, in whole rehearsals: each keeps all that it promises. The complete
//! table is `seckill run scenarios/durable.toml`; here are the two that keep stock in the most places, and the one that remembers the most.

use crate::support::{Room, Sandbox};

const DURABLE: &str = include_str!("../../../scenarios/durable.toml");

/// What a machine that is busy with other things needs.
const PATIENT: [&str; 6] =
    ["--set", "load.send_lag_limit=4s", "--set", "load.patience=5s", "--set", "steady_state.within=3s"];

fn keeps_its_promises(variant: &str) {
    let sandbox = Sandbox::new();
    let _room = Room::for_rehearsals(1);
    sandbox.write("durable.toml", DURABLE);
    // By another program than the one beside the harness, as two builds are compared.
    let beside = std::path::Path::new(env!("CARGO_BIN_EXE_seckill")).with_file_name("seckill-target");
    std::fs::copy(beside, sandbox.path("another-build")).unwrap();
    let program = format!("target.program={}", sandbox.path("another-build").display());
    let run = ["run", "durable.toml", "--variant", variant, "--out", "run", "--set", &program];
    let ended = sandbox.seckill(&[&run, &PATIENT[..]].concat());
    // A machine may be too busy for the run to mean anything, but not for a violation.
    assert!(matches!(ended.code, Some(0 | 12)), "{variant}: {:?}\n{}\n{}", ended.code, ended.stdout, ended.stderr);
    let summary: harness::summary::Summary =
        serde_json::from_str(&std::fs::read_to_string(sandbox.path("run/summary.json")).unwrap()).unwrap();
    assert!(summary.goodput.committed_orders > 0, "{variant}: nothing was sold");
    sandbox.assert_nothing_left();
}

#[test]
fn stock_in_shards_survives_every_loss() {
    keeps_its_promises("shards");
}

#[test]
fn what_is_remembered_survives_every_loss() {
    keeps_its_promises("batch");
}

#[test]
fn stock_in_redis_survives_every_loss() {
    if harness::doctor::find_redis().is_err() {
        crate::support::skipped("there is no redis-server here");
        return;
    }
    keeps_its_promises("redis-lua");
}
