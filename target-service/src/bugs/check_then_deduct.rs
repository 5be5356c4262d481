//! Bug 2. Stock is checked in one transaction and deducted in another: the check says nothing about the
//! moment of the deduction, and the counter goes below zero.

use super::by_statement::{attempt, explain, read_available};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

const DEDUCT: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

pub(super) struct CheckThenDeduct {
    store: Store,
}

impl CheckThenDeduct {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        let available = read_available(&mut lease, wanted.item).await?;
        if available.is_some_and(|available| available >= i64::from(wanted.quantity))
            && let Some(reservation) = attempt(&mut lease, DEDUCT, wanted).await?
        {
            return Ok(reservation);
        }
        explain(&mut lease, wanted).await
    }
}

impl Inventory for CheckThenDeduct {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
