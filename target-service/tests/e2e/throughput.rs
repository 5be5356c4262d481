//! How much one service does, roughly, with the generator on the same machine. Run by hand:
//! `cargo test --release -p target-service --test e2e throughput:: -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::support::item;
use crate::support::postgres::Postgres;
use crate::support::service::Service;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 128;
const TIME: Duration = Duration::from_secs(4);

/// Repeats a request on every connection for a while, and reports rate and latency.
async fn measure(service: &Service, what: &str, method: &'static str, path: &'static str) {
    let mut buyers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut buyer = service.buyer(&format!("{what}-{connection}")).await;
        buyers.spawn(async move {
            let (mut latencies, mut statuses) = (Vec::new(), [0_usize; 6]);
            let started = Instant::now();
            while started.elapsed() < TIME {
                let key = format!("k{}", latencies.len());
                let sent = Instant::now();
                let reply = buyer.send(method, path, &[("Idempotency-Key", &key)], r#"{"quantity":1}"#).await.unwrap();
                latencies.push(sent.elapsed());
                statuses[usize::from(reply.status / 100)] += 1;
            }
            (latencies, statuses)
        });
    }
    let (mut latencies, mut statuses) = (Vec::new(), [0; 6]);
    for (some, by_class) in buyers.join_all().await {
        latencies.extend(some);
        statuses.iter_mut().zip(by_class).for_each(|(sum, more)| *sum += more);
    }
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!(
        "{what}: {:.0}/s, p50 {:?}, p99 {:?}; 2xx {}, 4xx {}, 5xx {}",
        latencies.len() as f64 / TIME.as_secs_f64(),
        at(50),
        at(99),
        statuses[2],
        statuses[4],
        statuses[5],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "measures the machine more than the service"]
async fn rough_throughput() {
    let postgres = Postgres::start();
    for pool_size in ["4", "16"] {
        println!("--pool-size {pool_size}, {CONNECTIONS} connections");
        let service = Service::start_with(&postgres.url(), &["--pool-size", pool_size]);
        service.reset(&[item(10_000_000, 1_000_000)]).await;
        measure(&service, "time", "GET", "/time").await;
        measure(&service, "page", "GET", "/items/1").await;
        measure(&service, "state", "GET", "/items/1/state").await;
        measure(&service, "order", "POST", "/items/1/orders").await;
        service.reset(&[item(0, 1)]).await;
        measure(&service, "sold out", "POST", "/items/1/orders").await;
    }
}
