//! Packets between two hosts are lost, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
    /// Share of the packets that are lost, from 0.001 to 1.
    #[serde(default = "all")]
    pub loss: f64,
}

/// Names the rules of each fault, so that several may be in effect at once.
static NUMBER: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
struct Parted {
    role: &'static str,
    table: String,
    lost: Option<u64>,
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
            let parted: Box<dyn ActiveFault> = Box::new(Parted { role, table: table.clone(), lost: None });
            let (of, direction, loss) = (stack.clone(), self.direction, self.loss);
            at_once(move || of.host(role)?.lose(&table, ports, direction, loss)).await?;
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
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let (of, role, table) = (stack.clone(), self.role, self.table.clone());
            let lost = at_once(move || of.host(role)?.lose_no_more(&table)).await?;
            self.lost = self.lost.or(lost);
            Ok(packets(self.lost.unwrap_or(0)))
        })
    }
}
