//! Deduct without looking, and let a constraint of the column refuse (C10; MySQL's unsigned column, in Postgres a CHECK).
//!
//! The refused statement has written a row version and the log for nothing, which is what sold-out traffic then costs.

use super::{Answer, Inventory, reserve_by, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::Store;

/// Nothing is said of what is available: `item_available_floor` decides.
const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

/// The strategy.
pub struct CheckConstraint {
    store: Store,
}

impl CheckConstraint {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Inventory for CheckConstraint {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(reserve_by(&self.store, RESERVE, wanted))
    }
}
