//! What a failed statement means for the request that needed it.

use tokio_postgres::error::{DbError, SqlState};

/// Why the database did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection became free in time. Nothing was sent.
    #[error("no database connection became free in time")]
    PoolExhausted,
    /// Too many wait already. Nothing was sent.
    #[error("{0} is full")]
    Full(&'static str),
    /// No connection could be made. Nothing was sent.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke while a statement was under way: it may have been committed.
    #[error("the connection to the database was lost: {0}")]
    Lost(String),
    /// No answer in time: the statement may have been committed.
    #[error("the database did not answer in time")]
    Timeout,
    /// The server gave up on the statement because of others, and rolled it back.
    #[error("the statement was rolled back under contention: {0}")]
    Contended(String),
    /// A constraint forbids it; the statement was rolled back.
    #[error("the constraint {0} was violated")]
    Violation(String),
    /// The server reports any other error.
    #[error("the database refused the statement: {0}")]
    Query(String),
    /// The database holds something that this service never writes.
    #[error("unexpected data in the database: {0}")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether the statement may have been committed all the same.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Timeout)
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => from_server(db),
            // Without a report from the server the connection itself is what failed, or the client library
            // could not make sense of the reply. Neither says whether the statement took effect.
            None => Self::Lost(explain(&error)),
        }
    }
}

fn from_server(db: &DbError) -> StoreError {
    let code = db.code();
    let message = || format!("{} ({})", db.message(), code.code());
    if *code == SqlState::UNIQUE_VIOLATION || *code == SqlState::CHECK_VIOLATION {
        return StoreError::Violation(db.constraint().unwrap_or("unnamed").to_owned());
    }
    let contended = [
        SqlState::QUERY_CANCELED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    if contended.contains(code) {
        return StoreError::Contended(message());
    }
    // 57P01-57P03: shutting down, crashed, starting up. A crash report says nothing about the commit.
    // 53xxx, 58xxx and XXxxx: out of connections, disk or memory, I/O errors.
    let shaky = ["57P", "53", "58", "XX", "08"];
    if shaky.iter().any(|class| code.code().starts_with(class)) {
        return StoreError::Lost(message());
    }
    StoreError::Query(message())
}

/// The library's own message hides the cause, which is what a person needs.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
