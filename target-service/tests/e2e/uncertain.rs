//! Statements that outlive the patience of the service: what is said, and what is not said, until they can no longer take effect.

use std::time::Duration;

use crate::support::postgres::Postgres;
use crate::support::proxy::LossyProxy;
use crate::support::service::{Service, Stock};
use crate::support::{eventually, item, with};

const SOON: Duration = Duration::from_secs(5);
const WAITERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

async fn waiters(client: &tokio_postgres::Client) -> i64 {
    client.query_one(WAITERS, &[]).await.unwrap().get(0)
}

/// Somebody holds the item's row, and the service is cut off from an order's statement that waits for it. Until the statement is at
/// its end nobody hears that there is no such order, nor that the item is sold out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_doubt_as_long_as_its_statement_may_take_effect() {
    let postgres = Postgres::start();
    let client = postgres.client().await;
    for strategy in ["conditional-update", "transaction", "item-queue", "batch"] {
        let proxy = LossyProxy::start(&postgres.socket()).await;
        let patient = ["--query-timeout", "12s", "--lock-timeout", "2s", "--statement-timeout", "2s"];
        let service = Service::start_with(&proxy.url(), &[&["--strategy", strategy], &patient[..]].concat());
        service.reset(&[item(1, 1)]).await;
        let (mut buyer, mut asking) = (service.buyer("u").await, service.buyer("u").await);
        let mut holder = postgres.client().await;
        let held = holder.transaction().await.unwrap();
        held.execute("SELECT FROM item WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
        let order = tokio::spawn(async move { buyer.order(1, "k").await });
        eventually("the statement waits", SOON, async || waiters(&client).await > 0).await;
        proxy.cut();
        let told = order.await.unwrap();
        assert_eq!(told.status, 503, "{strategy}: {told:?}");
        let looked = asking.find("k").await;
        assert_eq!((looked.status, looked.problem()), (409, "in-flight".to_owned()), "{strategy}: {looked:?}");
        let retried = asking.order(1, "k").await;
        assert_eq!((retried.status, retried.problem()), (409, "in-flight".to_owned()), "{strategy}: {retried:?}");
        held.rollback().await.unwrap();
        // Either it took effect, which is seen at once, or it did not, which is known in the end.
        let mut known = asking.find("k").await.status;
        eventually("the end of the doubt", 2 * SOON, async || {
            known = asking.find("k").await.status;
            known != 409
        })
        .await;
        if strategy != "transaction" {
            assert_eq!(known, 200, "{strategy}: it was one statement, and its lock came free");
        }
        let again = asking.order(1, "k").await;
        assert_eq!(again.status, if known == 200 { 200 } else { 201 }, "{strategy}: {again:?}");
        assert_eq!(service.stock().await, Stock { initial: 1, available: 0, held: 1, sold: 0 }, "{strategy}");
    }
}

/// The sweeper gives up on a release that takes effect later. Who is told "sold out" from memory meanwhile is told the truth, and
/// whoever comes afterwards gets the unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_late_is_for_sale_all_the_same() {
    let postgres = Postgres::start();
    let proxy = LossyProxy::marking(&postgres.socket(), "'expired'").await;
    let service = Service::start_with(&proxy.url(), &["--strategy", "batch", "--sweep-interval", "6s"]);
    service.reset(&[with(item(1, 1), "hold_ms", 500)]).await;
    assert_eq!(service.buyer("owner").await.order(1, "k").await.status, 201);
    proxy.hold_back(Duration::from_secs(5));
    eventually("the sweeper", 3 * SOON, async || !proxy.will_hold_back()).await;
    // It has given up by then, and the unit is not back.
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    let mut late = service.buyer("late").await;
    let mut n = 0;
    eventually("sold out to be told", SOON, async || {
        n += 1;
        late.order(1, &format!("k{n}")).await.problem() == "sold-out"
    })
    .await;
    let client = postgres.client().await;
    eventually("the unit to come back", SOON, async || {
        client.query_one("SELECT available FROM item", &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    eventually("the unit to be sold", SOON, async || {
        n += 1;
        late.order(1, &format!("k{n}")).await.status == 201
    })
    .await;
}

/// Somebody holds the row of the item whose hold ran out first. The holds of others end in time all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_item_keeps_no_other_units_back() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    let short = |id: i64| with(with(item(3, 1), "id", id), "hold_ms", 1_000);
    service.reset(&[short(1), short(2)]).await;
    let mut buyer = service.buyer("u").await;
    assert_eq!(buyer.order(1, "k1").await.status, 201);
    let other = buyer.send("POST", "/items/2/orders", &[("Idempotency-Key", "k2")], r#"{"quantity":1}"#).await.unwrap();
    assert_eq!(other.status, 201);
    let mut holder = postgres.client().await;
    let held = holder.transaction().await.unwrap();
    held.execute("SELECT FROM item WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
    let available = "SELECT available FROM item WHERE id = $1::bigint";
    let client = postgres.client().await;
    let left = async |id: i64| client.query_one(available, &[&id]).await.unwrap().get::<_, i64>(0);
    eventually("the release of the other item's hold", SOON, async || left(2).await == 3).await;
    assert_eq!(left(1).await, 2);
    held.rollback().await.unwrap();
    eventually("the release of the first item's hold", SOON, async || left(1).await == 3).await;
}
