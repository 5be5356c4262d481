//! Deduct in Redis by a script, persist behind it (W1, C12).
//!
//! One script looks and deducts: the sale's window, the buyer's limit, the stock, and whether the key has an order. It runs alone
//! in Redis, so there is no race to lose. The order goes into a stream in the same step, and the buyer is answered. One task, the
//! [`keeper`], carries orders from the stream to the database, and releases from the database to Redis.
//!
//! **The database is the final truth.** What is in Redis can be made from the ledger at any time, and is: when the service
//! starts, when Redis has lost its memory or was started again, and when the two are found to differ at rest. Until it is made,
//! Redis is closed: nothing is sold from a memory that may be out of date.
//!
//! **What is promised, and what is not.** Nothing is sold twice, and nobody gets more than the limit, whatever is killed. But an
//! order is acknowledged before the database has it. Whoever takes the memory of Redis away in the milliseconds between
//! (`FLUSHALL`; a machine without power, unless the append-only file is synced always; any restart without that file) takes
//! acknowledged orders with it. The harness finds them missing (I2).
//!
//! **Places in the ledger.** An order's number is its place in the ledger, and a prefix of the ledger has to be a state that the
//! stock went through. So numbers are drawn from the ledger's sequence in advance, and thrown away whenever units come back: an
//! order that gets units of a release has a later number than the release.
//!
//! It expects to be the only writer of its items' orders: one process of the service. A second one would close it out.

mod figures;
mod keeper;
mod scripts;

use std::pin::Pin;
use std::time::Duration;

use prometheus_client::registry::Registry;
use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use self::keeper::{Keeper, Shared};
use self::scripts::{IDS, OPEN, PENDING, STREAM, Scripts, meaning};
use super::{Answer, Inventory};
use crate::order::{Claim, Order, Refusal, Reservation, Settlement, Wanted};
use crate::store::{Store, StoreError, orders};

/// How often an attempt is repeated while Redis is being set up or lacks numbers.
const ATTEMPTS: usize = 4;
/// Orders that may be on their way to the database: so many are lost at most with the memory of Redis. Nobody is sold more
/// until some have arrived.
const BEHIND: usize = 20_000;
/// How long an answer of Redis is waited for.
const ANSWER: Duration = Duration::from_millis(1_000);
/// Least and longest wait between attempts to connect to Redis again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// The strategy.
pub struct RedisLua {
    store: Store,
    redis: ConnectionManager,
    shared: Shared,
}

/// What the script says.
enum Said {
    Held(Order),
    Known(Order),
    Refused(Refusal),
    /// It has to be set up first, or needs numbers: worth another try when the keeper has been round.
    NotYet,
}

impl RedisLua {
    /// The strategy on this database and this Redis. Its keeper starts at once and goes on until the process ends.
    ///
    /// # Errors
    /// The connection cannot be described; nobody is connected to yet.
    pub fn new(store: Store, client: redis::Client) -> Result<Self, redis::RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_min_delay(RECONNECT.0)
            .set_max_delay(RECONNECT.1)
            .set_number_of_retries(3);
        let redis = ConnectionManager::new_lazy_with_config(client, config)?;
        let shared = Keeper::start(store.clone(), redis.clone());
        Ok(Self { store, redis, shared })
    }

    async fn deduct(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        for _ in 0..ATTEMPTS {
            let said = match self.shared.scripts() {
                Some(scripts) => self.ask(&scripts, wanted).await?,
                None => Said::NotYet,
            };
            match said {
                Said::Held(order) => {
                    self.shared.wake();
                    return Ok(Reservation::Held(order));
                }
                Said::Known(order) => return self.replay(order, wanted).await,
                Said::Refused(refusal) => return Ok(Reservation::Refused(refusal)),
                Said::NotYet => self.shared.once_round().await?,
            }
        }
        Err(not_open())
    }

    async fn ask(&self, scripts: &Scripts, wanted: &Wanted) -> Result<Said, StoreError> {
        let Wanted { item, user, key, quantity, now } = wanted;
        let (stock, taken) = (scripts::item(*item), scripts::taken(*item));
        let under = scripts::key(user, key);
        let keys = [OPEN, stock.as_str(), taken.as_str(), under.as_str(), IDS, STREAM, PENDING];
        let mut call = scripts.call(&scripts.reserve, &keys);
        call.arg(item).arg(user).arg(key).arg(quantity).arg(now).arg(BEHIND);
        let said: Vec<String> = match call.query_async(&mut self.redis.clone()).await {
            Ok(said) => said,
            Err(error) if scripts::is_another_redis(&error) => {
                self.shared.close();
                return Ok(Said::NotYet);
            }
            Err(error) => return Err(meaning(&error)),
        };
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        match said[..] {
            ["held", order] => Ok(Said::Held(scripts::order_from(order, user, key)?)),
            ["known", order] => Ok(Said::Known(scripts::order_from(order, user, key)?)),
            ["refused", why] => Ok(Said::Refused(refusal(why)?)),
            ["closed"] => {
                self.shared.close();
                Ok(Said::NotYet)
            }
            ["no-ids"] => Ok(Said::NotYet),
            ["full"] => Err(StoreError::Full("the queue of orders on their way to the database")),
            _ => Err(StoreError::Corrupt("an answer of the script that it does not have")),
        }
    }

    /// The order that the key has already, as it stands by now.
    async fn replay(&self, known: Order, wanted: &Wanted) -> Result<Reservation, StoreError> {
        if (known.item, known.quantity) != (wanted.item, wanted.quantity) {
            return Ok(Reservation::Refused(Refusal::KeyReused));
        }
        let kept = orders::find(&self.store, &wanted.user, &wanted.key).await?;
        Ok(Reservation::Replayed(kept.unwrap_or(known)))
    }

    /// Pays or cancels an order, once it is in the database if it is on its way there.
    async fn pay_or_cancel(&self, claim: &Claim, how: How) -> Result<Settlement, StoreError> {
        match self.act(claim, how).await {
            Ok(Settlement::Refused(Refusal::UnknownOrder)) => {
                self.land(claim.order).await?;
                self.act(claim, how).await
            }
            // It arrived while it was looked for: now it is there.
            Err(StoreError::Contended(_)) => self.act(claim, how).await,
            outcome => outcome,
        }
    }

    async fn act(&self, claim: &Claim, how: How) -> Result<Settlement, StoreError> {
        match how {
            How::Pay => orders::pay(&self.store, claim).await,
            How::Cancel => orders::cancel(&self.store, claim).await,
        }
    }
}

/// How an order is settled.
#[derive(Clone, Copy)]
enum How {
    Pay,
    Cancel,
}

fn not_open() -> StoreError {
    StoreError::Contended("the stock in Redis is being set up".into())
}

fn refusal(why: &str) -> Result<Refusal, StoreError> {
    Ok(match why {
        "unknown-item" => Refusal::UnknownItem,
        "too-early" => Refusal::TooEarly,
        "ended" => Refusal::Ended,
        "limit-reached" => Refusal::LimitReached,
        "sold-out" => Refusal::SoldOut,
        _ => return Err(StoreError::Corrupt("a refusal of the script that it does not have")),
    })
}

impl Inventory for RedisLua {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.deduct(wanted))
    }

    /// One script is cheaper than a look at the database.
    fn look<'a>(&'a self, _wanted: &'a Wanted) -> Answer<'a, Option<Reservation>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(self.pay_or_cancel(claim, How::Pay))
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async {
            let settled = self.pay_or_cancel(claim, How::Cancel).await?;
            // Whoever is told that it is cancelled may buy the units again at once.
            self.shared.once_round().await?;
            Ok(settled)
        })
    }

    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(async move {
            let released = orders::expire(&self.store, now, batch).await?;
            if released > 0 {
                self.shared.once_round().await?;
            }
            Ok(released)
        })
    }

    fn find<'a>(&'a self, user: &'a str, key: &'a str) -> Answer<'a, Option<Order>> {
        Box::pin(async move {
            let scripts = self.shared.scripts();
            if let Some(order) = orders::find(&self.store, user, key).await? {
                return Ok(Some(order));
            }
            let generation = scripts.ok_or_else(not_open)?.generation;
            let mut both = redis::cmd("MGET");
            both.arg(OPEN).arg(scripts::key(user, key));
            let asked = both.query_async(&mut self.redis.clone()).await;
            let (open, known): (Option<String>, Option<String>) = asked.map_err(|error| meaning(&error))?;
            // Had Redis lost its memory since the database was asked, the order might still be on its way.
            if open.as_deref() != Some(&generation) {
                self.shared.wake();
                return Err(not_open());
            }
            known.map(|text| scripts::order_from(&text, user, key)).transpose()
        })
    }

    fn land(&self, order: i64) -> Answer<'_, bool> {
        Box::pin(async move {
            let asked = self.redis.clone().sismember(PENDING, order).await;
            let pending: bool = asked.map_err(|error| meaning(&error))?;
            if pending {
                self.shared.once_round().await?;
            }
            // Also if it is not pending: it may have arrived between the two questions.
            Ok(true)
        })
    }

    fn cached(&self, item: i64) -> Answer<'_, Vec<(&'static str, i64)>> {
        Box::pin(async move {
            let generation = self.shared.scripts().ok_or_else(not_open)?.generation;
            let mut both = redis::pipe();
            both.get(OPEN).hget(scripts::item(item), "available");
            let asked = both.query_async(&mut self.redis.clone()).await;
            let (open, available): (Option<String>, Option<i64>) = asked.map_err(|error| meaning(&error))?;
            match available {
                Some(units) if open.as_deref() == Some(&generation) => Ok(vec![("redis", units)]),
                _ => Err(not_open()),
            }
        })
    }

    fn forget(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.shared.start_over())
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Err(error) = self.shared.once_round().await {
                tracing::warn!(%error, "orders are left in Redis for now");
            }
        })
    }

    fn register(&self, registry: &mut Registry) {
        self.shared.figures().register(registry);
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Inventory::settle(self)
    }
}
