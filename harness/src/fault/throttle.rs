//! A process gets less of the processors than it wants, as beside a noisy neighbour or under a container's limit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::process::{Ongoing, goes_on, hit};
use super::{ActiveFault, Fault, Place};
use crate::scenario::About;
use crate::stack::cgroup::{self, Group};
use crate::stack::{Component, Stack, StackError};

/// A quota on the processor time of a component and all its processes. Where the kernel's own limit (cgroups) cannot be had,
/// they are stopped and let go on in turns instead, and the fault says so.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The role: `service` or `postgres`.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Processors that it may use at most, all its processes together: 0.25 is a quarter of one.
    pub cpus: f64,
}

/// How often new processes of the component are looked for: one that was killed by another fault comes back outside.
const LOOK: Duration = Duration::from_millis(50);
/// The length of one turn where processes are stopped and let go on.
const TURN: Duration = Duration::from_millis(50);

impl Fault for Throttle {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn detail(&self) -> String {
        let how = match cgroup::find() {
            Ok(_) => "by the kernel (cgroup)".to_owned(),
            Err(why) => format!("by SIGSTOP and SIGCONT in turns, since {}", why.why),
        };
        format!("{} processors at most, {how}", self.cpus)
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        if about.scenario().networked().contains(&self.role.get_ref().as_str()) {
            // Its processes are known by the group that the engine has put them in.
            let what = format!("`{}` runs in a container, whose control group is the engine's", self.role.get_ref());
            about.wrong(
                self.role.span(),
                what,
                "throttle a process, such as \"service\"; or run it with --stack embedded",
            );
        }
        if !(0.01..=64.0).contains(&self.cpus) {
            let what = format!("`cpus` is {}", self.cpus);
            about.parameter("cpus", &what, "from 0.01 to 64 processors; 0.25 is a quarter of one");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, cpus) = (self.role.get_ref().clone(), self.cpus);
            let active: Box<dyn ActiveFault> = match cgroup::find() {
                Ok(hierarchy) => {
                    let group = Arc::new(hierarchy.create(&stack.run.thing(&format!("throttle-{role}")))?);
                    let prepared = group.limit(cpus).and_then(|()| take_in(&group, stack, &role));
                    if let Err(error) = prepared {
                        let _ = group.dissolve();
                        return Err(error);
                    }
                    let (of, whom) = (group.clone(), role.clone());
                    let work = Ongoing::start(stack, async move |stack, stop| keep_in(&of, &stack, &whom, &stop).await);
                    Box::new(Limited { group, work, dissolved: false })
                }
                Err(_) => {
                    let whom = role.clone();
                    let work =
                        Ongoing::start(stack, async move |stack, stop| in_turns(&stack, &whom, cpus, &stop).await);
                    Box::new(InTurns { role, work })
                }
            };
            Ok(active)
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

#[derive(Debug)]
struct Limited {
    group: Arc<Group>,
    work: Ongoing<usize>,
    dissolved: bool,
}

impl ActiveFault for Limited {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let processes = self.work.stop().await;
            let came_to = self.group.throttled();
            if !self.dissolved {
                let group = self.group.clone();
                let dissolved = tokio::task::spawn_blocking(move || group.dissolve()).await;
                dissolved.unwrap_or_else(|e| Err(StackError::Other(format!("removing a cgroup failed: {e}"))))?;
                self.dissolved = true;
            }
            let ms = came_to.time.as_secs_f64() * 1e3;
            let periods = format!("throttled in {} of {} periods", came_to.throttled, came_to.periods);
            Ok(hit(processes?, &format!("limited; {periods}, kept waiting for {ms:.0} ms")))
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
    loop {
        let from = Instant::now();
        for component in stack.components_of(role)? {
            most = most.max(component.pause(true).await?);
        }
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

#[derive(Debug)]
struct InTurns {
    role: String,
    work: Ongoing<(usize, Duration)>,
}

impl ActiveFault for InTurns {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let said = self.work.stop().await;
            for component in stack.components_of(&self.role)? {
                component.pause(false).await?;
            }
            let (processes, still) = said?;
            Ok(hit(processes, &format!("stopped in turns, for {:.0} ms in all", still.as_secs_f64() * 1e3)))
        })
    }
}
