//! The checks against simulated sales: a correct shop never fails, an anomaly is found whenever it took effect, and a
//! history of a million ops is judged in linear time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::sim::{Bug, Run, Size, simulate};
use super::*;

/// Runs a closure over a range of seeds, on as many threads as there are processors. `SIM_TIMES` asks for so many times
/// more of them.
fn over_seeds(seeds: u64, each: impl Fn(u64) + Sync) {
    let times = std::env::var("SIM_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let seeds = seeds * times;
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let each = &each;
            scope.spawn(move || (thread..seeds).step_by(threads as usize).for_each(each));
        }
    });
}

/// What this thread has had of a processor: the machine that runs the tests may be busy with other things.
fn cpu_seconds() -> f64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread has a clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

fn show(run: &Run, findings: &[Finding]) -> String {
    let case = Case::new(&run.evidence());
    let mut text = String::new();
    for finding in findings.iter().filter(|f| f.verdict != Verdict::Pass) {
        text.push_str(&format!("{} {}: {}\n", finding.id, finding.verdict.name(), finding.detail));
        for line in &finding.witness {
            text.push_str(&format!("  {:?} {} {}\n", line.at_us, line.user, line.text));
        }
    }
    text.push_str("--- ops\n");
    for op in &run.history.ops {
        text.push_str(&format!(
            "  {}..{} u{} {}\n",
            op.invoked_us,
            op.completed_us,
            op.user,
            witness::op_text(&case, op)
        ));
    }
    text.push_str("--- ledger\n");
    for row in &run.audit.ledger {
        text.push_str(&format!("  {} {} {}\n", case.since_epoch(row.at_unix_us), row.user, witness::row_text(row)));
    }
    text
}

#[test]
fn a_correct_shop_never_fails() {
    let happened: [AtomicU64; 6] = Default::default();
    over_seeds(100_000, |seed| {
        let run = simulate(seed, None, &Size::small(seed));
        let findings = judge(&run.evidence());
        let meaningless = |f: &Finding| f.id == "I11" && f.verdict == Verdict::Unknown;
        let wrong = findings.iter().any(|f| f.verdict != Verdict::Pass && !meaningless(f));
        assert!(!wrong, "seed {seed}\n{}", show(&run, &findings));
        let case = Case::new(&run.evidence());
        let scan = &case.index.scan;
        let recovered = case.index.intents.iter().enumerate().filter(|(n, intent)| {
            let order = case.index.books.as_ref().and_then(|books| books.order_of_intent(*n as u32));
            intent.class == index::Class::Info && order.is_some()
        });
        let state = |state| run.audit.ledger.iter().filter(|row| row.state == Some(state)).count();
        let counts = [
            scan.sold_out,
            scan.indeterminate,
            scan.retried,
            recovered.count(),
            state(crate::history::OrderState::Expired),
            state(crate::history::OrderState::Refunded),
        ];
        happened.iter().zip(counts).for_each(|(all, n)| _ = all.fetch_add(n as u64, Relaxed));
    });
    // That nothing fails would say little of sales in which nothing happens.
    let happened = happened.map(AtomicU64::into_inner);
    println!("sold out, indeterminate, retried, recovered, expired, refunded: {happened:?} over 100000 schedules");
    assert!(happened.iter().all(|n| *n > 10_000), "{happened:?}");
}

/// Removes one op in five, as a history with missing parts would lack them.
fn damage(run: &mut Run, seed: u64) {
    let mut n = seed;
    run.history.ops.retain(|_| {
        n = n.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        !(n >> 33).is_multiple_of(5)
    });
    run.history.damage.push("some parts are missing".to_owned());
}

#[test]
fn a_correct_shop_never_fails_however_it_is_seen() {
    type Blind = fn(&mut Run, u64);
    let ways: [(&str, Blind); 4] = [
        ("parts of the history are missing", damage),
        ("the ledger keeps no keys", |run, _| run.audit.ledger.iter_mut().for_each(|row| row.key = None)),
        ("replies name no orders", |run, _| {
            run.history.ops.iter_mut().for_each(|op| op.order = crate::history::Sym(0))
        }),
        ("the ledger says no states", |run, _| run.audit.ledger.iter_mut().for_each(|row| row.state = None)),
    ];
    for (way, blind) in ways {
        over_seeds(10_000, |seed| {
            let mut run = simulate(seed, None, &Size::small(seed));
            blind(&mut run, seed);
            let findings = judge(&run.evidence());
            let wrong = findings.iter().any(|f| f.verdict == Verdict::Fail);
            assert!(!wrong, "{way}, seed {seed}\n{}", show(&run, &findings));
        });
    }
}

#[test]
fn every_anomaly_is_found_whenever_it_took_effect() {
    for bug in Bug::ALL {
        let effects = AtomicU64::new(0);
        over_seeds(1_000, |seed| {
            let run = simulate(seed, Some(bug), &Size::small(seed));
            if !bug.took_effect(&run) {
                return;
            }
            effects.fetch_add(1, Relaxed);
            let findings = judge(&run.evidence());
            assert!(bug.found(&findings), "{bug:?} not found, seed {seed}\n{}", show(&run, &findings));
            let long = findings.iter().find(|f| f.witness.len() > 16);
            assert!(long.is_none(), "{long:?}");
        });
        let effects = effects.into_inner();
        println!("{bug:?}: took effect in {effects} schedules, found in all of them");
        assert!(effects >= 20, "{bug:?} took effect in {effects} schedules only");
    }
}

#[test]
fn without_an_audit_a_correct_shop_never_fails() {
    over_seeds(20_000, |seed| {
        let run = simulate(seed, None, &Size::small(seed));
        let evidence = Evidence { audit: None, ..run.evidence() };
        let findings = judge(&evidence);
        let wrong = findings.iter().any(|f| f.verdict == Verdict::Fail);
        assert!(!wrong, "seed {seed}\n{}", show(&run, &findings));
    });
}

#[test]
fn ops_per_second() {
    let run = simulate(7, None, &Size::large(850_000));
    let ops = run.history.ops.len();
    let begun = (Instant::now(), cpu_seconds());
    let case = Case::new(&run.evidence());
    let mut findings = Vec::new();
    println!("index: {:.0} ms", (cpu_seconds() - begun.1) * 1e3);
    for check in CHECKS {
        let begun = cpu_seconds();
        findings.push(judge_one(check, &case));
        println!("{}: {:.0} ms", check.id(), (cpu_seconds() - begun) * 1e3);
    }
    let (wall, cpu) = (begun.0.elapsed().as_secs_f64(), cpu_seconds() - begun.1);
    println!(
        "{ops} ops, {} ledger rows: {cpu:.2} s of one core ({wall:.2} s by the clock), {:.0} ops per second and core",
        run.audit.ledger.len(),
        ops as f64 / cpu
    );
    assert_ne!(merged(&findings), Verdict::Fail, "{findings:?}");
    // Side by side, the checks find the same.
    assert_eq!(judge(&run.evidence()), findings);
}
