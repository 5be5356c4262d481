//! Groups the evidence once, for all checks: ops by intent, acknowledgements by order, the ledger by order, the faults
//! by window.
//!
//! It draws no conclusions about right and wrong. Everything here is linear in the evidence but for the sorting of
//! what is small: the ops of one intent, the payments and cancellations.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Rules;
use crate::history::{
    EntryKind, Event, FaultPlan, FinalState, History, LedgerEntry, Micros, Op, OrderState, Outcome, Role, RunInfo, Sym,
};

/// No index; the tables below are dense, and this is cheaper than an option in them.
const NONE: u32 = u32::MAX;

/// How an intent to order ended, over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Some attempt was acknowledged.
    Ok,
    /// Every attempt was definitely refused, or provably sent nothing.
    Fail,
    /// Anything else: it may or may not have taken effect.
    Info,
}

/// One logical purchase: the attempts to order under one idempotency key, and the lookups of it.
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

/// How a durable order was matched to an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By the idempotency key in the ledger.
    Key,
    /// By a reply that named the order.
    Reply,
    /// Not at all.
    Nothing,
}

/// An order in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct DurableOrder<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its id as the history names it, if any reply ever did.
    pub named: Option<Sym>,
    /// Its first reserve row, if it has one.
    pub reserve: Option<&'a LedgerEntry>,
    /// The index of the intent that it belongs to.
    pub intent: Option<u32>,
    /// How that was found out.
    pub by: By,
    /// Whether its item is one of those that the run sells; what is not is none of the run's business.
    pub on_sale: bool,
    start: u32,
    len: u32,
}

/// The ledger of the audit, grouped by order.
#[derive(Debug)]
pub struct Books<'a> {
    /// All rows by `seq`.
    pub rows: Vec<&'a LedgerEntry>,
    /// The orders, in the order of their first rows.
    pub orders: Vec<DurableOrder<'a>>,
    /// For each row, the index of its order.
    pub order_of_row: Vec<u32>,
    /// Whether the ledger's keys can be held against the run's. If not, orders are matched by the replies that named
    /// them, and by buyer.
    pub keys_usable: bool,
    by_order: Vec<u32>,
    of_intent: Vec<u32>,
    of_sym: Vec<u32>,
}

/// A fault, as planned and as it happened.
#[derive(Debug, Clone, Copy)]
pub struct FaultWindow<'a> {
    /// Its id.
    pub id: &'a str,
    /// The plan, if it is recorded.
    pub plan: Option<&'a FaultPlan>,
    /// When it took effect.
    pub injected: Option<Micros>,
    /// When it was taken away.
    pub healed: Option<Micros>,
    /// What it hit, in its own words.
    pub hit: &'a str,
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
    /// Why the history is not whole. Unless this is empty, that something is not in it proves nothing.
    pub holes: Vec<String>,
    /// Buyers who paid or cancelled something that cannot be told, with the earliest such moment.
    pub loose: HashMap<u64, Micros>,
    items: HashMap<i64, usize>,
    by_intent: Vec<u32>,
    actions: Vec<(Sym, u32)>,
    ack_of_sym: Vec<u32>,
}

impl<'a> Index<'a> {
    /// Groups the evidence.
    pub fn build(history: &'a History, audit: Option<&'a FinalState>, rules: &Rules) -> Index<'a> {
        let items = rules.items.iter().enumerate().map(|(n, item)| (item.item, n)).collect();
        let by_intent = group_by_intent(&history.ops);
        let (by_intent, intents) = fold_intents(&history.ops, by_intent);
        let mut index = Index {
            intents,
            acks: Vec::new(),
            books: None,
            faults: fault_windows(&history.events),
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

    /// The ops of an intent, by time of invocation: attempts and lookups.
    pub fn ops_of(&self, intent: &Intent) -> &[u32] {
        &self.by_intent[intent.start as usize..(intent.start + intent.len) as usize]
    }

    /// The index of the intent with this number.
    pub fn intent_of(&self, id: u64) -> Option<u32> {
        self.intents.binary_search_by_key(&id, |intent| intent.id).ok().map(|n| n as u32)
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
        let top = history.ops.iter().map(|op| op.order.0).max().unwrap_or(0) as usize;
        self.ack_of_sym = vec![NONE; top + 1];
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
                if !acknowledges(op) {
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
                } else if op.role == Role::Order {
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
        let mut named_by_intent: HashMap<u64, Sym> = HashMap::new();
        let actions = || history.ops.iter().enumerate().filter(|(_, op)| matches!(op.role, Role::Pay | Role::Cancel));
        for (_, op) in actions().filter(|(_, op)| op.order == Sym(0) && op.outcome != Outcome::Dropped) {
            if let Some(intent) = self.intent_of(op.intent) {
                let intent = &self.intents[intent as usize];
                let order = self.ops_of(intent).iter().map(|n| history.ops[*n as usize]).find(|op| {
                    acknowledges(op) && op.order != Sym(0)
                });
                if let Some(order) = order {
                    named_by_intent.insert(op.intent, order.order);
                }
            }
        }
        for (n, op) in actions().filter(|(_, op)| op.outcome != Outcome::Dropped) {
            let order = if op.order == Sym(0) { named_by_intent.get(&op.intent).copied() } else { Some(op.order) };
            match order {
                Some(order) => self.actions.push((order, n as u32)),
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

/// Whether a reply tells the buyer that there is an order.
pub fn acknowledges(op: &Op) -> bool {
    op.outcome == Outcome::Ok && (op.role == Role::Order || op.role == Role::Lookup && op.order != Sym(0))
}

/// Indices of the attempts and lookups, those of one intent side by side.
fn group_by_intent(ops: &[Op]) -> Vec<u32> {
    let wanted = || ops.iter().enumerate().filter(|(_, op)| matches!(op.role, Role::Order | Role::Lookup));
    let (mut count, mut low, mut high) = (0usize, u64::MAX, 0u64);
    for (_, op) in wanted() {
        count += 1;
        low = low.min(op.intent);
        high = high.max(op.intent);
    }
    if count == 0 {
        return Vec::new();
    }
    // Numbers of intents are nearly dense, so counting them is linear; the sort is for histories in which they are not.
    let span = high - low;
    if span > 4 * count as u64 + 1024 {
        let mut grouped: Vec<u32> = wanted().map(|(n, _)| n as u32).collect();
        grouped.sort_unstable_by_key(|n| (ops[*n as usize].intent, *n));
        return grouped;
    }
    let mut starts = vec![0u32; span as usize + 2];
    for (_, op) in wanted() {
        starts[(op.intent - low) as usize + 1] += 1;
    }
    for n in 1..starts.len() {
        starts[n] += starts[n - 1];
    }
    let mut grouped = vec![0u32; count];
    for (n, op) in wanted() {
        let slot = &mut starts[(op.intent - low) as usize];
        grouped[*slot as usize] = n as u32;
        *slot += 1;
    }
    grouped
}

fn fold_intents(ops: &[Op], mut grouped: Vec<u32>) -> (Vec<u32>, Vec<Intent>) {
    let mut intents = Vec::with_capacity(grouped.len());
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
        intents.push(fold_intent(ops, &grouped[start..end], start as u32));
        start = end;
    }
    (grouped, intents)
}

fn fold_intent(ops: &[Op], group: &[u32], start: u32) -> Intent {
    let all = || group.iter().map(|n| &ops[*n as usize]);
    let attempts = || all().filter(|op| op.role == Role::Order);
    let first = attempts().next().unwrap_or(&ops[group[0] as usize]);
    let count = attempts().count();
    let last_attempt = attempts().map(|op| op.attempt).max().unwrap_or(0);
    // A missing attempt may have been the one that took effect, so such an intent is never taken for refused.
    let complete = count > 0 && usize::from(last_attempt) <= count;
    let refused = attempts().all(|op| matches!(op.outcome, Outcome::Fail | Outcome::Dropped));
    let class = if all().any(acknowledges) {
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

/// An audit whose counters moved while its ledger has not a single row was made without access to the ledger.
fn has_ledger(audit: &FinalState) -> bool {
    !audit.ledger.is_empty() || audit.stock.iter().all(|row| row.available == row.initial && row.held == 0 && row.sold == 0)
}

/// The number in a name that consists of a prefix and a number, as the harness makes them.
pub fn numbered(prefix: &str, text: &str) -> Option<u64> {
    let digits = text.trim_matches('"').strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

impl<'a> Books<'a> {
    fn build(audit: &'a FinalState, history: &'a History, index: &Index<'_>) -> Books<'a> {
        let mut rows: Vec<&LedgerEntry> = audit.ledger.iter().collect();
        if !rows.is_sorted_by_key(|row| row.seq) {
            rows.sort_by_key(|row| row.seq);
        }
        let mut numbers: QuickMap<&str, u32> = QuickMap::with_capacity_and_hasher(rows.len() / 2, Default::default());
        let mut orders: Vec<DurableOrder<'a>> = Vec::new();
        let mut order_of_row = Vec::with_capacity(rows.len());
        for row in &rows {
            let number = *numbers.entry(row.order.as_str()).or_insert_with(|| {
                orders.push(DurableOrder {
                    id: row.order.as_str(),
                    named: history.names.find(&row.order).filter(|sym| *sym != Sym(0)),
                    reserve: None,
                    intent: None,
                    by: By::Nothing,
                    on_sale: false,
                    start: 0,
                    len: 0,
                });
                orders.len() as u32 - 1
            });
            let order = &mut orders[number as usize];
            order.len += 1;
            order.on_sale |= index.items.contains_key(&row.item);
            if row.kind == EntryKind::Reserve && order.reserve.is_none() {
                order.reserve = Some(row);
            }
            order_of_row.push(number);
        }
        let by_order = group_rows(&mut orders, &order_of_row);
        let mut books = Books {
            rows,
            orders,
            order_of_row,
            keys_usable: true,
            by_order,
            of_intent: vec![NONE; index.intents.len()],
            of_sym: vec![NONE; index.ack_of_sym.len()],
        };
        books.attribute(history, index);
        books
    }

    /// Finds the intent of every order: by its key, else by the reply that named it.
    fn attribute(&mut self, history: &History, index: &Index<'_>) {
        let info = &history.info;
        let (mut ours, mut by_reply, mut foreign_user, mut keyed) = (false, false, false, false);
        for (n, order) in self.orders.iter_mut().enumerate() {
            let Some(reserve) = order.reserve else { continue };
            let key = reserve.key.as_deref().unwrap_or("");
            if order.on_sale {
                keyed |= !key.is_empty();
                foreign_user |= numbered(&info.user_prefix, &reserve.user).is_none();
            }
            let ack = index.ack_of_order(order);
            if let Some(slot) = order.named.and_then(|sym| self.of_sym.get_mut(sym.0 as usize)) {
                *slot = n as u32;
            }
            if let Some(id) = numbered(&info.key_prefix, key) {
                ours = true;
                order.intent = index.intent_of(id);
                order.by = By::Key;
            } else if let Some(ack) = ack {
                by_reply = true;
                order.intent = Some(ack.intent);
                order.by = By::Reply;
            }
            if let Some(slot) = order.intent.and_then(|intent| self.of_intent.get_mut(intent as usize)) {
                if *slot == NONE {
                    *slot = n as u32;
                }
            }
        }
        // A service that stores no keys, or stores them in a form of its own, is judged without them.
        self.keys_usable = ours || keyed && !by_reply && foreign_user;
    }

    /// The rows of an order, by `seq`.
    pub fn rows_of(&self, order: &DurableOrder<'_>) -> impl Iterator<Item = &'a LedgerEntry> + '_ {
        self.by_order[order.start as usize..(order.start + order.len) as usize].iter().map(|row| self.rows[*row as usize])
    }

    /// The order that a reply named.
    pub fn order_named(&self, order: Sym) -> Option<&DurableOrder<'a>> {
        self.orders.get(*self.of_sym.get(order.0 as usize)? as usize)
    }

    /// The first order that belongs to an intent.
    pub fn order_of_intent(&self, intent: u32) -> Option<&DurableOrder<'a>> {
        self.orders.get(*self.of_intent.get(intent as usize)? as usize)
    }

    /// Orders of the items on sale that have a reserve row: what invariants.md calls D.
    pub fn durable(&self) -> impl Iterator<Item = (&DurableOrder<'a>, &'a LedgerEntry)> + '_ {
        self.orders.iter().filter(|order| order.on_sale).filter_map(|order| Some((order, order.reserve?)))
    }

    /// The state of an order at the time of the audit: as it says, else as its rows add up.
    pub fn state_of(&self, order: &DurableOrder<'_>) -> OrderState {
        let said = order.reserve.and_then(|row| row.state).unwrap_or_default();
        if said != OrderState::Unknown {
            return said;
        }
        let mut state = OrderState::Unknown;
        for row in self.rows_of(order) {
            state = match row.kind {
                EntryKind::Reserve => OrderState::Held,
                EntryKind::Pay => OrderState::Paid,
                EntryKind::Refund => OrderState::Refunded,
                EntryKind::Release if state == OrderState::Refunded => OrderState::Refunded,
                EntryKind::Release if says_expired(row) => OrderState::Expired,
                EntryKind::Release => OrderState::Cancelled,
            };
        }
        state
    }
}

/// A map for keys that nobody chose with malice: half the time of judging a large ledger would go into safer hashing.
pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// The hasher of [`QuickMap`]: multiply and rotate, mixed once more at the end.
#[derive(Debug, Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

/// Whether a release row says that the hold's time was up.
pub fn says_expired(row: &LedgerEntry) -> bool {
    let reason = row.reason.as_deref().unwrap_or("").to_ascii_lowercase();
    row.kind == EntryKind::Release && (reason.starts_with("expir") || reason == "ttl" || reason == "timeout")
}

/// Row numbers, those of one order side by side and by `seq`; sets where each order's begin.
fn group_rows(orders: &mut [DurableOrder<'_>], order_of_row: &[u32]) -> Vec<u32> {
    let mut next = Vec::with_capacity(orders.len());
    let mut start = 0;
    for order in orders.iter_mut() {
        order.start = start;
        next.push(start);
        start += order.len;
    }
    let mut grouped = vec![0; order_of_row.len()];
    for (row, order) in order_of_row.iter().enumerate() {
        let slot = &mut next[*order as usize];
        grouped[*slot as usize] = row as u32;
        *slot += 1;
    }
    grouped
}

fn fault_windows(events: &[Event]) -> Vec<FaultWindow<'_>> {
    fn window<'w, 'a>(windows: &'w mut Vec<FaultWindow<'a>>, id: &'a str) -> &'w mut FaultWindow<'a> {
        let at = windows.iter().position(|w| w.id == id).unwrap_or_else(|| {
            windows.push(FaultWindow { id, plan: None, injected: None, healed: None, hit: "", error: None });
            windows.len() - 1
        });
        &mut windows[at]
    }
    let mut windows = Vec::new();
    for event in events {
        match event {
            Event::FaultPlanned(plan) => window(&mut windows, &plan.id).plan = Some(plan),
            Event::FaultInjected { id, at_us } => window(&mut windows, id).injected = Some(*at_us),
            Event::FaultHealed { id, at_us, hit } => {
                let window = window(&mut windows, id);
                (window.healed, window.hit) = (Some(*at_us), hit);
            }
            Event::FaultFailed { id, error, .. } => window(&mut windows, id).error = Some(error),
            _ => {}
        }
    }
    windows
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
            if closed.how != "completed" {
                holes.push(format!("the run did not complete ({}), and what was in flight then is not recorded", closed.how));
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
