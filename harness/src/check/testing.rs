//! Tiny histories, told as a story: who asked for what, what was answered, what the ledger says.
//!
//! For tests of the checks, and of whatever else reads evidence. Times are in milliseconds, the one item is number 1,
//! buyers are `u1`, `u2`, ..., idempotency keys `k1`, `k2`, ..., and a story begins with a sale of 10 units at 100
//! cents, open from 0 to 60 s, holds of 10 s, at most 2 units a user, and clocks that differ by at most 10 ms.

use super::{CHECKS, Case, Evidence, Expectations, Finding, ItemRules, Rules, judge_one};
use crate::history::{
    ClockError, Closed, DrainProbe, EntryKind, Event, FaultPlan, FinalState, History, LedgerEntry, Machine, Micros,
    Names, Op, OrderState, Outcome, PaymentEntry, PaymentKind, Role, RunInfo, StockRow,
};

/// Wall-clock time of the epoch of every story.
pub const EPOCH_UNIX_US: i64 = 1_700_000_000_000_000;

/// When a story is audited, in milliseconds.
pub const AUDIT_MS: i64 = 90_000;

/// An op of a story.
#[derive(Debug, Clone)]
pub struct OpSpec {
    role: Role,
    intent: u64,
    user: u64,
    attempt: u16,
    from_ms: i64,
    until_ms: i64,
    outcome: Outcome,
    status: u16,
    reason: &'static str,
    order: String,
    ticket: String,
    token: String,
    state: OrderState,
    item: i64,
    quantity: i32,
    amount_cents: i64,
}

fn op(role: Role, intent: u64) -> OpSpec {
    OpSpec {
        role,
        intent,
        user: intent,
        attempt: 1,
        from_ms: 100,
        until_ms: 150,
        outcome: Outcome::Info,
        status: 0,
        reason: "timeout",
        order: String::new(),
        ticket: String::new(),
        token: String::new(),
        state: OrderState::Unknown,
        item: 1,
        quantity: if matches!(role, Role::Order | Role::Ticket) { 1 } else { 0 },
        amount_cents: -1,
    }
}

/// An attempt to order one unit; the buyer has the purchase's number unless told otherwise.
pub fn order(intent: u64) -> OpSpec {
    op(Role::Order, intent)
}

/// A payment.
pub fn pay(intent: u64, order: &str) -> OpSpec {
    OpSpec { order: order.to_owned(), ..op(Role::Pay, intent) }
}

/// A cancel.
pub fn cancel(intent: u64, order: &str) -> OpSpec {
    OpSpec { order: order.to_owned(), ..op(Role::Cancel, intent) }
}

/// A look-up by idempotency key.
pub fn lookup(intent: u64) -> OpSpec {
    op(Role::Lookup, intent)
}

/// A question about a ticket.
pub fn ticket(intent: u64, ticket: &str) -> OpSpec {
    OpSpec { ticket: ticket.to_owned(), ..op(Role::Ticket, intent) }
}

/// A challenge passed, for which its buyer got a single-use token.
pub fn challenge(intent: u64, token: &str) -> OpSpec {
    OpSpec { outcome: Outcome::Ok, status: 200, reason: "", ..op(Role::Read, intent) }.token(token)
}

impl OpSpec {
    /// By this buyer.
    pub fn by(self, user: u64) -> OpSpec {
        OpSpec { user, ..self }
    }

    /// As the n-th attempt.
    pub fn attempt(self, attempt: u16) -> OpSpec {
        OpSpec { attempt, ..self }
    }

    /// Sent and answered at these milliseconds.
    pub fn at(self, from_ms: i64, until_ms: i64) -> OpSpec {
        OpSpec { from_ms, until_ms, ..self }
    }

    /// Of so many units.
    pub fn units(self, quantity: i32) -> OpSpec {
        OpSpec { quantity, ..self }
    }

    /// Of this item.
    pub fn item(self, item: i64) -> OpSpec {
        OpSpec { item, ..self }
    }

    /// With an amount in the reply.
    pub fn cents(self, amount_cents: i64) -> OpSpec {
        OpSpec { amount_cents, ..self }
    }

    /// Acknowledged: the reply names the order and its state.
    pub fn ok(self, order: &str, state: OrderState) -> OpSpec {
        OpSpec { outcome: Outcome::Ok, status: 201, reason: "", order: order.to_owned(), state, ..self }
    }

    /// Accepted, and not decided yet: an order gets this ticket, and a ticket is answered with it.
    pub fn pending(self, ticket: &str) -> OpSpec {
        let state = OrderState::Pending;
        OpSpec { outcome: Outcome::Ok, status: 202, reason: "", ticket: ticket.to_owned(), state, ..self }
    }

    /// Definitely refused.
    pub fn refused(self, reason: &'static str) -> OpSpec {
        OpSpec { outcome: Outcome::Fail, status: 409, reason, ..self }
    }

    /// Decided against, as a ticket says it.
    pub fn decided_against(self, reason: &'static str) -> OpSpec {
        OpSpec { outcome: Outcome::Fail, status: 200, reason, state: OrderState::Refused, ..self }
    }

    /// With a single-use token.
    pub fn token(self, token: &str) -> OpSpec {
        OpSpec { token: token.to_owned(), ..self }
    }

    /// Indeterminate.
    pub fn lost(self) -> OpSpec {
        OpSpec { outcome: Outcome::Info, status: 0, reason: "timeout", ..self }
    }

    /// Never sent.
    pub fn dropped(self) -> OpSpec {
        OpSpec { outcome: Outcome::Dropped, reason: "", ..self }
    }
}

/// A ledger row of a story.
#[derive(Debug, Clone)]
pub struct RowSpec(LedgerEntry);

fn row(kind: EntryKind, order: &str) -> RowSpec {
    RowSpec(LedgerEntry {
        seq: 0,
        at_unix_us: EPOCH_UNIX_US + 120_000,
        kind,
        order: order.to_owned(),
        item: 1,
        user: String::new(),
        quantity: 1,
        amount_cents: None,
        key: None,
        state: None,
        reason: None,
        expires_at_unix_us: None,
    })
}

/// A reserve row of one unit for a purchase of the buyer of the same number, in this state at the audit.
pub fn reserve(order: &str, intent: u64, state: OrderState) -> RowSpec {
    let mut spec = row(EntryKind::Reserve, order);
    (spec.0.user, spec.0.key, spec.0.state) = (format!("u{intent}"), Some(format!("k{intent}")), Some(state));
    spec
}

/// A pay row at the price.
pub fn paid(order: &str) -> RowSpec {
    let mut spec = row(EntryKind::Pay, order);
    spec.0.amount_cents = Some(100);
    spec
}

/// A release row.
pub fn release(order: &str, reason: &str) -> RowSpec {
    let mut spec = row(EntryKind::Release, order);
    spec.0.reason = Some(reason.to_owned());
    spec
}

/// A refund row at the price.
pub fn refund(order: &str) -> RowSpec {
    let mut spec = row(EntryKind::Refund, order);
    spec.0.amount_cents = Some(100);
    spec
}

impl RowSpec {
    /// Of this buyer.
    pub fn by(mut self, user: &str) -> RowSpec {
        self.0.user = user.to_owned();
        self
    }

    /// Under this key; none if empty.
    pub fn key(mut self, key: &str) -> RowSpec {
        self.0.key = (!key.is_empty()).then(|| key.to_owned());
        self
    }

    /// Stamped at these milliseconds.
    pub fn at(mut self, ms: i64) -> RowSpec {
        self.0.at_unix_us = EPOCH_UNIX_US + ms * 1000;
        self
    }

    /// Of so many units.
    pub fn units(mut self, quantity: i64) -> RowSpec {
        self.0.quantity = quantity;
        self
    }

    /// Of this item.
    pub fn item(mut self, item: i64) -> RowSpec {
        self.0.item = item;
        self
    }

    /// Of this amount.
    pub fn cents(mut self, amount_cents: i64) -> RowSpec {
        self.0.amount_cents = Some(amount_cents);
        self
    }

    /// With a hold until these milliseconds.
    pub fn until(mut self, ms: i64) -> RowSpec {
        self.0.expires_at_unix_us = Some(EPOCH_UNIX_US + ms * 1000);
        self
    }
}

/// A whole run, told line by line.
#[derive(Debug, Clone)]
pub struct Story {
    /// The client's side.
    pub history: History,
    /// The service's side.
    pub audit: Option<FinalState>,
    /// What was promised.
    pub rules: Rules,
}

/// The facts of a run about which there is nothing to tell.
pub fn run_info() -> RunInfo {
    RunInfo {
        run_id: "story".to_owned(),
        scenario: "story".to_owned(),
        seed: 1,
        schedule_hash: String::new(),
        timeline_hash: String::new(),
        epoch_unix_us: EPOCH_UNIX_US,
        user_prefix: "u".to_owned(),
        key_prefix: "k".to_owned(),
        duration_us: 60_000_000,
        machine: Machine::default(),
        closed: Some(Closed { how: "completed".to_owned(), ops: 0, ops_lost: 0, events: None }),
        shard: None,
        merged: Vec::new(),
    }
}

/// The rules of a story with so much stock.
pub fn rules(stock: i64) -> Rules {
    let item = ItemRules {
        item: 1,
        stock,
        per_user_limit: 2,
        price_cents: 100,
        hold_us: 10_000_000,
        opens_us: 0,
        closes_us: 60_000_000,
        plentiful: false,
    };
    Rules {
        items: vec![item],
        epsilon_us: 10_000,
        ticket_deadline_us: 5_000_000,
        expect: Expectations::default(),
        send_lag_limit_us: 5_000,
        abusive_cohorts: Vec::new(),
        set_up: true,
    }
}

impl Story {
    /// A sale of this many units in which nothing happened yet.
    pub fn new(stock: i64) -> Story {
        let history = History {
            info: run_info(),
            ops: Vec::new(),
            events: Vec::new(),
            names: Names::default(),
            damage: Vec::new(),
        };
        let audit = FinalState {
            taken_unix_us: EPOCH_UNIX_US + AUDIT_MS * 1000,
            source: "http".to_owned(),
            stock: vec![StockRow { item: 1, initial: stock, available: stock, ..StockRow::default() }],
            ..FinalState::default()
        };
        Story { history, audit: Some(audit), rules: rules(stock) }.settle()
    }

    /// An op.
    pub fn op(mut self, spec: OpSpec) -> Story {
        let names = &mut self.history.names;
        let op = Op {
            intent: spec.intent,
            user: spec.user,
            attempt: spec.attempt,
            status: spec.status,
            role: spec.role,
            outcome: spec.outcome,
            state: spec.state,
            cohort: names.intern("buyers"),
            step: names.intern(spec.role.name()),
            reason: names.intern(spec.reason),
            order: names.intern(&spec.order),
            ticket: names.intern(&spec.ticket),
            token: names.intern(&spec.token),
            item: spec.item,
            quantity: spec.quantity,
            amount_cents: spec.amount_cents,
            intended_us: spec.from_ms * 1000,
            invoked_us: spec.from_ms * 1000,
            completed_us: spec.until_ms * 1000,
        };
        self.history.ops.push(op);
        if let Some(closed) = &mut self.history.info.closed {
            closed.ops += 1;
        }
        self
    }

    /// A ledger row, after those before it.
    pub fn row(mut self, spec: RowSpec) -> Story {
        if let Some(audit) = &mut self.audit {
            let mut entry = spec.0;
            entry.seq = audit.ledger.len() as i64 + 1;
            if entry.user.is_empty() {
                let owner = audit.ledger.iter().find(|row| row.order == entry.order);
                entry.user = owner.map(|row| row.user.clone()).unwrap_or_default();
            }
            audit.ledger.push(entry);
        }
        self
    }

    /// An entry in the books of the payment dependency, after those before it: 100 cents for this order, under this key.
    pub fn payment(mut self, kind: PaymentKind, key: &str, order: &str) -> Story {
        if let Some(audit) = &mut self.audit {
            let books = audit.payments.get_or_insert_default();
            let seq = books.len() as i64 + 1;
            let at_unix_us = EPOCH_UNIX_US + seq * 100_000;
            let (key, order) = (key.to_owned(), order.to_owned());
            books.push(PaymentEntry { seq, at_unix_us, kind, key, order, amount_cents: 100 });
        }
        self
    }

    /// Buyer n orders one unit as purchase n at n x 100 ms, and pays: order `on`.
    pub fn bought(self, n: u64) -> Story {
        let (order_id, at) = (format!("o{n}"), n as i64 * 100);
        self.op(order(n).at(at, at + 40).ok(&order_id, OrderState::Held))
            .row(reserve(&order_id, n, OrderState::Paid).at(at + 20))
            .op(pay(n, &order_id).at(at + 50, at + 70).ok(&order_id, OrderState::Paid))
            .row(paid(&order_id).at(at + 60))
    }

    /// Buyer n orders one unit as purchase n at n x 100 ms, and lets the hold expire.
    pub fn expired(self, n: u64) -> Story {
        let (order_id, at) = (format!("o{n}"), n as i64 * 100);
        self.op(order(n).at(at, at + 40).ok(&order_id, OrderState::Held))
            .row(reserve(&order_id, n, OrderState::Expired).at(at + 20))
            .row(release(&order_id, "expired").at(at + 10_030))
    }

    /// Buyer n is told at n x 100 ms that it is sold out.
    pub fn sold_out(self, n: u64) -> Story {
        let at = n as i64 * 100;
        self.op(order(n).at(at, at + 10).refused("sold-out"))
    }

    /// Something beside the ops.
    pub fn event(mut self, event: Event) -> Story {
        self.history.events.push(event);
        self
    }

    /// A fault, planned and done as planned.
    pub fn fault(self, id: &str, at_ms: i64, until_ms: i64) -> Story {
        self.planned(id, at_ms, until_ms).injected(id, at_ms).healed(id, until_ms, "3 connections")
    }

    /// A fault as planned.
    pub fn planned(self, id: &str, at_ms: i64, until_ms: i64) -> Story {
        self.event(Event::FaultPlanned(FaultPlan {
            id: id.to_owned(),
            kind: "latency".to_owned(),
            link: Some("service-db".to_owned()),
            role: None,
            detail: "10ms".to_owned(),
            at_us: at_ms * 1000,
            until_us: until_ms * 1000,
            ..FaultPlan::default()
        }))
    }

    /// The service's clock is set wrong by so many milliseconds between these two.
    pub fn wrong_clock(self, at_ms: i64, until_ms: i64, step_ms: i64) -> Story {
        let set = |plan: &mut FaultPlan| plan.clock = Some(ClockError { step_us: step_ms * 1000, gain_ppm: 0 });
        self.fault("clock", at_ms, until_ms).with(|story| {
            story.history.events.iter_mut().for_each(|event| {
                if let Event::FaultPlanned(plan) = event {
                    set(plan);
                }
            });
        })
    }

    /// A fault takes effect.
    pub fn injected(self, id: &str, at_ms: i64) -> Story {
        self.event(Event::FaultInjected { id: id.to_owned(), at_us: at_ms * 1000 })
    }

    /// A fault that counts what it hits is taken away.
    pub fn hit(self, id: &str, at_ms: i64, count: u64, hit: &str) -> Story {
        self.event(Event::FaultHealed {
            id: id.to_owned(),
            at_us: at_ms * 1000,
            hit: hit.to_owned(),
            count: Some(count),
        })
    }

    /// A fault is taken away.
    pub fn healed(self, id: &str, at_ms: i64, hit: &str) -> Story {
        self.event(Event::FaultHealed { id: id.to_owned(), at_us: at_ms * 1000, hit: hit.to_owned(), count: None })
    }

    /// Any other change to the evidence.
    pub fn with(mut self, change: impl FnOnce(&mut Story)) -> Story {
        change(&mut self);
        self
    }

    /// Sets the counters to what the ledger adds up to, and has the drain probe sell what is left.
    pub fn settle(mut self) -> Story {
        if let Some(audit) = &mut self.audit {
            settle(audit);
        }
        self
    }

    /// Without access to the service.
    pub fn without_audit(mut self) -> Story {
        self.audit = None;
        self
    }

    /// What the checks get to see.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { history: &self.history, audit: self.audit.as_ref(), rules: &self.rules }
    }

    /// What one check finds.
    pub fn finding(&self, id: &str) -> Finding {
        let case = Case::new(&self.evidence());
        let check = CHECKS.iter().find(|check| check.id() == id).unwrap_or_else(|| panic!("there is no check {id}"));
        judge_one(*check, &case)
    }
}

/// Sets the counters to what the ledger adds up to, and has the drain probe sell what is left.
pub fn settle(audit: &mut FinalState) {
    for stock in &mut audit.stock {
        let (mut out, mut held, mut sold) = (0, 0, 0);
        for entry in audit.ledger.iter().filter(|entry| entry.item == stock.item) {
            match entry.kind {
                EntryKind::Reserve => {
                    out += entry.quantity;
                    match entry.state {
                        Some(OrderState::Held) => held += entry.quantity,
                        Some(OrderState::Paid) => sold += entry.quantity,
                        _ => {}
                    }
                }
                EntryKind::Release => out -= entry.quantity,
                EntryKind::Pay | EntryKind::Refund | EntryKind::Place => {}
            }
        }
        (stock.available, stock.held, stock.sold) = (stock.initial - out, held, sold);
    }
    audit.probes = audit.stock.iter().map(|stock| drained(stock.item, stock.available)).collect();
}

/// A drain probe in which all that was left was sold, and the last buyer was told that it is sold out.
pub fn drained(item: i64, available: i64) -> DrainProbe {
    DrainProbe { item, available, buyers: available + 1, sold: available, sold_out: 1, ..DrainProbe::default() }
}

/// Milliseconds as the history has them.
pub fn ms(ms: i64) -> Micros {
    ms * 1000
}
