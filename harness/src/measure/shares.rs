//! Who got what: units sold and time for which units were held, by cohort; and who was marked as abusive, rightly or not.
//!
//! What was held and sold is read from the ledger, so replies that got lost change nothing. An order belongs to the cohort
//! whose purchase its idempotency key names.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::check::Rules;
use crate::history::{EntryKind, FinalState, History, LedgerEntry, Micros, Op, Outcome, Role, Sym};
use crate::summary::{CohortShare, Marking, Shares};

/// Refusals that are about who asks. A service of one's own gives its reasons these names, too.
const MARKS: [&str; 3] = ["non-payer", "cooling-down", "risk-refused"];

/// The shares; nothing where the scenario calls no cohort abusive.
pub fn shares(history: &History, audit: Option<&FinalState>, rules: &Rules) -> Option<Shares> {
    if rules.abusive_cohorts.is_empty() {
        return None;
    }
    let mut cohorts: BTreeMap<Sym, Cohort> = BTreeMap::new();
    let mut cohort_of: HashMap<u64, Sym> = HashMap::new();
    let marks = MARKS.map(|mark| (mark, history.names.find(mark)));
    let orders = |op: &&Op| op.role == Role::Order && op.outcome != Outcome::Dropped;
    for op in history.ops.iter().filter(orders) {
        let cohort = cohorts.entry(op.cohort).or_default();
        cohort.users.insert(op.user);
        cohort_of.insert(op.intent, op.cohort);
        let mark = marks.iter().find(|(_, reason)| *reason == Some(op.reason) && op.outcome == Outcome::Fail);
        if let Some((mark, _)) = mark {
            cohort.marked.entry(*mark).or_default().insert(op.user);
            cohort.marked_at_all.insert(op.user);
        }
    }
    for order in audit.into_iter().flat_map(lives) {
        let intent = order.key.trim_matches('"').strip_prefix(history.info.key_prefix.as_str());
        let Some(of) = intent.and_then(|digits| cohort_of.get(&digits.parse().ok()?)) else { continue };
        let Some(cohort) = cohorts.get_mut(of) else { continue };
        cohort.orders += 1;
        cohort.units_sold += order.sold;
        cohort.held_unit_us += order.held_unit_us;
    }
    Some(told(history, rules, &cohorts))
}

#[derive(Default)]
struct Cohort {
    users: HashSet<u64>,
    marked: BTreeMap<&'static str, HashSet<u64>>,
    marked_at_all: HashSet<u64>,
    orders: u64,
    units_sold: i64,
    held_unit_us: i64,
}

/// What became of the units of one order.
struct Life<'a> {
    key: &'a str,
    sold: i64,
    held_unit_us: i64,
    held: i64,
    since: Micros,
}

/// The orders of a ledger: from when to when each held units that were not paid, and what it bought.
fn lives(audit: &FinalState) -> Vec<Life<'_>> {
    let mut rows: Vec<&LedgerEntry> = audit.ledger.iter().collect();
    rows.sort_by_key(|row| row.seq);
    let mut orders: HashMap<&str, Life<'_>> = HashMap::new();
    for row in rows {
        let at = row.at_unix_us;
        let fresh = Life { key: "", sold: 0, held_unit_us: 0, held: 0, since: at };
        let order = orders.entry(row.order.as_str()).or_insert(fresh);
        order.held_unit_us += order.held.saturating_mul(at.saturating_sub(order.since).max(0));
        order.since = at;
        match row.kind {
            EntryKind::Reserve => order.held += row.quantity,
            EntryKind::Pay => (order.sold, order.held) = (order.sold + order.held, 0),
            EntryKind::Release => order.held = 0,
            EntryKind::Refund => order.sold = 0,
            EntryKind::Place => {}
        }
        if matches!(row.kind, EntryKind::Reserve | EntryKind::Place) {
            order.key = row.key.as_deref().unwrap_or(order.key);
        }
    }
    let mut lives: Vec<Life<'_>> = orders.into_values().collect();
    for order in &mut lives {
        let rest = audit.taken_unix_us.saturating_sub(order.since).max(0);
        order.held_unit_us += order.held.saturating_mul(rest);
    }
    lives
}

fn told(history: &History, rules: &Rules, cohorts: &BTreeMap<Sym, Cohort>) -> Shares {
    let sold: i64 = cohorts.values().map(|cohort| cohort.units_sold).sum();
    let held: i64 = cohorts.values().map(|cohort| cohort.held_unit_us).sum();
    let share = |part: i64, whole: i64| if whole > 0 { part as f64 / whole as f64 } else { 0.0 };
    let is_abusive = |name: &str| rules.abusive_cohorts.iter().any(|abusive| abusive == name);
    let mut shares = Shares::default();
    for (name, cohort) in cohorts {
        let name = history.names.get(*name);
        shares.cohorts.push(CohortShare {
            cohort: name.to_owned(),
            abusive: is_abusive(name),
            users: cohort.users.len() as u64,
            orders: cohort.orders,
            units_sold: cohort.units_sold,
            sold_share: share(cohort.units_sold, sold),
            held_unit_s: cohort.held_unit_us as f64 / 1e6,
            held_share: share(cohort.held_unit_us, held),
            marked: cohort.marked.iter().map(|(mark, users)| ((*mark).to_owned(), users.len() as u64)).collect(),
        });
    }
    shares.cohorts.sort_by(|a, b| a.cohort.cmp(&b.cohort));
    let abusive: u64 = shares.cohorts.iter().filter(|c| c.abusive).map(|c| c.users).sum();
    let marking = |marked: &dyn Fn(&Cohort) -> usize| {
        let count = |only_abusive: bool| -> u64 {
            let of = cohorts.iter().filter(|(name, _)| !only_abusive || is_abusive(history.names.get(**name)));
            of.map(|(_, cohort)| marked(cohort) as u64).sum()
        };
        let (all, rightly) = (count(false), count(true));
        let of = |whole: u64| (whole > 0).then(|| rightly as f64 / whole as f64);
        Marking { marked: all, rightly, precision: of(all), recall: of(abusive) }
    };
    for mark in MARKS {
        let hit = marking(&|cohort| cohort.marked.get(mark).map_or(0, HashSet::len));
        if hit.marked > 0 {
            shares.marks.insert(mark.to_owned(), hit);
        }
    }
    shares.any_mark = marking(&|cohort| cohort.marked_at_all.len());
    shares
}
