//! A process is asked to end, as before a deployment, and started again later.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, join_all};
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::processes as hit;
use super::process::{all_anew, all_up, farewell};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::scenario::value::Dur;
use crate::stack::{Stack, StackError};

/// A component ends in its orderly way; healing starts it again on the same data.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The role: `service`, `postgres`, or another that the stack has.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// How long it may take to end; then it is killed.
    #[serde(default = "patience")]
    pub within: Dur,
}

/// How long a process may take to end in order, where a scenario does not say.
pub(super) fn patience() -> Dur {
    Dur::millis(5_000)
}

#[derive(Debug)]
struct Stopped {
    role: String,
    hit: Hit,
}

impl Fault for Stop {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running]
    }

    fn detail(&self) -> String {
        format!("asked to end, killed if not gone within {}, then started again on the same data", self.within)
    }

    fn check(&self, about: &mut About<'_>) {
        about.role(&self.role);
        within(about, self.within);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let (mut processes, mut killed, from) = (0, 0, Instant::now());
            // All at once, so that `within` is what it takes, however many they are.
            let ends = stack.components_of(&role)?.into_iter().map(async |component| {
                let pids = component.pids().len();
                Ok::<_, StackError>((pids, farewell(component, self.within.0).await?))
            });
            for ended in join_all(ends).await {
                let (pids, obeyed) = ended?;
                processes += pids;
                killed += if obeyed { 0 } else { pids };
            }
            let took = format!("ended within {:.0} ms", from.elapsed().as_secs_f64() * 1e3);
            let killed = if killed > 0 { format!(", {killed} of them killed") } else { String::new() };
            let stopped: Box<dyn ActiveFault> =
                Box::new(Stopped { role, hit: hit(processes, &format!("{took}{killed}")) });
            Ok(stopped)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(all_anew(stack, self.role.get_ref()))
    }
}

/// The longest that a process may be given to end: an injection that takes much longer is given up.
pub const LONGEST: Dur = Dur::millis(25_000);

/// A process has to be given some time, and a fault is not to hang on it.
pub(super) fn within(about: &mut About<'_>, within: Dur) {
    if within < Dur::millis(100) || within > LONGEST {
        let help = format!("how long it may take to end: from 100ms to {LONGEST}");
        about.parameter("within", &format!("`within` is {within}"), help);
    }
}

impl ActiveFault for Stopped {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            all_up(stack, &self.role).await?;
            Ok(self.hit.clone())
        })
    }
}
