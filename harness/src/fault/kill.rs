//! A process is killed, and started again on the same data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::process::{PATIENCE, hit};
use super::{ActiveFault, Fault, Place};
use crate::scenario::About;
use crate::stack::{Stack, StackError};

/// SIGKILL to a component and all its processes; healing starts it again on the same data.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

#[derive(Debug)]
struct Killed {
    role: String,
    hit: usize,
}

impl Fault for Kill {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn detail(&self) -> String {
        "SIGKILL, then started again on the same data".into()
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let hit = stack.component(&role)?.kill().await?;
            let killed: Box<dyn ActiveFault> = Box::new(Killed { role, hit });
            Ok(killed)
        })
    }
}

impl ActiveFault for Killed {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let component = stack.component(&self.role)?;
            let end = Instant::now() + PATIENCE;
            // What a supervisor does: started again until it stays up, within bounds.
            loop {
                // Here, and not on the blocking pool: see `Process::start`.
                component.start().await?;
                match component.ready(PATIENCE).await {
                    Ok(()) => return Ok(hit(self.hit, "killed")),
                    Err(_) if component.ended().is_some() && Instant::now() < end => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }
}
