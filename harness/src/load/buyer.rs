//! A virtual buyer: walks a journey for each arrival, tries again as people and their clients do, records every attempt.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::arrival::Arrival;
use super::classify::{self, Classified, Said};
use super::client::{Broken, Connection, Reply};
use super::cookies::Jar;
use super::driver::Shared;
use super::live::Seen;
use crate::history::recorder::RawOp;
use crate::history::{INTENTS_PER_ARRIVAL, Micros, OrderState, Outcome, Role};
use crate::random;
use crate::scenario::journey::{CompiledStep, Journey};
use crate::scenario::template::Values;

pub(crate) mod alone;
mod follow;

use follow::Following;

/// One member of the pool.
#[derive(Debug)]
pub struct Buyer<'a> {
    shared: &'a Shared,
    connection: Connection,
    /// For those who click twice.
    second: Connection,
    /// Buffers that are used again, since a busy generator makes many requests.
    request: Vec<u8>,
    body: Vec<u8>,
    user: String,
    key: String,
}

/// What a buyer knows while walking one journey.
struct Walk<'a> {
    arrival: Arrival,
    journey: &'a Journey,
    /// How often it was walked before.
    number: u16,
    /// When the next request is due: the planned start, then the end of what came before, later by what was waited for.
    due: Micros,
    /// Made when it is first drawn from; most never do, and it is large.
    rng: Option<Box<ChaCha8Rng>>,
    user: u64,
    captured: Vec<String>,
    cookies: Jar,
    /// The stream that is listened to, where a step has one.
    following: Option<Box<Following>>,
    /// Until when the events of a ticket are waited for.
    follow_until: Option<Micros>,
    orders: u64,
    order: String,
    /// When an order was accepted that is not decided yet, and about whose ticket a later step asks.
    accepted: Option<Micros>,
    /// The step by which a ticket's result was learned.
    decided: Option<usize>,
    unsettled: bool,
    /// An order was refused for good.
    refused: bool,
    dispatched: bool,
}

/// One attempt, as it is recorded.
struct Attempt {
    said: Said,
    status: u16,
    retry_after_s: Option<u32>,
    token: String,
}

impl<'a> Buyer<'a> {
    /// A buyer with a connection of its own, not yet made.
    pub fn new(shared: &'a Shared) -> Buyer<'a> {
        let (connection, second) = (Connection::new(&shared.entry), Connection::new(&shared.entry));
        let (request, body) = (Vec::with_capacity(512), Vec::with_capacity(128));
        Buyer { shared, connection, second, request, body, user: String::new(), key: String::new() }
    }

    /// Connects ahead of the load, so that the spike does not pay for it.
    pub async fn warm(&mut self) {
        if self.connection.warm(Duration::from_secs(2)).await == Some(Broken::Exhausted) {
            self.shared.exhausted();
        }
    }

    /// Walks the journey of one arrival to its end.
    pub async fn walk(&mut self, arrival: Arrival) {
        let shared = self.shared;
        let journey = &shared.journeys[usize::from(arrival.cohort)];
        let user = journey.user_of(arrival, shared.seed);
        write_name(&mut self.user, &shared.user_prefix, user);
        let mut walk = Walk {
            arrival,
            journey,
            number: 0,
            due: arrival.at_us,
            rng: None,
            user,
            captured: vec![String::new(); journey.slots.len()],
            cookies: Jar::default(),
            following: None,
            follow_until: None,
            orders: 0,
            order: String::new(),
            accepted: None,
            decided: None,
            unsettled: false,
            refused: false,
            dispatched: false,
        };
        let every = journey.every().as_micros() as Micros;
        for number in 0..journey.walks() {
            let next = walk.due + every;
            walk.number = number;
            self.steps(&mut walk).await;
            if walk.decided.is_some() {
                Box::pin(self.ask_again(&mut walk)).await;
            }
            if walk.refused || number + 1 == journey.walks() {
                return;
            }
            shared.rest_until(next).await;
            if shared.stopping() {
                return;
            }
            walk.begin_again();
            // Whoever is late for the next walk, because this one took so long, starts it as soon as this one is over.
            walk.due = next.max(walk.due);
        }
    }

    async fn steps(&mut self, walk: &mut Walk<'_>) {
        let shared = self.shared;
        let journey = walk.journey;
        for (index, step) in journey.steps.iter().enumerate() {
            if shared.stopping() && walk.dispatched {
                return;
            }
            if step.share < 1.0 && walk.random(shared.seed) >= step.share {
                return;
            }
            if journey.leaves_out(step, walk.number) {
                continue;
            }
            let pointless = match step.role {
                Role::Pay | Role::Cancel => walk.order.is_empty(),
                Role::Ticket => walk.accepted.is_none(),
                _ => false,
            };
            if pointless || (step.only_unsettled && !walk.unsettled) {
                continue;
            }
            if step.role == Role::Order {
                walk.orders += 1;
                walk.order.clear();
                (walk.accepted, walk.decided) = (None, None);
            }
            if index > 0 {
                let think = journey.think_before(index, walk.number, walk.arrival, shared.seed);
                if !think.is_zero() {
                    // The thought ends when it should have ended, however late this buyer is woken: the step is due then.
                    walk.due += think.as_micros() as Micros;
                    shared.rest_until(walk.due).await;
                    if shared.stopping() {
                        return;
                    }
                }
            }
            if let Some(missing) = walk.missing(step) {
                // Nothing was sent, so it failed for certain, and without the service having any part in it.
                let classified = Classified { outcome: Outcome::Fail, reason: format!("missing-{missing}") };
                let (said, token) = (Said::only(classified), String::new());
                let now = shared.clock.now_us();
                let attempt = Attempt { said, status: 0, retry_after_s: None, token };
                self.record(walk, step, index, 1, (walk.due, now, now), &attempt);
                return;
            }
            let goes_on = match walk.accepted.filter(|_| step.role == Role::Ticket) {
                Some(accepted) => Box::pin(self.ask_until_decided(walk, step, index, accepted)).await,
                None => self.step(walk, step, index).await,
            };
            if step.stream.is_some() {
                self.stop_listening(walk);
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Makes one step with its retries; false if the buyer gives up the journey.
    async fn step(&mut self, walk: &mut Walk<'_>, step: &CompiledStep, index: usize) -> bool {
        let shared = self.shared;
        let retries = &shared.retries[usize::from(walk.arrival.cohort)];
        let mut number = 0;
        retries.first_attempt();
        while number < retries.policy.attempts {
            number += 1;
            let invoked = shared.clock.now_us();
            if !walk.dispatched {
                walk.dispatched = true;
                shared.count_sent();
            }
            let twice = walk.journey.double_click && step.role == Role::Order && number == 1;
            let (attempt, completed) = if twice {
                let [first, twin] = Box::pin(self.attempt_twice(walk, step)).await;
                self.record(walk, step, index, 1, (walk.due, invoked, first.1), &first.0);
                self.record(walk, step, index, 2, (walk.due, invoked, twin.1), &twin.0);
                number = 2;
                the_one_that_counts(first, twin)
            } else {
                let (attempt, completed) = self.attempt(walk, step, invoked).await;
                self.record(walk, step, index, number, (walk.due, invoked, completed), &attempt);
                (attempt, completed)
            };
            walk.due = completed;
            match attempt.said.classified.outcome {
                Outcome::Ok => {
                    if step.role == Role::Order || step.role == Role::Lookup {
                        walk.learn(&attempt.said, index, completed);
                    }
                    return true;
                }
                Outcome::Info if step.role == Role::Order => walk.unsettled = true,
                _ => {}
            }
            let again = classify::worth_retrying(&attempt.said, attempt.status);
            if !again || number >= retries.policy.attempts || shared.stopping() || !retries.may_retry() {
                break;
            }
            let wait = retries.wait(number, attempt.retry_after_s, walk.random(shared.seed));
            walk.due += wait.as_micros() as Micros;
            shared.rest_until(walk.due).await;
            if shared.stopping() {
                break;
            }
        }
        walk.refused = step.role == Role::Order && !walk.unsettled;
        // An order whose fate is unknown is looked up; anything else that failed ends the journey.
        walk.unsettled && step.role == Role::Order
    }

    /// One exchange that begins now, and when it ended.
    async fn attempt(&mut self, walk: &mut Walk<'_>, step: &CompiledStep, now: Micros) -> (Attempt, Micros) {
        self.render(walk, step);
        if let Some(stream) = &step.stream {
            return Box::pin(self.wait_for_event(walk, step, stream)).await;
        }
        let deadline = self.shared.clock.instant_at(now) + self.shared.request_timeout;
        let result = self.connection.exchange_by(&self.request, deadline).await;
        let completed = self.shared.clock.now_us();
        (understand(result, self.shared, walk, step), completed)
    }

    /// The same request over two connections at once, as somebody who clicks twice sends it.
    async fn attempt_twice(&mut self, walk: &mut Walk<'_>, step: &CompiledStep) -> [(Attempt, Micros); 2] {
        self.render(walk, step);
        let (limit, clock, request) = (self.shared.request_timeout, self.shared.clock, &self.request);
        let send = async |connection| {
            let result = Connection::exchange(connection, request, limit).await;
            (result, clock.now_us())
        };
        let (first, twin) = tokio::join!(send(&mut self.connection), send(&mut self.second));
        let shared = self.shared;
        [(understand(first.0, shared, walk, step), first.1), (understand(twin.0, shared, walk, step), twin.1)]
    }

    /// Asks about a ticket until it has a result or its time is over; false if the buyer gives up the journey. What was
    /// not answered is asked again like what was not decided.
    async fn ask_until_decided(
        &mut self,
        walk: &mut Walk<'_>,
        step: &CompiledStep,
        index: usize,
        accepted: Micros,
    ) -> bool {
        let until = step.polling.until_us(accepted);
        walk.follow_until = Some(until);
        loop {
            let (said, wait) = self.ask(walk, step, index).await;
            match (said.classified.outcome, said.state) {
                (Outcome::Ok, OrderState::Pending) => {}
                (Outcome::Ok, _) => {
                    (walk.accepted, walk.decided, walk.order) = (None, Some(index), said.order);
                    return true;
                }
                (_, OrderState::Refused) => {
                    (walk.accepted, walk.decided, walk.refused) = (None, Some(index), true);
                    return false;
                }
                _ => {}
            }
            if self.shared.clock.now_us() >= until || self.shared.stopping() {
                walk.unsettled = true;
                return true;
            }
            walk.due += wait.as_micros() as Micros;
            self.shared.rest_until(walk.due).await;
        }
    }

    /// A result that was learned is asked for again, to see whether it stays.
    async fn ask_again(&mut self, walk: &mut Walk<'_>) {
        let journey = walk.journey;
        let Some(index) = walk.decided else { return };
        let step = &journey.steps[index];
        for _ in 0..step.polling.again {
            walk.due += step.polling.every.0.as_micros() as Micros;
            self.shared.rest_until(walk.due).await;
            if self.shared.stopping() {
                return;
            }
            self.ask(walk, step, index).await;
            self.stop_listening(walk);
        }
    }

    /// Asks about a ticket once; gives what was said, and how long to wait before the next question.
    async fn ask(&mut self, walk: &mut Walk<'_>, step: &CompiledStep, index: usize) -> (Said, Duration) {
        let asked = self.shared.clock.now_us();
        let (attempt, completed) = self.attempt(walk, step, asked).await;
        self.record(walk, step, index, 1, (walk.due, asked, completed), &attempt);
        walk.due = completed;
        let retries = &self.shared.retries[usize::from(walk.arrival.cohort)];
        let every =
            walk.following.as_ref().map_or(step.polling.every.0, |following| following.pause(step.polling.every.0));
        let wait = every.max(retries.told(attempt.retry_after_s));
        (attempt.said, wait)
    }

    /// Renders the request into the reused buffer.
    fn render(&mut self, walk: &Walk<'_>, step: &CompiledStep) {
        write_name(&mut self.key, &self.shared.key_prefix, walk.intent());
        let values = Values {
            user: &self.user,
            key: &self.key,
            item: walk.journey.item,
            quantity: walk.journey.quantity,
            captured: &walk.captured,
            cookies: walk.cookies.header(),
        };
        step.render(&values, &self.shared.host_header, &mut self.request, &mut self.body);
    }

    fn record(
        &self,
        walk: &Walk<'_>,
        step: &CompiledStep,
        index: usize,
        number: u16,
        (intended_us, invoked_us, completed_us): (Micros, Micros, Micros),
        attempt: &Attempt,
    ) {
        let shared = self.shared;
        let cohort = &shared.names[usize::from(walk.arrival.cohort)];
        let Said { classified, state, .. } = &attempt.said;
        let takes_stock = matches!(step.role, Role::Order | Role::Ticket);
        // A ticket's result is news only once.
        let news = step.role == Role::Order || step.role == Role::Ticket && walk.accepted.is_some();
        let bought = news && classified.outcome == Outcome::Ok && *state != OrderState::Pending;
        shared.live.count(classified.outcome, bought);
        shared.live.see(Seen {
            cohort: walk.arrival.cohort,
            outcome: classified.outcome,
            answered: match classified.outcome {
                Outcome::Ok => true,
                Outcome::Fail => attempt.status != 0,
                Outcome::Info | Outcome::Dropped => false,
            },
            reason: &classified.reason,
            at_us: completed_us,
            latency_us: u64::try_from(completed_us - intended_us).unwrap_or(0),
        });
        // A pay or cancel is about the order that it names, also when the reply does not say so again.
        let order = if attempt.said.order.is_empty() && matches!(step.role, Role::Pay | Role::Cancel) {
            &walk.order
        } else {
            &attempt.said.order
        };
        shared.record(RawOp {
            intent: walk.intent(),
            user: walk.user,
            attempt: number,
            status: attempt.status,
            role: step.role,
            outcome: classified.outcome,
            state: *state,
            cohort: cohort.cohort,
            step: cohort.steps[index],
            reason: &classified.reason,
            order,
            ticket: &attempt.said.ticket,
            token: &attempt.token,
            item: walk.journey.item,
            quantity: if takes_stock { walk.journey.quantity } else { 0 },
            amount_cents: attempt.said.amount_cents,
            intended_us,
            invoked_us,
            completed_us,
        });
    }
}

/// Writes a buyer's name or a key into a buffer: the run's prefix and a number.
fn write_name(out: &mut String, prefix: &str, number: u64) {
    out.clear();
    out.push_str(prefix);
    out.push_str(itoa::Buffer::new().format(number));
}

impl Walk<'_> {
    /// A number from 0 up to 1. Each arrival draws from a stream of its own, so what one buyer does never shifts what
    /// another does.
    fn random(&mut self, seed: u64) -> f64 {
        let stream = self.arrival.n + 1_000_000;
        self.rng.get_or_insert_with(|| Box::new(random::stream(seed, stream))).random()
    }

    /// The name of a value that a step sends and that no reply has given.
    fn missing(&self, step: &CompiledStep) -> Option<&str> {
        let slot = step.needs.iter().find(|slot| self.captured[**slot].is_empty())?;
        Some(&self.journey.slots[*slot])
    }

    /// The same buyer walks the journey once more. It has no order yet, and what it was told before is stale, unless it
    /// spends it again.
    fn begin_again(&mut self) {
        (self.accepted, self.decided, self.unsettled) = (None, None, false);
        (self.following, self.follow_until) = (None, None);
        self.order.clear();
        if !self.journey.replay_token {
            self.captured.iter_mut().for_each(String::clear);
        }
    }

    /// What the reply to an order or a lookup means for what comes after.
    fn learn(&mut self, said: &Said, index: usize, at: Micros) {
        let pending = said.state == OrderState::Pending;
        let asks = self.journey.steps[index..].iter().any(|step| step.role == Role::Ticket);
        self.accepted = (pending && asks && !said.ticket.is_empty()).then_some(at);
        self.unsettled = pending && self.accepted.is_none();
        self.order.clone_from(&said.order);
    }

    /// The number of the purchase under way.
    fn intent(&self) -> u64 {
        self.arrival.n * INTENTS_PER_ARRIVAL + self.orders.max(1) - 1
    }
}

/// Of two attempts made at once, the one that decides how the buyer goes on, with the time at which both had ended: a
/// success, else what leaves the order's fate open, else what is worth another try.
fn the_one_that_counts(first: (Attempt, Micros), twin: (Attempt, Micros)) -> (Attempt, Micros) {
    let completed = first.1.max(twin.1);
    let rank = |attempt: &Attempt| match attempt.said.classified.outcome {
        Outcome::Ok => 3,
        Outcome::Info => 2,
        _ => i32::from(classify::worth_retrying(&attempt.said, attempt.status)),
    };
    let counts = if rank(&twin.0) > rank(&first.0) { twin.0 } else { first.0 };
    (counts, completed)
}

/// What an exchange means; on success the values that later steps need are kept.
fn understand(result: Result<Reply<'_>, Broken>, shared: &Shared, walk: &mut Walk<'_>, step: &CompiledStep) -> Attempt {
    // What an order spends is what it was sent with; what another step is given stands in its reply.
    let value = |walk: &Walk<'_>, slot: Option<usize>| slot.map(|s| walk.captured[s].clone()).unwrap_or_default();
    let spent = value(walk, step.token);
    let (mut status, mut retry_after_s) = (0, None);
    let mut said = match result {
        Err(broken) => {
            if broken == Broken::Exhausted {
                shared.exhausted();
            }
            Said::only(classify::broken(broken))
        }
        Ok(reply) => {
            (status, retry_after_s) = (reply.status, reply.retry_after_s);
            if walk.journey.cookies {
                walk.cookies.keep(&reply);
            }
            classify::read(step, &reply, &mut walk.captured)
        }
    };
    if step.role == Role::Ticket {
        said.ticket = value(walk, step.ticket);
    }
    let token = match (step.role, said.classified.outcome) {
        (Role::Order, _) => spent,
        (_, Outcome::Ok) => value(walk, step.token),
        _ => String::new(),
    };
    Attempt { said, status, retry_after_s, token }
}
