//! Every statement that the service issues while it sells, by the plan that the database really ran: none reads a table that
//! grows with the orders from one end to the other.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::{eventually, item, with};
use serde_json::Value;

/// Tables that grow with the sale.
const GROWING: [&str; 6] = ["orders", "order_event", "purchase", "payment_intent", "stock_shard", "stock_unit"];

/// Read whole, once for each process or set-up: stock that was spread, which keys have an order, what Redis is filled with.
const ONCE: [&str; 4] = [
    "SELECT i.id, i.available, i.price_cents, i.per_user_limit",
    "BEGIN; LOCK TABLE item, stock_shard, stock_unit",
    "SELECT user_id, idempotency_key FROM orders WHERE item_id",
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
        let statement =
            plan["Query Text"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
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
    eventually("payment", Duration::from_secs(5), async || buyers[0].pay(&paid).await.status == 200).await;
    assert_eq!(buyers[0].order(1, "k").await.status, 200);
    let cancelled = buyers[1].order(2, "k").await.order_id();
    assert_eq!(buyers[1].cancel(&cancelled).await.status, 200);
    let crowd =
        buyers.split_off(2).into_iter().map(|mut buyer| tokio::spawn(async move { buyer.order(1, "k").await.status }));
    for buyer in crowd {
        assert!(matches!(buyer.await.unwrap(), 201 | 409));
    }
    assert_eq!(buyers[1].find("k").await.status, 200);
    buyers[1].send("GET", "/items/1/state", &[], "").await.unwrap();
    // Holds run out, and what came back is bought again.
    let mut n = 0;
    eventually("release", Duration::from_secs(5), async || {
        n += 1;
        buyers[1].order(2, &format!("again{n}")).await.status == 201
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_sale_reads_all_orders() {
    let (postgres, redis) = (Postgres::start_with(&LOGGED), Redis::start());
    let url = redis.as_ref().map_or("redis://127.0.0.1:1".to_owned(), Redis::url);
    let mut seen = 0;
    let strategies =
        ["conditional-update", "step-by-step", "transaction", "check-constraint", "batch", "shards", "unit-rows"];
    for strategy in strategies.into_iter().chain(redis.as_ref().map(|_| "redis-lua")) {
        let service = Service::start_with(&postgres.url(), &["--strategy", strategy, "--redis-url", &url]);
        sell(&service).await;
        let log = postgres.log();
        assert_eq!(offenders(&log), BTreeSet::new(), "{strategy}");
        let plans = plans(&log).len();
        assert!(plans > seen + 10, "{strategy}: its plans are not in the log");
        seen = plans;
    }
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
