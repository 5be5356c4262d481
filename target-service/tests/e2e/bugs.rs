//! Each seeded bug leaves its signature. A mutant that behaves like the correct service would be useless,
//! and so would one that is wrong in other ways than it says.

use std::time::Duration;

use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::proxy::{LossyProxy, MARKED_KEY};
use crate::support::redis::Redis;
use crate::support::service::{Buyer, Service, Stock};
use crate::support::skipped::skipped;
use crate::support::{eventually, item, now_us, with};
use serde_json::Value;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_secs(3);

/// As many buyers as given order one unit each, at once; says how many were told yes.
async fn rush(service: &Service, buyers: usize) -> usize {
    let mut crowd = Vec::new();
    for n in 0..buyers {
        crowd.push(service.buyer(&format!("u{n}")).await);
    }
    let mut orders = JoinSet::new();
    for mut buyer in crowd {
        orders.spawn(async move { buyer.order(1, "k").await.status });
    }
    orders.join_all().await.into_iter().filter(|status| *status == 201).count()
}

async fn several(service: &Service, user: &str, connections: usize) -> Vec<Buyer> {
    let mut buyers = Vec::new();
    for _ in 0..connections {
        buyers.push(service.buyer(user).await);
    }
    buyers
}

fn orders_of(ledger: &[Value], user: &str) -> usize {
    ledger.iter().filter(|entry| entry["kind"] == "reserve" && entry["user"] == user).count()
}

/// Bugs 1, 2, 3, 4 and 5 sell more than there is, each in its way.
#[tokio::test]
async fn overselling() {
    let postgres = Postgres::start();
    for bug in ["1", "2", "3", "4", "5"] {
        let service = Service::with_bug(&postgres.url(), bug);
        service.reset(&[item(50, 1)]).await;
        let told_yes = rush(&service, 200).await;
        let stock = service.stock().await;
        assert!(told_yes > 50, "bug {bug}: {told_yes}");
        assert_eq!(stock.held, told_yes as i64, "bug {bug}");
        match bug {
            // The counter goes below zero, and agrees with the orders.
            "2" | "5" => assert_eq!(stock.available, 50 - stock.held, "bug {bug}"),
            // The counter ends at zero as if nothing had happened.
            "3" | "4" => assert_eq!((stock.available, told_yes), (0, 200), "bug {bug}"),
            _ => assert!(stock.available >= 0, "bug {bug}: {stock:?}"),
        }
        if bug == "5" {
            service.reset(&[item(50, 1)]).await;
            assert_eq!(service.buyer("u").await.order(-10, "k").await.status, 201);
            assert_eq!(service.stock().await.available, 60);
        }
    }
}

/// Bug 8: a retry costs a unit. Bug 10: what comes back is not sold. Both leave units unsold.
#[tokio::test]
async fn underselling() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "8");
    service.reset(&[item(50, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    let id = buyer.order(1, "k").await.order_id();
    assert_eq!(buyer.order(1, "k").await.order_id(), id);
    assert_eq!(service.stock().await, Stock { initial: 50, available: 48, held: 1, sold: 0 });
    drop(service);

    let service = Service::with_bug(&postgres.url(), "10");
    service.reset(&[with(item(2, 1), "hold_ms", 200)]).await;
    assert_eq!(rush(&service, 3).await, 2);
    eventually("release", SHORT, async || service.stock().await.available == 2).await;
    assert_eq!(service.buyer("late").await.order(1, "k").await.problem(), "sold-out");
    // A key that has an order keeps it, and a reset clears the flag.
    assert_eq!(service.stock().await.available, 2);
    service.reset(&[item(1, 1)]).await;
    assert_eq!(service.buyer("late").await.order(1, "k").await.status, 201);
}

/// Bug 7: the count in Redis is not taken back when the database fails, so units that are there cannot be bought.
#[tokio::test]
async fn counted_and_never_taken_back() {
    let (mut postgres, Some(redis)) = (Postgres::start(), Redis::start()) else { return skipped("without a Redis") };
    let arguments = ["--bug", "7", "--allow-seeded-bugs", "--redis-url", &redis.url()];
    let service = Service::start_with(&postgres.url(), &arguments);
    service.reset(&[item(10, 1)]).await;
    let id = service.buyer("first").await.order(1, "k").await.order_id();
    // While nothing fails it counts right, also what comes back.
    assert_eq!(rush(&service, 20).await, 9);
    let mut crowd = several(&service, "unlucky", 4).await;
    assert_eq!(service.buyer("first").await.cancel(&id).await.status, 200);
    service.reset(&[item(10, 1)]).await;
    assert_eq!(service.buyer("first").await.order(1, "k").await.status, 201);
    postgres.kill_hard();
    for (n, buyer) in crowd.iter_mut().enumerate() {
        assert_eq!(buyer.order(1, &format!("k{n}")).await.status, 503);
    }
    postgres.launch();
    eventually("recovery", SHORT, async || service.try_admin("GET", "/readyz", None).await.status == 200).await;
    assert_eq!(rush(&service, 20).await, 5);
    assert_eq!(service.stock().await, Stock { initial: 10, available: 4, held: 6, sold: 0 });
}

/// Bug 12: everything is deducted correctly, and what was acknowledged is lost by a kill.
#[tokio::test]
async fn acknowledged_before_the_commit() {
    let mut postgres = Postgres::start();
    let mut service = Service::with_bug(&postgres.url(), "12");
    service.reset(&[item(50, 1)]).await;
    // Without a fault nothing is wrong.
    assert_eq!(rush(&service, 200).await, 50);
    let mut buyer = service.buyer("buyer").await;
    let mut payer = service.buyer("payer").await;
    assert_eq!(payer.order(1, "k").await.problem(), "sold-out");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(service.stock().await, Stock { initial: 50, available: 0, held: 50, sold: 0 });
    service.reset(&[item(50, 1)]).await;
    let id = buyer.order(1, "k").await.order_id();
    assert_eq!(buyer.order(1, "k").await.order_id(), id);
    assert_eq!(buyer.find("k").await.order_id(), id);
    assert_eq!(payer.order(2, "k").await.problem(), "limit-reached");
    let paid = payer.order(1, "k2").await.order_id();
    assert_eq!(payer.pay(&paid).await.status, 200);
    assert_eq!(buyer.cancel(&id).await.status, 200);

    // The database dies between the acknowledgement and the commit.
    let mut victim = service.buyer("victim").await;
    assert_eq!(victim.order(1, "k").await.status, 201);
    postgres.kill_hard();
    postgres.launch();
    eventually("recovery", SHORT, async || victim.find("k").await.status == 404).await;
    assert_eq!(victim.order(1, "again").await.status, 201);
    // So does the service.
    let mut second = service.buyer("second").await;
    assert_eq!(second.order(1, "k").await.status, 201);
    service.kill();
    let next = Service::start(&postgres.url());
    assert_eq!(next.buyer("second").await.find("k").await.status, 404);
    assert!(next.stock().await.is_conserved());
}

/// Bugs 13 and 22: acknowledged orders vanish, by a power cut or by themselves.
#[tokio::test]
async fn acknowledged_orders_vanish() {
    let mut postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "13");
    service.reset(&[item(1_000, 1)]).await;
    let acknowledged = rush(&service, 40).await;
    let mut last = service.buyer("last").await;
    assert_eq!(last.order(1, "k").await.status, 201);
    postgres.kill_hard();
    postgres.launch();
    let mut found = 0;
    eventually("recovery", SHORT, async || {
        found = last.find("k").await.status;
        found != 503
    })
    .await;
    assert_eq!(found, 404, "the last of {acknowledged} orders was on disk after all");
    drop(service);

    let service = Service::with_bug(&postgres.url(), "22");
    service.reset(&[item(1_000, 1)]).await;
    assert_eq!(rush(&service, 64).await, 64);
    assert!(service.stock().await.held < 64);
    assert!(service.stock().await.is_conserved());
}

/// One order whose reply is lost between the database and the service: what the buyer is told, and how
/// many orders there are.
async fn lose_one_reply(service: &Service, proxy: &LossyProxy, nth: usize) -> (u16, usize) {
    service.reset(&[item(1_000, 10)]).await;
    let mut buyer = service.buyer("u1").await;
    // Every connection may have to prepare its statements first, which carries no key.
    proxy.lose_reply(nth);
    let status = buyer.order(1, MARKED_KEY).await.status;
    (status, orders_of(&service.ledger().await, "u1"))
}

/// Bugs 16, 17 and 19: a reply lost on the way from the database is taken for something that it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies() {
    let postgres = Postgres::start();
    let proxy = LossyProxy::start(&postgres.socket()).await;

    // The correct service leaves the outcome open, and the retry finds the order.
    let service = Service::start(&proxy.url());
    assert_eq!(lose_one_reply(&service, &proxy, 1).await, (503, 1));
    assert_eq!(service.buyer("u1").await.order(1, MARKED_KEY).await.status, 200);
    drop(service);

    let service = Service::with_bug(&proxy.url(), "16");
    assert_eq!(lose_one_reply(&service, &proxy, 1).await, (409, 1));
    drop(service);
    let service = Service::with_bug(&proxy.url(), "17");
    assert_eq!(lose_one_reply(&service, &proxy, 1).await, (201, 2));
    drop(service);
    // The first statement with the key is the lookup.
    let service = Service::with_bug(&proxy.url(), "19");
    assert_eq!(lose_one_reply(&service, &proxy, 2).await, (201, 2));
    drop(service);

    // What the last bug did to the data is not silently accepted, and a reset puts it right.
    let service = Service::start(&postgres.url());
    let mut buyer = service.buyer("u1").await;
    assert_eq!(buyer.order(1, "k").await.status, 503);
    assert_eq!(orders_of(&service.ledger().await, "u1"), 2);
    service.reset(&[item(1, 1)]).await;
    assert_eq!(buyer.order(1, "k").await.status, 201);
}

/// Bug 18: twins of one request both make an order.
#[tokio::test]
async fn twins() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "18");
    service.reset(&[item(1_000, 100)]).await;
    let mut round = 0;
    eventually("twins", SHORT, async || {
        round += 1;
        let user = format!("u{round}");
        let mut orders = JoinSet::new();
        for mut twin in several(&service, &user, 8).await {
            orders.spawn(async move { twin.order(1, "k").await.status });
        }
        orders.join_all().await;
        orders_of(&service.ledger().await, &user) > 1
    })
    .await;
    assert!(service.stock().await.is_conserved());
    // One after the other nothing is wrong.
    let mut calm = service.buyer("calm").await;
    let id = calm.order(1, "k").await.order_id();
    assert_eq!(calm.order(1, "k").await.order_id(), id);
}

/// Bug 23: cancelling meets expiry, and the units come back twice.
#[tokio::test]
async fn released_twice() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "23");
    let mut round = 0;
    eventually("a double release", Duration::from_secs(20), async || {
        round += 1;
        service.reset(&[with(item(200, 1), "hold_ms", 400)]).await;
        let mut races = JoinSet::new();
        for n in 0..100 {
            let mut buyer = service.buyer(&format!("u{n}")).await;
            races.spawn(async move {
                let held = buyer.order(1, "k").await;
                let wait = held.json()["expires_at"].as_i64().unwrap() - now_us() + 500 * (n % 100);
                tokio::time::sleep(Duration::from_micros(wait.max(0) as u64)).await;
                buyer.cancel(&held.order_id()).await.status
            });
        }
        races.join_all().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        service.stock().await.available > 200
    })
    .await;
    let ledger = service.ledger().await;
    let releases = ledger.iter().filter(|entry| entry["kind"] == "release").count();
    assert!(releases > 100, "{releases}");
}

/// Bug 26: a late payment revives an order whose unit is for sale again. Bug 29: an early order is taken.
#[tokio::test]
async fn too_late_and_too_early() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "26");
    service.reset(&[with(item(1, 1), "hold_ms", 200)]).await;
    let mut late = service.buyer("late").await;
    let id = late.order(1, "k").await.order_id();
    eventually("release", SHORT, async || service.stock().await.available == 1).await;
    assert_eq!(service.buyer("next").await.order(1, "k").await.status, 201);
    assert_eq!(late.pay(&id).await.json()["state"], "paid");
    assert!(!service.stock().await.is_conserved());
    drop(service);

    let service = Service::with_bug(&postgres.url(), "29");
    service.reset(&[with(item(1, 1), "opens_at", now_us() + 60_000_000)]).await;
    assert_eq!(service.buyer("early").await.order(1, "k").await.status, 201);
}

/// Bug 25: a hold whose payment was declined never ends, and any other does.
#[tokio::test]
async fn never_released() {
    let (postgres, payment) = (Postgres::start(), Payment::start_with(&["--decline", "1.0"]));
    let address = payment.address();
    let arguments = ["--bug", "25", "--allow-seeded-bugs", "--payment", &address];
    let service = Service::start_with(&postgres.url(), &arguments);
    service.reset(&[with(item(2, 1), "hold_ms", 500)]).await;
    let (mut poor, mut idle) = (service.buyer("poor").await, service.buyer("idle").await);
    let order = poor.order(1, "k").await.order_id();
    assert_eq!(poor.pay(&order).await.problem(), "payment-declined");
    idle.order(1, "k").await.order_id();
    eventually("the other hold to end", Duration::from_secs(20), async || service.stock().await.available == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stock = service.stock().await;
    assert_eq!((stock.held, stock.is_conserved()), (1, true), "{stock:?}");
    assert_eq!(poor.pay(&order).await.problem(), "hold-expired", "it cannot be paid either");
}

/// Bug 27: one user's burst exceeds the limit.
#[tokio::test]
async fn limit_raced() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "27");
    service.reset(&[item(1_000, 2)]).await;
    let mut calm = service.buyer("calm").await;
    assert_eq!(calm.order(2, "k").await.status, 201);
    assert_eq!(calm.order(1, "k2").await.problem(), "limit-reached");
    let mut round = 0;
    eventually("a user beyond the limit", SHORT, async || {
        round += 1;
        let user = format!("u{round}");
        let mut orders = JoinSet::new();
        for (n, mut buyer) in several(&service, &user, 20).await.into_iter().enumerate() {
            orders.spawn(async move { buyer.order(1, &format!("k{n}")).await.status });
        }
        orders.join_all().await;
        orders_of(&service.ledger().await, &user) > 2
    })
    .await;
    assert!(service.stock().await.is_conserved());
}
