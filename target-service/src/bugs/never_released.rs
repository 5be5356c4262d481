//! Bug 25. An order that is being paid is left alone by whoever releases holds, and a payment that fails leaves that mark
//! behind: its hold never ends.

use std::sync::Arc;

use crate::inventory::{Answer, Inventory};
use crate::order::{Claim, Reservation, Settlement, Wanted};
use crate::store::{Store, StoreError};

/// Holds that have run out, without those of which a payment was declined.
const DUE: &str = "SELECT o.id, o.user_id FROM orders o
                    WHERE o.state = 'held' AND o.expires_at_us <= $1::bigint
                      AND NOT EXISTS (SELECT FROM payment_intent p WHERE p.order_id = o.id)
                    ORDER BY o.expires_at_us LIMIT $2::bigint";

pub(super) struct NeverReleased {
    sound: Arc<dyn Inventory>,
}

impl NeverReleased {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound }
    }

    async fn expire(&self, now: i64, batch: i64) -> Result<usize, StoreError> {
        let due = {
            let mut lease = self.store().lease().await?;
            lease.query(DUE, &[&now, &batch]).await?
        };
        for row in &due {
            let claim = Claim { order: row.get(0), user: row.get(1), now };
            self.sound.release(&claim).await?;
        }
        Ok(due.len())
    }
}

impl Inventory for NeverReleased {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        self.sound.reserve(wanted)
    }

    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        self.sound.confirm(claim)
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        self.sound.release(claim)
    }

    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(Self::expire(self, now, batch))
    }
}
