//! The database as the keeper needs it: the sale as it stands, orders to write behind, releases to take over.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::scripts::{self, order_text};
use crate::order::Order;
use crate::store::orders::{self, order_columns};
use crate::store::{Store, StoreError};

/// No statement lasts this long, so that after it every place in the ledger that was drawn before is visible or given up.
const SETTLED: Duration = Duration::from_secs(5);

const ITEMS: &str =
    "SELECT i.id, i.available, i.price_cents, i.per_user_limit, i.opens_at_us, i.closes_at_us, i.hold_ms,
        coalesce((SELECT max(e.seq) FROM order_event e JOIN orders o ON o.id = e.order_id
                   WHERE e.kind = 'release' AND o.item_id = i.id), 0)
   FROM item i";

const TAKEN: &str = "SELECT item_id, user_id, quantity FROM purchase WHERE quantity > 0";

const ORDERS: &str = concat!("SELECT ", order_columns!("o"), " FROM orders o");

/// Orders that are there already are left alone: a batch may be written more than once. The item's row is locked first, as
/// everywhere, and what is deducted is what was really inserted.
const WRITE: &str = "WITH asked AS (
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[])
          AS asked(id, item_id, user_id, key, quantity, amount, created, expires)
     ), locked AS MATERIALIZED (
        SELECT id, per_user_limit FROM item WHERE id IN (SELECT item_id FROM asked) ORDER BY id FOR NO KEY UPDATE
     ), made AS (
        INSERT INTO orders (id, item_id, user_id, idempotency_key, quantity, amount_cents, state, created_at_us, expires_at_us)
        SELECT a.id, a.item_id, a.user_id, a.key, a.quantity, a.amount, 'held', a.created, a.expires
          FROM asked a JOIN locked ON locked.id = a.item_id ORDER BY a.id
        ON CONFLICT DO NOTHING
        RETURNING item_id, user_id, quantity
     ), deducted AS (
        UPDATE item SET available = item.available - m.quantity
          FROM (SELECT item_id, sum(quantity) AS quantity FROM made GROUP BY item_id) m
         WHERE item.id = m.item_id
     )
     INSERT INTO purchase AS p (item_id, user_id, quantity, max_quantity)
     SELECT made.item_id, made.user_id, sum(made.quantity)::int, min(locked.per_user_limit)
       FROM made JOIN locked ON locked.id = made.item_id
      GROUP BY made.item_id, made.user_id ORDER BY made.item_id, made.user_id
     ON CONFLICT (item_id, user_id) DO UPDATE SET quantity = p.quantity + excluded.quantity";

const RELEASES: &str = "SELECT e.seq, o.item_id, o.user_id, e.quantity
   FROM order_event e JOIN orders o ON o.id = e.order_id
  WHERE e.kind = 'release' AND e.seq > $1::bigint ORDER BY e.seq";

/// The database, and how far its releases were taken over.
pub(super) struct Ledger {
    store: Store,
    /// Places in the ledger, and when they were its last.
    places: VecDeque<(Instant, i64)>,
    /// Everything up to this place was taken over.
    taken_over: i64,
    /// Releases beyond that which were, so that they are not sent again and again.
    seen: HashMap<i64, i64>,
}

/// A release that the database has committed.
pub(super) struct Release {
    pub seq: i64,
    pub item: i64,
    pub user: String,
    pub quantity: i32,
}

/// An item as it stands.
pub(super) struct Item {
    id: i64,
    terms: Vec<(&'static str, i64)>,
    applied: i64,
}

/// The sale as it stands.
pub(super) struct Sale {
    pub items: Vec<Item>,
    taken: Vec<(i64, String, i32)>,
    pub orders: Vec<Order>,
}

impl Ledger {
    pub(super) fn new(store: Store) -> Self {
        Self { store, places: VecDeque::new(), taken_over: 0, seen: HashMap::new() }
    }

    /// The sale, from one snapshot.
    pub(super) async fn read(&mut self) -> Result<Sale, StoreError> {
        let mut client = self.store.connect().await?;
        client.batch_execute("SET statement_timeout = '10s'").await?;
        let builder = client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        let snapshot = builder.read_only(true).start().await?;
        let mut items = Vec::new();
        for row in snapshot.query(ITEMS, &[]).await? {
            let limit: i32 = row.get(3);
            let terms = vec![
                ("available", row.get(1)),
                ("price", row.get(2)),
                ("limit", i64::from(limit)),
                ("opens", row.get(4)),
                ("closes", row.get(5)),
                ("hold", row.get(6)),
            ];
            items.push(Item { id: row.get(0), terms, applied: row.get(7) });
        }
        let taken = snapshot.query(TAKEN, &[]).await?.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let rows = snapshot.query(ORDERS, &[]).await?;
        let orders = rows.iter().map(orders::order_from).collect::<Result<_, _>>()?;
        snapshot.commit().await?;
        (self.taken_over, self.seen) = (0, items.iter().map(|item| (item.id, item.applied)).collect());
        self.places.clear();
        Ok(Sale { items, taken, orders })
    }

    /// Writes orders that are not there yet, all or none.
    pub(super) async fn write(&self, orders: &[Order]) -> Result<(), StoreError> {
        let column = |of: fn(&Order) -> i64| orders.iter().map(of).collect::<Vec<i64>>();
        let users: Vec<&str> = orders.iter().map(|order| order.user.as_str()).collect();
        let keys: Vec<&str> = orders.iter().map(|order| order.idempotency_key.as_str()).collect();
        let quantities: Vec<i32> = orders.iter().map(|order| order.quantity).collect();
        let (ids, items) = (column(|order| order.id), column(|order| order.item));
        let (amounts, created) = (column(|order| order.amount_cents), column(|order| order.created_at));
        let expires = column(|order| order.expires_at);
        let mut lease = self.store.lease().await?;
        lease.query(WRITE, &[&ids, &items, &users, &keys, &quantities, &amounts, &created, &expires]).await?;
        Ok(())
    }

    /// Releases that were not taken over yet, in the order of the ledger. Within an item that is the order of their commits.
    pub(super) async fn releases(&mut self) -> Result<Vec<Release>, StoreError> {
        let mut lease = self.store.lease().await?;
        let last = lease.query("SELECT last_value FROM ledger_seq", &[]).await?;
        let last: i64 = last.first().map_or(0, |row| row.get(0));
        let rows = lease.query(RELEASES, &[&self.taken_over]).await?;
        let mut releases: Vec<Release> = rows
            .iter()
            .map(|row| Release { seq: row.get(0), item: row.get(1), user: row.get(2), quantity: row.get(3) })
            .collect();
        releases.retain(|release| self.seen.get(&release.item).is_none_or(|seen| release.seq > *seen));
        self.places.push_back((Instant::now(), last));
        Ok(releases)
    }

    /// A release was taken over.
    pub(super) fn took_over(&mut self, release: &Release) {
        self.seen.insert(release.item, release.seq);
    }

    /// All releases that were found have been taken over: what lies long enough before them need not be read again.
    pub(super) fn all_taken_over(&mut self) {
        // The place was the last one long ago, and what was found was read after that.
        while self.places.front().is_some_and(|(at, _)| at.elapsed() > SETTLED) {
            self.taken_over = self.places.pop_front().map_or(self.taken_over, |(_, place)| place);
        }
    }

    /// Numbers for orders, which are places in the ledger.
    pub(super) async fn numbers(&self, count: i64) -> Result<Vec<i64>, StoreError> {
        let mut lease = self.store.lease().await?;
        let rows = lease.query("SELECT nextval('ledger_seq') FROM generate_series(1, $1::bigint)", &[&count]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What is available of each item.
    pub(super) async fn available(&self) -> Result<HashMap<i64, i64>, StoreError> {
        let rows = self.store.lease().await?.query("SELECT id, available FROM item", &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

impl Sale {
    /// What puts it into an empty Redis.
    pub(super) fn commands(&self) -> Vec<redis::Cmd> {
        let items = self.items.iter().map(|item| {
            let mut command = redis::cmd("HSET");
            command.arg(scripts::item(item.id)).arg("applied").arg(item.applied);
            for (name, value) in &item.terms {
                command.arg(*name).arg(*value);
            }
            command
        });
        let taken = self.taken.iter().map(|(item, user, quantity)| {
            let mut command = redis::cmd("HSET");
            command.arg(scripts::taken(*item)).arg(user).arg(*quantity);
            command
        });
        let orders = self.orders.iter().map(|order| {
            let mut command = redis::cmd("SET");
            command.arg(scripts::key(&order.user, &order.idempotency_key)).arg(order_text(order));
            command
        });
        items.chain(taken).chain(orders).collect()
    }
}
