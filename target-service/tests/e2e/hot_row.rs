//! What the strategies do about the hot row, each by a check that another one does not pass.

use std::time::Duration;

use crate::support::postgres::Postgres;
use crate::support::service::{Buyer, Service, Stock};
use crate::support::{eventually, item, with};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(5);
/// Statements that wait for a lock, of whatever kind.
const WAITERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

fn start(postgres: &Postgres, strategy: &str, more: &[&str]) -> Service {
    let arguments = [&["--strategy", strategy, "--pool-size", "8", "--lock-timeout", "10s"], more].concat();
    let timeouts = ["--statement-timeout", "10s", "--query-timeout", "12s", "--request-timeout", "12s"];
    Service::start_with(&postgres.url(), &[arguments.as_slice(), &timeouts].concat())
}

async fn crowd(service: &Service, buyers: usize) -> Vec<Buyer> {
    let mut crowd = Vec::new();
    for n in 0..buyers {
        crowd.push(service.buyer(&format!("u{n}")).await);
    }
    crowd
}

fn all_order(crowd: Vec<Buyer>) -> JoinSet<u16> {
    let mut orders = JoinSet::new();
    for mut buyer in crowd {
        orders.spawn(async move { buyer.order(1, "k").await.status });
    }
    orders
}

async fn waiters(client: &tokio_postgres::Client) -> i64 {
    client.query_one(WAITERS, &[]).await.unwrap().get(0)
}

/// Somebody holds an item's row, thirty buyers want it, and one wants another item. How many statements wait in the database,
/// and whether he gets it meanwhile; then all others do. Returns the most waiters and what he was told.
async fn a_row_is_held(postgres: &Postgres, strategy: &str) -> (i64, u16, i64) {
    let service = start(postgres, strategy, &["--pool-wait", "1s"]);
    service.reset(&[item(1_000, 1), with(item(10, 1), "id", 2)]).await;
    let crowd = crowd(&service, 30).await;
    let mut other = service.buyer("other").await;
    let client = postgres.client().await;
    let mut holder = postgres.client().await;
    let held = holder.transaction().await.unwrap();
    held.execute("SELECT FROM item WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
    let orders = all_order(crowd);
    eventually("buyers wait for the row", SOON, async || waiters(&client).await > 0).await;
    let path = "/items/2/orders";
    let told = other.send("POST", path, &[("Idempotency-Key", "k")], r#"{"quantity":1}"#).await.unwrap().status;
    // Whoever has to wait in the database does so by now: the other one came after them.
    let most = waiters(&client).await;
    held.rollback().await.unwrap();
    let bought = orders.join_all().await.into_iter().filter(|status| *status == 201).count() as i64;
    let transactions = "SELECT count(DISTINCT xmin::text) FROM orders WHERE item_id = 1";
    let transactions: i64 = client.query_one(transactions, &[]).await.unwrap().get(0);
    assert_eq!(service.stock().await, Stock { initial: 1_000, available: 1_000 - bought, held: bought, sold: 0 });
    (most, told, bought - transactions)
}

/// W2: few statements of an item are in the database, so that other items find a connection. W3: whoever waited is served by one
/// transaction. Without either, the hot row takes the whole pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hot_row_does_not_take_the_pool() {
    let postgres = Postgres::start();
    let (most, other, together) = a_row_is_held(&postgres, "conditional-update").await;
    assert!(most >= 7 && other == 503 && together == 0, "{most} waiters, {other}, {together}");
    let (most, other, together) = a_row_is_held(&postgres, "item-queue").await;
    assert!(most <= 2 && other == 201 && together == 0, "{most} waiters, {other}, {together}");
    let (most, other, together) = a_row_is_held(&postgres, "batch").await;
    assert!(most <= 1 && other == 201 && together >= 25, "{most} waiters, {other}, {together}");
}

/// W6: everybody is sent to the same shard, and nothing is stranded in the others. Bug 11 strands it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skewed_routing_strands_nothing() {
    let postgres = Postgres::start();
    for (more, sold) in [(&["--shards", "10"] as &[&str], 100), (&["--bug", "11", "--allow-seeded-bugs"], 0)] {
        let service = start(&postgres, "shards", more);
        service.reset(&[item(100, 100)]).await;
        let mut buyer = service.buyer("one").await;
        let mut bought = 0;
        while buyer.order(1, &format!("k{bought}")).await.status == 201 {
            bought += 1;
            let audit = service.admin("GET", "/audit/stock?close=true", None).await;
            let parts = audit["items"][0]["shards"].as_array().unwrap();
            let units: i64 = parts.iter().map(|units| units.as_i64().unwrap()).sum();
            assert_eq!(units, 100 - bought, "{parts:?}");
        }
        let stock = service.stock().await;
        assert!(stock.is_conserved(), "{stock:?}");
        if sold == 100 {
            assert_eq!((bought, stock.available), (100, 0));
            assert!(service.metric("seckill_stock_moves_total").await > 1.0);
        } else {
            assert!(bought < 20 && stock.available > 80, "bug 11 stranded nothing: {stock:?}");
        }
    }
}

/// The trap of SKIP LOCKED: every unit is being taken by somebody who gives up in the end. The next one must not be told that
/// the item is sold out meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_others_have_locked_may_come_back() {
    let postgres = Postgres::start();
    let service = start(&postgres, "unit-rows", &[]);
    service.reset(&[item(3, 1)]).await;
    assert_eq!(service.buyer("first").await.order(1, "k").await.status, 201);
    let client = postgres.client().await;
    let mut holder = postgres.client().await;
    let held = holder.transaction().await.unwrap();
    assert_eq!(held.execute("DELETE FROM stock_unit", &[]).await.unwrap(), 2);
    let orders = all_order(crowd(&service, 3).await);
    eventually("somebody waits", SOON, async || waiters(&client).await > 0).await;
    held.rollback().await.unwrap();
    let mut told = orders.join_all().await;
    told.sort_unstable();
    assert_eq!(told, [201, 201, 409]);
    assert_eq!(service.stock().await, Stock { initial: 3, available: 0, held: 3, sold: 0 });
}

/// What lies in shards or rows is for sale under every other strategy, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_is_for_sale_however_it_was_spread_before() {
    let postgres = Postgres::start();
    start(&postgres, "shards", &[]).reset(&[item(40, 40)]).await;
    let mut sold = 0;
    for strategy in ["shards", "unit-rows", "conditional-update", "shards"] {
        let service = start(&postgres, strategy, &[]);
        let mut buyer = service.buyer("u").await;
        assert_eq!(buyer.order(10, strategy).await.status, if sold == 30 { 200 } else { 201 }, "{strategy}");
        sold = (sold + 10).min(30);
        let state = buyer.send("GET", "/items/1/state", &[], "").await.unwrap().json();
        assert_eq!(state["available"], 40 - sold, "{strategy}");
        assert_eq!(service.stock().await, Stock { initial: 40, available: 40 - sold, held: sold, sold: 0 });
    }
}
