//! I10: nothing is sold outside the window, and nobody is turned away inside it.

use super::index::{Class, Intent};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::{Micros, Op};

pub(super) struct Window;

impl Check for Window {
    fn id(&self) -> &'static str {
        "I10"
    }

    fn name(&self) -> &'static str {
        "sale window"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_ledger();
        tally.needs_whole_history();
        stamped(case, &mut tally);
        let (mut early, mut late) = (0, 0);
        let too_early = case.history.names.find("too-early");
        let ended = case.history.names.find("ended");
        for n in &case.index.scan.orders_ok {
            let op = &case.history.ops[*n as usize];
            if let Some(item) = case.index.item(op.item) {
                bought(case, item, *n, op, &mut tally);
            }
        }
        for n in &case.index.scan.refusals {
            let op = &case.history.ops[*n as usize];
            let Some(item) = case.index.item(op.item) else { continue };
            if Some(op.reason) == too_early {
                early += 1;
                turned_away(case, item, *n, op, &mut tally);
            } else if Some(op.reason) == ended {
                late += 1;
                sent_home(case, item, *n, op, &mut tally);
            }
        }
        for intent in &case.index.intents {
            after_the_end(case, intent, &mut tally);
        }
        let remark = case.index.clock_remark().unwrap_or_default();
        tally.finish(
            self,
            format!("{early} refused before the opening and {late} after the end; every order lies between{remark}"),
        )
    }
}

/// What the service stamps is held to the window by the service's own clock, also while that is set wrong.
fn stamped(case: &Case<'_>, tally: &mut Tally<'_>) {
    let epsilon = case.rules.epsilon_us;
    for (order, row) in case.index.books.iter().flat_map(|books| books.durable()) {
        let Some(item) = case.index.item(row.item) else { continue };
        let rules = &case.rules.items[item];
        let at = case.since_epoch(row.at_unix_us);
        let before = at < rules.opens_us.saturating_sub(epsilon);
        if !before && at <= rules.closes_us.saturating_add(epsilon) {
            continue;
        }
        tally.if_set_up("reservations outside the window", |case, witness| {
            order.intent.into_iter().for_each(|intent| witness.intent(case, intent));
            witness.bad_row(case, row);
            let (edge, when) = if before { (rules.opens_us, "opened") } else { (rules.closes_us, "closed") };
            format!(
                "order {} took its stock at {}, and the sale of item {} {when} at {}",
                order.id,
                seconds(at),
                row.item,
                seconds(edge)
            )
        });
    }
}

/// By how much the service's clock may differ from the clients' while a purchase was under way.
fn differ(case: &Case<'_>, op: &Op) -> Micros {
    let intent = case.index.intent_of(op.intent).map(|intent| &case.index.intents[intent as usize]);
    let from = intent.map_or(op.invoked_us, |intent| intent.first_invoked.min(op.invoked_us));
    case.rules.epsilon_us.saturating_add(case.index.clock_slack(from, op.completed_us))
}

fn bought(case: &Case<'_>, item: usize, n: u32, op: &Op, tally: &mut Tally<'_>) {
    let rules = &case.rules.items[item];
    if op.completed_us < rules.opens_us.saturating_sub(differ(case, op)) {
        tally.if_set_up("orders acknowledged before the opening", |case, witness| {
            witness.bad_op(case, n);
            format!(
                "{} had an order of item {} at {}, and the sale opened at {}",
                case.user(op.user),
                rules.item,
                seconds(op.completed_us),
                seconds(rules.opens_us)
            )
        });
    }
}

fn turned_away(case: &Case<'_>, item: usize, n: u32, op: &Op, tally: &mut Tally<'_>) {
    let rules = &case.rules.items[item];
    // Whoever asks again under the same key may be told what was decided the first time.
    let asked = case.index.first_asked_at(op);
    if asked > rules.opens_us.saturating_add(differ(case, op)) {
        tally.if_set_up("buyers told \"too early\" after the opening", |case, witness| {
            witness.bad_op(case, n);
            format!(
                "{} asked at {} and was told that it is too early, and the sale of item {} had opened at {}",
                case.user(op.user),
                seconds(asked),
                rules.item,
                seconds(rules.opens_us)
            )
        });
    }
}

fn sent_home(case: &Case<'_>, item: usize, n: u32, op: &Op, tally: &mut Tally<'_>) {
    let rules = &case.rules.items[item];
    if op.completed_us < rules.closes_us.saturating_sub(differ(case, op)) {
        tally.if_set_up("buyers told \"ended\" before the end", |case, witness| {
            witness.bad_op(case, n);
            format!(
                "{} was told at {} that the sale of item {} has ended, and it ended at {}",
                case.user(op.user),
                seconds(op.completed_us),
                rules.item,
                seconds(rules.closes_us)
            )
        });
    }
}

/// A purchase that was first tried after the end cannot have been made in time.
fn after_the_end(case: &Case<'_>, intent: &Intent, tally: &mut Tally<'_>) {
    let Some(item) = case.index.item(intent.item).filter(|_| intent.class == Class::Ok && intent.attempts > 0) else {
        return;
    };
    let rules = &case.rules.items[item];
    let last = case.index.ops_of(intent).iter().map(|n| case.history.ops[*n as usize].completed_us).max();
    let slack = case.index.clock_slack(intent.first_invoked, last.unwrap_or(intent.first_invoked));
    let latest = rules.closes_us.saturating_add(case.rules.epsilon_us).saturating_add(slack);
    // An earlier attempt may be missing from a history that is not whole.
    if case.index.whole() && intent.first_invoked > latest {
        tally.if_set_up("orders acknowledged that were asked for after the end", |case, witness| {
            case.index.ops_of(intent).iter().for_each(|n| witness.bad_op(case, *n));
            format!(
                "{} first asked for {} of item {} at {}, after the end of the sale at {}, and got an order",
                case.user(intent.user),
                count(i64::from(intent.quantity), "unit"),
                rules.item,
                seconds(intent.first_invoked),
                seconds(rules.closes_us)
            )
        });
    }
}
