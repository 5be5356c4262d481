//! What a scenario's stack is made of: its links, and the processes that something can be done to. Whoever provisions a
//! stack and whoever checks a scenario ask here.

use super::{Hosts, Runs, Scenario, Target};
use crate::fault::proxy::Protocol;

/// The link on which the buyers come, straight to the service.
pub const ENTRANCE: &str = "client→service";
/// The link on which the buyers come where there is an access layer.
pub const TO_ACCESS: &str = "client→access";
/// The link from the access layer to the service.
pub const ACCESS_TO_SERVICE: &str = "access→service";
/// The link from the service to its payment dependency.
pub const TO_PAYMENT: &str = "service→payment";
/// The link from the service to its user-profile dependency.
pub const TO_PROFILE: &str = "service→profile";
/// The role of the access layer as a whole.
pub const ACCESS: &str = "access";
/// The roles of its processes, each alone; there may be as many as have a name here.
pub const ACCESS_PROCESSES: [&str; 8] =
    ["access-1", "access-2", "access-3", "access-4", "access-5", "access-6", "access-7", "access-8"];
/// The link from the service to its database.
pub const TO_POSTGRES: &str = "service→postgres";

/// The role of the database.
pub const POSTGRES: &str = "postgres";

/// Who calls on a link, and who is called: the parts of its name before and behind the arrow.
pub fn ends(link: &str) -> (&str, &str) {
    link.split_once('→').unwrap_or((link, link))
}

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
pub struct Link<'a> {
    /// Its name: who calls whom.
    pub name: &'a str,
    /// What the proxy can read there.
    pub speaks: Protocol,
}

impl Scenario {
    /// The link on which the buyers come.
    pub fn entrance(&self) -> &'static str {
        match &self.target {
            Target::Reference(reference) if reference.access > 0 => TO_ACCESS,
            _ => ENTRANCE,
        }
    }

    /// The links of its stack, from the buyers on.
    pub fn links(&self) -> Vec<Link<'_>> {
        let mut links = vec![Link { name: self.entrance(), speaks: self.spoken() }];
        let reference = match &self.target {
            Target::Reference(reference) => reference,
            Target::External(external) => {
                let behind = external.link.iter();
                links.extend(behind.map(|(name, link)| Link { name, speaks: link.get_ref().protocol.protocol() }));
                return links;
            }
        };
        if reference.access > 0 {
            links.push(Link { name: ACCESS_TO_SERVICE, speaks: Protocol::Http });
        }
        links.push(Link { name: TO_POSTGRES, speaks: Protocol::Postgres });
        for (there, name) in [(reference.payment, TO_PAYMENT), (reference.profile, TO_PROFILE)] {
            links.extend(there.then_some(Link { name, speaks: Protocol::Http }));
        }
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
        links
    }

    /// The roles of its stack that processes belong to which may be broken: those that the harness has started, and those that
    /// the scenario names.
    pub fn roles(&self) -> Vec<&str> {
        match &self.target {
            Target::Reference(_) => self.own_roles(),
            Target::External(external) => external.process.keys().map(String::as_str).collect(),
        }
    }

    /// The roles of the reference service's stack, whose insides the harness knows.
    pub fn own_roles(&self) -> Vec<&'static str> {
        let Target::Reference(reference) = &self.target else { return Vec::new() };
        let mut roles = vec!["service"];
        roles.extend(self.databases());
        roles.extend(reference.redis.then_some(REDIS));
        roles.extend((reference.redis && reference.redis_replica).then_some(REDIS_REPLICA));
        for (there, role) in [(reference.payment, "payment"), (reference.profile, "profile")] {
            roles.extend(there.then_some(role));
        }
        if reference.access > 0 {
            roles.push(ACCESS);
            roles.extend(self.access_processes());
        }
        roles
    }

    /// Those of its roles that are a Postgres.
    pub fn databases(&self) -> Vec<&'static str> {
        match &self.target {
            Target::Reference(reference) => {
                let mut databases = vec![POSTGRES];
                databases.extend(reference.standby.map(|_| STANDBY));
                databases
            }
            Target::External(_) => Vec::new(),
        }
    }

    /// The roles of the processes of its access layer, each alone.
    pub fn access_processes(&self) -> &'static [&'static str] {
        let count = match &self.target {
            Target::Reference(reference) => reference.access as usize,
            Target::External(_) => 0,
        };
        &ACCESS_PROCESSES[..count.min(ACCESS_PROCESSES.len())]
    }

    /// The roles that have a network of their own, which they can be cut off from.
    pub fn networked(&self) -> Vec<&'static str> {
        match &self.target {
            Target::Reference(reference) if reference.stack == Runs::Containers => {
                let redis = reference.redis.then_some(REDIS);
                let replica = (reference.redis && reference.redis_replica).then_some(REDIS_REPLICA);
                [Some(POSTGRES), redis, replica].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }

    /// The roles that can have a host of their own. The processes of the access layer share one.
    pub fn possible_hosts(&self) -> Vec<&'static str> {
        let one_of_several = |role: &&'static str| !self.access_processes().contains(role);
        self.own_roles().into_iter().filter(one_of_several).collect()
    }

    /// The roles that have one.
    pub fn hosts(&self) -> Vec<&'static str> {
        let wanted = |role: &&str| match &self.target {
            Target::Reference(reference) => match &reference.hosts {
                Hosts::All(all) => *all,
                Hosts::Of(roles) => roles.iter().any(|wanted| wanted == role),
            },
            Target::External(_) => false,
        };
        self.possible_hosts().into_iter().filter(wanted).collect()
    }

    /// Whether packets on a link go over the network of a host. Who follows another one reaches it past its host, so that
    /// only the follower's own counts there.
    pub fn crosses_hosts(&self, link: &str) -> bool {
        let (hosts, (caller, callee)) = (self.hosts(), ends(link));
        let follows = [STANDBY_TO_POSTGRES, REPLICA_TO_REDIS].contains(&link);
        hosts.contains(&caller) || (hosts.contains(&callee) && !follows)
    }

    /// What the proxy on the buyers' link understands of what passes.
    pub fn spoken(&self) -> Protocol {
        if self.is_readable() { Protocol::Http } else { Protocol::Opaque }
    }
}
