//! Groups the ledger of the audit by order, and finds the purchase that each order belongs to.
//!
//! Like the index that it is a part of, it draws no conclusions about right and wrong.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::index::{Index, NONE};
use crate::history::{EntryKind, FinalState, History, LedgerEntry, Micros, OrderState, RunInfo, Sym};

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
    /// The row that made it, if it has one: its first reserve row or, where stock is taken at payment, the one that placed it.
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
    /// Its rows by kind, as [`EntryKind`] orders them: reserve, pay, release, refund, place.
    pub rows: [u32; 5],
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
            rows: [0; 5],
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
            EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
        }
        if let Some(reserve) = self.reserve {
            self.mixed |= reserve.item != row.item;
        } else if matches!(row.kind, EntryKind::Reserve | EntryKind::Place) {
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
    /// Whether the ledger names buyers as the run does. A service may know them by numbers of its own.
    pub users_usable: bool,
    by_order: Vec<u32>,
    of_intent: Vec<u32>,
    of_sym: Vec<u32>,
}

/// An audit whose counters moved while its ledger has not a single row was made without access to the ledger.
pub(super) fn has_ledger(audit: &FinalState) -> bool {
    !audit.ledger.is_empty()
        || audit.stock.iter().all(|row| row.available == row.initial && row.held == 0 && row.sold == 0)
}

/// The number in a name that consists of a prefix and a number, as the harness makes them.
pub fn numbered(prefix: &str, text: &str) -> Option<u64> {
    let digits = text.trim_matches('"').strip_prefix(prefix)?;
    let plain =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

impl<'a> Books<'a> {
    pub(super) fn build(audit: &'a FinalState, history: &'a History, index: &Index<'_>) -> Books<'a> {
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
            users_usable: true,
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
        let mut own_user = false;
        for (n, order) in self.orders.iter_mut().enumerate() {
            let Some(reserve) = order.reserve else { continue };
            let key = reserve.key.as_deref().unwrap_or("");
            if order.on_sale {
                keyed |= !key.is_empty();
                foreign_user |= order.user.is_none();
                own_user |= order.user.is_some();
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
            let slot = order.intent.and_then(|intent| self.of_intent.get_mut(intent as usize));
            if let Some(slot) = slot.filter(|slot| **slot == NONE) {
                *slot = n as u32;
            }
        }
        // A service that stores no keys, or stores them in a form of its own, is judged without them.
        self.keys_usable = ours || keyed && !by_reply && foreign_user && own_user;
        self.users_usable = own_user || !foreign_user;
    }

    /// What was taken and given back, by the times of the rows, for each key that a row number has.
    pub(super) fn by_time<K: Hash + Eq>(&self, key: impl Fn(usize) -> Option<K>) -> HashMap<K, ByTime> {
        let mut times: HashMap<K, ByTime> = HashMap::new();
        let mut out_of_order = vec![0i64; self.orders.len()];
        for (n, brief) in self.brief.iter().enumerate() {
            let out = &mut out_of_order[brief.order as usize];
            let change = match brief.kind {
                EntryKind::Reserve => brief.quantity,
                EntryKind::Release => -brief.quantity.min(*out).max(0),
                EntryKind::Pay | EntryKind::Refund | EntryKind::Place => continue,
            };
            *out += change;
            let Some(key) = key(n) else { continue };
            let (times, at) = (times.entry(key).or_default(), self.rows[n].at_unix_us);
            times.steps.push((at, change));
            if brief.kind == EntryKind::Reserve {
                times.latest_taken = times.latest_taken.max(Some(at));
            } else {
                times.contradicted |= times.latest_taken.is_some_and(|taken| at < taken);
            }
        }
        times
    }

    /// The rows of an order, by `seq`.
    pub fn rows_of(&self, order: &DurableOrder<'_>) -> impl Iterator<Item = &'a LedgerEntry> + '_ {
        self.by_order[order.start as usize..(order.start + order.len) as usize]
            .iter()
            .map(|row| self.rows[*row as usize])
    }

    /// The order that a reply named.
    pub fn order_named(&self, order: Sym) -> Option<&DurableOrder<'a>> {
        self.orders.get(*self.of_sym.get(order.0 as usize)? as usize)
    }

    /// The first order that belongs to an intent.
    pub fn order_of_intent(&self, intent: u32) -> Option<&DurableOrder<'a>> {
        self.orders.get(*self.of_intent.get(intent as usize)? as usize)
    }

    /// Orders of the items on sale that have a row which made them: what invariants.md calls D.
    pub fn durable(&self) -> impl Iterator<Item = (&DurableOrder<'a>, &'a LedgerEntry)> + '_ {
        self.orders.iter().filter(|order| order.on_sale).filter_map(|order| Some((order, order.reserve?)))
    }

    /// The state that the rows of an order add up to.
    fn added_up(&self, order: &DurableOrder<'_>) -> OrderState {
        let mut state = OrderState::Unknown;
        for row in self.rows_of(order) {
            state = match row.kind {
                EntryKind::Place => OrderState::Placed,
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

/// What was taken and given back, by the times of the rows.
///
/// The order of `seq` is the order of effect, by contract; but a service that draws the numbers before it takes its lock
/// does not keep to it. The times of the rows give it away: then a sum over the rows is only believed if it comes out
/// the same in the order of the times.
#[derive(Debug, Default)]
pub(super) struct ByTime {
    steps: Vec<(Micros, i64)>,
    latest_taken: Option<Micros>,
    contradicted: bool,
}

impl ByTime {
    /// Whether the sum must have exceeded the limit, given that in the order of `seq` it did. Two machines may have
    /// stamped the rows, so a release counts from as early as it can have been.
    pub fn exceeds(&self, limit: i64, epsilon: Micros) -> bool {
        if !self.contradicted {
            return true;
        }
        let shift = epsilon.saturating_mul(2);
        let early = |(at, change): &(Micros, i64)| (if *change < 0 { at.saturating_sub(shift) } else { *at }, *change);
        // What was given back sorts before what was taken at the same moment.
        let mut steps: Vec<(Micros, i64)> = self.steps.iter().map(early).collect();
        steps.sort_unstable();
        let mut sum = 0;
        steps.into_iter().any(|(_, change)| {
            sum += change;
            sum > limit
        })
    }
}

/// Words for a sum that only the order of `seq` brings about.
pub(super) fn not_in_order(what: &str, row: &LedgerEntry) -> String {
    format!(
        "{what} at ledger row {} by the order of the rows, and not by their times, and the two contradict each other: `seq` \
         is not the order of effect; draw it under the lock that guards the stock",
        row.seq
    )
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
