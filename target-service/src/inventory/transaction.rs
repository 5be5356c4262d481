//! The textbook form (C9): a transaction that locks the item, looks, and either deducts and inserts or rolls back.
//!
//! Correct, and the slowest: the row stays locked over four round trips and the commit.

use super::{Answer, Inventory, deduct, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Lease, Store, StoreError, orders};

/// The lock is a statement of its own: the next one then sees what was committed by whoever held it before.
const LOCK: &str = "SELECT id FROM item WHERE id = $1::bigint FOR NO KEY UPDATE";

/// Everything was looked at under the lock.
const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int WHERE id = $1::bigint
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

/// The strategy.
pub struct Transaction {
    store: Store,
}

impl Transaction {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Inventory for Transaction {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(async {
            let mut lease = self.store.lease().await?;
            lease.begin().await?;
            // What fails on the way is rolled back with the connection, which is not used again.
            match look_and_deduct(&mut lease, wanted).await {
                Ok(held @ Reservation::Held(_)) => lease.commit().await.map(|()| held),
                Ok(other) => lease.rollback().await.map(|()| other),
                // The key went to an order for another item meanwhile, whose row was not locked.
                Err(StoreError::Violation(constraint)) => {
                    lease.rollback().await?;
                    let reason = orders::classify(&mut lease, wanted).await?;
                    reason.ok_or_else(|| StoreError::Contended(format!("{constraint} stood in the way")))
                }
                Err(error) => Err(error),
            }
        })
    }
}

async fn look_and_deduct(lease: &mut Lease, wanted: &Wanted) -> Result<Reservation, StoreError> {
    lease.query_opt(LOCK, &[&wanted.item]).await?;
    if let Some(reason) = orders::classify(lease, wanted).await? {
        return Ok(reason);
    }
    let held = deduct(lease, RESERVE, wanted).await?;
    held.ok_or(StoreError::Corrupt("an item that vanished while it was locked"))
}
