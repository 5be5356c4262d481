//! The plain form: BEGIN, UPDATE, INSERT and COMMIT, each in a trip of its own (what W4 does away with).
//!
//! As right as the one-trip statement, and the row is locked from the end of the first trip until the commit: two trips
//! more for everybody who waits for it. That is what AliSQL's COMMIT_ON_SUCCESS and TARGET_AFFECT_ROW are for.

use super::{Answer, Inventory, deduct, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Lease, Store, StoreError, orders};

/// The two `NOT EXISTS` spare the row a useless update; constraints catch what they miss, as in the one-trip statement.
const DEDUCT: &str = "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
        AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1::bigint AND q.user_id = $2::text
                                                 AND q.quantity + $4::int > q.max_quantity)
     RETURNING id";

/// The row is locked by the deduction, so its terms are those that were deducted under.
const INSERT: &str =
    reserve_statement!("SELECT id, price_cents, per_user_limit, hold_ms FROM item WHERE id = $1::bigint");

/// How often an attempt is repeated whose obstacle was gone by the time it was looked at.
const ATTEMPTS: usize = 4;

/// The strategy.
pub struct StepByStep {
    store: Store,
}

impl StepByStep {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn attempts(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        for _ in 0..ATTEMPTS {
            lease.begin().await?;
            match deduct_and_insert(&mut lease, wanted).await {
                Ok(Some(held)) => return lease.commit().await.map(|()| held),
                Ok(None) | Err(StoreError::Violation(_)) => lease.rollback().await?,
                // What fails otherwise is rolled back with the connection, which is not used again.
                Err(error) => return Err(error),
            }
            if let Some(reason) = orders::classify(&mut lease, wanted).await? {
                return Ok(reason);
            }
        }
        Err(StoreError::Contended("units kept coming and going".into()))
    }
}

async fn deduct_and_insert(lease: &mut Lease, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
    let Wanted { item, user, key, quantity, now } = wanted;
    if lease.query_opt(DEDUCT, &[item, user, key, quantity, now]).await?.is_none() {
        return Ok(None);
    }
    deduct(lease, INSERT, wanted).await
}

impl Inventory for StepByStep {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.attempts(wanted))
    }
}
