//! Bug 3. The conditional update is right, but nobody looks whether it deducted anything: the order is
//! inserted in any case.

use super::by_statement::{attempt, explain};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

const DEDUCT: &str = "
    UPDATE item SET available = available - $2::int
     WHERE id = $1::bigint AND available >= $2::int AND $2::int BETWEEN 1 AND per_user_limit
       AND opens_at_us <= $3::bigint AND $3::bigint < closes_at_us
       AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $4::text AND o.idempotency_key = $5::text)";

const INSERT: &str = reserve_statement!(
    "SELECT id, price_cents, per_user_limit, hold_ms FROM item
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)"
);

pub(super) struct RowCountIgnored {
    store: Store,
}

impl RowCountIgnored {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let Wanted { item, user, key, quantity, now } = wanted;
        let mut lease = self.store.lease().await?;
        lease.begin().await?;
        lease.query(DEDUCT, &[item, quantity, now, user, key]).await?;
        if let Some(reservation) = attempt(&mut lease, INSERT, wanted).await? {
            lease.commit().await?;
            return Ok(reservation);
        }
        lease.rollback().await?;
        explain(&mut lease, wanted).await
    }
}

impl Inventory for RowCountIgnored {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
