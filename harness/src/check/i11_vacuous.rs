//! I11: the run means something. What should have happened did, and the harness trusts its own measurement.
//!
//! This check never fails; it is unknown, and names everything that is missing with what to do about it.

use super::index::{Class, FaultWindow, says_expired};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding, standing};
use crate::history::{EntryKind, Event, FaultPlan, HEALED_WITHIN_US, Micros, OrderState, Outcome};
use crate::measure::stats::text_us;

/// A fault that takes effect later than this after its time has missed its phase. Two hundred connections are not taken in less
/// than a second.
const LATE_US: Micros = 1_500_000;

pub(super) struct Vacuous;

impl Check for Vacuous {
    fn id(&self) -> &'static str {
        "I11"
    }

    fn name(&self) -> &'static str {
        "not vacuous"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_whole_history();
        let mut seen = Vec::new();
        let stopped = stopped_at(case);
        if let Some(at_us) = stopped {
            seen.push(format!("the run was stopped at {}: what was to come later is not asked for", seconds(at_us)));
        }
        if let Some(at_us) = stopped {
            healed_too_late(case, at_us, &mut tally);
        }
        trust(case, &mut tally, &mut seen);
        demand(case, stopped, &mut tally, &mut seen);
        expected(case, stopped, &mut tally, &mut seen);
        let mut hit = Vec::new();
        let left_out =
            |fault: &FaultWindow<'_>| fault.skipped.is_some() && fault.plan.is_some_and(|plan| plan.optional);
        for fault in &case.index.faults {
            if let Some(why) = fault.skipped.filter(|_| left_out(fault)) {
                seen.push(format!("fault {}, which is optional, was not injected: {why}", fault.id));
                continue;
            }
            if stopped.is_some_and(|at_us| was_cut_off(fault, at_us)) {
                continue;
            }
            match missed(case, fault) {
                Some(why) => tally.gap(format!("fault {} {why}", fault.id)),
                None => hit.push(fault.id),
            }
        }
        if !hit.is_empty() {
            seen.push(format!("faults that hit their phase: {}", hit.join(", ")));
        }
        tally.finish(self, seen.join(";\n"))
    }
}

/// When a stop condition of the scenario was met, if one was.
fn stopped_at(case: &Case<'_>) -> Option<Micros> {
    case.history.events.iter().find_map(|event| match event {
        Event::Stopped { at_us, .. } => Some(*at_us),
        _ => None,
    })
}

/// Whether a fault was kept from happening as planned by the end of the run: it was to be injected later, or it was healed
/// before its time.
fn was_cut_off(fault: &FaultWindow<'_>, stopped_us: Micros) -> bool {
    let untouched = fault.error.is_none() && fault.skipped.is_none();
    match (fault.injected, fault.healed) {
        (None, _) => untouched && fault.due.or(fault.plan.map(|plan| plan.at_us)).is_none_or(|due| due >= stopped_us),
        (Some(_), Some(healed)) => untouched && healed >= stopped_us,
        (Some(_), None) => false,
    }
}

/// Stopping a run is a promise to whoever else is on the machine or in the shop: everything is healed soon.
fn healed_too_late(case: &Case<'_>, stopped_us: Micros, tally: &mut Tally<'_>) {
    for fault in case.index.faults.iter().filter(|fault| fault.injected.is_some()) {
        let took = fault.healed.map_or(0, |healed| healed - stopped_us);
        if took > HEALED_WITHIN_US {
            tally.gap(format!(
                "fault {} was healed only {} after the run was stopped, and {} is allowed: see what its healing waits for",
                fault.id,
                seconds(took),
                seconds(HEALED_WITHIN_US)
            ));
        }
    }
}

/// Whether the harness trusts its own measurement.
fn trust(case: &Case<'_>, tally: &mut Tally<'_>, seen: &mut Vec<String>) {
    for event in &case.history.events {
        if let Event::Distrust { why, .. } = event {
            tally.gap(format!("the harness distrusts its own measurement: {why}"));
        }
    }
    let scan = &case.index.scan;
    if scan.backwards > 0 {
        tally.gap(format!(
            "{} end before they begin: the history's clock is broken",
            count(scan.backwards as i64, "op")
        ));
    }
    // Retries are due when they are sent; the first attempts are what the schedule planned. These are of every step,
    // while the send lag that the summary has is that of the arrivals, the first step alone: the words keep them apart.
    let Some(p99) = scan.send_lag_us_p99 else { return };
    let limit = case.rules.send_lag_limit_us;
    if u64::from(p99) > limit {
        tally.gap(format!(
            "1% of the first attempts at all steps were sent more than {} late, and {} is allowed: \
             lower the rate or give the generator more processor",
            text_us(p99.into()),
            text_us(limit)
        ));
    }
    seen.push(format!(
        "of the first attempts at all steps, 99% were sent at most {} late, and {} is allowed",
        text_us(p99.into()),
        text_us(limit)
    ));
}

/// Whether anybody bought anything, and whether there was enough demand for what the scenario expects.
fn demand(case: &Case<'_>, stopped: Option<Micros>, tally: &mut Tally<'_>, seen: &mut Vec<String>) {
    let sent = |intent: &&super::index::Intent| intent.sent;
    let tried: i64 = case.index.intents.iter().filter(sent).count() as i64;
    let ok = case.index.intents.iter().filter(|intent| intent.class == Class::Ok).count();
    let info = case.index.intents.iter().filter(|intent| intent.class == Class::Info).count();
    seen.push(format!("{} tried, {ok} acknowledged, {info} indeterminate", count(tried, "purchase")));
    if tried == 0 {
        tally.gap("nobody tried to buy anything: the load has no order step, or none was reached");
    } else if ok == 0 {
        tally.gap("not one order was acknowledged, so nothing was put at risk: see why every attempt was refused");
    }
    if !case.rules.expect.sell_out {
        return;
    }
    let mut asked = vec![0i64; case.rules.items.len()];
    for intent in case.index.intents.iter().filter(sent) {
        if let Some(item) = case.index.item(intent.item) {
            asked[item] += i64::from(intent.quantity).max(0);
        }
    }
    for (asked, rules) in asked.iter().zip(&case.rules.items) {
        seen.push(format!("{} of item {} asked for, of {}", count(*asked, "unit"), rules.item, rules.stock));
        if *asked < rules.stock && !rules.plentiful && stopped.is_none() {
            tally.gap(format!(
                "demand stayed below the stock: {} of item {} asked for, and there were {}; raise the rate or lower the stock",
                count(*asked, "unit"),
                rules.item,
                rules.stock
            ));
        }
    }
}

/// What the scenario says must have happened.
fn expected(case: &Case<'_>, stopped: Option<Micros>, tally: &mut Tally<'_>, seen: &mut Vec<String>) {
    let expect = &case.rules.expect;
    let scan = &case.index.scan;
    let mut happened = Vec::new();
    let mut want = |wanted: bool, n: usize, what: &str, remedy: &str| {
        if n > 0 {
            happened.push(format!("{what}: {n}"));
        } else if wanted && stopped.is_none() {
            tally.gap(format!("no {what}, though the scenario expects some: {remedy}"));
        }
    };
    want(expect.sell_out, scan.sold_out, "\"sold out\" replies", "raise the demand or lower the stock");
    want(
        expect.indeterminate,
        scan.indeterminate,
        "indeterminate ops",
        "let a fault cut or delay replies during the load",
    );
    want(
        expect.expiry,
        expiries(case),
        "expired holds",
        "shorten the hold, let some buyers not pay, or wait longer; in the ledger a hold has expired if its order's state is \
         `expired`, if the release's reason begins with `expir` or is `ttl` or `timeout`, or if it was released after its \
         time though nobody asked for it",
    );
    want(expect.retries, scan.retried, "retries", "let the journey retry, and a fault give it a reason to");
    if !happened.is_empty() {
        seen.push(happened.join(", "));
    }
}

fn expiries(case: &Case<'_>) -> usize {
    if let Some(books) = &case.index.books {
        let expired = |order: &super::index::DurableOrder<'_>| {
            let released = order.count(EntryKind::Release) > 0;
            order.state == OrderState::Expired
                || released && (books.rows_of(order).any(says_expired) || standing::ran_out(case, books, order))
        };
        return books.durable().filter(|(order, _)| expired(order)).count();
    }
    case.index.scan.told_expired
}

/// Why a fault proves nothing; none if it did what it was planned for.
fn missed(case: &Case<'_>, fault: &FaultWindow<'_>) -> Option<String> {
    if let Some(error) = fault.error {
        return Some(format!("failed: {error}"));
    }
    if let Some(why) = fault.skipped {
        return Some(format!(
            "was not injected: {why}; see whether the load brings that about, plan a later `by`, or say that the fault is \
             `optional`"
        ));
    }
    let Some(injected) = fault.injected else {
        return Some("was planned and never injected: see why the timeline did not reach it".to_owned());
    };
    let Some(healed) = fault.healed else {
        return Some("was never healed, so what was audited is not the healed state".to_owned());
    };
    if let Some(why) = fault.plan.and_then(|plan| off_phase(plan, fault.due, injected, healed)) {
        return Some(why);
    }
    if fault.count.map_or_else(|| says_nothing(fault.hit), |count| count == 0) {
        return Some(format!("hit nothing ({}): aim it at a link or role that carries the load", fault.hit));
    }
    let mut sent = case.history.ops.iter().filter(|op| op.outcome != Outcome::Dropped);
    if !sent.any(|op| op.invoked_us <= healed && op.completed_us >= injected) {
        return Some(format!(
            "missed the load: nothing was in flight from {} to {}",
            seconds(injected),
            seconds(healed)
        ));
    }
    None
}

fn off_phase(plan: &FaultPlan, due: Option<Micros>, injected: Micros, healed: Micros) -> Option<String> {
    let length = plan.until_us - plan.at_us;
    // One that waited for an event was planned for when that came.
    let at_us = due.unwrap_or(plan.at_us);
    let until_us = at_us + length;
    let late = injected - at_us;
    if late > LATE_US || length > 0 && late > length / 2 {
        return Some(format!(
            "missed its phase: planned for {}, it took effect at {}; plan it longer, or lighten the machine",
            seconds(at_us),
            seconds(injected)
        ));
    }
    let overlap = healed.min(until_us) - injected.max(at_us);
    if length > 0 && overlap < length / 2 {
        return Some(format!(
            "missed its phase: planned from {} to {}, it lasted from {} to {}",
            seconds(at_us),
            seconds(until_us),
            seconds(injected),
            seconds(healed)
        ));
    }
    None
}

/// Runs of before faults counted what they hit have their words alone: if there are numbers in them and all are zero, it was
/// nothing.
fn says_nothing(hit: &str) -> bool {
    let mut numbers = hit.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).peekable();
    numbers.peek().is_some() && numbers.all(|digits| digits.bytes().all(|b| b == b'0'))
}
