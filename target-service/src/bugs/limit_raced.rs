//! Bug 27. What a user already has is counted by a query, and the order inserted afterwards: simultaneous
//! orders of one user all see the count before any of them.

use super::by_statement::{attempt, explain};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

const TAKEN: &str = "
    SELECT coalesce(sum(o.quantity), 0)::bigint, i.per_user_limit
      FROM item i LEFT JOIN orders o ON o.item_id = i.id AND o.user_id = $2 AND o.state IN ('held', 'paid')
     WHERE i.id = $1 GROUP BY i.per_user_limit";

/// A limit that is never reached turns the guard of the database off.
const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, 2147483647 AS per_user_limit, hold_ms"
);

pub(super) struct LimitRaced {
    store: Store,
}

impl LimitRaced {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        if let Some(row) = lease.query_opt(TAKEN, &[&wanted.item, &wanted.user]).await? {
            let (taken, limit): (i64, i32) = (row.get(0), row.get(1));
            if taken + i64::from(wanted.quantity) > i64::from(limit) {
                drop(lease);
                let known = orders::find(&self.store, &wanted.user, &wanted.key).await?;
                let refused = Reservation::Refused(Refusal::LimitReached);
                return Ok(known.map_or(refused, |order| orders::replay(order, wanted)));
            }
        }
        match attempt(&mut lease, RESERVE, wanted).await? {
            Some(reservation) => Ok(reservation),
            None => explain(&mut lease, wanted).await,
        }
    }
}

impl Inventory for LimitRaced {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
