//! Bug 4. The essay's update has no condition in its WHERE: it changes one row whether or not enough is
//! left, and "one row" is taken for success. The counter never goes below zero, the orders exceed the stock.

use crate::inventory::{Answer, Inventory, reserve_by, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::Store;

const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = CASE WHEN available >= $4::int THEN available - $4::int ELSE available END
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)"
);

pub(super) struct CaseWhen {
    store: Store,
}

impl CaseWhen {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Inventory for CaseWhen {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(reserve_by(&self.store, RESERVE, wanted))
    }
}
