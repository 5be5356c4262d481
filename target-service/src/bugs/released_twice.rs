//! Bug 23. Cancelling and expiring both look first and release afterwards, without looking at the state
//! again: when they meet on one order, its units come back twice.

use std::sync::Arc;

use crate::inventory::{Answer, Inventory};
use crate::order::{Claim, OrderState, Refusal, Reservation, Settlement, Wanted};
use crate::store::orders::{self, order_columns};
use crate::store::{Lease, Store, StoreError};

const DUE: &str = "SELECT id FROM orders WHERE state = 'held' AND expires_at_us <= $1 ORDER BY expires_at_us LIMIT $2";

/// Takes care not to release what is paid; otherwise any state will do.
const RELEASE: &str = concat!(
    "WITH released AS (
        UPDATE orders SET state = $2::text WHERE id = $1::bigint AND state <> 'paid' RETURNING *
     ), restored AS (
        UPDATE item SET available = item.available + released.quantity
          FROM released WHERE item.id = released.item_id
        RETURNING item.id
     ), returned AS (
        UPDATE purchase p SET quantity = p.quantity - released.quantity
          FROM released JOIN restored ON restored.id = released.item_id
         WHERE p.item_id = released.item_id AND p.user_id = released.user_id
     ), event AS (
        INSERT INTO order_event (order_id, kind, at_us, reason, quantity)
        SELECT released.id, 'release', $3::bigint, $2, released.quantity
          FROM released JOIN restored ON restored.id = released.item_id
        RETURNING order_id
     )
     SELECT ",
    order_columns!("released"),
    " FROM released JOIN event ON event.order_id = released.id"
);

pub(super) struct ReleasedTwice {
    sound: Arc<dyn Inventory>,
}

impl ReleasedTwice {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound }
    }

    async fn cancel(&self, claim: &Claim) -> Result<Settlement, StoreError> {
        let mut lease = self.store().lease().await?;
        let order = orders::find_by_id(&mut lease, claim.order).await?;
        let held = order.as_ref().is_some_and(|order| order.state == OrderState::Held && order.user == claim.user);
        if held && let Some(row) = release(&mut lease, claim.order, OrderState::Cancelled, claim.now).await? {
            return Ok(Settlement::Settled(orders::order_from(&row)?));
        }
        Ok(orders::judge(order, claim, |order| match order.state {
            OrderState::Cancelled | OrderState::Expired => None,
            OrderState::Paid | OrderState::Held | OrderState::Placed => Some(Refusal::AlreadyPaid),
        }))
    }

    async fn expire(&self, now: i64, batch: i64) -> Result<usize, StoreError> {
        let mut lease = self.store().lease().await?;
        let due = lease.query(DUE, &[&now, &batch]).await?;
        for row in &due {
            release(&mut lease, row.get(0), OrderState::Expired, now).await?;
        }
        Ok(due.len())
    }
}

async fn release(
    lease: &mut Lease,
    order: i64,
    state: OrderState,
    now: i64,
) -> Result<Option<tokio_postgres::Row>, StoreError> {
    lease.query_opt(RELEASE, &[&order, &state.as_str(), &now]).await
}

impl Inventory for ReleasedTwice {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        self.sound.reserve(wanted)
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(self.cancel(claim))
    }

    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(Self::expire(self, now, batch))
    }
}
