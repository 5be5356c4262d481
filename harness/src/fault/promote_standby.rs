//! A failover: the primary is dead, and its standby takes over with what it has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::database::{database, session};
use super::process::all_up;
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::scenario::topology::{POSTGRES, STANDBY, TO_POSTGRES};
use crate::stack::{Component, Stack, StackError};

/// The primary is killed, its standby promoted, and the service's link leads there from then on. Healing waits until the new
/// primary writes; the old one stays dead, as it has to until somebody has looked at it. Whatever is done to the role
/// `postgres` from then on is done to the new primary.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteStandby {
    /// The standby.
    #[serde(default = "standby")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

fn standby() -> Spanned<String> {
    Spanned::new(0..0, STANDBY.to_owned())
}

#[derive(Debug)]
struct Promoted {
    role: String,
    /// Bytes of log that the primary had flushed and the standby did not have, if the primary could still be asked.
    behind: Option<u64>,
}

impl Fault for PromoteStandby {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a standby (`standby`)".into()
    }

    fn detail(&self) -> String {
        "the primary is killed, and its standby takes over".into()
    }

    fn check(&self, about: &mut About<'_>) {
        let there = about.scenario().own_roles().contains(&STANDBY);
        if !there || self.role.get_ref() != STANDBY {
            let what = format!("\"{}\" is no standby that could be promoted", self.role.get_ref());
            return about.parameter(
                "role",
                &what,
                "add standby = \"async\" or \"sync\" to [target.reference]: the role \"standby\"",
            );
        }
        let promotions =
            about.scenario().fault.iter().filter(|f| f.get_ref().inject.kind() == "promote-standby").count();
        if promotions > 1 {
            about.parameter(
                "role",
                "the standby is promoted more than once",
                "there is one standby: keep one of these faults",
            );
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let flushed = match database(stack, POSTGRES)?.connect().await {
                Ok(primary) => primary.value("SELECT pg_current_wal_flush_lsn()").await.ok(),
                Err(_) => None,
            };
            let old = stack.component(POSTGRES)?;
            // Before the old one dies, so that no other fault starts it again: two primaries would each take orders.
            stack.succeed(POSTGRES, Some(STANDBY));
            let behind = promote(stack, old, &role, flushed).await?;
            let active: Box<dyn ActiveFault> = Box::new(Promoted { role, behind });
            Ok(active)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move {
            stack.succeed(POSTGRES, None);
            let (old, role) = (stack.component(POSTGRES)?, self.role.get_ref());
            // A promotion cannot be taken back. Where it came to that, the rest is done, or there would be two primaries.
            if has_taken_over(stack, role).await {
                stack.succeed(POSTGRES, Some(STANDBY));
                return lead(stack, old, role).await;
            }
            stack.link(TO_POSTGRES)?.set_upstream(database(stack, POSTGRES)?.endpoint())?;
            all_up(stack, POSTGRES).await
        })
    }
}

/// Kills the old primary, promotes the standby and leads the service there; says how many bytes of what the primary had
/// flushed the standby did not have.
async fn promote(
    stack: &Stack,
    old: &dyn Component,
    role: &str,
    flushed: Option<String>,
) -> Result<Option<u64>, StackError> {
    old.kill().await?;
    let own = session(stack, role).await?;
    let received = own.value("SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())").await?;
    if own.value("SELECT pg_promote(true, 30)").await? != "t" {
        return Err(StackError::Other("the standby was not promoted within 30s".to_owned()));
    }
    let behind = match flushed {
        Some(flushed) => {
            let sql = format!("SELECT greatest(pg_wal_lsn_diff('{flushed}', '{received}'), 0)::bigint");
            own.number(&sql).await.ok()
        }
        None => None,
    };
    lead(stack, old, role).await?;
    Ok(behind)
}

/// Leads the service to the new primary. A supervisor of another fault may have been about to start the old one when it died.
async fn lead(stack: &Stack, old: &dyn Component, role: &str) -> Result<(), StackError> {
    old.kill().await?;
    stack.link(TO_POSTGRES)?.set_upstream(database(stack, role)?.endpoint())?;
    Ok(())
}

/// How long a standby may take to say what it is: time is left then to bring the old primary up.
const ASKED: Duration = Duration::from_secs(1);

/// Whether the standby was promoted. One that does not say so takes no orders.
async fn has_taken_over(stack: &Stack, role: &str) -> bool {
    let asked = async {
        let own = database(stack, role)?.connect_within(ASKED).await?;
        own.value("SELECT pg_is_in_recovery()").await
    };
    matches!(tokio::time::timeout(ASKED, asked).await, Ok(Ok(in_recovery)) if in_recovery == "f")
}

/// One primary was lost and another took its place, however little was lost with it.
pub(super) fn took_over(role: &str, behind: Option<u64>) -> Hit {
    let behind = match behind {
        Some(bytes) => format!("it lacked {bytes} bytes of the primary's log"),
        None => "how far it was behind, the primary could not be asked any more".to_owned(),
    };
    Hit::new(1, format!("`{role}` is the primary; {behind}"))
}

impl ActiveFault for Promoted {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let in_recovery = session(stack, &self.role).await?.value("SELECT pg_is_in_recovery()").await?;
            if in_recovery != "f" {
                return Err(StackError::Other(format!("`{}` is still a standby", self.role)));
            }
            Ok(took_over(&self.role, self.behind))
        })
    }
}
