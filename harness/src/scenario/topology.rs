//! What a scenario's stack is made of: its links, and the processes that something can be done to. Whoever provisions a
//! stack and whoever checks a scenario ask here.

use super::{Scenario, Target};
use crate::fault::proxy::Protocol;

/// The link on which the buyers come, straight to the service.
pub const ENTRANCE: &str = "client→service";
/// The link from the service to its database.
pub const TO_POSTGRES: &str = "service→postgres";

/// The role of the database.
pub const POSTGRES: &str = "postgres";

/// Who is called on a link: the part of its name behind the arrow.
pub fn callee(link: &str) -> String {
    link.rsplit('→').next().unwrap_or(link).to_owned()
}

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
        if let Target::Reference(_) = &self.target {
            links.push(Link { name: TO_POSTGRES, speaks: Protocol::Postgres });
        }
        links
    }

    /// The roles of its stack that processes belong to which the harness has started.
    pub fn roles(&self) -> Vec<&'static str> {
        match &self.target {
            Target::Reference(_) => vec!["service", "postgres"],
            Target::External(_) => Vec::new(),
        }
    }

    /// The role that is called on a link, if it has a host of its own: then there is a network between the two.
    pub fn host_behind(&self, link: &str) -> Option<String> {
        let has_host = matches!(&self.target, Target::Reference(reference) if reference.hosts);
        (has_host && link == TO_POSTGRES).then(|| callee(link))
    }

    /// What the proxy on the buyers' link understands of what passes.
    pub fn spoken(&self) -> Protocol {
        if self.is_readable() { Protocol::Http } else { Protocol::Opaque }
    }
}
