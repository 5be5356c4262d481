//! What becomes of an order after it was made, which is the same under every deduction strategy.
//!
//! **Lock order**: the item row, then order rows, then the purchase row. Reserving takes item, purchase and
//! inserts the order last; giving units back takes the item first although it only learns from the order
//! how many. Were the order row taken first, a twin of the reserving request could hold the item while
//! waiting for the key of an order that is being cancelled, which waits for the item. Paying locks the
//! order row alone.
//!
//! Common table expressions that modify data run in no fixed order among themselves, so each one reads
//! from the one that must come before it.

use tokio_postgres::Row;

use super::{Lease, Store, StoreError};
use crate::order::{Claim, Order, OrderState, Refusal, Reservation, Settlement, Wanted};

macro_rules! order_columns {
    ($table:literal) => {
        concat!(
            $table,
            ".id, ",
            $table,
            ".item_id, ",
            $table,
            ".user_id, ",
            $table,
            ".quantity, ",
            $table,
            ".amount_cents, ",
            $table,
            ".state, ",
            $table,
            ".created_at_us, ",
            $table,
            ".expires_at_us, ",
            $table,
            ".idempotency_key"
        )
    };
}
pub(crate) use order_columns;

const FIND_BY_KEY: &str = concat!(
    "SELECT ",
    order_columns!("o"),
    " FROM orders o WHERE o.user_id = $1 AND o.idempotency_key = $2 ORDER BY o.id LIMIT 1"
);

const FIND_BY_ID: &str = concat!("SELECT ", order_columns!("o"), " FROM orders o WHERE o.id = $1");

/// Only a hold that has not run out can be paid, judged on the row itself and under its lock: whichever of
/// payment and expiry comes first wins, and the other finds the state changed.
const PAY: &str = concat!(
    "WITH paid AS (
        UPDATE orders SET state = 'paid'
         WHERE id = $1::bigint AND user_id = $2::text AND state = 'held' AND expires_at_us > $3::bigint
        RETURNING *
     ), event AS (
        INSERT INTO order_event (order_id, kind, at_us, quantity)
        SELECT id, 'pay', $3, quantity FROM paid
        RETURNING order_id
     )
     SELECT ",
    order_columns!("paid"),
    " FROM paid JOIN event ON event.order_id = paid.id"
);

/// The release that cancelling and expiring share. `$lock` locks the item as `locked`, and then names the
/// orders to release as `due`; the statement's second parameter is now.
macro_rules! release_statement {
    (state: $state:literal, lock: $lock:literal) => {
        concat!(
            "WITH ",
            $lock,
            ", released AS (
                UPDATE orders o SET state = '",
            $state,
            "' FROM due
                 WHERE o.id = due.id AND o.state = 'held'
                RETURNING o.*
             ), restored AS (
                UPDATE item SET available = item.available + r.quantity
                  FROM (SELECT item_id, sum(quantity) AS quantity FROM released GROUP BY item_id) r
                 WHERE item.id = r.item_id
                RETURNING item.id
             ), returned AS (
                UPDATE purchase p SET quantity = p.quantity - r.quantity
                  FROM (SELECT released.item_id, released.user_id, sum(released.quantity) AS quantity
                          FROM released JOIN restored ON restored.id = released.item_id
                         GROUP BY 1, 2) r
                 WHERE p.item_id = r.item_id AND p.user_id = r.user_id
             ), event AS (
                INSERT INTO order_event (order_id, kind, at_us, reason, quantity)
                SELECT released.id, 'release', $2::bigint, '",
            $state,
            "', released.quantity
                  FROM released JOIN restored ON restored.id = released.item_id
                 ORDER BY released.id
                RETURNING order_id
             )
             SELECT ",
            order_columns!("released"),
            " FROM released JOIN event ON event.order_id = released.id"
        )
    };
}

const CANCEL: &str = release_statement!(
    state: "cancelled",
    lock: "locked AS MATERIALIZED (
                SELECT id FROM item
                 WHERE id = (SELECT item_id FROM orders
                              WHERE id = $1::bigint AND user_id = $3::text AND state = 'held')
                   FOR NO KEY UPDATE
             ), due AS MATERIALIZED (
                SELECT o.id FROM locked CROSS JOIN orders o
                 WHERE o.id = $1 AND o.item_id = locked.id AND o.state = 'held'
                   FOR NO KEY UPDATE OF o
             )"
);

const NEXT_DUE_ITEM: &str = "SELECT item_id FROM orders
      WHERE state = 'held' AND expires_at_us <= $1::bigint AND item_id <> ALL($2::bigint[])
      ORDER BY expires_at_us LIMIT 1";

/// Orders that are being paid at this moment are skipped: they are decided elsewhere, or due again in the
/// next round.
const EXPIRE: &str = release_statement!(
    state: "expired",
    lock: "locked AS MATERIALIZED (
                SELECT id FROM item WHERE id = $1::bigint FOR NO KEY UPDATE
             ), due AS MATERIALIZED (
                SELECT o.id FROM locked CROSS JOIN orders o
                 WHERE o.item_id = locked.id AND o.state = 'held' AND o.expires_at_us <= $2::bigint
                 ORDER BY o.expires_at_us
                 LIMIT $3::bigint
                   FOR NO KEY UPDATE OF o SKIP LOCKED
             )"
);

/// What of an item (`i`) is for sale, wherever it lies: in the pot, in shards, or in rows of its own.
macro_rules! spread_stock {
    () => {
        "(i.available
          + coalesce((SELECT sum(s.available) FROM stock_shard s WHERE s.item_id = i.id), 0)
          + (SELECT count(*) FROM stock_unit u WHERE u.item_id = i.id))::bigint"
    };
}
pub(crate) use spread_stock;

/// One row, whatever exists: the order under this key, the item, and what the user already has of it.
macro_rules! classify_statement {
    ($available:expr) => {
        concat!(
            "SELECT i.opens_at_us, i.closes_at_us, ",
            $available,
            " AS available, i.per_user_limit, coalesce(p.quantity, 0) AS taken, ",
            order_columns!("o"),
            " FROM (SELECT $1::bigint AS item_id, $2::text AS user_id, $3::text AS key) asked
              LEFT JOIN item i ON i.id = asked.item_id
              LEFT JOIN purchase p ON p.item_id = asked.item_id AND p.user_id = asked.user_id
              LEFT JOIN orders o ON o.user_id = asked.user_id AND o.idempotency_key = asked.key
             ORDER BY o.id LIMIT 1"
        )
    };
}

pub(crate) const CLASSIFY: &str = classify_statement!("i.available");

/// The same for stock that is spread over several rows. It reads all of them from one snapshot: units that are being moved, or
/// taken by somebody who may yet give up, are still seen where they were.
const CLASSIFY_SPREAD: &str = classify_statement!(spread_stock!());

/// Reads an order from a row that has its columns.
pub fn order_from(row: &Row) -> Result<Order, StoreError> {
    let state: &str = row.get("state");
    Ok(Order {
        id: row.get("id"),
        item: row.get("item_id"),
        user: row.get("user_id"),
        quantity: row.get("quantity"),
        amount_cents: row.get("amount_cents"),
        state: OrderState::parse(state).ok_or(StoreError::Corrupt("an order in an unknown state"))?,
        created_at: row.get("created_at_us"),
        expires_at: row.get("expires_at_us"),
        idempotency_key: row.get("idempotency_key"),
    })
}

/// The order that a user's key names, if it exists.
pub async fn find(store: &Store, user: &str, key: &str) -> Result<Option<Order>, StoreError> {
    let mut lease = store.lease().await?;
    let row = lease.query_opt(FIND_BY_KEY, &[&user, &key]).await?;
    row.as_ref().map(order_from).transpose()
}

/// The order with this number, if it exists.
pub async fn find_by_id(lease: &mut Lease, id: i64) -> Result<Option<Order>, StoreError> {
    let row = lease.query_opt(FIND_BY_ID, &[&id]).await?;
    row.as_ref().map(order_from).transpose()
}

/// Pays an order.
pub async fn pay(store: &Store, claim: &Claim) -> Result<Settlement, StoreError> {
    let mut lease = store.lease().await?;
    if let Some(row) = lease.query_opt(PAY, &[&claim.order, &claim.user, &claim.now]).await? {
        return Ok(Settlement::Settled(order_from(&row)?));
    }
    drop(lease);
    judge_payment(store, claim).await
}

/// Cancels an order and gives its units back, once.
pub async fn cancel(store: &Store, claim: &Claim) -> Result<Settlement, StoreError> {
    let mut lease = store.lease().await?;
    if let Some(row) = lease.query_opt(CANCEL, &[&claim.order, &claim.now, &claim.user]).await? {
        return Ok(Settlement::Settled(order_from(&row)?));
    }
    let order = find_by_id(&mut lease, claim.order).await?;
    if order.as_ref().is_some_and(|order| is_live(order, claim)) {
        return Err(changed_meanwhile());
    }
    Ok(judge(order, claim, |order| match order.state {
        // Nothing is held any more, which is what cancelling asks for.
        OrderState::Cancelled | OrderState::Expired | OrderState::Held | OrderState::Placed => None,
        OrderState::Paid => Some(Refusal::AlreadyPaid),
    }))
}

/// What a buyer is told whose payment has come to an end: the order says whether it is paid, or why not.
pub async fn judge_payment(store: &Store, claim: &Claim) -> Result<Settlement, StoreError> {
    let mut lease = store.lease().await?;
    let order = find_by_id(&mut lease, claim.order).await?;
    if order.as_ref().is_some_and(|order| is_live(order, claim) && order.expires_at > claim.now) {
        return Err(changed_meanwhile());
    }
    Ok(judge(order, claim, refusal_to_pay))
}

/// Why an order cannot be paid; nothing if it is.
pub fn refusal_to_pay(order: &Order) -> Option<Refusal> {
    match order.state {
        OrderState::Paid => None,
        OrderState::Cancelled => Some(Refusal::Cancelled),
        // A hold that ran out is refused even if the sweeper has not come by yet.
        OrderState::Expired | OrderState::Held | OrderState::Placed => Some(Refusal::HoldExpired),
    }
}

fn is_live(order: &Order, claim: &Claim) -> bool {
    order.state == OrderState::Held && order.user == claim.user
}

/// The statement saw no held order, yet there is one now. Nothing makes an order held again, so it was
/// committed in between: the caller may simply try again.
fn changed_meanwhile() -> StoreError {
    StoreError::Contended("the order changed meanwhile".into())
}

/// Decides about an order that the statement did not change.
pub fn judge(order: Option<Order>, claim: &Claim, refusal: impl FnOnce(&Order) -> Option<Refusal>) -> Settlement {
    match order {
        None => Settlement::Refused(Refusal::UnknownOrder),
        Some(order) if order.user != claim.user => Settlement::Refused(Refusal::NotOwner),
        Some(order) => match refusal(&order) {
            None => Settlement::Settled(order),
            Some(refusal) => Settlement::Refused(refusal),
        },
    }
}

/// Releases holds that have run out, up to so many of each item, and says how many it were: zero when there are none. An item that
/// somebody else has locked is passed over, so that it keeps no other item's units back; that is told if nothing else was due.
pub async fn expire(store: &Store, now: i64, batch: i64) -> Result<usize, StoreError> {
    let mut lease = store.lease().await?;
    let (mut items, mut released, mut locked): (Vec<i64>, _, _) = (Vec::new(), 0, None);
    while let Some(row) = lease.query_opt(NEXT_DUE_ITEM, &[&now, &items]).await? {
        let item = row.get(0);
        match lease.query(EXPIRE, &[&item, &now, &batch]).await {
            Ok(rows) => released += rows.len(),
            Err(error @ StoreError::Contended(_)) => locked = Some(error),
            Err(error) => return Err(error),
        }
        items.push(item);
    }
    match locked {
        Some(error) if released == 0 => Err(error),
        _ => Ok(released),
    }
}

/// Why a reserving statement reserved nothing, read without any lock. Nothing when no reason is left:
/// what stood in the way has gone since, and the attempt may be repeated.
pub async fn classify(lease: &mut Lease, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
    let row = lease.query_opt(CLASSIFY, &[&wanted.item, &wanted.user, &wanted.key]).await?;
    reason_from(row.as_ref(), wanted)
}

/// The same where stock is spread over several rows.
pub async fn classify_spread(lease: &mut Lease, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
    let row = lease.query_opt(CLASSIFY_SPREAD, &[&wanted.item, &wanted.user, &wanted.key]).await?;
    reason_from(row.as_ref(), wanted)
}

pub(crate) fn reason_from(row: Option<&Row>, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
    let row = row.ok_or(StoreError::Corrupt("a query that always has a row had none"))?;
    if row.get::<_, Option<i64>>("id").is_some() {
        return Ok(Some(replay(order_from(row)?, wanted)));
    }
    let Some(opens_at) = row.get::<_, Option<i64>>("opens_at_us") else {
        return Ok(Some(Reservation::Refused(Refusal::UnknownItem)));
    };
    let taken: i32 = row.get("taken");
    let refusal = if wanted.now < opens_at {
        Refusal::TooEarly
    } else if wanted.now >= row.get::<_, i64>("closes_at_us") {
        Refusal::Ended
    } else if taken.saturating_add(wanted.quantity) > row.get::<_, i32>("per_user_limit") {
        Refusal::LimitReached
    } else if row.get::<_, i64>("available") < i64::from(wanted.quantity) {
        Refusal::SoldOut
    } else {
        return Ok(None);
    };
    Ok(Some(Reservation::Refused(refusal)))
}

/// The answer to a key that already names an order.
pub fn replay(order: Order, wanted: &Wanted) -> Reservation {
    if order.item == wanted.item && order.quantity == wanted.quantity {
        Reservation::Replayed(order)
    } else {
        Reservation::Refused(Refusal::KeyReused)
    }
}
