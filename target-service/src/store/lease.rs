//! A pooled connection that is never returned to the pool in an unknown state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::error::Elapsed;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{StoreError, Suspicion};

/// A connection on loan. Dropped while a statement or a transaction is open, for whatever reason, the
/// connection is closed instead of returned: nobody else may wait behind, or inherit, what it was doing.
pub struct Lease {
    object: Option<Object>,
    patience: Duration,
    suspicion: Arc<Suspicion>,
    statements: Arc<AtomicU64>,
    unsettled: bool,
    in_transaction: bool,
}

impl Lease {
    pub(super) fn new(
        object: Object,
        patience: Duration,
        suspicion: Arc<Suspicion>,
        statements: Arc<AtomicU64>,
    ) -> Self {
        Self { object: Some(object), patience, suspicion, statements, unsettled: false, in_transaction: false }
    }

    fn count(&self, statements: u64) {
        self.statements.fetch_add(statements, Ordering::Relaxed);
    }

    /// Runs a prepared statement and returns its rows.
    pub async fn query(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.count(1);
        let object = self.object.as_ref().ok_or_else(given_up)?;
        self.unsettled = true;
        let outcome = tokio::time::timeout(self.patience, async {
            let statement = object.prepare_cached(sql).await?;
            object.query(&statement, params).await
        })
        .await;
        self.settle(outcome)
    }

    /// Runs a prepared statement that returns at most one row.
    pub async fn query_opt(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Opens a transaction. It must be closed by `commit` or `rollback`; otherwise the connection is
    /// closed, which rolls it back.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        self.in_transaction = true;
        self.batch("BEGIN").await
    }

    /// Commits the open transaction.
    pub async fn commit(&mut self) -> Result<(), StoreError> {
        self.batch("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Rolls the open transaction back.
    pub async fn rollback(&mut self) -> Result<(), StoreError> {
        self.batch("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Opens a transaction and runs two prepared statements in it, all in one round trip. Each sees what was committed when
    /// the one before it had ended.
    pub async fn begin_with(
        &mut self,
        first: (&str, &[&(dyn ToSql + Sync)]),
        second: (&str, &[&(dyn ToSql + Sync)]),
    ) -> Result<(Vec<Row>, Vec<Row>), StoreError> {
        self.count(3);
        let object = self.object.as_ref().ok_or_else(given_up)?;
        (self.unsettled, self.in_transaction) = (true, true);
        let outcome = tokio::time::timeout(self.patience, async {
            let (one, two) = (object.prepare_cached(first.0).await?, object.prepare_cached(second.0).await?);
            // They are sent in this order, and the server works them off in this order; of errors the first one is told, not that of
            // a statement that found the transaction aborted.
            let begin = object.batch_execute("BEGIN");
            let ((), first, second) =
                tokio::try_join!(biased; begin, object.query(&one, first.1), object.query(&two, second.1))?;
            Ok((first, second))
        })
        .await;
        self.settle(outcome)
    }

    /// Runs a last prepared statement and commits, in one round trip. If the statement fails, nothing is committed, and the
    /// transaction stays open for a rollback.
    pub async fn query_and_commit(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.count(2);
        let object = self.object.as_ref().ok_or_else(given_up)?;
        self.unsettled = true;
        let outcome = tokio::time::timeout(self.patience, async {
            let statement = object.prepare_cached(sql).await?;
            // To commit what has failed means to roll it back, and the server reports that as done: the error stands.
            let (rows, committed) = tokio::join!(object.query(&statement, params), object.batch_execute("COMMIT"));
            let rows = rows?;
            committed.map(|()| rows)
        })
        .await;
        let rows = self.settle(outcome)?;
        self.in_transaction = false;
        Ok(rows)
    }

    /// Runs plain statements without parameters.
    pub async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.count(1);
        let object = self.object.as_ref().ok_or_else(given_up)?;
        self.unsettled = true;
        let outcome = tokio::time::timeout(self.patience, object.batch_execute(sql)).await;
        self.settle(outcome)
    }

    /// Remembers whether the connection came out of a statement clean. It is marked unsettled before, and
    /// stays so when the future is dropped half-way.
    fn settle<T>(&mut self, outcome: Result<Result<T, tokio_postgres::Error>, Elapsed>) -> Result<T, StoreError> {
        let outcome = match outcome {
            Err(_) => Err(StoreError::Timeout),
            Ok(Err(error)) => Err(StoreError::from(error)),
            Ok(Ok(value)) => Ok(value),
        };
        match &outcome {
            Err(StoreError::Lost(_) | StoreError::Timeout) => self.discard(),
            _ => {
                self.unsettled = false;
                self.suspicion.answered();
            }
        }
        outcome
    }

    /// Closes the connection, and makes the pool wary of those that were idle meanwhile.
    fn discard(&mut self) {
        self.suspicion.raise();
        drop(self.object.take().map(Object::take));
    }
}

fn given_up() -> StoreError {
    StoreError::Unreachable("the connection was given up after an earlier failure".into())
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.unsettled || self.in_transaction {
            drop(self.object.take().map(Object::take));
        }
    }
}
