//! Histories for tests, of one step.

use super::{Judged, Metric};
use crate::history::reader::BLANK;
use crate::history::{Closed, History, Machine, Names, Op, OrderState, Role, RunInfo};

/// An order that was intended at some time and took so long.
pub fn op(at: i64, us: u64) -> Op {
    Op {
        intent: at as u64,
        user: at as u64,
        status: 201,
        role: Role::Order,
        state: OrderState::Held,
        item: 1,
        quantity: 1,
        intended_us: at,
        invoked_us: at,
        completed_us: at + us as i64,
        ..BLANK
    }
}

/// A history of these ops, all of one step.
pub fn history(step: &str, mut ops: Vec<Op>) -> History {
    let mut names = Names::default();
    let (cohort, step) = (names.intern("buyers"), names.intern(step));
    for op in &mut ops {
        (op.cohort, op.step) = (cohort, step);
    }
    let closed = Closed { how: "completed".into(), ops: ops.len() as u64, ops_lost: 0, events: None };
    let info = RunInfo {
        run_id: "test".into(),
        scenario: "test".into(),
        seed: 1,
        schedule_hash: String::new(),
        timeline_hash: String::new(),
        epoch_unix_us: 0,
        user_prefix: String::new(),
        key_prefix: String::new(),
        duration_us: 4_000_000,
        machine: Machine::default(),
        closed: Some(closed),
        shard: None,
        merged: Vec::new(),
    };
    History { info, ops, events: Vec::new(), names, damage: Vec::new() }
}

/// TP99 of orders in the rush, worse by 15%.
pub fn metric() -> Metric {
    Metric {
        name: "us_p99".into(),
        phase: Some("rush".into()),
        step: Some("order".into()),
        role: None,
        old: Some(20_000.0),
        new: Some(23_000.0),
        worse_by: Some(0.15),
        interval: Some([0.1, 0.2]),
        pairs: 30,
        samples: 9_000,
        effect: 0.1,
        log10_evidence: 9.0,
        judged: Judged::Worse,
        missing: None,
    }
}
