//! The correct service under faults: the database killed, the service stopped and killed, bad arguments.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::postgres::Postgres;
use crate::support::service::{Service, Stock, refused_start};
use crate::support::{eventually, item};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_costs_no_acknowledged_order() {
    let mut postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(1_000_000, 1_000_000)]).await;
    let mut buyers = JoinSet::new();
    for n in 0..8 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        buyers.spawn(async move {
            // Orders until the outage, and leaves the last attempt undecided.
            for attempt in 0.. {
                let key = format!("k{attempt}");
                let reply = buyer.order(1, &key).await;
                if reply.status != 201 {
                    assert_eq!(reply.status, 503, "{reply:?}");
                    assert!(reply.header("retry-after").is_some());
                    return (buyer, attempt, key);
                }
            }
            unreachable!()
        });
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    postgres.kill_hard();
    let undecided = buyers.join_all().await;
    assert_eq!(service.try_admin("GET", "/readyz", None).await.status, 503);
    assert_eq!(service.try_admin("GET", "/healthz", None).await.status, 200);
    postgres.launch();
    let back = Instant::now();
    let mut fresh = service.buyer("fresh").await;
    eventually("an order after the restart", Duration::from_secs(2), async || fresh.order(1, "k").await.status != 503)
        .await;
    assert!(back.elapsed() < Duration::from_millis(800), "recovered after {:?}", back.elapsed());
    assert!(matches!(fresh.order(1, "k").await.status, 200 | 201));
    let mut acknowledged = 1;
    for (mut buyer, orders, key) in undecided {
        // A retry under the same key finds the order, or makes it once the earlier attempt can no longer take effect.
        eventually("an order under the same key", Duration::from_secs(5), async || {
            matches!(buyer.order(1, &key).await.status, 200 | 201)
        })
        .await;
        acknowledged += orders + 1;
    }
    assert_eq!(service.try_admin("GET", "/readyz", None).await.status, 200);
    let stock = service.stock().await;
    assert_eq!(stock.held, acknowledged, "every acknowledged order is there, once");
    assert!(stock.is_conserved(), "{stock:?}");
}

#[tokio::test]
async fn a_killed_service_keeps_sessions_and_orders() {
    let postgres = Postgres::start();
    let mut service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    let id = buyer.order(1, "k").await.order_id();
    service.kill();
    let next = Service::start(&postgres.url());
    let mut again = next.buyer("u1").await;
    again.token = buyer.token.clone();
    let replay = again.order(1, "k").await;
    assert_eq!((replay.status, replay.order_id()), (200, id));
}

#[tokio::test]
async fn the_service_waits_for_the_database_and_stops_in_order() {
    let mut postgres = Postgres::start();
    postgres.kill_hard();
    let url = postgres.url();
    let starting = tokio::task::spawn_blocking(move || Service::start(&url));
    tokio::time::sleep(Duration::from_millis(300)).await;
    postgres.launch();
    let mut service = starting.await.unwrap();
    service.reset(&[item(1_000_000, 1_000_000)]).await;

    let mut buyers = JoinSet::new();
    for n in 0..8 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        buyers.spawn(async move {
            // Every request that was sent is either answered or was never accepted.
            for attempt in 0.. {
                match buyer.try_order(1, &format!("k{attempt}")).await {
                    Ok(reply) => assert_eq!(reply.status, 201, "{reply:?}"),
                    Err(_) => return attempt,
                }
            }
            unreachable!()
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(service.terminate(Duration::from_secs(6)).await, Some(0));
    let acknowledged: i64 = buyers.join_all().await.into_iter().sum();
    let next = Service::start(&postgres.url());
    let Stock { held, .. } = next.stock().await;
    assert_eq!(held, acknowledged);
}

#[test]
fn a_seeded_bug_must_be_asked_for_twice() {
    let refused = refused_start(&["--bug", "case-when"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-seeded-bugs"));
    let unknown = refused_start(&["--bug", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("12=ack-before-commit"));
    let pending = refused_start(&["--bug", "20", "--allow-seeded-bugs"]);
    assert_eq!(pending.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&pending.stderr).contains("message queue"));
    let without_redis = refused_start(&["--bug", "7", "--allow-seeded-bugs"]);
    assert_eq!(without_redis.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without_redis.stderr).contains("--redis-url"));
    let strategy = refused_start(&["--strategy", "nonsense"]);
    assert!(String::from_utf8_lossy(&strategy.stderr).contains("conditional-update"));

    let list = Command::new(env!("CARGO_BIN_EXE_seckill-target")).args(["bugs", "--output", "json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list[0]["name"], "read-then-write-back");
    assert_eq!(list[0]["implemented"], true);
}
