//! Whether the shards fit to the one audit: each ended before it, and has a wall clock that agrees with the service's.
//!
//! A shard anchors its times to the wall clock of its own machine, and the ledger is stamped by the service's. An order was
//! taken between the first request for it and the reply that acknowledged it, so every order bounds the difference of the
//! two clocks. `audit.epsilon` is the difference that the checks allow for; more than that is not to be judged.

use std::collections::HashMap;

use crate::history::{EntryKind, FinalState, History, Micros, Role, RunInfo};
use crate::scenario::Scenario;

/// The leader's audit in times of the run, by the service's clock.
pub struct Stamps {
    /// When it was taken.
    taken_us: Micros,
    /// When each purchase took its stock, by the number of its intent.
    reserved_us: HashMap<u64, Micros>,
}

impl Stamps {
    /// Reads them from the audit of a run.
    pub fn of(audit: &FinalState, info: &RunInfo) -> Stamps {
        let reserves = audit.ledger.iter().filter(|row| row.kind == EntryKind::Reserve);
        let reserved_us = reserves.filter_map(|row| {
            let intent = row.key.as_deref()?.strip_prefix(&info.key_prefix)?.parse().ok()?;
            Some((intent, row.at_unix_us - info.epoch_unix_us))
        });
        Stamps { taken_us: audit.taken_unix_us - info.epoch_unix_us, reserved_us: reserved_us.collect() }
    }

    /// Whether a shard was still at work when nobody should have been any more.
    pub fn too_late(&self, history: &History, scenario: &Scenario) -> Option<String> {
        let rest_us = self.taken_us - scenario.longest_hold().micros();
        let late = history.ops.iter().filter(|op| op.completed_us > rest_us).count();
        let last = history.ops.iter().map(|op| op.completed_us).max()?;
        (late > 0).then(|| {
            format!(
                "{late} of its requests ended up to {:.1} s after {:.1} s, from when nothing new may happen for a hold's \
                 length before the leader audits: what they did may be missing in the ledger; see why they took so long, or \
                 lengthen audit.grace",
                (last - rest_us) as f64 / 1e6,
                rest_us as f64 / 1e6
            )
        })
    }

    /// Whether the wall clock of a shard's machine is provably further from the service's than the checks allow for.
    pub fn clock_off(&self, history: &History, scenario: &Scenario) -> Option<String> {
        let (mut asked, mut acknowledged) = (HashMap::new(), HashMap::new());
        for op in &history.ops {
            if op.role == Role::Order {
                let first = asked.entry(op.intent).or_insert(op.invoked_us);
                *first = op.invoked_us.min(*first);
            }
            if op.acknowledges() {
                let first = acknowledged.entry(op.intent).or_insert(op.completed_us);
                *first = op.completed_us.min(*first);
            }
        }
        // What the service's clock is ahead of the shard's is at least `least` and at most `most`.
        let (mut least, mut most) = (Micros::MIN, Micros::MAX);
        for (intent, stamp) in &self.reserved_us {
            if let (Some(asked), Some(acknowledged)) = (asked.get(intent), acknowledged.get(intent)) {
                least = least.max(stamp - acknowledged);
                most = most.min(stamp - asked);
            }
        }
        let epsilon = scenario.audit.epsilon;
        let (by, way) = if least > epsilon.micros() { (least, "behind") } else { (-most, "ahead of") };
        (by > epsilon.micros()).then(|| {
            format!(
                "the wall clock of its machine is {way} the service's by {} ms at least, and audit.epsilon allows for \
                 {epsilon}: set the clocks right, or raise audit.epsilon",
                by / 1_000
            )
        })
    }
}
