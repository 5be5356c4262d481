//! Every statement that the service issues while it sells, by the plan that the database really ran: none reads a table that
//! grows with the orders from one end to the other. And it is every one: what stands in the sources and was never run is told.
//!
//! The payment dependency has no statements: its books are a file, and one thread owns them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::strategies::STRATEGIES;
use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::service::{Buyer, Service};
use crate::support::source::{plain, statements};
use crate::support::{eventually, item, with};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// Tables that grow with the sale.
const GROWING: [&str; 6] = ["orders", "order_event", "purchase", "payment_intent", "stock_shard", "stock_unit"];

/// Read whole, once for each process or set-up: stock that was spread, what Redis is filled with; and by
/// who watches the sale: the audit, and the gauges of the stock. Which keys have an order is read once, too, but in pages along the key.
const ONCE: [&str; 6] = [
    "SELECT i.id, i.stock_initial, coalesce(o.held, 0)::bigint AS held",
    "SELECT * FROM ( (SELECT o.id AS seq",
    "SELECT (SELECT coalesce(sum(",
    "SELECT i.id, i.available, i.price_cents, i.per_user_limit",
    "BEGIN; LOCK TABLE item, stock_shard, stock_unit",
    "SELECT item_id, user_id, quantity FROM purchase",
];

fn is_read_once(statement: &str) -> bool {
    let all_orders = statement.starts_with("SELECT o.id, o.item_id") && statement.ends_with("FROM orders o");
    all_orders || ONCE.iter().any(|once| statement.starts_with(once))
}

const LOGGED: [&str; 6] = [
    "session_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_format=json",
    "auto_explain.log_nested_statements=on",
    "auto_explain.log_parameter_max_length=0",
    "log_line_prefix=%a ",
];

/// The plans that sessions of the service have run.
fn plans(log: &str) -> Vec<Value> {
    let mut lines = log.lines().peekable();
    let mut plans = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("seckill-target ") && line.ends_with("plan:") {
            let mut text = String::new();
            while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
                text.push_str(more.trim_start());
            }
            plans.push(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
        }
    }
    plans
}

/// Tables that a plan reads from one end to the other, in a sequence or along an index.
fn read_whole(plan: &Value, found: &mut BTreeSet<String>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default();
    let all = match text("Node Type") {
        "Seq Scan" | "Parallel Seq Scan" => true,
        // What is not finished has an index of its own, and nothing else is in it.
        "Index Scan" if text("Index Name") == "payment_intent_due" => false,
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" => text("Index Cond").is_empty(),
        _ => false,
    };
    let table = text("Relation Name");
    if all && GROWING.contains(&table) {
        found.insert(table.to_owned());
    }
    for part in plan["Plans"].as_array().into_iter().flatten() {
        read_whole(part, found);
    }
}

/// Statements that do so, with the tables.
fn offenders(log: &str) -> BTreeSet<String> {
    let mut offenders = BTreeSet::new();
    for plan in plans(log) {
        let mut tables = BTreeSet::new();
        read_whole(&plan["Plan"], &mut tables);
        let statement = plain(plan["Query Text"].as_str().unwrap_or_default());
        if !tables.is_empty() && !is_read_once(&statement) {
            offenders.insert(format!("{tables:?}: {statement}"));
        }
    }
    offenders
}

/// Everything that can become of an order.
async fn sell(service: &Service) {
    service.reset(&[with(item(4, 2), "hold_ms", 1000)]).await;
    let mut buyers = Vec::new();
    for n in 0..6 {
        buyers.push(service.buyer(&format!("u{n}")).await);
    }
    let paid = buyers[0].order(1, "k").await.order_id();
    // A disk that many write to may be too slow for the patience of the service; then one asks again, as the reply says.
    eventually("payment", SOON, async || buyers[0].pay(&paid).await.status == 200).await;
    assert_eq!(buyers[0].order(1, "k").await.status, 200);
    let cancelled = buyers[1].order(2, "k").await.order_id();
    eventually("cancel", SOON, async || buyers[1].cancel(&cancelled).await.status == 200).await;
    let crowd =
        buyers.split_off(2).into_iter().map(|mut buyer| tokio::spawn(async move { buyer.order(1, "k").await.status }));
    for buyer in crowd {
        assert!(matches!(buyer.await.unwrap(), 201 | 409));
    }
    assert_eq!(buyers[1].find("k").await.status, 200);
    buyers[1].send("GET", "/items/1/state", &[], "").await.unwrap();
    // Holds run out, and what came back is bought again.
    let mut n = 0;
    eventually("release", SOON, async || {
        n += 1;
        buyers[1].order(2, &format!("again{n}")).await.status == 201
    })
    .await;
}

/// Pieces of statements in the sources that no plan in the log belongs to.
fn never_run(log: &str) -> Vec<(String, String)> {
    let run: BTreeSet<String> =
        plans(log).iter().map(|plan| plain(plan["Query Text"].as_str().unwrap_or_default())).collect();
    let mut pieces: Vec<_> = statements().into_iter().collect();
    pieces.retain(|(_, piece)| !run.iter().any(|statement| statement.contains(piece)));
    pieces
}

/// What asks for itself, or is asked for by who watches.
async fn watch(service: &Service) {
    let mut buyer = service.buyer("looker").await;
    service.reset(&[item(4, 2), with(item(4, 2), "id", 2)]).await;
    for path in ["/items/1", "/items/1/state", "/items/2/state"] {
        assert_eq!(buyer.send("GET", path, &[], "").await.unwrap().status, 200);
    }
    // All items in one statement, while orders and reads take too long.
    service.admin("PUT", "/degrade", Some(json!({"level": 2}))).await;
    eventually("the states to be read together", SOON, async || {
        buyer.send("GET", "/items/1/state", &[], "").await.unwrap().json()["stale"] == true
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    service.admin("PUT", "/degrade", Some(json!({"level": 0}))).await;
    // A plan is told when its session asks for the next thing, so the audit goes on to a second page.
    for key in ["k1", "k2"] {
        assert_eq!(buyer.order(1, key).await.status, 201);
    }
    let snapshot = service.admin("GET", "/audit/stock", None).await["snapshot"].as_str().unwrap().to_owned();
    let page = format!("/audit/ledger?snapshot={snapshot}&limit=1");
    let next = &service.admin("GET", &page, None).await["next"];
    service.admin("GET", &format!("{page}&after={next}"), None).await;
    service.admin("GET", "/audit/payments", None).await;
    service.try_admin("GET", "/metrics", None).await;
    service.try_admin("GET", "/readyz", None).await;
}

/// Several wait together, among them one who has an order already; then nothing is left, and that is remembered.
async fn wait_together(postgres: &Postgres, service: &Service) {
    service.reset(&[item(6, 1)]).await;
    let mut crowd: Vec<Buyer> = Vec::new();
    for n in 0..6 {
        crowd.push(service.buyer(&format!("c{n}")).await);
    }
    assert_eq!(crowd[0].order(1, "k").await.status, 201);
    let mut holder = postgres.client().await;
    let held = holder.transaction().await.unwrap();
    held.execute("SELECT FROM item WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
    let order = |mut buyer: Buyer| tokio::spawn(async move { buyer.order(1, "k").await.status });
    // Whoever has an order need not wait for the row, so it is somebody else who is at the database while the others come.
    let first = order(crowd.pop().unwrap());
    let (client, waiters) = (postgres.client().await, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
    eventually("one to wait for the row", SOON, async || !client.query(waiters, &[]).await.unwrap().is_empty()).await;
    let orders: Vec<_> = std::iter::once(first).chain(crowd.into_iter().map(order)).collect();
    eventually("several to wait", SOON, async || service.metric("seckill_queue_waiting").await >= 2.0).await;
    held.rollback().await.unwrap();
    for order in orders {
        assert!(matches!(order.await.unwrap(), 200 | 201));
    }
    // It is remembered once nothing of an earlier process can still be under way.
    eventually("sold out to be remembered", SOON, async || {
        let late = service.buyer("late").await.order(1, &format!("k{}", crate::support::now_us())).await;
        assert_eq!(late.problem(), "sold-out");
        service.metric("seckill_refused_from_memory_total").await > 0.0
    })
    .await;
}

/// Money that is taken by two at once, that nobody knows of, that is declined, and that comes too late.
async fn pay_through(service: &Service, payment: &Payment) {
    service.reset(&[item(20, 2)]).await;
    let (mut first, mut second) = (service.buyer("p").await, service.buyer("p").await);
    payment.behave(json!({"latency_ms": 150})).await;
    let order = first.order(1, "k1").await.order_id();
    let told = tokio::join!(first.pay(&order), second.pay(&order));
    assert_eq!((told.0.status, told.1.status), (200, 200));
    payment.behave(json!({"garbage": 1.0})).await;
    let order = first.order(1, "k2").await.order_id();
    assert_eq!(first.pay(&order).await.problem(), "payment-unclear");
    assert_eq!(service.admin("GET", "/audit/payments", None).await["open"], 1);
    payment.behave(json!({})).await;
    eventually("the payment to be finished", SOON, async || {
        service.admin("GET", "/audit/payments", None).await["open"] == 0
    })
    .await;
}

/// Orders set nothing aside: they are paid, cancelled, and told at payment that nothing is left.
async fn sell_at_payment(service: &Service) {
    service.reset(&[item(1, 1)]).await;
    let (mut one, mut other, mut third) =
        (service.buyer("a").await, service.buyer("b").await, service.buyer("c").await);
    let orders = (one.order(1, "k").await.order_id(), other.order(1, "k").await.order_id());
    let given_up = third.order(1, "k").await.order_id();
    assert_eq!(third.cancel(&given_up).await.status, 200);
    assert_eq!(one.pay(&orders.0).await.status, 200);
    assert_eq!(other.pay(&orders.1).await.problem(), "sold-out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_sale_reads_all_orders() {
    let (postgres, redis, payment) = (Postgres::start_with(&LOGGED), Redis::start(), Payment::start());
    let url = redis.as_ref().map_or("redis://127.0.0.1:1".to_owned(), Redis::url);
    let mut seen = 0;
    for strategy in STRATEGIES.into_iter().chain(redis.as_ref().map(|_| "redis-lua")) {
        // A short limit on statements lets a batch trust its memory early.
        let limit = if strategy == "batch" { "500ms" } else { "1s" };
        let arguments = ["--strategy", strategy, "--redis-url", &url, "--statement-timeout", limit];
        let service = Service::start_with(&postgres.url(), &arguments);
        sell(&service).await;
        if strategy == "batch" {
            wait_together(&postgres, &service).await;
        }
        let log = postgres.log();
        assert_eq!(offenders(&log), BTreeSet::new(), "{strategy}");
        let plans = plans(&log).len();
        assert!(plans > seen + 10, "{strategy}: its plans are not in the log");
        seen = plans;
    }
    sell_at_payment(&Service::start_with(&postgres.url(), &["--deduct", "payment"])).await;
    let rules = ["C5=on", "C7=on", "V3=on"].map(|switch| ["--switch", switch]).concat();
    let service = Service::start_with(&postgres.url(), &[&["--payment", &payment.address()], &rules[..]].concat());
    pay_through(&service, &payment).await;
    watch(&service).await;
    // Redis and the ledger are compared once a second, and a sale's last holds run out.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = postgres.log();
    assert_eq!(offenders(&log), BTreeSet::new());
    let mut missing = never_run(&log);
    if redis.is_none() {
        missing.retain(|(file, _)| !file.starts_with("inventory/redis_lua"));
    }
    assert!(missing.is_empty(), "statements whose plans were never seen: {missing:#?}");
    // And it would be seen.
    let service = Service::start_with(&postgres.url(), &[]);
    let client = postgres.client().await;
    client.batch_execute("ALTER TABLE orders DROP CONSTRAINT orders_user_key").await.unwrap();
    assert_eq!(service.buyer("last").await.find("k").await.status, 404);
    let found = offenders(&postgres.log());
    assert!(
        found.iter().any(|offender| offender.contains("orders") && offender.contains("idempotency_key = $2")),
        "{found:?}"
    );
}
