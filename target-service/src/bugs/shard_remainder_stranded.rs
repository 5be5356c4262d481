//! Bug 11. Stock lies in shards, and a buyer is only ever asked of his own: what is left in another, or came back, he cannot buy.

use crate::inventory::{Answer, Inventory, Shards};
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

const IS_DEALT: &str = "SELECT FROM stock_shard WHERE item_id = $1::bigint AND shard = $2::int";

pub(super) struct ShardRemainderStranded {
    shards: Shards,
}

impl ShardRemainderStranded {
    pub(super) fn new(shards: Shards) -> Self {
        Self { shards }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store().lease().await?;
        if let Some(held) = self.shards.serve_from_own(&mut lease, wanted).await? {
            return Ok(held);
        }
        if let Some(reason) = orders::classify_spread(&mut lease, wanted).await? {
            return Ok(reason);
        }
        let own = self.shards.shard_of(&wanted.user);
        if lease.query_opt(IS_DEALT, &[&wanted.item, &own]).await?.is_some() {
            return Ok(Reservation::Refused(Refusal::SoldOut));
        }
        let answer = self.shards.serve_from_all(&mut lease, wanted).await?;
        answer.ok_or_else(|| StoreError::Contended("units kept coming and going".into()))
    }
}

impl Inventory for ShardRemainderStranded {
    fn store(&self) -> &Store {
        self.shards.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
