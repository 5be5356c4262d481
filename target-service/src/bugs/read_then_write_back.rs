//! Bug 1. Stock is read, reduced in the application, and written back as a number: whoever read the same
//! number meanwhile has sold the same unit.

use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

const READ: &str = "SELECT available FROM item WHERE id = $1";

/// The sixth parameter is what the application thinks should be left.
const WRITE_BACK: &str = reserve_statement!(
    "UPDATE item SET available = $6::bigint
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)"
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
        let read = lease.query_opt(READ, &[item]).await?.map(|row| row.get::<_, i64>(0));
        if let Some(available) = read
            && available >= i64::from(*quantity)
        {
            let left = available - i64::from(*quantity);
            match lease.query_opt(WRITE_BACK, &[item, user, key, quantity, now, &left]).await {
                Ok(Some(row)) => return Ok(Reservation::Held(orders::order_from(&row)?)),
                Ok(None) | Err(StoreError::Violation(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let reason = orders::classify(&mut lease, wanted).await?;
        reason.ok_or_else(|| StoreError::Contended("units kept coming and going".into()))
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
