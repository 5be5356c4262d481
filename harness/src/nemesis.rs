//! The nemesis: injects each fault of the timeline, heals it, and sees when the steady state holds again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::recorder::EventSink;
use crate::history::{Event, FaultPlan, Micros};
use crate::load::clock::Clock;
use crate::sampler::Steady;
use crate::scenario::{Planned, Scenario};
use crate::stack::Stack;

/// How long a recovery is waited for after healing.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// The timeline under way.
#[derive(Debug)]
pub struct Nemesis {
    tasks: JoinSet<()>,
    heal_now: CancellationToken,
}

/// The faults as planned.
pub fn plan(scenario: &Scenario) -> Vec<FaultPlan> {
    scenario
        .timeline()
        .into_iter()
        .map(|f| FaultPlan {
            id: f.id.clone(),
            kind: f.inject.kind().to_owned(),
            link: f.inject.link(),
            role: f.inject.role().map(str::to_owned),
            detail: f.inject.fault().detail(),
            at_us: f.at.micros(),
            until_us: f.at.micros() + f.lasts.micros(),
            clock: f.inject.fault().clock_error(),
        })
        .collect()
}

impl Nemesis {
    /// Starts the timeline; each fault runs by itself, so that they may overlap.
    pub fn start(
        scenario: &Scenario,
        stack: &Arc<Stack>,
        clock: Clock,
        events: &EventSink,
        steady: &Steady,
    ) -> Nemesis {
        let mut tasks = JoinSet::new();
        let heal_now = CancellationToken::new();
        for planned in plan(scenario) {
            events.event(&Event::FaultPlanned(planned));
        }
        for fault in scenario.timeline() {
            let task = One {
                fault,
                stack: stack.clone(),
                clock,
                events: events.clone(),
                steady: steady.clone(),
                heal_now: heal_now.clone(),
            };
            tasks.spawn(task.run());
        }
        Nemesis { tasks, heal_now }
    }

    /// Heals everything that is in effect now, and injects nothing more.
    pub fn heal_now(&self) {
        self.heal_now.cancel();
    }

    /// Waits until each fault is healed and its recovery was seen, or given up.
    pub async fn finished(mut self) {
        while let Some(result) = self.tasks.join_next().await {
            if let Err(error) = result {
                tracing::error!("a fault's task failed: {error}");
            }
        }
    }
}

struct One {
    fault: Planned,
    stack: Arc<Stack>,
    clock: Clock,
    events: EventSink,
    steady: Steady,
    heal_now: CancellationToken,
}

impl One {
    async fn run(self) {
        let id = self.fault.id.clone();
        if self.wait_until(self.fault.at.micros()).await {
            return;
        }
        let mut active = match self.fault.inject.fault().inject(&self.stack).await {
            Ok(active) => active,
            Err(error) => return self.failed("injected", &error.to_string()),
        };
        let injected = self.clock.now_us();
        self.events.event(&Event::FaultInjected { id: id.clone(), at_us: injected });
        tracing::info!("{id}: injected");
        self.wait_until(injected + self.fault.lasts.micros()).await;
        let healed = match active.heal(&self.stack).await {
            Ok(hit) => {
                let healed = self.clock.now_us();
                self.events.event(&Event::FaultHealed { id: id.clone(), at_us: healed, hit });
                tracing::info!("{id}: healed");
                healed
            }
            Err(error) => return self.failed("healed", &error.to_string()),
        };
        match self.steady.holds_from(healed, RECOVERY_LIMIT).await {
            Some(at_us) => self.events.event(&Event::FaultRecovered { id, at_us }),
            None => self.events.event(&Event::Note {
                at_us: self.clock.now_us(),
                text: format!("the steady state did not hold again within {RECOVERY_LIMIT:?} after `{id}` was healed"),
            }),
        }
    }

    fn failed(&self, what: &str, error: &str) {
        let at_us = self.clock.now_us();
        let error = format!("it could not be {what}: {error}");
        tracing::error!("{}: {error}", self.fault.id);
        self.events.event(&Event::FaultFailed { id: self.fault.id.clone(), at_us, error });
    }

    /// Waits until a time of the run; true if everything is to be healed now.
    async fn wait_until(&self, at_us: Micros) -> bool {
        tokio::select! {
            () = self.clock.sleep_until(at_us) => self.heal_now.is_cancelled(),
            () = self.heal_now.cancelled() => true,
        }
    }
}
