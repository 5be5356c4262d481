//! Deduct by one conditional update that feeds the order's insert: a single round trip, and a single
//! transaction that is its own commit.
//!
//! The update decides: it takes the row only while enough is left, the sale is open and the key is new.
//! Two constraints back it where its snapshot may be out of date because it waited for the row lock: the
//! limit per user and the uniqueness of the key. Either aborts the whole statement. When no row comes
//! back, a second statement finds out why without touching the hot row.

use tokio_postgres::Row;

use super::{Answer, Inventory};
use crate::order::{Reservation, Wanted};
use crate::store::orders;
use crate::store::{Lease, Store, StoreError};

/// The reserving statement around a deducting clause, which returns the columns `id`, `price_cents`,
/// `per_user_limit` and `hold_ms`. Parameters: item, user, key, quantity, now.
///
/// The order's number is drawn by the outermost insert, which reads from the quota, which reads from the
/// deduction: after the row lock, therefore, and in commit order within the item.
macro_rules! reserve_statement {
    ($deduct:literal) => {
        $crate::inventory::reserve_statement!(after: "", $deduct)
    };
    // Behind further parts of the statement, from which the deduction reads; each ends with a comma.
    (after: $parts:expr, $deduct:literal) => {
        concat!(
            "WITH ",
            $parts,
            "deducted AS (",
            $deduct,
            "), quota AS (
                INSERT INTO purchase AS p (item_id, user_id, quantity, max_quantity)
                SELECT id, $2::text, $4::int, per_user_limit FROM deducted
                ON CONFLICT (item_id, user_id) DO UPDATE SET quantity = p.quantity + excluded.quantity
                RETURNING item_id
             )
             INSERT INTO orders AS o (item_id, user_id, idempotency_key, quantity, amount_cents, state,
                                      created_at_us, expires_at_us)
             SELECT d.id, $2, $3::text, $4, d.price_cents * $4, 'held', $5::bigint, $5 + d.hold_ms * 1000
               FROM deducted d JOIN quota ON quota.item_id = d.id
             RETURNING ",
            $crate::store::orders::order_columns!("o")
        )
    };
}
pub(crate) use reserve_statement;

/// The two `NOT EXISTS` spare the row a useless update. They read from the snapshot, so they may miss a
/// twin that commits meanwhile: then the constraints catch it.
const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
        AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1::bigint AND q.user_id = $2::text
                                                 AND q.quantity + $4::int > q.max_quantity)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

/// How often an attempt is repeated whose obstacle was gone by the time it was looked at.
const ATTEMPTS: usize = 4;

/// The strategy.
pub struct ConditionalUpdate {
    store: Store,
}

impl ConditionalUpdate {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Inventory for ConditionalUpdate {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(reserve_by(&self.store, RESERVE, wanted))
    }
}

/// Reserves by the given statement, and explains a refusal.
pub(crate) async fn reserve_by(store: &Store, statement: &str, wanted: &Wanted) -> Result<Reservation, StoreError> {
    let mut lease = store.lease().await?;
    for _ in 0..ATTEMPTS {
        match deduct(&mut lease, statement, wanted).await {
            Ok(Some(reservation)) => return Ok(reservation),
            Ok(None) | Err(StoreError::Violation(_)) => {}
            Err(error) => return Err(error),
        }
        if let Some(reservation) = orders::classify(&mut lease, wanted).await? {
            return Ok(reservation);
        }
    }
    Err(StoreError::Contended("units kept coming and going".into()))
}

/// One attempt by the given statement; none if it deducted nothing.
pub(super) async fn deduct(
    lease: &mut Lease,
    statement: &str,
    wanted: &Wanted,
) -> Result<Option<Reservation>, StoreError> {
    let Wanted { item, user, key, quantity, now } = wanted;
    let row = lease.query_opt(statement, &[item, user, key, quantity, now]).await?;
    held(row.as_ref())
}

/// The same as the last statement of a transaction, which is committed in the same trip.
pub(super) async fn deduct_and_commit(
    lease: &mut Lease,
    statement: &str,
    wanted: &Wanted,
) -> Result<Option<Reservation>, StoreError> {
    let Wanted { item, user, key, quantity, now } = wanted;
    let rows = lease.query_and_commit(statement, &[item, user, key, quantity, now]).await?;
    held(rows.first())
}

/// The order that a reserving statement returned, if it did.
pub(super) fn held(row: Option<&Row>) -> Result<Option<Reservation>, StoreError> {
    row.map(|row| orders::order_from(row).map(Reservation::Held)).transpose()
}
