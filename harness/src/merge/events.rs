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
        Event::FaultInjected { at_us, .. }
        | Event::FaultHealed { at_us, .. }
        | Event::FaultRecovered { at_us, .. }
        | Event::FaultFailed { at_us, .. }
        | Event::Distrust { at_us, .. }
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
    let mut merged = Vec::new();
    for (index, event) in shards.iter().flat_map(|(index, events)| events.iter().map(move |event| (index, event))) {
        match event {
            Event::FaultInjected { id, at_us } if *id == plan.id => injected.push(*at_us),
            Event::FaultRecovered { id, at_us } if *id == plan.id => recovered.push(*at_us),
            Event::FaultHealed { id, at_us, hit } if *id == plan.id => {
                healed.push(*at_us);
                hits.push(hit.as_str());
            }
            Event::FaultFailed { id, at_us, error } if *id == plan.id => {
                let error = format!("shard {index}: {error}");
                merged.push(Event::FaultFailed { id: id.clone(), at_us: *at_us, error });
            }
            _ => {}
        }
    }
    let id = || plan.id.clone();
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
        merged.push(Event::FaultHealed { id: id(), at_us: *last, hit: hits.join("; ") });
    }
    // The steady state holds again when it does so for everybody.
    if let Some(last) = recovered.iter().max().filter(|_| recovered.len() == healed.len()) {
        merged.push(Event::FaultRecovered { id: id(), at_us: *last });
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
            }
            None => links.push(link.clone()),
        }
    }
    links
}
