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
    /// The buyer, if it is one of the run's.
    pub user: Option<u64>,
    /// Its state at the time of the audit: as it says, else as its rows add up.
    pub state: OrderState,
    /// Its rows by kind, as [`EntryKind`] orders them: reserve, pay, release, refund.
    pub rows: [u32; 4],
    /// Units reserved less units released.
    pub out: i64,
    /// Whether some row is of another item than the first.
    pub mixed: bool,
    start: u32,
    len: u32,
}

impl<'a> DurableOrder<'a> {
    fn new(row: &'a LedgerEntry, history: &History) -> DurableOrder<'a> {
        DurableOrder {
            id: row.order.as_str(),
            named: history.names.find(&row.order).filter(|sym| *sym != Sym(0)),
            reserve: None,
            intent: None,
            by: By::Nothing,
            on_sale: false,
            user: None,
            state: OrderState::Unknown,
            rows: [0; 4],
            out: 0,
            mixed: false,
            start: 0,
            len: 0,
        }
    }

    fn add(&mut self, row: &'a LedgerEntry, on_sale: bool, info: &RunInfo) {
        self.len += 1;
        self.rows[row.kind as usize] += 1;
        self.on_sale |= on_sale;
        match row.kind {
            EntryKind::Reserve => self.out += row.quantity,
            EntryKind::Release => self.out -= row.quantity,
            EntryKind::Pay | EntryKind::Refund => {}
        }
        if let Some(reserve) = self.reserve {
            self.mixed |= reserve.item != row.item;
        } else if row.kind == EntryKind::Reserve {
            self.reserve = Some(row);
            self.user = numbered(&info.user_prefix, &row.user);
            self.state = row.state.unwrap_or_default();
        }
    }

    /// How many rows of a kind it has.
    pub fn count(&self, kind: EntryKind) -> u32 {
        self.rows[kind as usize]
    }
}

/// What most checks need of a ledger row, side by side in memory.
#[derive(Debug, Clone, Copy)]
pub struct Brief {
    /// What happened.
    pub kind: EntryKind,
    /// The item's place in the rules; none if it is not on sale.
    pub item: Option<u16>,
    /// The index of its order.
    pub order: u32,
    /// Units.
    pub quantity: i64,
}

/// What a single look at every op tells: reading a large history again for each check would take most of the time.
#[derive(Debug, Default)]
pub struct Scan {
    /// Orders refused as sold out, too early, or ended.
    pub refusals: Vec<u32>,
    /// Replies that state an amount.
    pub amounts: Vec<u32>,
    /// Orders acknowledged.
    pub orders_ok: Vec<u32>,
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
        let reasons = ["sold-out", "too-early", "ended"].map(|name| history.names.find(name).filter(|sym| *sym != Sym(0)));
        let mut scan = Scan { wanted: Vec::with_capacity(history.ops.len()), ..Scan::default() };
        let mut lags: Vec<u32> = Vec::with_capacity(history.ops.len());
        for (n, op) in history.ops.iter().enumerate() {
            let n = n as u32;
            scan.top = scan.top.max(op.order.0);
            match op.role {
                Role::Order | Role::Lookup => scan.wanted.push((op.intent, n)),
                Role::Pay | Role::Cancel => {
                    scan.actions.push(n);
                    scan.tried_to_pay |= op.role == Role::Pay;
                }
                Role::Read => {}
            }
            if op.outcome == Outcome::Dropped {
                continue;
            }
            scan.backwards += usize::from(op.completed_us < op.invoked_us);
            scan.indeterminate += usize::from(op.outcome == Outcome::Info);
            if op.attempt > 1 {
                scan.retried += 1;
            } else {
                lags.push(u32::try_from(op.send_lag_us()).unwrap_or(u32::MAX));
            }
            if op.outcome == Outcome::Ok {
                scan.ok(n, op);
            } else if op.outcome == Outcome::Fail && op.role == Role::Order && reasons.contains(&Some(op.reason)) {
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
        if op.role == Role::Order {
            self.orders_ok.push(n);
        }
        if op.amount_cents >= 0 {
            self.amounts.push(n);
        }
    }
}

/// The ledger of the audit, grouped by order.
#[derive(Debug)]
pub struct Books<'a> {
    /// All rows by `seq`.
    pub rows: Vec<&'a LedgerEntry>,
    /// The orders, in the order of their first rows.
    pub orders: Vec<DurableOrder<'a>>,
    /// The same rows in brief.
    pub brief: Vec<Brief>,
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
    /// What a single look at every op tells.
    pub scan: Scan,
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
        let mut scan = Scan::of(history);
        let by_intent = group_by_intent(std::mem::take(&mut scan.wanted));
        let (by_intent, intents) = fold_intents(&history.ops, by_intent);
        let mut index = Index {
            intents,
            acks: Vec::new(),
            books: None,
            faults: fault_windows(&history.events),
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
        for n in std::mem::take(&mut self.scan.actions) {
            let op = &history.ops[n as usize];
            if op.outcome == Outcome::Dropped {
                continue;
            }
            // A payment without a clear answer names no order, and is then for the one that its purchase made.
            let by_intent = || {
                let intent = self.intent_of(op.intent)?;
                let mut ops = self.ops_of(&self.intents[intent as usize]).iter().map(|n| &history.ops[*n as usize]);
                ops.find(|op| acknowledges(op) && op.order != Sym(0)).map(|op| op.order)
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

/// Whether a reply tells the buyer that there is an order.
pub fn acknowledges(op: &Op) -> bool {
    op.outcome == Outcome::Ok && (op.role == Role::Order || op.role == Role::Lookup && op.order != Sym(0))
}

/// Indices of the attempts and lookups, those of one intent side by side.
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
        let mut brief = Vec::with_capacity(rows.len());
        for row in &rows {
            let number = *numbers.entry(row.order.as_str()).or_insert_with(|| {
                orders.push(DurableOrder::new(row, history));
                orders.len() as u32 - 1
            });
            let item = index.item(row.item).map(|item| item as u16);
            brief.push(Brief { kind: row.kind, item, order: number, quantity: row.quantity });
            orders[number as usize].add(row, item.is_some(), &history.info);
        }
        let by_order = group_rows(&mut orders, &brief);
        let mut books = Books {
            rows,
            orders,
            brief,
            keys_usable: true,
            by_order,
            of_intent: vec![NONE; index.intents.len()],
            of_sym: vec![NONE; index.ack_of_sym.len()],
        };
        for n in 0..books.orders.len() {
            if books.orders[n].state == OrderState::Unknown {
                books.orders[n].state = books.added_up(&books.orders[n]);
            }
        }
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
                foreign_user |= order.user.is_none();
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

    /// The state that the rows of an order add up to.
    fn added_up(&self, order: &DurableOrder<'_>) -> OrderState {
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
fn group_rows(orders: &mut [DurableOrder<'_>], brief: &[Brief]) -> Vec<u32> {
    let mut next = Vec::with_capacity(orders.len());
    let mut start = 0;
    for order in orders.iter_mut() {
        order.start = start;
        next.push(start);
        start += order.len;
    }
    let mut grouped = vec![0; brief.len()];
    for (row, brief) in brief.iter().enumerate() {
        let slot = &mut next[brief.order as usize];
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
