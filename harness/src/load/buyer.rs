//! A virtual buyer: walks a journey for each arrival, tries again as people and their clients do, records every attempt.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::arrival::Arrival;
use super::classify::{self, Classified};
use super::client::{Broken, Connection, Reply};
use super::driver::Shared;
use crate::history::recorder::RawOp;
use crate::history::{Micros, OrderState, Outcome, Role};
use crate::scenario::journey::{CompiledStep, Journey, text_of};
use crate::scenario::template::Values;

/// Order steps of one arrival at most; each is an intent of its own.
pub const INTENTS_PER_ARRIVAL: u64 = 16;

/// One member of the pool.
#[derive(Debug)]
pub struct Buyer {
    shared: Arc<Shared>,
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
    /// Made when it is first drawn from.
    rng: Option<ChaCha8Rng>,
    user: u64,
    captured: Vec<String>,
    orders: u64,
    order: String,
    unsettled: bool,
    dispatched: bool,
}

/// One attempt, as it is recorded.
struct Attempt {
    classified: Classified,
    status: u16,
    retry_after_s: Option<u32>,
    order: String,
    state: OrderState,
    amount_cents: i64,
}

impl Buyer {
    /// A buyer with a connection of its own, not yet made.
    pub fn new(shared: Arc<Shared>) -> Buyer {
        let (connection, second) = (Connection::new(shared.address), Connection::new(shared.address));
        let (request, body) = (Vec::with_capacity(512), Vec::with_capacity(128));
        Buyer { shared, connection, second, request, body, user: String::new(), key: String::new() }
    }

    /// Connects ahead of the load, so that the spike does not pay for it.
    pub async fn warm(&mut self) {
        self.connection.warm(Duration::from_secs(2)).await;
    }

    /// Walks the journey of one arrival to its end.
    pub async fn walk(&mut self, arrival: Arrival) {
        let shared = self.shared.clone();
        let journey = &shared.journeys[usize::from(arrival.cohort)];
        let user = journey.user_of(arrival, shared.seed);
        write_name(&mut self.user, &shared.user_prefix, user);
        let mut walk = Walk {
            arrival,
            journey,
            rng: None,
            user,
            captured: vec![String::new(); journey.slots.len()],
            orders: 0,
            order: String::new(),
            unsettled: false,
            dispatched: false,
        };
        let mut intended = arrival.at_us;
        for (index, step) in journey.steps.iter().enumerate() {
            if shared.stopping() && walk.dispatched {
                return;
            }
            if step.share < 1.0 && walk.random(shared.seed) >= step.share {
                return;
            }
            let pointless = matches!(step.role, Role::Pay | Role::Cancel) && walk.order.is_empty();
            if pointless || (step.only_unsettled && !walk.unsettled) {
                continue;
            }
            if step.role == Role::Order {
                walk.orders += 1;
                walk.order.clear();
            }
            if index > 0 {
                if !journey.think.0.is_zero() {
                    tokio::time::sleep(journey.think.0).await;
                }
                intended = shared.clock.now_us();
            }
            if !self.step(&mut walk, step, index, intended).await {
                return;
            }
        }
    }

    /// Makes one step with its retries; false if the buyer gives up the journey.
    async fn step(&mut self, walk: &mut Walk<'_>, step: &CompiledStep, index: usize, mut intended: Micros) -> bool {
        let shared = self.shared.clone();
        let retry = &shared.retry;
        let mut number = 0;
        while number < retry.attempts {
            number += 1;
            let invoked = shared.clock.now_us();
            if !walk.dispatched {
                walk.dispatched = true;
                shared.count_sent();
            }
            let twice = walk.journey.double_click && step.role == Role::Order && number == 1;
            let (attempt, completed) = if twice {
                let [first, twin] = self.attempt_twice(walk, step).await;
                self.record(walk, step, index, 1, (intended, invoked, first.1), &first.0);
                self.record(walk, step, index, 2, (intended, invoked, twin.1), &twin.0);
                number = 2;
                the_one_that_counts(first, twin)
            } else {
                let (attempt, completed) = self.attempt(walk, step).await;
                self.record(walk, step, index, number, (intended, invoked, completed), &attempt);
                (attempt, completed)
            };
            match attempt.classified.outcome {
                Outcome::Ok => {
                    if step.role == Role::Order || step.role == Role::Lookup {
                        walk.unsettled = false;
                        walk.order = attempt.order;
                    }
                    return true;
                }
                Outcome::Info if step.role == Role::Order => walk.unsettled = true,
                _ => {}
            }
            let again = classify::worth_retrying(&attempt.classified, attempt.status);
            if !again || number >= retry.attempts || shared.stopping() {
                break;
            }
            let wait = shared.backoff(number, attempt.retry_after_s, walk.random(shared.seed));
            intended = completed + wait.as_micros() as Micros;
            tokio::time::sleep(wait).await;
        }
        // An order whose fate is unknown is looked up; anything else that failed ends the journey.
        walk.unsettled && step.role == Role::Order
    }

    /// One exchange, and when it ended.
    async fn attempt(&mut self, walk: &mut Walk<'_>, step: &CompiledStep) -> (Attempt, Micros) {
        self.render(walk, step);
        let result = self.connection.exchange(&self.request, self.shared.request_timeout).await;
        let completed = self.shared.clock.now_us();
        (understand(result, walk, step), completed)
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
        [(understand(first.0, walk, step), first.1), (understand(twin.0, walk, step), twin.1)]
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
        let shared = &self.shared;
        let cohort = &shared.names[usize::from(walk.arrival.cohort)];
        let takes_stock = step.role == Role::Order;
        shared.live.count(step.role, attempt.classified.outcome);
        // A pay or cancel is about the order that it names, also when the reply does not say so again.
        let order = if attempt.order.is_empty() && matches!(step.role, Role::Pay | Role::Cancel) {
            &walk.order
        } else {
            &attempt.order
        };
        shared.record(RawOp {
            intent: walk.intent(),
            user: walk.user,
            attempt: number,
            status: attempt.status,
            role: step.role,
            outcome: attempt.classified.outcome,
            state: attempt.state,
            cohort: cohort.cohort,
            step: cohort.steps[index],
            reason: &attempt.classified.reason,
            order,
            item: walk.journey.item,
            quantity: if takes_stock { walk.journey.quantity } else { 0 },
            amount_cents: attempt.amount_cents,
            intended_us,
            invoked_us,
            completed_us,
        });
    }
}

/// Writes a buyer's name or a key into a buffer: the run's prefix and a number.
fn write_name(out: &mut String, prefix: &str, number: u64) {
    out.clear();
    write!(out, "{prefix}{number}").expect("a String never fails");
}

impl Walk<'_> {
    /// A number from 0 up to 1. Each arrival draws from a stream of its own, so what one buyer does never shifts what
    /// another does.
    fn random(&mut self, seed: u64) -> f64 {
        let stream = self.arrival.n + 1_000_000;
        let rng = self.rng.get_or_insert_with(|| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            rng
        });
        rng.random()
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
    let rank = |attempt: &Attempt| match attempt.classified.outcome {
        Outcome::Ok => 3,
        Outcome::Info => 2,
        _ => i32::from(classify::worth_retrying(&attempt.classified, attempt.status)),
    };
    let counts = if rank(&twin.0) > rank(&first.0) { twin.0 } else { first.0 };
    (counts, completed)
}

/// What an exchange means; on success the values that later steps need are kept.
fn understand(result: Result<Reply<'_>, Broken>, walk: &mut Walk<'_>, step: &CompiledStep) -> Attempt {
    let mut attempt = Attempt {
        classified: Classified { outcome: Outcome::Info, reason: String::new() },
        status: 0,
        retry_after_s: None,
        order: String::new(),
        state: OrderState::Unknown,
        amount_cents: -1,
    };
    match result {
        Err(broken) => attempt.classified = classify::broken(broken),
        Ok(reply) => {
            attempt.status = reply.status;
            attempt.retry_after_s = reply.retry_after_s;
            attempt.classified = classify::reply(reply.status, reply.body);
            if attempt.classified.outcome == Outcome::Ok && step.wants_json {
                read_reply(reply.body, walk, step, &mut attempt);
            }
        }
    }
    attempt
}

/// Keeps what later steps need, and what the reply says of the order.
fn read_reply(body: &[u8], walk: &mut Walk<'_>, step: &CompiledStep, attempt: &mut Attempt) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        if step.role != Role::Read {
            // A success without a readable body acknowledges nothing that could be held against the ledger.
            attempt.classified = Classified { outcome: Outcome::Info, reason: "unreadable-reply".into() };
        }
        return;
    };
    step.keep_captures_of(&json, &mut walk.captured);
    if step.role != Role::Read {
        attempt.order = json.pointer(&step.order).map(text_of).unwrap_or_default();
        attempt.state = json.pointer(&step.state).and_then(|s| s.as_str()).map(OrderState::parse).unwrap_or_default();
        attempt.amount_cents = json.pointer(&step.amount_cents).and_then(serde_json::Value::as_i64).unwrap_or(-1);
    }
}
