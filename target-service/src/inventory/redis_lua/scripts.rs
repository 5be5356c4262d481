//! The names of what is kept in Redis, and the scripts that change it.

use redis::aio::ConnectionManager;
use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::order::{Order, OrderState};
use crate::store::StoreError;

/// Who may sell: the generation that was set up last. Without it the stock is closed.
pub(super) const OPEN: &str = "seckill:open";
/// Numbers for orders, drawn from the ledger's sequence in advance.
pub(super) const IDS: &str = "seckill:ids";
/// How often units came back.
pub(super) const RETURNS: &str = "seckill:returns";
/// Orders on their way to the database.
pub(super) const STREAM: &str = "seckill:orders";
/// Their numbers.
pub(super) const PENDING: &str = "seckill:pending";
/// Everything that belongs to the service.
pub(super) const EVERYTHING: &str = "seckill:*";

/// Stock and terms of an item.
pub(super) fn item(id: i64) -> String {
    format!("seckill:item:{id}")
}

/// What each user has of an item.
pub(super) fn taken(item: i64) -> String {
    format!("seckill:taken:{item}")
}

/// The order under a user's key. The length keeps one user's key from being another's.
pub(super) fn key(user: &str, key: &str) -> String {
    format!("seckill:key:{}:{user}:{key}", user.len())
}

/// The scripts as one generation has loaded them.
///
/// They are only ever called by their digest, and their text names the generation. A Redis that was started again, or that was
/// a replica until now, has no scripts, whatever its data claim: so it can never sell from data that are out of date.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    /// The generation.
    pub generation: String,
    pub reserve: String,
    pub give_back: String,
    pub refill: String,
}

impl Scripts {
    pub(super) async fn load(redis: &mut ConnectionManager, generation: String) -> Result<Self, RedisError> {
        let mut digests = Vec::new();
        for text in [include_str!("reserve.lua"), include_str!("give_back.lua"), include_str!("refill.lua")] {
            let text = format!("-- {generation}\n{text}");
            digests.push(redis::cmd("SCRIPT").arg("LOAD").arg(text).query_async::<String>(redis).await?);
        }
        let mut digests = digests.into_iter();
        let mut next = || digests.next().unwrap_or_default();
        Ok(Self { generation, reserve: next(), give_back: next(), refill: next() })
    }

    /// A call of one of them.
    pub(super) fn call(&self, digest: &str, keys: &[&str]) -> redis::Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(digest).arg(keys.len()).arg(keys).arg(&self.generation);
        call
    }
}

/// Whether a script is unknown: the Redis is not the one that was set up.
pub(super) fn is_another_redis(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// What a failed command means for the request that needed it.
pub(super) fn meaning(error: &RedisError) -> StoreError {
    if error.is_connection_refusal() {
        StoreError::Unreachable(format!("redis: {error}"))
    } else if error.is_timeout() {
        StoreError::Timeout
    } else if matches!(error.kind(), ErrorKind::Server(_)) {
        StoreError::Query(format!("redis: {error}"))
    } else {
        // The connection broke: the script may have run.
        StoreError::Lost(format!("redis: {error}"))
    }
}

/// Reads an order as the script writes it: `id|item|quantity|amount|created|expires`.
pub(super) fn order_from(text: &str, user: &str, key: &str) -> Result<Order, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("an order in Redis that is none");
    let numbers: Result<Vec<i64>, _> = text.split('|').map(str::parse).collect();
    let [id, item, quantity, amount_cents, created_at, expires_at] = numbers.map_err(|_| CORRUPT)?[..] else {
        return Err(CORRUPT);
    };
    Ok(Order {
        id,
        item,
        user: user.to_owned(),
        quantity: quantity.try_into().map_err(|_| CORRUPT)?,
        amount_cents,
        state: OrderState::Held,
        created_at,
        expires_at,
        idempotency_key: key.to_owned(),
    })
}

/// Writes an order as the script does.
pub(super) fn order_text(order: &Order) -> String {
    let Order { id, item, quantity, amount_cents, created_at, expires_at, .. } = order;
    format!("{id}|{item}|{quantity}|{amount_cents}|{created_at}|{expires_at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_spelling() {
        let order = order_from("17|1|2|3800|1700000000000000|1700000003000000", "u1", "k1").unwrap();
        assert_eq!((order.id, order.item, order.quantity, order.amount_cents), (17, 1, 2, 3800));
        assert_eq!(order_from(&order_text(&order), "u1", "k1").unwrap(), order);
        for text in ["", "17", "17|1|x|3800|1|2", "17|1|2|3800|1|2|3", "17|1|99999999999|3800|1|2"] {
            assert!(order_from(text, "u1", "k1").is_err(), "{text}");
        }
    }

    #[test]
    fn no_two_buyers_share_a_key() {
        assert_ne!(key("a:b", "c"), key("a", "b:c"));
    }
}
