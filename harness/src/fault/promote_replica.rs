//! A failover of Redis: it is dead, and its replica takes over with what it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::process::{PATIENCE, all_up};
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::scenario::topology::{REDIS, REDIS_REPLICA, TO_REDIS};
use crate::stack::redis::Cache;
use crate::stack::{Component, Stack, StackError};

/// Redis is killed, its replica promoted, and the service's link leads there from then on. Replication is asynchronous: what
/// the replica had not received is gone. The old one stays dead, and whatever is done to the role `redis` from then on is
/// done to the new one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteReplica {
    /// The replica.
    #[serde(default = "replica")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

/// What one that leads says of itself.
const LEADS: &str = "role:master";

fn replica() -> Spanned<String> {
    Spanned::new(0..0, REDIS_REPLICA.to_owned())
}

#[derive(Debug)]
struct Promoted {
    role: String,
}

impl Fault for PromoteReplica {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Redis with a replica (`redis`, `redis_replica`)".into()
    }

    fn detail(&self) -> String {
        "redis is killed, and its replica takes over".into()
    }

    fn check(&self, about: &mut About<'_>) {
        let there = about.scenario().own_roles().contains(&REDIS_REPLICA);
        if !there || self.role.get_ref() != REDIS_REPLICA {
            let what = format!("\"{}\" is no replica that could be promoted", self.role.get_ref());
            let help = "add redis = true and redis_replica = true to [target.reference]: the role \"redis-replica\"";
            return about.parameter("role", &what, help);
        }
        let promotions = about.scenario().fault.iter().filter(|f| f.get_ref().inject.kind() == "promote-replica");
        if promotions.count() > 1 {
            let help = "there is one replica: keep one of these faults";
            about.parameter("role", "the replica is promoted more than once", help);
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let replica = cache(stack, &role)?;
            let old = stack.component(REDIS)?;
            // Before the old one dies, so that no other fault starts it again.
            stack.succeed(REDIS, Some(REDIS_REPLICA));
            promote(stack, old, &replica).await?;
            let active: Box<dyn ActiveFault> = Box::new(Promoted { role });
            Ok(active)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move {
            stack.succeed(REDIS, None);
            let (old, replica) = (stack.component(REDIS)?, cache(stack, self.role.get_ref())?);
            // Where it leads already, the rest is done: the old one would have what nobody asks any more.
            let told = replica.ask::<String>(&["INFO", "replication"]).await;
            if told.is_ok_and(|told| told.contains(LEADS)) {
                stack.succeed(REDIS, Some(REDIS_REPLICA));
                return lead(stack, old, &replica).await;
            }
            stack.link(TO_REDIS)?.set_upstream(cache(stack, REDIS)?.endpoint())?;
            all_up(stack, REDIS).await
        })
    }
}

/// Kills the old one, promotes the replica, and leads the service there.
async fn promote(stack: &Stack, old: &dyn Component, replica: &Cache) -> Result<(), StackError> {
    old.kill().await?;
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await?;
    lead(stack, old, replica).await
}

/// Leads the service to the new one. A supervisor of another fault may have been about to start the old one when it died.
async fn lead(stack: &Stack, old: &dyn Component, replica: &Cache) -> Result<(), StackError> {
    old.kill().await?;
    stack.link(TO_REDIS)?.set_upstream(replica.endpoint())?;
    Ok(())
}

fn cache(stack: &Stack, role: &str) -> Result<Cache, StackError> {
    let found = stack.component(role)?.cache();
    found.ok_or_else(|| StackError::Other(format!("`{role}` is no Redis that could be asked")))
}

impl ActiveFault for Promoted {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            // Another fault may have it down at this moment.
            let new = cache(stack, &self.role)?;
            let end = Instant::now() + PATIENCE;
            let replication = loop {
                match new.ask::<String>(&["INFO", "replication"]).await {
                    Ok(told) => break told,
                    Err(error) if Instant::now() > end => return Err(error),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            if !replication.contains(LEADS) {
                return Err(StackError::Other(format!("`{}` is still a replica", self.role)));
            }
            Ok(Hit::new(1, format!("`{}` is the one that the service asks", self.role)))
        })
    }
}
