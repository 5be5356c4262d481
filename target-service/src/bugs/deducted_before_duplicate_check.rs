//! Bug 8. Stock is deducted, and only then is the key found to have an order already. The deduction stays.

use super::by_statement::{attempt, explain};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

const DEDUCT: &str = "
    UPDATE item SET available = available - $2::int
     WHERE id = $1::bigint AND available >= $2::int AND $2::int BETWEEN 1 AND per_user_limit
       AND opens_at_us <= $3::bigint AND $3::bigint < closes_at_us
    RETURNING id";

const INSERT: &str = reserve_statement!(
    "SELECT id, price_cents, per_user_limit, hold_ms FROM item
      WHERE id = $1::bigint AND $5::bigint > 0
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)"
);

pub(super) struct DeductedBeforeDuplicateCheck {
    store: Store,
}

impl DeductedBeforeDuplicateCheck {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        let deducted = lease.query_opt(DEDUCT, &[&wanted.item, &wanted.quantity, &wanted.now]).await?;
        if deducted.is_some()
            && let Some(reservation) = attempt(&mut lease, INSERT, wanted).await?
        {
            return Ok(reservation);
        }
        explain(&mut lease, wanted).await
    }
}

impl Inventory for DeductedBeforeDuplicateCheck {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
