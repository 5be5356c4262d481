//! Bug 26. A payment that arrives after the hold ran out revives the order, although its units went back on
//! sale meanwhile.

use std::sync::Arc;

use crate::inventory::{Answer, Inventory};
use crate::order::{Claim, Reservation, Settlement, Wanted};
use crate::store::orders::{self, order_columns};
use crate::store::{Store, StoreError};

const PAY: &str = concat!(
    "WITH paid AS (
        UPDATE orders SET state = 'paid'
         WHERE id = $1::bigint AND user_id = $2::text AND state IN ('held', 'expired')
        RETURNING *
     ), event AS (
        INSERT INTO order_event (order_id, kind, at_us, quantity)
        SELECT id, 'pay', $3::bigint, quantity FROM paid
        RETURNING order_id
     )
     SELECT ",
    order_columns!("paid"),
    " FROM paid JOIN event ON event.order_id = paid.id"
);

pub(super) struct PaidAfterRelease {
    sound: Arc<dyn Inventory>,
}

impl PaidAfterRelease {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound }
    }

    async fn pay(&self, claim: &Claim) -> Result<Settlement, StoreError> {
        let mut lease = self.store().lease().await?;
        let row = lease.query_opt(PAY, &[&claim.order, &claim.user, &claim.now]).await?;
        drop(lease);
        match row {
            Some(row) => Ok(Settlement::Settled(orders::order_from(&row)?)),
            None => self.sound.confirm(claim).await,
        }
    }
}

impl Inventory for PaidAfterRelease {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        self.sound.reserve(wanted)
    }

    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(self.pay(claim))
    }
}
