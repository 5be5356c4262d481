//! A process dies again and again, as with a request that it cannot stand.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::counted;
use super::process::{Ongoing, all_anew, all_up, goes_on, kill_all, start_if_down};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::scenario::value::Dur;
use crate::stack::{Stack, StackError};

/// A component is killed and started at once, over and over while the fault lasts; healing lets it stay up.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrashLoop {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// From one start to the next kill.
    #[serde(default = "every")]
    pub every: Dur,
}

fn every() -> Dur {
    Dur::millis(500)
}

/// What a loop has come to.
#[derive(Debug, Clone, Copy, Default)]
struct Deaths {
    times: u64,
    processes: usize,
}

#[derive(Debug)]
struct Looping {
    role: String,
    deaths: Ongoing<Deaths>,
}

impl Fault for CrashLoop {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running]
    }

    fn detail(&self) -> String {
        format!("SIGKILL {} after each start, started again at once", self.every)
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        if self.every < Dur::millis(50) {
            let what = format!("`every` is {}", self.every);
            about.parameter("every", &what, "at least 50ms: what is killed sooner has not started at all");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, every) = (self.role.get_ref().clone(), self.every.0);
            let first = kill_all(stack, &role).await?;
            let whom = role.clone();
            let deaths = Ongoing::start(stack, async move |stack, stop| {
                let mut deaths = Deaths { times: 1, processes: first };
                loop {
                    for component in stack.components_of(&whom)? {
                        start_if_down(component).await?;
                    }
                    if !goes_on(&stop, every).await {
                        return Ok(deaths);
                    }
                    deaths.processes += kill_all(&stack, &whom).await?;
                    deaths.times += 1;
                }
            });
            let looping: Box<dyn ActiveFault> = Box::new(Looping { role, deaths });
            Ok(looping)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(all_anew(stack, self.role.get_ref()))
    }
}

/// Nobody was hit where the component was down all the time, however often it was killed.
pub(super) fn died(times: u64, processes: usize) -> Hit {
    let processes = processes as u64;
    let all = counted(processes, "process", "processes");
    Hit::new(processes, format!("killed {}, {all} in all", counted(times, "time", "times")))
}

impl ActiveFault for Looping {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let deaths = self.deaths.stop().await;
            all_up(stack, &self.role).await?;
            let Deaths { times, processes } = deaths?;
            Ok(died(times, processes))
        })
    }
}
