//! Stock in shards (W5): an item's units lie in several rows, so that as many buyers are served at once.
//!
//! A buyer is sent to a shard by his name and served there by one statement. If it has too few units, **balance is moved** (W6):
//! under a lock on the item and on all its shards, everything that is left is dealt out anew, and he is served by the same
//! transaction, so that nobody can take away meanwhile what was moved for him. So nothing is ever stranded in a shard, and
//! "sold out" is said only of a snapshot in which pot and shards together have too little.
//!
//! Units that come back go to the pot (`item.available`), which is dealt out with the rest when a shard runs dry. At first
//! everything is in the pot.
//!
//! **Places in the ledger.** Shards commit in any order, so a prefix of the ledger need not be a state that the stock went
//! through at once. But each unit's own places ascend: an order's number is drawn under the lock of the row that its units
//! come from, and a unit gets there only after its release was committed. So no prefix has more units out than there are.
//!
//! **Lock order**: the item, its shards by number, then the purchase row and the key. Whoever is served by a shard does not
//! lock the item.

use std::num::NonZeroU16;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Answer, Inventory, deduct_and_commit, held, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Lease, Store, StoreError, orders};

/// Parameters: item, user, key, quantity, now, shard.
const RESERVE: &str = reserve_statement!(
    "UPDATE stock_shard s SET available = s.available - $4::int
       FROM item i
      WHERE s.item_id = $1::bigint AND s.shard = $6::int AND s.available >= $4::int
        AND i.id = $1::bigint AND $4::int BETWEEN 1 AND i.per_user_limit
        AND i.opens_at_us <= $5::bigint AND $5::bigint < i.closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
        AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1::bigint AND q.user_id = $2::text
                                                 AND q.quantity + $4::int > q.max_quantity)
     RETURNING i.id, i.price_cents, i.per_user_limit, i.hold_ms"
);

const LOCK_ITEM: &str = "SELECT available FROM item WHERE id = $1::bigint FOR NO KEY UPDATE";

/// What is read here is what was committed last, also by whoever was waited for.
const LOCK_SHARDS: &str =
    "SELECT shard, available FROM stock_shard WHERE item_id = $1::bigint ORDER BY shard FOR NO KEY UPDATE";

const DEAL: &str = "WITH dealt AS (
        INSERT INTO stock_shard (item_id, shard, available)
        SELECT $1::bigint, dealt.shard, dealt.units FROM unnest($2::int[], $3::bigint[]) AS dealt(shard, units)
        ON CONFLICT (item_id, shard) DO UPDATE SET available = excluded.available
     )
     UPDATE item SET available = 0 WHERE id = $1::bigint";

/// Everything was looked at under the locks, and the units were left out when the rest was dealt.
const INSERT: &str =
    reserve_statement!("SELECT id, price_cents, per_user_limit, hold_ms FROM item WHERE id = $1::bigint");

/// How often an attempt is repeated whose obstacle was gone by the time it was looked at.
const ATTEMPTS: usize = 4;

/// The strategy.
pub struct Shards {
    store: Store,
    count: NonZeroU16,
    moved: Counter,
}

impl Shards {
    /// The strategy on this database, with so many shards for each item.
    pub fn new(store: Store, count: NonZeroU16) -> Self {
        Self { store, count, moved: Counter::default() }
    }

    /// Where a buyer is sent: always to the same shard, so that a retry meets its twin there. (FNV-1a, Fowler, Noll and Vo.)
    pub(crate) fn shard_of(&self, user: &str) -> i32 {
        let hash = user
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        i32::from((hash % u64::from(self.count.get())) as u16)
    }

    /// Serves him from his own shard; nothing if it has too few units, or he cannot be served at all.
    pub(crate) async fn serve_from_own(
        &self,
        lease: &mut Lease,
        wanted: &Wanted,
    ) -> Result<Option<Reservation>, StoreError> {
        let Wanted { item, user, key, quantity, now } = wanted;
        let shard = self.shard_of(user);
        match lease.query_opt(RESERVE, &[item, user, key, quantity, now, &shard]).await {
            Ok(row) => held(row.as_ref()),
            Err(StoreError::Violation(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deals out anew what is left in pot and shards, less what he gets of it. Under all locks, so the answer is final;
    /// nothing only if his key went to an order of another item meanwhile.
    pub(crate) async fn serve_from_all(
        &self,
        lease: &mut Lease,
        wanted: &Wanted,
    ) -> Result<Option<Reservation>, StoreError> {
        let item = &wanted.item;
        let (pot, shards) = lease.begin_with((LOCK_ITEM, &[item]), (LOCK_SHARDS, &[item])).await?;
        if let Some(reason) = orders::classify_spread(lease, wanted).await? {
            lease.rollback().await?;
            return Ok(Some(reason));
        }
        let in_pot: i64 = pot.first().map_or(0, |row| row.get(0));
        let left = in_pot + shards.iter().map(|row| row.get::<_, i64>(1)).sum::<i64>() - i64::from(wanted.quantity);
        let (numbers, units) = deal(left, self.count.get(), self.shard_of(&wanted.user));
        lease.query(DEAL, &[item, &numbers, &units]).await?;
        match deduct_and_commit(lease, INSERT, wanted).await {
            Err(StoreError::Violation(_)) => lease.rollback().await.map(|()| None),
            outcome => {
                self.moved.inc();
                outcome
            }
        }
    }

    async fn attempts(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        for _ in 0..ATTEMPTS {
            if let Some(held) = self.serve_from_own(&mut lease, wanted).await? {
                return Ok(held);
            }
            // Without any lock, so that refusing is as cheap as it is elsewhere.
            if let Some(reason) = orders::classify_spread(&mut lease, wanted).await? {
                return Ok(reason);
            }
            if let Some(answer) = self.serve_from_all(&mut lease, wanted).await? {
                return Ok(answer);
            }
        }
        Err(StoreError::Contended("units kept coming and going".into()))
    }
}

/// As evenly as can be; what does not divide goes to the first ones, counted from a shard that is about to be asked again.
fn deal(units: i64, shards: u16, first: i32) -> (Vec<i32>, Vec<i64>) {
    let (each, rest) = (units / i64::from(shards), units % i64::from(shards));
    let number = |n: i64| ((i64::from(first) + n) % i64::from(shards)) as i32;
    (0..i64::from(shards)).map(|n| (number(n), each + i64::from(n < rest))).unzip()
}

impl Inventory for Shards {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.attempts(wanted))
    }

    fn look<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Option<Reservation>> {
        Box::pin(async {
            let mut lease = self.store.lease().await?;
            orders::classify_spread(&mut lease, wanted).await
        })
    }

    fn register(&self, registry: &mut Registry) {
        let what = "How often an item's units were dealt out to its shards anew";
        registry.register("seckill_stock_moves", what, self.moved.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dealing_neither_makes_nor_loses_units(units in 0_i64..10_000, shards in 1_u16..70, first in 0_u16..70) {
            let (numbers, dealt) = deal(units, shards, i32::from(first % shards));
            prop_assert_eq!(dealt.iter().sum::<i64>(), units);
            prop_assert!(dealt.iter().max().unwrap() - dealt.iter().min().unwrap() <= 1);
            let mut each = numbers;
            each.sort_unstable();
            prop_assert_eq!(each, (0..i32::from(shards)).collect::<Vec<_>>());
        }
    }
}
