//! Planted slow-downs take what they say, and are refused without the permission.

use std::time::{Duration, Instant};

use crate::support::item;
use crate::support::postgres::Postgres;
use crate::support::service::{Service, refused_start};

/// How long so many buyers take who order at once.
async fn orders(service: &Service, buyers: usize) -> Duration {
    service.reset(&[item(50, 1)]).await;
    let mut crowd = Vec::new();
    for n in 0..buyers {
        crowd.push(service.buyer(&format!("u{n}")).await);
    }
    let started = Instant::now();
    let mut orders = tokio::task::JoinSet::new();
    for mut buyer in crowd {
        orders.spawn(async move { buyer.order(1, "k").await.status });
    }
    assert!(orders.join_all().await.iter().all(|status| *status == 201));
    started.elapsed()
}

#[tokio::test]
async fn what_is_slow_takes_that_long_and_sells_as_ever() {
    let postgres = Postgres::start();
    let slow = |what: &str| Service::start_with(&postgres.url(), &["--slow", what, "--allow-seeded-bugs"]);
    assert!(orders(&slow("sleep=60ms"), 1).await >= Duration::from_millis(60));
    // Whoever deducts keeps the item's row to himself meanwhile: three of them take turns.
    assert!(orders(&slow("lock=40ms"), 3).await >= Duration::from_millis(120));
    for what in ["query=3", "allocate=4MiB", "page-sleep=1ms@0.5"] {
        let service = slow(what);
        orders(&service, 3).await;
        let stock = service.stock().await;
        assert_eq!((stock.held, stock.available), (3, 47), "{what}");
    }
    // The next service on the same database is not slow any more.
    let service = Service::start_with(&postgres.url(), &[]);
    orders(&service, 3).await;
    let (client, connection) = tokio_postgres::connect(&postgres.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let triggers = client.query("SELECT FROM pg_trigger WHERE tgname = 'slow_lock'", &[]).await.unwrap();
    assert!(triggers.is_empty());
}

#[test]
fn nobody_is_slow_without_permission() {
    let output = refused_start(&["--slow", "sleep=1ms"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("add --allow-seeded-bugs"), "{said}");
}
