//! From the evidence of a drill to its scores: who noticed what, how soon, and what came of it. Pure: the run's history and
//! summary, the drill's file and its entries in, a [`Score`] out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::{Drill, Expectation, Step};
use super::log::Entry;
use crate::check::Verdict;
use crate::history::{Event, History, Micros, Sample};
use crate::summary::{FaultSummary, Summary};

/// Width of the bins in which losses are looked at.
const BIN_US: Micros = 250_000;
/// A shop is dead that answers nobody for so long.
const DEAD_MS: f64 = 1_000.0;
/// A signal that comes so long after a fault's healing is something else's doing.
const TAIL_US: Micros = 2_000_000;
/// An alert may come so long after a fault is over.
const ALERT_US: Micros = 60_000_000;
/// A signal has gone when it stays away for so long.
const GONE_US: Micros = 1_000_000;

/// How a drill came out; `drill.json`. Times are in milliseconds; those of faults are counted from the injection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// Version of this file's layout.
    pub format: u32,
    /// The drill's name.
    pub drill: String,
    /// Its title.
    pub title: String,
    /// The run's id.
    pub run_id: String,
    /// When the load started, RFC 3339.
    pub started_at: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Hash of the timeline of faults: drills with the same one broke the same things at the same times.
    pub timeline_hash: String,
    /// Whether people took part.
    pub attended: bool,
    /// The verdict over the evidence.
    pub verdict: Verdict,
    /// The sentence that goes with it.
    pub verdict_reason: String,
    /// The exit code: that of the run, or 10 if that is 0 and an expectation was missed.
    pub exit_code: i32,
    /// Who or what stopped it before its time.
    pub stopped: Option<String>,
    /// The largest share of requests without an answer at which nothing is being lost.
    pub loss_limit: f64,
    /// The checklist, with the evidence.
    pub checklist: Vec<CheckLine>,
    /// Each fault.
    pub faults: Vec<FaultScore>,
    /// Each expectation, for each fault that it is about.
    pub expectations: Vec<ExpectScore>,
    /// Each step of the runbook.
    pub runbook: Vec<StepScore>,
    /// What the monitoring said.
    pub alerts: Vec<AlertSeen>,
    /// What went as planned, in sentences.
    pub as_planned: Vec<String>,
    /// What is to be done, in sentences, each with who should.
    pub actions: Vec<Action>,
    /// Against the drill of the same name before it.
    pub previous: Option<Comparison>,
}

/// A line of the checklist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckLine {
    /// Its id.
    pub id: String,
    /// What had to be so.
    pub text: String,
    /// The role that answers for it.
    pub owner: String,
    /// What shows it.
    pub evidence: String,
}

/// What one fault did, and what was done about it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FaultScore {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// The link or role that it was on.
    pub place: String,
    /// When it was injected, counted from the start of the load; none if it was not.
    pub injected_at_ms: Option<f64>,
    /// How long it was in effect.
    pub lasted_ms: Option<f64>,
    /// To the first alert of the monitoring.
    pub alert_ms: Option<f64>,
    /// The name of that alert.
    pub alert: Option<String>,
    /// To what the harness itself saw first: a probe that fails, or requests without an answer beyond the limit.
    pub seen_ms: Option<f64>,
    /// To the last moment at which more was lost than the limit allows; none if it never was.
    pub loss_stopped_ms: Option<f64>,
    /// To the first acknowledgement of a step that locates it.
    pub located_ms: Option<f64>,
    /// To the steady state that holds again.
    pub recovered_ms: Option<f64>,
    /// From healing to that.
    pub recovery_ms: Option<f64>,
    /// What was left of the shop meanwhile.
    pub shop: Shop,
    /// The longest time in which nobody got an answer.
    pub silent_ms: f64,
    /// Requests that ended meanwhile.
    pub requests: u64,
    /// Those of them without an answer.
    pub unanswered: u64,
    /// Other faults in effect meanwhile: what each did cannot be told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlapped_by: Vec<String>,
}

/// What is left of a shop while something is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shop {
    /// Requests are answered as ever.
    #[default]
    Unharmed,
    /// Some requests have no answer, and others do.
    Lossy,
    /// For a second or more, nobody got an answer.
    Dead,
}

impl Shop {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Shop::Unharmed => "unharmed",
            Shop::Lossy => "lossy but alive",
            Shop::Dead => "dead",
        }
    }
}

/// What became of an expectation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectScore {
    /// Its id.
    pub id: String,
    /// In words.
    pub text: String,
    /// What was looked for.
    pub signal: String,
    /// The fault.
    pub fault: String,
    /// How long it might take to be seen.
    pub within_ms: f64,
    /// How long it took, from the injection.
    pub seen_ms: Option<f64>,
    /// How long it might take to be gone.
    pub back_within_ms: Option<f64>,
    /// How long it took, from the healing.
    pub back_ms: Option<f64>,
    /// The outcome.
    pub outcome: ExpectOutcome,
}

/// How an expectation came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectOutcome {
    /// As expected.
    Met,
    /// Seen, but later than expected.
    Late,
    /// Never seen.
    NotSeen,
    /// Seen in time, and not gone in time.
    NotBack,
    /// The fault was never in effect.
    NotReached,
}

impl ExpectOutcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            ExpectOutcome::Met => "met",
            ExpectOutcome::Late => "late",
            ExpectOutcome::NotSeen => "not seen",
            ExpectOutcome::NotBack => "not back in time",
            ExpectOutcome::NotReached => "not reached",
        }
    }

    /// Whether something was expected and did not happen.
    pub fn is_missed(self) -> bool {
        !matches!(self, ExpectOutcome::Met | ExpectOutcome::NotReached)
    }
}

/// What became of a step of the runbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepScore {
    /// Its id.
    pub id: String,
    /// What was to be done.
    pub text: String,
    /// The role that does it.
    pub owner: String,
    /// Who acknowledged it, as they said.
    pub by: String,
    /// When it was due, counted from the start of the load.
    pub due_ms: Option<f64>,
    /// How long it might take.
    pub within_ms: f64,
    /// How long it took.
    pub took_ms: Option<f64>,
    /// The outcome.
    pub outcome: StepOutcome,
}

/// How a step of the runbook came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// Acknowledged in time.
    InTime,
    /// Acknowledged too late.
    Late,
    /// Never acknowledged.
    Missed,
    /// Nobody took part.
    NotAsked,
    /// It was never due.
    NotReached,
}

impl StepOutcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            StepOutcome::InTime => "in time",
            StepOutcome::Late => "late",
            StepOutcome::Missed => "missed",
            StepOutcome::NotAsked => "not asked",
            StepOutcome::NotReached => "not reached",
        }
    }
}

/// An alert of the monitoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertSeen {
    /// When it came, counted from the start of the load.
    pub at_ms: f64,
    /// Its name.
    pub name: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// For people.
    pub summary: String,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// The role that should; empty where the drill names none.
    pub owner: String,
    /// What.
    pub text: String,
}

/// Against the drill before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// When that one started.
    pub started_at: String,
    /// Whether the same things broke at the same times.
    pub same_timeline: bool,
    /// Its verdict.
    pub verdict: Verdict,
    /// Figures of both.
    pub figures: Vec<Change>,
}

/// One figure of both, in milliseconds or as a count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// Whether it is a time in milliseconds.
    pub is_time: bool,
    /// Then.
    pub before: Option<f64>,
    /// Now.
    pub now: Option<f64>,
}

/// Scores a drill. What it was asked beforehand stands in its file, what came of it in the run's evidence and the entries.
pub fn score(
    drill: &Drill,
    entries: &[Entry],
    history: &History,
    summary: &Summary,
    previous: Option<&Score>,
) -> Score {
    let seen = Seen::of(drill, entries, history);
    let faults: Vec<FaultScore> = summary.faults.iter().map(|fault| seen.fault(fault, summary)).collect();
    let expectations: Vec<ExpectScore> =
        drill.expect.iter().flat_map(|expect| seen.expectation(expect, summary)).collect();
    let runbook: Vec<StepScore> = drill.runbook.iter().map(|step| seen.step(step, summary)).collect();
    let missed = expectations.iter().any(|expect| expect.outcome.is_missed());
    let exit_code = match summary.exit_code {
        crate::exit::PASS if missed => crate::exit::SLO_MISSED,
        code => code,
    };
    let mut score = Score {
        format: 1,
        drill: drill.name.clone(),
        title: drill.title.clone(),
        run_id: summary.run_id.clone(),
        started_at: summary.started_at.clone(),
        seed: summary.seed,
        timeline_hash: summary.timeline_hash.clone(),
        attended: seen.attended,
        verdict: summary.verdict,
        verdict_reason: summary.verdict_reason.clone(),
        exit_code,
        stopped: summary.stopped.as_ref().map(|stopped| format!("{}: {}", stopped.name, stopped.why)),
        loss_limit: drill.loss_limit,
        checklist: checklist(drill, entries),
        faults,
        expectations,
        runbook,
        alerts: seen.alerts.clone(),
        as_planned: Vec::new(),
        actions: Vec::new(),
        previous: None,
    };
    score.as_planned = as_planned(&score, summary);
    score.actions = actions(&score, drill, summary);
    score.previous = previous.map(|previous| compare(previous, &score));
    score
}

fn checklist(drill: &Drill, entries: &[Entry]) -> Vec<CheckLine> {
    let evidence = |wanted: &str| {
        entries.iter().find_map(|entry| match entry {
            Entry::Checked { id, evidence, .. } if id == wanted => Some(evidence.clone()),
            _ => None,
        })
    };
    let line = |check: &super::file::Check| CheckLine {
        id: check.id.clone(),
        text: check.text.clone(),
        owner: check.owner.clone(),
        evidence: evidence(&check.id).unwrap_or_else(|| check.done.clone()),
    };
    drill.check.iter().map(line).collect()
}

/// Requests that ended within a quarter of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    ops: u64,
    unanswered: u64,
}

impl Bin {
    fn is_above(&self, limit: f64) -> bool {
        self.ops > 0 && self.unanswered as f64 > limit * self.ops as f64
    }
}

/// The evidence, as it is looked at.
struct Seen<'a> {
    drill: &'a Drill,
    history: &'a History,
    entries: &'a [Entry],
    attended: bool,
    bins: Vec<Bin>,
    samples: Vec<&'a Sample>,
    alerts: Vec<AlertSeen>,
}

fn us(ms: f64) -> Micros {
    (ms * 1e3) as Micros
}

fn ms(us: Micros) -> f64 {
    us as f64 / 1e3
}

fn bins(history: &History, step: Option<&str>) -> Vec<Bin> {
    let wanted = step.map(|step| history.names.find(step));
    let mut bins: Vec<Bin> = Vec::new();
    for op in history.ops.iter().filter(|op| wanted.is_none_or(|wanted| wanted == Some(op.step))) {
        let Ok(index) = usize::try_from(op.completed_us / BIN_US) else { continue };
        // A history whose times are nonsense must not take all memory.
        if index > 1 << 20 {
            continue;
        }
        if bins.len() <= index {
            bins.resize(index + 1, Bin::default());
        }
        bins[index].ops += 1;
        bins[index].unanswered += u64::from(op.is_unanswered());
    }
    bins
}

/// The alerts that began to fire: monitoring tells of one again and again while it does.
fn raised(alerts: &[AlertSeen]) -> impl Iterator<Item = &AlertSeen> {
    let fires = |alert: &AlertSeen| alert.status == "firing";
    let fired_before = move |number: usize| {
        alerts[..number].iter().rev().find(|other| other.name == alerts[number].name).is_some_and(fires)
    };
    (0..alerts.len())
        .filter(move |number| fires(&alerts[*number]) && !fired_before(*number))
        .map(|number| &alerts[number])
}

impl<'a> Seen<'a> {
    fn of(drill: &'a Drill, entries: &'a [Entry], history: &'a History) -> Seen<'a> {
        let epoch = history.info.epoch_unix_us;
        let alerts = entries.iter().filter_map(|entry| match entry {
            Entry::Alert { unix_us, name, status, summary } => Some(AlertSeen {
                at_ms: ms(unix_us - epoch),
                name: name.clone(),
                status: status.clone(),
                summary: summary.clone(),
            }),
            _ => None,
        });
        let samples = history.events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample),
            _ => None,
        });
        Seen {
            drill,
            history,
            entries,
            attended: entries.iter().any(|entry| matches!(entry, Entry::Opened { attended: true, .. })),
            bins: bins(history, None),
            samples: samples.collect(),
            alerts: alerts.collect(),
        }
    }

    /// When a fault is over: recovered from, or healed if no recovery was seen.
    fn end_us(fault: &FaultSummary) -> Micros {
        fault.recovered_at_ms.or(fault.healed_at_ms).map_or(Micros::MAX, us)
    }

    /// Until when an alert is about a fault: monitoring takes its time, but what comes after the next injection is about that.
    fn told_by_us(fault: &FaultSummary, summary: &Summary) -> Micros {
        let end = Self::end_us(fault);
        injection_after(fault, end, summary).min(end.saturating_add(ALERT_US))
    }

    fn fault(&self, fault: &FaultSummary, summary: &Summary) -> FaultScore {
        let place = fault.link.as_ref().or(fault.role.as_ref()).cloned().unwrap_or_default();
        let known = FaultScore { id: fault.id.clone(), kind: fault.kind.clone(), place, ..FaultScore::default() };
        let Some(injected) = fault.injected_at_ms else { return known };
        // Where no recovery was seen, what is lost until something else breaks is its doing, also after it was healed.
        let recovered = fault.recovered_at_ms.map(us);
        let (from, until) = (us(injected), recovered.unwrap_or_else(|| next_injection_us(fault, summary)));
        let since = |at_us: Micros| ms(at_us - from);
        let in_effect = |bin: &usize| (*bin as Micros + 1) * BIN_US > from && (*bin as Micros) * BIN_US < until;
        let mine: Vec<usize> = (0..self.bins.len()).filter(in_effect).collect();
        let lossy: Vec<usize> =
            mine.iter().copied().filter(|bin| self.bins[*bin].is_above(self.drill.loss_limit)).collect();
        let unsteady = self.samples.iter().find(|s| (from..until).contains(&s.at_us) && !s.steady).map(|s| s.at_us);
        // The last that was asked for was lost, and nobody saw it end.
        let last_asked = mine.iter().rev().find(|bin| self.bins[**bin].ops > 0);
        let goes_on = recovered.is_none() && last_asked.is_some_and(|bin| lossy.last() == Some(bin));
        let first_loss = lossy.first().map(|bin| (*bin as Micros + 1) * BIN_US);
        let seen = unsteady.into_iter().chain(first_loss).min();
        let told_by = Self::told_by_us(fault, summary);
        let alert = raised(&self.alerts).find(|alert| (from..told_by).contains(&us(alert.at_ms)));
        let silent_ms = self.silent_ms(&mine);
        let shop = match (silent_ms >= DEAD_MS, lossy.is_empty()) {
            (true, _) => Shop::Dead,
            (false, false) => Shop::Lossy,
            (false, true) => Shop::Unharmed,
        };
        let count = |of: fn(&Bin) -> u64| mine.iter().map(|bin| of(&self.bins[*bin])).sum::<u64>();
        let overlaps = |other: &&FaultSummary| {
            let other_from = other.injected_at_ms.map(us);
            other.id != fault.id
                && other_from.is_some_and(|other_from| other_from < until && from < Self::end_us(other))
        };
        FaultScore {
            injected_at_ms: Some(injected),
            lasted_ms: fault.healed_at_ms.map(|healed| healed - injected),
            alert_ms: alert.map(|alert| alert.at_ms - injected),
            alert: alert.map(|alert| alert.name.clone()),
            seen_ms: seen.map(since),
            loss_stopped_ms: lossy.last().filter(|_| !goes_on).map(|bin| since((*bin as Micros + 1) * BIN_US)),
            located_ms: self.located(fault).map(|at| at - injected).filter(|ms| *ms >= 0.0),
            recovered_ms: fault.recovered_at_ms.map(|at| at - injected),
            recovery_ms: fault.recovery_ms,
            shop,
            silent_ms,
            requests: count(|bin| bin.ops),
            unanswered: count(|bin| bin.unanswered),
            overlapped_by: summary.faults.iter().filter(overlaps).map(|other| other.id.clone()).collect(),
            ..known
        }
    }

    /// The longest time within these bins in which nobody got an answer, although somebody waited for one.
    fn silent_ms(&self, bins: &[usize]) -> f64 {
        let (mut longest, mut length, mut waited) = (0_i64, 0_i64, false);
        for bin in bins.iter().map(|bin| self.bins[*bin]) {
            if bin.ops > bin.unanswered {
                (length, waited) = (0, false);
                continue;
            }
            length += 1;
            waited |= bin.ops > 0;
            if waited {
                longest = longest.max(length);
            }
        }
        ms(longest * BIN_US)
    }

    /// When a step was first acknowledged that locates a fault, in milliseconds of the load's clock.
    fn located(&self, fault: &FaultSummary) -> Option<f64> {
        let steps = self.drill.runbook.iter().filter(|step| step.locates);
        let mine = steps
            .filter(|step| step.after.as_deref().is_some_and(|after| Drill::is_meant(after, &fault.id, &fault.kind)));
        mine.filter_map(|step| self.acknowledged(&step.id).map(|(at, _)| at)).min_by(f64::total_cmp)
    }

    /// When a step was acknowledged, in milliseconds of the load's clock, and by whom.
    fn acknowledged(&self, wanted: &str) -> Option<(f64, String)> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Acknowledged { unix_us, id, by, .. } if id == wanted => {
                Some((ms(unix_us - self.history.info.epoch_unix_us), by.clone()))
            }
            _ => None,
        })
    }

    fn step(&self, step: &Step, summary: &Summary) -> StepScore {
        let meant = |fault: &&FaultSummary| {
            step.after.as_deref().is_some_and(|after| Drill::is_meant(after, &fault.id, &fault.kind))
        };
        let after = summary.faults.iter().filter(meant).filter_map(|fault| fault.injected_at_ms).min_by(f64::total_cmp);
        // A load that was ended before never came so far.
        let ended = self.bins.len() as f64 * ms(BIN_US);
        let due_ms = step.at.map(|at| ms(at.micros())).filter(|at| *at <= ended).or(after);
        let done = self.acknowledged(&step.id);
        let took_ms = done.as_ref().zip(due_ms).map(|((at, _), due)| at - due);
        let within_ms = ms(step.within.micros());
        let outcome = match (due_ms, took_ms) {
            (None, _) => StepOutcome::NotReached,
            (_, Some(took)) if took <= within_ms => StepOutcome::InTime,
            (_, Some(_)) => StepOutcome::Late,
            (_, None) if !self.attended => StepOutcome::NotAsked,
            (_, None) => StepOutcome::Missed,
        };
        StepScore {
            id: step.id.clone(),
            text: step.text.clone(),
            owner: step.owner.clone(),
            by: done.map(|(_, by)| by).unwrap_or_default(),
            due_ms,
            within_ms,
            took_ms,
            outcome,
        }
    }

    /// The moments at which a signal was looked at, and whether it was there.
    fn signal(&self, expect: &Expectation) -> Vec<(Micros, bool)> {
        let epoch = self.history.info.epoch_unix_us;
        let meter = |wanted: &str, there: &dyn Fn(f64) -> bool| -> Vec<(Micros, bool)> {
            let at = |entry: &Entry| match entry {
                Entry::Meter { unix_us, name, value } if name == wanted => Some((unix_us - epoch, there(*value))),
                _ => None,
            };
            self.entries.iter().filter_map(at).collect()
        };
        let mut seen: Vec<(Micros, bool)> = match expect {
            Expectation { degrade_level: Some(level), .. } => {
                let there = |value: f64| value >= *level as f64;
                let samples = self.samples.iter().filter_map(|s| Some((s.at_us, there(s.degrade_level? as f64))));
                meter("degrade_level", &there).into_iter().chain(samples).collect()
            }
            Expectation { breaker: Some(dependency), .. } => {
                meter(&format!("breaker:{dependency}"), &|value| value > 0.0)
            }
            Expectation { errors: Some(errors), .. } => {
                let bins = bins(self.history, Some(&errors.step));
                let at = |(bin, found): (usize, &Bin)| ((bin as Micros + 1) * BIN_US, found.is_above(errors.above));
                bins.iter().enumerate().map(at).collect()
            }
            Expectation { alert: Some(name), .. } => {
                let raised = raised(&self.alerts).map(|alert| (alert, true));
                let resolved = self.alerts.iter().filter(|alert| alert.status != "firing").map(|alert| (alert, false));
                let mine = raised.chain(resolved).filter(|(alert, _)| alert.name == *name);
                mine.map(|(alert, fires)| (us(alert.at_ms), fires)).collect()
            }
            _ => self.samples.iter().map(|sample| (sample.at_us, !sample.steady)).collect(),
        };
        seen.sort_by_key(|(at, _)| *at);
        seen
    }

    fn expectation(&self, expect: &Expectation, summary: &Summary) -> Vec<ExpectScore> {
        let signal = self.signal(expect);
        let meant = summary.faults.iter().filter(|fault| Drill::is_meant(&expect.after, &fault.id, &fault.kind));
        let within_ms = ms(expect.within.micros());
        let back_within_ms = expect.back_within.map(|within| ms(within.micros()));
        // An alert that still fires from before tells nothing of this fault; a level that is up does.
        let carries = expect.alert.is_none();
        let one = |fault: &FaultSummary| {
            let next = next_injection_us(fault, summary);
            let times = fault
                .injected_at_ms
                .map(|injected| seen_and_gone(&signal, injected, fault.healed_at_ms, next, carries));
            let (seen_ms, back_ms) = times.unwrap_or_default();
            let outcome = match (times, seen_ms) {
                (None, _) => ExpectOutcome::NotReached,
                (_, None) => ExpectOutcome::NotSeen,
                (_, Some(seen)) if seen > within_ms => ExpectOutcome::Late,
                _ if back_within_ms.is_some_and(|within| back_ms.is_none_or(|back| back > within)) => {
                    ExpectOutcome::NotBack
                }
                _ => ExpectOutcome::Met,
            };
            ExpectScore {
                id: expect.id.clone(),
                text: expect.text.clone(),
                signal: expect.signal(),
                fault: fault.id.clone(),
                within_ms,
                seen_ms,
                back_within_ms,
                back_ms,
                outcome,
            }
        };
        let scores: Vec<ExpectScore> = meant.map(one).collect();
        if !scores.is_empty() {
            return scores;
        }
        // Nothing of the kind broke, which a reader has to be told: it was not tried.
        vec![ExpectScore {
            id: expect.id.clone(),
            text: expect.text.clone(),
            signal: expect.signal(),
            fault: expect.after.clone(),
            within_ms,
            seen_ms: None,
            back_within_ms,
            back_ms: None,
            outcome: ExpectOutcome::NotReached,
        }]
    }
}

/// When the first fault is injected after this one was healed: what is seen from then on is that one's doing.
fn next_injection_us(fault: &FaultSummary, summary: &Summary) -> Micros {
    fault.healed_at_ms.map_or(Micros::MAX, |healed| injection_after(fault, us(healed), summary))
}

/// When another fault is injected first, from a moment on.
fn injection_after(fault: &FaultSummary, from: Micros, summary: &Summary) -> Micros {
    let others = summary.faults.iter().filter(|other| other.id != fault.id);
    others.filter_map(|other| other.injected_at_ms.map(us)).filter(|at| *at >= from).min().unwrap_or(Micros::MAX)
}

/// From the injection to the first moment at which a signal is there, before `next` breaks; and from the healing to the first from
/// which it stays away. A signal that was there before counts at once if it `carries` over.
fn seen_and_gone(
    signal: &[(Micros, bool)],
    injected_ms: f64,
    healed_ms: Option<f64>,
    next: Micros,
    carries: bool,
) -> (Option<f64>, Option<f64>) {
    let (injected, healed) = (us(injected_ms), healed_ms.map(us));
    let until = healed.map_or(Micros::MAX, |healed| healed.saturating_add(TAIL_US)).min(next);
    // One that was there before has not changed since, as meters are only written when they do.
    let before = signal.iter().rev().find(|(at, _)| *at < injected).is_some_and(|(_, there)| *there);
    let first = signal.iter().find(|(at, there)| *there && (injected..until).contains(at)).map(|(at, _)| *at);
    let Some(seen) = first.or((before && carries).then_some(injected)) else { return (None, None) };
    let gone = healed.and_then(|healed| {
        let from = healed.max(seen);
        let stays_away = |at: Micros| !signal.iter().any(|(t, there)| *there && (at..at + GONE_US).contains(t));
        let last = signal.iter().rev().find(|(at, _)| *at <= from);
        if last.is_some_and(|(_, there)| !*there) && stays_away(from) {
            return Some(from - healed);
        }
        let later = signal.iter().find(|(at, there)| *at >= from && !*there && stays_away(*at));
        later.map(|(at, _)| at - healed)
    });
    (Some(ms(seen - injected)), gone.map(ms))
}

fn as_planned(score: &Score, summary: &Summary) -> Vec<String> {
    let mut out = Vec::new();
    let held = summary.invariants.iter().filter(|finding| finding.verdict == Verdict::Pass).count();
    if held > 0 {
        out.push(format!("{held} of {} invariants hold.", summary.invariants.len()));
    }
    out.extend(summary.slos.iter().filter(|slo| slo.met == Some(true)).map(|slo| format!("{}: met.", slo.name)));
    let met = score.expectations.iter().filter(|expect| expect.outcome == ExpectOutcome::Met);
    out.extend(met.map(|expect| format!("{} ({}).", expect.text.trim_end_matches('.'), expect.fault)));
    let in_time = score.runbook.iter().filter(|step| step.outcome == StepOutcome::InTime);
    out.extend(in_time.map(|step| format!("{}: acknowledged in time.", step.text.trim_end_matches('.'))));
    let recovered = score.faults.iter().filter(|fault| fault.recovered_ms.is_some()).count();
    if recovered > 0 {
        out.push(format!("{recovered} of {} faults were recovered from.", score.faults.len()));
    }
    out.extend(
        summary
            .cleaned_up
            .iter()
            .filter(|cleaned| cleaned.clean)
            .map(|cleaned| format!("{}.", cleaned.text.trim_end_matches('.'))),
    );
    out
}

fn actions(score: &Score, drill: &Drill, summary: &Summary) -> Vec<Action> {
    let mut out = Vec::new();
    let mut add = |owner: &str, text: String| out.push(Action { owner: owner.to_owned(), text });
    for finding in summary.invariants.iter().filter(|finding| finding.verdict == Verdict::Fail) {
        add("", format!("Mend the violation of {} ({}): its witness is in report.html.", finding.id, finding.name));
    }
    if let Some(cleaned) = summary.cleaned_up.as_ref().filter(|cleaned| !cleaned.clean) {
        add("", format!("Take the traces of the drill out of the shop: {}.", cleaned.text.trim_end_matches('.')));
    }
    for slo in summary.slos.iter().filter(|slo| slo.met == Some(false)) {
        add("", format!("Meet the objective {} (measured: {}).", slo.name, slo.measured));
    }
    for expect in score.expectations.iter().filter(|expect| expect.outcome.is_missed()) {
        let outcome = expect.outcome.words();
        add(
            "",
            format!(
                "{outcome} after {}: {}. Find out why \"{}\" was expected.",
                expect.fault, expect.signal, expect.text
            ),
        );
    }
    for fault in score.faults.iter().filter(|fault| fault.injected_at_ms.is_some()) {
        if fault.alert_ms.is_none() && fault.shop != Shop::Unharmed {
            add(
                "",
                format!("Make the monitoring tell of {} ({} on {}): no alert came.", fault.id, fault.kind, fault.place),
            );
        }
        if fault.shop == Shop::Dead {
            let silent = fault.silent_ms / 1e3;
            add("", format!("Keep the shop answering during {}: for {silent:.1} s nobody got an answer.", fault.id));
        }
        if fault.recovered_ms.is_none() {
            add("", format!("Find out why no recovery from {} was seen.", fault.id));
        }
    }
    for step in &score.runbook {
        match step.outcome {
            StepOutcome::Missed => add(&step.owner, format!("Practise \"{}\": nobody acknowledged it.", step.text)),
            StepOutcome::Late => {
                let (took, within) = (step.took_ms.unwrap_or(0.0) / 1e3, step.within_ms / 1e3);
                add(&step.owner, format!("Make \"{}\" faster: it took {took:.1} s of {within:.1} s.", step.text));
            }
            _ => {}
        }
    }
    if !score.attended && !drill.runbook.is_empty() {
        add("", "Hold it with people: nobody was asked this time.".to_owned());
    }
    out
}

/// Figures that are compared from drill to drill.
fn figures(score: &Score) -> Vec<(String, bool, Option<f64>)> {
    let mut out = Vec::new();
    for fault in &score.faults {
        let name = |what: &str| format!("{}: {what}", fault.id);
        out.push((name("to an alert"), true, fault.alert_ms));
        out.push((name("to the end of the loss"), true, fault.loss_stopped_ms));
        out.push((name("to its cause"), true, fault.located_ms));
        out.push((name("to the recovery"), true, fault.recovered_ms));
    }
    let missed = score.expectations.iter().filter(|expect| expect.outcome.is_missed()).count();
    out.push(("expectations missed".to_owned(), false, Some(missed as f64)));
    let late = |step: &&StepScore| matches!(step.outcome, StepOutcome::Late | StepOutcome::Missed);
    out.push(("steps late or missed".to_owned(), false, Some(score.runbook.iter().filter(late).count() as f64)));
    let unanswered: u64 = score.faults.iter().map(|fault| fault.unanswered).sum();
    out.push(("requests without an answer".to_owned(), false, Some(unanswered as f64)));
    out
}

fn compare(previous: &Score, now: &Score) -> Comparison {
    let before = figures(previous);
    let figure = |(name, is_time, now): (String, bool, Option<f64>)| {
        let before = before.iter().find(|(known, ..)| *known == name).and_then(|(.., value)| *value);
        Change { name, is_time, before, now }
    };
    let figures = figures(now).into_iter().map(figure);
    Comparison {
        started_at: previous.started_at.clone(),
        same_timeline: previous.timeline_hash == now.timeline_hash,
        verdict: previous.verdict,
        figures: figures.filter(|change| change.before.is_some() || change.now.is_some()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal that is looked at every 100 ms, and is there between two times.
    fn looked_at(there: std::ops::Range<i64>) -> Vec<(Micros, bool)> {
        (0..100).map(|n| n * 100).map(|ms| (ms * 1_000, there.contains(&ms))).collect()
    }

    #[test]
    fn a_signal_is_seen_from_the_injection_and_gone_from_the_healing() {
        let seen = |there, injected, healed| seen_and_gone(&looked_at(there), injected, healed, Micros::MAX, true);
        assert_eq!(seen(2_300..5_500, 2_000.0, Some(5_000.0)), (Some(300.0), Some(500.0)));
        assert_eq!(seen(2_300..4_000, 2_000.0, Some(5_000.0)), (Some(300.0), Some(0.0)), "gone before the healing");
        assert_eq!(seen(0..0, 2_000.0, Some(5_000.0)), (None, None), "never there");
        assert_eq!(seen(2_300..100_000, 2_000.0, Some(5_000.0)), (Some(300.0), None), "never gone");
        assert_eq!(seen(8_000..9_000, 2_000.0, Some(5_000.0)), (None, None), "long after is something else's doing");
        assert_eq!(seen(2_300..5_500, 2_000.0, None), (Some(300.0), None), "never healed");
    }

    #[test]
    fn a_signal_that_goes_for_a_moment_only_has_not_gone() {
        let mut signal = looked_at(2_300..5_500);
        signal.iter_mut().filter(|(at, _)| (6_000_000..6_300_000).contains(at)).for_each(|(_, there)| *there = true);
        assert_eq!(seen_and_gone(&signal, 2_000.0, Some(5_000.0), Micros::MAX, true), (Some(300.0), Some(1_300.0)));
    }

    #[test]
    fn a_meter_that_was_up_before_is_there_at_once() {
        let signal = [(1_000_000, true), (6_000_000, false)];
        let seen = |carries| seen_and_gone(&signal, 2_000.0, Some(5_000.0), Micros::MAX, carries);
        assert_eq!(seen(true), (Some(0.0), Some(1_000.0)));
        assert_eq!(seen(false), (None, None), "an alert that fires since an earlier fault");
    }

    #[test]
    fn what_comes_after_the_next_injection_is_that_ones_doing() {
        let signal = looked_at(5_500..7_000);
        let seen = |next| seen_and_gone(&signal, 2_000.0, Some(5_000.0), next, true).0;
        assert_eq!((seen(Micros::MAX), seen(5_400_000)), (Some(3_500.0), None));
    }

    #[test]
    fn an_alert_that_is_told_again_is_no_news() {
        let told = [
            (1, "down", "firing"),
            (2, "slow", "firing"),
            (3, "down", "firing"),
            (4, "down", "resolved"),
            (5, "down", "firing"),
        ];
        let alerts = told.map(|(at, name, status)| AlertSeen {
            at_ms: f64::from(at),
            name: name.to_owned(),
            status: status.to_owned(),
            summary: String::new(),
        });
        assert_eq!(raised(&alerts).map(|alert| alert.at_ms).collect::<Vec<_>>(), [1.0, 2.0, 5.0]);
    }

    #[test]
    fn above_the_limit_is_more_than_it() {
        assert!(!Bin { ops: 0, unanswered: 0 }.is_above(0.0), "where nobody asked, nothing was lost");
        assert!(!Bin { ops: 100, unanswered: 1 }.is_above(0.01));
        assert!(Bin { ops: 100, unanswered: 2 }.is_above(0.01));
    }
}
