//! A process gets less of the processors than it wants, as beside a noisy neighbour or under a container's limit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::hit::counted;
use super::pause::go_on;
use super::process::{Ongoing, goes_on};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::stack::cgroup::{self, Group, Hierarchy, Throttled};
use crate::stack::{Component, Stack, StackError};

/// A quota on the processor time of a component and all its processes: the kernel's own (cgroups), or that of the engine for a
/// container. Where neither can be had, they are stopped and let go on in turns instead, and the fault says so.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Processors that it may use at most, all its processes together: 0.25 is a quarter of one.
    pub cpus: f64,
    /// What keeps it from them.
    #[serde(default)]
    pub by: By,
}

/// What keeps a component from the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A quota, where it can be had; signals else.
    #[default]
    Quota,
    /// It is stopped and let go on in turns, in any case: coarser, since for a while it does nothing at all.
    Signals,
}

/// How often new processes of the component are looked for: one that was killed by another fault comes back outside.
const LOOK: Duration = Duration::from_millis(50);
/// The length of one turn where processes are stopped and let go on.
const TURN: Duration = Duration::from_millis(50);

impl Fault for Throttle {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Turns]
    }

    fn detail(&self) -> String {
        let how = match self.by {
            By::Quota => "",
            By::Signals => ", by SIGSTOP and SIGCONT in turns",
        };
        format!("{} processors at most{how}", self.cpus)
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        if !(0.01..=64.0).contains(&self.cpus) {
            let what = format!("`cpus` is {}", self.cpus);
            about.parameter("cpus", &what, "from 0.01 to 64 processors; 0.25 is a quarter of one");
        } else if self.by == By::Signals && self.cpus >= 1.0 {
            let what = format!("`cpus` is {}, and `signals` only ever stop it for a part of the time", self.cpus);
            about.parameter("cpus", &what, "less than 1, such as 0.25; or remove `by`, for a quota");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, cpus) = (self.role.get_ref().clone(), self.cpus);
            if self.by == By::Signals {
                return Ok(InTurns::begin(stack, role, cpus, "as was asked for"));
            }
            if stack.components_of(&role)?.iter().any(|component| component.quota().is_some()) {
                return ByEngine::begin(stack, role, cpus).await;
            }
            match cgroup::find() {
                Ok(hierarchy) => Limited::begin(stack, &role, cpus, &hierarchy),
                Err(why) => Ok(InTurns::begin(stack, role, cpus, &format!("since there are {}", why.why))),
            }
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move {
            // A group of this machine is dissolved by whoever could not make it, and turns are taken by nobody yet.
            for quota in stack.components_of(self.role.get_ref())?.into_iter().filter_map(Component::quota) {
                quota.limit(None).await?;
            }
            Ok(())
        })
    }
}

/// A quota hits who used it up and had to wait: one that was never used up is no fault, however many processes it is about.
pub(super) fn limited(processes: usize, by: &str, came_to: Throttled) -> Hit {
    let who = counted(processes as u64, "process", "processes");
    let by = if by.is_empty() { String::new() } else { format!(" {by}") };
    Hit::new(came_to.throttled, format!("{who} limited{by}; {came_to}"))
}

/// Who stood still for no time was not hit.
pub(super) fn stood_still(processes: usize, still: Duration, why: &str) -> Hit {
    let (who, ms) = (counted(processes as u64, "process", "processes"), still.as_millis());
    let count = if ms > 0 { processes as u64 } else { 0 };
    Hit::new(count, format!("{who} stopped in turns, {why}, for {ms} ms in all"))
}

/// Containers, which whoever runs them holds to their part.
#[derive(Debug)]
struct ByEngine {
    role: String,
    processes: usize,
    /// What limits had come to before, by the number of the component.
    before: Vec<Throttled>,
}

impl ByEngine {
    async fn begin(stack: &Stack, role: String, cpus: f64) -> Result<Box<dyn ActiveFault>, StackError> {
        let (mut processes, mut before) = (0, Vec::new());
        for component in stack.components_of(&role)? {
            let Some(quota) = component.quota() else { continue };
            before.push(quota.throttled().await?);
            quota.limit(Some(cpus)).await?;
            processes += component.pids().len();
        }
        Ok(Box::new(ByEngine { role, processes, before }))
    }
}

impl ActiveFault for ByEngine {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let mut came_to = Throttled::default();
            let quotas = stack.components_of(&self.role)?.into_iter().filter_map(Component::quota);
            for (quota, before) in quotas.zip(&self.before) {
                quota.limit(None).await?;
                // A container that was started again meanwhile counts anew.
                came_to = came_to + quota.throttled().await?.since(before);
            }
            Ok(limited(self.processes, "by the engine", came_to))
        })
    }
}

/// Takes all processes of a role in; those that are in already do not mind.
fn take_in(group: &Group, stack: &Stack, role: &str) -> Result<Vec<i32>, StackError> {
    let mut taken = Vec::new();
    for pid in stack.components_of(role)?.into_iter().flat_map(Component::pids) {
        if group.take_in(pid)? {
            taken.push(pid);
        }
    }
    Ok(taken)
}

/// Takes in what is started meanwhile; returns how many processes were in it altogether.
async fn keep_in(group: &Group, stack: &Stack, role: &str, stop: &CancellationToken) -> Result<usize, StackError> {
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(group.pids());
        if !goes_on(stop, LOOK).await {
            return Ok(seen.len());
        }
        take_in(group, stack, role)?;
    }
}

/// Processes of this machine, in a control group of the fault's own.
#[derive(Debug)]
struct Limited {
    group: Arc<Group>,
    work: Ongoing<usize>,
    dissolved: bool,
}

impl Limited {
    fn begin(
        stack: &Arc<Stack>,
        role: &str,
        cpus: f64,
        hierarchy: &Hierarchy,
    ) -> Result<Box<dyn ActiveFault>, StackError> {
        let group = Arc::new(hierarchy.create(&stack.run.thing(&format!("throttle-{role}")))?);
        let prepared = group.limit(cpus).and_then(|()| take_in(&group, stack, role));
        if let Err(error) = prepared {
            let _ = group.dissolve();
            return Err(error);
        }
        let (of, whom) = (group.clone(), role.to_owned());
        let work = Ongoing::start(stack, async move |stack, stop| keep_in(&of, &stack, &whom, &stop).await);
        Ok(Box::new(Limited { group, work, dissolved: false }))
    }
}

impl ActiveFault for Limited {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let processes = self.work.stop().await;
            let came_to = self.group.throttled();
            if !self.dissolved {
                let group = self.group.clone();
                let dissolved = tokio::task::spawn_blocking(move || group.dissolve()).await;
                dissolved.unwrap_or_else(|e| Err(StackError::Other(format!("removing a cgroup failed: {e}"))))?;
                self.dissolved = true;
            }
            Ok(limited(processes?, "", came_to))
        })
    }
}

/// Stops the processes for a part of each turn; returns for how long they stood still, and how many they were.
async fn in_turns(
    stack: &Stack,
    role: &str,
    cpus: f64,
    stop: &CancellationToken,
) -> Result<(usize, Duration), StackError> {
    let runs = TURN.mul_f64(cpus.min(1.0));
    let (mut most, mut still) = (0, Duration::ZERO);
    if runs == TURN {
        // A whole processor is all that one can be kept from in this way.
        stop.cancelled().await;
        return Ok((most, still));
    }
    loop {
        let from = Instant::now();
        let mut stopped = 0;
        for component in stack.components_of(role)? {
            stopped += component.pause(true).await?;
        }
        most = most.max(stopped);
        let goes = goes_on(stop, TURN - runs).await;
        for component in stack.components_of(role)? {
            component.pause(false).await?;
        }
        still += from.elapsed();
        if !goes || !goes_on(stop, runs).await {
            return Ok((most, still));
        }
    }
}

/// Components that are stopped and let go on in turns.
#[derive(Debug)]
struct InTurns {
    role: String,
    work: Ongoing<(usize, Duration)>,
    /// Why it is done in this way.
    why: String,
}

impl InTurns {
    fn begin(stack: &Arc<Stack>, role: String, cpus: f64, why: &str) -> Box<dyn ActiveFault> {
        let whom = role.clone();
        let work = Ongoing::start(stack, async move |stack, stop| in_turns(&stack, &whom, cpus, &stop).await);
        Box::new(InTurns { role, work, why: why.to_owned() })
    }
}

impl ActiveFault for InTurns {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let said = self.work.stop().await;
            go_on(stack, &self.role).await?;
            let (processes, still) = said?;
            Ok(stood_still(processes, still, &self.why))
        })
    }
}
