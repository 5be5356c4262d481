//! Redis loses its memory, as after a slip of the hand, a restart without a log of commands, or an eviction of everything.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::counted;
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::scenario::topology::REDIS;
use crate::stack::{Stack, StackError};

/// `FLUSHALL`: everything in Redis is gone, from one moment to the next. Nothing brings it back but whoever put it there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisFlush {
    /// The Redis.
    #[serde(default = "redis")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

fn redis() -> Spanned<String> {
    Spanned::new(0..0, REDIS.to_owned())
}

#[derive(Debug)]
struct Flushed {
    role: String,
    keys: u64,
}

impl Fault for RedisFlush {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Redis that the harness has started (`redis`)".into()
    }

    fn detail(&self) -> String {
        "everything in it is forgotten".into()
    }

    fn check(&self, about: &mut About<'_>) {
        if !about.scenario().own_roles().contains(&REDIS) || self.role.get_ref() != REDIS {
            let what = format!("\"{}\" is no Redis of this stack", self.role.get_ref());
            about.parameter("role", &what, "add redis = true to [target.reference]: the role \"redis\"");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let cache = stack.component(&role)?.cache();
            let cache = cache.ok_or_else(|| StackError::Other(format!("`{role}` is no Redis that could be asked")))?;
            let keys = cache.ask(&["DBSIZE"]).await?;
            cache.ask::<()>(&["FLUSHALL"]).await?;
            let active: Box<dyn ActiveFault> = Box::new(Flushed { role, keys });
            Ok(active)
        })
    }
}

/// How many keys there were, and how many there are again.
pub(super) fn forgotten(keys: u64, now: Option<u64>) -> Hit {
    let now = now.map_or("it could not be asked".to_owned(), |now| format!("there are {now}"));
    Hit::new(keys, format!("{} forgotten; when it was healed, {now}", counted(keys, "key", "keys")))
}

impl ActiveFault for Flushed {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            // There is nothing to take away. What came back meanwhile tells whether somebody noticed.
            let now = match stack.component(&self.role)?.cache() {
                Some(cache) => cache.ask::<u64>(&["DBSIZE"]).await.ok(),
                None => None,
            };
            Ok(forgotten(self.keys, now))
        })
    }
}
