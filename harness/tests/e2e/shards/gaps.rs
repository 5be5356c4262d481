//! What a merged run cannot tell is said, and keeps it from passing.

use std::fs;
use std::path::{Path, PathBuf};

use harness::history::recorder::{RawOp, Recorder};
use harness::history::{
    EntryKind, Event, FinalState, LedgerEntry, LoadTotals, OrderState, Outcome, Role, ShardInfo, audit,
};
use harness::load::slice::Slice;
use harness::merge::merge;
use harness::scenario::{self, Scenario};
use harness::summary::Summary;
use harness::{check::Verdict, judge};

const EPOCH: i64 = 1_800_000_000_000_000;

/// The scenario with enough for everybody.
fn plenty() -> String {
    super::scenario().replace("stock = 80", "stock = 8000").replace("opens_at = \"1s\"", "opens_at = \"0s\"")
}

/// Two shards of a run in which every arrival orders once, and gets what it asked for.
struct Story {
    root: tempfile::TempDir,
    scenario: Scenario,
}

impl Story {
    fn new() -> Story {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("scenario.toml"), plenty()).unwrap();
        let scenario = scenario::load(&root.path().join("scenario.toml"), &[], None).unwrap().scenario;
        Story { root, scenario }
    }

    /// Records the first `upto` arrivals of a shard, whose machine's clock is off by so much.
    fn shard(&self, index: u32, closed: bool, upto: usize, off_us: i64) -> PathBuf {
        let folder = self.root.path().join(format!("shard-{index}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("scenario.toml"), plenty()).unwrap();
        let info = super::recorded::info(&self.scenario, Some(ShardInfo { index, count: 2 }));
        let recorder = Recorder::create(&folder, &info).unwrap();
        let mut sink = recorder.sink();
        let (cohort, step) = (recorder.intern("buyers"), recorder.intern("order"));
        let slice = Slice::new(index, 2).unwrap();
        let planned = slice.of(self.scenario.plan()).count() as u64;
        for arrival in slice.of(self.scenario.plan()).take(upto) {
            let at = arrival.at_us + off_us;
            sink.record(RawOp {
                intent: arrival.n * 16,
                user: arrival.n,
                attempt: 1,
                status: 201,
                role: Role::Order,
                outcome: Outcome::Ok,
                state: OrderState::Held,
                cohort,
                step,
                reason: "",
                order: &format!("o{}", arrival.n),
                ticket: "",
                token: "",
                item: 1,
                quantity: 1,
                amount_cents: 9900,
                intended_us: at,
                invoked_us: at,
                completed_us: at + 2_000,
            });
        }
        drop(sink);
        if closed {
            recorder.event(&Event::LoadTotals(LoadTotals { planned, sent: planned, ..LoadTotals::default() }));
            recorder.close("completed").unwrap();
        } else {
            drop(recorder);
        }
        folder
    }

    /// The leader's audit, with every order in it.
    fn audit(&self, folder: &Path, taken_us: i64) {
        let mut ledger = Vec::new();
        for arrival in self.scenario.plan() {
            ledger.push(LedgerEntry {
                seq: arrival.n as i64 + 1,
                at_unix_us: EPOCH + arrival.at_us + 1_000,
                kind: EntryKind::Reserve,
                order: format!("o{}", arrival.n),
                item: 1,
                user: format!("rr1-u{}", arrival.n),
                quantity: 1,
                amount_cents: Some(9900),
                key: Some(format!("rr1-k{}", arrival.n * 16)),
                state: Some(OrderState::Held),
                reason: None,
                expires_at_unix_us: None,
            });
        }
        let state =
            FinalState { taken_unix_us: EPOCH + taken_us, source: "http".into(), ledger, ..FinalState::default() };
        audit::write_audit(folder, &state).unwrap();
    }

    fn merged(&self, shards: &[PathBuf]) -> Summary {
        let out = self.root.path().join("out");
        merge(shards, &out).unwrap();
        judge::judge_and_report(&out).unwrap()
    }
}

#[track_caller]
fn distrusts(summary: &Summary, text: &str) {
    assert!(summary.distrust.iter().any(|why| why.contains(text)), "no `{text}` in {:#?}", summary.distrust);
    assert_ne!(summary.verdict, Verdict::Pass);
}

const ALL: usize = usize::MAX;
const LONG_AFTER: i64 = 60_000_000;

#[test]
fn a_missing_shard_is_a_gap_and_counts_its_arrivals() {
    let story = Story::new();
    let first = story.shard(1, true, ALL, 0);
    story.audit(&first, LONG_AFTER);
    let summary = story.merged(&[first]);
    let planned = story.scenario.plan().count() as u64;
    let gap = Slice::new(2, 2).unwrap().of(story.scenario.plan()).count();
    distrusts(
        &summary,
        &format!("shard 2 of 2 is missing, and {gap} of its {gap} planned arrivals are not in the history"),
    );
    // Never a silently low run: the whole plan is the measure.
    assert_eq!((summary.load.planned, summary.load.sent), (planned, planned - gap as u64));
    assert_eq!(summary.ended, "shard 2 missing");
    assert!(summary.partial);
    // The missing shard's orders stand in the ledger: nobody is accused of having made them up.
    let phantom = summary.invariants.iter().find(|finding| finding.id == "I3").unwrap();
    assert_eq!(phantom.verdict, Verdict::Unknown, "{}", phantom.detail);
}

#[test]
fn a_missing_leader_leaves_no_audit() {
    let story = Story::new();
    let second = story.shard(2, true, ALL, 0);
    let summary = story.merged(&[second]);
    distrusts(&summary, "shard 1 of 2 is missing");
    assert_eq!(summary.verdict, Verdict::Unknown, "{:#?}", summary.invariants);
}

#[test]
fn a_killed_shard_is_a_gap_as_far_as_its_history_goes() {
    let story = Story::new();
    let shards = [story.shard(1, true, ALL, 0), story.shard(2, false, 10, 0)];
    story.audit(&shards[0], LONG_AFTER);
    let summary = story.merged(&shards);
    let planned = Slice::new(2, 2).unwrap().of(story.scenario.plan()).count();
    let gap = planned - 10;
    distrusts(&summary, &format!("shard 2 of 2 is incomplete (killed), and {gap} of its {planned} planned arrivals"));
    distrusts(&summary, "the harness was killed");
    assert_eq!(summary.ended, "shard 2 killed");
}

#[test]
fn a_shard_alone_proves_nothing() {
    let story = Story::new();
    let first = story.shard(1, true, ALL, 0);
    story.audit(&first, LONG_AFTER);
    let summary = judge::judge_and_report(&first).unwrap();
    distrusts(&summary, "shard 1 of 2 alone: `seckill merge DIR... --out RUN`");
}

#[test]
fn a_shard_that_ends_after_the_audit_is_told() {
    let story = Story::new();
    let shards = [story.shard(1, true, ALL, 0), story.shard(2, true, ALL, 0)];
    story.audit(&shards[0], 6_500_000);
    let summary = story.merged(&shards);
    distrusts(&summary, "shard 2: ");
    distrusts(&summary, "before the leader audits");
}

#[test]
fn a_clock_that_is_off_is_told_and_one_within_epsilon_is_not() {
    for (off_us, told) in [(400_000, Some("ahead of")), (-400_000, Some("behind")), (90_000, None)] {
        let story = Story::new();
        let shards = [story.shard(1, true, ALL, 0), story.shard(2, true, ALL, off_us)];
        story.audit(&shards[0], LONG_AFTER);
        let summary = story.merged(&shards);
        match told {
            Some(way) => distrusts(&summary, &format!("shard 2: the wall clock of its machine is {way} the service's")),
            None => assert!(summary.distrust.iter().all(|why| !why.contains("wall clock")), "{:#?}", summary.distrust),
        }
    }
}
