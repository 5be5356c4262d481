//! Bug 4. The essay's update has no condition in its WHERE: it changes one row whether or not enough is
//! left, and "one row" is taken for success. The counter never goes below zero, the orders exceed the stock.

use crate::inventory::reserve_statement;

pub(super) const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = CASE WHEN available >= $4::int THEN available - $4::int ELSE available END
      WHERE id = $1::bigint AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);
