//! Histories for tests, of one step.

use crate::history::{Closed, History, Machine, Names, Op, OrderState, Outcome, Role, RunInfo, Sym};

/// An order that was intended at some time and took so long.
pub fn op(at: i64, us: u64) -> Op {
    Op {
        intent: at as u64,
        user: at as u64,
        attempt: 0,
        status: 201,
        role: Role::Order,
        outcome: Outcome::Ok,
        state: OrderState::Held,
        cohort: Sym(0),
        step: Sym(0),
        reason: Sym(0),
        order: Sym(0),
        ticket: Sym(0),
        token: Sym(0),
        item: 1,
        quantity: 1,
        amount_cents: 0,
        intended_us: at,
        invoked_us: at,
        completed_us: at + us as i64,
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
