//! What was sold, what it cost, and how many calls it took.

use std::collections::{HashMap, HashSet};

use super::outcomes::Intents;
use crate::check::Rules;
use crate::history::{EntryKind, Event, FinalState, History, LinkCalls, Outcome, Role, Sym};
use crate::summary::{Cost, Goodput, LinkSummary};

/// Orders and units. The audit decides where there is one; the acknowledgements of the clients stand in where not.
pub fn goodput(history: &History, audit: Option<&FinalState>, rules: &Rules, intents: &Intents) -> Goodput {
    let stock = rules.items.iter().map(|item| item.stock).sum();
    let acknowledged_orders = intents.acknowledged.len() as u64;
    let audited = audit.filter(|audit| has_ledger(audit));
    let (committed_orders, moments, units_sold, released_orders) = match audited {
        Some(audit) => {
            let rows = |kind| audit.ledger.iter().filter(move |entry| entry.kind == kind);
            let orders = |kind| rows(kind).map(|entry| entry.order.as_str()).collect::<HashSet<_>>().len() as u64;
            let moments = span(rows(EntryKind::Reserve).map(|entry| entry.at_unix_us));
            let sold = if audit.stock.is_empty() {
                rows(EntryKind::Pay).map(|entry| entry.quantity).sum()
            } else {
                audit.stock.iter().map(|row| row.sold).sum()
            };
            (orders(EntryKind::Reserve), moments, sold, orders(EntryKind::Release))
        }
        None => {
            let moments = span(intents.acknowledged.iter().copied());
            let (sold, released) = acknowledged_units(history);
            (acknowledged_orders, moments, sold, released)
        }
    };
    let per_second = match moments {
        // The first order starts the clock, so one less than all of them fall into the span.
        Some((first, last)) if last > first => {
            committed_orders.saturating_sub(1) as f64 * 1e6 / last.saturating_sub(first) as f64
        }
        _ => 0.0,
    };
    let units_held = audit.into_iter().flat_map(|audit| &audit.stock).map(|row| row.held).sum();
    Goodput { committed_orders, per_second, units_sold, stock, acknowledged_orders, released_orders, units_held }
}

/// Whether the audit saw the ledger. Somebody else's service may show its counters only.
fn has_ledger(audit: &FinalState) -> bool {
    let untouched = || audit.stock.iter().all(|row| row.held == 0 && row.sold == 0 && row.available == row.initial);
    !audit.ledger.is_empty() || untouched()
}

fn span(moments: impl Iterator<Item = i64>) -> Option<(i64, i64)> {
    moments.fold(None, |span, at| match span {
        None => Some((at, at)),
        Some((first, last)) => Some((first.min(at), last.max(at))),
    })
}

/// Units of orders whose payment was acknowledged, and orders whose cancel was.
fn acknowledged_units(history: &History) -> (i64, u64) {
    let mut quantities: HashMap<Sym, i64> = HashMap::new();
    let (mut paid, mut cancelled) = (HashSet::new(), HashSet::new());
    for op in history.ops.iter().filter(|op| op.outcome == Outcome::Ok && op.order != Sym(0)) {
        match op.role {
            Role::Order | Role::Ticket if op.acknowledges() => {
                quantities.insert(op.order, i64::from(op.quantity));
            }
            Role::Pay => {
                paid.insert(op.order);
            }
            Role::Cancel => {
                cancelled.insert(op.order);
            }
            Role::Read | Role::Order | Role::Lookup | Role::Ticket => {}
        }
    }
    (paid.iter().filter_map(|order| quantities.get(order)).sum(), cancelled.len() as u64)
}

/// Resources by role, also for each thousand orders.
pub fn cost(history: &History, committed_orders: u64) -> Cost {
    let mut cost = Cost::default();
    let mut wal_bytes = None;
    let roles = history.events.iter().filter_map(|event| match event {
        Event::Cost(roles) => Some(roles),
        _ => None,
    });
    for role in roles.flatten() {
        *cost.cpu_s.entry(role.role.clone()).or_default() += role.cpu_s;
        // Threads of the harness have no memory of their own; it is counted for the harness as a whole.
        if role.rss_peak_bytes > 0 {
            let peak = cost.rss_peak_bytes.entry(role.role.clone()).or_default();
            *peak = (*peak).max(role.rss_peak_bytes);
        }
        if let Some(cores) = role.cores_peak {
            let peak = cost.cores_peak.entry(role.role.clone()).or_default();
            *peak = peak.max(cores);
        }
        if !role.waits.is_empty() {
            cost.waits.insert(role.role.clone(), role.waits.clone());
        }
        if let Some(bytes) = role.wal_bytes {
            *wal_bytes.get_or_insert(0) += bytes;
        }
    }
    if committed_orders > 0 {
        let orders = committed_orders as f64;
        cost.cpu_s_per_1000_orders = cost.cpu_s.iter().map(|(role, s)| (role.clone(), s * 1_000.0 / orders)).collect();
        cost.wal_bytes_per_order = wal_bytes.map(|bytes| bytes as f64 / orders);
    }
    cost
}

/// Calls over each link, also for each order.
pub fn links(history: &History, committed_orders: u64) -> Vec<LinkSummary> {
    let links = history.events.iter().filter_map(|event| match event {
        Event::Links(links) => Some(links),
        _ => None,
    });
    let summary = |link: &LinkCalls| LinkSummary {
        from: link.from.clone(),
        to: link.to.clone(),
        calls: link.calls,
        calls_per_order: link.calls.map(|calls| match committed_orders {
            0 => 0.0,
            orders => calls as f64 / orders as f64,
        }),
        connections: link.connections,
        bytes_up: link.bytes_up,
        bytes_down: link.bytes_down,
        us_per_call: link
            .calls
            .filter(|calls| *calls > 0 && link.waited_us > 0)
            .map(|c| link.waited_us as f64 / c as f64),
    };
    links.flatten().map(summary).collect()
}
