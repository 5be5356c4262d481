//! Measures a recorded run.
//!
//! Pure over the history and the audit: no clock, no network, and no files but the one interval log. Whatever the run
//! looked like, a summary comes out; what the measurement cannot vouch for is said in it, as distrust.
//!
//! Conventions, here and in every report: latency counts from the intended start; what was given up counts with the
//! time until then; dropped arrivals are counted and are no samples; an op belongs to the phase of its intended start.

use jiff::Timestamp;

use crate::check::{Finding, Rules, WithoutBooks};
use crate::history::{COMPLETED, Event, FinalState, History, STOPPED};
use crate::summary::{CleanedUp, ClientSide, Load, SloResult, Summary};

mod blast;
mod faults;
mod goodput;
mod hash;
pub mod hlog;
pub mod line;
pub mod load;
mod outcomes;
pub mod phases;
pub(crate) mod series;
mod shares;
pub mod slo;
pub mod stats;
pub mod verdict;

pub use slo::SloSpec;
pub use stats::{LatencyHistogram, interval_ranks};

/// The layout of `summary.json` that this version writes.
pub const SUMMARY_FORMAT: u32 = 1;

/// Sums up a run.
///
/// `findings` are what the checks came to, and are merged into the verdict. Where the measurement itself is in doubt,
/// [`Summary::distrust`] says why, and the verdict is at best unknown.
pub fn summarize(
    history: &History,
    audit: Option<&FinalState>,
    rules: &Rules,
    findings: Vec<Finding>,
    slos: &[SloSpec],
    title: &str,
) -> Summary {
    let info = &history.info;
    let phases = phases::phases(history);
    let arrivals = load::Arrivals::find(history, load::totals(history));
    let lags = load::Lags::of(history, &arrivals, &phases);
    let load = load::load(history, &arrivals, &lags);
    let intents = outcomes::intents(history, audit);
    let goodput = goodput::goodput(history, audit, rules, &intents);
    let mut slos = slo::judge(history, slos);
    slos.extend(faults::stopped(history).map(|stopped| SloResult {
        name: format!("stop condition {}", stopped.name),
        met: Some(false),
        measured: stopped.why,
    }));
    let generator = late(rules, &lags).into_iter().chain(load::overloaded(history, &load));
    let distrust = distrust(history, load::disagreements(history, &arrivals).into_iter().chain(generator));
    let ended = info.closed.as_ref().map_or("killed", |closed| closed.how.as_str()).to_string();
    let partial = ended != COMPLETED;
    let stopped = faults::stopped(history).filter(|_| ended == STOPPED);
    let faults = faults::faults(history);
    let cleaned_up = cleaned_up(history);
    let rows = audit.map_or("no audit".to_string(), |audit| format!("{} ledger rows", audit.ledger.len()));
    let grounds = verdict::Grounds {
        findings: &findings,
        slos: &slos,
        distrust: &distrust,
        cut_short: (partial && stopped.is_none()).then_some(ended.as_str()),
        stopped: stopped.as_ref(),
        left: cleaned_up.as_ref().filter(|cleaned| !cleaned.clean).map(|cleaned| cleaned.text.as_str()),
        evidence: format!("{} operations and {rows}", history.ops.len()),
        obstacle: outcomes::obstacle(history),
    };
    let (verdict, exit_code, verdict_reason) = (grounds.verdict(), grounds.exit_code(), grounds.reason());
    Summary {
        format: SUMMARY_FORMAT,
        scenario: info.scenario.clone(),
        title: title.to_string(),
        run_id: info.run_id.clone(),
        started_at: Timestamp::from_microsecond(info.epoch_unix_us).map(|t| t.to_string()).unwrap_or_default(),
        partial,
        ended,
        verdict,
        exit_code,
        verdict_reason,
        client_side: audit.is_none().then(|| client_side(&findings, rules.set_up)),
        cleaned_up,
        invariants: findings,
        slos,
        latency: phases::latency(history, &phases),
        outcomes: outcomes::outcomes(history, &intents),
        shares: shares::shares(history, audit, rules),
        blast_radius: blast::blast_radius(history, &faults, &phases, &arrivals, &intents),
        faults,
        stopped,
        cost: goodput::cost(history, goodput.committed_orders),
        links: goodput::links(history, goodput.committed_orders),
        phases,
        series: series::series(history, &arrivals, &intents.acknowledged),
        machine: info.machine.clone(),
        seed: info.seed,
        schedule_hash: info.schedule_hash.clone(),
        timeline_hash: info.timeline_hash.clone(),
        notes: notes(history, &load, &lags),
        distrust,
        load,
        goodput,
    }
}

/// What is judged from the buyers' side alone, and what cannot be, whatever came of it.
fn client_side(findings: &[Finding], set_up: bool) -> ClientSide {
    let such = |wanted: WithoutBooks| -> Vec<String> {
        let ids = findings.iter().map(|finding| finding.id.as_str());
        ids.filter(|id| WithoutBooks::of(id, set_up) == wanted).map(str::to_owned).collect()
    };
    ClientSide {
        judged: such(WithoutBooks::Judged),
        convicted_only: such(WithoutBooks::ConvictedOnly),
        not_judged: such(WithoutBooks::NotJudged),
    }
}

/// What came of taking the run's traces out of the shop.
fn cleaned_up(history: &History) -> Option<CleanedUp> {
    history.events.iter().rev().find_map(|event| match event {
        Event::CleanedUp { clean, text, .. } => Some(CleanedUp { clean: *clean, text: text.clone() }),
        _ => None,
    })
}

/// Every reason not to trust the measurement, each once.
fn distrust(history: &History, measured: impl Iterator<Item = String>) -> Vec<String> {
    let noticed = history.events.iter().filter_map(|event| match event {
        Event::Distrust { why, .. } => Some(why.clone()),
        _ => None,
    });
    let damage = history.damage.iter().map(|damage| format!("the history is damaged: {damage}"));
    let mut reasons: Vec<String> = Vec::new();
    for reason in noticed.chain(damage).chain(measured) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// Whether the generator itself was too late for its latencies to be the service's.
fn late(rules: &Rules, lags: &load::Lags) -> Option<String> {
    let worst = lags.all_but_a_hundredth_us();
    (worst > rules.send_lag_limit_us).then(|| {
        format!(
            "the generator sent late: the latest 1% of its arrivals were at least {} late where {} is allowed; give it a \
             processor of its own, or lower the rate",
            stats::text_us(worst),
            stats::text_us(rules.send_lag_limit_us)
        )
    })
}

fn notes(history: &History, load: &Load, lags: &load::Lags) -> Vec<String> {
    let written = history.events.iter().filter_map(|event| match event {
        Event::Note { text, .. } | Event::CleanedUp { text, .. } => Some(text.clone()),
        _ => None,
    });
    let starved = load.starved.then(|| {
        format!(
            "the generator was short of processor time: it waited for one during {:.1}% of the load, and the latest 1% of \
             the arrivals at the peak were at least {} late",
            load.generator_wait_fraction * 100.0,
            stats::text_us(lags.at_peak_us())
        )
    });
    written.chain(starved).collect()
}
