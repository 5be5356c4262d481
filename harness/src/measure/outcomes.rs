//! How the operations, and the purchases behind them, ended.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use super::hash::MulHasher;
use crate::history::{FinalState, History, Micros, Op, Outcome, Role, Sym};
use crate::summary::{IntentOutcomes, Outcomes};

/// What stands for a reason that nobody gave.
const NO_REASON: &str = "unspecified";

/// Counts ops by outcome, reason and step. Dropped arrivals are not ops of a step; they are counted with the load.
pub fn outcomes(history: &History, intents: &Intents) -> Outcomes {
    let sold_out_at_payment = sold_out_at_payment(history);
    let mut outcomes = Outcomes { intents: intents.outcomes.clone(), sold_out_at_payment, ..Outcomes::default() };
    for ((step, outcome, reason), count) in count_kinds(&history.ops) {
        let reason = match history.names.get(reason) {
            "" => NO_REASON.to_string(),
            reason => reason.to_string(),
        };
        let kind = match outcome {
            Outcome::Ok => {
                outcomes.ok += count;
                "ok".to_string()
            }
            Outcome::Fail => {
                let kind = format!("fail:{reason}");
                *outcomes.fail.entry(reason).or_default() += count;
                kind
            }
            Outcome::Info => {
                outcomes.info += count;
                let kind = format!("info:{reason}");
                *outcomes.info_reasons.entry(reason).or_default() += count;
                kind
            }
            Outcome::Dropped => continue,
        };
        let step = outcomes.steps.entry(history.names.get(step).to_string()).or_default();
        *step.entry(kind).or_default() += count;
    }
    outcomes
}

/// Purchases whose buyers had an order, and were told when they wanted to pay that nothing is left for it.
fn sold_out_at_payment(history: &History) -> u64 {
    let Some(sold_out) = history.names.find("sold-out") else { return 0 };
    let told = |op: &&Op| op.role == Role::Pay && op.outcome == Outcome::Fail && op.reason == sold_out;
    let purchases: HashSet<u64> = history.ops.iter().filter(told).map(|op| op.intent).collect();
    purchases.len() as u64
}

/// A step that was tried less often says nothing of the scenario.
const FEW: u64 = 10;

/// What kept every buyer from buying, in one sentence: a step that never succeeded, or orders whose replies name none. That
/// is how a scenario looks that does not fit its service.
pub fn obstacle(history: &History) -> Option<String> {
    let mut tried: HashMap<Sym, (u64, u64, Role)> = HashMap::new();
    let (mut acknowledged, mut named) = (0u64, 0u64);
    let mut order = Sym(0);
    for op in history.ops.iter().filter(|op| op.outcome != Outcome::Dropped) {
        let (ok, all, _) = tried.entry(op.step).or_insert((0, 0, op.role));
        *all += 1;
        *ok += u64::from(op.outcome == Outcome::Ok);
        if op.role == Role::Order && op.outcome == Outcome::Ok {
            acknowledged += 1;
            named += u64::from(op.order != Sym(0) || op.ticket != Sym(0));
            order = op.step;
        }
    }
    let closed = |(_, (ok, all, role)): &(&Sym, &(u64, u64, Role))| {
        *ok == 0 && *all >= FEW && matches!(role, Role::Read | Role::Order | Role::Pay)
    };
    // The step that was tried most is the first one on the way.
    if let Some((step, (_, all, _))) = tried.iter().filter(closed).max_by_key(|(_, (_, all, _))| *all) {
        let kinds = count_kinds(&history.ops);
        let most = kinds.into_iter().filter(|((of, ..), _)| of == step).max_by_key(|(_, count)| *count);
        let why = most.map_or(NO_REASON, |((_, _, reason), _)| history.names.get(reason));
        let step = history.names.get(*step);
        return Some(format!("No `{step}` succeeded: of {all} tries, most ended with `{why}`."));
    }
    (acknowledged >= FEW && named == 0).then(|| {
        let step = history.names.get(order);
        format!("No reply to `{step}` named an order: what `reply.order` of that step points at is not in them.")
    })
}

/// Ops by step, outcome and reason. Neighbouring ops are often of the same kind, which spares the table.
fn count_kinds(ops: &[Op]) -> HashMap<(Sym, Outcome, Sym), u64> {
    let mut counts: HashMap<(Sym, Outcome, Sym), u64> = HashMap::new();
    let mut run = None;
    let mut length = 0;
    for op in ops {
        // What is acknowledged has no reason, whatever an adapter may have left there.
        let reason = if op.outcome == Outcome::Ok { Sym(0) } else { op.reason };
        let kind = (op.step, op.outcome, reason);
        if run != Some(kind) {
            if let Some(kind) = run.replace(kind) {
                *counts.entry(kind).or_default() += length;
            }
            length = 0;
        }
        length += 1;
    }
    if let Some(kind) = run {
        *counts.entry(kind).or_default() += length;
    }
    counts
}

/// What is known of one purchase.
#[derive(Debug, Clone, Copy, Default)]
struct Purchase(u8);

impl Purchase {
    /// An attempt to order was sent.
    const TRIED: u8 = 1;
    const OK: u8 = 2;
    const INFO: u8 = 4;
    /// An attempt after the first was sent.
    const RETRIED: u8 = 8;
    /// An attempt was accepted, to be decided later.
    const PENDING: u8 = 16;
    /// The ticket said that there is no order.
    const DECIDED: u8 = 32;

    fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    /// Whether nobody can say what became of it.
    fn is_open(self) -> bool {
        self.has(Purchase::INFO) || self.has(Purchase::PENDING) && !self.has(Purchase::DECIDED)
    }
}

/// The purchases of a run.
pub struct Intents {
    /// How they ended.
    pub outcomes: IntentOutcomes,
    /// When each acknowledged one was first acknowledged.
    pub acknowledged: Vec<Micros>,
    /// The cohort of each of these.
    pub acknowledged_by: Vec<Sym>,
}

/// Folds attempts, lookups and tickets into purchases.
///
/// A purchase is ok if any attempt was acknowledged, or a lookup or its ticket told of its order; indeterminate if any
/// attempt was, or was accepted and never decided, and none was acknowledged; refused otherwise. It was recovered if an attempt was indeterminate and the ledger has the
/// order after all, whether or not a retry found out.
pub fn intents(history: &History, audit: Option<&FinalState>) -> Intents {
    let mut purchases: HashMap<u64, Purchase, BuildHasherDefault<MulHasher>> = HashMap::default();
    let (mut acknowledged, mut acknowledged_by) = (Vec::new(), Vec::new());
    for op in &history.ops {
        if op.outcome == Outcome::Dropped || !matches!(op.role, Role::Order | Role::Lookup | Role::Ticket) {
            continue;
        }
        let purchase = purchases.entry(op.intent).or_default();
        if op.acknowledges() && !purchase.has(Purchase::OK) {
            purchase.0 |= Purchase::OK;
            acknowledged.push(op.completed_us);
            acknowledged_by.push(op.cohort);
        }
        if op.role == Role::Order {
            purchase.0 |= Purchase::TRIED;
            purchase.0 |= if op.outcome == Outcome::Info { Purchase::INFO } else { 0 };
            purchase.0 |= if op.is_pending() { Purchase::PENDING } else { 0 };
            purchase.0 |= if op.attempt > 1 { Purchase::RETRIED } else { 0 };
        } else if op.ticket_refused() {
            purchase.0 |= Purchase::DECIDED;
        }
    }
    let mut outcomes = IntentOutcomes::default();
    for purchase in purchases.values().filter(|p| p.has(Purchase::TRIED)) {
        outcomes.total += 1;
        outcomes.retried += u64::from(purchase.has(Purchase::RETRIED));
        if purchase.has(Purchase::OK) {
            outcomes.ok += 1;
        } else if purchase.is_open() {
            outcomes.info += 1;
        } else {
            outcomes.fail += 1;
        }
    }
    for intent in audited_intents(history, audit) {
        // Taken out, so that a duplicate order does not count twice.
        let open = |p: Purchase| p.has(Purchase::INFO) || p.is_open() && !p.has(Purchase::OK);
        outcomes.recovered += u64::from(purchases.remove(&intent).is_some_and(open));
    }
    Intents { outcomes, acknowledged, acknowledged_by }
}

/// The purchases that the ledger has orders of, by the number in their idempotency key.
fn audited_intents<'a>(history: &'a History, audit: Option<&'a FinalState>) -> impl Iterator<Item = u64> + 'a {
    let prefix = history.info.key_prefix.as_str();
    let keys = audit.into_iter().flat_map(|audit| &audit.ledger).filter_map(|entry| entry.key.as_deref());
    keys.filter_map(move |key| key.trim_matches('"').strip_prefix(prefix)?.parse().ok())
}
