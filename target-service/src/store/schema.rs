//! The schema: migrations at startup, the guards that seeded bugs take away, and the reset between runs.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::{DirectClient, Store, StoreError};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Any constant will do, as long as every process of the service uses the same one.
const MIGRATION_LOCK: i64 = 0x5ec_c111;

/// A constraint that protects the data whatever the code does. Some seeded bugs only show without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Stock never goes below zero.
    StockFloor,
    /// A user's key names one order.
    OrderKey,
    /// An order is for one unit at least.
    OrderQuantity,
    /// An order does not cost less than nothing.
    OrderAmount,
    /// What happens to an order happens to one unit at least.
    EventQuantity,
    /// A buyer does not have less than nothing.
    PurchaseFloor,
}

impl Guard {
    const ALL: [Self; 6] = [
        Self::StockFloor,
        Self::OrderKey,
        Self::OrderQuantity,
        Self::OrderAmount,
        Self::EventQuantity,
        Self::PurchaseFloor,
    ];

    /// Table, name and definition.
    fn spec(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::StockFloor => ("item", "item_available_floor", "CHECK (available >= 0)"),
            Self::OrderKey => ("orders", "orders_user_key", "UNIQUE (user_id, idempotency_key)"),
            Self::OrderQuantity => ("orders", "orders_quantity_positive", "CHECK (quantity > 0)"),
            Self::OrderAmount => ("orders", "orders_amount_floor", "CHECK (amount_cents >= 0)"),
            Self::EventQuantity => ("order_event", "order_event_quantity_positive", "CHECK (quantity > 0)"),
            Self::PurchaseFloor => ("purchase", "purchase_floor", "CHECK (quantity >= 0)"),
        }
    }
}

/// Why the database could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It did not answer within the time allowed.
    #[error("the database did not become ready within {waited:?}: {last}")]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// What the last attempt met.
        last: StoreError,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(#[from] refinery::Error),
    /// A statement failed.
    #[error("preparing the schema failed: {0}")]
    Statement(#[from] StoreError),
}

/// Whether the data in the database can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// Every guard is in place that should be.
    Sound,
    /// A seeded bug of an earlier process left data that a guard forbids. A reset puts things right.
    Damaged,
}

/// A planted slow-down: whoever deducts from an item keeps its row locked for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLock {
    /// For how much longer.
    pub held: Duration,
    /// One deduction in so many is slow.
    pub every: u64,
}

impl SlowLock {
    /// A trigger, so that no strategy has to know of it, and no statement more is sent. The row is locked by then, and stays so
    /// until the commit.
    fn statements(self) -> String {
        let (held, every) = (self.held.as_secs_f64(), self.every);
        format!(
            "CREATE OR REPLACE FUNCTION slow_lock() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF new.available % {every} = 0 THEN PERFORM pg_sleep({held}); END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER slow_lock AFTER UPDATE ON item FOR EACH ROW WHEN (new.available < old.available)
                 EXECUTE FUNCTION slow_lock();"
        )
    }
}

/// Waits for the database, migrates it, takes away the guards that a seeded bug needs gone, and plants a slow-down of locks
/// or takes away that of an earlier process.
pub async fn prepare(
    store: &Store,
    patience: Duration,
    without: &[Guard],
    slow: Option<SlowLock>,
) -> Result<Soundness, SetupError> {
    let mut client = connect_patiently(store, patience).await?;
    // Processes that start together migrate one after another. The session ends with this function, and
    // the lock with it, whichever way it ends.
    run(&client, "SET statement_timeout = 0; SET lock_timeout = 0").await?;
    client.query_one("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.map_err(StoreError::from)?;
    embedded::migrations::runner().run_async(&mut *client).await?;
    run(&client, GATHER).await?;
    run(&client, "DROP TRIGGER IF EXISTS slow_lock ON item").await?;
    if let Some(slow) = slow {
        run(&client, &slow.statements()).await?;
    }
    match enforce(&client, without).await {
        Ok(()) => Ok(Soundness::Sound),
        Err(StoreError::Violation(guard)) => {
            tracing::warn!(guard, "a seeded bug damaged this data: orders are refused until the sale is reset");
            Ok(Soundness::Damaged)
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts all stock back into the pot: the process before may have deducted in another way. Whatever it had under way is waited for,
/// so that nothing is dealt out behind this.
const GATHER: &str = "
    BEGIN;
    LOCK TABLE item, stock_shard, stock_unit IN SHARE ROW EXCLUSIVE MODE;
    WITH shards AS (DELETE FROM stock_shard RETURNING item_id, available),
         units AS (DELETE FROM stock_unit RETURNING item_id),
         back AS (SELECT item_id, sum(units) AS units
                    FROM (SELECT item_id, available AS units FROM shards UNION ALL SELECT item_id, 1 FROM units) AS parts
                   GROUP BY item_id)
    UPDATE item SET available = item.available + back.units FROM back WHERE item.id = back.item_id;
    COMMIT";

/// Puts every guard in place, or takes it away.
async fn enforce(client: &Client, without: &[Guard]) -> Result<(), StoreError> {
    for guard in Guard::ALL {
        let (table, name, definition) = guard.spec();
        let present = client.query_opt("SELECT FROM pg_constraint WHERE conname = $1", &[&name]).await?.is_some();
        let wanted = !without.contains(&guard);
        if present && !wanted {
            run(client, &format!("ALTER TABLE {table} DROP CONSTRAINT {name}")).await?;
        } else if wanted && !present {
            run(client, &format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")).await?;
        }
    }
    Ok(())
}

async fn run(client: &Client, sql: &str) -> Result<(), StoreError> {
    client.batch_execute(sql).await.map_err(StoreError::from)
}

async fn connect_patiently(store: &Store, patience: Duration) -> Result<DirectClient, SetupError> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(25);
    loop {
        match store.connect().await {
            Ok(client) => return Ok(client),
            Err(last) if Instant::now() + pause >= deadline => {
                return Err(SetupError::NotReady { waited: patience, last });
            }
            Err(error) => tracing::info!(%error, "waiting for the database"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// An item as `/reset` describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    /// The item's number.
    pub id: i64,
    /// What the page says.
    pub title: String,
    /// Price of one unit.
    pub price_cents: i64,
    /// Units for sale.
    pub stock: i64,
    /// Units that one user may hold or buy.
    pub per_user_limit: i32,
    /// Start of the sale, unix microseconds.
    pub opens_at: i64,
    /// End of the sale, unix microseconds.
    pub closes_at: i64,
    /// How long an unpaid order holds its units.
    pub hold_ms: i64,
}

/// Empties every table, puts the guards in place, and the items up for sale. Order numbers go on from where they were, so an
/// order of an earlier run is never mistaken for one of this run.
pub async fn reset(store: &Store, items: &[NewItem], without: &[Guard]) -> Result<(), StoreError> {
    let mut client = store.connect().await?;
    let transaction = client.transaction().await?;
    // Requests of the run before may still hold locks: wait for them longer than a buyer would.
    transaction.batch_execute("SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10s'").await?;
    transaction
        .batch_execute("TRUNCATE item, orders, order_event, purchase, payment_intent, stock_shard, stock_unit")
        .await?;
    enforce(transaction.client(), without).await?;
    let insert = transaction
        .prepare(
            "INSERT INTO item (id, title, price_cents, stock_initial, available, per_user_limit, \
             opens_at_us, closes_at_us, hold_ms) VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8)",
        )
        .await?;
    for item in items {
        let params: [&(dyn ToSql + Sync); 8] = [
            &item.id,
            &item.title,
            &item.price_cents,
            &item.stock,
            &item.per_user_limit,
            &item.opens_at,
            &item.closes_at,
            &item.hold_ms,
        ];
        transaction.execute(&insert, &params).await?;
    }
    transaction.commit().await?;
    Ok(())
}
