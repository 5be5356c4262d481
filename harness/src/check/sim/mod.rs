//! A simulated sale: buyers, a network that loses and delays, a shop that crashes, all from one seed and without a clock.
//!
//! It makes evidence for trying the checks: of a correct shop, on which no check may ever fail, and of shops with an
//! anomaly, which must be found whenever it took effect. It is fast enough for thousands of schedules per second.

mod bug;
mod shop;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use bug::Bug;
use shop::{Answer, Ask, Seen, Shop};

use super::testing::{EPOCH_UNIX_US, run_info};
use super::{Evidence, Expectations, ItemRules, Rules};
use crate::history::{
    Closed, DrainProbe, EntryKind, Event, FaultPlan, FinalState, History, Micros, Names, Op, OrderState, Outcome, Role,
    Sym,
};

const MS: Micros = 1_000;
const TIMEOUT: Micros = 400 * MS;
const ATTEMPTS: u16 = 3;
/// How long a ticket may stay undecided.
const DEADLINE: Micros = 1_200 * MS;

/// Random numbers that are the same on every machine: splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range, both ends included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.roll() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

/// The size of a sale.
#[derive(Debug, Clone)]
pub struct Size {
    /// Purchases that are tried.
    pub purchases: u64,
    /// Buyers who try them.
    pub buyers: u64,
    /// Units on sale.
    pub stock: i64,
    /// Over which time they come, in microseconds.
    pub spread_us: Micros,
    /// Whether the shop queues its orders and gives tickets for them.
    pub queued: bool,
}

impl Size {
    /// A sale of a dozen purchases or two, made from the seed.
    pub fn small(seed: u64) -> Size {
        let mut dice = Dice(seed ^ 0x5eed);
        let purchases = dice.between(6, 22) as u64;
        let buyers = (purchases * 2 / 3).max(3);
        Size {
            purchases,
            buyers,
            stock: dice.between(2, 9),
            spread_us: dice.between(300, 6_000) * MS,
            queued: seed % 4 == 3,
        }
    }

    /// A sale of so many purchases, nearly all of them refused, as in a flash sale.
    pub fn large(purchases: u64) -> Size {
        Size { purchases, buyers: purchases, stock: purchases as i64 / 50, spread_us: 30_000 * MS, queued: false }
    }
}

/// The evidence of a simulated sale.
#[derive(Debug)]
pub struct Run {
    /// The client's side.
    pub history: History,
    /// The service's side.
    pub audit: FinalState,
    /// What was promised.
    pub rules: Rules,
    /// Whether the shop itself knows that its anomaly showed.
    shown: bool,
    /// When the shop crashed, and when it was back.
    crash: Option<(Micros, Micros)>,
}

impl Run {
    /// What the checks get to see.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { history: &self.history, audit: Some(&self.audit), rules: &self.rules }
    }

    fn intent_of(&self, order: &str) -> Option<u64> {
        let row = self.audit.ledger.iter().find(|row| row.kind == EntryKind::Reserve && row.order == order)?;
        row.key.as_deref()?.strip_prefix('k')?.parse().ok()
    }
}

/// Simulates a sale.
pub fn simulate(seed: u64, bug: Option<Bug>, size: &Size) -> Run {
    let mut sim = Sim::new(seed, bug, size);
    while let Some(Reverse((at, _, what))) = sim.queue.pop() {
        sim.now = at;
        sim.step(what);
    }
    sim.finish()
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Send { role: u8, purchase: u32, attempt: u16 },
    Arrive(u32),
    Deed(u32),
    Reply(u32),
    GiveUp(u32),
    Expire(u32),
    Work(u32),
    Corrupt(u32),
    Commit,
    Crash,
    Restart,
}

/// What a buyer means to do with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Pay,
    PayLate,
    Cancel,
    PayThenCancel,
    Leave,
}

struct Purchase {
    user: u64,
    quantity: i64,
    plan: Plan,
    order: Sym,
    clock_error: Micros,
    /// When its order was accepted, to be decided later.
    accepted: Option<Micros>,
    /// What the queue knows of it.
    ticket: Ticket,
}

/// A queued order.
#[derive(Default)]
struct Ticket {
    queued: bool,
    missing: bool,
    seen: Seen,
    result: Option<Answer>,
}

struct Request {
    role: Role,
    purchase: u32,
    attempt: u16,
    sent: Micros,
    done: bool,
    life: u32,
    seen: Seen,
    answer: Option<Answer>,
}

struct Sim {
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u32, What)>>,
    pushed: u32,
    dice: Dice,
    shop: Shop,
    purchases: Vec<Purchase>,
    requests: Vec<Request>,
    history: History,
    rules: Rules,
    down: bool,
    life: u32,
    crash: Option<(Micros, Micros)>,
    /// Whether the shop queues its orders.
    queued: bool,
    /// Whether replies that say nothing clear still tell in the history which order they were about.
    names_orders: bool,
}

impl Sim {
    fn new(seed: u64, bug: Option<Bug>, size: &Size) -> Sim {
        let mut dice = Dice(seed);
        let mut item = ItemRules {
            item: 1,
            stock: size.stock,
            per_user_limit: dice.between(2, 3),
            price_cents: 1_900,
            hold_us: 2_000 * MS,
            opens_us: 1_000 * MS,
            closes_us: 1_000 * MS + size.spread_us * 9 / 10 + 500 * MS,
            plentiful: false,
        };
        if bug == Some(Bug::AlwaysSoldOut) {
            item.stock = size.purchases as i64 * 2 + 3;
        }
        let epsilon_us = 20 * MS;
        let rules = Rules {
            items: vec![item.clone()],
            epsilon_us,
            ticket_deadline_us: DEADLINE,
            expect: Expectations::default(),
            send_lag_limit_us: 5_000,
            abusive_cohorts: Vec::new(),
            set_up: true,
        };
        let shop = Shop::new(bug, Dice(dice.roll()), item, epsilon_us);
        let history = History {
            info: run_info(),
            ops: Vec::new(),
            events: Vec::new(),
            names: Names::default(),
            damage: Vec::new(),
        };
        let names_orders = dice.chance(50);
        let mut sim = Sim {
            now: 0,
            queue: BinaryHeap::new(),
            pushed: 0,
            dice,
            shop,
            purchases: Vec::new(),
            requests: Vec::new(),
            history,
            rules,
            down: false,
            life: 0,
            crash: None,
            queued: size.queued || bug.is_some_and(Bug::is_of_queues),
            names_orders,
        };
        sim.plan(bug, size);
        sim
    }

    /// Lays out who comes when, and whether and when the shop crashes.
    fn plan(&mut self, bug: Option<Bug>, size: &Size) {
        // A few come early; the rest as the sale goes on. Purchases are numbered as they come.
        let mut times: Vec<Micros> = (0..size.purchases)
            .map(|_| {
                if self.dice.chance(10) {
                    self.dice.between(600 * MS, 1_000 * MS)
                } else {
                    1_000 * MS + self.dice.between(0, size.spread_us)
                }
            })
            .collect();
        times.sort_unstable();
        for (n, at) in times.into_iter().enumerate() {
            let buyers = if bug == Some(Bug::LimitRaced) { 3 } else { size.buyers as i64 };
            let alone = size.buyers >= size.purchases;
            let user = if alone { n as u64 + 1 } else { self.dice.between(1, buyers) as u64 };
            let plan = match self.dice.between(0, 99) {
                0..=49 => Plan::Pay,
                50..=59 => Plan::PayLate,
                60..=74 => Plan::Cancel,
                75..=79 => Plan::PayThenCancel,
                _ => Plan::Leave,
            };
            let mut quantity = if self.dice.chance(25) { 2 } else { 1 };
            if self.dice.chance(3) || bug == Some(Bug::NegativeQuantity) && self.dice.chance(10) {
                quantity = -1;
            }
            let skewed = bug == Some(Bug::ClientClock);
            let clock_error = if skewed { self.dice.between(-500 * MS, 500 * MS) } else { 0 };
            let (order, accepted, ticket) = (Sym(0), None, Ticket::default());
            self.purchases.push(Purchase { user, quantity, plan, order, clock_error, accepted, ticket });
            if self.dice.chance(3) {
                self.now = at;
                self.record_dropped(n as u32);
            } else {
                self.push(at, What::Send { role: Role::Order as u8, purchase: n as u32, attempt: 1 });
            }
        }
        if self.dice.chance(60) {
            let at = 1_000 * MS + self.dice.between(0, size.spread_us);
            let back = at + self.dice.between(50, 900) * MS;
            self.crash = Some((at, back));
            self.push(at, What::Crash);
            self.push(back, What::Restart);
        }
    }

    fn push(&mut self, at: Micros, what: What) {
        self.pushed += 1;
        self.queue.push(Reverse((at, self.pushed, what)));
    }

    fn step(&mut self, what: What) {
        match what {
            What::Send { role, purchase, attempt } => self.send(Role::ALL[role as usize], purchase, attempt),
            What::Arrive(n) => self.arrive(n),
            What::Deed(n) => self.deed(n),
            What::Reply(n) => self.reply(n),
            What::GiveUp(n) => self.give_up(n),
            What::Expire(order) => self.expire(order),
            What::Work(purchase) => self.work(purchase),
            What::Corrupt(purchase) => self.corrupt(purchase),
            What::Commit => self.commit(),
            What::Crash => {
                self.down = true;
                self.life += 1;
                self.shop.crash(self.now);
            }
            What::Restart => self.down = false,
        }
    }

    fn send(&mut self, role: Role, purchase: u32, attempt: u16) {
        let n = self.requests.len() as u32;
        let now = self.now;
        self.requests.push(Request {
            role,
            purchase,
            attempt,
            sent: now,
            done: false,
            life: self.life,
            seen: Seen::default(),
            answer: None,
        });
        if self.down {
            self.now += MS;
            self.record(n, Outcome::Fail, 0, "connection-refused", None);
            self.after_unclear(n);
            return;
        }
        // Some requests are lost, some are so slow that their buyer has given up before they arrive.
        let network =
            if self.dice.chance(6) { self.dice.between(0, 2 * TIMEOUT) } else { self.dice.between(200, 20 * MS) };
        if !self.dice.chance(3) {
            self.push(now + network, What::Arrive(n));
        }
        self.push(now + TIMEOUT, What::GiveUp(n));
    }

    fn ask(&self, n: u32) -> Ask {
        let request = &self.requests[n as usize];
        self.ask_of(request.purchase, request.sent)
    }

    fn ask_of(&self, purchase: u32, sent: Micros) -> Ask {
        let Purchase { user, quantity, clock_error, .. } = self.purchases[purchase as usize];
        Ask { intent: u64::from(purchase) + 1, user, quantity, buyer_clock: sent + clock_error }
    }

    fn arrive(&mut self, n: u32) {
        if self.down {
            return;
        }
        let (ask, life) = (self.ask(n), self.life);
        let seen = self.shop.look(&ask);
        let request = &mut self.requests[n as usize];
        (request.seen, request.life) = (seen, life);
        // Two bugs are races that are rare unless the shop is slow between its look and its deed.
        let raced = matches!(self.shop.bug, Some(Bug::KeyCheckedThenInserted | Bug::LimitRaced));
        let slow = raced && self.dice.chance(30);
        let work = if slow {
            self.dice.between(TIMEOUT, 2 * TIMEOUT)
        } else if self.dice.chance(20) {
            self.dice.between(5 * MS, 80 * MS)
        } else {
            self.dice.between(100, 5 * MS)
        };
        self.push(self.now + work, What::Deed(n));
    }

    fn deed(&mut self, n: u32) {
        let Request { role, purchase, life, seen, .. } = self.requests[n as usize];
        if life != self.life || self.down {
            return;
        }
        // An overloaded shop refuses with a 5xx before it does anything, or loses the answer after.
        let broken_before = self.dice.chance(2);
        let broken_after = self.dice.chance(2);
        let answer = if broken_before { Answer::Broken } else { self.act(n, role, purchase, &seen) };
        self.requests[n as usize].answer = Some(if broken_after { Answer::Broken } else { answer });
        let sending = self.dice.between(50, 10 * MS);
        let network = if self.dice.chance(3) { TIMEOUT } else { self.dice.between(200, 20 * MS) };
        if !self.dice.chance(3) {
            self.push(self.now + sending + network, What::Reply(n));
        }
    }

    fn act(&mut self, n: u32, role: Role, purchase: u32, seen: &Seen) -> Answer {
        let ask = self.ask(n);
        let order = self.shop.order_named(self.history.names.get(self.purchases[purchase as usize].order));
        match role {
            Role::Order if self.queued => self.enqueue(purchase, seen),
            Role::Order => self.order(&ask, seen),
            Role::Ticket => {
                let ticket = &self.purchases[purchase as usize].ticket;
                if ticket.missing { Answer::Missing } else { ticket.result.clone().unwrap_or(Answer::Pending) }
            }
            Role::Pay => order.map_or(Answer::Refused("not-found"), |order| self.shop.pay(order, self.now)),
            Role::Cancel => order.map_or(Answer::Refused("not-found"), |order| self.shop.cancel(order, self.now)),
            Role::Lookup | Role::Read => self.shop.lookup(ask.intent),
        }
    }

    fn order(&mut self, ask: &Ask, seen: &Seen) -> Answer {
        let before = self.shop.orders.len();
        let answer = self.shop.order(ask, seen, self.now);
        for order in before..self.shop.orders.len() {
            self.watch(order);
        }
        if !self.shop.uncommitted.is_empty() {
            self.push(self.now + 60 * MS, What::Commit);
        }
        answer
    }

    /// Accepts an order; sent again, it is answered as it was the first time.
    fn enqueue(&mut self, purchase: u32, seen: &Seen) -> Answer {
        let ticket = &mut self.purchases[purchase as usize].ticket;
        if !ticket.queued {
            (ticket.queued, ticket.seen) = (true, *seen);
            let waits = self.dice.between(5 * MS, 400 * MS);
            self.push(self.now + waits, What::Work(purchase));
        }
        Answer::Pending
    }

    /// Decides a queued order. The queue survives a crash of the shop.
    fn work(&mut self, purchase: u32) {
        if self.down {
            return self.push(self.now + 50 * MS, What::Work(purchase));
        }
        let seen = self.purchases[purchase as usize].ticket.seen;
        let answer = self.order(&self.ask_of(purchase, self.now), &seen);
        if answer == Answer::Broken {
            return self.push(self.now + 50 * MS, What::Work(purchase));
        }
        let odd = self.shop.bug.is_some_and(Bug::is_of_queues) && self.dice.chance(25);
        if odd && self.shop.bug == Some(Bug::TicketNeverFinished) {
            return;
        }
        self.purchases[purchase as usize].ticket.result = Some(answer);
        if odd {
            let later = self.dice.between(100 * MS, 500 * MS);
            self.push(self.now + later, What::Corrupt(purchase));
        }
    }

    /// What some bugs do to a result that was published.
    fn corrupt(&mut self, purchase: u32) {
        let gone = self.dice.chance(50);
        let ticket = &mut self.purchases[purchase as usize].ticket;
        if self.shop.bug == Some(Bug::TicketResultForgotten) {
            (ticket.result, ticket.missing) = (None, gone);
        } else {
            ticket.result = Some(match ticket.result.take() {
                Some(Answer::Order { state, cents, .. }) if gone => Answer::Order { id: "other".into(), state, cents },
                Some(Answer::Refused(_)) => Answer::Order { id: "other".into(), state: OrderState::Held, cents: -1 },
                _ => Answer::Refused("failed"),
            });
        }
    }

    /// Has the hold of an order looked at when it is over.
    fn watch(&mut self, order: usize) {
        let hold = self.shop.hold();
        self.push(self.now + hold, What::Expire(order as u32));
    }

    fn commit(&mut self) {
        for order in self.shop.commit(self.now - 60 * MS) {
            self.watch(order);
        }
    }

    fn expire(&mut self, order: u32) {
        if self.down {
            self.push(self.now + 50 * MS, What::Expire(order));
        } else {
            self.shop.expire(order as usize, self.now);
        }
    }

    fn reply(&mut self, n: u32) {
        let request = &self.requests[n as usize];
        // A process that died in between has sent nothing.
        if request.done || request.life != self.life {
            return;
        }
        match request.answer.clone() {
            Some(Answer::Order { id, state, cents }) => {
                self.record(n, Outcome::Ok, 200, "", Some((&id, state, cents)));
                self.after_order(n, &id, state);
            }
            Some(Answer::Refused(reason)) if request.role == Role::Ticket => {
                self.record(n, Outcome::Fail, 200, reason, Some(("", OrderState::Refused, -1)));
                self.ask_again(n);
            }
            Some(Answer::Refused(reason)) => self.record(n, Outcome::Fail, 409, reason, None),
            Some(Answer::Missing) => {
                self.record(n, Outcome::Fail, 404, "not-found", None);
                self.after_unclear(n);
            }
            Some(Answer::Pending) => {
                self.record(n, Outcome::Ok, 202, "", Some(("", OrderState::Pending, -1)));
                self.after_pending(n, 0);
            }
            Some(Answer::Broken) | None => {
                self.record(n, Outcome::Info, 500, "status-500", None);
                self.after_unclear(n);
            }
        }
    }

    fn give_up(&mut self, n: u32) {
        if !self.requests[n as usize].done {
            self.record(n, Outcome::Info, 0, "timeout", None);
            self.after_unclear(n);
        }
    }

    /// What a buyer does after an unclear answer: try again, then ask.
    fn after_unclear(&mut self, n: u32) {
        let Request { role, purchase, attempt, .. } = self.requests[n as usize];
        if role == Role::Ticket {
            // Who got no clear answer in the end asks for a while longer.
            return self.after_pending(n, 5_000 * MS);
        }
        let patient = self.shop.bug.is_some_and(Bug::takes_patience);
        let wait = if patient { (900 * MS, 1_500 * MS) } else { (20 * MS, 300 * MS) };
        let at = self.now + self.dice.between(wait.0, wait.1);
        let limit = if role == Role::Order { ATTEMPTS } else { 2 };
        if role != Role::Lookup && attempt < limit && self.dice.chance(85) {
            self.push(at, What::Send { role: role as u8, purchase, attempt: attempt + 1 });
        } else if role == Role::Order && (patient || self.dice.chance(50)) {
            self.push(at, What::Send { role: Role::Lookup as u8, purchase, attempt: 1 });
        }
    }

    /// What a buyer does while nothing is decided: ask on, until some time after the deadline.
    fn after_pending(&mut self, n: u32, longer: Micros) {
        let Request { role, purchase, .. } = self.requests[n as usize];
        let waiting = self.purchases[purchase as usize].accepted;
        if role != Role::Ticket && waiting.is_some() {
            return;
        }
        let accepted = *self.purchases[purchase as usize].accepted.get_or_insert(self.now);
        let healed = self.crash.map_or(Micros::MIN, |(_, back)| back);
        if self.now < accepted.max(healed) + DEADLINE + 400 * MS + longer {
            let at = self.now + self.dice.between(50 * MS, 200 * MS);
            self.push(at, What::Send { role: Role::Ticket as u8, purchase, attempt: 1 });
        }
    }

    /// A result is asked for once more, now and then, to see whether it stays.
    fn ask_again(&mut self, n: u32) {
        let purchase = self.requests[n as usize].purchase;
        if self.dice.chance(60) {
            let at = self.now + self.dice.between(50 * MS, 900 * MS);
            self.push(at, What::Send { role: Role::Ticket as u8, purchase, attempt: 1 });
        }
    }

    /// What a buyer does with an order.
    fn after_order(&mut self, n: u32, id: &str, state: OrderState) {
        let Request { role, purchase, .. } = self.requests[n as usize];
        let sym = self.history.names.intern(id);
        if role == Role::Ticket {
            self.ask_again(n);
        }
        let buyer = &mut self.purchases[purchase as usize];
        if role == Role::Ticket && buyer.order != Sym(0) {
            return;
        }
        if matches!(role, Role::Order | Role::Lookup | Role::Ticket) {
            buyer.order = sym;
        }
        let plan = buyer.plan;
        let soon = self.now + self.dice.between(10 * MS, 1_200 * MS);
        let late = self.now + self.dice.between(1_700 * MS, 2_500 * MS);
        let next = match (role, plan) {
            (Role::Order | Role::Lookup | Role::Ticket, _) if state != OrderState::Held => None,
            (Role::Order | Role::Lookup | Role::Ticket, Plan::Pay | Plan::PayThenCancel) => Some((soon, Role::Pay)),
            (Role::Order | Role::Lookup | Role::Ticket, Plan::PayLate) => Some((late, Role::Pay)),
            (Role::Order | Role::Lookup | Role::Ticket, Plan::Cancel) => {
                Some((if self.dice.chance(30) { late } else { soon }, Role::Cancel))
            }
            (Role::Pay, Plan::PayThenCancel) => Some((soon, Role::Cancel)),
            _ => None,
        };
        if let Some((at, role)) = next {
            self.push(at, What::Send { role: role as u8, purchase, attempt: 1 });
        }
    }

    fn record_dropped(&mut self, purchase: u32) {
        let n = self.requests.len() as u32;
        self.requests.push(Request {
            role: Role::Order,
            purchase,
            attempt: 1,
            sent: self.now,
            done: true,
            life: 0,
            seen: Seen::default(),
            answer: None,
        });
        self.record(n, Outcome::Dropped, 0, "", None);
    }

    fn record(&mut self, n: u32, outcome: Outcome, status: u16, reason: &str, order: Option<(&str, OrderState, i64)>) {
        let request = &mut self.requests[n as usize];
        request.done = true;
        let Request { role, purchase, attempt, sent, .. } = *request;
        let buyer = &self.purchases[purchase as usize];
        let names = &mut self.history.names;
        let (id, state, cents) = order.unwrap_or(("", OrderState::Unknown, -1));
        let mut order = names.intern(id);
        if matches!(role, Role::Pay | Role::Cancel) && (self.names_orders || outcome == Outcome::Ok) {
            order = buyer.order;
        }
        let taking = matches!(role, Role::Order | Role::Ticket);
        let by_ticket = role == Role::Ticket || state == OrderState::Pending;
        let ticket = if by_ticket { names.intern(&format!("t{}", purchase + 1)) } else { Sym(0) };
        self.history.ops.push(Op {
            intent: u64::from(purchase) + 1,
            user: buyer.user,
            attempt,
            status,
            role,
            outcome,
            state,
            cohort: names.intern("buyers"),
            step: names.intern(role.name()),
            reason: names.intern(reason),
            order,
            ticket,
            token: Sym(0),
            item: if taking { 1 } else { 0 },
            quantity: if taking { buyer.quantity as i32 } else { 0 },
            amount_cents: cents,
            intended_us: sent,
            invoked_us: sent,
            completed_us: self.now,
        });
    }

    fn finish(mut self) -> Run {
        let taken = self.now + 15_000 * MS;
        self.shop.settle();
        let mut history = self.history;
        // What becomes of the buyers' link holds nothing up within the shop.
        if !self.queued && (self.dice.chance(30) || self.shop.bug == Some(Bug::SoldOutForTooLong)) {
            let (id, at_us, until_us) = ("link".to_owned(), 0, self.now);
            history.events.push(Event::FaultPlanned(FaultPlan {
                id: id.clone(),
                kind: "latency".to_owned(),
                link: Some("client→service".to_owned()),
                role: None,
                detail: "replies +10ms".to_owned(),
                at_us,
                until_us,
                ..FaultPlan::default()
            }));
            history.events.push(Event::FaultInjected { id: id.clone(), at_us });
            history.events.push(Event::FaultHealed {
                id,
                at_us: until_us,
                hit: "9 connections".to_owned(),
                count: Some(9),
            });
        }
        if let Some((at_us, until_us)) = self.crash {
            let id = "crash".to_owned();
            history.events.push(Event::FaultPlanned(FaultPlan {
                id: id.clone(),
                kind: "kill".to_owned(),
                link: None,
                role: Some("service".to_owned()),
                detail: "and restart".to_owned(),
                at_us,
                until_us,
                ..FaultPlan::default()
            }));
            history.events.push(Event::FaultInjected { id: id.clone(), at_us });
            history.events.push(Event::FaultHealed {
                id,
                at_us: until_us,
                hit: "1 process".to_owned(),
                count: Some(1),
            });
        }
        history.info.closed =
            Some(Closed { how: "completed".to_owned(), ops: history.ops.len() as u64, ops_lost: 0, events: None });
        let (available, left) = (self.shop.stock.available, self.shop.left());
        let buyers = available.max(0) + 1;
        let probe =
            DrainProbe { item: 1, available, buyers, sold: left, sold_out: buyers - left, ..DrainProbe::default() };
        let audit = FinalState {
            taken_unix_us: EPOCH_UNIX_US + taken,
            source: "sim".to_owned(),
            stock: vec![self.shop.stock],
            ledger: self.shop.ledger,
            probes: vec![probe],
            payments: None,
        };
        Run { history, audit, rules: self.rules, shown: self.shop.shown, crash: self.crash }
    }
}
