//! Summaries to render: one of a run that passed, as a real one of thirty seconds looks, and what can go wrong with it.

use std::collections::BTreeMap;

use harness::check::{Finding, Verdict, WitnessLine};
use harness::history::Machine;
use harness::summary::*;

/// A small generator of noise, so that the fixture is the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 31)
    }

    /// A number near `mean`, as arrivals of a Poisson process scatter.
    fn around(&mut self, mean: f64) -> u32 {
        let scatter = (self.next() + self.next() + self.next() - 1.5) * 2.0 * mean.sqrt();
        (mean + scatter).max(0.0).round() as u32
    }
}

/// A run of thirty seconds with a spike and three faults, in which everything held.
pub fn passing() -> Summary {
    let series = series();
    let total = |s: &[u32]| s.iter().map(|n| u64::from(*n)).sum::<u64>();
    let (planned, sent, dropped) = (total(&series.planned), total(&series.sent), total(&series.dropped));
    Summary {
        format: 1,
        scenario: "spike".into(),
        title: "双十一手机秒杀 · 618 phone flash sale".into(),
        run_id: "20261111T120000Z-spike-7f3a".into(),
        started_at: "2026-11-11T12:00:00Z".into(),
        partial: false,
        ended: "completed".into(),
        verdict: Verdict::Pass,
        exit_code: 0,
        verdict_reason: "All 12 invariants hold over 41,812 requests and 6,214 ledger rows; every planned fault was injected, healed and recovered from.".into(),
        client_side: None,
        cleaned_up: None,
        invariants: invariants(),
        slos: vec![
            slo("order p99 <= 500 ms in phase spike", Some(true), "412 ms"),
            slo("page p99 <= 250 ms", Some(true), "38.2 ms"),
            slo("recovery after kill-service <= 5 s", Some(true), "1.84 s"),
        ],
        load: Load {
            planned,
            sent,
            dropped,
            requests: 41_812,
            offered_rps: planned as f64 / 30.0,
            peak_rps: f64::from(*series.planned.iter().max().unwrap()) * 10.0,
            peak_requests_per_second: 5_218.0,
            send_lag_us_p50: 52,
            send_lag_us_p99: Some(188),
            send_lag_us_p99_interval: Some([181, 197]),
            send_lag_us_p999: Some(1_204),
            send_lag_us_p999_interval: Some([988, 1_640]),
            send_lag_us_max: 4_811,
            send_lag_us_p99_at_peak: Some(412),
            send_lag_us_p99_at_peak_interval: Some([377, 460]),
            starved: false,
            generator_wait_fraction: 0.0042,
            busy_max: 641,
            buyers: 2_000,
            ..Load::default()
        },
        latency: latency(),
        outcomes: outcomes(),
        goodput: Goodput {
            committed_orders: 5_342,
            per_second: 412.6,
            units_sold: 5_000,
            stock: 5_000,
            acknowledged_orders: 5_331,
            released_orders: 342,
            units_held: 0,
        },
        faults: faults(),
        stopped: None,
        blast_radius: None,
        shares: None,
        cost: cost(),
        links: vec![
            link("generator", "gateway", 41_812, 7.83, 2_000, 9_182_331, 14_218_771),
            link("gateway", "service", 22_140, 4.14, 64, 6_120_110, 7_218_004),
            link("service", "postgres", 18_422, 3.45, 8, 4_810_220, 3_112_900),
        ],
        phases: [("base", 0, 8), ("spike", 8, 14), ("plateau", 14, 22), ("tail", 22, 30)]
            .map(|(name, from, until)| PhaseSummary { name: name.into(), from_us: from * 1_000_000, until_us: until * 1_000_000 })
            .to_vec(),
        series,
        machine: Machine {
            cpus: 2,
            cpu_model: "Example CPU @ 2.50GHz".into(),
            memory_bytes: 24 << 30,
            kernel: "6.1.0".into(),
            os: "Debian GNU/Linux 12".into(),
            harness: "0.1.0".into(),
        },
        seed: 42,
        schedule_hash: "9f86d081884c7d65".into(),
        timeline_hash: String::new(),
        distrust: vec![],
        notes: vec!["The kernel has no netem: delays were made by the proxy.".into()],
    }
}

fn rate(s: f64) -> f64 {
    match s {
        s if s < 8.0 => 250.0,
        s if s < 14.0 => 3_200.0 - (s - 8.0) * 120.0,
        s if s < 22.0 => 900.0,
        _ => 300.0,
    }
}

fn series() -> Series {
    let mut noise = Noise(7);
    let planned: Vec<u32> = (0..300).map(|i| noise.around(rate(f64::from(i) / 10.0) / 10.0)).collect();
    // The generator is a little late at the edge, and gives up a few arrivals.
    let mut dropped = vec![0; 300];
    let mut sent = planned.clone();
    for i in 81..84 {
        dropped[i] = planned[i] / 40;
        sent[i] -= dropped[i];
    }
    sent[80] -= 22;
    sent[81] += 22;
    let mut series = Series { bin_us: 100_000, planned, sent, dropped, latency_bin_us: 250_000, ..Series::default() };
    let mut left = 5_000.0f64;
    for i in 0..120 {
        let s = f64::from(i) * 0.25;
        latency_bin(&mut series, &mut noise, s);
        outcome_bin(&mut series, &mut noise, s, &mut left);
    }
    series
}

fn down(s: f64) -> bool {
    (16.0..17.6).contains(&s)
}

fn latency_bin(series: &mut Series, noise: &mut Noise, s: f64) {
    let slow = if (9.0..12.0).contains(&s) { 9.0 } else { 1.0 };
    let load = rate(s) / 250.0;
    let p50 = (2_400.0 + 900.0 * load) * slow * (0.9 + 0.2 * noise.next());
    let (p50, p99) =
        if (17.6..18.4).contains(&s) { (p50 * 40.0, p50 * 160.0) } else { (p50, p50 * (6.0 + 5.0 * noise.next())) };
    let max = p99 * (1.2 + 2.0 * noise.next());
    let answered = !(16.25..17.25).contains(&s);
    series.us_p50.push(answered.then_some(p50 as u64));
    series.us_p99.push(answered.then_some(p99 as u64));
    series.us_max.push(answered.then_some(max.min(3_000_000.0) as u64));
}

fn outcome_bin(series: &mut Series, noise: &mut Noise, s: f64, left: &mut f64) {
    let all = rate(s) / 4.0 * 1.3;
    let demand = rate(s) / 4.0 * 0.42;
    // Holds that were not paid for come back eight seconds after they were made.
    if (17.0..19.0).contains(&s) {
        *left += 40.0;
    }
    let orders = if down(s) { 0.0 } else { demand.min(*left).min(190.0) };
    *left -= orders;
    let info = if down(s) {
        all * 0.7
    } else if (24.0..25.5).contains(&s) {
        all * 0.08
    } else {
        0.0
    };
    let refused = if *left < 1.0 { all * 0.5 } else { all * 0.02 };
    series.orders.push(orders as u32);
    series.info.push(info as u32);
    series.fail.push(if down(s) { (all * 0.2) as u32 } else { noise.around(refused) });
    series.ok.push(if down(s) { 0 } else { noise.around((all - refused - info).max(0.0)) });
    let at = (s * 1e6) as i64;
    series.stock.push((at, if down(s) { None } else { Some(left.round() as i64) }));
}

fn stats(count: u64, p50: u64, p99: u64, p999: Option<u64>, max: u64) -> LatencyStats {
    LatencyStats {
        count,
        us_p50: Some(p50),
        us_p90: Some(p50 * 3),
        us_p99: (count >= 1_000).then_some(p99),
        us_p999: p999,
        us_max: max,
        us_mean: p50 as f64 * 1.7,
        us_p99_interval: (count >= 1_000).then_some([p99 * 94 / 100, p99 * 107 / 100]),
        us_p999_interval: p999.map(|p| [p * 88 / 100, p * 121 / 100]),
        missing: if p999.is_none() {
            vec![format!("not enough samples for TP999 ({} of 10,000 needed)", harness::measure::stats::grouped(count))]
        } else {
            vec![]
        },
    }
}

fn latency() -> Latency {
    let steps = BTreeMap::from([
        ("order".to_owned(), stats(17_204, 11_920, 318_400, Some(1_212_000), 2_874_113)),
        ("page".to_owned(), stats(16_118, 2_310, 38_200, Some(142_700), 611_204)),
        ("pay".to_owned(), stats(5_104, 6_420, 96_300, None, 1_904_220)),
        ("poll".to_owned(), stats(812, 1_870, 0, None, 18_204)),
    ]);
    let phases = BTreeMap::from([
        ("base".to_owned(), stats(2_004, 2_900, 21_400, None, 88_110)),
        ("spike".to_owned(), stats(21_870, 14_210, 412_000, Some(988_000), 2_874_113)),
        ("plateau".to_owned(), stats(10_410, 4_120, 801_000, Some(1_904_000), 2_411_870)),
        ("tail".to_owned(), stats(3_104, 2_980, 44_800, None, 204_118)),
    ]);
    let within = BTreeMap::from([
        ("order".to_owned(), stats(9_120, 21_700, 488_000, None, 2_874_113)),
        ("page".to_owned(), stats(8_980, 3_910, 41_100, None, 611_204)),
    ]);
    let step_order = ["page", "poll", "order", "pay"].map(str::to_owned).to_vec();
    Latency {
        steps,
        phases,
        phase_steps: BTreeMap::from([("spike".to_owned(), within)]),
        step_order,
        ..Latency::default()
    }
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

fn outcomes() -> Outcomes {
    Outcomes {
        ok: 27_712,
        fail: counts(&[("sold-out", 11_204), ("per-user-limit", 214), ("rate-limited", 1_402)]),
        info: 1_280,
        info_reasons: counts(&[("timeout", 711), ("reset", 402), ("5xx", 167)]),
        steps: BTreeMap::from([
            ("page".to_owned(), counts(&[("ok", 15_890), ("info:timeout", 201), ("info:reset", 27)])),
            (
                "order".to_owned(),
                counts(&[
                    ("ok", 5_331),
                    ("fail:sold-out", 11_204),
                    ("fail:per-user-limit", 214),
                    ("info:timeout", 402),
                    ("info:5xx", 167),
                ]),
            ),
            ("pay".to_owned(), counts(&[("ok", 5_011), ("info:timeout", 108)])),
        ]),
        sold_out_at_payment: 0,
        intents: IntentOutcomes { total: 16_960, ok: 5_331, fail: 11_418, info: 211, recovered: 11, retried: 604 },
    }
}

fn faults() -> Vec<FaultSummary> {
    let fault = |id: &str, kind: &str, detail: &str, from: f64, until: f64, recovery: f64, hit: &str| FaultSummary {
        id: id.into(),
        kind: kind.into(),
        detail: detail.into(),
        planned_at_ms: from,
        injected_at_ms: Some(from + 4.2),
        healed_at_ms: Some(until),
        recovered_at_ms: Some(until + recovery),
        recovery_ms: Some(recovery),
        hit: hit.into(),
        ..FaultSummary::default()
    };
    vec![
        FaultSummary {
            link: Some("service→postgres".into()),
            ..fault(
                "slow-db",
                "latency",
                "20ms ±5ms",
                9_000.0,
                12_000.0,
                240.0,
                "8 connections, 4,112 segments delayed",
            )
        },
        FaultSummary {
            role: Some("service".into()),
            ..fault(
                "kill-service",
                "kill",
                "SIGKILL, restart",
                16_000.0,
                16_600.0,
                1_840.0,
                "process 1 of 1 killed, 64 connections reset",
            )
        },
        FaultSummary {
            link: Some("gateway→service".into()),
            ..fault(
                "cut-replies",
                "reset",
                "after 512 B of 10% of replies",
                24_000.0,
                25_500.0,
                90.0,
                "402 replies cut",
            )
        },
    ]
}

fn cost() -> Cost {
    let cpu = [("generator", 4.21), ("gateway", 9.84), ("service", 14.02), ("postgres", 11.37), ("proxy", 1.9)];
    Cost {
        cpu_s: cpu.iter().map(|(role, s)| ((*role).to_owned(), *s)).collect(),
        cpu_s_per_1000_orders: cpu.iter().map(|(role, s)| ((*role).to_owned(), s / 5.342)).collect(),
        wal_bytes_per_order: Some(612.4),
        rss_peak_bytes: cpu
            .iter()
            .enumerate()
            .map(|(i, (role, _))| ((*role).to_owned(), 48_000_000 * (i as u64 + 1)))
            .collect(),
        ..Cost::default()
    }
}

fn link(
    from: &str,
    to: &str,
    calls: u64,
    calls_per_order: f64,
    connections: u64,
    bytes_up: u64,
    bytes_down: u64,
) -> LinkSummary {
    let (calls, calls_per_order) = (Some(calls), Some(calls_per_order));
    LinkSummary {
        from: from.into(),
        to: to.into(),
        calls,
        calls_per_order,
        connections,
        bytes_up,
        bytes_down,
        us_per_call: None,
    }
}

fn slo(name: &str, met: Option<bool>, measured: &str) -> SloResult {
    SloResult { name: name.into(), met, measured: measured.into() }
}

fn finding(id: &str, name: &str, verdict: Verdict, detail: &str) -> Finding {
    Finding { id: id.into(), name: name.into(), verdict, detail: detail.into(), witness: vec![] }
}

fn invariants() -> Vec<Finding> {
    let pass = |id, name, detail| finding(id, name, Verdict::Pass, detail);
    vec![
        pass(
            "I1",
            "no oversell",
            "At most 5,000 of 5,000 units were out at any prefix of 6,214 ledger rows; from the client's history alone at most 4,998.",
        ),
        pass("I2", "no lost acknowledgement", "All 5,331 acknowledged orders are durable, once, as acknowledged."),
        pass(
            "I3",
            "no phantom",
            "5,342 durable orders: 5,331 acknowledged, 11 never clearly answered; none was refused.",
        ),
        pass("I4", "no duplicate", "604 intents were retried; none has two orders, and their replies agree."),
        pass(
            "I5a",
            "stock adds up",
            "available 0 + held 0 + sold 5,000 = 5,000 in one snapshot of 1 shard and 2 caches.",
        ),
        pass("I5b", "drain probe", "Nothing was left; 1 fresh buyer was told sold out."),
        pass("I5c", "no false sold out", "11,204 refusals checked against what could be outstanding."),
        pass("I6", "limits", "No buyer ever held more than 1; 16,960 tokens were used at most once."),
        pass("I7", "money", "5,000 captures match 5,000 orders at 4,999.00; 4 refunds match 4 late releases."),
        pass("I8", "release", "342 releases, each once, each after its reserve."),
        pass("I10", "window", "Nothing was sold before the opening; 214 early calls were told to wait."),
        pass(
            "I11",
            "not vacuous",
            "Of the first attempts at all steps, 99% were sent at most 1.2 ms late, and 20 ms is allowed;\n\
             sell-out, 1,280 indeterminate ops, 342 expiries, 604 retries;\nfaults that hit their phase: 3 of 3.",
        ),
    ]
}

fn line(at_ms: Option<f64>, took_ms: f64, source: &str, user: &str, text: &str, offending: bool) -> WitnessLine {
    let at_us = at_ms.map(|ms| (ms * 1e3) as i64);
    WitnessLine {
        at_us,
        until_us: at_us.filter(|_| took_ms > 0.0).map(|us| us + (took_ms * 1e3) as i64),
        source: source.into(),
        user: user.into(),
        text: text.into(),
        offending,
    }
}

/// The same run of a service that acknowledges before it commits and sells a unit twice.
pub fn failing() -> Summary {
    let mut summary = passing();
    summary.verdict = Verdict::Fail;
    summary.exit_code = 11;
    summary.verdict_reason = "I1 no oversell and I2 no lost acknowledgement are violated: 5,001 units were out at once of 5,000, and 2 acknowledged orders are not in the ledger.".into();
    summary.goodput.units_sold = 5_001;
    summary.slos[0] = slo("order p99 <= 500 ms in phase spike", Some(false), "731 ms");
    let oversell = &mut summary.invariants[0];
    oversell.verdict = Verdict::Fail;
    oversell.detail =
        "After ledger row 6,031 there were 5,001 units out of 5,000: two reserves took the same last unit.".into();
    oversell.witness = vec![
        line(Some(11_874.120), 0.0, "stock", "", "available 1, held 212, sold 4,787", false),
        line(Some(11_874.310), 31.4, "op", "u8812", "order ok: 201, order 5330 held, 1 unit of item 1", false),
        line(Some(11_875.002), 30.9, "op", "u9104", "order ok: 201, order 5331 held, 1 unit of item 1", true),
        line(Some(11_898.771), 0.0, "ledger", "u8812", "row 6030: reserve 1 for order 5330, 5,000 of 5,000 out", false),
        line(Some(11_899.017), 0.0, "ledger", "u9104", "row 6031: reserve 1 for order 5331, 5,001 of 5,000 out", true),
        line(None, 0.0, "note", "", "reserved 5,343 - released 342 = 5,001 > stock 5,000", true),
    ];
    let lost = &mut summary.invariants[1];
    lost.verdict = Verdict::Fail;
    lost.detail = "2 of 5,331 acknowledged orders are not in the audited ledger.".into();
    lost.witness = vec![
        line(Some(15_981.204), 14.1, "op", "u10417", "order ok: 201, order 4711 held, 1 unit of item 1", true),
        line(Some(15_990.870), 9.8, "op", "买家-10423", "order ok: 201, order 4712 held, 1 unit of item 1", true),
        line(Some(16_004.200), 595.8, "fault", "", "kill-service: SIGKILL, restart", false),
        line(Some(17_120.010), 212.0, "op", "u10417", "pay info: 500 after 212 ms", false),
        line(Some(18_440.000), 3.1, "op", "u10417", "lookup fail: 404, no such order", true),
        line(Some(18_460.000), 2.8, "op", "买家-10423", "lookup fail: 404, no such order", true),
        line(None, 0.0, "ledger", "", "no row for order 4711 nor 4712 in 6,214 rows", true),
    ];
    summary.invariants[11].verdict = Verdict::Unknown;
    summary.invariants[11].detail =
        "No hold expired within the run: nothing was tested about it. Lengthen the tail or shorten the hold.".into();
    summary
}

/// A run whose generator was starved, so that nothing follows from it.
pub fn unknown() -> Summary {
    let mut summary = passing();
    summary.verdict = Verdict::Unknown;
    summary.exit_code = 12;
    summary.verdict_reason = "Nothing was seen to be violated, but the harness distrusts its own measurement.".into();
    summary.distrust = vec![
        "The send lag's 99th percentile at the peak was 48.2 ms, above the limit of 5 ms: use more processors or a lower rate.".into(),
        "17 ops were lost because the recorder was behind.".into(),
    ];
    summary.load.starved = true;
    summary.load.generator_wait_fraction = 0.184;
    summary.load.send_lag_us_p99 = Some(31_400);
    summary.load.send_lag_us_p99_interval = Some([30_100, 33_800]);
    (summary.load.send_lag_us_p999, summary.load.send_lag_us_p999_interval) = (Some(96_200), Some([88_300, 121_000]));
    (summary.load.send_lag_us_p99_at_peak, summary.load.send_lag_us_p99_at_peak_interval) = (None, None);
    summary.load.send_lag_missing = vec!["not enough samples for TP99 at the peak (640 of 1,000 needed)".into()];
    summary.load.send_lag_us_max = 211_870;
    summary.faults[1].overlapped_by = vec!["slow-db".into()];
    summary.faults[2].injected_at_ms = None;
    summary.faults[2].healed_at_ms = None;
    summary.faults[2].recovered_at_ms = None;
    summary.faults[2].recovery_ms = None;
    summary.faults[2].hit = String::new();
    summary.faults[2].error = Some("the proxy of gateway→service does not answer on its control port".into());
    summary.slos[2] = slo("recovery after kill-service <= 5 s", None, "no recovery was seen");
    for finding in &mut summary.invariants[9..] {
        finding.verdict = Verdict::Unknown;
        finding.detail = "17 ops are missing from the history, so absence proves nothing.".into();
    }
    summary
}

/// A run that was interrupted in the middle of its spike.
pub fn partial() -> Summary {
    let mut summary = passing();
    summary.partial = true;
    summary.ended = "interrupted".into();
    summary.verdict = Verdict::Unknown;
    summary.exit_code = 12;
    summary.verdict_reason = "The run was interrupted after 12.0 s of 30.0 s; no audit was made.".into();
    summary.distrust = vec!["The run was interrupted before the faults were healed and the state audited.".into()];
    summary.phases.truncate(2);
    summary.faults.truncate(1);
    summary.faults[0].healed_at_ms = None;
    summary.faults[0].recovered_at_ms = None;
    summary.faults[0].recovery_ms = None;
    let series = &mut summary.series;
    for bins in [&mut series.planned, &mut series.sent, &mut series.dropped] {
        bins.truncate(120);
    }
    for bins in [&mut series.us_p50, &mut series.us_p99, &mut series.us_max] {
        bins.truncate(48);
    }
    for bins in [&mut series.ok, &mut series.fail, &mut series.info, &mut series.orders] {
        bins.truncate(48);
    }
    series.stock.truncate(48);
    for finding in &mut summary.invariants {
        finding.verdict = Verdict::Unknown;
        finding.detail = "There is no audit of a run that was cut short.".into();
    }
    summary.slos.clear();
    summary
}

/// As little as a summary can hold: a run that ended before its first arrival.
pub fn empty() -> Summary {
    Summary {
        format: 1,
        scenario: String::new(),
        title: String::new(),
        run_id: String::new(),
        started_at: String::new(),
        partial: true,
        ended: String::new(),
        verdict: Verdict::Unknown,
        exit_code: 12,
        verdict_reason: String::new(),
        client_side: None,
        cleaned_up: None,
        invariants: vec![],
        slos: vec![],
        load: Load::default(),
        latency: Latency::default(),
        outcomes: Outcomes::default(),
        goodput: Goodput::default(),
        faults: vec![],
        stopped: None,
        blast_radius: None,
        shares: None,
        cost: Cost::default(),
        links: vec![],
        phases: vec![],
        series: Series::default(),
        machine: Machine::default(),
        seed: 0,
        schedule_hash: String::new(),
        timeline_hash: String::new(),
        distrust: vec![],
        notes: vec![],
    }
}

/// A text that would break out of every format that does not escape it.
pub const HOSTILE: &str = "</title></svg><script>alert(1)</script> \"'><img src=http://evil.example/x onerror=x> | `code` **b** ]]> \u{1b}[31m\u{0}\r\n\u{202e}秒杀 @someone #12 &amp;";

/// A run of a hostile service: every text is an attack, every number an edge, every list too long.
pub fn hostile() -> Summary {
    let mut summary = failing();
    let long = HOSTILE.repeat(60);
    summary.title = HOSTILE.into();
    summary.scenario = HOSTILE.into();
    summary.run_id = HOSTILE.into();
    summary.ended = HOSTILE.into();
    summary.verdict_reason = long.clone();
    summary.schedule_hash = HOSTILE.into();
    summary.distrust = vec![long.clone(); 60];
    summary.notes = vec![long.clone(); 60];
    summary.partial = true;
    summary.outcomes.fail.insert(HOSTILE.into(), u64::from(u32::MAX));
    summary.outcomes.info_reasons.insert(long.clone(), 3);
    summary.outcomes.steps.insert(HOSTILE.into(), counts(&[(HOSTILE, 1), ("fail:", 2)]));
    summary.latency.steps.insert(
        HOSTILE.into(),
        LatencyStats { count: u64::MAX, us_max: u64::MAX, us_mean: f64::NAN, ..LatencyStats::default() },
    );
    summary.latency.steps.insert(long.clone(), stats(20_000, 0, u64::MAX / 1_000, Some(u64::MAX / 1_000), u64::MAX));
    summary.goodput = Goodput { per_second: f64::NAN, units_sold: i64::MIN, stock: -1, ..Goodput::default() };
    summary.load.offered_rps = f64::INFINITY;
    summary.invariants.truncate(5);
    for finding in &mut summary.invariants {
        finding.verdict = Verdict::Fail;
        finding.name = HOSTILE.into();
        finding.detail = long.clone();
        finding.witness = (0..130)
            .map(|i| line(Some(f64::from(i)), 5.0, HOSTILE, &format!("{i}{HOSTILE}"), &long, i % 2 == 0))
            .collect();
    }
    summary.faults = (0..80)
        .map(|i| FaultSummary {
            id: format!("{HOSTILE}{i}"),
            kind: HOSTILE.into(),
            detail: long.clone(),
            hit: long.clone(),
            planned_at_ms: f64::NAN,
            injected_at_ms: Some(f64::from(i) * 400.0),
            healed_at_ms: (i % 3 > 0).then_some(f64::from(i)),
            recovered_at_ms: (i % 3 > 1).then_some(f64::INFINITY),
            recovery_ms: Some(f64::NAN),
            error: Some(long.clone()),
            link: Some(HOSTILE.into()),
            overlapped_by: vec![HOSTILE.into(), long.clone()],
            trigger: Some(long.clone()),
            triggered_at_ms: Some(f64::NEG_INFINITY),
            skipped: (i % 5 == 0).then(|| long.clone()),
            hit_count: (i % 7 > 0).then_some(u64::MAX),
            last_probe: Some(HOSTILE.into()),
            role: None,
        })
        .collect();
    summary.blast_radius = blast().blast_radius;
    let matrix = summary.blast_radius.as_mut().unwrap();
    let mut cell = matrix.faults[0].cells[1].clone();
    cell.p99.effect = Some(f64::INFINITY);
    cell.errors.interval = Some([f64::NAN, f64::NEG_INFINITY]);
    cell.cohort = long.clone();
    cell.goodput = absent(&long);
    matrix.cohorts = vec![long.clone(); 30];
    let mut fault =
        BlastFault { cells: vec![cell; 30], overlapped_by: vec![long.clone(); 9], ..matrix.faults[3].clone() };
    fault.fault = HOSTILE.into();
    matrix.faults = vec![fault; 60];
    summary.phases =
        (0..200).map(|i| PhaseSummary { name: HOSTILE.into(), from_us: i * 1_000, until_us: i * 500 }).collect();
    summary.series.stock.push((5_000_000, Some(-12)));
    summary
}

fn effect(without: f64, with: f64, effect: f64, interval: [f64; 2], change: Change, against: Likeness) -> Effect {
    let (without, with, effect, interval) = (Some(without), Some(with), Some(effect), Some(interval));
    Effect { without, with, effect, interval, change, against, missing: None }
}

fn ratio(without: f64, ratio: f64, change: Change) -> Effect {
    effect(without, without * ratio, ratio, [ratio * 0.9, ratio * 1.2], change, Likeness::Phase)
}

fn share(more: f64, change: Change) -> Effect {
    effect(0.002, 0.002 + more, more, [more - 0.004, more + 0.005], change, Likeness::Phase)
}

fn absent(why: &str) -> Effect {
    Effect { missing: Some(why.to_owned()), ..Effect::default() }
}

/// What one fault of [`blast`] changed for a cohort that orders, and for readers.
fn cells(change: Change, [p99, errors, goodput]: [f64; 3]) -> Vec<BlastCell> {
    let buyers = |cohort: &str, change, [p99, errors, goodput]: [f64; 3]| BlastCell {
        cohort: cohort.to_owned(),
        samples: 1_712,
        undisturbed: 6_034,
        left_out: 31,
        p99: ratio(12_400.0, p99, change),
        errors: share(errors, change),
        goodput: ratio(96.0, goodput, change),
    };
    vec![
        buyers("bystanders", Change::None, [1.04, 0.0, 0.98]),
        buyers("flash-buyers", change, [p99, errors, goodput]),
        BlastCell {
            goodput: absent("it orders nothing"),
            p99: absent("not enough samples for TP99 (412 of 1,000 needed) under the fault"),
            ..buyers("readers 只看不买的读者们", Change::None, [1.0, 0.001, 1.0])
        },
    ]
}

/// A run in which it was measured whom each fault reached, with everything that can be said about it.
pub fn blast() -> Summary {
    let mut summary = passing();
    let row = |fault: &str, from_ms: f64, ended_by, others: &[&str], cells| BlastFault {
        fault: fault.to_owned(),
        from_ms,
        until_ms: from_ms + 2_240.0,
        ended_by,
        overlapped_by: others.iter().map(|name| (*name).to_owned()).collect(),
        cells,
    };
    let long = "the-database-connection-of-the-primary-is-slow-and-then-cut";
    let mut unlike = cells(Change::None, [4.2, 0.02, 0.4]);
    for effect in unlike.iter_mut().flat_map(|cell| [&mut cell.p99, &mut cell.errors, &mut cell.goodput]) {
        effect.against = Likeness::Run;
    }
    let faults = vec![
        row("lost-replies", 3_001.0, WindowEnd::Recovery, &[], cells(Change::Worse, [1.9, 0.243, 0.71])),
        row(
            long,
            9_004.0,
            WindowEnd::Recovery,
            &["dead-database 数据库宕机"],
            cells(Change::Worse, [41.3, 0.04, 0.02]),
        ),
        row("dead-database 数据库宕机", 9_900.0, WindowEnd::Healing, &[long], cells(Change::Better, [0.4, -0.14, 3.1])),
        row("nothing-alike", 16_000.0, WindowEnd::EndOfLoad, &[], unlike),
    ];
    let cohorts = faults[0].cells.iter().map(|cell| cell.cohort.clone()).collect();
    summary.blast_radius = Some(BlastRadius { cohorts, faults });
    summary
}

/// A run with several cohorts, one of which would have tried again more often than it may.
pub fn cohorts() -> Summary {
    let mut summary = passing();
    let of = |samples| BTreeMap::from([("order".to_owned(), stats(samples, 11_920, 318_400, None, 874_113))]);
    summary.latency.cohorts = BTreeMap::from([("bots".to_owned(), of(5_200)), ("people".to_owned(), of(1_400))]);
    summary.load.retries_suppressed = counts(&[("bots", 1_711), ("people", 3)]);
    summary
}
