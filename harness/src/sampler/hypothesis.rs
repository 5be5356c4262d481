//! The steady-state hypothesis: probes that all have to hold.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::history::{Micros, Outcome, Sample};
use crate::load::client::Connection;
use crate::load::clock::Clock;
use crate::load::live::Live;
use crate::scenario::Scenario;
use crate::scenario::journey::{CompiledStep, Journey};
use crate::scenario::steady::{ProbeSpec, percent};
use crate::scenario::template::Values;
use crate::stack::Stack;

/// The probes, each made again and again beside the load.
#[derive(Debug)]
pub struct Hypothesis {
    probes: Vec<Probe>,
    pub(super) every: Duration,
    pub(super) hold: u32,
    item: i64,
}

/// What one round of all probes came to.
#[derive(Debug)]
pub(super) struct Round {
    /// As it is written into the history.
    pub sample: Sample,
    /// When the last probe was answered.
    pub answered_us: Micros,
    /// For each probe, when it was answered, if it held.
    pub held: Vec<Option<Micros>>,
}

#[derive(Debug)]
struct Probe {
    name: String,
    asks: Asks,
}

#[derive(Debug)]
enum Asks {
    /// A request over a connection of its own.
    Request(Box<Request>),
    /// What the buyers see.
    Load { live: Option<Arc<Live>>, cohort: Option<usize>, most: f64, over: Duration },
}

#[derive(Debug)]
struct Request {
    connection: Connection,
    bytes: Vec<u8>,
    step: CompiledStep,
    within: Duration,
    /// A number of the reply, and its bounds.
    bound: Option<(String, f64, f64)>,
    /// Where the reply says how many units are available, if it is this one that is asked for it.
    available: Option<String>,
}

/// What a probe came to.
struct Answer {
    answered_us: Micros,
    why_not: Option<String>,
    available: Option<i64>,
    degrade_level: Option<i64>,
}

impl Hypothesis {
    /// The probes that the scenario declares, through the stack's first link.
    pub fn new(scenario: &Scenario, stack: &Stack) -> Hypothesis {
        let spec = &scenario.steady_state;
        let item = scenario.item.first().map_or(0, |i| i.id);
        let specs = spec.probes();
        let first = specs.iter().position(|probe| probe.step.is_some());
        let probe = |(index, probe): (usize, &ProbeSpec)| {
            let available = (Some(index) == first).then(|| spec.available.clone());
            Probe { name: probe.name.clone(), asks: Asks::of(probe, scenario, stack, available) }
        };
        let probes = specs.iter().enumerate().map(probe).collect();
        Hypothesis { probes, every: spec.every.0, hold: spec.hold, item }
    }

    /// The names of the probes, in their order.
    pub(super) fn names(&self) -> Arc<[String]> {
        self.probes.iter().map(|probe| probe.name.clone()).collect()
    }

    /// From now on there is a load to look at.
    pub(super) fn look_at(&mut self, load: &Arc<Live>) {
        for probe in &mut self.probes {
            if let Asks::Load { live, .. } = &mut probe.asks {
                *live = Some(load.clone());
            }
        }
    }

    /// Makes each probe once, all at the same time, so that one that hangs does not hide the others.
    pub(super) async fn round(&mut self, clock: Clock) -> Round {
        let at_us = clock.now_us();
        let answers = join_all(self.probes.iter_mut().map(|probe| probe.asks.once(clock))).await;
        let answered_us = answers.iter().map(|answer| answer.answered_us).max().unwrap_or(at_us);
        let several = self.probes.len() > 1;
        let why_not = self.probes.iter().zip(&answers).find_map(|(probe, answer)| {
            let why = answer.why_not.as_ref()?;
            Some(if several { format!("{}: {why}", probe.name) } else { why.clone() })
        });
        let sample = Sample {
            at_us,
            available: answers.iter().find_map(|answer| answer.available),
            item: self.item,
            steady: why_not.is_none(),
            probe_us: u64::try_from(answered_us - at_us).unwrap_or(0),
            why_not,
            degrade_level: answers.iter().find_map(|answer| answer.degrade_level),
        };
        let held = answers.iter().map(|answer| answer.why_not.is_none().then_some(answer.answered_us)).collect();
        Round { sample, answered_us, held }
    }

    /// Waits until the hypothesis holds before the load begins.
    ///
    /// # Errors
    /// Which probe does not hold and why, after the limit.
    pub async fn must_hold(&mut self, limit: Duration) -> Result<(), String> {
        let clock = Clock::starting_in(0);
        let mut held = 0;
        let mut why = String::new();
        while clock.now_us() < limit.as_micros() as Micros {
            let Round { sample, .. } = self.round(clock).await;
            held = if sample.steady { held + 1 } else { 0 };
            if held >= self.hold {
                return Ok(());
            }
            why = sample.why_not.unwrap_or(why);
            tokio::time::sleep(self.every.min(Duration::from_millis(20))).await;
        }
        Err(format!("the steady-state hypothesis does not hold before the load: {why}"))
    }
}

impl Asks {
    fn of(spec: &ProbeSpec, scenario: &Scenario, stack: &Stack, available: Option<String>) -> Asks {
        let Some(step) = &spec.step else {
            let cohort = scenario.cohort_number(spec.cohort.as_deref());
            return Asks::Load { live: None, cohort, most: spec.error_fraction.unwrap_or(1.0), over: spec.over() };
        };
        let step = Journey::compile_probe(scenario, step.get_ref()).expect("a validated scenario compiles");
        let item = scenario.item.first().map_or(0, |i| i.id);
        let values = Values { user: "probe", key: "probe", item, quantity: 1, captured: &[], cookies: "" };
        let bound = spec.json.clone().map(|pointer| {
            (pointer, spec.at_least.unwrap_or(f64::NEG_INFINITY), spec.at_most.unwrap_or(f64::INFINITY))
        });
        Asks::Request(Box::new(Request {
            connection: Connection::new(&stack.entry),
            bytes: step.request(&values, stack.entry.header_lines().as_bytes()),
            within: spec.within.unwrap_or_default().0,
            step,
            bound,
            available,
        }))
    }

    async fn once(&mut self, clock: Clock) -> Answer {
        match self {
            Asks::Request(request) => request.once(clock).await,
            Asks::Load { live, cohort, most, over } => {
                let now_us = clock.now_us();
                let view = live.as_ref().map(|live| live.window(*cohort, now_us, *over));
                // Where nobody has asked for anything, nothing has failed.
                let share = view.and_then(|view| view.error_fraction()).unwrap_or(0.0);
                let why_not = (share > *most).then(|| {
                    format!("{}% of the requests without an answer, {}% allowed", percent(share), percent(*most))
                });
                Answer { answered_us: now_us, why_not, available: None, degrade_level: None }
            }
        }
    }
}

impl Request {
    async fn once(&mut self, clock: Clock) -> Answer {
        let name = &self.step.name;
        let (mut available, mut degrade_level) = (None, None);
        let why_not = match self.connection.exchange(&self.bytes, self.within).await {
            Ok(reply) if (200..300).contains(&reply.status) || self.step.check.declares(reply.status) => {
                degrade_level = reply.header("x-degrade-level").find_map(|level| level.trim().parse().ok());
                let json = serde_json::from_slice::<Value>(reply.body).unwrap_or_default();
                let met = self.step.rules.as_ref().and_then(|rules| rules.first(&reply, &json));
                let refused = met.filter(|(met, _)| met.means.outcome() != Outcome::Ok);
                let refused = refused.map(|(_, reason)| format!("`{name}` answered {reason}"));
                available = self.available.as_ref().and_then(|pointer| json.pointer(pointer)?.as_i64());
                let failed = self.step.check.failed(&reply, &json).map(|check| format!("`{name}`: {check}"));
                refused.or(failed).or_else(|| out_of_bounds(name, &json, self.bound.as_ref()?))
            }
            Ok(reply) => Some(format!("`{name}` answered {}", reply.status)),
            Err(broken) => Some(format!("`{name}`: {} within {:?}", broken.reason(), self.within)),
        };
        Answer { answered_us: clock.now_us(), why_not, available, degrade_level }
    }
}

/// What is wrong with a number of a reply that has bounds.
fn out_of_bounds(step: &str, reply: &Value, (pointer, least, most): &(String, f64, f64)) -> Option<String> {
    let value = reply.pointer(pointer);
    let number = value.and_then(Value::as_f64);
    (!number.is_some_and(|number| (*least..=*most).contains(&number))).then(|| {
        let value = value.map_or("nothing".to_owned(), Value::to_string);
        format!("`{step}` has {value} at {pointer}, from {least} to {most} is allowed")
    })
}
