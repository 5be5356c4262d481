//! The nemesis: injects each fault of the timeline when its time or its event has come, has it healed, and sees when the
//! steady state holds again.
//!
//! Each fault runs by itself, so that they may overlap. What a fault is made of is the business of [`crate::fault`], and
//! what the nemesis needs of the run is [`World`], so that timelines can be tried on a clock that is not real. A fault in
//! effect is never in the nemesis's own hands: it belongs to a [`Lease`], which heals it when it is over, whatever becomes
//! of the task that injected it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault::Hit;
use crate::history::{Event, Micros};
use crate::scenario::Planned;
use crate::scenario::timeline::{Cause, When};

mod lease;
pub mod stop;
#[cfg(test)]
mod tests;
mod world;

pub use lease::Lease;
use world::Healing;
pub use world::{RealWorld, World};

/// How long a recovery is waited for after healing.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
/// How long a fault waits for one that it would end, or that would end it.
const HELD_LIMIT: Duration = Duration::from_secs(20);
/// An injection that takes longer has failed.
const INJECTION_LIMIT: Duration = Duration::from_secs(30);

/// How far a fault has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// It is in effect.
    in_effect: bool,
    /// It is about to be.
    being_injected: bool,
    healed: Option<Micros>,
    recovered: Option<Micros>,
    /// Nothing more happens to it.
    over: bool,
}

impl Progress {
    /// Whether anything is there that has to be healed.
    fn lasts(&self) -> bool {
        self.in_effect || self.being_injected
    }
}

/// How far the faults have come, for those who wait for them.
type Board = BTreeMap<String, Progress>;

/// The timeline under way.
#[derive(Debug)]
pub struct Nemesis {
    tasks: JoinSet<()>,
    leases: TaskTracker,
    heal_now: CancellationToken,
    board: watch::Sender<Board>,
}

/// Knows which faults are in effect.
#[derive(Debug, Clone)]
pub struct InEffect(watch::Receiver<Board>);

impl InEffect {
    /// Their ids.
    pub fn ids(&self) -> Vec<String> {
        self.0.borrow().iter().filter(|(_, progress)| progress.in_effect).map(|(id, _)| id.clone()).collect()
    }
}

impl Nemesis {
    /// Starts the timeline; each fault runs by itself, so that they may overlap.
    pub fn start(timeline: Vec<Planned>, world: &Arc<dyn World>) -> Nemesis {
        let board: Board = timeline.iter().map(|fault| (fault.id.clone(), Progress::default())).collect();
        let mut nemesis = Nemesis {
            tasks: JoinSet::new(),
            leases: TaskTracker::new(),
            heal_now: CancellationToken::new(),
            board: watch::Sender::new(board),
        };
        for fault in &timeline {
            world.say(&Event::FaultPlanned(fault.plan()));
        }
        let rivals: Vec<Vec<String>> = timeline.iter().map(|fault| rivals(fault, &timeline)).collect();
        for (fault, rivals) in timeline.into_iter().zip(rivals) {
            let one = One {
                fault,
                rivals,
                world: world.clone(),
                leases: nemesis.leases.clone(),
                heal_now: nemesis.heal_now.clone(),
                board: nemesis.board.clone(),
            };
            nemesis.tasks.spawn(one.run());
        }
        nemesis
    }

    /// Heals everything that is in effect now, and injects nothing more.
    pub fn heal_now(&self) {
        self.heal_now.cancel();
    }

    /// Waits until nothing is in effect any more, for so long at most, in microseconds; says it, and which faults still are, where
    /// that was not enough.
    pub async fn healed_within(&self, limit_us: Micros, world: &dyn World) -> Vec<String> {
        let mut board = self.board.subscribe();
        let end_us = world.now_us() + limit_us;
        tokio::select! {
            _ = board.wait_for(|board| !board.values().any(Progress::lasts)) => return Vec::new(),
            () = world.sleep_until(end_us) => {}
        }
        let late: Vec<String> =
            self.board.borrow().iter().filter(|(_, progress)| progress.lasts()).map(|(id, _)| id.clone()).collect();
        if !late.is_empty() {
            let limit = Duration::from_micros(limit_us.unsigned_abs());
            let text = format!("not healed within {limit:?} after the run was stopped: {}", late.join(", "));
            tracing::error!("{text}");
            world.say(&Event::Note { at_us: world.now_us(), text });
        }
        late
    }

    /// Tells which faults are in effect.
    pub fn in_effect(&self) -> InEffect {
        InEffect(self.board.subscribe())
    }

    /// Waits until each fault is healed and its recovery was seen, or given up.
    pub async fn finished(mut self) {
        while let Some(result) = self.tasks.join_next().await {
            if let Err(error) = result {
                tracing::error!("a fault's task failed: {error}");
            }
        }
        self.leases.close();
        self.leases.wait().await;
    }
}

/// Does something that may take so long at most.
async fn within<T>(
    limit: Duration,
    world: &dyn World,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        done = work => done,
        () = world.sleep_until(world.now_us() + limit.as_micros() as Micros) => Err(format!("it took longer than {limit:?}")),
    }
}

/// The others of a timeline that a fault would end, or that would end it.
fn rivals(fault: &Planned, timeline: &[Planned]) -> Vec<String> {
    let others = timeline.iter().filter(|other| other.id != fault.id && other.inject.excludes(&fault.inject));
    others.map(|other| other.id.clone()).collect()
}

struct One {
    fault: Planned,
    /// The faults that must not be in effect with it.
    rivals: Vec<String>,
    world: Arc<dyn World>,
    leases: TaskTracker,
    heal_now: CancellationToken,
    board: watch::Sender<Board>,
}

/// An injection that did not come to its end.
struct Undoing<'a>(&'a One);

impl Healing for Undoing<'_> {
    fn heal(&mut self) -> BoxFuture<'_, Result<Hit, String>> {
        Box::pin(async { self.0.world.undo(&self.0.fault).await.map(|()| Hit::new(0, "")) })
    }
}

/// A fault to which nothing more happens, however its task ended.
struct Over<'a>(&'a One);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.mark(|progress| {
            (progress.being_injected, progress.in_effect, progress.over) = (false, false, true);
        });
    }
}

impl One {
    async fn run(self) {
        let _over = Over(&self);
        let id = || self.fault.id.clone();
        let Some(at_us) = self.due().await else { return };
        if self.wait_until(at_us).await {
            return;
        }
        if !self.has_its_turn().await {
            return;
        }
        let fault = match self.inject().await {
            Ok(fault) => fault,
            Err(error) => return self.undo(&error).await,
        };
        let injected = self.world.now_us();
        let expires = injected + self.fault.lasts.micros();
        let lease = Lease::grant(&self.leases, &self.world, &self.heal_now, fault, expires);
        self.mark(|progress| (progress.being_injected, progress.in_effect) = (false, true));
        self.world.say(&Event::FaultInjected { id: id(), at_us: injected });
        tracing::info!("{}: injected", self.fault.id);
        let (healed, hit) = match lease.over().await {
            Ok(healed) => healed,
            Err(error) => return self.failed("healed", &error),
        };
        let (hit, count) = (hit.words, Some(hit.count));
        self.world.say(&Event::FaultHealed { id: id(), at_us: healed, hit, count });
        self.mark(|progress| (progress.in_effect, progress.healed) = (false, Some(healed)));
        tracing::info!("{}: healed", self.fault.id);
        match self.world.recovered(healed, RECOVERY_LIMIT).await {
            Some(recovery) => {
                let (at_us, last_probe) = (recovery.at_us, recovery.last_probe);
                self.world.say(&Event::FaultRecovered { id: id(), at_us, last_probe });
                self.mark(|progress| progress.recovered = Some(at_us));
            }
            None => self.world.say(&Event::Note {
                at_us: self.world.now_us(),
                text: format!(
                    "the steady state did not hold again within {RECOVERY_LIMIT:?} after `{}` was healed",
                    self.fault.id
                ),
            }),
        }
    }

    /// Makes the fault; it is given up where that takes too long, or everything is to be healed now.
    async fn inject(&self) -> Result<Box<dyn Healing>, String> {
        tokio::select! {
            biased;
            made = within(INJECTION_LIMIT, &*self.world, self.world.inject(&self.fault)) => made,
            () = self.heal_now.cancelled() => Err("the run was stopped before it was in effect".to_owned()),
        }
    }

    /// Takes away what an injection has done that did not come to its end, as a fault is healed, and tells.
    async fn undo(&self, error: &str) {
        match lease::heal(&mut Undoing(self), &*self.world).await {
            Ok(_) => self.failed("injected", error),
            Err(why) => {
                self.failed("injected", &format!("{error}; and what was done of it could not be undone: {why}"))
            }
        }
    }

    /// Waits until no fault is in effect that it would end, or that would end it, and marks it as being injected; false if
    /// everything is to be healed now, or if that takes too long. Both are told.
    async fn has_its_turn(&self) -> bool {
        let due_us = self.world.now_us();
        let end_us = due_us + HELD_LIMIT.as_micros() as Micros;
        let mut board = self.board.subscribe();
        let mut waited_for: Option<String> = None;
        while let Some(holder) = self.takes_its_turn() {
            tokio::select! {
                biased;
                () = self.heal_now.cancelled() => return false,
                _ = board.wait_for(|board| !board.get(&holder).is_some_and(Progress::lasts)) => {}
                () = self.world.sleep_until(end_us) => {
                    let why = format!(
                        "{holder} was in effect, and healing one would have ended the other (waited for {HELD_LIMIT:?})"
                    );
                    self.skipped(why);
                    return false;
                }
            }
            waited_for = Some(holder);
        }
        let at_us = self.world.now_us();
        if let Some(holder) = waited_for {
            let text = format!(
                "`{}` came {} ms late: it waited until `{holder}` was healed, since healing one would have ended the other",
                self.fault.id,
                (at_us - due_us) / 1_000
            );
            tracing::warn!("{text}");
            self.world.say(&Event::Note { at_us, text });
        }
        true
    }

    /// Marks it as being injected, unless a fault is in effect that must not be; that one then. Looked and marked in one go, since
    /// two may be about to.
    fn takes_its_turn(&self) -> Option<String> {
        let mut holder = None;
        self.board.send_if_modified(|board| {
            let lasts = |id: &&String| board.get(*id).is_some_and(Progress::lasts);
            holder = self.rivals.iter().find(lasts).cloned();
            if holder.is_none() {
                board.entry(self.fault.id.clone()).or_default().being_injected = true;
            }
            holder.is_none()
        });
        holder
    }

    /// When it is to be injected; none if its event did not come, which is told, or if everything is to be healed now.
    async fn due(&self) -> Option<Micros> {
        let (cause, delay, by) = match &self.fault.when {
            When::At(at) => return Some(at.micros()),
            When::After { cause, delay, by } => (cause, delay, by),
        };
        let came = tokio::select! {
            biased;
            () = self.heal_now.cancelled() => return None,
            came = self.comes(cause) => came,
            () = self.world.sleep_until(by.micros()) => Err(format!("not by {by}{}", self.world.hint(cause))),
        };
        match came {
            Ok(at_us) => {
                let due_us = at_us + delay.micros();
                self.world.say(&Event::FaultTriggered { id: self.fault.id.clone(), at_us, due_us });
                Some(due_us)
            }
            Err(why) => {
                self.skipped(format!("it waited for this, which did not happen: {cause} ({why})"));
                None
            }
        }
    }

    /// Waits for an event, and says when it came; or why it never will.
    async fn comes(&self, cause: &Cause) -> Result<Micros, String> {
        let when = |progress: &Progress| match cause {
            Cause::Healed(_) => progress.healed,
            _ => progress.recovered,
        };
        let Some(other) = cause.fault() else { return Ok(self.world.comes(cause).await) };
        let mut board = self.board.subscribe();
        let known = |board: &Board| board.get(other).is_none_or(|progress| progress.over || when(progress).is_some());
        let came = match board.wait_for(known).await {
            Ok(board) => board.get(other).and_then(when),
            Err(_) => None,
        };
        came.ok_or_else(|| format!("{other} is over"))
    }

    fn mark(&self, change: impl FnOnce(&mut Progress)) {
        self.board.send_modify(|board| change(board.entry(self.fault.id.clone()).or_default()));
    }

    fn skipped(&self, why: String) {
        tracing::warn!("{}: {why}", self.fault.id);
        self.world.say(&Event::FaultSkipped { id: self.fault.id.clone(), at_us: self.world.now_us(), why });
    }

    fn failed(&self, what: &str, error: &str) {
        let at_us = self.world.now_us();
        let error = format!("it could not be {what}: {error}");
        tracing::error!("{}: {error}", self.fault.id);
        self.world.say(&Event::FaultFailed { id: self.fault.id.clone(), at_us, error });
    }

    /// Waits until a time of the run; true if everything is to be healed now.
    async fn wait_until(&self, at_us: Micros) -> bool {
        tokio::select! {
            () = self.world.sleep_until(at_us) => self.heal_now.is_cancelled(),
            () = self.heal_now.cancelled() => true,
        }
    }
}
