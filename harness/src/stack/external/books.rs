//! The books of a shop that has no audit listener of our contract: its stock and its ledger, by queries to its Postgres or from
//! what a command prints.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_postgres::{Config, NoTls, Transaction};

use super::hooks::{self, Environment};
use crate::history::{EntryKind, FinalState, LedgerEntry, StockRow};
use crate::load::clock::unix_us;
use crate::scenario::Item;
use crate::scenario::external::ShopSql;
use crate::stack::StackError;

/// How long reading them may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the books are.
#[derive(Debug)]
pub enum Books {
    /// In a Postgres, as these queries show them.
    Sql {
        /// How it is reached.
        config: Box<Config>,
        /// The queries.
        queries: ShopSql,
        /// The prefix of the run's users, for `$1`.
        prefix: String,
    },
    /// A command prints them.
    Command {
        /// The command.
        command: Vec<String>,
        /// What it is told.
        told: Environment,
    },
}

/// What a table has to have and may have.
struct Columns {
    table: &'static str,
    needed: &'static [&'static str],
    optional: &'static [&'static str],
}

const STOCK: Columns = Columns {
    table: "stock",
    needed: &["item", "available"],
    optional: &["initial", "held", "sold", "shards", "caches"],
};
const LEDGER: Columns = Columns {
    table: "ledger",
    needed: &["seq", "at", "kind", "order", "item", "user", "quantity"],
    optional: &["amount_cents", "key", "state", "reason", "expires_at"],
};
/// Those of the columns that are times.
const TIMES: [&str; 2] = ["at", "expires_at"];

/// An item's counters as far as the shop has them.
#[derive(Debug, Deserialize)]
struct Counters {
    item: i64,
    available: i64,
    initial: Option<i64>,
    held: Option<i64>,
    sold: Option<i64>,
    #[serde(default)]
    shards: Vec<i64>,
    #[serde(default)]
    caches: Vec<(String, i64)>,
}

/// What a command prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    as_of: Option<i64>,
    stock: Vec<Map<String, Value>>,
    ledger: Vec<Map<String, Value>>,
}

impl Columns {
    fn check<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), StackError> {
        let names: Vec<&str> = names.collect();
        let missing = self.needed.iter().find(|needed| !names.contains(needed));
        let unknown = names.iter().find(|name| !self.needed.contains(name) && !self.optional.contains(name));
        let what = match (missing, unknown) {
            (Some(missing), _) => format!("has no column `{missing}`"),
            (None, Some(unknown)) => format!("has a column `{unknown}`, which nobody reads"),
            (None, None) => return Ok(()),
        };
        Err(StackError::Other(format!(
            "the shop's {} {what}: it must have {}, and may have {}; it has {}",
            self.table,
            self.needed.join(", "),
            self.optional.join(", "),
            names.join(", ")
        )))
    }

    /// Rows as they are meant, with times as Unix microseconds.
    fn read<T: DeserializeOwned>(&self, rows: Vec<Map<String, Value>>) -> Result<Vec<T>, StackError> {
        let mut read = Vec::with_capacity(rows.len());
        for (index, mut row) in rows.into_iter().enumerate() {
            let wrong = |why: String| StackError::Other(format!("the shop's {}, row {}: {why}", self.table, index + 1));
            if index == 0 {
                self.check(row.keys().map(String::as_str))?;
            }
            for (name, value) in row.iter_mut().filter(|(name, _)| TIMES.contains(&name.as_str())) {
                if let Value::String(text) = value {
                    let time: jiff::Timestamp = text.parse().map_err(|_| {
                        wrong(format!("`{name}` is `{text}`, and has to be Unix microseconds or a time with its zone (timestamptz)"))
                    })?;
                    *value = time.as_microsecond().into();
                }
            }
            read.push(serde_path_to_error::deserialize(Value::Object(row)).map_err(|error| wrong(error.to_string()))?);
        }
        Ok(read)
    }
}

impl Books {
    /// What kind of source they are, as the history names it.
    pub fn source(&self) -> &'static str {
        match self {
            Books::Sql { .. } => "sql",
            Books::Command { .. } => "command",
        }
    }

    /// The stock and the whole ledger. What a shop does not count is taken from the scenario and from its ledger.
    ///
    /// # Errors
    /// They cannot be read; which column or value does not fit.
    pub async fn audit(&self, items: &[Item]) -> Result<FinalState, StackError> {
        let read = async {
            match self {
                Books::Sql { config, queries, prefix } => query(config, queries, prefix).await,
                Books::Command { command, told } => {
                    let begun = unix_us();
                    let bytes = hooks::run("target.external.audit_command", command, told).await?;
                    let Printed { as_of, stock, ledger } = serde_json::from_slice(&bytes).map_err(|error| {
                        StackError::Other(format!(
                            "target.external.audit_command printed no {{\"stock\": [...], \"ledger\": [...]}}: {error}"
                        ))
                    })?;
                    Ok((as_of.unwrap_or(begun), stock, ledger))
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        let (taken_unix_us, stock, ledger) = read.unwrap_or_else(|_| {
            Err(StackError::Other(format!("the shop's books could not be read within {} s", PATIENCE.as_secs())))
        })?;
        let mut ledger: Vec<LedgerEntry> = LEDGER.read(ledger)?;
        ledger.sort_by_key(|entry| entry.seq);
        let counters: Vec<Counters> = STOCK.read(stock)?;
        let stock = counters.into_iter().map(|counters| completed(counters, items, &ledger)).collect();
        let source = self.source().to_owned();
        Ok(FinalState { taken_unix_us, source, stock, ledger, probes: Vec::new(), payments: None })
    }
}

/// Both queries in one snapshot of a transaction that can only read.
async fn query(config: &Config, queries: &ShopSql, prefix: &str) -> Result<(i64, Rows, Rows), StackError> {
    let failed = |what: &str, error: &tokio_postgres::Error| {
        let why = error
            .as_db_error()
            .map_or_else(|| error.to_string(), |db| format!("{} ({})", db.message(), db.code().code()));
        StackError::Other(format!("target.external.sql: {what}: {why}"))
    };
    let mut config = config.clone();
    config.connect_timeout(Duration::from_secs(5)).application_name("seckill-harness");
    let (mut client, connection) = config.connect(NoTls).await.map_err(|error| failed("cannot connect", &error))?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let read = async {
        let level = tokio_postgres::IsolationLevel::RepeatableRead;
        let begun = client.build_transaction().isolation_level(level).read_only(true).start().await;
        let snapshot = begun.map_err(|error| failed("cannot begin", &error))?;
        let settings = "SET LOCAL statement_timeout = '30s'; SET LOCAL timezone = 'UTC'";
        snapshot.batch_execute(settings).await.map_err(|error| failed("cannot begin", &error))?;
        let taken = snapshot.query_one("SELECT (extract(epoch FROM now()) * 1e6)::bigint", &[]).await;
        let taken: i64 = taken.map_err(|error| failed("cannot tell the time", &error))?.get(0);
        let stock = rows(&snapshot, &STOCK, queries.stock.get_ref(), prefix, &failed).await?;
        let ledger = rows(&snapshot, &LEDGER, queries.ledger.get_ref(), prefix, &failed).await?;
        Ok((taken, stock, ledger))
    }
    .await;
    drop(client);
    connection.abort();
    read
}

type Rows = Vec<Map<String, Value>>;

async fn rows(
    snapshot: &Transaction<'_>,
    columns: &Columns,
    sql: &str,
    prefix: &str,
    failed: &impl Fn(&str, &tokio_postgres::Error) -> StackError,
) -> Result<Rows, StackError> {
    let sql = sql.trim().trim_end_matches(';');
    // The columns are looked at before any row is, since a table may be empty.
    let asked = snapshot.prepare(sql).await.map_err(|error| failed(columns.table, &error))?;
    columns.check(asked.columns().iter().map(tokio_postgres::Column::name))?;
    let wrapped = format!("SELECT row_to_json(t) FROM ({sql}) AS t");
    let found = if asked.params().is_empty() {
        snapshot.query(&wrapped, &[]).await
    } else {
        let typed = snapshot.prepare_typed(&wrapped, &[tokio_postgres::types::Type::TEXT]).await;
        let typed = typed.map_err(|error| failed(columns.table, &error))?;
        snapshot.query(&typed, &[&prefix]).await
    };
    let object = |row: tokio_postgres::Row| match row.try_get::<_, Value>(0) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(StackError::Other(format!("the shop's {} has a row {other}", columns.table))),
        Err(error) => Err(failed(columns.table, &error)),
    };
    found.map_err(|error| failed(columns.table, &error))?.into_iter().map(object).collect()
}

/// Counters with what the shop does not count: what there was at the start is what the scenario says; held and sold units are
/// those of the orders in the ledger, so that what is available is held against it.
fn completed(counters: Counters, items: &[Item], ledger: &[LedgerEntry]) -> StockRow {
    let Counters { item, available, initial, held, sold, shards, caches } = counters;
    let mut orders: BTreeMap<&str, (i64, bool, bool)> = BTreeMap::new();
    for entry in ledger.iter().filter(|entry| entry.item == item) {
        let (quantity, paid, released) = orders.entry(&entry.order).or_default();
        match entry.kind {
            EntryKind::Reserve => *quantity += entry.quantity,
            EntryKind::Place => {}
            EntryKind::Pay => {
                *paid = true;
                // What was only placed takes its units when it is paid.
                if *quantity == 0 {
                    *quantity = entry.quantity;
                }
            }
            EntryKind::Release => *released = true,
            EntryKind::Refund => {}
        }
    }
    let live = |wanted: bool| -> i64 {
        let such = orders.values().filter(|(_, paid, released)| !released && *paid == wanted);
        such.map(|(quantity, ..)| quantity).sum()
    };
    let promised = items.iter().find(|known| known.id == item).map_or(available, |known| known.stock);
    StockRow {
        item,
        initial: initial.unwrap_or(promised),
        available,
        held: held.unwrap_or_else(|| live(false)),
        sold: sold.unwrap_or_else(|| live(true)),
        shards,
        caches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: &str) -> Books {
        let command = ["sh", "-c", &format!("echo '{json}'")].map(str::to_owned).to_vec();
        Books::Command { command, told: Vec::new() }
    }

    fn row(seq: i64, kind: &str, order: &str) -> String {
        format!(
            r#"{{"seq":{seq},"at":"2026-11-28T12:00:00.000001Z","kind":"{kind}","order":"{order}","item":1,"user":"u","quantity":1}}"#
        )
    }

    #[tokio::test]
    async fn what_a_shop_does_not_count_is_taken_from_its_ledger() {
        let rows = [
            row(2, "pay", "a"),
            row(1, "reserve", "a"),
            row(3, "reserve", "b"),
            row(4, "reserve", "c"),
            row(5, "release", "c"),
        ];
        let json = format!(r#"{{"stock":[{{"item":1,"available":8}}],"ledger":[{}]}}"#, rows.join(","));
        let state = printed(&json).audit(&[]).await.unwrap();
        assert_eq!(state.ledger.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(state.ledger[0].at_unix_us % 1_000_000, 1);
        let [stock] = &state.stock[..] else { panic!("{:?}", state.stock) };
        assert_eq!((stock.available, stock.held, stock.sold, state.source.as_str()), (8, 1, 1, "command"));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_named() {
        for (json, says) in [
            (
                r#"{"stock":[{"item":1}],"ledger":[]}"#.to_owned(),
                "stock has no column `available`: it must have item, available",
            ),
            (r#"{"stock":[],"ledger":[{"seq":1}]}"#.to_owned(), "ledger has no column `at`"),
            (r#"{"stock":[{"item":1,"available":1,"price":2}],"ledger":[]}"#.to_owned(), "`price`, which nobody reads"),
            (r#"{"stock":[]}"#.to_owned(), "missing field `ledger`"),
            (
                format!(r#"{{"stock":[],"ledger":[{}]}}"#, row(1, "sold", "a")),
                "ledger, row 1: kind: `sold` is no kind of entry",
            ),
            (
                format!(r#"{{"stock":[],"ledger":[{}]}}"#, row(1, "pay", "a").replace("T12:00:00.000001Z", "")),
                "row 1: `at` is `2026-11-28`, and has to be Unix microseconds",
            ),
        ] {
            let error = printed(&json).audit(&[]).await.unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
