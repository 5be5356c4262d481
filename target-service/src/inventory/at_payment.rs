//! Deduct at payment (C2): an order sets nothing aside. Whoever pays first gets the units, and whoever finds none left when
//! they pay is told that it is sold out, after having ordered.
//!
//! **Lock order**: the order row, then the item row. Everywhere else it is the other way round, but where nothing is held
//! nobody takes the item's row to give units back.

use super::{Answer, Inventory, reserve_by};
use crate::order::{Claim, Order, OrderState, Refusal, Reservation, Settlement, Wanted};
use crate::store::orders::{self, order_columns};
use crate::store::{Lease, Store, StoreError};

/// What is left is looked at without a lock: it is a courtesy, and the payment decides.
const PLACE: &str = concat!(
    "INSERT INTO orders AS o (item_id, user_id, idempotency_key, quantity, amount_cents, state,
                              created_at_us, expires_at_us, placed)
     SELECT i.id, $2::text, $3::text, $4::int, i.price_cents * $4, 'placed', $5::bigint, $5 + i.hold_ms * 1000, true
       FROM item i
      WHERE i.id = $1::bigint AND i.available >= $4 AND $4 BETWEEN 1 AND i.per_user_limit
        AND i.opens_at_us <= $5 AND $5 < i.closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2 AND o.idempotency_key = $3)
        AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1 AND q.user_id = $2
                                                 AND q.quantity + $4 > q.max_quantity)
     RETURNING ",
    order_columns!("o")
);

/// Deducts, counts the units as the buyer's, and calls the order paid: all of it, or nothing. Its entries of the ledger are
/// drawn after the item's row was locked.
const PAY: &str = concat!(
    "WITH due AS MATERIALIZED (
        SELECT id, item_id, user_id, quantity FROM orders
         WHERE id = $1::bigint AND user_id = $2::text AND state = 'placed' AND expires_at_us > $3::bigint
           FOR NO KEY UPDATE
     ), deducted AS (
        UPDATE item SET available = item.available - due.quantity FROM due
         WHERE item.id = due.item_id AND item.available >= due.quantity
        RETURNING due.*, item.per_user_limit
     ), quota AS (
        INSERT INTO purchase AS p (item_id, user_id, quantity, max_quantity)
        SELECT item_id, user_id, quantity, per_user_limit FROM deducted
        ON CONFLICT (item_id, user_id) DO UPDATE SET quantity = p.quantity + excluded.quantity
        RETURNING item_id
     ), paid AS (
        UPDATE orders o SET state = 'paid'
          FROM deducted JOIN quota ON quota.item_id = deducted.item_id
         WHERE o.id = deducted.id
        RETURNING o.*
     ), event AS (
        INSERT INTO order_event (order_id, kind, at_us, quantity)
        SELECT paid.id, step.kind, $3, paid.quantity
          FROM paid CROSS JOIN unnest(ARRAY['reserve', 'pay']) WITH ORDINALITY AS step(kind, n)
         ORDER BY step.n
        RETURNING order_id, kind
     )
     SELECT ",
    order_columns!("paid"),
    " FROM paid JOIN event ON event.order_id = paid.id AND event.kind = 'pay'"
);

const CANCEL: &str = concat!(
    "UPDATE orders o SET state = 'cancelled'
      WHERE o.id = $1::bigint AND o.user_id = $2::text AND o.state = 'placed' RETURNING ",
    order_columns!("o")
);

/// What is left, and whether so many more would be too many for this buyer.
const LEFT: &str = "
    SELECT i.available, coalesce(p.quantity, 0) + $3::int > i.per_user_limit AS too_many
      FROM item i LEFT JOIN purchase p ON p.item_id = i.id AND p.user_id = $2::text
     WHERE i.id = $1::bigint";

/// The way to deduct.
pub struct AtPayment {
    store: Store,
}

impl AtPayment {
    /// On this database.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn pay(&self, claim: &Claim) -> Result<Settlement, StoreError> {
        let mut lease = self.store.lease().await?;
        match lease.query_opt(PAY, &[&claim.order, &claim.user, &claim.now]).await {
            Ok(Some(row)) => Ok(Settlement::Settled(orders::order_from(&row)?)),
            Ok(None) => self.why_not(&mut lease, claim).await,
            // The one constraint in the way is the limit per user.
            Err(StoreError::Violation(_)) => Ok(Settlement::Refused(Refusal::LimitReached)),
            Err(error) => Err(error),
        }
    }

    async fn cancel(&self, claim: &Claim) -> Result<Settlement, StoreError> {
        let mut lease = self.store.lease().await?;
        if let Some(row) = lease.query_opt(CANCEL, &[&claim.order, &claim.user]).await? {
            return Ok(Settlement::Settled(orders::order_from(&row)?));
        }
        drop(lease);
        orders::cancel(&self.store, claim).await
    }

    /// Why an order was not paid: one that is still only placed can have found nothing left.
    async fn why_not(&self, lease: &mut Lease, claim: &Claim) -> Result<Settlement, StoreError> {
        let order = orders::find_by_id(lease, claim.order).await?;
        if let Some(order) = order.as_ref().filter(|order| waits(order, claim)) {
            let row = lease.query_opt(LEFT, &[&order.item, &order.user, &order.quantity]).await?;
            let (left, too_many) = row.map_or((0, false), |row| (row.get::<_, i64>(0), row.get::<_, bool>(1)));
            return match left < i64::from(order.quantity) {
                true => Ok(Settlement::Refused(Refusal::SoldOut)),
                false if too_many => Ok(Settlement::Refused(Refusal::LimitReached)),
                false => Err(StoreError::Contended("units kept coming and going".into())),
            };
        }
        Ok(orders::judge(order, claim, orders::refusal_to_pay))
    }
}

/// Whether the order could be paid if there were enough left.
fn waits(order: &Order, claim: &Claim) -> bool {
    order.state == OrderState::Placed && order.user == claim.user && order.expires_at > claim.now
}

impl Inventory for AtPayment {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(reserve_by(&self.store, PLACE, wanted))
    }

    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(self.pay(claim))
    }

    fn judge<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async {
            let mut lease = self.store.lease().await?;
            self.why_not(&mut lease, claim).await
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(self.cancel(claim))
    }
}
