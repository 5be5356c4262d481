//! One recorded history, split by shard and merged again.

use std::fs;
use std::path::{Path, PathBuf};

use harness::history::recorder::{RawOp, Recorder};
use harness::history::{
    Event, FinalState, History, LoadTotals, Machine, Op, OrderState, Outcome, Role, RunInfo, ShardInfo, audit, reader,
};
use harness::load::arrival::Arrival;
use harness::load::slice::Slice;
use harness::merge::{MergeError, merge};
use harness::scenario::{self, Scenario};
use harness::{judge, measure};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

const EPOCH: i64 = 1_800_000_000_000_000;
const STEPS: [&str; 3] = ["login", "order", "pay"];
const REASONS: [&str; 3] = ["", "sold-out", "timeout"];

pub fn info(scenario: &Scenario, shard: Option<ShardInfo>) -> RunInfo {
    RunInfo {
        run_id: "r1".into(),
        scenario: scenario.name.clone(),
        seed: scenario.seed,
        schedule_hash: scenario.plan().count_and_hash().1,
        timeline_hash: scenario.timeline_hash(),
        epoch_unix_us: EPOCH,
        user_prefix: "rr1-u".into(),
        key_prefix: "rr1-k".into(),
        duration_us: 7_000_000,
        machine: Machine::default(),
        closed: None,
        shard,
        merged: Vec::new(),
    }
}

/// An op of an arrival, before it is recorded.
#[derive(Debug, Clone)]
struct Sketch {
    arrival: u64,
    step: usize,
    reason: usize,
    attempt: u16,
    times: [i64; 3],
    order: Option<u64>,
}

fn any_sketch(arrivals: u64) -> impl Strategy<Value = Sketch> {
    let times = (0_i64..6_000_000, 0_i64..50_000, 0_i64..2_000_000);
    (0..arrivals, 0..STEPS.len(), 0..REASONS.len(), 1_u16..4, times, proptest::option::of(0_u64..60)).prop_map(
        |(arrival, step, reason, attempt, (intended, lag, took), order)| {
            let times = [intended, intended + lag, intended + lag + took];
            Sketch { arrival, step, reason, attempt, times, order }
        },
    )
}

/// A scenario as it is kept in a run folder, with the trace that it names.
fn put_scenario(folder: &Path, text: &str) {
    fs::write(folder.join("scenario.toml"), text).unwrap();
    fs::write(folder.join("trace-1.csv"), "offset_ms\n10\n20\n3000\n3000\n").unwrap();
}

/// Records what a generator with this slice would have recorded of the ops.
fn record(folder: &Path, text: &str, scenario: &Scenario, slice: Option<Slice>, ops: &[Sketch]) {
    fs::create_dir_all(folder).unwrap();
    put_scenario(folder, text);
    let shard = slice.map(|slice| ShardInfo { index: slice.index(), count: slice.count() });
    let recorder = Recorder::create(folder, &info(scenario, shard)).unwrap();
    let slice = slice.unwrap_or(Slice::WHOLE);
    let mut sink = recorder.sink();
    let cohort = recorder.intern("buyers");
    let steps = STEPS.map(|step| recorder.intern(step));
    for op in ops.iter().filter(|op| slice.has_number(op.arrival)) {
        let (role, outcome) = match (op.step, op.reason) {
            (_, 0) => (ROLES[op.step], Outcome::Ok),
            (_, 1) => (ROLES[op.step], Outcome::Fail),
            _ => (ROLES[op.step], Outcome::Info),
        };
        let order = op.order.filter(|_| op.step > 0 && op.reason == 0).map(|n| format!("o{n}")).unwrap_or_default();
        sink.record(RawOp {
            intent: op.arrival * 16,
            user: op.arrival,
            attempt: op.attempt,
            status: [200, 409, 0][op.reason],
            role,
            outcome,
            state: if order.is_empty() { OrderState::Unknown } else { OrderState::Held },
            cohort,
            step: steps[op.step],
            reason: REASONS[op.reason],
            order: &order,
            ticket: "",
            token: "",
            item: 1,
            quantity: i32::from(role == Role::Order),
            amount_cents: -1,
            intended_us: op.times[0],
            invoked_us: op.times[1],
            completed_us: op.times[2],
        });
    }
    drop(sink);
    let planned = slice.of(scenario.plan()).count() as u64;
    recorder.event(&Event::Phase { name: "sale".into(), from_us: 0, until_us: 6_000_000 });
    recorder.event(&Event::LoadTotals(LoadTotals { planned, sent: planned, ..LoadTotals::default() }));
    recorder.close("completed").unwrap();
    if slice.index() == 1 {
        let state = FinalState { taken_unix_us: EPOCH + 60_000_000, source: "http".into(), ..FinalState::default() };
        audit::write_audit(folder, &state).unwrap();
    }
}

const ROLES: [Role; 3] = [Role::Read, Role::Order, Role::Pay];

/// The ops in words, in an order of their own: two histories with the same ones tell the same.
fn ops_of(history: &History) -> Vec<String> {
    let words = |op: &Op| {
        let name = |sym| history.names.get(sym);
        let texts = [op.cohort, op.step, op.reason, op.order, op.ticket, op.token].map(name);
        let numbers = (op.intent, op.user, op.attempt, op.status, op.item, op.quantity, op.amount_cents);
        let times = (op.intended_us, op.invoked_us, op.completed_us);
        format!("{numbers:?} {:?} {:?} {:?} {texts:?} {times:?}", op.role, op.outcome, op.state)
    };
    let mut ops: Vec<String> = history.ops.iter().map(words).collect();
    ops.sort();
    ops
}

/// What is judged and measured from a run folder, but for the note that says how it was recorded.
fn judged(folder: &Path) -> Value {
    let (history, audit) = judge::read(folder).unwrap();
    let mut summary = judge::judge(folder, &history, audit).unwrap();
    summary.notes.clear();
    serde_json::to_value(summary).unwrap()
}

/// The places at which two summaries differ.
fn different(at: &str, one: &Value, other: &Value) -> Vec<String> {
    let inner = |key: &str, value: &Value, twin: Option<&Value>| {
        different(&format!("{at}.{key}"), value, twin.unwrap_or(&Value::Null))
    };
    match (one, other) {
        (Value::Object(fields), Value::Object(twins)) if fields.len() == twins.len() => {
            fields.iter().flat_map(|(key, value)| inner(key, value, twins.get(key))).collect()
        }
        (Value::Array(values), Value::Array(twins)) if values.len() == twins.len() => values
            .iter()
            .zip(twins)
            .enumerate()
            .flat_map(|(n, (value, twin))| inner(&n.to_string(), value, Some(twin)))
            .collect(),
        _ if one == other => Vec::new(),
        _ => vec![format!("{at}: {one} is not {other}")],
    }
}

fn hlog(history: &History) -> String {
    let mut log = Vec::new();
    measure::hlog::write(history, &mut log).unwrap();
    String::from_utf8(log).unwrap()
}

/// A run of one generator and the same by several, side by side in a folder.
struct Recordings {
    root: TempDir,
    scenario: Scenario,
    text: String,
}

impl Recordings {
    fn new() -> Recordings {
        let root = tempfile::tempdir().unwrap();
        let trace = "[[cohort.buyers.arrivals]]\ntrace = { file = \"trace-1.csv\" }\n\n[[phase]]";
        let text = super::scenario().replacen("[[phase]]", trace, 1);
        put_scenario(root.path(), &text);
        let scenario = scenario::load(&root.path().join("scenario.toml"), &[], None).unwrap().scenario;
        Recordings { root, scenario, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn shard(&self, slice: &str, ops: &[Sketch]) -> PathBuf {
        let folder = self.path(&format!("shard-{}", slice.replace('/', "-")));
        record(&folder, &self.text, &self.scenario, Some(slice.parse().unwrap()), ops);
        folder
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shards_merge_to_what_one_generator_would_have_recorded(drawn in proptest::collection::vec(any_sketch(300), 1..200), count in 1_u32..5) {
        let runs = Recordings::new();
        // Every arrival has come, and then some of them do something by chance.
        let comes = |n: Arrival| Sketch { arrival: n.n, step: 0, reason: 0, attempt: 1, times: [n.at_us, n.at_us, n.at_us + 900], order: None };
        let ops: Vec<Sketch> = runs.scenario.plan().map(comes).chain(drawn).collect();
        // No two end at once, since what comes first of two that do is left open.
        let ops: Vec<Sketch> = ops.into_iter().zip(0..).map(|(mut op, n)| {
            op.times[2] = (op.times[2] / 1_000 + 1) * 1_000 + n;
            op
        }).collect();
        let whole = runs.path("whole");
        record(&whole, &runs.text, &runs.scenario, None, &ops);
        // Given in any order.
        let shards: Vec<PathBuf> = (1..=count).rev().map(|index| runs.shard(&format!("{index}/{count}"), &ops)).collect();
        let together = runs.path("together");
        merge(&shards, &together).unwrap();

        let (one, merged) = (reader::read(&whole).unwrap(), reader::read(&together).unwrap());
        prop_assert_eq!(ops_of(&one), ops_of(&merged));
        prop_assert_eq!(hlog(&one), hlog(&merged));
        let planned: u64 = merged.info.merged.iter().map(|shard| shard.planned).sum();
        prop_assert_eq!(planned, runs.scenario.plan().count() as u64);
        let (one, merged) = (judged(&whole), judged(&together));
        let different = different("summary", &one, &merged);
        prop_assert!(different.is_empty(), "{different:#?}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused_with_its_file() {
    let runs = Recordings::new();
    let (first, second) = (runs.shard("1/2", &[]), runs.shard("2/2", &[]));
    let refused = |folders: &[&PathBuf], says: &[&str]| {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| (*folder).clone()).collect();
        let error = merge(&folders, &runs.path("out")).unwrap_err().to_string();
        for text in says {
            assert!(error.contains(text), "no `{text}` in: {error}");
        }
        assert!(!runs.path("out/run.json").exists());
    };
    let altered = |name: &str, file: &str, from: &str, to: &str| {
        let folder = runs.path(name);
        fs::create_dir_all(&folder).unwrap();
        for name in ["run.json", "scenario.toml", "trace-1.csv"] {
            let text = fs::read_to_string(second.join(name)).unwrap();
            assert!(name != file || text.contains(from), "{text}");
            let text = if name == file { text.replacen(from, to, 1) } else { text };
            fs::write(folder.join(name), text).unwrap();
        }
        folder
    };
    let seed = altered("seed", "run.json", "\"seed\": 7", "\"seed\": 8");
    refused(&[&first, &seed], &["shard-1-2/run.json", "seed/run.json", "the seed is 7 in the one and 8 in the other"]);
    let hash = &runs.scenario.plan().count_and_hash().1;
    let plan = altered("plan", "run.json", hash, "0123456789abcdef");
    refused(&[&first, &plan], &["plan/run.json", "the schedule's hash", "0123456789abcdef"]);
    let start = altered("start", "run.json", "1800000000000000", "1800000001000000");
    refused(&[&first, &start], &["start/run.json", "the start", "1800000001000000"]);
    let count = altered("count", "run.json", "\"count\": 2", "\"count\": 3");
    refused(&[&first, &count], &["count/run.json", "the number of shards is 2 in the one and 3 in the other"]);
    let stock = altered("stock", "scenario.toml", "stock = 80", "stock = 81");
    refused(&[&first, &stock], &["stock/scenario.toml:", "`stock = 80` in the one and `stock = 81` in the other"]);
    refused(&[&first, &second, &first], &["both hold shard 1", "give each shard once"]);
    let alone = runs.path("alone");
    record(&alone, &runs.text, &runs.scenario, None, &[]);
    refused(&[&alone], &["alone/run.json", "not a shard", "seckill run --shard"]);
    refused(&[&runs.path("nowhere")], &["nowhere/run.json", "give the folder of a run"]);
    let stranger = Sketch { arrival: 0, step: 0, reason: 0, attempt: 1, times: [0, 0, 1], order: None };
    let odd = runs.path("odd");
    record(&odd, &runs.text, &runs.scenario, Some(Slice::WHOLE), &[stranger]);
    let text = fs::read_to_string(odd.join("run.json")).unwrap();
    let text = text.replace("\"index\": 1", "\"index\": 2").replace("\"count\": 1", "\"count\": 2");
    fs::write(odd.join("run.json"), text).unwrap();
    refused(&[&first, &odd], &["odd", "arrival 0", "not of shard 2/2"]);
    let taken = merge(&[first, second], &alone).unwrap_err();
    assert!(matches!(taken, MergeError::History(_)) && taken.to_string().contains("another run"), "{taken}");
}
