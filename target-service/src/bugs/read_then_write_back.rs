//! Bug 1. Stock is read, reduced in the application, and written back as a number: whoever read the same
//! number meanwhile has sold the same unit.

use super::by_statement::{explain, read_available};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

/// The sixth parameter is what the application thinks should be left.
const WRITE_BACK: &str = reserve_statement!(
    "UPDATE item SET available = $6::bigint
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

pub(super) struct ReadThenWriteBack {
    store: Store,
}

impl ReadThenWriteBack {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let Wanted { item, user, key, quantity, now } = wanted;
        let mut lease = self.store.lease().await?;
        let left = read_available(&mut lease, *item).await?.map(|available| available - i64::from(*quantity));
        if let Some(left) = left.filter(|left| *left >= 0) {
            match lease.query_opt(WRITE_BACK, &[item, user, key, quantity, now, &left]).await {
                Ok(Some(row)) => return Ok(Reservation::Held(orders::order_from(&row)?)),
                Ok(None) | Err(StoreError::Violation(_)) => {}
                Err(error) => return Err(error),
            }
        }
        explain(&mut lease, wanted).await
    }
}

impl Inventory for ReadThenWriteBack {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
