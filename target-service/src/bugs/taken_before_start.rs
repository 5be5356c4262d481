//! Bug 29. The page does not show the button before the start, so the server does not check.

use crate::inventory::reserve_statement;

pub(super) const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);
