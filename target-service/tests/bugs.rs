//! Each seeded bug leaves its signature. A mutant that behaves like the correct service would be useless.

mod support;

use std::time::Duration;

use support::item;
use support::postgres::Postgres;
use support::service::Service;
use tokio::task::JoinSet;

/// As many buyers as given order one unit each, at once; says how many were told yes.
async fn rush(service: &Service, buyers: usize) -> usize {
    let mut orders = JoinSet::new();
    for n in 0..buyers {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        orders.spawn(async move { buyer.order(1, "k").await.status });
    }
    orders.join_all().await.into_iter().filter(|status| *status == 201).count()
}

#[tokio::test]
async fn bug_1_sells_a_unit_to_whoever_read_it() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "1");
    service.reset(&[item(50, 1)]).await;
    let sold = rush(&service, 200).await;
    let stock = service.stock().await;
    assert!(sold > 50, "{sold} sold");
    assert!(!stock.is_conserved(), "{stock:?}");
}

#[tokio::test]
async fn bug_4_sells_more_than_the_stock() {
    let postgres = Postgres::start();
    let service = Service::with_bug(&postgres.url(), "case-when");
    service.reset(&[item(50, 1)]).await;
    assert_eq!(rush(&service, 80).await, 80);
    let stock = service.stock().await;
    assert_eq!((stock.available, stock.held), (0, 80));
}

#[tokio::test]
async fn bug_12_deducts_correctly_and_loses_what_it_acknowledged() {
    let mut postgres = Postgres::start();
    let mut service = Service::with_bug(&postgres.url(), "12");
    service.reset(&[item(50, 1)]).await;
    // Without a fault nothing is wrong.
    assert_eq!(rush(&service, 200).await, 50);
    let mut buyer = service.buyer("u0").await;
    let mut payer = service.buyer("payer").await;
    assert_eq!(payer.order(1, "k").await.problem(), "sold-out");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stock = service.stock().await;
    assert_eq!((stock.available, stock.held), (0, 50));
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
    support::eventually("recovery", Duration::from_secs(2), async || victim.find("k").await.status == 404).await;
    assert_eq!(victim.order(1, "again").await.status, 201);
    // So does the service.
    let mut second = service.buyer("second").await;
    assert_eq!(second.order(1, "k").await.status, 201);
    service.kill();
    let next = Service::start(&postgres.url());
    assert_eq!(next.buyer("second").await.find("k").await.status, 404);
    assert!(next.stock().await.is_conserved());
}
