//! Packets between two hosts are lost, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::link::{all, way};
use super::process::counted;
use super::toxic::Direction;
use super::{ActiveFault, Fault, Place};
use crate::scenario::value::normal_link;
use crate::scenario::{About, topology};
use crate::stack::postgres::PORT;
use crate::stack::{Stack, StackError};

/// Packets on a link are dropped by the firewall of the host that is called: both ends wait and send again, without an error
/// and without a reset. It needs `hosts = true` in `[target.reference]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The link: `service→postgres`; `->` is accepted for the arrow.
    #[schemars(with = "String")]
    pub link: Spanned<String>,
    /// Which way: `up` is what requests take, `down` what replies take.
    #[serde(default)]
    pub direction: Direction,
    /// Share of the packets that are lost, from 0 to 1.
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
        "a link to a role that has a host of its own (hosts = true)".to_owned()
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
        if scenario.links().iter().any(|known| known.name == link) && scenario.host_behind(&link).is_none() {
            let what = format!("on `{link}` nobody has a host of its own, so there is no network to part");
            let help = format!(
                "set hosts = true in [target.reference] and part {}, or use black-hole, which needs no network",
                topology::TO_POSTGRES
            );
            about.wrong(self.link.span(), what, help);
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = topology::callee(&normal_link(self.link.get_ref()));
            let table = format!("seckill_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let host = stack.host(&role)?;
            let parted: Box<dyn ActiveFault> = Box::new(Parted { role: host.role(), table: table.clone(), lost: None });
            let (of, direction, loss) = (stack.clone(), self.direction, self.loss);
            at_once(move || of.host(&role)?.lose(&table, PORT, direction, loss)).await?;
            Ok(parted)
        })
    }
}

/// Does on the blocking pool what waits for the firewall's program.
async fn at_once<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StackError> + Send + 'static,
) -> Result<R, StackError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StackError::Other(format!("the firewall's work ended early: {error}"))))
}

impl ActiveFault for Parted {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let (of, role, table) = (stack.clone(), self.role, self.table.clone());
            let lost = at_once(move || of.host(role)?.lose_no_more(&table)).await?;
            self.lost = self.lost.or(lost);
            let lost = usize::try_from(self.lost.unwrap_or(0)).unwrap_or(usize::MAX);
            Ok(format!("{} lost", counted(lost, "packet", "packets")))
        })
    }
}
