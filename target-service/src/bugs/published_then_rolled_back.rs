//! Bug 22. The order is announced to its buyer inside the transaction, and the last step before the commit
//! fails now and then: the announcement cannot be taken back.

use super::by_statement::{attempt, explain};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

/// The last step fails for one order in this many.
const FAILS_EVERY: i64 = 16;

const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

pub(super) struct PublishedThenRolledBack {
    store: Store,
}

impl PublishedThenRolledBack {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        lease.begin().await?;
        let Some(published) = attempt(&mut lease, RESERVE, wanted).await? else {
            lease.rollback().await?;
            return explain(&mut lease, wanted).await;
        };
        let fails = matches!(&published, Reservation::Held(order) if order.id % FAILS_EVERY == 0);
        if fails {
            lease.rollback().await?
        } else {
            lease.commit().await?
        }
        Ok(published)
    }
}

impl Inventory for PublishedThenRolledBack {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
