//! Small histories with answers worked out by hand, and shapes that must not make the measurement stumble.

use std::slice::from_ref;
use std::time::Duration;

use harness::check::{Expectations, Finding, ItemRules, Rules, Verdict};
use harness::history::{
    Closed, EntryKind, Event, FaultPlan, FinalState, History, LedgerEntry, LinkCalls, LoadTotals, Machine, Names, Op,
    OrderState, Outcome, Role, RoleCost, RunInfo, Sample, StockRow, Sym,
};
use harness::measure::{SloSpec, hlog, summarize};
use harness::summary::Summary;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use proptest::prelude::*;

const EPOCH: i64 = 1_700_000_000_000_000;

fn info(duration_us: i64) -> RunInfo {
    RunInfo {
        run_id: "r1".into(),
        scenario: "spike".into(),
        seed: 7,
        schedule_hash: "abc".into(),
        timeline_hash: "def".into(),
        epoch_unix_us: EPOCH,
        user_prefix: "u".into(),
        key_prefix: "k".into(),
        duration_us,
        machine: Machine::default(),
        closed: Some(Closed { how: "completed".into(), ops: 0, ops_lost: 0, events: None }),
        shard: None,
        merged: Vec::new(),
    }
}

fn empty(duration_us: i64) -> History {
    History {
        info: info(duration_us),
        ops: Vec::new(),
        events: Vec::new(),
        names: Names::default(),
        damage: Vec::new(),
    }
}

fn rules() -> Rules {
    let item = ItemRules {
        item: 1,
        stock: 5,
        per_user_limit: 1,
        price_cents: 100,
        hold_us: 1_000_000,
        opens_us: 0,
        closes_us: 10_000_000,
        plentiful: false,
    };
    Rules {
        items: vec![item],
        epsilon_us: 0,
        ticket_deadline_us: 5_000_000,
        expect: Expectations::default(),
        send_lag_limit_us: 5_000,
        abusive_cohorts: Vec::new(),
        set_up: true,
    }
}

fn finding(verdict: Verdict) -> Finding {
    Finding { id: "I1".into(), name: "no oversell".into(), verdict, detail: "as told.".into(), witness: Vec::new() }
}

fn passing() -> Vec<Finding> {
    vec![finding(Verdict::Pass)]
}

/// Builds ops of the cohort `fans`.
struct Builder(History);

impl Builder {
    /// Adds an op: step, user, outcome with reason, and its three times.
    fn op(&mut self, step: &str, user: u64, outcome: (Outcome, &str), times: [i64; 3]) -> &mut Op {
        let history = &mut self.0;
        let role = match step {
            "order" => Role::Order,
            "pay" => Role::Pay,
            _ => Role::Read,
        };
        history.ops.push(Op {
            intent: user,
            user,
            attempt: u16::from(outcome.0 != Outcome::Dropped),
            status: if outcome.0 == Outcome::Info { 0 } else { 200 },
            role,
            outcome: outcome.0,
            state: OrderState::Unknown,
            cohort: history.names.intern("fans"),
            step: history.names.intern(step),
            reason: history.names.intern(outcome.1),
            order: Sym(0),
            ticket: Sym(0),
            token: Sym(0),
            item: 1,
            quantity: i32::from(role == Role::Order),
            amount_cents: -1,
            intended_us: times[0],
            invoked_us: times[1],
            completed_us: times[2],
        });
        history.ops.last_mut().unwrap()
    }

    fn order_id(&mut self, order: &str) {
        let sym = self.0.names.intern(order);
        self.0.ops.last_mut().unwrap().order = sym;
    }
}

/// Five arrivals within two seconds: one buys and pays, one buys at the second try, one comes too late, the fate of one
/// is unknown, and one was never sent.
fn golden() -> History {
    const OK: (Outcome, &str) = (Outcome::Ok, "");
    let mut b = Builder(empty(2_000_000));
    b.op("page", 1, OK, [0, 20, 1_000]);
    b.op("order", 1, OK, [1_000, 1_000, 3_000]);
    b.order_id("17");
    b.op("pay", 1, OK, [3_000, 3_000, 4_000]);
    b.order_id("17");
    b.op("page", 2, OK, [500_000, 500_040, 502_000]);
    b.op("page", 3, OK, [1_000_000, 1_000_100, 1_004_000]);
    b.op("order", 3, (Outcome::Fail, "sold-out"), [1_004_000, 1_004_000, 1_005_000]);
    b.op("page", 4, OK, [1_200_000, 1_200_000, 1_203_000]);
    b.op("order", 4, (Outcome::Info, "reset"), [1_203_000, 1_203_000, 1_210_000]);
    b.op("order", 2, (Outcome::Info, "timeout"), [502_000, 502_000, 1_502_000]);
    b.op("page", 5, (Outcome::Dropped, "no-idle-buyer"), [1_500_000, 1_550_000, 1_550_000]);
    b.op("order", 2, OK, [1_600_000, 1_600_000, 1_601_000]).attempt = 2;
    b.order_id("18");
    b.0.events = golden_events();
    b.0
}

fn golden_events() -> Vec<Event> {
    let fault = FaultPlan {
        id: "slow".into(),
        kind: "latency".into(),
        link: Some("service-postgres".into()),
        role: None,
        detail: "10ms".into(),
        at_us: 600_000,
        until_us: 900_000,
        ..FaultPlan::default()
    };
    let sample = |at_us, available| Event::Sample(Sample { at_us, available, item: 1, ..Sample::default() });
    vec![
        Event::Phase { name: "base".into(), from_us: 0, until_us: 1_000_000 },
        Event::Phase { name: "spike".into(), from_us: 1_000_000, until_us: 2_000_000 },
        Event::FaultPlanned(fault),
        sample(100_000, Some(4)),
        Event::FaultInjected { id: "slow".into(), at_us: 601_000 },
        Event::FaultHealed { id: "slow".into(), at_us: 900_000, hit: "3 connections".into(), count: Some(3) },
        Event::FaultRecovered { id: "slow".into(), at_us: 1_100_000, last_probe: None },
        sample(1_100_000, None),
        Event::LoadTotals(LoadTotals {
            planned: 5,
            sent: 4,
            dropped: 1,
            generator_cpu_s: 0.1,
            generator_wait_s: 0.02,
            busy_max: 2,
            buyers: 3,
            ..LoadTotals::default()
        }),
        Event::Cost(vec![
            RoleCost {
                role: "service".into(),
                cpu_s: 3.0,
                rss_peak_bytes: 1_000,
                wal_bytes: None,
                ..RoleCost::default()
            },
            RoleCost {
                role: "postgres".into(),
                cpu_s: 1.5,
                rss_peak_bytes: 2_000,
                wal_bytes: Some(900),
                ..RoleCost::default()
            },
        ]),
        Event::Links(vec![LinkCalls {
            from: "service".into(),
            to: "postgres".into(),
            calls: Some(12),
            ..LinkCalls::default()
        }]),
        Event::Note { at_us: 0, text: "a note".into() },
    ]
}

fn ledger_entry(seq: i64, kind: EntryKind, order: &str, key: &str, at_us: i64) -> LedgerEntry {
    LedgerEntry {
        seq,
        at_unix_us: EPOCH + at_us,
        kind,
        order: order.into(),
        item: 1,
        user: "u".into(),
        quantity: 1,
        amount_cents: None,
        key: (kind == EntryKind::Reserve).then(|| key.into()),
        state: None,
        reason: None,
        expires_at_unix_us: None,
    }
}

fn golden_audit() -> FinalState {
    FinalState {
        taken_unix_us: EPOCH + 9_000_000,
        source: "sql".into(),
        stock: vec![StockRow { item: 1, initial: 5, available: 3, held: 1, sold: 1, ..StockRow::default() }],
        ledger: vec![
            ledger_entry(1, EntryKind::Reserve, "17", "k1", 2_000),
            ledger_entry(2, EntryKind::Pay, "17", "", 3_500),
            ledger_entry(3, EntryKind::Reserve, "18", "k2", 702_000),
            ledger_entry(4, EntryKind::Reserve, "19", "k4", 1_252_000),
            ledger_entry(5, EntryKind::Release, "18", "", 1_900_000),
        ],
        probes: Vec::new(),
        payments: None,
    }
}

fn summary(history: &History) -> Summary {
    summarize(history, None, &rules(), passing(), &[], "A spike")
}

#[test]
fn the_load_by_hand() {
    let load = summary(&golden()).load;
    assert_eq!((load.planned, load.sent, load.dropped, load.requests), (5, 4, 1, 10));
    assert_eq!((load.offered_rps, load.peak_rps, load.peak_requests_per_second), (2.5, 10.0, 5.0));
    // Lags 0, 20, 40 and 100 µs; in the spike, which has the higher rate, 0 and 100.
    assert_eq!((load.send_lag_us_p50, load.send_lag_us_max), (20, 100));
    // That is too few for any percentile beyond the median, at the peak even more so.
    assert_eq!((load.send_lag_us_p99, load.send_lag_us_p999, load.send_lag_us_p99_at_peak), (None, None, None));
    assert_eq!((load.send_lag_us_p99_interval, load.send_lag_us_p99_at_peak_interval), (None, None));
    let missing = [
        "not enough samples for TP99 (4 of 1,000 needed)",
        "not enough samples for TP999 (4 of 10,000 needed)",
        "not enough samples for TP99 at the peak (2 of 1,000 needed)",
    ];
    assert_eq!(load.send_lag_missing, missing);
    assert_eq!((load.generator_wait_fraction, load.starved), (0.01, false));
    assert_eq!((load.busy_max, load.buyers), (2, 3));
}

#[test]
fn a_generator_without_processor_time_is_not_trusted() {
    // The load lasts 2 s.
    let with = |cpu_s: f64, wait_s: f64| {
        let mut history = golden();
        for event in &mut history.events {
            if let Event::LoadTotals(totals) = event {
                (totals.generator_cpu_s, totals.generator_wait_s) = (cpu_s, wait_s);
            }
        }
        summary(&history)
    };
    assert_eq!(with(0.1, 0.02).verdict, Verdict::Pass);
    // Short of processor time is worth a remark, out of it is not to be trusted.
    let short = with(0.1, 0.3);
    assert_eq!((short.verdict, short.load.starved), (Verdict::Pass, true));
    let waited = with(0.1, 0.5);
    assert_eq!(waited.verdict, Verdict::Unknown);
    assert!(
        waited.verdict_reason.contains("waited for a processor during 25% of the load"),
        "{}",
        waited.verdict_reason
    );
    let busy = with(1.9, 0.0);
    assert_eq!(busy.verdict, Verdict::Unknown);
    assert!(busy.verdict_reason.contains("busy for 95% of the load"), "{}", busy.verdict_reason);
}

#[test]
fn the_latencies_by_hand() {
    let latency = summary(&golden()).latency;
    let page = &latency.steps["page"];
    assert_eq!((page.count, page.us_p50, page.us_max, page.us_mean), (4, Some(2_000), 4_000, 2_500.0));
    assert_eq!(page.us_p99, None);
    assert_eq!(page.missing[1], "not enough samples for TP99 (4 of 1,000 needed)");
    // The timeout counts with the second until it was given up.
    let order = &latency.steps["order"];
    assert_eq!((order.count, order.us_p50, order.us_max), (5, Some(2_000), 1_000_000));
    // The timeout was intended in the base phase, though it ended in the spike.
    assert_eq!((latency.phases["base"].count, latency.phases["base"].us_max), (5, 1_000_000));
    assert_eq!((latency.phases["spike"].count, latency.phases["spike"].us_max), (5, 7_000));
    let steps: Vec<(&str, u64)> = latency.phase_steps["base"].iter().map(|(s, l)| (s.as_str(), l.count)).collect();
    assert_eq!(steps, [("order", 2), ("page", 2), ("pay", 1)]);
}

/// The golden run with its third and fourth buyer in a cohort of their own.
fn two_cohorts() -> History {
    let mut history = golden();
    let bots = history.names.intern("bots");
    history.ops.iter_mut().filter(|op| op.user == 3 || op.user == 4).for_each(|op| op.cohort = bots);
    history
}

#[test]
fn each_cohort_has_its_own_percentiles_and_objectives() {
    let slos = [
        slo("cohort = 'fans'\nmax = '2ms'\nstep = 'page'"),
        slo("cohort = 'bots'\nmax = '2ms'\nstep = 'page'"),
        slo("cohort = 'bots'\nerror_fraction = 0.25"),
        slo("cohort = 'nobody'\nmax = '1s'"),
    ];
    let summary = summarize(&two_cohorts(), None, &rules(), passing(), &slos, "");
    let counts = |cohort: &str| -> Vec<(&str, u64, u64)> {
        let steps = summary.latency.cohorts[cohort].iter();
        steps.map(|(step, stats)| (step.as_str(), stats.count, stats.us_max)).collect()
    };
    // The dropped arrival is no sample.
    assert_eq!(counts("fans"), [("order", 3, 1_000_000), ("page", 2, 2_000), ("pay", 1, 1_000)]);
    assert_eq!(counts("bots"), [("order", 2, 7_000), ("page", 2, 4_000)]);
    // Whoever a step's samples come from, all of them make the step.
    assert_eq!(summary.latency.steps, self::summary(&golden()).latency.steps);
    let results: Vec<_> = summary.slos.iter().map(|s| (s.name.as_str(), s.met, s.measured.as_str())).collect();
    assert_eq!(
        results,
        [
            ("page max <= 2 ms of cohort fans", Some(true), "max 2 ms of 2 samples"),
            ("page max <= 2 ms of cohort bots", Some(false), "max 4 ms of 2 samples"),
            ("all steps error fraction <= 25% of cohort bots", Some(true), "25% (1 of 4 operations)"),
            ("all steps max <= 1 s of cohort nobody", None, "no operation to judge it by"),
        ]
    );
}

#[test]
fn the_outcomes_by_hand() {
    let (history, audit) = (golden(), golden_audit());
    let outcomes = summarize(&history, Some(&audit), &rules(), passing(), &[], "").outcomes;
    assert_eq!((outcomes.ok, outcomes.info), (7, 2));
    assert_eq!(outcomes.fail.into_iter().collect::<Vec<_>>(), [("sold-out".to_string(), 1)]);
    let order: Vec<(&str, u64)> = outcomes.steps["order"].iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(order, [("fail:sold-out", 1), ("info:reset", 1), ("info:timeout", 1), ("ok", 2)]);
    let intents = outcomes.intents;
    assert_eq!((intents.total, intents.ok, intents.fail, intents.info), (4, 2, 1, 1));
    assert_eq!((intents.recovered, intents.retried), (2, 1));
}

#[test]
fn goodput_cost_and_links_by_hand() {
    let (history, audit) = (golden(), golden_audit());
    let summary = summarize(&history, Some(&audit), &rules(), passing(), &[], "");
    let goodput = &summary.goodput;
    assert_eq!((goodput.committed_orders, goodput.acknowledged_orders, goodput.released_orders), (3, 2, 1));
    // Two more orders within 1.25 s after the first.
    assert_eq!((goodput.per_second, goodput.units_sold, goodput.stock), (1.6, 1, 5));
    assert_eq!(summary.cost.cpu_s_per_1000_orders["service"], 1_000.0);
    assert_eq!((summary.cost.wal_bytes_per_order, summary.cost.rss_peak_bytes["postgres"]), (Some(300.0), 2_000));
    assert_eq!((summary.links[0].calls, summary.links[0].calls_per_order), (Some(12), Some(4.0)));

    let without_audit = self::summary(&history).goodput;
    assert_eq!((without_audit.committed_orders, without_audit.units_sold, without_audit.released_orders), (2, 1, 0));
}

#[test]
fn faults_phases_and_series_by_hand() {
    let summary = summary(&golden());
    let fault = &summary.faults[0];
    assert_eq!((fault.planned_at_ms, fault.injected_at_ms, fault.healed_at_ms), (600.0, Some(601.0), Some(900.0)));
    assert_eq!(
        (fault.recovered_at_ms, fault.recovery_ms, fault.hit.as_str()),
        (Some(1_100.0), Some(200.0), "3 connections")
    );
    assert_eq!(summary.phases.len(), 2);
    let series = &summary.series;
    assert_eq!((series.planned.len(), series.sent.len(), series.dropped.len()), (20, 20, 20));
    let filled = |bins: &[u32]| -> Vec<usize> { (0..bins.len()).filter(|n| bins[*n] > 0).collect() };
    assert_eq!(filled(&series.planned), [0, 5, 10, 12, 15]);
    assert_eq!((filled(&series.sent), filled(&series.dropped)), (vec![0, 5, 10, 12], vec![15]));
    assert_eq!((series.ok.len(), series.us_p50.len()), (8, 8));
    assert_eq!(series.ok, [3, 0, 1, 0, 2, 0, 1, 0]);
    assert_eq!(filled(&series.fail), [4]);
    assert_eq!((filled(&series.info), filled(&series.orders)), (vec![4, 6], vec![0, 6]));
    // Half past zero: the page in 2 ms and the timeout in a second.
    assert_eq!((series.us_p50[2], series.us_p99[2], series.us_max[1]), (Some(2_000), Some(1_000_000), None));
    assert_eq!(series.stock, [(100_000, Some(4)), (1_100_000, None)]);
}

#[test]
fn a_recovery_names_the_faults_that_it_may_have_waited_for() {
    let mut history = golden();
    let injected = |id: &str, at_us| Event::FaultInjected { id: id.into(), at_us };
    let healed = |id: &str, at_us| Event::FaultHealed { id: id.into(), at_us, hit: String::new(), count: None };
    let recovered = |id: &str, at_us| Event::FaultRecovered { id: id.into(), at_us, last_probe: None };
    history.events.retain(|event| !matches!(event, Event::FaultPlanned(_) | Event::FaultInjected { .. }));
    history.events.retain(|event| !matches!(event, Event::FaultHealed { .. } | Event::FaultRecovered { .. }));
    history.events.extend([
        // Healed before the first one's recovery, in effect at its healing, begun before it, and too late for it.
        injected("a", 100_000),
        injected("b", 200_000),
        healed("a", 300_000),
        injected("c", 350_000),
        healed("c", 360_000),
        healed("b", 400_000),
        recovered("a", 410_000),
        recovered("b", 410_000),
        recovered("c", 410_000),
        injected("d", 500_000),
        healed("d", 600_000),
    ]);
    let faults = summary(&history).faults;
    let overlaps: Vec<_> = faults.iter().map(|f| (f.id.as_str(), f.overlapped_by.join(" "))).collect();
    let expected = [("a", "b c"), ("b", ""), ("c", "b"), ("d", "")].map(|(id, others)| (id, others.to_string()));
    assert_eq!(overlaps, expected);
}

#[test]
fn the_frame_of_the_summary() {
    let summary = summary(&golden());
    assert_eq!(summary.started_at, "2023-11-14T22:13:20Z");
    assert_eq!((summary.title.as_str(), summary.ended.as_str(), summary.partial), ("A spike", "completed", false));
    assert_eq!((summary.verdict, summary.exit_code), (Verdict::Pass, 0));
    assert_eq!(summary.verdict_reason, "All 1 invariants that were checked hold over 11 operations and no audit.");
    assert_eq!((summary.notes.as_slice(), summary.distrust.len()), (["a note".to_string()].as_slice(), 0));
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

fn slo(text: &str) -> SloSpec {
    toml::from_str(text).unwrap()
}

#[test]
fn objectives_by_hand() {
    let slos = [
        slo("step = 'page'\nmax = '4ms'\np50 = '1ms'"),
        slo("phase = 'spike'\nmax = '6ms'"),
        slo("p99 = '1s'"),
        slo("cohort = 'fans'\nerror_fraction = 0.25"),
        slo("step = 'nonesuch'\nmax = '1s'"),
    ];
    let summary = summarize(&golden(), None, &rules(), passing(), &slos, "");
    let results: Vec<_> = summary.slos.iter().map(|s| (s.name.as_str(), s.met, s.measured.as_str())).collect();
    assert_eq!(
        results,
        [
            ("page p50 <= 1 ms", Some(false), "p50 2 ms (4 samples)"),
            ("page max <= 4 ms", Some(true), "max 4 ms of 4 samples"),
            ("all steps max <= 6 ms in phase spike", Some(false), "max 7 ms of 5 samples"),
            ("all steps p99 <= 1 s", None, "not enough samples for TP99 (10 of 1,000 needed)"),
            // Two indeterminate and one dropped, of eleven.
            ("all steps error fraction <= 25% of cohort fans", Some(false), "27.2727% (3 of 11 operations)"),
            ("nonesuch max <= 1 s", None, "no operation to judge it by"),
        ]
    );
}

#[test]
fn exit_codes_in_their_order() {
    let history = golden();
    let missed = slo("max = '1ms'");
    let unjudged = slo("p999 = '1ms'");
    let code = |findings: Vec<Finding>, slos: &[SloSpec]| {
        let summary = summarize(&history, None, &rules(), findings, slos, "");
        (summary.verdict, summary.exit_code)
    };
    let mixed = vec![finding(Verdict::Unknown), finding(Verdict::Fail), finding(Verdict::Pass)];
    assert_eq!(code(mixed, from_ref(&missed)), (Verdict::Fail, 11));
    assert_eq!(code(vec![finding(Verdict::Unknown)], from_ref(&missed)), (Verdict::Unknown, 12));
    assert_eq!(code(Vec::new(), &[]), (Verdict::Unknown, 12));
    assert_eq!(code(passing(), from_ref(&missed)), (Verdict::Pass, 10));
    assert_eq!(code(passing(), &[missed, unjudged]), (Verdict::Pass, 12));
    assert_eq!(code(passing(), &[slo("max = '2s'")]), (Verdict::Pass, 0));
}

#[test]
fn a_measurement_in_doubt_is_at_best_unknown() {
    let doubt = |change: &dyn Fn(&mut History)| {
        let mut history = golden();
        change(&mut history);
        let summary = summary(&history);
        assert_eq!((summary.verdict, summary.exit_code), (Verdict::Unknown, 12));
        (summary.distrust.join("\n"), summary.verdict_reason)
    };
    // The page of the second buyer is gone; that the buyer ordered later does not hide it.
    let (distrust, reason) = doubt(&|h| {
        h.ops.remove(3);
    });
    assert_eq!(distrust, "the generator counted 4 arrivals sent, the history has 3");
    assert!(reason.starts_with("The measurement is not to be trusted: the generator counted 4"), "{reason}");

    let (distrust, _) = doubt(&|h| h.events.retain(|e| !matches!(e, Event::LoadTotals(_))));
    assert!(distrust.contains("never wrote its totals"));
    let (distrust, _) = doubt(&|h| h.damage.push("history/ops-00002.parquet is missing".into()));
    assert_eq!(distrust, "the history is damaged: history/ops-00002.parquet is missing");
    let (distrust, _) = doubt(&|h| h.events.push(Event::Distrust { at_us: 0, why: "the clock jumped".into() }));
    assert_eq!(distrust, "the clock jumped");
    let (distrust, _) = doubt(&|h| h.ops[4].invoked_us = h.ops[4].intended_us + 6_000);
    assert!(distrust.contains("latest 1% of its arrivals were at least 6 ms late where 5 ms is allowed"), "{distrust}");

    let (distrust, reason) = doubt(&|h| h.info.closed.as_mut().unwrap().how = "interrupted".into());
    assert_eq!(distrust, "");
    assert!(reason.starts_with("The run was cut short (interrupted)"), "{reason}");
    let mut killed = golden();
    killed.info.closed = None;
    let summary = summary(&killed);
    assert_eq!((summary.ended.as_str(), summary.partial, summary.exit_code), ("killed", true, 12));
}

#[test]
fn a_violation_is_told_in_spite_of_doubt() {
    let mut history = golden();
    history.damage.push("something".into());
    let summary = summarize(&history, None, &rules(), vec![finding(Verdict::Fail)], &[], "");
    assert_eq!((summary.verdict, summary.exit_code), (Verdict::Fail, 11));
    assert_eq!(summary.verdict_reason, "I1 (no oversell) is violated: as told.");
}

#[test]
fn an_empty_history_comes_out_empty() {
    for duration_us in [0, 1_000_000, -5] {
        let summary = summary(&empty(duration_us));
        assert_eq!((summary.load.planned, summary.outcomes.ok, summary.goodput.committed_orders), (0, 0, 0));
        assert!(summary.latency.steps.is_empty());
    }
}

#[test]
fn dropped_arrivals_are_counted_and_are_no_samples() {
    let mut b = Builder(empty(1_000_000));
    for n in 0..10 {
        b.op("page", n, (Outcome::Dropped, "no-idle-buyer"), [n as i64 * 1_000, 50_000, 50_000]);
    }
    b.0.events.push(Event::LoadTotals(LoadTotals { planned: 10, dropped: 10, ..LoadTotals::default() }));
    let summary = summary(&b.0);
    assert_eq!((summary.load.dropped, summary.load.requests, summary.load.peak_rps), (10, 0, 100.0));
    assert_eq!((summary.load.send_lag_us_max, summary.latency.steps.len()), (0, 0));
    assert_eq!(summary.distrust, Vec::<String>::new());
}

#[test]
fn one_op() {
    let mut b = Builder(empty(1_000_000));
    b.op("order", 1, (Outcome::Ok, ""), [10, 20, 1_010]);
    b.0.events.push(Event::LoadTotals(LoadTotals { planned: 1, sent: 1, ..LoadTotals::default() }));
    let summary = summary(&b.0);
    assert_eq!(summary.latency.steps["order"].us_p50, Some(1_000));
    assert_eq!((summary.load.sent, summary.load.send_lag_us_p50), (1, 10));
    assert_eq!((summary.goodput.acknowledged_orders, summary.goodput.per_second), (1, 0.0));
    assert_eq!(summary.exit_code, 0);
}

#[test]
fn journeys_that_return_to_their_first_step_are_counted_by_buyer() {
    let mut b = Builder(empty(1_000_000));
    for user in 0..3 {
        for (n, step) in ["page", "order", "page"].into_iter().enumerate() {
            let at = n as i64 * 10_000;
            b.op(step, user, (Outcome::Ok, ""), [at, at + 5, at + 500]);
        }
    }
    b.0.events.push(Event::LoadTotals(LoadTotals { planned: 3, sent: 3, ..LoadTotals::default() }));
    let summary = summary(&b.0);
    assert_eq!(summary.distrust, Vec::<String>::new());
    assert_eq!(summary.series.sent.iter().sum::<u32>(), 3);
}

#[test]
fn overlapping_phases_each_have_their_ops() {
    let mut b = Builder(empty(4_000_000));
    for n in 0..4 {
        let at = n * 1_000_000;
        b.op("page", n as u64, (Outcome::Ok, ""), [at, at, at + 100]);
    }
    let phase = |name: &str, from, until| Event::Phase { name: name.into(), from_us: from, until_us: until };
    b.0.events = vec![
        phase("all", 0, 4_000_000),
        phase("middle", 1_000_000, 3_000_000),
        phase("ends", 0, 1_000_000),
        phase("ends", 3_000_000, 4_000_000),
        phase("none", 2_000_000, 2_000_000),
        phase("backwards", 3_000_000, 1_000_000),
    ];
    let phases = summary(&b.0).latency.phases;
    let counts: Vec<(&str, u64)> = phases.iter().map(|(name, stats)| (name.as_str(), stats.count)).collect();
    assert_eq!(counts, [("all", 4), ("backwards", 0), ("ends", 2), ("middle", 2), ("none", 0)]);
}

fn any_op() -> impl Strategy<Value = (u64, u64, u16, usize, usize, [u32; 3], [i64; 3])> {
    let time = prop_oneof![any::<i64>(), -5_000_000_i64..5_000_000, Just(i64::MAX), Just(i64::MIN)];
    (
        0..9_u64,
        0..9_u64,
        any::<u16>(),
        0..5_usize,
        0..4_usize,
        [0..4_u32, 0..4, 0..4],
        [time.clone(), time.clone(), time],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_panics(ops in proptest::collection::vec(any_op(), 0..60), duration in any::<i64>(), phase in any::<(i64, i64)>()) {
        let mut history = empty(duration);
        for name in ["a", "b", "c"] {
            history.names.intern(name);
        }
        for (intent, user, attempt, role, outcome, syms, times) in ops {
            history.ops.push(Op {
                intent,
                user,
                attempt,
                status: attempt,
                role: Role::ALL[role],
                outcome: Outcome::ALL[outcome],
                state: OrderState::Held,
                cohort: Sym(syms[0]),
                step: Sym(syms[1]),
                reason: Sym(syms[2]),
                order: Sym(syms[0]),
                ticket: Sym(syms[1]),
                token: Sym(syms[2]),
                item: 1,
                quantity: i32::MAX,
                amount_cents: i64::MAX,
                intended_us: times[0],
                invoked_us: times[1],
                completed_us: times[2],
            });
        }
        history.events.push(Event::Phase { name: "p".into(), from_us: phase.0, until_us: phase.1 });
        history.events.push(Event::FaultRecovered { id: "f".into(), at_us: phase.0, last_probe: None });
        let slos = [SloSpec { error_fraction: Some(0.5), max: Some(Duration::from_secs(1)), ..SloSpec::default() }];
        let summary = summarize(&history, Some(&golden_audit()), &rules(), passing(), &slos, "");
        prop_assert_eq!(summary.series.ok.len(), summary.series.us_p99.len());
        prop_assert_eq!(summary.series.planned.len(), summary.series.dropped.len());
        let mut log = Vec::new();
        hlog::write(&history, &mut log).unwrap();
    }
}

/// Decodes standard base64, for the test only.
fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let whole = |quad: &[u8]| {
        let bits = quad.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - quad.len()));
        bits.to_be_bytes()[1..quad.len()].to_vec()
    };
    digits.chunks(4).flat_map(whole).collect()
}

#[test]
fn the_interval_log_sums_back_to_the_same_counts() {
    let mut history = golden();
    // One that ended before the epoch moves the base, and a step whose name no tag can have is renamed.
    let mut b = Builder(history.clone());
    b.op("a step, odd", 9, (Outcome::Ok, ""), [-2_500_000, -2_500_000, -2_400_000]);
    history = b.0;
    let mut log = Vec::new();
    hlog::write(&history, &mut log).unwrap();
    let text = String::from_utf8(log.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "#[Histogram log format version 1.3]");
    assert_eq!(lines[2], "#[StartTime: 1700000000.000 (seconds since epoch)]");
    assert_eq!(lines[3], "#[BaseTime: 1699999997.000 (seconds since epoch)]");
    assert!(lines[4].starts_with("\"StartTimestamp\""));

    let mut counts: std::collections::BTreeMap<String, (u64, u64)> = Default::default();
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let bytes = base64(interval.encoded_histogram());
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(interval.duration(), Duration::from_secs(1));
        let slot = counts.entry(interval.tag().unwrap().as_str().to_string()).or_default();
        *slot = (slot.0 + histogram.len(), slot.1.max(histogram.max()));
    }
    let counts: Vec<(&str, u64)> = counts.iter().map(|(tag, (count, _))| (tag.as_str(), *count)).collect();
    assert_eq!(counts, [("a_step__odd", 1), ("order", 5), ("page", 4), ("pay", 1)]);
    assert_eq!(lines.len(), 5 + 6, "{text}");
}

/// CPU time of this thread: others may be using the machine while this is measured.
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap()
}

/// Prints how fast it is; asserts nothing about it, since machines differ.
#[test]
fn speed_of_summarizing() {
    const OPS: i64 = 1_000_000;
    let mut history = empty(OPS * 10);
    let (fans, page, order, sold_out) = {
        let names = &mut history.names;
        (names.intern("fans"), names.intern("page"), names.intern("order"), names.intern("sold-out"))
    };
    let template = golden().ops[0];
    history.ops.reserve(OPS as usize);
    for n in 0..OPS {
        let mut b = template;
        let noise = ((n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50) as i64;
        (b.cohort, b.user, b.intent, b.attempt) = (fans, n as u64 / 2, n as u64 / 2, 1);
        (b.step, b.role) = if n % 2 == 0 { (page, Role::Read) } else { (order, Role::Order) };
        (b.outcome, b.reason) =
            if n % 2 == 1 && n % 5 != 0 { (Outcome::Fail, sold_out) } else { (Outcome::Ok, Sym(0)) };
        (b.intended_us, b.invoked_us, b.completed_us) = (n * 10, n * 10 + 30, n * 10 + 400 + noise);
        history.ops.push(b);
    }
    let totals = LoadTotals { planned: OPS as u64 / 2, sent: OPS as u64 / 2, ..LoadTotals::default() };
    history.events = vec![
        Event::Phase { name: "base".into(), from_us: 0, until_us: OPS * 5 },
        Event::Phase { name: "spike".into(), from_us: OPS * 5, until_us: OPS * 10 },
        Event::LoadTotals(totals),
    ];
    let slos = [slo("step = 'page'\np99 = '1s'"), slo("phase = 'spike'\np999 = '1s'")];
    let begun = cpu();
    let summary = summarize(&history, None, &rules(), passing(), &slos, "");
    let summarizing = cpu() - begun;
    assert_eq!((summary.load.sent, summary.distrust.len()), (OPS as u64 / 2, 0));
    let begun = cpu();
    let mut log = Vec::new();
    hlog::write(&history, &mut log).unwrap();
    println!(
        "by CPU time: summarize {:.2} M ops/s; interval log {:.2} M ops/s, {} kB",
        OPS as f64 / summarizing.as_secs_f64() / 1e6,
        OPS as f64 / (cpu() - begun).as_secs_f64() / 1e6,
        log.len() / 1_000
    );
}

#[test]
fn what_kept_everybody_from_buying_is_said_first() {
    let told = |build: &dyn Fn(&mut Builder), verdict: Verdict| {
        let mut b = Builder(empty(2_000_000));
        build(&mut b);
        b.0.events.push(Event::LoadTotals(LoadTotals { planned: 12, sent: 12, ..LoadTotals::default() }));
        summarize(&b.0, None, &rules(), vec![finding(verdict)], &[], "A spike").verdict_reason
    };
    let at = |n: u64| [n as i64 * 1_000; 3];
    let shut_out = |b: &mut Builder| {
        for n in 0..12 {
            b.op("login", n, (Outcome::Fail, if n == 3 { "closed" } else { "not-found" }), at(n));
        }
    };
    let reason = told(&shut_out, Verdict::Unknown);
    assert!(reason.starts_with("No `login` succeeded: of 12 tries, most ended with `not-found`. I1"), "{reason}");
    // A violation is about the service, whatever else is wrong.
    assert!(told(&shut_out, Verdict::Fail).starts_with("I1"), "the witness comes first");
    let nameless = |b: &mut Builder| {
        (0..12).for_each(|n| {
            b.op("order", n, (Outcome::Ok, ""), at(n));
        })
    };
    let reason = told(&nameless, Verdict::Unknown);
    assert!(reason.starts_with("No reply to `order` named an order") && reason.contains("reply.order"), "{reason}");
    let fine = |b: &mut Builder| {
        for n in 0..12 {
            b.op("order", n, (Outcome::Ok, ""), at(n));
            b.order_id("17");
        }
    };
    assert!(told(&fine, Verdict::Unknown).starts_with("I1"));
}

#[test]
fn a_percentile_of_the_send_lag_takes_as_many_arrivals_as_one_of_a_latency() {
    // The n-th arrival leaves n microseconds late.
    let load = |count: i64| {
        let mut b = Builder(empty(count * 1_000));
        for n in 0..count {
            let at = n * 1_000;
            b.op("page", n as u64, (Outcome::Ok, ""), [at, at + n, at + n + 500]);
        }
        summary(&b.0).load
    };
    let few = load(999);
    assert_eq!((few.send_lag_us_p50, few.send_lag_us_p99, few.send_lag_us_max), (499, None, 998));
    assert_eq!(few.send_lag_missing[0], "not enough samples for TP99 (999 of 1,000 needed)");

    let enough = load(1_000);
    assert_eq!((enough.send_lag_us_p99, enough.send_lag_us_p99_at_peak), (Some(989), Some(989)));
    let (low, high) = harness::measure::interval_ranks(1_000, 0.99).unwrap();
    assert_eq!(enough.send_lag_us_p99_interval, Some([low - 1, high - 1]));
    assert_eq!((enough.send_lag_us_p999, enough.send_lag_us_p999_interval), (None, None));
    assert_eq!(enough.send_lag_missing, ["not enough samples for TP999 (1,000 of 10,000 needed)"]);

    let many = load(10_000);
    assert_eq!(many.send_lag_missing, [""; 0]);
    let ([low, high], at) = (many.send_lag_us_p999_interval.unwrap(), many.send_lag_us_p999.unwrap());
    // Buckets beyond 2 ms are 0.1% wide.
    assert!((9_980..=9_999).contains(&at) && low <= at && at <= high && low < high, "{low} {at} {high}");
}

#[test]
fn who_got_what_is_told_by_cohort_and_from_the_ledger() {
    let mut history = Builder(empty(10_000_000));
    let sold_out = (Outcome::Fail, "sold-out");
    for (user, cohort, outcome) in [
        (1, "fans", (Outcome::Ok, "")),
        (2, "bots", (Outcome::Ok, "")),
        (3, "bots", (Outcome::Fail, "risk-refused")),
        (4, "fans", (Outcome::Fail, "risk-refused")),
        (5, "bots", sold_out),
    ] {
        let name = history.0.names.intern(cohort);
        history.op("order", user, outcome, [0, 0, 1_000]).cohort = name;
    }
    // Two payments of one purchase that came too late are one buyer who was told so.
    history.op("pay", 1, sold_out, [0, 2_000, 3_000]);
    history.op("pay", 1, sold_out, [0, 4_000, 5_000]);
    let row = |seq: i64, kind: EntryKind, order: &str, at_s: i64| LedgerEntry {
        seq,
        at_unix_us: EPOCH + at_s * 1_000_000,
        kind,
        order: order.into(),
        item: 1,
        user: format!("u{order}"),
        quantity: 2,
        amount_cents: Some(200),
        key: Some(format!("k{order}")),
        state: None,
        reason: None,
        expires_at_unix_us: None,
    };
    // The fan pays after a second; the bot holds on for four, gives it back, and somebody else's order counts for nobody.
    let ledger = vec![
        row(1, EntryKind::Reserve, "1", 1),
        row(2, EntryKind::Reserve, "2", 1),
        row(3, EntryKind::Pay, "1", 2),
        row(4, EntryKind::Release, "2", 5),
        row(5, EntryKind::Reserve, "77", 5),
    ];
    let audit = FinalState { taken_unix_us: EPOCH + 9_000_000, ledger, ..FinalState::default() };
    let silent = summarize(&history.0, Some(&audit), &rules(), passing(), &[], "t");
    assert_eq!((silent.shares, silent.outcomes.sold_out_at_payment), (None, 1), "no cohort is called abusive");
    let rules = Rules { abusive_cohorts: vec!["bots".into()], ..rules() };
    let shares = summarize(&history.0, Some(&audit), &rules, passing(), &[], "t").shares.unwrap();
    let [bots, fans] = shares.cohorts.as_slice() else { panic!("{shares:#?}") };
    assert_eq!((bots.abusive, bots.users, bots.orders, bots.units_sold, bots.held_unit_s), (true, 3, 1, 0, 8.0));
    assert_eq!((fans.abusive, fans.users, fans.orders, fans.units_sold, fans.held_unit_s), (false, 2, 1, 2, 2.0));
    assert_eq!((bots.held_share, fans.held_share, bots.sold_share, fans.sold_share), (0.8, 0.2, 0.0, 1.0));
    let risk = &shares.marks["risk-refused"];
    assert_eq!((risk.marked, risk.rightly, risk.precision, risk.recall), (2, 1, Some(0.5), Some(1.0 / 3.0)));
    assert_eq!((shares.marks.len(), &shares.any_mark), (1, risk));
}
