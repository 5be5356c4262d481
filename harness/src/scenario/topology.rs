//! What a scenario's stack is made of: its links, and the processes that something can be done to. Whoever provisions a
//! stack and whoever checks a scenario ask here.

use super::{Scenario, Target};
use crate::fault::proxy::Protocol;

/// The link on which the buyers come, straight to the service.
pub const ENTRANCE: &str = "client→service";
/// The link from the service to its database.
pub const TO_POSTGRES: &str = "service→postgres";

/// The role of the Postgres that follows the first.
pub const STANDBY: &str = "standby";
/// The link over which it follows: what passes there is the log, so what delays it makes it lag.
pub const STANDBY_TO_POSTGRES: &str = "standby→postgres";

/// The role of the Redis.
pub const REDIS: &str = "redis";
/// The role of the Redis that follows the first.
pub const REDIS_REPLICA: &str = "redis-replica";
/// The link over which it follows.
pub const REPLICA_TO_REDIS: &str = "redis-replica→redis";
/// The link from the service to its Redis.
pub const TO_REDIS: &str = "service→redis";

/// A link of a stack; a proxy stands on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its name: who calls whom.
    pub name: &'static str,
    /// What the proxy can read there.
    pub speaks: Protocol,
}

impl Scenario {
    /// The link on which the buyers come.
    pub fn entrance(&self) -> &'static str {
        ENTRANCE
    }

    /// The links of its stack, from the buyers on.
    pub fn links(&self) -> Vec<Link> {
        let mut links = vec![Link { name: self.entrance(), speaks: self.spoken() }];
        if let Target::Reference(reference) = &self.target {
            links.push(Link { name: TO_POSTGRES, speaks: Protocol::Postgres });
            if reference.redis {
                links.push(Link { name: TO_REDIS, speaks: Protocol::Redis });
            }
            if reference.redis && reference.redis_replica {
                links.push(Link { name: REPLICA_TO_REDIS, speaks: Protocol::Opaque });
            }
            if reference.standby.is_some() {
                // A stream of the log has no calls that could be counted or cut.
                links.push(Link { name: STANDBY_TO_POSTGRES, speaks: Protocol::Opaque });
            }
        }
        links
    }

    /// The roles of its stack that processes belong to which the harness has started.
    pub fn roles(&self) -> Vec<&'static str> {
        match &self.target {
            Target::Reference(reference) => {
                let mut roles = vec!["service"];
                roles.extend(self.databases());
                roles.extend(reference.redis.then_some(REDIS));
                roles.extend((reference.redis && reference.redis_replica).then_some(REDIS_REPLICA));
                roles
            }
            Target::External(_) => Vec::new(),
        }
    }

    /// Those of its roles that are a Postgres.
    pub fn databases(&self) -> Vec<&'static str> {
        match &self.target {
            Target::Reference(reference) => {
                let mut databases = vec!["postgres"];
                databases.extend(reference.standby.map(|_| STANDBY));
                databases
            }
            Target::External(_) => Vec::new(),
        }
    }

    /// What the proxy on the buyers' link understands of what passes.
    pub fn spoken(&self) -> Protocol {
        if self.is_readable() { Protocol::Http } else { Protocol::Opaque }
    }
}
