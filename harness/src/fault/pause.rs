//! A process is stopped in its tracks for a while.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::processes;
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::stack::{Stack, StackError};

/// SIGSTOP to a component and all its processes; healing lets them go on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

#[derive(Debug)]
struct Paused {
    role: String,
    hit: usize,
}

impl Fault for Pause {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running, Hold::Turns]
    }

    fn detail(&self) -> String {
        "SIGSTOP, then SIGCONT".into()
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let mut hit = 0;
            for component in stack.components_of(&role)? {
                hit += component.pause(true).await?;
            }
            let paused: Box<dyn ActiveFault> = Box::new(Paused { role, hit });
            Ok(paused)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(go_on(stack, self.role.get_ref()))
    }
}

/// Lets every component of a role go on.
pub(super) async fn go_on(stack: &Stack, role: &str) -> Result<(), StackError> {
    for component in stack.components_of(role)? {
        component.pause(false).await?;
    }
    Ok(())
}

impl ActiveFault for Paused {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            go_on(stack, &self.role).await?;
            Ok(processes(self.hit, "stopped"))
        })
    }
}
