//! Bug 5. No floor anywhere: the quantity may be negative, which adds stock, and whether enough is left is
//! read from the statement's snapshot, which is out of date by the time the row lock is granted.

use crate::inventory::reserve_statement;

pub(super) const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND $4::int <= per_user_limit
        AND (SELECT seen.available FROM item seen WHERE seen.id = $1::bigint) >= $4::int
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);
