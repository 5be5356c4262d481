//! Somebody else takes the connections that Postgres has to give.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::database::{PATIENCE, check_role, database, postgres, theirs};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::stack::database::{Database, Session};
use crate::stack::{Stack, StackError};

/// All but a few of `max_connections` are taken, and the service's sessions ended, so that it has to ask for new ones.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExhaustConnections {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Connections that are left for everybody else.
    #[serde(default)]
    pub leave: u32,
    /// Whether the service keeps the sessions that it has. It then notices nothing until it needs one more.
    #[serde(default)]
    pub keep_sessions: bool,
}

/// Sessions that are opened at once: each is a process of the database's, which takes processor time to start.
const AT_ONCE: u64 = 32;

#[derive(Debug)]
struct Exhausted {
    role: String,
    count: usize,
    taken: Vec<Session>,
}

impl Fault for ExhaustConnections {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres that the harness has started".into()
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Connections]
    }

    fn detail(&self) -> String {
        let kept = if self.keep_sessions { ", beside the sessions that there are" } else { "" };
        format!("takes all connections but {}{kept}", self.leave)
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
        if self.leave > 100 {
            let what = format!("`leave` is {}", self.leave);
            about.parameter("leave", &what, "at most 100: the embedded Postgres takes 200 connections");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let database = database(stack, &role)?;
            let first = database.connect_within(PATIENCE).await?;
            let most = first.number("SHOW max_connections").await?;
            let mut taken = vec![first];
            let end = Instant::now() + PATIENCE;
            loop {
                let kept = match self.keep_sessions {
                    true => taken[0].number(&format!("SELECT count(*) {}", of_theirs())).await?,
                    false => 0,
                };
                let wanted = most.saturating_sub(u64::from(self.leave) + kept);
                take(&database, &mut taken, wanted).await;
                if taken.len() as u64 >= wanted {
                    break;
                }
                if Instant::now() > end {
                    let why = format!("{} of {wanted} connections could be taken", taken.len());
                    return Err(StackError::Other(why));
                }
                if !self.keep_sessions {
                    // The room of a session that ends is for who asks first, and the service asks, too: so it is asked for at once,
                    // and what has been taken is never given back.
                    taken[0].value(&format!("SELECT count(pg_terminate_backend(pid)) {}", of_theirs())).await?;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let active: Box<dyn ActiveFault> = Box::new(Exhausted { role, count: taken.len(), taken });
            Ok(active)
        })
    }
}

/// The sessions of the service.
fn of_theirs() -> String {
    format!("FROM pg_stat_activity WHERE {}", theirs())
}

/// Opens sessions until there are so many, or no more are given.
async fn take(database: &Database, taken: &mut Vec<Session>, wanted: u64) {
    while (taken.len() as u64) < wanted {
        let missing = (wanted - taken.len() as u64).min(AT_ONCE);
        let opened = join_all((0..missing).map(|_| database.connect())).await;
        let before = taken.len();
        taken.extend(opened.into_iter().flatten());
        if taken.len() == before {
            return;
        }
    }
}

/// How many were taken.
pub(super) fn taken(connections: u64) -> Hit {
    Hit::new(connections, format!("{connections} connections taken"))
}

impl ActiveFault for Exhausted {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            self.taken.clear();
            // A session ends a little after its connection: it is healed when there is room again.
            let free = database(stack, &self.role)?.connect_within(PATIENCE).await?;
            free.run(&["SELECT 1"]).await?;
            Ok(taken(self.count as u64))
        })
    }
}
