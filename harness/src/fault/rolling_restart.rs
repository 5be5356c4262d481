//! The processes of a role are restarted one after the other, as in a deployment.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::process::{Ongoing, all_up, farewell, goes_on, up_again};
use super::stop::{patience, within};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::topology::ACCESS;
use crate::scenario::value::Dur;
use crate::scenario::{About, Target};
use crate::stack::{Stack, StackError};

/// Each component of a role ends in order and is started again, and only when it works the next one follows. Of a role that
/// has only one, this is a restart.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollingRestart {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// How long one may take to end; then it is killed.
    #[serde(default = "patience")]
    pub within: Dur,
    /// From one that works again to the end of the next.
    #[serde(default)]
    pub between: Dur,
}

/// What a round has come to.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    restarted: usize,
    killed: usize,
    of: usize,
}

#[derive(Debug)]
struct Rolling {
    role: String,
    round: Ongoing<Round>,
}

impl Fault for RollingRestart {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running]
    }

    fn detail(&self) -> String {
        "each restarted in order, one after the other".into()
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        within(about, self.within);
        let alone = match &about.scenario().target {
            Target::Reference(_) => self.role.get_ref() != ACCESS || about.scenario().access_processes().len() < 2,
            Target::External(_) => false,
        };
        if alone && !self.between.0.is_zero() {
            let what = format!("`between` is {}, and \"{}\" is one process alone", self.between, self.role.get_ref());
            about.parameter("between", &what, "remove it, or restart a role of several, such as access = 2");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, within, between) = (self.role.get_ref().clone(), self.within.0, self.between.0);
            // The first is gone when this returns, so that the fault is in effect.
            let first = match stack.components_of(&role)?.first() {
                Some(first) => farewell(*first, within).await?,
                None => true,
            };
            let whom = role.clone();
            let round = Ongoing::start(stack, async move |stack, stop| {
                let components = stack.components_of(&whom)?;
                let mut round = Round { of: components.len(), killed: usize::from(!first), restarted: 0 };
                for (n, component) in components.into_iter().enumerate() {
                    if n > 0 {
                        if !goes_on(&stop, between).await {
                            break;
                        }
                        round.killed += usize::from(!farewell(component, within).await?);
                    }
                    up_again(component).await?;
                    round.restarted += 1;
                }
                Ok(round)
            });
            let rolling: Box<dyn ActiveFault> = Box::new(Rolling { role, round });
            Ok(rolling)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move {
            // Only the first had been asked to end.
            if let Some(first) = stack.components_of(self.role.get_ref())?.first() {
                first.kill().await?;
            }
            all_up(stack, self.role.get_ref()).await
        })
    }
}

/// What a round has come to, in words.
pub(super) fn came_to(restarted: usize, of: usize, killed: usize) -> Hit {
    let killed = if killed > 0 { format!(", {killed} killed because they did not end") } else { String::new() };
    Hit::new(restarted as u64, format!("{restarted} of {of} restarted{killed}"))
}

impl ActiveFault for Rolling {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let round = self.round.stop().await;
            all_up(stack, &self.role).await?;
            let Round { restarted, killed, of } = round?;
            Ok(came_to(restarted, of, killed))
        })
    }
}
