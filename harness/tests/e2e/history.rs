//! The recorder and the reader against each other, and against everything that can happen to files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::history::audit::{read_audit, write_audit};
use harness::history::reader::read;
use harness::history::recorder::{NameId, OpSink, RawOp, Recorder, RecorderOptions};
use harness::history::{
    Event, FinalState, History, HistoryError, LedgerEntry, LinkCalls, LoadTotals, Machine, OrderState, Outcome,
    PaymentEntry, PaymentKind, Role, RoleCost, RunInfo, StockRow,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn info() -> RunInfo {
    RunInfo {
        run_id: "r1".into(),
        scenario: "spike".into(),
        seed: 7,
        schedule_hash: "abc".into(),
        timeline_hash: "def".into(),
        epoch_unix_us: 1_700_000_000_000_000,
        user_prefix: "u".into(),
        key_prefix: "k".into(),
        duration_us: 10_000_000,
        machine: Machine::default(),
        closed: None,
        shard: None,
        merged: Vec::new(),
    }
}

/// An op with texts in place of symbols.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TextOp {
    times: (i64, i64, i64),
    ids: (u64, u64, u16, u16),
    meaning: (usize, usize, usize),
    names: [String; 6],
    units: (i64, i32, i64),
}

impl TextOp {
    fn record(&self, sink: &mut OpSink) {
        let cohort = sink.intern(&self.names[0]);
        let step = sink.intern(&self.names[1]);
        sink.record(RawOp {
            intent: self.ids.0,
            user: self.ids.1,
            attempt: self.ids.2,
            status: self.ids.3,
            role: Role::ALL[self.meaning.0],
            outcome: Outcome::ALL[self.meaning.1],
            state: OrderState::ALL[self.meaning.2],
            cohort,
            step,
            reason: &self.names[2],
            order: &self.names[3],
            ticket: &self.names[4],
            token: &self.names[5],
            item: self.units.0,
            quantity: self.units.1,
            amount_cents: self.units.2,
            intended_us: self.times.0,
            invoked_us: self.times.1,
            completed_us: self.times.2,
        });
    }
}

fn texts(history: &History) -> Vec<TextOp> {
    let name = |sym| history.names.get(sym).to_string();
    let text = |op: &harness::history::Op| TextOp {
        times: (op.intended_us, op.invoked_us, op.completed_us),
        ids: (op.intent, op.user, op.attempt, op.status),
        meaning: (op.role as usize, op.outcome as usize, op.state as usize),
        names: [op.cohort, op.step, op.reason, op.order, op.ticket, op.token].map(name),
        units: (op.item, op.quantity, op.amount_cents),
    };
    history.ops.iter().map(text).collect()
}

fn any_op() -> impl Strategy<Value = TextOp> {
    (
        (any::<i64>(), any::<i64>(), any::<i64>()),
        (any::<u64>(), any::<u64>(), any::<u16>(), any::<u16>()),
        (0..Role::ALL.len(), 0..Outcome::ALL.len(), 0..OrderState::ALL.len()),
        ("[a-c]{0,2}", "[a-c]{0,2}", "(sold-out|timeout|)", "\\PC{0,40}", "(t[0-9]|)", "(|\\PC{0,200})"),
        (any::<i64>(), any::<i32>(), any::<i64>()),
    )
        .prop_map(|(times, ids, meaning, names, units)| TextOp { times, ids, meaning, names: names.into(), units })
}

fn plain_op(sink: &OpSink, n: u64) -> RawOp<'static> {
    let at = n as i64 * 10;
    RawOp {
        intent: n,
        user: n,
        attempt: 1,
        status: 200,
        role: Role::Read,
        outcome: Outcome::Ok,
        state: OrderState::Unknown,
        cohort: sink.intern("fans"),
        step: sink.intern("page"),
        reason: "",
        order: "",
        ticket: "",
        token: "",
        item: 1,
        quantity: 0,
        amount_cents: -1,
        intended_us: at,
        invoked_us: at + 30,
        completed_us: at + 900,
    }
}

/// Records `ops` plain ops in parts of 100 and closes the history.
fn record_plain(dir: &Path, ops: u64) {
    let options = RecorderOptions { part_ops: 100, batch_ops: 10, ..RecorderOptions::default() };
    let recorder = Recorder::with_options(dir, &info(), options).unwrap();
    let mut sink = recorder.sink();
    for n in 0..ops {
        let op = plain_op(&sink, n);
        sink.record(op);
    }
    drop(sink);
    let closed = recorder.close("completed").unwrap();
    assert_eq!((closed.ops, closed.ops_lost), (ops, 0));
}

fn part(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("history/ops-{number:05}.parquet"))
}

#[test]
fn a_history_from_before_there_were_tickets_is_read() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 1);
    fs::write(part(dir.path(), 1), include_bytes!("golden/ops-without-tickets.parquet")).unwrap();
    let history = read(dir.path()).unwrap();
    // What is wrong is only that run.json counts another number of ops.
    assert_eq!(history.damage.len(), 1, "{:?}", history.damage);
    assert!(history.damage[0].contains("counts 1 ops"), "{:?}", history.damage);
    assert!(!history.ops.is_empty() && history.ops.iter().any(|op| op.role == Role::Read && op.status == 200));
    assert!(
        history.ops.iter().all(|op| history.names.get(op.ticket).is_empty() && history.names.get(op.token).is_empty())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_was_recorded_is_read_back(ops in proptest::collection::vec(any_op(), 0..300), sinks in 1_usize..4) {
        let dir = TempDir::new().unwrap();
        let options = RecorderOptions { batch_ops: 16, part_ops: 100, ..RecorderOptions::default() };
        let recorder = Recorder::with_options(dir.path(), &info(), options).unwrap();
        let mut open: Vec<OpSink> = (0..sinks).map(|_| recorder.sink()).collect();
        for (n, op) in ops.iter().enumerate() {
            op.record(&mut open[n % sinks]);
            if n % 50 == 0 {
                open[n % sinks].flush();
            }
        }
        drop(open);
        let closed = recorder.close("completed").unwrap();
        prop_assert_eq!((closed.ops, closed.ops_lost), (ops.len() as u64, 0));
        let history = read(dir.path()).unwrap();
        prop_assert_eq!(&history.damage, &Vec::<String>::new());
        prop_assert_eq!(history.info.closed.clone(), Some(closed));
        let (mut read_back, mut expected) = (texts(&history), ops);
        read_back.sort();
        expected.sort();
        prop_assert_eq!(read_back, expected);
    }
}

#[test]
fn ops_are_ordered_by_completion_within_a_part() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let (mut a, mut b) = (recorder.sink(), recorder.sink());
    for n in 0..5_000 {
        let op = plain_op(&a, n);
        if n % 2 == 0 { a.record(op) } else { b.record(op) }
    }
    drop((a, b));
    recorder.close("completed").unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!(history.ops.len(), 5_000);
    assert!(history.ops.is_sorted_by_key(|op| op.completed_us));
}

#[test]
fn events_come_back_in_order() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let events = vec![
        Event::Phase { name: "base".into(), from_us: 0, until_us: 5 },
        Event::Note { at_us: 3, text: "line\nbreak".into() },
        Event::LoadTotals(LoadTotals { planned: 3, ..LoadTotals::default() }),
        Event::Cost(vec![RoleCost { role: "service".into(), cpu_s: 1.5, ..RoleCost::default() }]),
        Event::Links(vec![LinkCalls { from: "service".into(), to: "postgres".into(), ..LinkCalls::default() }]),
    ];
    let sink = recorder.events();
    events.iter().for_each(|event| sink.event(event));
    recorder.close("completed").unwrap();
    assert_eq!(read(dir.path()).unwrap().events, events);
}

#[test]
fn a_folder_with_a_run_is_not_written_over() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 10);
    let error = Recorder::create(dir.path(), &info()).unwrap_err();
    assert!(matches!(error, HistoryError::Occupied { .. }));
    assert!(error.to_string().contains("--out"), "{error}");
}

#[test]
fn a_folder_without_a_run_is_an_error_that_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("run.json") && error.contains("give the folder of a run"), "{error}");
    fs::write(dir.path().join("run.json"), "{").unwrap();
    assert!(matches!(read(dir.path()).unwrap_err(), HistoryError::NotARun { .. }));
}

#[test]
fn a_killed_harness_leaves_a_readable_history() {
    let dir = TempDir::new().unwrap();
    let options = RecorderOptions { part_every: Duration::from_millis(20), ..RecorderOptions::default() };
    let recorder = Recorder::with_options(dir.path(), &info(), options).unwrap();
    let mut sink = recorder.sink();
    for n in 0..100 {
        let op = plain_op(&sink, n);
        sink.record(op);
    }
    sink.flush();
    wait_for(|| recorder.health().ops_written() == 100);
    fs::write(dir.path().join("history/ops-00002.parquet.partial"), b"PAR1 begun").unwrap();
    fs::write(dir.path().join("events.jsonl"), "{\"event\":\"note\",\"at_us\":1,\"text\":\"a\"}\n{\"event\":\"no")
        .unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!((history.ops.len(), history.events.len()), (100, 1));
    let damage = history.damage.join("\n");
    assert!(damage.contains("ops-00002.parquet.partial was never finished"), "{damage}");
    assert!(damage.contains("events.jsonl, line 2"), "{damage}");
    assert!(damage.contains("does not say that the history was closed"), "{damage}");
}

fn wait_for(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "the writer did not come to it within 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_recorder_that_is_dropped_saves_what_it_has() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let mut sink = recorder.sink();
    let op = plain_op(&sink, 1);
    sink.record(op);
    drop(sink);
    drop(recorder);
    let history = read(dir.path()).unwrap();
    assert_eq!(history.ops.len(), 1);
    assert_eq!(history.damage.len(), 1, "{:?}", history.damage);
}

#[test]
fn a_truncated_part_is_damage_and_the_rest_is_read() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 300);
    let bytes = fs::read(part(dir.path(), 2)).unwrap();
    for len in [0, 3, 11, bytes.len() / 2, bytes.len() - 1] {
        fs::write(part(dir.path(), 2), &bytes[..len]).unwrap();
        let history = read(dir.path()).unwrap();
        assert_eq!(history.ops.len(), 200);
        assert!(history.damage[0].contains("history/ops-00002.parquet cannot be used"), "{:?}", history.damage);
        assert!(history.damage[1].contains("counts 300 ops where 200 could be read"), "{:?}", history.damage);
    }
}

#[test]
fn a_flipped_bit_is_damage() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 200);
    let bytes = fs::read(part(dir.path(), 1)).unwrap();
    for at in (0..bytes.len()).step_by(17) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(part(dir.path(), 1), &flipped).unwrap();
        let history = read(dir.path()).unwrap();
        assert_eq!(history.ops.len(), 100, "byte {at}");
        assert_eq!(history.damage.len(), 2, "{:?}", history.damage);
    }
}

#[test]
fn a_missing_middle_part_is_damage() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 500);
    fs::remove_file(part(dir.path(), 2)).unwrap();
    fs::remove_file(part(dir.path(), 3)).unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!(history.ops.len(), 300);
    assert_eq!(history.damage[0], "history/ops-00002.parquet to ops-00003.parquet are missing");
}

#[test]
fn a_missing_last_part_is_damage_by_the_count() {
    let dir = TempDir::new().unwrap();
    record_plain(dir.path(), 300);
    fs::remove_file(part(dir.path(), 3)).unwrap();
    assert_eq!(read(dir.path()).unwrap().damage, ["run.json counts 300 ops where 200 could be read"]);
    fs::remove_dir_all(dir.path().join("history")).unwrap();
    fs::remove_file(dir.path().join("events.jsonl")).unwrap();
    let history = read(dir.path()).unwrap();
    assert!(history.ops.is_empty());
    assert_eq!(history.damage.len(), 3, "{:?}", history.damage);
}

#[test]
fn missing_events_are_damage_by_the_count() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    for n in 0..3 {
        recorder.event(&Event::Note { at_us: n, text: "something".into() });
    }
    recorder.close("completed").unwrap();
    assert_eq!(read(dir.path()).unwrap().damage, Vec::<String>::new());
    let path = dir.path().join("events.jsonl");
    let events = fs::read_to_string(&path).unwrap();
    let without_the_last: String = events.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&path, without_the_last).unwrap();
    assert_eq!(read(dir.path()).unwrap().damage, ["run.json counts 3 events where 2 could be read"]);
}

/// Writing to `/dev/full` fails as writing to a full disk does, and needs no privilege.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_at_once_and_later_parts_are_kept() {
    let dir = TempDir::new().unwrap();
    let options = RecorderOptions { part_every: Duration::from_millis(5), ..RecorderOptions::default() };
    let recorder = Recorder::with_options(dir.path(), &info(), options).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("history/ops-00001.parquet.partial")).unwrap();
    let mut sink = recorder.sink();
    let health = recorder.health();
    for n in 0..100 {
        let op = plain_op(&sink, n);
        sink.record(op);
    }
    sink.flush();
    wait_for(|| health.error().is_some());
    let error = health.error().unwrap();
    assert!(error.contains("ops-00001.parquet.partial") && error.contains("free space"), "{error}");
    assert_eq!(health.ops_lost(), 100);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(health.failed());

    let op = plain_op(&sink, 100);
    sink.record(op);
    drop(sink);
    let closed = recorder.close("completed").unwrap();
    assert_eq!((closed.ops, closed.ops_lost), (1, 100));
    let history = read(dir.path()).unwrap();
    assert_eq!(history.ops.len(), 1);
    assert_eq!(history.damage[0], "history/ops-00001.parquet is missing");
    assert!(history.damage[1].contains("lost 100 ops"), "{:?}", history.damage);
}

#[test]
fn a_writer_that_falls_behind_costs_ops_and_not_time() {
    let dir = TempDir::new().unwrap();
    let options = RecorderOptions {
        batch_ops: 10,
        channel_batches: 2,
        writer_rest: Duration::from_millis(50),
        ..RecorderOptions::default()
    };
    let recorder = Recorder::with_options(dir.path(), &info(), options).unwrap();
    let mut sink = recorder.sink();
    let begun = Instant::now();
    for n in 0..1_000 {
        let op = plain_op(&sink, n);
        sink.record(op);
    }
    let took = begun.elapsed();
    let health = recorder.health();
    assert!(health.ops_lost() > 0);
    assert!(took < Duration::from_millis(2_500), "the generator waited: {took:?}");
    drop(sink);
    let closed = recorder.close("completed").unwrap();
    assert!(closed.ops >= 20 && closed.ops_lost == health.ops_lost(), "{closed:?}");
    assert_eq!(closed.ops + closed.ops_lost, 1_000);
    assert!(read(dir.path()).unwrap().damage[0].contains("the recorder lost"));
}

#[test]
fn what_a_sink_still_holds_at_the_end_counts_as_lost() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let mut sink = recorder.sink();
    let op = plain_op(&sink, 1);
    sink.record(op);
    let closed = recorder.close("interrupted").unwrap();
    assert_eq!((closed.ops, closed.ops_lost), (0, 1));
}

#[test]
fn an_enormous_order_id_is_cut_off() {
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let mut sink = recorder.sink();
    let order = "订".repeat(100_000);
    for n in 0..10 {
        let op = RawOp { order: &order, ..plain_op(&sink, n) };
        sink.record(op);
    }
    drop(sink);
    recorder.close("completed").unwrap();
    let history = read(dir.path()).unwrap();
    assert_eq!(history.ops.len(), 10);
    assert_eq!(history.names.get(history.ops[0].order).len(), 65_535 / 3 * 3);
}

fn state() -> FinalState {
    let entry = LedgerEntry {
        seq: 1,
        at_unix_us: 5,
        kind: harness::history::EntryKind::Reserve,
        order: "17".into(),
        item: 1,
        user: "u3".into(),
        quantity: 2,
        amount_cents: Some(200),
        key: Some("k9".into()),
        state: Some(OrderState::Paid),
        reason: None,
        expires_at_unix_us: None,
    };
    FinalState {
        taken_unix_us: 9,
        source: "sql".into(),
        stock: vec![StockRow { item: 1, initial: 5, available: 3, sold: 2, ..StockRow::default() }],
        ledger: vec![entry.clone(), LedgerEntry { seq: 2, ..entry }],
        probes: Vec::new(),
        payments: None,
    }
}

#[test]
fn the_books_of_the_payment_dependency_come_back_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let entry = |seq, kind| PaymentEntry {
        seq,
        at_unix_us: 7,
        kind,
        key: "order-17-1".into(),
        order: "17".into(),
        amount_cents: 200,
    };
    let books = vec![entry(1, PaymentKind::Capture), entry(2, PaymentKind::Refund)];
    for payments in [Some(Vec::new()), Some(books)] {
        let state = FinalState { payments, ..state() };
        write_audit(dir.path(), &state).unwrap();
        assert_eq!(read_audit(dir.path()).unwrap(), Some(state));
    }
    let path = dir.path().join("payments.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.lines().next().unwrap()).unwrap();
    let error = read_audit(dir.path()).unwrap_err().to_string();
    assert!(error.contains("payments.jsonl: it has 1 rows where audit.json counts 2"), "{error}");
}

#[test]
fn an_audit_comes_back_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    assert_eq!(read_audit(dir.path()).unwrap(), None);
    write_audit(dir.path(), &state()).unwrap();
    assert_eq!(read_audit(dir.path()).unwrap(), Some(state()));

    let ledger = dir.path().join("ledger.jsonl");
    let text = fs::read_to_string(&ledger).unwrap();
    fs::write(&ledger, text.lines().next().unwrap()).unwrap();
    let error = read_audit(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ledger.jsonl: it has 1 rows where audit.json counts 2"), "{error}");
    fs::write(&ledger, &text[..text.len() - 9]).unwrap();
    let error = read_audit(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ledger.jsonl, line 2"), "{error}");
    fs::remove_file(&ledger).unwrap();
    assert!(read_audit(dir.path()).is_err());
}

#[test]
fn an_audit_that_cannot_be_kept_leaves_nothing_that_could_be_taken_for_one() {
    let dir = TempDir::new().unwrap();
    // A folder under the ledger's name lets the writing fail at its very end.
    fs::create_dir(dir.path().join("ledger.jsonl")).unwrap();
    let error = write_audit(dir.path(), &state()).unwrap_err().to_string();
    assert!(error.contains("ledger.jsonl"), "{error}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger.jsonl"]);
    assert_eq!(read_audit(dir.path()).unwrap(), None);
}

/// CPU time of this thread or of the whole process: others may be using the machine while this is measured.
fn cpu(clock: nix::time::ClockId) -> Duration {
    nix::time::clock_gettime(clock).map(Duration::from).unwrap()
}

/// Prints how fast it is; asserts nothing about it, since machines differ.
#[test]
fn speed_of_recording_and_reading() {
    use nix::time::ClockId;
    use std::fmt::Write as _;
    const OPS: u64 = 1_000_000;
    const BURST: u64 = 5_000;
    let dir = TempDir::new().unwrap();
    let recorder = Recorder::create(dir.path(), &info()).unwrap();
    let mut sink = recorder.sink();
    let template = plain_op(&sink, 0);
    let order_step: NameId = sink.intern("order");
    let process = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let mut recording = Duration::ZERO;
    let mut id = String::new();
    for burst in 0..OPS / BURST {
        let thread = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
        for n in burst * BURST..(burst + 1) * BURST {
            let noise = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as i64;
            let completed = n as i64 * 20 + 70_000;
            let intended = completed - 300 - noise;
            let mut op =
                RawOp { intent: n, user: n / 2 * 7, completed_us: completed, intended_us: intended, ..template };
            op.invoked_us = intended + noise / 1000;
            if n % 10 == 0 {
                id.clear();
                let _ = write!(id, "{n}");
                op.order = &id;
                op.step = order_step;
            } else if n % 3 == 0 {
                op.reason = "sold-out";
                op.outcome = Outcome::Fail;
            }
            sink.record(op);
        }
        sink.flush();
        recording += cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - thread;
        // A generator makes some thousands of ops between two flushes, and the writer takes them meanwhile.
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(sink);
    let closed = recorder.close("completed").unwrap();
    let writing = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID) - process - recording;
    let bytes: u64 =
        fs::read_dir(dir.path().join("history")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    let thread = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let history = read(dir.path()).unwrap();
    let reading = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID) - thread;
    assert_eq!(history.ops.len() as u64, closed.ops);
    let each = |time: Duration| time.as_nanos() as f64 / OPS as f64;
    println!(
        "CPU time per op: record {:.0} ns, write {:.0} ns ({:.1} bytes), read {:.0} ns; {:.2} M ops/s read; {} lost",
        each(recording),
        each(writing),
        bytes as f64 / closed.ops as f64,
        each(reading),
        1e3 / each(reading),
        closed.ops_lost,
    );
}
