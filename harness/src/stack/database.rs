//! A database of the stack as the harness reaches it: directly, past every proxy, and with the rights of its owner.
//!
//! Faults that a database is asked for in SQL use this, and so does whoever waits until it is there. It must not know how
//! the database is run.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::StackError;
use crate::fault::proxy::Endpoint;

/// The name that the harness's own sessions have, so that they can be told from those of the service.
pub const OWN_NAME: &str = "seckill-harness";

/// How to reach a Postgres directly, as its superuser.
#[derive(Debug, Clone)]
pub struct Database {
    config: Config,
    endpoint: Endpoint,
}

/// A connection of the harness's own. It closes when it is dropped, and what it held goes with it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Database {
    /// The one whose Unix socket is in `folder`, by this port's name.
    pub fn in_folder(folder: &Path, port: u16) -> Database {
        let mut config = Config::new();
        config.host_path(folder).port(port).user("postgres").dbname("postgres").application_name(OWN_NAME);
        // The harness may always write, also while others may not: it has to be able to heal.
        config.options("-c default_transaction_read_only=off -c jit=off").connect_timeout(Duration::from_secs(2));
        Database { config, endpoint: Endpoint::Unix(folder.join(format!(".s.PGSQL.{port}"))) }
    }

    /// Where it listens, for a proxy that is to lead there.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// The same without the harness's right to write at any time: as everybody else finds it.
    pub fn as_others(&self) -> Database {
        let mut config = self.config.clone();
        config.options("");
        Database { config, endpoint: self.endpoint.clone() }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// It cannot be reached, or takes no more sessions.
    pub async fn connect(&self) -> Result<Session, StackError> {
        let connected = self.config.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|e| StackError::Other(format!("cannot reach postgres: {}", explain(&e))))?;
        let connection = tokio::spawn(async move {
            // Whoever uses the session hears of its end from the statement that fails.
            let _ = connection.await;
        });
        Ok(Session { client, connection })
    }

    /// Opens a session, again and again until it succeeds or the time is over: another fault may have the database down.
    ///
    /// # Errors
    /// What the last attempt met.
    pub async fn connect_within(&self, limit: Duration) -> Result<Session, StackError> {
        let end = Instant::now() + limit;
        loop {
            match self.connect().await {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// One value as text, over a session made for it.
    ///
    /// # Errors
    /// It cannot be reached, or refuses the query.
    pub async fn value(&self, sql: &str) -> Result<String, StackError> {
        self.connect().await?.value(sql).await
    }
}

impl Session {
    /// Runs statements one after another, each a transaction of its own unless they say otherwise.
    ///
    /// # Errors
    /// The connection broke, or one of them is refused; those after it were not run.
    pub async fn run(&self, statements: &[&str]) -> Result<(), StackError> {
        for sql in statements {
            self.client.batch_execute(sql).await.map_err(|e| refused(sql, &e))?;
        }
        Ok(())
    }

    /// Runs a statement and says how many rows it gave or changed.
    ///
    /// # Errors
    /// The connection broke, or the statement is refused.
    pub async fn rows(&self, sql: &str) -> Result<u64, StackError> {
        let messages = self.client.simple_query(sql).await.map_err(|e| refused(sql, &e))?;
        let count = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::CommandComplete(rows) => *rows,
            _ => 0,
        };
        Ok(messages.iter().map(count).sum())
    }

    /// The first value of the first row, as text.
    ///
    /// # Errors
    /// The connection broke, the query is refused, or there is no row.
    pub async fn value(&self, sql: &str) -> Result<String, StackError> {
        let messages = self.client.simple_query(sql).await.map_err(|e| refused(sql, &e))?;
        let first = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        first.ok_or_else(|| StackError::Other(format!("`{sql}` gave no row")))
    }

    /// The same as a number.
    ///
    /// # Errors
    /// As [`Session::value`], or it is none.
    pub async fn number(&self, sql: &str) -> Result<u64, StackError> {
        let text = self.value(sql).await?;
        text.parse().map_err(|_| StackError::Other(format!("`{sql}` gave `{text}`, which is no number")))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without this, a connection whose server is stopped in its tracks would linger until it goes on.
        self.connection.abort();
    }
}

fn refused(sql: &str, error: &tokio_postgres::Error) -> StackError {
    StackError::Other(format!("`{sql}`: {}", explain(error)))
}

/// The library's own message hides the cause, which is what a person needs.
fn explain(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
