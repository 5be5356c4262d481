//! The faults of the timeline and what became of them.

use crate::history::{Event, History, Micros};
use crate::summary::{FaultSummary, Stopped};

/// Folds the events of each fault, in the order in which the faults were planned.
pub fn faults(history: &History) -> Vec<FaultSummary> {
    let mut faults: Vec<FaultSummary> = Vec::new();
    for event in &history.events {
        match event {
            Event::FaultPlanned(plan) => {
                let fault = named(&mut faults, &plan.id);
                fault.kind = plan.kind.clone();
                fault.link = plan.link.clone();
                fault.role = plan.role.clone();
                fault.detail = plan.detail.clone();
                fault.planned_at_ms = ms(plan.at_us);
                fault.trigger.clone_from(&plan.trigger);
            }
            Event::FaultTriggered { id, at_us, due_us } => {
                let fault = named(&mut faults, id);
                fault.triggered_at_ms = Some(ms(*at_us));
                fault.planned_at_ms = ms(*due_us);
            }
            Event::FaultSkipped { id, why, .. } => named(&mut faults, id).skipped = Some(why.clone()),
            Event::FaultInjected { id, at_us } => named(&mut faults, id).injected_at_ms = Some(ms(*at_us)),
            Event::FaultHealed { id, at_us, hit, count } => {
                let fault = named(&mut faults, id);
                fault.hit_count = *count;
                fault.healed_at_ms = Some(ms(*at_us));
                fault.hit = hit.clone();
            }
            Event::FaultRecovered { id, at_us, last_probe } => {
                let fault = named(&mut faults, id);
                fault.recovered_at_ms = Some(ms(*at_us));
                fault.last_probe.clone_from(last_probe);
            }
            Event::FaultFailed { id, error, .. } => named(&mut faults, id).error = Some(error.clone()),
            _ => {}
        }
    }
    for fault in &mut faults {
        // It may hold again before the healing is complete, which is no negative time.
        fault.recovery_ms =
            fault.recovered_at_ms.zip(fault.healed_at_ms).map(|(back, healed)| (back - healed).max(0.0));
    }
    overlaps(&mut faults);
    faults
}

/// The condition that ended the run before its time, if one did, and what came of healing everything.
pub fn stopped(history: &History) -> Option<Stopped> {
    let (name, at_us, why) = history.events.iter().find_map(|event| match event {
        Event::Stopped { stop, at_us, why } => Some((stop.clone(), *at_us, why.clone())),
        _ => None,
    })?;
    let faults = faults(history);
    let in_effect = |fault: &&FaultSummary| {
        fault.injected_at_ms.is_some() && fault.healed_at_ms.is_none_or(|healed| healed >= ms(at_us))
    };
    let (healed, unhealed): (Vec<_>, Vec<_>) = faults.iter().filter(in_effect).partition(|f| f.healed_at_ms.is_some());
    let last = healed.iter().filter_map(|fault| fault.healed_at_ms).fold(ms(at_us), f64::max);
    let ids = |faults: Vec<&FaultSummary>| faults.into_iter().map(|fault| fault.id.clone()).collect();
    let healed_after_ms = unhealed.is_empty().then_some(last - ms(at_us));
    Some(Stopped { name, at_ms: ms(at_us), why, healed_after_ms, healed: ids(healed), unhealed: ids(unhealed) })
}

/// Notes for each fault which others were in effect between its healing and its recovery: all faults share one probe of
/// the steady state, so such a recovery is as much the others' as its own. One that was never seen lasts for ever.
fn overlaps(faults: &mut [FaultSummary]) {
    let windows: Vec<_> =
        faults.iter().map(|f| (f.id.clone(), f.injected_at_ms, f.healed_at_ms.unwrap_or(f64::INFINITY))).collect();
    for fault in faults {
        let Some(healed) = fault.healed_at_ms else { continue };
        let until = fault.recovered_at_ms.unwrap_or(f64::INFINITY);
        let meanwhile = |(id, from, to): &&(String, Option<f64>, f64)| {
            *id != fault.id && from.is_some_and(|from| from < until) && *to > healed
        };
        fault.overlapped_by = windows.iter().filter(meanwhile).map(|(id, _, _)| id.clone()).collect();
    }
}

/// The fault with this id; one that was never planned is shown rather than hidden.
fn named<'a>(faults: &'a mut Vec<FaultSummary>, id: &str) -> &'a mut FaultSummary {
    let index = faults.iter().position(|fault| fault.id == id).unwrap_or_else(|| {
        faults.push(FaultSummary { id: id.to_string(), ..FaultSummary::default() });
        faults.len() - 1
    });
    &mut faults[index]
}

fn ms(at: Micros) -> f64 {
    at as f64 / 1e3
}
