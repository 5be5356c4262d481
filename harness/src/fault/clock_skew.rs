//! The service's clock runs too fast or too slow, and is set right again.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::clock_step::{make_right, set_wrong, whose};
use super::{ActiveFault, Fault, Hold, Place};
use crate::history::ClockError;
use crate::scenario::About;
use crate::stack::{Stack, StackError};

/// The clock of the service runs at another speed; healing sets it right.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockSkew {
    /// The role whose clock it is: `service`.
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Its speed: 1.5 gains half a second in each second, 0.5 loses as much.
    pub rate: f64,
}

impl ClockSkew {
    /// Microseconds gained in each second.
    fn gain_ppm(&self) -> i64 {
        ((self.rate - 1.0) * 1e6).round() as i64
    }
}

impl Fault for ClockSkew {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Clock]
    }

    fn detail(&self) -> String {
        format!("the clock runs {} times as fast, then is set right", self.rate)
    }

    fn check(&self, about: &mut About<'_>) {
        whose(about, &self.role);
        if !(0.0..=10.0).contains(&self.rate) || self.gain_ppm() == 0 {
            let what = format!("`rate` is {}", self.rate);
            about.parameter("rate", &what, "from 0 (it stands still) to 10, and not 1: 1.5 is fast, 0.5 is slow");
        }
    }

    fn clock_error(&self) -> Option<ClockError> {
        Some(ClockError { step_us: 0, gain_ppm: self.gain_ppm() })
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(set_wrong(stack, 0, self.gain_ppm()))
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move { make_right(stack, &mut None).await })
    }
}
