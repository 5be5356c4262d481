//! Somebody holds the lock of the hot row, as a forgotten session or a long report would.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::database::{check_role, postgres, session};
use super::{ActiveFault, Fault, Place};
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
            let active: Box<dyn ActiveFault> = Box::new(Locked { session, rows });
            Ok(active)
        })
    }
}

/// Who waits for a lock that this session holds, or for somebody who does.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";

impl ActiveFault for Locked {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            // A database that was killed meanwhile has let go of the lock by itself.
            let Ok(waiting) = self.session.number(WAITING).await else {
                return Ok(format!("{} rows locked, until the session was lost", self.rows));
            };
            // Doing it again is harmless: it warns that there is no transaction.
            self.session.run(&["ROLLBACK"]).await?;
            let rows = if self.rows == 1 { "1 row".to_owned() } else { format!("{} rows", self.rows) };
            Ok(format!("{rows} locked; {waiting} sessions waited at the end"))
        })
    }
}
