//! Somebody holds the lock of the hot row, as a forgotten session or a long report would.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::database::{Background, check_role, database, postgres, session};
use super::hit::counted;
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::stack::database::Session;
use crate::stack::{Stack, StackError};

/// A transaction of the harness's own locks a row and keeps it until healing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRow {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// The item whose row is locked, of the reference service's schema; without it, the one with the lowest number.
    pub item: Option<i64>,
    /// A statement that locks what is to be locked, for any other schema: `"SELECT FROM stock WHERE sku = 7 FOR UPDATE"`.
    pub sql: Option<String>,
}

impl LockRow {
    fn statement(&self) -> String {
        let item = |id: Option<i64>| {
            let id = id.map_or("(SELECT min(id) FROM item)".to_owned(), |id| id.to_string());
            format!("SELECT FROM item WHERE id = {id} FOR UPDATE")
        };
        self.sql.clone().unwrap_or_else(|| item(self.item))
    }
}

#[derive(Debug)]
struct Locked {
    session: Session,
    rows: u64,
    /// How many waited at once at most.
    waiting: Background<u64>,
}

impl Fault for LockRow {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres that the harness has started".into()
    }

    fn detail(&self) -> String {
        match (&self.sql, self.item) {
            (Some(sql), _) => format!("holds the locks of `{sql}`"),
            (None, Some(item)) => format!("holds the lock of item {item}"),
            (None, None) => "holds the lock of the first item".to_owned(),
        }
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
        if self.sql.is_some() && self.item.is_some() {
            let what = "it has both `item` and `sql`, which say what to lock";
            about.parameter("sql", what, "remove one of the two");
        }
        if self.sql.as_ref().is_some_and(|sql| sql.trim().is_empty()) {
            let help = "a statement that takes locks, such as \"SELECT FROM item WHERE id = 1 FOR UPDATE\"";
            about.parameter("sql", "`sql` is empty", help);
        }
        if let Some(item) = self.item
            && about.scenario().find_item(item).is_none()
        {
            let known: Vec<String> = about.scenario().item.iter().map(|item| item.id.to_string()).collect();
            about.parameter("item", &format!("there is no item {item}"), format!("one of {}", known.join(", ")));
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let session = session(stack, self.role.get_ref()).await?;
            // The row is hot: its lock has to be queued for like everybody else does, but not for ever.
            session.run(&["BEGIN", "SET LOCAL lock_timeout = '5s'"]).await?;
            let statement = self.statement();
            let rows = session.rows(&statement).await?;
            if rows == 0 {
                return Err(StackError::Other(format!("`{statement}` locked no row")));
            }
            let role = self.role.get_ref().clone();
            let waiting = Background::start(stack, |stack, stop| most_waiting(stack, role, stop));
            let active: Box<dyn ActiveFault> = Box::new(Locked { session, rows, waiting });
            Ok(active)
        })
    }
}

/// Who waits for a lock that this session holds, or for somebody who does.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";

/// How often it is looked who waits. Those that wait for a moment only are seen if there are many of them.
const LOOK: Duration = Duration::from_millis(50);

/// Looks who waits, until it is to stop; the most that were seen to wait at once. On a session of its own: within a
/// transaction, Postgres shows everybody as they were when it was first asked.
async fn most_waiting(stack: Arc<Stack>, role: String, stop: CancellationToken) -> u64 {
    let (mut most, mut own) = (0, None);
    loop {
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        if own.is_none()
            && let Ok(database) = database(&stack, &role)
        {
            // There may be no room for one more session, or no database for a moment.
            own = database.connect().await.ok();
        }
        if let Some(session) = &own {
            match session.number(WAITING).await {
                Ok(waiting) => most = most.max(waiting),
                Err(_) => own = None,
            }
        }
        if ends {
            return most;
        }
    }
}

/// A lock that nobody waited for hit nobody.
pub(super) fn held(rows: u64, waiting: u64, lost: bool) -> Hit {
    let rows = counted(rows, "row", "rows");
    let lost = if lost { ", until the session was lost" } else { "" };
    let sessions = counted(waiting, "session", "sessions");
    Hit::new(waiting, format!("{rows} locked{lost}; at most {sessions} seen to wait at once"))
}

impl ActiveFault for Locked {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let waiting = self.waiting.stop().await?;
            // A database that was killed meanwhile has let go of the lock by itself. Doing it again is harmless: it warns that
            // there is no transaction.
            let lost = self.session.run(&["ROLLBACK"]).await.is_err();
            Ok(held(self.rows, waiting, lost))
        })
    }
}
