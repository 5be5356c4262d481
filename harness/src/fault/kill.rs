//! A process is killed, and started again on the same data.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::processes;
use super::process::{Ongoing, all_anew, all_up, goes_on, kill_all};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::scenario::value::Dur;
use crate::stack::{Stack, StackError};

/// SIGKILL to a component and all its processes; healing starts it again on the same data.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// After how long it is started again while the fault still lasts, as by a supervisor; otherwise it stays down until the
    /// fault is healed.
    pub restart_after: Option<Dur>,
}

#[derive(Debug)]
struct Killed {
    role: String,
    hit: usize,
    supervisor: Option<Ongoing<bool>>,
}

impl Fault for Kill {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running]
    }

    fn detail(&self) -> String {
        match self.restart_after {
            None => "SIGKILL, then started again on the same data".into(),
            Some(after) => format!("SIGKILL, started again on the same data after {after}"),
        }
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        if let Some(after) = self.restart_after {
            about.while_it_lasts("restart_after", after);
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let hit = kill_all(stack, &role).await?;
            let supervisor = self.restart_after.map(|after| {
                let role = role.clone();
                Ongoing::start(stack, async move |stack, stop| {
                    let in_time = goes_on(&stop, after.0).await;
                    if in_time {
                        all_up(&stack, &role).await?;
                    }
                    Ok(in_time)
                })
            });
            let killed: Box<dyn ActiveFault> = Box::new(Killed { role, hit, supervisor });
            Ok(killed)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(all_anew(stack, self.role.get_ref()))
    }
}

impl ActiveFault for Killed {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let supervised = match &mut self.supervisor {
                Some(supervisor) => supervisor.stop().await.is_ok_and(|in_time| in_time),
                None => false,
            };
            all_up(stack, &self.role).await?;
            Ok(processes(self.hit, if supervised { "killed, started again while it lasted" } else { "killed" }))
        })
    }
}
