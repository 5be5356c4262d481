//! Groups the evidence once, for all checks: ops by intent, acknowledgements by order, the ledger by order, the faults
//! by window.
//!
//! It draws no conclusions about right and wrong. Everything here is linear in the evidence but for the sorting of
//! what is small: the ops of one intent, the payments and cancellations.

use std::collections::HashMap;

use super::Rules;
use super::books::has_ledger;
pub use super::books::{Books, Brief, By, DurableOrder, Quick, QuickMap, numbered, says_expired};
use crate::history::{
    COMPLETED, Event, FaultPlan, FinalState, History, Micros, Op, OrderState, Outcome, Role, RunInfo, STOPPED, Sym,
};

/// No index; the tables below are dense, and this is cheaper than an option in them.
pub(super) const NONE: u32 = u32::MAX;

/// How an intent to order ended, over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Some attempt was acknowledged.
    Ok,
    /// Every attempt was definitely refused, at once or by its ticket, or provably sent nothing.
    Fail,
    /// Anything else: it may or may not have taken effect.
    Info,
}

/// One logical purchase: the attempts to order under one idempotency key, the lookups of it, and what was heard of its
/// ticket.
#[derive(Debug, Clone, Copy)]
pub struct Intent {
    /// Its number; the idempotency key is the run's prefix followed by it.
    pub id: u64,
    /// The buyer.
    pub user: u64,
    /// The item asked for.
    pub item: i64,
    /// When the first attempt was sent: nothing can have happened before.
    pub first_invoked: Micros,
    /// Units asked for.
    pub quantity: i32,
    /// How it ended.
    pub class: Class,
    /// Attempts to order.
    pub attempts: u16,
    /// Whether any of them was sent at all.
    pub sent: bool,
    start: u32,
    len: u32,
}

/// An order as its buyer was told of it: one for each distinct order id, or for each intent where replies name none.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    /// The order's id; empty if the replies name none.
    pub order: Sym,
    /// Index of the intent.
    pub intent: u32,
    /// Index of the first op that acknowledged it, an attempt to order where there is one.
    pub op: u32,
    actions: (u32, u32),
}

/// A time over which a fault had set the service's clock wrong, on the clients' clock.
#[derive(Debug, Clone, Copy)]
struct WrongClock {
    from: Micros,
    until: Micros,
    /// By how much at most.
    most: Micros,
}

/// What a single look at every op tells: reading a large history again for each check would take most of the time.
#[derive(Debug, Default)]
pub struct Scan {
    /// Orders refused as sold out, too early, ended, or beyond the limit, at once or by their tickets.
    pub refusals: Vec<u32>,
    /// Replies that state an amount.
    pub amounts: Vec<u32>,
    /// Orders acknowledged, at once or by their tickets.
    pub orders_ok: Vec<u32>,
    /// Orders accepted and not decided yet, and everything that was heard of tickets.
    pub tickets: Vec<u32>,
    /// Single-use tokens, given or spent.
    pub tokens: Vec<u32>,
    /// Orders refused as sold out.
    pub sold_out: usize,
    /// Indeterminate ops.
    pub indeterminate: usize,
    /// Attempts after the first.
    pub retried: usize,
    /// Ops that end before they begin.
    pub backwards: usize,
    /// Replies that say that a hold expired.
    pub told_expired: usize,
    /// Whether anybody tried to pay anything.
    pub tried_to_pay: bool,
    /// 99th percentile of the send lag of first attempts, in microseconds; none if none was sent.
    pub send_lag_us_p99: Option<u32>,
    /// The highest symbol of an order.
    top: u32,
    wanted: Vec<(u64, u32)>,
    actions: Vec<u32>,
}

impl Scan {
    fn of(history: &History) -> Scan {
        let reasons = ["sold-out", "too-early", "ended", "limit-reached"]
            .map(|name| history.names.find(name).filter(|sym| *sym != Sym(0)));
        let mut scan = Scan { wanted: Vec::with_capacity(history.ops.len()), ..Scan::default() };
        let mut lags: Vec<u32> = Vec::with_capacity(history.ops.len());
        for (n, op) in history.ops.iter().enumerate() {
            let n = n as u32;
            scan.top = scan.top.max(op.order.0);
            match op.role {
                Role::Order | Role::Lookup | Role::Ticket => scan.wanted.push((op.intent, n)),
                Role::Pay | Role::Cancel => {
                    scan.actions.push(n);
                    scan.tried_to_pay |= op.role == Role::Pay;
                }
                Role::Read => {}
            }
            if op.outcome == Outcome::Dropped {
                continue;
            }
            if op.role == Role::Ticket || op.is_pending() {
                scan.tickets.push(n);
            }
            if op.token != Sym(0) {
                scan.tokens.push(n);
            }
            scan.backwards += usize::from(op.completed_us < op.invoked_us);
            let buys = op.role != Role::Read;
            scan.indeterminate += usize::from(buys && op.outcome == Outcome::Info);
            if op.attempt > 1 {
                scan.retried += usize::from(buys);
            } else {
                lags.push(u32::try_from(op.send_lag_us()).unwrap_or(u32::MAX));
            }
            if op.outcome == Outcome::Ok {
                scan.ok(n, op);
            } else if op.outcome == Outcome::Fail
                && (op.role == Role::Order || op.ticket_refused())
                && reasons.contains(&Some(op.reason))
            {
                scan.refusals.push(n);
                scan.sold_out += usize::from(reasons[0] == Some(op.reason));
            }
        }
        let rank = (lags.len() * 99).div_ceil(100).max(1) - 1;
        scan.send_lag_us_p99 = (!lags.is_empty()).then(|| *lags.select_nth_unstable(rank).1);
        scan
    }

    fn ok(&mut self, n: u32, op: &Op) {
        self.told_expired += usize::from(op.state == OrderState::Expired);
        if op.role != Role::Lookup && op.acknowledges() {
            self.orders_ok.push(n);
        }
        if op.amount_cents >= 0 {
            self.amounts.push(n);
        }
    }
}

/// A fault, as planned and as it happened.
#[derive(Debug, Clone, Copy)]
pub struct FaultWindow<'a> {
    /// Its id.
    pub id: &'a str,
    /// The plan, if it is recorded.
    pub plan: Option<&'a FaultPlan>,
    /// When it was to take effect, if it waited for an event that came.
    pub due: Option<Micros>,
    /// Why it was not injected, if it waited for an event that did not come.
    pub skipped: Option<&'a str>,
    /// When it took effect.
    pub injected: Option<Micros>,
    /// When it was taken away.
    pub healed: Option<Micros>,
    /// What it hit, in its own words.
    pub hit: &'a str,
    /// How many of what it is about it hit, if it counted.
    pub count: Option<u64>,
    /// Why it could not be injected or healed.
    pub error: Option<&'a str>,
}

/// The evidence, grouped.
#[derive(Debug)]
pub struct Index<'a> {
    /// Intents to order, by id.
    pub intents: Vec<Intent>,
    /// Orders as their buyers were told of them.
    pub acks: Vec<Ack>,
    /// The ledger; none if there is no audit, or if the audit has counters only.
    pub books: Option<Books<'a>>,
    /// The faults, in the order in which they are first mentioned.
    pub faults: Vec<FaultWindow<'a>>,
    /// What a single look at every op tells.
    pub scan: Scan,
    /// Why the history is not whole. Unless this is empty, that something is not in it proves nothing.
    pub holes: Vec<String>,
    /// Buyers who paid or cancelled something that cannot be told, with the earliest such moment.
    pub loose: HashMap<u64, Micros>,
    wrong_clocks: Vec<WrongClock>,
    items: QuickMap<i64, usize>,
    by_intent: Vec<u32>,
    actions: Vec<(Sym, u32)>,
    pub(super) ack_of_sym: Vec<u32>,
}

impl<'a> Index<'a> {
    /// Groups the evidence.
    pub fn build(history: &'a History, audit: Option<&'a FinalState>, rules: &Rules) -> Index<'a> {
        let items = rules.items.iter().enumerate().map(|(n, item)| (item.item, n)).collect();
        let mut scan = Scan::of(history);
        let by_intent = group_by_intent(std::mem::take(&mut scan.wanted));
        let (by_intent, intents) = fold_intents(&history.ops, by_intent);
        let faults = fault_windows(&history.events);
        let mut index = Index {
            intents,
            acks: Vec::new(),
            books: None,
            wrong_clocks: wrong_clocks(&faults, rules.epsilon_us),
            faults,
            scan,
            holes: holes(history),
            loose: HashMap::new(),
            items,
            by_intent,
            actions: Vec::new(),
            ack_of_sym: Vec::new(),
        };
        index.collect_acks(history);
        index.collect_actions(history);
        index.books = audit.filter(|audit| has_ledger(audit)).map(|audit| Books::build(audit, history, &index));
        index
    }

    /// Where an item stands in the rules. An op that names no item means the only one there is.
    pub fn item(&self, item: i64) -> Option<usize> {
        if item == 0 && self.items.len() == 1 { Some(0) } else { self.items.get(&item).copied() }
    }

    /// The ops of an intent, by time of invocation: attempts, lookups, and questions about its ticket.
    pub fn ops_of(&self, intent: &Intent) -> &[u32] {
        &self.by_intent[intent.start as usize..(intent.start + intent.len) as usize]
    }

    /// The index of the intent with this number.
    pub fn intent_of(&self, id: u64) -> Option<u32> {
        self.intents.binary_search_by_key(&id, |intent| intent.id).ok().map(|n| n as u32)
    }

    /// When what a reply says can have been decided at the earliest: for a ticket, when its purchase was first asked for,
    /// which may be any time before if the history is not whole.
    pub fn asked_at(&self, op: &Op) -> Micros {
        if op.role == Role::Ticket { self.first_asked_at(op) } else { op.invoked_us }
    }

    /// When the purchase that a request belongs to was first asked for, which may be any time before if the history is not
    /// whole.
    pub fn first_asked_at(&self, op: &Op) -> Micros {
        if op.role != Role::Ticket && op.attempt <= 1 {
            return op.invoked_us;
        }
        let intent = self.intent_of(op.intent).map(|intent| &self.intents[intent as usize]);
        intent.filter(|intent| intent.attempts > 0 && self.whole()).map_or(Micros::MIN, |intent| intent.first_invoked)
    }

    /// By how much more than ε the service's clock may have been off, by faults that set it wrong, between two moments. It
    /// does not matter on which of the two clocks these are: a wrong clock stamps what it does at moments that are as wrong.
    pub fn clock_slack(&self, from: Micros, until: Micros) -> Micros {
        let near = |wrong: &&WrongClock| {
            from <= wrong.until.saturating_add(wrong.most) && wrong.from.saturating_sub(wrong.most) <= until
        };
        self.wrong_clocks.iter().filter(near).fold(0, |sum, wrong| sum.saturating_add(wrong.most))
    }

    /// Words for that a clock was set wrong; none if none was.
    pub fn clock_remark(&self) -> Option<String> {
        let most = self.wrong_clocks.iter().map(|wrong| wrong.most).max()?;
        Some(format!(
            "; the service's clock was set wrong by up to {}, and around that it is held to its own clock alone",
            super::tally::seconds(most)
        ))
    }

    /// The acknowledgement that names this order.
    pub fn ack_of(&self, order: Sym) -> Option<&Ack> {
        let n = *self.ack_of_sym.get(order.0 as usize)?;
        self.acks.get(n as usize)
    }

    /// The payments and cancellations of an acknowledged order, by time of invocation.
    pub fn actions_of(&self, ack: &Ack) -> impl Iterator<Item = u32> + '_ {
        self.actions[ack.actions.0 as usize..ack.actions.1 as usize].iter().map(|(_, op)| *op)
    }

    /// The acknowledgement of an order in the ledger.
    pub fn ack_of_order(&self, order: &DurableOrder<'_>) -> Option<&Ack> {
        order.named.and_then(|sym| self.ack_of(sym))
    }

    /// Whether what is not in the history did not happen.
    pub fn whole(&self) -> bool {
        self.holes.is_empty()
    }

    fn collect_acks(&mut self, history: &History) {
        self.ack_of_sym = vec![NONE; self.scan.top as usize + 1];
        for n in 0..self.intents.len() {
            let intent = self.intents[n];
            if intent.class != Class::Ok {
                continue;
            }
            let mut nameless = None;
            let mut named = false;
            for at in intent.start..intent.start + intent.len {
                let op_index = self.by_intent[at as usize];
                let op = &history.ops[op_index as usize];
                if !op.acknowledges() {
                    continue;
                }
                if op.order == Sym(0) {
                    nameless = nameless.or(Some(op_index));
                    continue;
                }
                named = true;
                let known = self.ack_of_sym[op.order.0 as usize];
                if known == NONE {
                    self.ack_of_sym[op.order.0 as usize] = self.acks.len() as u32;
                    self.acks.push(Ack { order: op.order, intent: n as u32, op: op_index, actions: (0, 0) });
                } else if op.role != Role::Lookup {
                    let ack = &mut self.acks[known as usize];
                    if history.ops[ack.op as usize].role == Role::Lookup {
                        (ack.op, ack.intent) = (op_index, n as u32);
                    }
                }
            }
            if let (Some(op), false) = (nameless, named) {
                self.acks.push(Ack { order: Sym(0), intent: n as u32, op, actions: (0, 0) });
            }
        }
    }

    fn collect_actions(&mut self, history: &History) {
        for n in std::mem::take(&mut self.scan.actions) {
            let op = &history.ops[n as usize];
            if op.outcome == Outcome::Dropped {
                continue;
            }
            // A payment without a clear answer names no order, and is then for the one that its purchase made.
            let by_intent = || {
                let intent = self.intent_of(op.intent)?;
                let mut ops = self.ops_of(&self.intents[intent as usize]).iter().map(|n| &history.ops[*n as usize]);
                ops.find(|op| op.acknowledges() && op.order != Sym(0)).map(|op| op.order)
            };
            match if op.order == Sym(0) { by_intent() } else { Some(op.order) } {
                Some(order) => self.actions.push((order, n)),
                None => {
                    let first = self.loose.entry(op.user).or_insert(op.invoked_us);
                    *first = op.invoked_us.min(*first);
                }
            }
        }
        self.actions.sort_unstable();
        let mut start = 0;
        while start < self.actions.len() {
            let order = self.actions[start].0;
            let len = self.actions[start..].iter().take_while(|(other, _)| *other == order).count();
            let group = &mut self.actions[start..start + len];
            if len > 1 {
                group.sort_unstable_by_key(|(_, n)| (history.ops[*n as usize].invoked_us, *n));
            }
            if let Some(ack) = self.ack_of_sym.get(order.0 as usize).and_then(|n| self.acks.get_mut(*n as usize)) {
                ack.actions = (start as u32, (start + len) as u32);
            }
            start += len;
        }
    }
}

/// Indices of the ops that belong to purchases, those of one intent side by side.
fn group_by_intent(mut wanted: Vec<(u64, u32)>) -> Vec<u32> {
    let low = wanted.iter().map(|(intent, _)| *intent).min().unwrap_or(0);
    let high = wanted.iter().map(|(intent, _)| *intent).max().unwrap_or(0);
    // Numbers of intents are nearly dense, so counting them is linear; the sort is for histories in which they are not.
    let span = high - low;
    if span > 4 * wanted.len() as u64 + 1024 {
        wanted.sort_unstable();
        return wanted.into_iter().map(|(_, n)| n).collect();
    }
    let mut starts = vec![0u32; span as usize + 2];
    for (intent, _) in &wanted {
        starts[(intent - low) as usize + 1] += 1;
    }
    for n in 1..starts.len() {
        starts[n] += starts[n - 1];
    }
    let mut grouped = vec![0u32; wanted.len()];
    for (intent, n) in wanted {
        let slot = &mut starts[(intent - low) as usize];
        grouped[*slot as usize] = n;
        *slot += 1;
    }
    grouped
}

/// Folds the groups into intents, on several threads if there are many: most of the time goes into waiting for memory.
fn fold_intents(ops: &[Op], mut grouped: Vec<u32>) -> (Vec<u32>, Vec<Intent>) {
    let (threads, count) = (super::threads_for(grouped.len()), grouped.len());
    let mut pieces = Vec::with_capacity(threads);
    let (mut rest, mut base) = (grouped.as_mut_slice(), 0);
    for left in (1..=threads).rev() {
        let mut cut = rest.len() / left;
        while cut > 0 && cut < rest.len() && ops[rest[cut] as usize].intent == ops[rest[cut - 1] as usize].intent {
            cut += 1;
        }
        let (piece, tail) = rest.split_at_mut(cut);
        pieces.push((piece, base));
        base += cut as u32;
        rest = tail;
    }
    let intents = std::thread::scope(|scope| {
        let mut pieces = pieces.into_iter();
        let own = pieces.next();
        let others: Vec<_> = pieces
            .map(|(piece, base)| {
                scope.spawn(move || {
                    let mut intents = Vec::with_capacity(piece.len());
                    fold_piece(ops, piece, base, &mut intents);
                    intents
                })
            })
            .collect();
        let mut intents = Vec::with_capacity(count);
        own.into_iter().for_each(|(piece, base)| fold_piece(ops, piece, base, &mut intents));
        others.into_iter().for_each(|other| intents.append(&mut other.join().expect("folding does not panic")));
        intents
    });
    (grouped, intents)
}

/// Folds neighbouring groups that begin at `base` of all.
fn fold_piece(ops: &[Op], grouped: &mut [u32], base: u32, intents: &mut Vec<Intent>) {
    let mut start = 0;
    while start < grouped.len() {
        let id = ops[grouped[start] as usize].intent;
        let mut end = start + 1;
        while end < grouped.len() && ops[grouped[end] as usize].intent == id {
            end += 1;
        }
        if end - start > 1 {
            grouped[start..end].sort_unstable_by_key(|n| (ops[*n as usize].invoked_us, *n));
        }
        intents.push(fold_intent(ops, &grouped[start..end], base + start as u32));
        start = end;
    }
}

fn fold_intent(ops: &[Op], group: &[u32], start: u32) -> Intent {
    let all = || group.iter().map(|n| &ops[*n as usize]);
    let attempts = || all().filter(|op| op.role == Role::Order);
    let first = attempts().next().unwrap_or(&ops[group[0] as usize]);
    let count = attempts().count();
    let last_attempt = attempts().map(|op| op.attempt).max().unwrap_or(0);
    // A missing attempt may have been the one that took effect, so such an intent is never taken for refused.
    let complete = count > 0 && usize::from(last_attempt) <= count;
    let by_ticket = all().any(Op::ticket_refused);
    let refused =
        attempts().all(|op| matches!(op.outcome, Outcome::Fail | Outcome::Dropped) || by_ticket && op.is_pending());
    let class = if all().any(Op::acknowledges) {
        Class::Ok
    } else if complete && refused {
        Class::Fail
    } else {
        Class::Info
    };
    Intent {
        id: first.intent,
        user: first.user,
        item: first.item,
        first_invoked: first.invoked_us,
        quantity: first.quantity,
        class,
        attempts: u16::try_from(count).unwrap_or(u16::MAX),
        sent: all().any(|op| op.outcome != Outcome::Dropped),
        start,
        len: group.len() as u32,
    }
}

fn fault_windows(events: &[Event]) -> Vec<FaultWindow<'_>> {
    fn window<'w, 'a>(windows: &'w mut Vec<FaultWindow<'a>>, id: &'a str) -> &'w mut FaultWindow<'a> {
        let at = windows.iter().position(|w| w.id == id).unwrap_or_else(|| {
            let window = FaultWindow {
                id,
                plan: None,
                due: None,
                skipped: None,
                injected: None,
                healed: None,
                hit: "",
                count: None,
                error: None,
            };
            windows.push(window);
            windows.len() - 1
        });
        &mut windows[at]
    }
    let mut windows = Vec::new();
    for event in events {
        match event {
            Event::FaultPlanned(plan) => window(&mut windows, &plan.id).plan = Some(plan),
            Event::FaultTriggered { id, due_us, .. } => window(&mut windows, id).due = Some(*due_us),
            Event::FaultSkipped { id, why, .. } => window(&mut windows, id).skipped = Some(why),
            Event::FaultInjected { id, at_us } => window(&mut windows, id).injected = Some(*at_us),
            Event::FaultHealed { id, at_us, hit, count } => {
                let window = window(&mut windows, id);
                (window.healed, window.hit, window.count) = (Some(*at_us), hit, *count);
            }
            Event::FaultFailed { id, error, .. } => window(&mut windows, id).error = Some(error),
            _ => {}
        }
    }
    windows
}

/// How long it may take from a fault's effect to its note.
const NOTED_US: Micros = 100_000;

/// When and by how much the service's clock was set wrong. A fault that failed may have done so and not taken it back.
fn wrong_clocks(faults: &[FaultWindow<'_>], epsilon: Micros) -> Vec<WrongClock> {
    let wrong = |fault: &FaultWindow<'_>| {
        let plan = fault.plan?;
        let error = plan.clock?;
        if fault.injected.is_none() && fault.error.is_none() {
            return None;
        }
        // It is set some time before the nemesis notes it: after its time has come, or the event that it waits for.
        let noted = fault.injected.map_or(plan.at_us, |at| at.saturating_sub(NOTED_US));
        let from = noted.min(plan.at_us);
        let until = fault.healed.unwrap_or(Micros::MAX);
        let most = error.most_after(until.saturating_sub(from));
        Some(WrongClock { from: from.saturating_sub(epsilon), until: until.saturating_add(epsilon), most })
    };
    faults.iter().filter_map(wrong).collect()
}

/// Why the history cannot be taken for all that the clients did.
fn holes(history: &History) -> Vec<String> {
    let mut holes: Vec<String> = Vec::new();
    if !history.damage.is_empty() {
        let first = &history.damage[0];
        holes.push(format!("the history is damaged in {} place(s), the first: {first}", history.damage.len()));
    }
    let RunInfo { closed, .. } = &history.info;
    match closed {
        None => holes.push("the history was never closed: the harness died or is still running".to_owned()),
        Some(closed) => {
            if ![COMPLETED, STOPPED].contains(&closed.how.as_str()) {
                holes.push(format!(
                    "the run did not complete ({}), and what was in flight then is not recorded",
                    closed.how
                ));
            }
            if closed.ops_lost > 0 {
                holes.push(format!("{} ops were lost while recording", closed.ops_lost));
            }
            let read = history.ops.len() as u64;
            if closed.ops != read && history.damage.is_empty() {
                holes.push(format!("{} ops were written, and {read} can be read", closed.ops));
            }
        }
    }
    holes
}
