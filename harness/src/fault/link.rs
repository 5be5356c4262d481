//! What faults of a link have in common: a toxic is armed on the link's proxy, and healing disarms it.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use toml::Spanned;

use super::proxy::Protocol;
use super::toxic::{Direction, Toxic, ToxicHit, ToxicId};
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::scenario::value::normal_link;
use crate::stack::{Stack, StackError};

/// A fault that is one toxic on one link. Whatever is one is a [`Fault`].
pub trait Poison: Send + Sync + Debug {
    /// What the link must speak for it to make sense, if it reads what passes.
    const NEEDS: Option<Protocol> = None;

    /// The link, as it is spelled in the scenario.
    fn link(&self) -> &Spanned<String>;

    /// The toxic to arm.
    fn toxic(&self) -> Toxic;

    /// What it does, in one line for people, but for the share of connections that it hits.
    fn does(&self) -> String;

    /// What a call is to which it did something, for its report.
    fn struck_calls(&self) -> &'static str {
        "calls"
    }

    /// Says what is wrong with its parameters, where the toxic itself would not: it is asked what is wrong with its own.
    fn check(&self, _about: &mut About<'_>) {}
}

impl<T: Poison> Fault for T {
    fn place(&self) -> Place<'_> {
        Place::Link(self.link())
    }

    fn needs() -> String {
        match T::NEEDS {
            Some(protocol) => format!("a link that speaks {protocol}"),
            None => "a link".to_owned(),
        }
    }

    fn detail(&self) -> String {
        let fraction = self.toxic().fraction;
        let share =
            if fraction < 1.0 { format!(", {:.0}% of the connections", fraction * 100.0) } else { String::new() };
        format!("{}{share}", self.does())
    }

    fn check(&self, about: &mut About<'_>) {
        about.link(self.link(), T::NEEDS);
        let toxic = self.toxic();
        about.share("fraction", toxic.fraction);
        if let Err(wrong) = toxic.kind.arm(toxic.direction).validate() {
            about.parameter(wrong.key, &format!("`{}` {}", wrong.key, wrong.what), wrong.help);
        }
        Poison::check(self, about);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let link = normal_link(self.link().get_ref());
            let id = stack.link(&link)?.arm(self.toxic())?;
            let armed: Box<dyn ActiveFault> = Box::new(Armed { link, id, calls: self.struck_calls() });
            Ok(armed)
        })
    }
}

#[derive(Debug)]
struct Armed {
    link: String,
    id: ToxicId,
    calls: &'static str,
}

impl ActiveFault for Armed {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let hit = stack.link(&self.link)?.disarm(self.id)?.unwrap_or_default();
            Ok(describe(&hit, self.calls))
        })
    }
}

/// How a fault says that it strikes all connections, where a scenario does not say otherwise.
pub(super) fn all() -> f64 {
    1.0
}

/// Where a scenario does not say which way: calls are struck, rather than their replies.
pub(super) fn calls_themselves() -> Direction {
    Direction::Up
}

/// Which way it strikes, in words for people; nothing for both.
pub(super) fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => ", requests only",
        Direction::Down => ", replies only",
        Direction::Both => "",
    }
}

/// A connection is hit when something was done to it: one that was only open is not.
pub(super) fn describe(hit: &ToxicHit, calls: &str) -> Hit {
    let calls = if hit.calls > 0 { format!(", {} {calls}", hit.calls) } else { String::new() };
    let words = format!("{} connections, {} chunks, {} bytes{calls}", hit.connections, hit.chunks, hit.bytes);
    Hit::new(hit.connections, words)
}
