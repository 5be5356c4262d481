//! I5c: no buyer is turned away while there is stock.
//!
//! "Sold out" for q units, asked at i and answered at r, is wrong if everything that can have been out at any moment
//! between, plus q, fits into the stock. Counted as out: all that was bought or may have been, less what was certainly
//! given back before i. Whoever asks again under the same key may be told what was decided the first time, whose answer was
//! lost: then i is when he first asked. Sorted sums make each refusal a look-up.

use super::index::{Books, By, Class};
use super::standing::{COMMIT_US, in_effect};
use super::tally::{Tally, count, seconds};
use super::{Case, Check, Finding};
use crate::history::{EntryKind, Micros, Op, Outcome, Role, Sym};

/// Releases shown in a witness.
const SHOWN: usize = 4;

pub(super) struct FalseSoldOut;

impl Check for FalseSoldOut {
    fn id(&self) -> &'static str {
        "I5c"
    }

    fn name(&self) -> &'static str {
        "no undersell: \"sold out\" only when it is"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        tally.needs_whole_history();
        let mut refused = 0;
        if let Some(sold_out) = case.history.names.find("sold-out").filter(|_| case.index.whole()) {
            let flows = Flow::of_items(case);
            let mut hints = vec![(0, 0); flows.len()];
            for n in &case.index.scan.refusals {
                let op = &case.history.ops[*n as usize];
                if let Some(item) = case.index.item(op.item).filter(|_| op.reason == sold_out) {
                    refused += 1;
                    judge_refusal(case, &flows[item], &mut hints[item], item, *n, &mut tally);
                }
            }
        }
        tally.finish(
            self,
            format!("{}, each held against what can have been out", count(refused, "\"sold out\" refusal")),
        )
    }
}

/// Units of one item that went out, and that certainly came back, each in time order with running sums.
#[derive(Default)]
struct Flow {
    /// Out whenever one looks: orders that no purchase of the run accounts for.
    always: i64,
    out: Running,
    back: Running,
}

/// Amounts by time, with their running sum.
#[derive(Default)]
struct Running {
    steps: Vec<(Micros, i64)>,
}

impl Running {
    fn seal(&mut self) {
        // Nearly sorted already, which the stable sort is quick at.
        self.steps.sort();
        let mut sum = 0;
        for (_, amount) in &mut self.steps {
            sum += *amount;
            *amount = sum;
        }
    }

    /// The sum of what happened before a moment. The search gallops from where the last one ended, because refusals
    /// come nearly in the order of time.
    fn before(&self, at: Micros, hint: &mut usize) -> i64 {
        let earlier = |n: usize| self.steps[n].0 < at;
        let (mut low, mut high, mut stride) = ((*hint).min(self.steps.len()), self.steps.len(), 1);
        if low > 0 && !earlier(low - 1) {
            high = low - 1;
            while high > 0 && !earlier(high - 1) {
                high = high.saturating_sub(stride);
                stride *= 2;
            }
            low = high;
            high = (*hint).min(self.steps.len());
        } else {
            while low + stride <= self.steps.len() && earlier(low + stride - 1) {
                low += stride;
                stride *= 2;
            }
            high = high.min(low + stride);
        }
        *hint = low + self.steps[low..high].partition_point(|(when, _)| *when < at);
        if *hint == 0 { 0 } else { self.steps[*hint - 1].1 }
    }
}

impl Flow {
    fn of_items(case: &Case<'_>) -> Vec<Flow> {
        let mut flows: Vec<Flow> = case.rules.items.iter().map(|_| Flow::default()).collect();
        let given_back = client_releases(case);
        for (n, intent) in case.index.intents.iter().enumerate() {
            let Some(item) = case.index.item(intent.item).filter(|_| intent.class != Class::Fail) else { continue };
            let durable = case.index.books.as_ref().and_then(|books| Some((books, books.order_of_intent(n as u32)?)));
            let kept = durable.and_then(|(_, order)| order.reserve).map_or(0, |row| row.quantity);
            let quantity = i64::from(intent.quantity).max(kept).max(0);
            flows[item].out.steps.push((intent.first_invoked, quantity));
            let by_client = given_back[n];
            let by_ledger = durable.map_or(Micros::MAX, |(books, order)| ledger_release(case, books, order));
            let back = by_client.min(by_ledger);
            if back < Micros::MAX {
                flows[item].back.steps.push((back, quantity));
            }
        }
        if let Some(books) = &case.index.books {
            for (order, reserve) in books.durable() {
                let accounted =
                    order.intent.and_then(|intent| books.order_of_intent(intent)).is_some_and(|own| own.id == order.id);
                if let (false, Some(item)) = (accounted, case.index.item(reserve.item)) {
                    flows[item].always += reserve.quantity.max(0);
                }
            }
        }
        for flow in &mut flows {
            flow.out.seal();
            flow.back.seal();
        }
        flows
    }
}

/// By intent: when a cancel of its order was acknowledged, if nobody ever tried to pay it. What becomes of the stock of a
/// refunded order is the seller's policy.
fn client_releases(case: &Case<'_>) -> Vec<Micros> {
    let mut back = vec![Micros::MAX; case.index.intents.len()];
    for ack in case.index.acks.iter().filter(|ack| ack.order != Sym(0)) {
        let actions = || case.index.actions_of(ack).map(|n| &case.history.ops[n as usize]);
        if actions().any(|op| op.role == Role::Pay) {
            continue;
        }
        let cancelled = actions().filter(|op| op.role == Role::Cancel && op.outcome == Outcome::Ok);
        if let Some(at) = cancelled.map(|op| op.completed_us).min() {
            let slot = &mut back[ack.intent as usize];
            *slot = at.min(*slot);
        }
    }
    // An intent whose replies named several orders has more out than one release gives back.
    for intent in back.iter_mut().zip(&case.index.intents).filter(|(_, intent)| intent.attempts > 1) {
        let mut orders =
            case.index.ops_of(intent.1).iter().map(|n| case.history.ops[*n as usize].order).filter(|o| *o != Sym(0));
        let first = orders.next();
        if orders.any(|order| Some(order) != first) {
            *intent.0 = Micros::MAX;
        }
    }
    back
}

/// When the ledger's release of an order was certainly in effect.
fn ledger_release(case: &Case<'_>, books: &Books<'_>, order: &super::index::DurableOrder<'_>) -> Micros {
    if order.out != 0 || order.count(EntryKind::Release) == 0 || order.by == By::Nothing {
        return Micros::MAX;
    }
    let last = books.rows_of(order).filter(|row| row.kind == EntryKind::Release).last();
    let Some(released) = last.map(|row| case.since_epoch(row.at_unix_us)) else { return Micros::MAX };
    let slack = case.rules.epsilon_us.saturating_add(case.index.clock_slack(released, released));
    let latest = released.saturating_add(slack).saturating_add(COMMIT_US);
    in_effect(&case.index.faults, released.saturating_sub(slack), latest)
}

fn judge_refusal(case: &Case<'_>, flow: &Flow, hints: &mut (usize, usize), item: usize, n: u32, tally: &mut Tally<'_>) {
    let rules = &case.rules.items[item];
    let op = &case.history.ops[n as usize];
    let asked = i64::from(op.quantity).max(1);
    let out = flow.always + flow.out.before(op.completed_us, &mut hints.0);
    let asked_at = case.index.first_asked_at(op);
    let most = out - flow.back.before(asked_at, &mut hints.1);
    if most + asked > rules.stock {
        return;
    }
    tally.if_set_up("buyers told \"sold out\" while there was stock", |case, witness| {
        show_releases(case, item, op.invoked_us, witness);
        witness.bad_op(case, n);
        witness.note(format!(
            "units of item {} that can have been out between {} and {}: at most {most}, of {}",
            rules.item,
            seconds(asked_at),
            seconds(op.completed_us),
            rules.stock
        ));
        format!(
            "{} was told at {} that item {} is sold out for {}, and at most {most} of {} can have been out",
            case.user(op.user),
            seconds(op.completed_us),
            rules.item,
            count(asked, "unit"),
            rules.stock
        )
    });
}

/// The last releases before a refusal: they are what should have been on sale.
fn show_releases(case: &Case<'_>, item: usize, before: Micros, witness: &mut super::witness::Witness) {
    let of_item = |op: &Op| {
        let ack = case.index.ack_of(op.order).filter(|_| op.order != Sym(0));
        ack.is_some_and(|ack| case.index.item(case.index.intents[ack.intent as usize].item) == Some(item))
    };
    let cancels = case
        .history
        .ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.role == Role::Cancel && op.outcome == Outcome::Ok && op.completed_us < before)
        .filter(|(_, op)| of_item(op));
    let mut cancels: Vec<(Micros, u32)> = cancels.map(|(n, op)| (op.completed_us, n as u32)).collect();
    cancels.sort_unstable();
    cancels.iter().rev().take(SHOWN).rev().for_each(|(_, n)| witness.op(case, *n));
    let rules = &case.rules.items[item];
    let rows = case.index.books.iter().flat_map(|books| &books.rows);
    let released: Vec<_> = rows
        .filter(|row| {
            row.kind == EntryKind::Release && row.item == rules.item && case.since_epoch(row.at_unix_us) < before
        })
        .collect();
    released.iter().rev().take(SHOWN).rev().for_each(|row| witness.row(case, row));
}
