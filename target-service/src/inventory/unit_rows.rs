//! A row for each unit, taken with `FOR UPDATE SKIP LOCKED`: nobody waits for a unit that somebody else is taking.
//!
//! The trap is in the skipping: who finds no row may have passed over some that are about to be given up again, by a
//! statement that a constraint refuses or whose connection dies. So finding none is no answer. Whether the item is sold out is
//! read from a snapshot, in which those rows are still there; and if it is not, the rows are waited for.
//!
//! A window of units has rows, and the rest is in the pot (`item.available`), from which rows are made when they run out. Units
//! that come back go to the pot, too. Their numbers are used again, so that new entries of the index displace dead ones.
//!
//! What [`super::Shards`] says of places in the ledger holds here as well. **Lock order**: the item, its units, then the
//! purchase row and the key.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Answer, Inventory, deduct, deduct_and_commit, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Lease, Store, StoreError, orders};

/// Rows that are made at once at most.
const WINDOW: i64 = 1_000;

/// Takes so many rows or none. `$wait` says what happens with rows that somebody else has locked.
macro_rules! take_rows {
    ($wait:literal) => {
        reserve_statement!(
            after: concat!(
                "picked AS MATERIALIZED (
                    SELECT u.unit FROM item i JOIN stock_unit u ON u.item_id = i.id
                     WHERE i.id = $1::bigint AND u.item_id = $1::bigint AND $4::int BETWEEN 1 AND i.per_user_limit
                       AND i.opens_at_us <= $5::bigint AND $5::bigint < i.closes_at_us
                       AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
                       AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1::bigint AND q.user_id = $2::text
                                                                AND q.quantity + $4::int > q.max_quantity)
                     ORDER BY u.unit LIMIT $4::int FOR UPDATE OF u",
                $wait,
                "), taken AS (
                    DELETE FROM stock_unit u USING picked
                     WHERE u.item_id = $1::bigint AND u.unit = picked.unit AND (SELECT count(*) FROM picked) = $4::int
                    RETURNING u.unit
                 ), "
            ),
            "SELECT id, price_cents, per_user_limit, hold_ms FROM item
              WHERE id = $1::bigint AND (SELECT count(*) FROM taken) = $4::int"
        )
    };
}

const RESERVE: &str = take_rows!(" SKIP LOCKED");
const RESERVE_PATIENTLY: &str = take_rows!("");

const LOCK_ITEM: &str = "SELECT available FROM item WHERE id = $1::bigint FOR NO KEY UPDATE";

/// Makes rows of up to so many units of the pot.
const DEAL: &str = "WITH made AS (
        INSERT INTO stock_unit (item_id, unit)
        SELECT $1::bigint, n FROM generate_series(1, $2::bigint) n
         WHERE NOT EXISTS (SELECT FROM stock_unit u WHERE u.item_id = $1::bigint AND u.unit = n)
         ORDER BY n LIMIT $3::bigint
        ON CONFLICT DO NOTHING
        RETURNING unit
     )
     UPDATE item SET available = available - (SELECT count(*) FROM made) WHERE id = $1::bigint";

/// From the pot, whose row is locked and has enough.
const FROM_POT: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int WHERE id = $1::bigint
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

/// How often an attempt is repeated whose obstacle was gone by the time it was looked at.
const ATTEMPTS: usize = 4;

/// The strategy.
pub struct UnitRows {
    store: Store,
    moved: Counter,
}

impl UnitRows {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { store, moved: Counter::default() }
    }

    async fn attempts(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        for _ in 0..ATTEMPTS {
            match deduct(&mut lease, RESERVE, wanted).await {
                Ok(Some(held)) => return Ok(held),
                Ok(None) | Err(StoreError::Violation(_)) => {}
                Err(error) => return Err(error),
            }
            if let Some(reason) = orders::classify_spread(&mut lease, wanted).await? {
                return Ok(reason);
            }
            if let Some(answer) = self.patiently(&mut lease, wanted).await? {
                return Ok(answer);
            }
        }
        Err(StoreError::Contended("units kept coming and going".into()))
    }

    /// Serves him from the pot if that has enough, and makes rows of the rest; otherwise makes rows of all of it, and waits for
    /// those that others have locked. Nothing if they were taken after all.
    async fn patiently(&self, lease: &mut Lease, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
        lease.begin().await?;
        let item = &wanted.item;
        let pot: i64 = lease.query_opt(LOCK_ITEM, &[item]).await?.map_or(0, |row| row.get(0));
        if let Some(reason) = orders::classify_spread(lease, wanted).await? {
            lease.rollback().await?;
            return Ok(Some(reason));
        }
        let enough = pot >= i64::from(wanted.quantity);
        let rows = if enough { (pot - i64::from(wanted.quantity)).min(WINDOW) } else { pot };
        if rows > 0 {
            // All of the pot gets rows, however full the window is, if he needs them.
            let numbers = if enough { WINDOW } else { WINDOW + rows };
            lease.query(DEAL, &[item, &numbers, &rows]).await?;
            self.moved.inc();
        }
        let statement = if enough { FROM_POT } else { RESERVE_PATIENTLY };
        match deduct_and_commit(lease, statement, wanted).await {
            Err(StoreError::Violation(_)) => lease.rollback().await.map(|()| None),
            outcome => outcome,
        }
    }
}

impl Inventory for UnitRows {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.attempts(wanted))
    }

    fn look<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Option<Reservation>> {
        Box::pin(async {
            let mut lease = self.store.lease().await?;
            orders::classify_spread(&mut lease, wanted).await
        })
    }

    fn register(&self, registry: &mut Registry) {
        let what = "How often units of the pot were given rows of their own";
        registry.register("seckill_stock_moves", what, self.moved.clone());
    }
}
