//! The service's clock jumps, and is set right again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::database::PATIENCE;
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::history::ClockError;
use crate::scenario::value::SignedDur;
use crate::scenario::{About, Target};
use crate::stack::control::Control;
use crate::stack::{Stack, StackError};

/// The clock of the service jumps at once; healing sets it right.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockStep {
    /// The role whose clock it is: `service`.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// By how much: `"3s"` is ahead, `"-3s"` behind.
    pub by: SignedDur,
}

/// The role whose clock can be set: the one that decides when a sale is open and when a hold ends.
const WITH_A_CLOCK: &str = "service";
/// The furthest that a clock may be off, in microseconds: who waits for holds to end waits for that, too.
const FURTHEST_US: i64 = 60_000_000;

impl Fault for ClockStep {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Clock]
    }

    fn detail(&self) -> String {
        format!("the clock jumps by {}, then is set right", self.by)
    }

    fn check(&self, about: &mut About<'_>) {
        whose(about, &self.role);
        let us = self.by.micros();
        if us % 1_000 != 0 || !(1_000..=FURTHEST_US).contains(&us.saturating_abs()) {
            let what = format!("`by` is {}", self.by);
            about.parameter("by", &what, "whole milliseconds, from 1ms to 60s, ahead or behind (\"-3s\")");
        }
    }

    fn clock_error(&self) -> Option<ClockError> {
        Some(ClockError { step_us: self.by.micros(), gain_ppm: 0 })
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(set_wrong(stack, self.by.micros() / 1_000, 0))
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move { make_right(stack, &mut None).await })
    }
}

/// The role has to be one whose clock can be set.
pub(super) fn whose(about: &mut About<'_>, role: &Spanned<String>) {
    about.role(role);
    if about.scenario().roles().contains(&role.get_ref().as_str()) && role.get_ref() != WITH_A_CLOCK {
        let what = format!("the clock of \"{}\" cannot be set", role.get_ref());
        about.wrong(role.span(), what, format!("role = \"{WITH_A_CLOCK}\", whose clock decides"));
    } else if matches!(&about.scenario().target, Target::External(external) if external.audit.is_none()) {
        let help = "a clock is set by PUT /clock on the audit listener: name it with target.external.audit, or remove the fault";
        about.wrong(role.span(), "this service has no listener that sets its clock", help);
    }
}

/// Sets the clock of the service wrong.
pub(super) async fn set_wrong(
    stack: &Stack,
    offset_ms: i64,
    gain_ppm: i64,
) -> Result<Box<dyn ActiveFault>, StackError> {
    control(stack)?.set_clock(offset_ms, gain_ppm).await?;
    Ok(Box::new(Wrong { stepped: offset_ms != 0, was_off_ms: None }))
}

fn control(stack: &Stack) -> Result<&Control, StackError> {
    stack.control.as_ref().ok_or_else(|| StackError::Other("this stack has no listener to set a clock by".to_owned()))
}

#[derive(Debug)]
struct Wrong {
    /// Whether it was off from the beginning, and not only by and by.
    stepped: bool,
    was_off_ms: Option<i64>,
}

/// A clock that jumped was off, even if a restart has set it right before; one that runs wrong has to have got somewhere.
pub(super) fn set_right(stepped: bool, off_ms: i64) -> Hit {
    let count = u64::from(stepped || off_ms != 0);
    Hit::new(count, format!("the service's clock was off by {off_ms} ms when it was set right"))
}

impl ActiveFault for Wrong {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            make_right(stack, &mut self.was_off_ms).await?;
            // A service that was started again meanwhile has the right time, and the fault was over before.
            Ok(set_right(self.stepped, self.was_off_ms.unwrap_or(0)))
        })
    }
}

/// Between two looks whether the service listens.
const LOOK: Duration = Duration::from_millis(100);

/// Sets the clock right, as soon as the service listens, and keeps by how much it was off. One that is down has lost its clock
/// with everything else: it is started with the right time.
pub(super) async fn make_right(stack: &Stack, was_off_ms: &mut Option<i64>) -> Result<(), StackError> {
    let control = control(stack)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let done = async {
            if was_off_ms.is_none() {
                *was_off_ms = Some(control.clock_offset_ms().await?);
            }
            control.set_clock(0, 0).await
        };
        match done.await {
            Ok(()) => return Ok(()),
            Err(_) if is_down(stack) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether the service is a process that has ended, and not only one that cannot be reached.
fn is_down(stack: &Stack) -> bool {
    let service = stack.components_of(WITH_A_CLOCK);
    service.is_ok_and(|all| all.iter().all(|component| component.ended().is_some()))
}
