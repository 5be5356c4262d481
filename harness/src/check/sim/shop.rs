//! The simulated shop: what a correct service does with each request, and how each [`Bug`] does it instead.
//!
//! A request is handled in two steps, a look and a deed. The correct shop ignores what the look saw and decides at the
//! deed; the raced bugs act on what was true at the look.

use std::collections::HashMap;

use super::super::ItemRules;
use super::super::testing::EPOCH_UNIX_US;
use super::{Bug, Dice};
use crate::history::{EntryKind, LedgerEntry, Micros, OrderState, StockRow};

/// What a buyer asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub intent: u64,
    pub user: u64,
    pub quantity: i64,
    /// What the buyer's own clock says.
    pub buyer_clock: Micros,
}

/// What a look saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    available: i64,
    key_known: bool,
    user_has: i64,
}

/// What the shop answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Order {
        id: String,
        state: OrderState,
        cents: i64,
    },
    Refused(&'static str),
    /// Queued: a ticket stands for it, and will say what became of it.
    Pending,
    /// There is no such ticket.
    Missing,
    /// A 5xx: it may or may not have worked.
    Broken,
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub id: String,
    pub user: u64,
    pub quantity: i64,
    pub state: OrderState,
    pub expires: Micros,
    pub made: Micros,
    row: usize,
    stuck: bool,
    cancelled: bool,
}

pub(super) struct Shop {
    pub bug: Option<Bug>,
    pub dice: Dice,
    pub rules: ItemRules,
    pub skew: Micros,
    pub epsilon: Micros,
    pub late_capture: bool,
    pub orders: Vec<Order>,
    pub ledger: Vec<LedgerEntry>,
    pub stock: StockRow,
    /// Orders acknowledged and not yet committed, for the bug that does it in this order.
    pub uncommitted: Vec<(Ask, String, Micros)>,
    /// Whether the bug showed, where the shop itself can tell.
    pub shown: bool,
    keys: HashMap<u64, usize>,
    by_id: HashMap<String, usize>,
    flag: bool,
    next: u64,
}

impl Shop {
    pub fn new(bug: Option<Bug>, dice: Dice, rules: ItemRules, epsilon: Micros) -> Shop {
        let mut dice = dice;
        let mut stock =
            StockRow { item: rules.item, initial: rules.stock, available: rules.stock, ..StockRow::default() };
        if bug == Some(Bug::ShardRemainderStranded) {
            stock.shards = vec![rules.stock - rules.stock / 2, rules.stock / 2];
        }
        if bug == Some(Bug::CacheNotCompensated) {
            stock.caches = vec![("redis".to_owned(), rules.stock)];
        }
        let skew = dice.between(-(epsilon * 3 / 4), epsilon * 3 / 4);
        let late_capture = dice.chance(50);
        Shop {
            bug,
            dice,
            rules,
            skew,
            epsilon,
            late_capture,
            orders: Vec::new(),
            ledger: Vec::new(),
            stock,
            uncommitted: Vec::new(),
            shown: false,
            keys: HashMap::new(),
            by_id: HashMap::new(),
            flag: false,
            next: 0,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn show(&mut self) {
        self.shown = true;
    }

    pub fn order_named(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    fn user_has(&self, user: u64) -> i64 {
        // In a sale of that size every buyer comes once, and looking through all orders would take for ever.
        if self.orders.len() > 10_000 {
            return 0;
        }
        self.orders.iter().filter(|order| order.user == user && order.state.is_live()).map(|order| order.quantity).sum()
    }

    pub fn look(&self, ask: &Ask) -> Seen {
        Seen {
            available: self.stock.available,
            key_known: self.keys.contains_key(&ask.intent),
            user_has: self.user_has(ask.user),
        }
    }

    /// The deed of an order.
    pub fn order(&mut self, ask: &Ask, seen: &Seen, now: Micros) -> Answer {
        let twin = self.has(Bug::KeyCheckedThenInserted) && !seen.key_known;
        if let Some(known) = self.keys.get(&ask.intent).copied().filter(|_| !twin) {
            if self.has(Bug::DeductBeforeDuplicateCheck) && self.stock.available >= ask.quantity {
                self.stock.available -= ask.quantity;
                self.show();
            }
            if self.has(Bug::RetryToldNo) && self.dice.chance(50) {
                return Answer::Refused("sold-out");
            }
            return self.answer(known);
        }
        if self.has(Bug::OneOrderForTwoPurchases)
            && let Some(own) = self.orders.iter().position(|own| own.user == ask.user && own.quantity == ask.quantity)
        {
            self.keys.insert(ask.intent, own);
            return self.answer(own);
        }
        if let Some(refusal) = self.refusal(ask, seen, now) {
            return Answer::Refused(refusal);
        }
        if self.keys.contains_key(&ask.intent) {
            self.show();
        }
        match self.bug {
            Some(Bug::AckBeforeCommit) => {
                let id = self.new_id();
                self.uncommitted.push((*ask, id.clone(), now));
                return Answer::Order { id, state: OrderState::Held, cents: self.rules.price_cents * ask.quantity };
            }
            Some(Bug::PublishedThenRolledBack) if self.dice.chance(15) => {
                let id = self.new_id();
                return Answer::Order { id, state: OrderState::Held, cents: -1 };
            }
            Some(Bug::CacheNotCompensated) if self.dice.chance(15) => {
                self.stock.caches.iter_mut().for_each(|cache| cache.1 -= ask.quantity);
                self.show();
                return Answer::Broken;
            }
            _ => {}
        }
        let id = self.new_id();
        let order = self.take(ask, seen, &id, now);
        self.afterwards(ask, seen, order, now)
    }

    /// Why an order is refused; none if it is not.
    fn refusal(&mut self, ask: &Ask, seen: &Seen, now: Micros) -> Option<&'static str> {
        let clock = if self.has(Bug::ClientClock) { ask.buyer_clock } else { now + self.skew };
        if clock < self.rules.opens_us && !self.has(Bug::TakenBeforeStart) {
            return Some("too-early");
        }
        if clock > self.rules.closes_us {
            return Some("ended");
        }
        if ask.quantity < 1 && !self.has(Bug::NegativeQuantity) {
            return Some("invalid-quantity");
        }
        let has = if self.has(Bug::LimitRaced) { seen.user_has } else { self.user_has(ask.user) };
        let limit = self.rules.per_user_limit - i64::from(self.has(Bug::LimitTooLow));
        if has + ask.quantity > limit {
            return Some("limit-reached");
        }
        if self.has(Bug::AlwaysSoldOut) && self.dice.chance(30) {
            return Some("sold-out");
        }
        let mut available = match self.bug {
            Some(Bug::ReadThenWriteBack | Bug::CheckThenDeduct) => seen.available,
            Some(Bug::ShardRemainderStranded) => self.stock.shards[ask.user as usize % 2],
            _ => self.stock.available,
        };
        if self.flag && matches!(self.bug, Some(Bug::SoldOutFlagNeverCleared | Bug::SoldOutForTooLong)) {
            available = 0;
        }
        if available < ask.quantity && !(self.has(Bug::RowCountIgnored) && self.dice.chance(30)) {
            self.flag = true;
            return Some("sold-out");
        }
        None
    }

    fn new_id(&mut self) -> String {
        if self.has(Bug::OrderNumberReused) && self.next > 0 && self.dice.chance(10) {
            return format!("o{}", self.next);
        }
        self.next += 1;
        format!("o{}", self.next)
    }

    /// Takes the stock and writes the order, in one step.
    fn take(&mut self, ask: &Ask, seen: &Seen, id: &str, now: Micros) -> usize {
        let quantity = if self.has(Bug::QuantityChanged) && ask.quantity > 1 { 1 } else { ask.quantity };
        let user = if self.has(Bug::KeptForAnotherUser) && self.dice.chance(15) { ask.user + 1 } else { ask.user };
        if quantity != ask.quantity || user != ask.user || quantity < 1 {
            self.show();
        }
        match self.bug {
            Some(Bug::ReadThenWriteBack) => self.stock.available = seen.available - quantity,
            Some(Bug::RowCountIgnored) if self.stock.available < quantity => self.show(),
            _ => self.stock.available -= quantity,
        }
        if let Some(shard) = self.stock.shards.get_mut(ask.user as usize % 2) {
            *shard -= quantity;
        }
        self.stock.caches.iter_mut().for_each(|cache| cache.1 -= quantity);
        let mut expires = now + self.skew + self.rules.hold_us;
        if self.has(Bug::HoldShortened) {
            expires -= self.rules.hold_us / 2;
            self.show();
        }
        let outside = now + self.skew < self.rules.opens_us - self.epsilon;
        if outside && matches!(self.bug, Some(Bug::TakenBeforeStart | Bug::ClientClock)) {
            self.show();
        }
        self.row(EntryKind::Reserve, id, user, quantity, now);
        let row = self.ledger.len() - 1;
        let entry = &mut self.ledger[row];
        entry.key = Some(format!("k{}", ask.intent));
        entry.expires_at_unix_us = Some(EPOCH_UNIX_US + expires);
        entry.amount_cents = Some(self.rules.price_cents * quantity);
        self.orders.push(Order {
            id: id.to_owned(),
            user,
            quantity,
            state: OrderState::Held,
            expires,
            made: now,
            row,
            stuck: false,
            cancelled: false,
        });
        let order = self.orders.len() - 1;
        self.keys.insert(ask.intent, order);
        self.by_id.entry(id.to_owned()).or_insert(order);
        if self.has(Bug::LimitRaced) && self.user_has(user) > self.rules.per_user_limit {
            self.show();
        }
        order
    }

    /// What some bugs do after the order is committed.
    fn afterwards(&mut self, ask: &Ask, seen: &Seen, order: usize, now: Micros) -> Answer {
        let odd = self.dice.chance(15);
        match self.bug {
            Some(Bug::CommittedButToldFailed) if odd => return Answer::Refused("conflict"),
            Some(Bug::RetryUnderNewKey | Bug::InnerRetryWithoutRecheck)
                if odd && self.stock.available >= ask.quantity =>
            {
                let id = self.new_id();
                let second = self.take(ask, seen, &id, now);
                if self.has(Bug::RetryUnderNewKey) {
                    let row = self.orders[second].row;
                    self.ledger[row].key = Some(format!("inner-{}", ask.intent));
                }
                self.show();
                return if self.dice.chance(50) { self.answer(second) } else { self.answer(order) };
            }
            Some(Bug::RedeliveredMessage) if odd && self.stock.available >= ask.quantity => {
                let again = self.ledger[self.orders[order].row].clone();
                self.stock.available -= ask.quantity;
                self.ledger.push(LedgerEntry { seq: self.ledger.len() as i64 + 1, ..again });
                self.show();
            }
            _ => {}
        }
        self.answer(order)
    }

    pub fn answer(&self, order: usize) -> Answer {
        let order = &self.orders[order];
        Answer::Order { id: order.id.clone(), state: order.state, cents: self.rules.price_cents * order.quantity }
    }

    pub fn lookup(&mut self, intent: u64) -> Answer {
        if self.has(Bug::LookupDenied) {
            return Answer::Refused("not-found");
        }
        self.keys.get(&intent).map_or(Answer::Refused("not-found"), |order| self.answer(*order))
    }

    fn row(&mut self, kind: EntryKind, id: &str, user: u64, quantity: i64, now: Micros) {
        self.ledger.push(LedgerEntry {
            seq: self.ledger.len() as i64 + 1,
            at_unix_us: EPOCH_UNIX_US + now + self.skew,
            kind,
            order: id.to_owned(),
            item: self.rules.item,
            user: format!("u{user}"),
            quantity,
            amount_cents: None,
            key: None,
            state: None,
            reason: None,
            expires_at_unix_us: None,
        });
    }

    fn money(&mut self, kind: EntryKind, order: usize, now: Micros) {
        let Order { id, user, quantity, .. } = self.orders[order].clone();
        let odd = self.has(Bug::WrongAmount) && kind == EntryKind::Pay && self.dice.chance(20);
        self.row(kind, &id, user, quantity, now);
        let due = self.rules.price_cents * quantity;
        if let Some(entry) = self.ledger.last_mut() {
            entry.amount_cents = Some(if odd { due - 1 } else { due });
        }
        self.shown |= odd;
    }

    fn give_back(&mut self, order: usize, state: OrderState, reason: &str, now: Micros) {
        let Order { id, user, quantity, .. } = self.orders[order].clone();
        self.orders[order].state = state;
        if self.has(Bug::EndedWithoutGivingBack) && reason == "payment-failed" {
            return self.show();
        }
        self.row(EntryKind::Release, &id, user, quantity, now);
        if let Some(entry) = self.ledger.last_mut() {
            entry.reason = Some(reason.to_owned());
        }
        if self.has(Bug::ReleaseNotCounted) && self.dice.chance(20) {
            return self.show();
        }
        self.stock.available += quantity;
        if let Some(shard) = self.stock.shards.get_mut(user as usize % 2) {
            *shard += quantity;
        }
        self.stock.caches.iter_mut().for_each(|cache| cache.1 += quantity);
    }

    pub fn pay(&mut self, order: usize, now: Micros) -> Answer {
        if self.has(Bug::PaymentDenied) && self.dice.chance(20) {
            return Answer::Refused("not-found");
        }
        if self.has(Bug::PaymentCalledTooLate) && self.dice.chance(30) {
            return Answer::Refused("hold-expired");
        }
        let target = if self.has(Bug::ChargedToAnotherOrder) { self.wrong_order(order) } else { order };
        match self.orders[order].state {
            OrderState::Held if self.has(Bug::PaymentLost) && self.dice.chance(20) => {
                let mut answer = self.answer(order);
                if let Answer::Order { state, .. } = &mut answer {
                    *state = OrderState::Paid;
                }
                return answer;
            }
            OrderState::Held if self.dice.chance(15) => return self.declined(order, now),
            OrderState::Held if !self.orders[order].stuck => {
                self.money(EntryKind::Pay, target, now);
                if self.has(Bug::CapturedTwice) && self.dice.chance(20) {
                    self.money(EntryKind::Pay, target, now);
                    self.show();
                }
                self.orders[target].state = OrderState::Paid;
                if target != order {
                    self.show();
                    return Answer::Order { id: self.orders[order].id.clone(), state: OrderState::Paid, cents: -1 };
                }
            }
            OrderState::Cancelled | OrderState::Expired if self.has(Bug::PaidAfterRelease) => {
                self.money(EntryKind::Pay, order, now);
                self.orders[order].state = OrderState::Paid;
                self.show();
            }
            OrderState::Cancelled | OrderState::Expired if self.late_capture => {
                self.money(EntryKind::Pay, order, now);
                self.money(EntryKind::Refund, order, now);
                self.orders[order].state = OrderState::Refunded;
            }
            OrderState::Paid | OrderState::Refunded => {}
            OrderState::Expired => return Answer::Refused("hold-expired"),
            _ => return Answer::Refused("order-over"),
        }
        self.answer(order)
    }

    /// A payment that the bank refuses: the order is over and its stock comes back.
    fn declined(&mut self, order: usize, now: Micros) -> Answer {
        match self.bug {
            Some(Bug::HeldForEverAfterFailedPayment) => {
                self.orders[order].stuck = true;
                self.show();
            }
            Some(Bug::CapturedButToldFailed) => {
                self.money(EntryKind::Pay, order, now);
                self.orders[order].state = OrderState::Paid;
            }
            _ => self.give_back(order, OrderState::Cancelled, "payment-failed", now),
        }
        Answer::Refused("payment-declined")
    }

    fn wrong_order(&mut self, order: usize) -> usize {
        let others = (0..self.orders.len()).filter(|n| self.orders[*n].state == OrderState::Held);
        let mut alike = others.filter(|n| *n != order && self.orders[*n].quantity == self.orders[order].quantity);
        alike.next_back().unwrap_or(order)
    }

    pub fn cancel(&mut self, order: usize, now: Micros) -> Answer {
        if self.has(Bug::PaymentDenied) && self.dice.chance(20) {
            return Answer::Refused("not-found");
        }
        match self.orders[order].state {
            OrderState::Held if self.has(Bug::CancelLost) && self.dice.chance(30) => {
                let id = self.orders[order].id.clone();
                return Answer::Order { id, state: OrderState::Cancelled, cents: -1 };
            }
            OrderState::Held => {
                self.orders[order].cancelled = true;
                self.give_back(order, OrderState::Cancelled, "cancelled", now);
            }
            OrderState::Paid => {
                self.money(EntryKind::Refund, order, now);
                self.give_back(order, OrderState::Refunded, "refunded", now);
            }
            _ => {}
        }
        self.answer(order)
    }

    /// How long after it was made a hold is looked at.
    pub fn hold(&mut self) -> Micros {
        let whole = self.rules.hold_us + self.dice.between(0, 300_000);
        let early = match self.bug {
            Some(Bug::ExpiredEarly | Bug::EndedUnasked) => self.dice.chance(20),
            Some(Bug::HoldShortened) => true,
            _ => false,
        };
        if early { self.rules.hold_us / 2 } else { whole }
    }

    pub fn expire(&mut self, order: usize, now: Micros) {
        let Order { state, stuck, cancelled, expires, .. } = self.orders[order];
        if state == OrderState::Held && !stuck {
            if now + self.skew < expires - 2 * self.epsilon {
                self.show();
            }
            if self.has(Bug::EndedUnasked) && now + self.skew < expires {
                return self.give_back(order, OrderState::Cancelled, "cancelled", now);
            }
            self.give_back(order, OrderState::Expired, "expired", now);
        } else if cancelled && state == OrderState::Cancelled && self.has(Bug::ReleasedTwice) {
            self.give_back(order, OrderState::Cancelled, "expired", now);
            self.show();
        }
    }

    /// Commits what was acknowledged long enough ago.
    pub fn commit(&mut self, until: Micros) -> Vec<usize> {
        let ripe = self.uncommitted.iter().take_while(|(_, _, at)| *at <= until).count();
        let ripe: Vec<_> = self.uncommitted.drain(..ripe).collect();
        ripe.into_iter().map(|(ask, id, at)| self.take(&ask, &Seen::default(), &id, at)).collect()
    }

    /// The process dies. What was only acknowledged is gone; so are commits that were never synced.
    pub fn crash(&mut self, now: Micros) {
        self.uncommitted.clear();
        if !self.has(Bug::CommitNotSynced) {
            return;
        }
        let unsynced = now - 150_000;
        for n in 0..self.orders.len() {
            let order = self.orders[n].clone();
            if order.made < unsynced || order.state != OrderState::Held {
                continue;
            }
            self.ledger.retain(|row| row.order != order.id);
            self.keys.retain(|_, known| *known != n);
            self.orders[n].state = OrderState::Unknown;
            self.stock.available += order.quantity;
        }
        for n in 0..self.ledger.len() {
            self.ledger[n].seq = n as i64 + 1;
        }
        self.relink();
    }

    fn relink(&mut self) {
        for order in &mut self.orders {
            let row = self.ledger.iter().position(|row| row.kind == EntryKind::Reserve && row.order == order.id);
            order.row = row.unwrap_or(usize::MAX);
        }
    }

    /// Writes the states and counters that the audit reads.
    pub fn settle(&mut self) {
        for order in &self.orders {
            if let Some(entry) = self.ledger.get_mut(order.row) {
                entry.state = Some(order.state);
                match order.state {
                    OrderState::Held => self.stock.held += order.quantity,
                    OrderState::Paid => self.stock.sold += order.quantity,
                    _ => {}
                }
            }
        }
        let (mut out, mut most) = (0, 0);
        for row in &self.ledger {
            match row.kind {
                EntryKind::Reserve => out += row.quantity,
                EntryKind::Release => out -= row.quantity,
                EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
            }
            most = most.max(out);
        }
        if matches!(self.bug, Some(Bug::ReadThenWriteBack | Bug::CheckThenDeduct)) {
            self.shown = most > self.rules.stock || self.stock.available != self.rules.stock - out;
        }
    }

    /// What fresh buyers get in the end.
    pub fn left(&self) -> i64 {
        match self.bug {
            Some(Bug::SoldOutFlagNeverCleared) if self.flag => 0,
            Some(Bug::ShardRemainderStranded) => self.stock.shards[0],
            _ => self.stock.available.max(0),
        }
    }
}
