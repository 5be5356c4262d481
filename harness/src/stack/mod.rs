//! The stack: what is provisioned for a run, reached through its links, and taken down again.
//!
//! A [`Stack`] is a bundle of parts: proxies on its links, components that can be broken, the control listener. How the
//! parts came to be (embedded processes, somebody's running service, containers) matters only to the constructor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use nix::sys::signal::Signal;

use crate::fault::proxy::Proxy;
use crate::history::FinalState;
use crate::load::client::Entry;
use crate::scenario::{Item, Scenario, Target};

pub mod cgroup;
pub mod containers;
pub mod control;
pub mod database;
pub mod disk;
pub mod embedded;
pub mod external;
pub mod group;
pub mod guard;
pub mod host;
pub mod leftovers;
pub mod meters;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod segments;

use self::cgroup::Throttled;
use self::redis::Cache;
use control::Control;
use database::Database;
use meters::Meters;
use process::Process;

/// Why a stack could not be provisioned, or a part of it does not obey.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Something that is needed is not on this machine.
    #[error("{why}\nhelp: {remedy}")]
    Missing {
        /// What is missing.
        why: String,
        /// How to get it.
        remedy: String,
    },
    /// A setting of the scenario does not hold outside: nobody is there, or somebody else is.
    #[error("{key}: {what}\nhelp: {help}")]
    Setting {
        /// The key in the scenario file.
        key: &'static str,
        /// What is wrong.
        what: String,
        /// The remedy.
        help: String,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A proxy failed.
    #[error(transparent)]
    Proxy(#[from] crate::fault::proxy::ProxyError),
    /// Anything else, in words for people.
    #[error("{0}")]
    Other(String),
}

impl StackError {
    /// An error of the system, with what was tried.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> StackError {
        StackError::Io { what: what.into(), source }
    }
}

impl From<crate::doctor::Missing> for StackError {
    fn from(missing: crate::doctor::Missing) -> Self {
        StackError::Missing { why: missing.why, remedy: missing.remedy }
    }
}

/// A part of the stack that runs and that can be broken, however it is run.
pub trait Component: Send + Sync + std::fmt::Debug {
    /// `service`, `postgres`, ...
    fn role(&self) -> &'static str;
    /// Its processes, as this machine numbers them.
    fn pids(&self) -> Vec<i32>;
    /// Whether it has ended by itself, and how.
    fn ended(&self) -> Option<String>;
    /// Starts it (again, on the same data). To be called on the main thread or in a task: see [`Process::start`].
    fn start(&self) -> BoxFuture<'_, Result<(), StackError>>;
    /// Waits until it does its work.
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>>;
    /// Kills it, as a power cut would; says how many processes that hit.
    fn kill(&self) -> BoxFuture<'_, Result<usize, StackError>>;
    /// Stops it in its tracks (true) or lets it go on (false); says how many processes that hit.
    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<usize, StackError>>;
    /// Cuts it off from its network (true) or connects it again (false), as often as that is asked for.
    fn disconnect(&self, off: bool) -> BoxFuture<'_, Result<(), StackError>> {
        let what = if off { "cut off from" } else { "connected to" };
        let why = format!("`{}` is a process of this machine: it has no network of its own to be {what}", self.role());
        Box::pin(async { Err(StackError::Other(why)) })
    }
    /// Asks it to end in an orderly way, and waits until it has; false if it is still there after the limit.
    fn stop(&self, limit: Duration) -> BoxFuture<'_, Result<bool, StackError>>;
    /// Bytes of write-ahead log written so far, for a database.
    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { None })
    }
    /// How to ask it directly, for a Postgres.
    fn database(&self) -> Option<Database> {
        None
    }
    /// The disk that is its alone, by the folder where it is mounted.
    fn disk(&self) -> Option<PathBuf> {
        None
    }
    /// How to ask it directly, for a Redis.
    fn cache(&self) -> Option<Cache> {
        None
    }
    /// What holds it to a part of the processors, where that is the business of whoever runs it: the engine of a container.
    fn quota(&self) -> Option<&dyn Quota> {
        None
    }
    /// Whether it was started for the run, so that it ends with it.
    fn is_ours(&self) -> bool {
        true
    }
    /// The components that it consists of, where it is several that play one role; each can be broken alone.
    fn members(&self) -> &[Box<dyn Component>] {
        &[]
    }
}

/// Holds a component to a part of the processors.
pub trait Quota: Send + Sync {
    /// Lets all its processes together have so many processors (0.25 is a quarter of one), or as many as they want.
    fn limit(&self, cpus: Option<f64>) -> BoxFuture<'_, Result<(), StackError>>;
    /// What limits have come to since it was started.
    fn throttled(&self) -> BoxFuture<'_, Result<Throttled, StackError>>;
}

/// A component that is a process of this machine with its descendants.
pub trait Local: Send + Sync + std::fmt::Debug {
    /// Its processes.
    fn process(&self) -> &Arc<Process>;
    /// The signal on which it ends in an orderly way.
    fn farewell(&self) -> Signal;
    /// Waits until it does its work.
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>>;
    /// Bytes of write-ahead log written so far, for a database.
    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { None })
    }
    /// How to ask it directly, for a Postgres.
    fn database(&self) -> Option<Database> {
        None
    }
    /// The disk that is its alone, by the folder where it is mounted.
    fn disk(&self) -> Option<PathBuf> {
        None
    }
    /// How to ask it directly, for a Redis.
    fn cache(&self) -> Option<Cache> {
        None
    }
}

impl<T: Local> Component for T {
    fn role(&self) -> &'static str {
        self.process().role()
    }
    fn pids(&self) -> Vec<i32> {
        self.process().pids()
    }
    fn ended(&self) -> Option<String> {
        self.process().ended()
    }
    fn start(&self) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async { self.process().start() })
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Local::ready(self, limit)
    }
    fn kill(&self) -> BoxFuture<'_, Result<usize, StackError>> {
        let process = self.process().clone();
        Box::pin(waited(move || process.kill_all()))
    }
    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<usize, StackError>> {
        let signal = if paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        Box::pin(async move { Ok(self.process().signal_all(signal)) })
    }
    fn stop(&self, limit: Duration) -> BoxFuture<'_, Result<bool, StackError>> {
        let (process, farewell) = (self.process().clone(), self.farewell());
        Box::pin(waited(move || Ok(process.stop(farewell, limit))))
    }
    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Local::wal_bytes(self)
    }
    fn database(&self) -> Option<Database> {
        Local::database(self)
    }
    fn disk(&self) -> Option<PathBuf> {
        Local::disk(self)
    }
    fn cache(&self) -> Option<Cache> {
        Local::cache(self)
    }
}

/// Does on the blocking pool what waits for processes.
async fn waited<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StackError> + Send + 'static,
) -> Result<R, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StackError::Other(format!("waiting for processes ended early: {error}"))))
}

/// A provisioned stack.
#[derive(Debug)]
pub struct Stack {
    /// Proxies, one on each link, by the order of the links from the client on.
    pub links: Vec<Proxy>,
    /// Components, in the order in which they are started.
    pub components: Vec<Box<dyn Component>>,
    /// The target's control listener, if it has one.
    pub control: Option<Control>,
    /// Where it says how far it is degraded, if it does.
    pub meters: Option<Meters>,
    /// What the scenario says of somebody else's shop: its books, its set-up, its clean-up.
    pub shop: Option<external::Shop>,
    /// How buyers reach the target: through the proxy on the first link.
    pub entry: Entry,
    /// Addresses for people: what, where.
    pub addresses: Vec<(String, String)>,
    /// What a reader of the report should know of how it was run.
    pub notes: Vec<String>,
    /// The hosts of roles that have one of their own.
    pub hosts: Vec<host::Host>,
    /// The run that it is for, by which whatever is made for it is named.
    pub run: leftovers::Run,
    /// Who has taken over whose role.
    heirs: Heirs,
    guard: Option<guard::Guard>,
}

/// The roles that somebody else has taken over, with the role that the successor was started in. Whatever is done to a
/// role from then on is done to whoever plays it.
#[derive(Debug, Default)]
struct Heirs(Mutex<BTreeMap<&'static str, &'static str>>);

impl Heirs {
    fn of<'a>(&self, role: &'a str) -> &'a str {
        let heirs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heirs.get(role).copied().unwrap_or(role)
    }

    fn set(&self, role: &'static str, heir: Option<&'static str>) {
        let mut heirs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match heir {
            Some(heir) => heirs.insert(role, heir),
            None => heirs.remove(role),
        };
    }
}

/// What provisioning needs to know beside the scenario.
#[derive(Debug, Clone)]
pub struct Provision {
    /// Unique to the run.
    pub run_id: String,
    /// Where logs go.
    pub logs: PathBuf,
    /// Where buyers find the entry; the kernel chooses a port for 0.
    pub listen: SocketAddr,
}

/// Where the entry is unless somebody else is to reach it: on this machine alone.
pub const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How long a component may take to end in order when everything is taken down.
const FAREWELL: Duration = Duration::from_secs(3);

/// Provisions what the scenario asks for.
///
/// # Errors
/// What is missing or refused, with the remedy. Nothing is left running.
pub async fn up(scenario: &Scenario, provision: &Provision) -> Result<Stack, StackError> {
    match &scenario.target {
        Target::Reference(reference) => embedded::up(scenario, reference, provision).await,
        Target::External(external) => external::up(scenario, external, provision).await,
    }
}

impl Stack {
    /// What others set in a scenario to have this stack as their target; none if it has no audit listener.
    pub fn as_external(&self) -> Option<String> {
        let (entry, control) = (self.entry.address, self.control.as_ref()?);
        let allow =
            if entry.ip().is_loopback() { String::new() } else { format!(",allow=[\"{}\"]", IpNet::from(entry.ip())) };
        let payments = control.payments().map_or(String::new(), |at| format!(",payments=\"{at}\""));
        Some(format!("target={{external={{address=\"{entry}\",audit=\"{}\"{payments}{allow}}}}}", control.endpoint()))
    }

    /// What the target kept, from one snapshot of its books; nothing where nobody tells.
    ///
    /// # Errors
    /// The books cannot be read.
    pub async fn audit(&self, items: &[Item]) -> Option<Result<FinalState, StackError>> {
        match (&self.control, self.shop.as_ref().and_then(|shop| shop.books.as_ref())) {
            (Some(control), _) => Some(control.audit().await),
            (None, Some(books)) => Some(books.audit(items).await),
            (None, None) => None,
        }
    }

    /// Takes the traces of the run out of somebody else's shop, once; what came of it, for people. Nothing where that is not asked
    /// for, or was done.
    pub async fn clean_up(&self) -> Option<Result<String, String>> {
        self.shop.as_ref()?.cleanup.as_ref()?.make().await
    }

    /// The proxy on a link.
    ///
    /// # Errors
    /// There is no such link; the message lists those that exist.
    pub fn link(&self, name: &str) -> Result<&Proxy, StackError> {
        self.links.iter().find(|p| p.name() == name).ok_or_else(|| {
            let known: Vec<&str> = self.links.iter().map(Proxy::name).collect();
            StackError::Other(format!("there is no link `{name}`; this stack has {}", known.join(", ")))
        })
    }

    /// The component that plays a role now, or one of several that play a role together.
    ///
    /// # Errors
    /// There is none.
    pub fn component(&self, role: &str) -> Result<&dyn Component, StackError> {
        let role = self.heirs.of(role);
        self.components
            .iter()
            .flat_map(|component| std::iter::once(component).chain(component.members()))
            .find(|component| component.role() == role)
            .map(AsRef::as_ref)
            .ok_or_else(|| StackError::Other(format!("this stack has no process `{role}`")))
    }

    /// The components that play a role, each by itself, in the order in which they are started; at least one.
    ///
    /// # Errors
    /// There is none.
    pub fn components_of(&self, role: &str) -> Result<Vec<&dyn Component>, StackError> {
        let found = self.component(role)?;
        let members: Vec<_> = found.members().iter().map(AsRef::as_ref).collect();
        Ok(if members.is_empty() { vec![found] } else { members })
    }

    /// From now on `heir` plays the role, as after a failover; none gives it back to whom it was.
    pub fn succeed(&self, role: &'static str, heir: Option<&'static str>) {
        self.heirs.set(role, heir);
    }

    /// The host that was made for a role, whoever plays it now.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, role: &str) -> Result<&host::Host, StackError> {
        let found = self.hosts.iter().find(|host| host.role() == role);
        found.ok_or_else(|| StackError::Other(format!("`{role}` has no host of its own in this stack")))
    }

    /// Takes everything down and waits until it is gone: orderly where it obeys, by the guard where it does not.
    pub async fn down(mut self) {
        // The links first: a service that ends in order waits for its clients to hang up.
        for proxy in &self.links {
            proxy.shutdown();
        }
        for component in self.components.iter().rev().filter(|component| component.is_ours()) {
            let _ = component.stop(FAREWELL).await;
        }
        if let Some(guard) = self.guard.take() {
            // Much of that is waiting, for which the blocking pool is made.
            let _ = tokio::task::spawn_blocking(move || guard.finish()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_played_by_its_heir_until_it_is_given_back() {
        let heirs = Heirs::default();
        assert_eq!((heirs.of("postgres"), heirs.of("standby")), ("postgres", "standby"));
        heirs.set("postgres", Some("standby"));
        assert_eq!((heirs.of("postgres"), heirs.of("standby"), heirs.of("redis")), ("standby", "standby", "redis"));
        heirs.set("postgres", None);
        assert_eq!(heirs.of("postgres"), "postgres");
    }
}
