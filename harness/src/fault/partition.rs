//! Packets between two hosts are lost, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hit::counted;
use super::link::{all, way};
use super::toxic::Direction;
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::value::normal_link;
use crate::scenario::{About, topology};
use crate::stack::host::{Host, Ports};
use crate::stack::{Stack, StackError};

/// Packets on a link are dropped by the firewall of the host at one of its ends: both wait and send again, without an error and
/// without a reset. It needs `hosts` in `[target.reference]`. Where who calls has a host, only this link is hit, and connections
/// cannot even be made; where only who is called has one, whoever else calls there is hit as well.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
    /// Share of the packets that are lost, from 0.001 to 1. Which ones is up to the firewall, and not to the seed.
    #[serde(default = "all")]
    pub loss: f64,
}

/// Names the rules of each fault, so that several may be in effect at once.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The rules of a fault, on the host of a role. They go with it, so that an injection which is given up while the firewall is at
/// work leaves none behind, however late that is done.
#[derive(Debug)]
struct Rules {
    stack: Arc<Stack>,
    role: &'static str,
    table: String,
    gone: AtomicBool,
}

impl Rules {
    fn take_away(&self) -> Result<Option<u64>, StackError> {
        let lost = self.stack.host(self.role)?.lose_no_more(&self.table)?;
        self.gone.store(true, Ordering::Relaxed);
        Ok(lost)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if !self.gone.load(Ordering::Relaxed)
            && let Err(error) = self.take_away()
        {
            tracing::error!("the rules {} on the host of {} are left: {error}", self.table, self.role);
        }
    }
}

#[derive(Debug)]
struct Parted {
    /// None when they are gone.
    rules: Option<Arc<Rules>>,
    lost: u64,
}

impl Fault for Partition {
    fn place(&self) -> Place<'_> {
        Place::Link(&self.link)
    }

    fn needs() -> String {
        "a link from or to a role that has a host of its own (hosts)".to_owned()
    }

    fn detail(&self) -> String {
        let share = if self.loss < 1.0 { format!("{}% of the", self.loss * 100.0) } else { "all".to_owned() };
        format!("{share} packets lost{}", way(self.direction))
    }

    fn check(&self, about: &mut About<'_>) {
        about.link(&self.link, None);
        if !(0.001..=1.0).contains(&self.loss) {
            about.parameter("loss", &format!("`loss` is {}", self.loss), "a share from 0.001 to 1, such as 0.25");
        }
        let link = normal_link(self.link.get_ref());
        let scenario = about.scenario();
        if scenario.links().iter().any(|known| known.name == link) && !scenario.crosses_hosts(&link) {
            let what = format!("on `{link}` nobody has a host of its own, so there is no network to part");
            let help = format!(
                "set hosts = true in [target.reference], or name {}; or use black-hole, which needs no network",
                topology::ends(&link).0
            );
            about.wrong(self.link.span(), what, help);
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let link = normal_link(self.link.get_ref());
            let (host, ports) = wall(stack, &link)?;
            let (role, table) = (host.role(), format!("seckill_{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
            let rules = Rules { stack: stack.clone(), role, table, gone: AtomicBool::new(false) };
            let (direction, loss) = (self.direction, self.loss);
            let set = move || {
                rules.stack.host(role)?.lose(&rules.table, ports, direction, loss)?;
                Ok(rules)
            };
            let rules = Some(Arc::new(at_once(set).await?));
            let parted: Box<dyn ActiveFault> = Box::new(Parted { rules, lost: 0 });
            Ok(parted)
        })
    }
}

/// The host whose firewall loses the packets of a link, and by which ports it knows them. Each link has a proxy of its own, so
/// who calls knows its packets from all others.
fn wall<'a>(stack: &'a Stack, link: &str) -> Result<(&'a Host, Ports), StackError> {
    let (caller, callee) = topology::ends(link);
    if let Ok(host) = stack.host(caller) {
        return Ok((host, Ports::Theirs(stack.link(link)?.listen_addr().port())));
    }
    // After a failover the heir is called, on its own host.
    let host = stack.host(stack.component(callee)?.role())?;
    Ok((host, host.ports()))
}

/// Does on the blocking pool what waits for the firewall's program.
async fn at_once<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StackError> + Send + 'static,
) -> Result<R, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StackError::Other(format!("the firewall's work ended early: {error}"))))
}

/// Where nobody sends, nothing is lost.
pub(super) fn packets(lost: u64) -> Hit {
    Hit::new(lost, format!("{} lost", counted(lost, "packet", "packets")))
}

impl ActiveFault for Parted {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            if let Some(rules) = self.rules.clone() {
                let lost = at_once(move || rules.take_away()).await?;
                self.lost = self.lost.max(lost.unwrap_or(0));
                self.rules = None;
            }
            Ok(packets(self.lost))
        })
    }
}
