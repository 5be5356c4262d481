//! The audit: stock and ledger, read from one snapshot of the database.
//!
//! What is available is the counter; what is held and sold are sums over the orders. The two are never
//! derived from one another, so that an audit can see them disagree. Each snapshot has a connection of its
//! own: a busy pool must not stand in the way of the truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::api::fresh;
use crate::app::App;
use crate::problem::{Kind, Problem};
use crate::store::orders::spread_stock;
use crate::store::{DirectClient, Store, StoreError, intents};

/// An old snapshot keeps dead rows from being cleaned up, which slows the hot row down.
const LIFETIME: Duration = Duration::from_secs(60);
const MAX_OPEN: usize = 4;
const DEFAULT_PAGE: i64 = 5_000;
const MAX_PAGE: i64 = 50_000;

const STOCK: &str = concat!(
    "SELECT i.id, i.stock_initial, coalesce(o.held, 0)::bigint AS held, coalesce(o.sold, 0)::bigint AS sold, ",
    spread_stock!(),
    " AS available, i.available AS pot,
           ARRAY(SELECT s.available FROM stock_shard s WHERE s.item_id = i.id ORDER BY s.shard) AS shards,
           (SELECT count(*) FROM stock_unit u WHERE u.item_id = i.id) AS units
      FROM item i
      LEFT JOIN (SELECT item_id,
                        sum(quantity) FILTER (WHERE state = 'held') AS held,
                        sum(quantity) FILTER (WHERE state = 'paid') AS sold
                   FROM orders GROUP BY item_id) o ON o.item_id = i.id
     ORDER BY i.id"
);

/// The `ledger` view, page by page: a limit on the view itself would make every page read all of it.
const LEDGER: &str = "
    SELECT * FROM (
        (SELECT o.id AS seq, o.created_at_us AS at_us, CASE WHEN o.placed THEN 'place' ELSE 'reserve' END AS kind,
                o.id AS order_id, o.item_id, o.user_id, o.quantity, o.amount_cents, o.idempotency_key, o.state,
                NULL AS reason, o.expires_at_us
           FROM orders o WHERE o.id > $1 ORDER BY o.id LIMIT $2)
        UNION ALL
        (SELECT e.seq, e.at_us, e.kind, e.order_id, o.item_id, o.user_id,
                e.quantity, o.amount_cents, o.idempotency_key, NULL, e.reason, NULL
           FROM (SELECT * FROM order_event WHERE seq > $1 ORDER BY seq LIMIT $2) e
           JOIN orders o ON o.id = e.order_id)
    ) page ORDER BY seq LIMIT $2";

/// One view of the database, for as long as it stays open.
struct Snapshot {
    name: String,
    client: DirectClient,
    as_of: i64,
    opened: Instant,
}

/// The open snapshots, by name.
#[derive(Default)]
pub struct Snapshots {
    open: Mutex<HashMap<String, Arc<Snapshot>>>,
}

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Snapshot>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every snapshot.
    pub fn close_all(&self) {
        self.lock().clear();
    }

    /// Closes the snapshots that have been open for too long.
    pub fn close_stale(&self) {
        self.lock().retain(|_, snapshot| snapshot.opened.elapsed() < LIFETIME);
    }

    fn close(&self, name: &str) {
        self.lock().remove(name);
    }

    fn get(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.close_stale();
        self.lock().get(name).cloned()
    }

    /// Opens a snapshot, in place of the oldest when there are too many.
    async fn open(&self, app: &App) -> Result<Arc<Snapshot>, Problem> {
        self.close_stale();
        // What was acknowledged and is on its way belongs to it. Where it cannot arrive now, the audit tells what is there.
        app.inventory.settle().await;
        let snapshot = Arc::new(Snapshot::open(&app.store, app.clock.now_us()).await?);
        let mut open = self.lock();
        if open.len() >= MAX_OPEN
            && let Some(oldest) = open.values().min_by_key(|snapshot| snapshot.opened).map(|oldest| oldest.name.clone())
        {
            open.remove(&oldest);
        }
        open.insert(snapshot.name.clone(), Arc::clone(&snapshot));
        Ok(snapshot)
    }

    async fn get_or_open(&self, app: &App, name: Option<&str>) -> Result<Arc<Snapshot>, Problem> {
        match name {
            Some(name) => self.get(name).ok_or_else(|| Kind::SnapshotGone.into()),
            None => self.open(app).await,
        }
    }
}

impl Snapshot {
    async fn open(store: &Store, as_of: i64) -> Result<Self, StoreError> {
        let client = store.connect().await?;
        // The transaction's first query takes the snapshot, and with it the name that Postgres gives it.
        client.batch_execute("SET statement_timeout = '30s'; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let name: String = client.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
        Ok(Self { name, client, as_of, opened: Instant::now() })
    }
}

#[derive(Deserialize)]
pub(super) struct StockQuery {
    snapshot: Option<String>,
    /// Whoever only wants the stock closes the snapshot at once.
    #[serde(default)]
    close: bool,
}

pub(super) async fn stock(State(app): State<Arc<App>>, Query(query): Query<StockQuery>) -> Result<Response, Problem> {
    let snapshot = app.snapshots.get_or_open(&app, query.snapshot.as_deref()).await?;
    let rows = snapshot.client.query(STOCK, &[]).await.map_err(StoreError::from)?;
    if query.close {
        app.snapshots.close(&snapshot.name);
    }
    let mut items: Vec<Value> = Vec::with_capacity(rows.len());
    for row in &rows {
        let item: i64 = row.get("id");
        items.push(json!({
            "item": item,
            "initial": row.get::<_, i64>("stock_initial"),
            "available": row.get::<_, i64>("available"),
            "held": row.get::<_, i64>("held"),
            "sold": row.get::<_, i64>("sold"),
            "shards": parts(row),
            // No part of the snapshot, but at rest they have to agree with it (M3). One that cannot be asked says nothing.
            "caches": app.inventory.cached(item).await.unwrap_or_default(),
        }));
    }
    Ok(fresh(StatusCode::OK, &json!({"snapshot": snapshot.name, "as_of": snapshot.as_of, "items": items})))
}

/// The counters that make up what is available, where it is more than one: the pot, then the shards or the rows of units.
fn parts(row: &Row) -> Vec<i64> {
    let (shards, units): (Vec<i64>, i64) = (row.get("shards"), row.get("units"));
    if shards.is_empty() && units == 0 {
        return Vec::new();
    }
    let units = (units > 0).then_some(units);
    [row.get("pot")].into_iter().chain(shards).chain(units).collect()
}

#[derive(Deserialize)]
pub(super) struct LedgerQuery {
    snapshot: Option<String>,
    after: Option<i64>,
    limit: Option<i64>,
}

pub(super) async fn ledger(State(app): State<Arc<App>>, Query(query): Query<LedgerQuery>) -> Result<Response, Problem> {
    let snapshot = app.snapshots.get_or_open(&app, query.snapshot.as_deref()).await?;
    let after = query.after.unwrap_or(0);
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    // One more than asked for tells whether there is another page.
    let mut rows = snapshot.client.query(LEDGER, &[&after, &(limit + 1)]).await.map_err(StoreError::from)?;
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| row.get::<_, i64>("seq"));
    if !more {
        app.snapshots.close(&snapshot.name);
    }
    let entries: Vec<Value> = rows.iter().map(entry).collect();
    let page = json!({"snapshot": snapshot.name, "as_of": snapshot.as_of, "entries": entries, "next": next});
    Ok(fresh(StatusCode::OK, &page))
}

/// Payments that are begun and not ended. What became of the others is in the payment dependency's own books.
pub(super) async fn payments(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let as_of = app.clock.now_us();
    let open = intents::open(&app.store).await?;
    let intents: Vec<Value> = open
        .iter()
        .map(|intent| {
            json!({
                "key": intent.key,
                "order": intent.order.to_string(),
                "amount_cents": intent.amount_cents,
                "state": intent.state.as_str(),
            })
        })
        .collect();
    Ok(fresh(StatusCode::OK, &json!({"as_of": as_of, "open": intents.len(), "intents": intents})))
}

fn entry(row: &Row) -> Value {
    json!({
        "seq": row.get::<_, i64>("seq"),
        "at": row.get::<_, i64>("at_us"),
        "kind": row.get::<_, &str>("kind"),
        "order": row.get::<_, i64>("order_id").to_string(),
        "item": row.get::<_, i64>("item_id"),
        "user": row.get::<_, &str>("user_id"),
        "quantity": row.get::<_, i32>("quantity"),
        "amount_cents": row.get::<_, i64>("amount_cents"),
        "key": row.get::<_, &str>("idempotency_key"),
        "state": row.get::<_, Option<&str>>("state"),
        "reason": row.get::<_, Option<&str>>("reason"),
        "expires_at": row.get::<_, Option<i64>>("expires_at_us"),
    })
}
