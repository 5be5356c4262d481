//! What the nemesis needs of the run: its clock, the faults, and what happens in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::fault::{ActiveFault, Hit};
use crate::history::recorder::EventSink;
use crate::history::{Event, Micros};
use crate::load::clock::Clock;
use crate::load::live::Live;
use crate::sampler::{Recovery, Steady};
use crate::scenario::timeline::Cause;
use crate::scenario::{Planned, Scenario};
use crate::stack::Stack;

/// What the nemesis needs of a run.
pub trait World: Send + Sync {
    /// Microseconds since the load's start.
    fn now_us(&self) -> Micros;
    /// Waits until a time of the run.
    fn sleep_until(&self, at_us: Micros) -> BoxFuture<'_, ()>;
    /// Tells of something.
    fn say(&self, event: &Event);
    /// Makes a fault; when this returns, it is in effect. The error says why it could not be made.
    fn inject<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<Box<dyn Healing>, String>>;
    /// Takes away what an injection has done that did not come to its end. It may be asked again.
    fn undo<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<(), String>>;
    /// Waits for an event of the load or the stock, and says when it came. It may never end.
    fn comes<'a>(&'a self, cause: &'a Cause) -> BoxFuture<'a, Micros>;
    /// What a person should know if an event did not come, to be appended to a sentence.
    fn hint(&self, cause: &Cause) -> String;
    /// When the steady state held again from a time of the run on; none if it did not within the limit.
    fn recovered(&self, from_us: Micros, limit: Duration) -> BoxFuture<'_, Option<Recovery>>;
}

/// A fault in effect, as its lease keeps it.
pub trait Healing: Send {
    /// Takes it away, and says what it really hit. It may be asked again.
    fn heal(&mut self) -> BoxFuture<'_, Result<Hit, String>>;
}

/// A run on a real stack.
#[derive(Debug)]
pub struct RealWorld {
    /// What is broken.
    pub stack: Arc<Stack>,
    /// The run's clock.
    pub clock: Clock,
    /// Where everything is told.
    pub events: EventSink,
    /// Whether the steady-state hypothesis holds.
    pub steady: Steady,
    /// What the buyers see.
    pub live: Arc<Live>,
    /// Units of the first item at the start.
    pub stock: i64,
}

impl RealWorld {
    /// The world of a run.
    pub fn of(
        scenario: &Scenario,
        stack: &Arc<Stack>,
        clock: Clock,
        events: &EventSink,
        steady: &Steady,
        live: &Arc<Live>,
    ) -> Arc<dyn World> {
        Arc::new(RealWorld {
            stack: stack.clone(),
            clock,
            events: events.clone(),
            steady: steady.clone(),
            live: live.clone(),
            stock: scenario.item.first().map_or(0, |item| item.stock),
        })
    }
}

/// A fault of the stack that is in effect.
struct OfStack {
    fault: Box<dyn ActiveFault>,
    stack: Arc<Stack>,
}

impl Healing for OfStack {
    fn heal(&mut self) -> BoxFuture<'_, Result<Hit, String>> {
        Box::pin(async { self.fault.heal(&self.stack).await.map_err(|error| error.to_string()) })
    }
}

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(10);

impl World for RealWorld {
    fn now_us(&self) -> Micros {
        self.clock.now_us()
    }

    fn sleep_until(&self, at_us: Micros) -> BoxFuture<'_, ()> {
        Box::pin(self.clock.sleep_until(at_us))
    }

    fn say(&self, event: &Event) {
        self.events.event(event);
    }

    fn inject<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<Box<dyn Healing>, String>> {
        Box::pin(async move {
            let fault = fault.inject.fault().inject(&self.stack).await.map_err(|error| error.to_string())?;
            let in_effect: Box<dyn Healing> = Box::new(OfStack { fault, stack: self.stack.clone() });
            Ok(in_effect)
        })
    }

    fn undo<'a>(&'a self, fault: &'a Planned) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { fault.inject.fault().undo(&self.stack).await.map_err(|error| error.to_string()) })
    }

    fn comes<'a>(&'a self, cause: &'a Cause) -> BoxFuture<'a, Micros> {
        Box::pin(async move {
            match cause {
                Cause::StockLeft(share) => {
                    self.steady.available_at_most(self.stock as f64 * share).await;
                    self.now_us()
                }
                Cause::First(reason) => loop {
                    if let Some(at_us) = self.live.first(reason) {
                        return at_us;
                    }
                    tokio::time::sleep(LOOK).await;
                },
                Cause::Rate(rate) => {
                    self.rate_of(*rate).await;
                    self.now_us()
                }
                // Other faults are the nemesis's own business.
                Cause::Healed(_) | Cause::Recovered(_) => std::future::pending().await,
            }
        })
    }

    fn hint(&self, cause: &Cause) -> String {
        match cause {
            Cause::StockLeft(_) => match self.steady.available() {
                Some(left) => format!("; {left} of {} units were left when last seen", self.stock),
                None => {
                    "; nobody told how many units are left: steady_state.available is their place in the probe's reply"
                        .to_owned()
                }
            },
            _ => String::new(),
        }
    }

    fn recovered(&self, from_us: Micros, limit: Duration) -> BoxFuture<'_, Option<Recovery>> {
        Box::pin(self.steady.holds_from(from_us, limit))
    }
}

impl RealWorld {
    /// Waits until so many requests ended within one second.
    async fn rate_of(&self, wanted: f64) {
        let mut seen = VecDeque::from([(self.now_us(), self.live.requests())]);
        loop {
            tokio::time::sleep(LOOK).await;
            let (now, requests) = (self.now_us(), self.live.requests());
            while seen.front().is_some_and(|(at, _)| now - at > 1_000_000) {
                seen.pop_front();
            }
            if seen.front().is_some_and(|(_, before)| (requests - before) as f64 >= wanted) {
                return;
            }
            seen.push_back((now, requests));
        }
    }
}
