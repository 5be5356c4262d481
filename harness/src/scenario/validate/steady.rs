//! What the steady-state hypothesis and the conditions that stop a run must hold.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::{Mistakes, Place, reading};
use crate::scenario::Scenario;
use crate::scenario::journey::Journey;
use crate::scenario::steady::{ProbeSpec, Stop};
use crate::scenario::value::Dur;

/// A window is kept in memory for each cohort.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);

/// Everything that is wrong with `[steady_state]`.
pub(super) fn steady_state(scenario: &Scenario, m: &mut Mistakes) {
    let steady = &scenario.steady_state;
    let probes = steady.probes();
    if probes.iter().all(|probe| probe.step.is_none()) {
        m.add(
            Place::key("steady_state"),
            "steady_state has no request that could be made",
            "step = \"state\" and within = \"500ms\", or [[steady_state.probe]] with name, step and within",
        );
    }
    if steady.step.is_none() && steady.within.is_some() {
        m.add(
            Place::key("steady_state.within"),
            "steady_state has `within`, and no `step`",
            "name the step, or remove the key",
        );
    }
    if steady.every.0.is_zero() || steady.hold == 0 {
        let at = steady.step.as_ref().map_or(Place::key("steady_state"), |step| step.span().into());
        m.add(at, "steady_state: `every` and `hold` must be more than 0", "every = \"50ms\", hold = 3");
    }
    let plain = steady.step.iter().map(|step| (step.span(), "steady_state".to_owned()));
    let named = steady.probe.iter().map(|probe| (probe.span(), format!("probe \"{}\"", probe.get_ref().name)));
    let mut seen = BTreeSet::new();
    for ((at, called), spec) in plain.chain(named).zip(&probes) {
        if spec.name.is_empty() || !seen.insert(&spec.name) {
            let what = format!("{called}: a probe has a `name`, and no other has the same");
            m.add(
                at.clone(),
                what,
                "give each [[steady_state.probe]] a name of its own; one without a table is called as its step",
            );
        }
        probe(scenario, &at, &called, spec, m);
    }
}

/// One probe, which asks for something or looks at the load.
fn probe(scenario: &Scenario, at: &Range<usize>, called: &str, spec: &ProbeSpec, m: &mut Mistakes) {
    let of_load = spec.error_fraction.is_some() || spec.cohort.is_some() || spec.over.is_some();
    let of_step = spec.within.is_some() || spec.json.is_some() || spec.at_least.is_some() || spec.at_most.is_some();
    match (&spec.step, spec.error_fraction) {
        (Some(_), _) if of_load => m.add(
            at.clone(),
            format!("{called}: a probe asks for a `step`, or looks at the `error_fraction` of the load"),
            "make two probes of it",
        ),
        (None, Some(share)) if !of_step => {
            super::fraction(&format!("error_fraction of {called}"), share, at.clone(), m);
            window(scenario, (at, called), spec.cohort.as_deref(), spec.over(), m);
        }
        (Some(step), _) => {
            self::step(scenario, called, step, m);
            if spec.within.is_none_or(|within| within.0.is_zero()) {
                m.add(at.clone(), format!("{called} does not say within which time"), "within = \"500ms\"");
            }
            bounds(at, called, spec, m);
        }
        _ => m.add(
            at.clone(),
            format!("{called} neither asks for a `step` nor has an `error_fraction` alone"),
            "step and within, with json and at_least or at_most if wanted; or error_fraction, with cohort and over if wanted",
        ),
    }
}

/// A step that can be asked for by itself, and answers at once.
fn step(scenario: &Scenario, called: &str, step: &toml::Spanned<String>, m: &mut Mistakes) {
    let Some(found) = scenario.step.get(step.get_ref()) else {
        let known: Vec<&str> = scenario.step.keys().map(String::as_str).collect();
        let what = format!("{called}: there is no step \"{}\"", step.get_ref());
        return m.add(step.span(), what, format!("one of {}", known.join(", ")));
    };
    if found.get_ref().sse {
        m.add(step.span(), format!("{called}: a stream of events is no probe"), "name a step that is answered at once");
    }
    if let Err((at, why)) = Journey::compile_probe(scenario, step.get_ref()) {
        let at = if at.is_empty() { found.span() } else { at };
        m.add(at, format!("{called}: {why}"), "the probe's step may use only ${item}");
    }
}

/// A number of the reply with a bound.
fn bounds(at: &Range<usize>, called: &str, spec: &ProbeSpec, m: &mut Mistakes) {
    let bounded = spec.at_least.is_some() || spec.at_most.is_some();
    let backwards = spec.at_least.zip(spec.at_most).is_some_and(|(least, most)| least > most);
    let wrong = spec.json.as_ref().and_then(|json| reading::pointer(json).err());
    if let Some(why) = wrong {
        return m.add(at.clone(), format!("{called}: `json`: {why}"), "json = \"/available\", for instance");
    }
    if spec.json.is_some() != bounded || backwards {
        m.add(
            at.clone(),
            format!("{called}: `json` and its bounds do not fit together"),
            "json = \"/available\", and at_least = 0, at_most = 100, or both",
        );
    }
}

/// A window of the load that can be kept, of a cohort that exists.
fn window(
    scenario: &Scenario,
    (at, called): (&Range<usize>, &str),
    cohort: Option<&str>,
    over: Duration,
    m: &mut Mistakes,
) {
    if let Some(name) = cohort.filter(|name| !scenario.cohort.contains_key(*name)) {
        let known: Vec<&str> = scenario.cohort.keys().map(String::as_str).collect();
        let what = format!("{called}: there is no cohort \"{name}\"");
        m.add(at.clone(), what, format!("one of {}", known.join(", ")));
    }
    if !(Duration::from_secs(1)..=LONGEST_WINDOW).contains(&over) {
        m.add(at.clone(), format!("{called}: `over` is {}", Dur(over)), format!("from 1s to {}", Dur(LONGEST_WINDOW)));
    }
}

/// Everything that is wrong with `[[stop]]`.
pub(super) fn stops(scenario: &Scenario, m: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for spanned in &scenario.stop {
        let (stop, at): (&Stop, _) = (spanned.get_ref(), spanned.span());
        let called = format!("stop \"{}\"", stop.name);
        if stop.name.is_empty() || !seen.insert(&stop.name) {
            m.add(
                at.clone(),
                format!("{called}: a stop has a `name`, and no other has the same"),
                "give each [[stop]] its own name",
            );
        }
        let given = [stop.p99.is_some(), stop.error_fraction.is_some(), stop.unsteady_for.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            m.add(
                at,
                format!("{called} has no condition, or several"),
                "one of p99 = \"500ms\", error_fraction = 0.05, unsteady_for = \"10s\"",
            );
            continue;
        }
        if stop.p99.or(stop.unsteady_for).is_some_and(|limit| limit.0.is_zero()) {
            m.add(at.clone(), format!("{called}: its limit is 0s"), "p99 = \"500ms\", or unsteady_for = \"10s\"");
        }
        if let Some(share) = stop.error_fraction {
            super::fraction(&format!("error_fraction of {called}"), share, at.clone(), m);
        }
        if stop.unsteady_for.is_some() {
            if stop.cohort.is_some() || stop.over.is_some() || stop.min_requests.is_some() {
                let what = format!("{called}: `unsteady_for` is about the steady state, not about a cohort's requests");
                m.add(at.clone(), what, "remove `cohort`, `over` and `min_requests`");
            }
        } else {
            window(scenario, (&at, &called), stop.cohort.as_deref(), stop.over(), m);
        }
        if stop.min_requests == Some(0) {
            m.add(at.clone(), format!("{called}: `min_requests` is 0"), "at least 1");
        }
        if stop.from >= scenario.load.duration {
            m.add(
                at,
                format!("{called} is looked at from {} on", stop.from),
                format!("that is after load.duration ({})", scenario.load.duration),
            );
        }
    }
}
