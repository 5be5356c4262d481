//! Bug 7. Redis counts what is taken, before the database is asked for the order. When the database fails, nobody takes the count
//! back: the units are in the database, and cannot be bought.

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::inventory::{Answer, ConditionalUpdate, Inventory};
use crate::order::{Claim, Refusal, Reservation, Settlement, Wanted};
use crate::store::{Store, StoreError, orders};

/// Counts units in, if so many are left. KEYS: the item's counters. ARGV: quantity.
const TAKE: &str = "
    local item = redis.call('HMGET', KEYS[1], 'initial', 'taken', 'released')
    if not item[1] then return 'unknown' end
    if item[1] - item[2] + item[3] < tonumber(ARGV[1]) then return 'sold-out' end
    redis.call('HINCRBY', KEYS[1], 'taken', ARGV[1])
    return 'taken'";

const COUNTS: &str = "
    SELECT i.id, i.stock_initial,
           coalesce((SELECT sum(o.quantity) FROM orders o WHERE o.item_id = i.id), 0)::bigint,
           coalesce((SELECT sum(e.quantity) FROM order_event e JOIN orders o ON o.id = e.order_id
                      WHERE e.kind = 'release' AND o.item_id = i.id), 0)::bigint
      FROM item i";

pub(super) struct CacheNeverCompensated {
    sound: ConditionalUpdate,
    redis: ConnectionManager,
}

impl CacheNeverCompensated {
    pub(super) fn new(store: Store, client: redis::Client) -> Result<Self, redis::RedisError> {
        let redis = ConnectionManager::new_lazy_with_config(client, ConnectionManagerConfig::new())?;
        Ok(Self { sound: ConditionalUpdate::new(store), redis })
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut said = self.take(wanted).await?;
        if said == "unknown" {
            self.count(&["initial", "taken", "released"]).await?;
            said = self.take(wanted).await?;
        }
        match said.as_str() {
            "taken" => {}
            "sold-out" => {
                let known = orders::find(self.store(), &wanted.user, &wanted.key).await?;
                return Ok(known.map_or(Reservation::Refused(Refusal::SoldOut), |order| orders::replay(order, wanted)));
            }
            _ => return Ok(Reservation::Refused(Refusal::UnknownItem)),
        }
        // An error goes straight to the buyer, which is the bug.
        let outcome = self.sound.reserve(wanted).await?;
        if !matches!(outcome, Reservation::Held(_)) {
            let mut back = redis::cmd("HINCRBY");
            back.arg(name(wanted.item)).arg("taken").arg(-wanted.quantity);
            self.run(back).await?;
        }
        Ok(outcome)
    }

    async fn take(&self, wanted: &Wanted) -> Result<String, StoreError> {
        let mut call = redis::cmd("EVAL");
        call.arg(TAKE).arg(1).arg(name(wanted.item)).arg(wanted.quantity);
        call.query_async(&mut self.redis.clone()).await.map_err(lost)
    }

    /// Sets counters of every item to what the database says.
    async fn count(&self, which: &[&str]) -> Result<(), StoreError> {
        let rows = self.store().lease().await?.query(COUNTS, &[]).await?;
        for row in &rows {
            let mut set = redis::cmd("HSET");
            set.arg(name(row.get(0)));
            let counts: [(&str, i64); 3] = [("initial", row.get(1)), ("taken", row.get(2)), ("released", row.get(3))];
            for (field, count) in counts.iter().filter(|(field, _)| which.contains(field)) {
                set.arg(*field).arg(*count);
            }
            self.run(set).await?;
        }
        Ok(())
    }

    async fn run(&self, command: redis::Cmd) -> Result<(), StoreError> {
        command.query_async::<i64>(&mut self.redis.clone()).await.map(drop).map_err(lost)
    }
}

/// Not where the strategy `redis-lua` keeps its own, which it wipes when it sets Redis up.
fn name(item: i64) -> String {
    format!("count:{item}")
}

fn lost(error: redis::RedisError) -> StoreError {
    StoreError::Lost(format!("redis: {error}"))
}

impl Inventory for CacheNeverCompensated {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async {
            let settled = self.sound.release(claim).await?;
            self.count(&["released"]).await.map(|()| settled)
        })
    }

    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(async move {
            let holds = self.sound.expire(now, batch).await?;
            if holds > 0 {
                self.count(&["released"]).await?;
            }
            Ok(holds)
        })
    }

    fn forget(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let mut forget = redis::cmd("EVAL");
            forget.arg("for _, key in ipairs(redis.call('KEYS', 'count:*')) do redis.call('DEL', key) end").arg(0);
            if let Err(error) = forget.query_async::<()>(&mut self.redis.clone()).await {
                tracing::warn!(%error, "the counts of the sale before are still there");
            }
        })
    }
}
