//! Faults: what the nemesis can break, one file per kind.
//!
//! This module owns how a fault is made and healed. It knows nothing about timelines, loads or verdicts: when a fault
//! starts and ends is the nemesis's business, and what it did to the sale is the checks' business.
//!
//! - [`proxy`] stands between two roles of the stack and forwards bytes;
//! - [`toxic`] is what can be done to the bytes and connections inside a proxy.

pub mod link;
pub mod process;
pub mod proxy;
pub mod toxic;

use futures_util::future::BoxFuture;

use crate::scenario::Inject;
use crate::stack::{Stack, StackError};

/// A kind of fault, with its parameters.
pub trait Fault: Send + Sync {
    /// Makes the fault; when this returns, it is in effect.
    fn inject<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>>;
}

/// A fault in effect. It must be healed; nothing heals it by itself but the end of the run.
#[must_use = "a fault that is in effect has to be healed"]
pub trait ActiveFault: Send {
    /// Takes the fault away and says what it really hit; when this returns, the stack's part is done.
    fn heal<'a>(self: Box<Self>, stack: &'a Stack) -> BoxFuture<'a, Result<String, StackError>>;
}

/// The fault that a scenario asks for.
pub fn build(inject: &Inject) -> Box<dyn Fault> {
    match inject {
        Inject::Kill(f) => Box::new(process::Kill { role: f.role.get_ref().clone() }),
        Inject::Pause(f) => Box::new(process::Pause { role: f.role.get_ref().clone() }),
        on_link => Box::new(link::LinkFault::new(on_link)),
    }
}
