//! The sentences that all reports share: what an exit code, an invariant and a word mean, and what a verdict is worth.

use std::collections::BTreeMap;

use super::format;
use crate::check::Verdict;
use crate::summary::{ClientSide, FaultSummary, LatencyStats, Load, Summary};

/// How the run as a whole is to be read; it decides the colour of the banner and never softens the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Pass,
    /// Nothing can be concluded.
    Unknown,
    /// Something is wrong.
    Fail,
}

impl Tone {
    /// The name used for classes of style.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tone::Pass => "pass",
            Tone::Unknown => "unknown",
            Tone::Fail => "fail",
        }
    }

    /// A sign that carries the meaning without colour.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Tone::Pass => "✓",
            Tone::Unknown => "?",
            Tone::Fail => "✗",
        }
    }
}

impl From<Verdict> for Tone {
    fn from(verdict: Verdict) -> Tone {
        match verdict {
            Verdict::Pass => Tone::Pass,
            Verdict::Unknown => Tone::Unknown,
            Verdict::Fail => Tone::Fail,
        }
    }
}

/// Whether an objective was met.
pub(crate) fn slo_tone(met: Option<bool>) -> Tone {
    match met {
        Some(true) => Tone::Pass,
        Some(false) => Tone::Fail,
        None => Tone::Unknown,
    }
}

/// The same in one word.
pub(crate) fn slo_word(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "unknown",
    }
}

/// The word in the banner and its tone.
///
/// A run whose invariants all hold can still end badly, by an objective or a regression: a green PASS over a red exit
/// code would mislead, so the exit code has its say.
pub(crate) fn headline(summary: &Summary) -> (&'static str, Tone) {
    match (summary.verdict, summary.exit_code) {
        (Verdict::Fail, 10) => ("SLO MISSED", Tone::Fail),
        (Verdict::Fail, _) => ("FAIL", Tone::Fail),
        (Verdict::Unknown, _) => ("UNKNOWN", Tone::Unknown),
        (Verdict::Pass, 0) if summary.partial => ("PASS OF A PARTIAL RUN", Tone::Unknown),
        (Verdict::Pass, 0) => ("PASS", Tone::Pass),
        (Verdict::Pass, 10) if summary.stopped.is_some() => ("STOPPED", Tone::Fail),
        (Verdict::Pass, 10) => ("SLO MISSED", Tone::Fail),
        (Verdict::Pass, 13) => ("REGRESSION", Tone::Fail),
        (Verdict::Pass, _) => ("NOT FINISHED", Tone::Unknown),
    }
}

/// What to call the run.
pub(crate) fn title(summary: &Summary) -> &str {
    [&summary.title, &summary.scenario]
        .into_iter()
        .find(|name| !name.trim().is_empty())
        .map_or("unnamed run", |name| name)
}

/// Why the run ended.
pub(crate) fn ended(summary: &Summary) -> &str {
    if summary.ended.trim().is_empty() { "no reason was recorded" } else { &summary.ended }
}

/// What an exit code means.
pub(crate) fn exit_meaning(code: i32) -> &'static str {
    match code {
        0 => "passed",
        1 => "internal error of the harness",
        2 => "wrong usage",
        10 => "an objective (SLO) was missed",
        11 => "consistency violated",
        12 => "unknown: vacuous, or the harness distrusts its own measurement",
        13 => "regression against the baseline",
        20 => "the stack could not be provisioned",
        _ => "not one of the documented codes",
    }
}

/// What a run without an audit was judged from.
pub(crate) fn client_side(summary: &Summary) -> Option<String> {
    let ClientSide { judged, convicted_only, not_judged } = summary.client_side.as_ref()?;
    let list = |ids: &[String]| if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
    Some(format!(
        "There was no audit of what the service kept. Judged from the client's side alone: {}. A violation would show there, and that it \
         holds does not: {}. Not judged: {}. Give the service's books to judge all of them (an audit listener, queries, or a command).",
        list(judged),
        list(convicted_only),
        list(not_judged)
    ))
}

/// What an invariant demands, for readers who do not know its id.
pub(crate) fn demand(id: &str) -> &'static str {
    match id {
        "I1" => "At no moment are more units reserved or sold than there are.",
        "I2" => "Every order that was acknowledged to a buyer is durable, once, as it was acknowledged.",
        "I3" => "No order exists that nobody made, and none that its buyer was told had failed.",
        "I4" => "One purchase makes at most one order, however often it is retried; all its replies agree.",
        "I5" => "No unit is left unsold, or refused to a buyer, while it is free.",
        "I5a" => "Available, held and sold units add up to the stock, over all shards and caches.",
        "I5b" => "Fresh buyers can buy exactly what is said to be left.",
        "I5c" => "Nobody was told \"sold out\" while there must have been stock.",
        "I6" => "No buyer holds or owns more than the limit; single-use tokens are used once, by their owner.",
        "I7" => "Money and goods agree: nothing is paid for and released without a refund.",
        "I8" => "What is released was reserved before, and is released once.",
        "I9" => "What the queue has promised does not change, and every ticket gets its answer in time.",
        "I10" => "Nothing is sold before the sale opens, and nobody is told to wait after that.",
        "I11" => "What the run was made to provoke did happen; otherwise its passing means nothing.",
        _ => "",
    }
}

/// The step that sells, by its name: the summary keeps no roles. Falls back on the busiest step.
pub(crate) fn order_step(summary: &Summary) -> Option<(&str, &LatencyStats)> {
    let steps = &summary.latency.steps;
    let named = ["order", "buy", "purchase", "checkout", "reserve", "seckill"];
    named
        .iter()
        .find_map(|name| steps.get_key_value(*name))
        .or_else(|| named.iter().find_map(|name| steps.iter().find(|(step, _)| step.contains(name))))
        .or_else(|| steps.iter().max_by_key(|(_, stats)| stats.count))
        .map(|(name, stats)| (name.as_str(), stats))
}

/// How late the arrivals were sent, with intervals, and for which percentiles there were too few of them.
pub(crate) fn send_lag(load: &Load) -> String {
    let mut parts = vec![format!("TP50 {}", format::micros(load.send_lag_us_p50))];
    let mut tail = |name: &str, value: Option<u64>, interval| {
        parts.extend(value.map(|_| format!("{name} {}", format::micros_within(value, interval))));
    };
    tail("TP99", load.send_lag_us_p99, load.send_lag_us_p99_interval);
    tail("TP999", load.send_lag_us_p999, load.send_lag_us_p999_interval);
    tail("TP99 at the peak", load.send_lag_us_p99_at_peak, load.send_lag_us_p99_at_peak_interval);
    parts.push(format!("max {}", format::micros(load.send_lag_us_max)));
    let missing = load.send_lag_missing.iter().map(|missing| format!("; {missing}"));
    parts.join(", ") + &missing.collect::<String>()
}

/// Why a percentile is absent: for want of samples, which is said in one way in all reports, or as the summary has it.
pub(crate) fn missing(stats: &LatencyStats, percentile: &str, needed: u64) -> String {
    let own =
        stats.missing.iter().find(|line| line.split_whitespace().any(|word| word.trim_end_matches(':') == percentile));
    match own {
        Some(line) if stats.count >= needed => line.clone(),
        _ => {
            let (n, needed) = (format::count(stats.count), format::count(needed));
            format!("not enough samples for {percentile} ({n} of {needed} needed)")
        }
    }
}

/// What is lacking where a percentile that matters is absent: a sentence for all steps for which it is the same. Of the
/// steps by cohort, of which there are many, one sentence says how many samples there were at most.
pub(crate) fn gaps(summary: &Summary) -> Vec<String> {
    let mut gaps: Vec<(String, Vec<&str>)> = Vec::new();
    let cohorts = cohort_steps(summary);
    let mut of_cohorts = Vec::new();
    for (percentile, needed) in [("TP99", 1_000), ("TP999", 10_000)] {
        let absent =
            |stats: &LatencyStats| if percentile == "TP99" { stats.us_p99.is_none() } else { stats.us_p999.is_none() };
        for (step, stats) in in_step_order(summary, &summary.latency.steps).into_iter().filter(|(_, s)| absent(s)) {
            let why = missing(stats, percentile, needed);
            match gaps.iter_mut().find(|(other, _)| *other == why) {
                Some((_, steps)) => steps.push(step),
                None => gaps.push((why, vec![step.as_str()])),
            }
        }
        let most = cohorts.iter().filter(|(_, stats)| absent(stats)).max_by_key(|(_, stats)| stats.count);
        of_cohorts
            .extend(most.map(|(name, stats)| format!("{name}: {}, or fewer", missing(stats, percentile, needed))));
    }
    gaps.into_iter().map(|(why, steps)| format!("{}: {why}", steps.join(", "))).chain(of_cohorts).collect()
}

/// What is known by step, in the order in which buyers make the steps; those that no journey has come last.
pub(crate) fn in_step_order<'a, T>(summary: &Summary, by_step: &'a BTreeMap<String, T>) -> Vec<(&'a String, &'a T)> {
    let order = &summary.latency.step_order;
    let mut steps: Vec<_> = by_step.iter().collect();
    steps.sort_by_key(|(name, _)| order.iter().position(|step| step == *name).unwrap_or(usize::MAX));
    steps
}

/// The steps of each cohort, as `cohort · step`; nothing where there is but one cohort, whose steps are the steps.
pub(crate) fn cohort_steps(summary: &Summary) -> Vec<(String, &LatencyStats)> {
    let cohorts = &summary.latency.cohorts;
    let several = cohorts.iter().filter(|_| cohorts.len() > 1);
    let rows = several.flat_map(|(cohort, steps)| {
        in_step_order(summary, steps).into_iter().map(move |(step, stats)| (format!("{cohort} · {step}"), stats))
    });
    rows.collect()
}

/// The retries that were not made for want of budget, if there were any.
pub(crate) fn suppressed(summary: &Summary) -> Option<String> {
    let by_cohort = &summary.load.retries_suppressed;
    let all: u64 = by_cohort.values().sum();
    let each: Vec<_> = by_cohort.iter().map(|(cohort, n)| format!("{cohort} {}", format::count(*n))).collect();
    (all > 0).then(|| format!("{} not made for want of budget: {}", format::count(all), each.join(", ")))
}

/// The columns of a table of latencies where there is room for few.
pub(crate) const LATENCY_COLUMNS: [&str; 6] = ["step", "samples", "TP50", "TP99", "TP999", "max"];

/// What stands in these columns after the step. `tail` writes a percentile that has an interval.
pub(crate) fn latency_cells(
    stats: &LatencyStats,
    tail: impl Fn(Option<u64>, Option<[u64; 2]>) -> String,
) -> [String; 5] {
    [
        format::count(stats.count),
        format::micros_or_none(stats.us_p50),
        tail(stats.us_p99, stats.us_p99_interval),
        tail(stats.us_p999, stats.us_p999_interval),
        if stats.count == 0 { format::NONE.to_owned() } else { format::micros(stats.us_max) },
    ]
}

/// Why a fault was injected when it was, or why it was not; none if its time was planned.
pub(crate) fn trigger(fault: &FaultSummary) -> Option<String> {
    if let Some(why) = &fault.skipped {
        return Some(format!("not injected: {why}"));
    }
    let trigger = fault.trigger.as_ref()?;
    Some(match fault.triggered_at_ms {
        Some(at) => format!("{trigger}: came at {}", format::moment_ms(Some(at))),
        None => trigger.clone(),
    })
}

/// Which probe was the last to hold again, and which other faults were in effect while the recovery was waited for.
pub(crate) fn recovery(fault: &FaultSummary) -> Option<String> {
    let others = &fault.overlapped_by;
    let last = fault.last_probe.as_ref().map(|probe| format!("the last probe to hold again: {probe}"));
    let meanwhile = (!others.is_empty()).then(|| format!("meanwhile in effect: {}", others.join(", ")));
    let remarks: Vec<String> = last.into_iter().chain(meanwhile).collect();
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// How to repeat the run.
pub(crate) fn repeat(summary: &Summary) -> String {
    format!("seckill run scenario.toml --seed {}", summary.seed)
}

/// What a verdict says for certain.
pub(crate) const PROVES: &[&str] = &[
    "A fail is certain: its witness lists the very requests and ledger rows that contradict each other.",
    "A pass says that the invariant held over every recorded request of this run and, where its detail says so, over \
     the whole ledger, read in one snapshot after the faults were healed and the holds had run out.",
    "A request that got no clear answer counts neither as a success nor as a failure; the ledger decides.",
    "Latency counts from the moment at which the buyer wanted to start, so a stall of the service, or of the \
     generator, shows in the percentiles rather than hiding in arrivals that were never sent.",
];

/// What a verdict does not say.
pub(crate) const CANNOT: &[&str] = &[
    "A pass does not prove that there is no bug: only this schedule, these faults and this seed were tried.",
    "An unknown is not a pass. The evidence was missing, damaged or vacuous; nothing follows from it.",
    "Rates and latencies belong to this machine and this build. Ratios between runs on one machine travel better.",
    "The checks see replies and the ledger. What a service does besides, such as mails, is beyond them.",
];

/// The words that a reader may not know.
pub(crate) const GLOSSARY: &[(&str, &str)] = &[
    (
        "Arrival",
        "A buyer who wants to start, at a moment fixed by the seed before the run. The schedule does not slow down when the service does.",
    ),
    (
        "Intended start",
        "The moment at which an arrival should have been sent. Latency counts from here, so waiting in line is part of it.",
    ),
    (
        "Send lag",
        "How much later than intended an arrival was really sent. A large one means that the generator was too slow to be believed. I11 looks at the first attempts at all later steps as well.",
    ),
    ("Dropped", "An arrival that could not be sent. It is counted, never passed over in silence."),
    (
        "Indeterminate (info)",
        "A request with no clear answer: timeout, reset, 5xx. It may or may not have taken effect.",
    ),
    (
        "Found in the ledger",
        "An order whose buyer got no clear answer at the first try, and which exists, as the audit shows. That is legal.",
    ),
    (
        "Goodput",
        "Committed orders per second, between the first order and the last. Refusals do not count, however fast.",
    ),
    (
        "TP50, TP99, TP999",
        "50, 99 or 99.9 percent of the requests took at most so long. The interval is the range in which the true value lies with 95% confidence.",
    ),
    ("Phase", "A named part of the load, such as base or spike."),
    ("Blast radius", "Which cohorts a fault reached, and how much it changed for them. Isolation keeps it small."),
    ("Fault, heal", "Something broken on purpose, and the end of it."),
    ("Steady-state hypothesis", "What holds when all is well. Recovery is the time from healing until it holds again."),
    ("Oversell, undersell", "More sold than there was; or less than there was, while buyers were refused."),
    ("Hold, TTL", "Stock reserved for a buyer who has yet to pay. It is released when its time to live is up."),
    ("Witness", "The few requests and ledger rows that show a violation."),
    ("Schedule hash", "A fingerprint of the planned arrivals. Equal hashes mean equal load."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_is_explained() {
        for id in ["I1", "I2", "I3", "I4", "I5", "I5a", "I5b", "I5c", "I6", "I7", "I8", "I9", "I10", "I11"] {
            assert!(!demand(id).is_empty(), "{id} has no explanation");
        }
    }

    #[test]
    fn absent_percentiles_say_how_many_samples_are_needed() {
        let mut stats = LatencyStats { count: 812, ..LatencyStats::default() };
        assert_eq!(missing(&stats, "TP999", 10_000), "not enough samples for TP999 (812 of 10,000 needed)");
        stats.missing = vec!["not enough samples for TP99 (1)".into(), "TP999: own words".into()];
        assert_eq!(missing(&stats, "TP999", 10_000), "not enough samples for TP999 (812 of 10,000 needed)");
        stats.count = 10_000;
        assert_eq!(missing(&stats, "TP999", 10_000), "TP999: own words");
    }
}
