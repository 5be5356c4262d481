//! The events of several shards as those of one run.

use std::collections::BTreeMap;

use crate::history::{Event, FaultPlan, LinkCalls, LoadTotals, Micros, RoleCost};

/// Faults that take effect on the shards further apart than this are not one fault any more.
const APART_US: Micros = 1_000_000;

/// The events of one shard, by its number.
pub type OfShard = (u32, Vec<Event>);

/// Merges them: what each shard says alike is said once, what only it saw names it, and totals are summed up. The stock and
/// the steady state are those that the first shard saw.
pub fn merge(shards: &[OfShard], totals: LoadTotals) -> Vec<Event> {
    let mut timed = Vec::new();
    let mut merged = phases(shards);
    for plan in plans(shards) {
        timed.extend(fault(&plan, shards));
        merged.push(Event::FaultPlanned(plan));
    }
    for (position, (index, events)) in shards.iter().enumerate() {
        timed.extend(events.iter().filter_map(|event| match event {
            Event::Sample(sample) if position == 0 => Some(Event::Sample(sample.clone())),
            Event::Distrust { at_us, why } => {
                Some(Event::Distrust { at_us: *at_us, why: format!("shard {index}: {why}") })
            }
            Event::Stopped { stop, at_us, why } => {
                Some(Event::Stopped { stop: stop.clone(), at_us: *at_us, why: format!("shard {index}: {why}") })
            }
            // The first shard cleans up for all.
            Event::CleanedUp { .. } => Some(event.clone()),
            Event::Note { at_us, text } => Some(Event::Note { at_us: *at_us, text: format!("shard {index}: {text}") }),
            _ => None,
        }));
    }
    timed.sort_by_key(time);
    merged.extend(timed);
    merged.extend([Event::LoadTotals(totals), Event::Cost(costs(shards)), Event::Links(links(shards))]);
    merged
}

/// The totals that a shard wrote when its load ended.
pub fn totals(events: &[Event]) -> Option<&LoadTotals> {
    events.iter().rev().find_map(|event| match event {
        Event::LoadTotals(totals) => Some(totals),
        _ => None,
    })
}

fn all(shards: &[OfShard]) -> impl Iterator<Item = &Event> {
    shards.iter().flat_map(|(_, events)| events)
}

fn time(event: &Event) -> Micros {
    match event {
        Event::FaultTriggered { at_us, .. }
        | Event::FaultSkipped { at_us, .. }
        | Event::Stopped { at_us, .. }
        | Event::FaultInjected { at_us, .. }
        | Event::FaultHealed { at_us, .. }
        | Event::FaultRecovered { at_us, .. }
        | Event::FaultFailed { at_us, .. }
        | Event::Distrust { at_us, .. }
        | Event::CleanedUp { at_us, .. }
        | Event::Note { at_us, .. } => *at_us,
        Event::Sample(sample) => sample.at_us,
        _ => Micros::MIN,
    }
}

fn phases(shards: &[OfShard]) -> Vec<Event> {
    let mut phases = Vec::new();
    for event in all(shards).filter(|event| matches!(event, Event::Phase { .. })) {
        if !phases.contains(event) {
            phases.push(event.clone());
        }
    }
    phases
}

fn plans(shards: &[OfShard]) -> Vec<FaultPlan> {
    let mut plans: Vec<FaultPlan> = Vec::new();
    for event in all(shards) {
        if let Event::FaultPlanned(plan) = event
            && plans.iter().all(|known| known.id != plan.id)
        {
            plans.push(plan.clone());
        }
    }
    plans
}

/// A fault that each shard made on its own link: in effect from the first injection to the last healing.
fn fault(plan: &FaultPlan, shards: &[OfShard]) -> Vec<Event> {
    let (mut injected, mut healed, mut recovered, mut hits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut triggered, mut skipped, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (index, event) in shards.iter().flat_map(|(index, events)| events.iter().map(move |event| (index, event))) {
        match event {
            Event::FaultTriggered { id, at_us, due_us } if *id == plan.id => triggered.push((*at_us, *due_us)),
            Event::FaultSkipped { id, at_us, why } if *id == plan.id => {
                let why = format!("shard {index}: {why}");
                skipped.push(Event::FaultSkipped { id: id.clone(), at_us: *at_us, why });
            }
            Event::FaultInjected { id, at_us } if *id == plan.id => injected.push(*at_us),
            Event::FaultRecovered { id, at_us, last_probe } if *id == plan.id => {
                recovered.push((*at_us, last_probe.clone()));
            }
            Event::FaultHealed { id, at_us, hit, count } if *id == plan.id => {
                healed.push(*at_us);
                hits.push((hit.as_str(), *count));
            }
            Event::FaultFailed { id, at_us, error } if *id == plan.id => {
                let error = format!("shard {index}: {error}");
                merged.push(Event::FaultFailed { id: id.clone(), at_us: *at_us, error });
            }
            _ => {}
        }
    }
    let id = || plan.id.clone();
    if let Some((at_us, due_us)) = triggered.iter().min() {
        merged.push(Event::FaultTriggered { id: id(), at_us: *at_us, due_us: *due_us });
    }
    // One that only some shards injected was injected.
    if injected.is_empty() {
        merged.append(&mut skipped);
    }
    if let (Some(first), Some(last)) = (injected.iter().min(), injected.iter().max()) {
        merged.push(Event::FaultInjected { id: id(), at_us: *first });
        if last - first > APART_US {
            let why = format!(
                "fault {} took effect on one shard {:.1} s later than on another: see whether their clocks agree, and \
                 whether their machines keep up",
                plan.id,
                (last - first) as f64 / 1e6
            );
            merged.push(Event::Distrust { at_us: *last, why });
        }
    }
    if let Some(last) = healed.iter().max() {
        let (words, counts): (Vec<_>, Vec<_>) = hits.into_iter().unzip();
        // Unknown as soon as one shard did not count.
        let count = counts.into_iter().sum();
        merged.push(Event::FaultHealed { id: id(), at_us: *last, hit: words.join("; "), count });
    }
    // The steady state holds again when it does so for everybody.
    if let Some((at_us, last_probe)) = recovered.iter().max().filter(|_| recovered.len() == healed.len()) {
        merged.push(Event::FaultRecovered { id: id(), at_us: *at_us, last_probe: last_probe.clone() });
    }
    merged
}

/// What each role consumed on all machines together.
fn costs(shards: &[OfShard]) -> Vec<RoleCost> {
    let mut roles: BTreeMap<&str, RoleCost> = BTreeMap::new();
    for cost in
        all(shards).filter_map(|event| if let Event::Cost(costs) = event { Some(costs) } else { None }).flatten()
    {
        let sum =
            roles.entry(&cost.role).or_insert_with(|| RoleCost { role: cost.role.clone(), ..RoleCost::default() });
        sum.cpu_s += cost.cpu_s;
        sum.rss_peak_bytes += cost.rss_peak_bytes;
        sum.wal_bytes = sum.wal_bytes.or(cost.wal_bytes);
        // The busiest seconds of different machines need not be the same one: their sum is an upper bound.
        sum.cores_peak = sum.cores_peak.map_or(cost.cores_peak, |sum| Some(sum + cost.cores_peak.unwrap_or(0.0)));
        if sum.waits.is_empty() {
            sum.waits = cost.waits.clone();
        }
    }
    roles.into_values().collect()
}

/// Traffic over the links of the same name together.
fn links(shards: &[OfShard]) -> Vec<LinkCalls> {
    let mut links: Vec<LinkCalls> = Vec::new();
    for link in
        all(shards).filter_map(|event| if let Event::Links(links) = event { Some(links) } else { None }).flatten()
    {
        match links.iter_mut().find(|sum| (&sum.from, &sum.to) == (&link.from, &link.to)) {
            Some(sum) => {
                // Unknown as soon as one shard could not count them.
                sum.calls = sum.calls.zip(link.calls).map(|(a, b)| a + b);
                sum.connections += link.connections;
                sum.bytes_up += link.bytes_up;
                sum.bytes_down += link.bytes_down;
                sum.waited_us += link.waited_us;
            }
            None => links.push(link.clone()),
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Sample;

    fn plan() -> FaultPlan {
        FaultPlan {
            id: "cut".into(),
            kind: "cut-reply".into(),
            link: None,
            role: None,
            detail: String::new(),
            at_us: 100,
            until_us: 200,
            ..FaultPlan::default()
        }
    }

    /// What a shard saw whose fault took effect and was healed so much later than planned.
    fn shard(index: u32, late_us: Micros, recovered: bool) -> OfShard {
        let id = || "cut".to_owned();
        let mut events = vec![
            Event::Phase { name: "sale".into(), from_us: 0, until_us: 9 },
            Event::FaultPlanned(plan()),
            Event::Sample(Sample { at_us: 50 + late_us, ..Sample::default() }),
            Event::FaultInjected { id: id(), at_us: 100 + late_us },
            Event::Note { at_us: 150, text: "hm".into() },
            Event::FaultHealed {
                id: id(),
                at_us: 200 + late_us,
                hit: format!("{index} replies"),
                count: Some(index.into()),
            },
        ];
        if recovered {
            events.push(Event::FaultRecovered { id: id(), at_us: 210 + late_us, last_probe: None });
        }
        let cost = |role: &str, cpu_s| RoleCost {
            role: role.into(),
            cpu_s,
            rss_peak_bytes: 10,
            wal_bytes: None,
            ..RoleCost::default()
        };
        events.push(Event::Cost(vec![cost("generator", 1.0), cost("proxy", 0.5)]));
        events.push(Event::Links(vec![LinkCalls {
            from: "a".into(),
            to: "b".into(),
            calls: Some(5),
            ..LinkCalls::default()
        }]));
        (index, events)
    }

    #[test]
    fn what_all_shards_say_is_said_once_and_what_they_count_is_summed_up() {
        let events = merge(&[shard(1, 0, true), shard(2, 7, true)], LoadTotals { planned: 3, ..LoadTotals::default() });
        let id = || "cut".to_owned();
        let cost = |role: &str, cpu_s| RoleCost {
            role: role.into(),
            cpu_s,
            rss_peak_bytes: 20,
            wal_bytes: None,
            ..RoleCost::default()
        };
        let expected = [
            Event::Phase { name: "sale".into(), from_us: 0, until_us: 9 },
            Event::FaultPlanned(plan()),
            Event::Sample(Sample { at_us: 50, ..Sample::default() }),
            Event::FaultInjected { id: id(), at_us: 100 },
            Event::Note { at_us: 150, text: "shard 1: hm".into() },
            Event::Note { at_us: 150, text: "shard 2: hm".into() },
            Event::FaultHealed { id: id(), at_us: 207, hit: "1 replies; 2 replies".into(), count: Some(3) },
            Event::FaultRecovered { id: id(), at_us: 217, last_probe: None },
            Event::LoadTotals(LoadTotals { planned: 3, ..LoadTotals::default() }),
            Event::Cost(vec![cost("generator", 2.0), cost("proxy", 1.0)]),
            Event::Links(vec![LinkCalls { from: "a".into(), to: "b".into(), calls: Some(10), ..LinkCalls::default() }]),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn a_fault_that_is_not_one_any_more_is_told_and_one_that_some_did_not_recover_from_did_not() {
        let events = merge(&[shard(1, 0, true), shard(2, APART_US + 1, false)], LoadTotals::default());
        let why = events.iter().find_map(|event| match event {
            Event::Distrust { why, .. } => Some(why.as_str()),
            _ => None,
        });
        assert!(why.is_some_and(|why| why.contains("fault cut took effect on one shard 1.0 s later")), "{why:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::FaultRecovered { .. })), "{events:#?}");
    }
}
