//! Postgres refuses to write, as it does when an administrator or a failover has made it read-only.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::database::{PATIENCE, check_role, database, postgres, session, theirs};
use super::hit::counted;
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::stack::{Stack, StackError};

/// `default_transaction_read_only` for the whole system, in sessions that there are already, too.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadOnly {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

/// What takes it away again.
const RESET: &str = "RESET default_transaction_read_only";

#[derive(Debug)]
struct WritesRefused {
    role: String,
    /// The service's sessions when it began.
    sessions: u64,
}

impl Fault for ReadOnly {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres that the harness has started".into()
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Writes]
    }

    fn detail(&self) -> String {
        "transactions are read-only, then may write again".into()
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            set(stack, &role, "SET default_transaction_read_only = on", "on").await?;
            let sessions = sessions(stack, &role).await.unwrap_or(0);
            let active: Box<dyn ActiveFault> = Box::new(WritesRefused { role, sessions });
            Ok(active)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(set(stack, self.role.get_ref(), RESET, "off"))
    }
}

impl ActiveFault for WritesRefused {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let now = sessions(stack, &self.role).await.unwrap_or(0);
            set(stack, &self.role, RESET, "off").await?;
            self.sessions = self.sessions.max(now);
            Ok(switched(self.sessions))
        })
    }
}

/// How many sessions the service has.
async fn sessions(stack: &Stack, role: &str) -> Result<u64, StackError> {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {}", theirs());
    database(stack, role)?.connect().await?.number(&sql).await
}

/// Where the service has no session, nobody was refused.
pub(super) fn switched(sessions: u64) -> Hit {
    Hit::new(sessions, format!("{} of the service switched", counted(sessions, "session", "sessions")))
}

/// Changes the setting, and waits until the server has read it: sessions follow with their next transaction.
async fn set(stack: &Arc<Stack>, role: &str, change: &str, expected: &str) -> Result<(), StackError> {
    let own = session(stack, role).await?;
    own.run(&[&format!("ALTER SYSTEM {change}"), "SELECT pg_reload_conf()"]).await?;
    let end = tokio::time::Instant::now() + PATIENCE;
    // The harness's sessions may always write. What others get is what the server says of the setting without them.
    const READ: &str = "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'";
    loop {
        // Another fault may have taken all connections, or have the server down.
        match database(stack, role)?.as_others().value(READ).await {
            Ok(seen) if seen == expected => return Ok(()),
            Ok(seen) if tokio::time::Instant::now() > end => {
                return Err(StackError::Other(format!("the server did not take over `{change}`; it says `{seen}`")));
            }
            Err(error) if tokio::time::Instant::now() > end => return Err(error),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
