//! When things break: the `[[fault]]` and `[[chaos]]` of a scenario, and the timeline that the seed makes of them.
//!
//! The timeline is a pure function of the scenario and its seed. A fault whose moment is an event of the run has a bound,
//! so that the longest that a timeline takes is known beforehand. Who carries it out is the nemesis.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use rand::RngExt;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::Scenario;
use super::value::{Drawn, Dur};
use crate::fault::Inject;
use crate::history::{FaultPlan, Micros};
use crate::random;

/// Something that breaks. When is said by one of `at`, `during` and `after`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Unique in the scenario.
    pub id: String,
    /// When it is injected, counted from the start of the load; `["2s", "4s"]` draws a time between the two from the seed.
    pub at: Option<Drawn>,
    /// The phase at whose start it is injected; it is healed at the phase's end, unless it `lasts` less.
    #[schemars(with = "Option<String>")]
    pub during: Option<Spanned<String>>,
    /// The event after which it is injected.
    #[schemars(with = "Option<After>")]
    pub after: Option<Spanned<After>>,
    /// When it is healed, counted from its injection; two lengths draw one between them from the seed.
    pub lasts: Option<Drawn>,
    /// How likely it is to happen at all, from 0 to 1, drawn from the seed.
    #[serde(default = "super::one")]
    pub chance: f64,
    /// Whether a run means something in which the event of `after` never came. Otherwise such a run is unknown (I11).
    #[serde(default)]
    pub optional: bool,
    /// What is done.
    pub inject: Inject,
}

/// An event of the run after which a fault is injected: one of `stock`, `first`, `healed`, `recovered` and `rate`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct After {
    /// At most this share of the first item's stock is available, as the steady-state probe sees it: 0.5 is half of it.
    pub stock: Option<f64>,
    /// A buyer is refused for this reason for the first time: `"sold-out"`, `"timeout"`, `"http-429"`.
    pub first: Option<String>,
    /// This fault was healed.
    pub healed: Option<String>,
    /// The steady state holds again after this fault was healed.
    pub recovered: Option<String>,
    /// At least so many requests ended in one second.
    pub rate: Option<f64>,
    /// From the event to the injection.
    pub delay: Dur,
    /// The event must have come by then, counted from the start of the load, or the fault is not injected. As late as lets
    /// the fault be healed before the load is over, if absent.
    pub by: Option<Dur>,
}

impl After {
    /// The event; none unless exactly one is named.
    pub fn cause(&self) -> Option<Cause> {
        let named = [
            self.stock.map(Cause::StockLeft),
            self.first.clone().map(Cause::First),
            self.healed.clone().map(Cause::Healed),
            self.recovered.clone().map(Cause::Recovered),
            self.rate.map(Cause::Rate),
        ];
        let mut named = named.into_iter().flatten();
        named.next().filter(|_| named.next().is_none())
    }
}

/// Faults at random: which of the candidates, when and for how long is drawn from the seed, within these bounds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chaos {
    /// Unique in the scenario; its faults are called `ID-1`, `ID-2` and so on.
    pub id: String,
    /// How many there are.
    pub faults: u32,
    /// None is injected earlier than this after the start of the load.
    pub from: Dur,
    /// All are to be healed by then.
    pub until: Dur,
    /// How long each lasts: the shortest and the longest.
    pub lasts: Drawn,
    /// Between two injections, and between a healing and the next injection, as long as `concurrent` does not allow for more.
    #[serde(default)]
    pub gap: Dur,
    /// How many are planned to be in effect at once at most.
    #[serde(default = "one_at_once")]
    pub concurrent: u32,
    /// The candidates. None overlaps itself, and no two overlap on the same process.
    pub inject: Vec<Inject>,
}

fn one_at_once() -> u32 {
    1
}

/// A fault of this run's timeline: what was left to the seed is drawn.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Unique in the scenario.
    pub id: String,
    /// When it is injected.
    pub when: When,
    /// When it is healed, counted from its injection.
    pub lasts: Dur,
    /// Whether the run means something without it.
    pub optional: bool,
    /// What is done.
    pub inject: Inject,
}

/// When a fault is injected.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// At this time, counted from the start of the load.
    At(Dur),
    /// After an event.
    After {
        /// The event.
        cause: Cause,
        /// From the event to the injection.
        delay: Dur,
        /// The event must have come by then, counted from the start of the load.
        by: Dur,
    },
}

/// An event that a fault may wait for.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// At most this share of the first item's stock is available.
    StockLeft(f64),
    /// A buyer was refused for this reason.
    First(String),
    /// The fault was healed.
    Healed(String),
    /// The steady state holds again after the fault was healed.
    Recovered(String),
    /// So many requests ended in one second.
    Rate(f64),
}

impl Cause {
    /// The fault that it is about.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Cause::Healed(id) | Cause::Recovered(id) => Some(id),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::StockLeft(share) => write!(f, "at most {}% of the stock is left", (share * 1e4).round() / 1e2),
            Cause::First(reason) => write!(f, "the first \"{reason}\""),
            Cause::Healed(id) => write!(f, "{id} was healed"),
            Cause::Recovered(id) => write!(f, "recovery from {id}"),
            Cause::Rate(rate) => write!(f, "{rate} requests in one second"),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::At(at) => at.fmt(f),
            When::After { cause, delay, by } if delay.0.is_zero() => write!(f, "after {cause}, by {by}"),
            When::After { cause, delay, by } => write!(f, "{delay} after {cause}, by {by}"),
        }
    }
}

impl Planned {
    /// When it is injected at the latest, counted from the start of the load.
    pub fn latest(&self) -> Dur {
        match &self.when {
            When::At(at) => *at,
            When::After { delay, by, .. } => Dur(by.0.saturating_add(delay.0)),
        }
    }

    /// When it is to be healed at the latest.
    pub fn healed_by(&self) -> Dur {
        Dur(self.latest().0.saturating_add(self.lasts.0))
    }

    /// As the history tells of it.
    pub fn plan(&self) -> FaultPlan {
        let trigger = match &self.when {
            When::At(_) => None,
            after @ When::After { .. } => Some(after.to_string()),
        };
        FaultPlan {
            id: self.id.clone(),
            kind: self.inject.kind().to_owned(),
            link: self.inject.link(),
            role: self.inject.role().map(str::to_owned),
            detail: self.inject.fault().detail(),
            at_us: self.latest().micros(),
            until_us: self.healed_by().micros(),
            trigger,
            optional: self.optional,
            clock: self.inject.fault().clock_error(),
        }
    }
}

impl Scenario {
    /// The faults of this run: what the scenario leaves open is drawn from the seed, each fault from a stream of its own,
    /// so that adding one shifts no other. A fault that waits for one that chance leaves out is left out, too.
    pub fn timeline(&self) -> Vec<Planned> {
        let mut timeline = Vec::new();
        for (index, fault) in self.fault.iter().enumerate() {
            let fault = fault.get_ref();
            let mut rng = random::stream(self.seed, index as u64);
            let (at, lasts) = (rng.random(), rng.random());
            if rng.random::<f64>() < fault.chance {
                timeline.push(self.planned(fault, at, lasts));
            }
        }
        for (index, chaos) in self.chaos.iter().enumerate() {
            timeline.extend(chaos.get_ref().expand(self.seed, index as u64));
        }
        while let Some(idle) = timeline.iter().position(|fault| match &fault.when {
            When::After { cause, .. } => cause.fault().is_some_and(|id| timeline.iter().all(|other| other.id != id)),
            When::At(_) => false,
        }) {
            timeline.remove(idle);
        }
        timeline
    }

    /// One fault, with the random numbers from 0 up to 1 that stand for its time and its length. It is asked of scenarios
    /// that are not yet found valid, too.
    fn planned(&self, fault: &Fault, at: f64, lasts: f64) -> Planned {
        let during =
            fault.during.as_ref().and_then(|name| self.phase.iter().find(|phase| phase.name == *name.get_ref()));
        let lasts = match (fault.lasts, during) {
            (Some(drawn), _) => drawn.draw(lasts),
            (None, Some(phase)) => Dur(phase.until.0.saturating_sub(phase.from.0)),
            (None, None) => Dur::default(),
        };
        let after = fault.after.as_ref().map(Spanned::get_ref);
        let when = match after.and_then(|after| Some((after, after.cause()?))) {
            Some((after, cause)) => {
                // By the longest that it may last, so that a bound which was left out does not vary with the seed.
                let longest = fault.lasts.map_or(lasts, |lasts| lasts.most);
                let latest = self.load.duration.0.saturating_sub(longest.0).saturating_sub(after.delay.0);
                When::After { cause, delay: after.delay, by: after.by.unwrap_or(Dur(latest)) }
            }
            None => When::At(match during {
                Some(phase) => phase.from,
                None => fault.at.map_or(Dur::default(), |drawn| drawn.draw(at)),
            }),
        };
        Planned { id: fault.id.clone(), when, lasts, optional: fault.optional, inject: fault.inject.clone() }
    }

    /// A hash of the timeline: the same scenario and seed give the same hash (64-bit FNV-1a over what is told of each fault).
    pub fn timeline_hash(&self) -> String {
        let mut text = String::new();
        for fault in self.timeline() {
            let FaultPlan { id, kind, link, role, detail, .. } = fault.plan();
            let place = link.or(role).unwrap_or_default();
            let (when, lasts, optional) = (&fault.when, fault.lasts, fault.optional);
            let _ = writeln!(text, "{id}|{kind}|{place}|{detail}|{when}|{lasts}|{optional}");
        }
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }
}

/// Streams of random numbers from here on, one for each `[[chaos]]`.
const CHAOS: u64 = 5 << 40;

impl Chaos {
    /// The faults that a seed makes of it; `index` tells it from others of the scenario. Whatever the seed, they keep the
    /// bounds, if [`Chaos::shortest`] fits between `from` and `until`.
    fn expand(&self, seed: u64, index: u64) -> Vec<Planned> {
        let mut rng = random::stream(seed, CHAOS + index);
        let lengths: Vec<Micros> = (0..self.faults).map(|_| self.lasts.draw(rng.random()).micros()).collect();
        let window = self.until.micros() - self.from.micros();
        let spare = (window - self.starts(&lengths, &[]).1).max(0);
        // Pushing one fault back pushes no later one back by more, so delays that add up to the spare time always fit.
        let mut delay = || (spare as f64 / 1e3 * rng.random::<f64>()) as Micros * 1_000;
        let mut delays: Vec<Micros> = lengths.iter().map(|_| delay()).collect();
        delays.sort_unstable();
        let (starts, _) = self.starts(&lengths, &delays);
        let mut under_way: Vec<(Micros, usize)> = Vec::new();
        let mut planned = Vec::new();
        for (number, (start, length)) in starts.into_iter().zip(lengths).enumerate() {
            under_way.retain(|(end, _)| *end > start);
            let free = |candidate: &usize| under_way.iter().all(|(_, other)| !self.excludes(*candidate, *other));
            let free: Vec<usize> = (0..self.inject.len()).filter(free).collect();
            if free.is_empty() {
                continue;
            }
            let chosen = free[rng.random_range(0..free.len() as u32) as usize];
            under_way.push((start + length + self.gap.micros(), chosen));
            planned.push(Planned {
                id: format!("{}-{}", self.id, number + 1),
                when: When::At(Dur(self.from.0 + micros(start))),
                lasts: Dur(micros(length)),
                optional: false,
                inject: self.inject[chosen].clone(),
            });
        }
        planned
    }

    /// When each fault starts, counted from `from`, if each is pushed back so far that the delays so far are made up; and
    /// when the last has ended. Each has to wait for a gap after the one before it, and until fewer than `concurrent` are in
    /// effect.
    fn starts(&self, lengths: &[Micros], delays: &[Micros]) -> (Vec<Micros>, Micros) {
        let gap = self.gap.micros();
        let mut free = vec![0; self.concurrent.max(1) as usize];
        let (mut earliest, mut before, mut end) = (0, 0, 0);
        let mut starts = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let delay = delays.get(index).copied().unwrap_or(0);
            let lane = free.iter_mut().min().expect("there is at least one lane");
            let start = Micros::max(earliest, *lane) + delay - before;
            before = delay;
            end = end.max(start + length);
            *lane = start + length + gap;
            earliest = start + gap;
            starts.push(start);
        }
        (starts, end)
    }

    /// The shortest window in which all of its faults have room, whatever lengths are drawn.
    pub fn shortest(&self) -> Dur {
        let longest = vec![self.lasts.most.micros(); self.faults as usize];
        Dur(micros(self.starts(&longest, &[]).1))
    }

    /// Faults that may be in effect at once at most, since none overlaps itself or another on the same process.
    pub fn most_at_once(&self) -> u32 {
        let places = (0..self.inject.len()).map(|index| match self.inject[index].role() {
            Some(role) => (role.to_owned(), 0),
            None => (String::new(), index),
        });
        places.collect::<BTreeSet<_>>().len() as u32
    }

    /// Whether one candidate may not be in effect while the other is.
    fn excludes(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.inject[one], &self.inject[other]);
        one == other || a.role().is_some() && a.role() == b.role()
    }
}

fn micros(us: Micros) -> Duration {
    Duration::from_micros(us.max(0) as u64)
}

#[cfg(test)]
mod tests;
