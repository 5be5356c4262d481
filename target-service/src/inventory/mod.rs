//! How stock is deducted: one file per strategy behind one trait, chosen at start.
//!
//! A strategy owns the reservation. What follows it (paying, cancelling, expiring, finding by key) is the
//! same for all strategies that keep their orders in the database, and is provided here.

mod at_payment;
mod batch;
mod check_constraint;
mod conditional_update;
mod item_queue;
mod redis_lua;
mod shards;
mod step_by_step;
mod transaction;
mod unit_rows;

use std::fmt;
use std::future::Future;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::order::{Claim, Order, Reservation, Settlement, Wanted};
use crate::store::{Store, StoreError, orders};

pub use at_payment::AtPayment;
pub use batch::Batch;
pub use check_constraint::CheckConstraint;
pub use conditional_update::ConditionalUpdate;
use conditional_update::{deduct, deduct_and_commit, held};
pub(crate) use conditional_update::{reserve_by, reserve_statement};
pub use item_queue::ItemQueue;
pub use redis_lua::RedisLua;
pub use shards::Shards;
pub use step_by_step::StepByStep;
pub use transaction::Transaction;
pub use unit_rows::UnitRows;

/// What a strategy promises to deliver.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A way to deduct stock.
///
/// Whatever the strategy, a refusal means that nothing was or will be committed for the request. What is
/// uncertain is an error.
pub trait Inventory: Send + Sync {
    /// The database that holds the orders.
    fn store(&self) -> &Store;

    /// Sets units aside for a buyer, once per key.
    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation>;

    /// Why nothing could be reserved at this moment, looked at without a lock. Nothing if nothing is in the way, or if the
    /// strategy has a cheaper way to know.
    fn look<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Option<Reservation>> {
        Box::pin(async {
            let mut lease = self.store().lease().await?;
            orders::classify(&mut lease, wanted).await
        })
    }

    /// Turns a hold into a sale.
    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(orders::pay(self.store(), claim))
    }

    /// What a buyer is told whose payment has come to an end: the order says whether it is paid, or why not.
    fn judge<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(orders::judge_payment(self.store(), claim))
    }

    /// Gives a hold's units back because its owner asks for it.
    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(orders::cancel(self.store(), claim))
    }

    /// Gives back the units of up to `batch` holds of each item that have run out, and says how many holds it were.
    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(orders::expire(self.store(), now, batch))
    }

    /// The order under a user's key.
    fn find<'a>(&'a self, user: &'a str, key: &'a str) -> Answer<'a, Option<Order>> {
        Box::pin(orders::find(self.store(), user, key))
    }

    /// Brings an order that was acknowledged into the database, if it may still be on its way there; says whether it may have been.
    /// What settles an order by statements on the database asks this before it says that there is no such order.
    fn land(&self, _order: i64) -> Answer<'_, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Forgets whatever is kept in memory about earlier sales.
    fn forget(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// Brings into the database what was acknowledged and is still on its way there.
    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    /// Units of an item that each cache beside the database says are available, by the cache's name. At rest they are those that
    /// the database has.
    fn cached(&self, _item: i64) -> Answer<'_, Vec<(&'static str, i64)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Shows its own counters and gauges, beside those that all strategies share.
    fn register(&self, _: &mut Registry) {}

    /// Finishes what is under way before the process ends.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// The strategies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// One statement deducts if enough is left and inserts the order.
    #[default]
    ConditionalUpdate,
    /// The same as two statements in a transaction, each in a trip of its own: the row stays locked over three of them.
    StepByStep,
    /// A transaction locks the item, looks, and deducts or rolls back.
    Transaction,
    /// The column's constraint refuses what is not there; nothing is looked at beforehand.
    CheckConstraint,
    /// A bounded queue for each item in front of the conditional update.
    ItemQueue,
    /// Whoever waits for the same item is served by one transaction; sold out is refused from memory.
    Batch,
    /// Stock lies in shards that are served side by side; when one runs dry, what is left is dealt out anew.
    Shards,
    /// Each unit has a row, and whoever buys takes one that nobody else is taking.
    UnitRows,
    /// A script in Redis deducts, and the order is persisted behind it.
    RedisLua,
}

/// What strategies are built on.
pub struct Ground {
    /// The database that holds the orders.
    pub store: Store,
    /// The Redis, if there is one.
    pub redis: Option<redis::Client>,
    /// Shards of each item, where stock lies in shards.
    pub shards: NonZeroU16,
    /// Buyers of one item that may wait at once, where they wait in the service.
    pub queue: usize,
}

/// Why a strategy cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Unbuilt {
    /// It was not told of any Redis.
    #[error("{0} needs a Redis: name it with --redis-url redis://127.0.0.1:6379")]
    NeedsRedis(String),
    /// The connection cannot be described.
    #[error("the connection to Redis cannot be set up: {0}")]
    Redis(#[from] redis::RedisError),
}

impl Strategy {
    /// Whether it works with a Redis beside the database.
    pub fn needs_redis(self) -> bool {
        self == Self::RedisLua
    }

    /// Builds the strategy. To be called within the runtime.
    ///
    /// # Errors
    /// It needs a Redis, and there is none.
    pub fn build(self, ground: &Ground) -> Result<Arc<dyn Inventory>, Unbuilt> {
        let store = ground.store.clone();
        Ok(match self {
            Self::ConditionalUpdate => Arc::new(ConditionalUpdate::new(store)),
            Self::StepByStep => Arc::new(StepByStep::new(store)),
            Self::Transaction => Arc::new(Transaction::new(store)),
            Self::CheckConstraint => Arc::new(CheckConstraint::new(store)),
            Self::ItemQueue => Arc::new(ItemQueue::new(store, ground.queue)),
            Self::Batch => Arc::new(Batch::new(store, ground.queue)),
            Self::Shards => Arc::new(Shards::new(store, ground.shards)),
            Self::UnitRows => Arc::new(UnitRows::new(store)),
            Self::RedisLua => {
                let redis = ground.redis.clone().ok_or_else(|| Unbuilt::NeedsRedis(format!("the strategy {self}")))?;
                Arc::new(RedisLua::new(store, redis)?)
            }
        })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConditionalUpdate => "conditional-update",
            Self::StepByStep => "step-by-step",
            Self::Transaction => "transaction",
            Self::CheckConstraint => "check-constraint",
            Self::ItemQueue => "item-queue",
            Self::Batch => "batch",
            Self::Shards => "shards",
            Self::UnitRows => "unit-rows",
            Self::RedisLua => "redis-lua",
        })
    }
}
