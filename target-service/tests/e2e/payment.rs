//! Paying through the payment dependency: whatever is slow, silent, dead or mad meanwhile, an order is paid exactly if its
//! money was taken and not given back.

use std::time::Duration;

use crate::support::http::Connection;
use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::proxy::LossyProxy;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::skipped::skipped;
use crate::support::{eventually, item, with};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn service(postgres: &Postgres, payment: &Payment) -> Service {
    Service::start_with(&postgres.url(), &["--payment", &payment.address()])
}

async fn unfinished(service: &Service) -> u64 {
    service.admin("GET", "/audit/payments", None).await["open"].as_u64().unwrap()
}

async fn state_of(service: &Service, order: &str) -> Value {
    let ledger = service.ledger().await;
    ledger.iter().find(|row| row["order"] == *order && row["kind"] == "reserve").unwrap()["state"].clone()
}

/// Waits until nothing is under way any more, then holds the ledger against the books.
async fn assert_money_is_right(service: &Service, payment: &Payment) {
    eventually("every payment to be finished", PATIENCE, async || unfinished(service).await == 0).await;
    let (ledger, books) = (service.ledger().await, payment.books().await);
    let orders: Vec<&Value> = ledger.iter().filter(|row| row["kind"] == "reserve").collect();
    for row in &orders {
        let of = |kind: &str| books.iter().filter(|e| e["kind"] == *kind && e["order"] == row["order"]).count();
        let (captures, refunds) = (of("capture"), of("refund"));
        assert_eq!(captures - refunds, usize::from(row["state"] == "paid"), "{row} {books:#?}");
    }
    for entry in books.iter().filter(|entry| entry["kind"] == "capture") {
        let row = orders.iter().find(|row| row["order"] == entry["order"]).expect("a capture for an order");
        assert_eq!(row["amount_cents"], entry["amount_cents"]);
    }
    assert!(service.stock().await.is_conserved());
}

#[tokio::test]
async fn an_order_is_paid_once_and_declined_as_the_dependency_says() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    let service = service(&postgres, &payment);
    service.reset(&[item(5, 2)]).await;
    let mut buyer = service.buyer("u1").await;
    let order = buyer.order(2, "k1").await.order_id();
    payment.behave(json!({"decline": 1.0})).await;
    let refused = buyer.pay(&order).await;
    assert_eq!((refused.status, refused.problem().as_str()), (402, "payment-declined"));
    assert_eq!(state_of(&service, &order).await, "held", "a buyer may try another card");
    payment.behave(json!({})).await;
    for _ in 0..2 {
        let paid = buyer.pay(&order).await;
        assert_eq!((paid.status, &paid.json()["state"]), (200, &json!("paid")));
    }
    assert_eq!((payment.count("capture").await, payment.count("decline").await), (1, 1));
    assert_eq!(payment.books().await[1]["amount_cents"], 19_800);
    let other = service.buyer("u2").await.pay(&order).await;
    assert_eq!(other.problem(), "forbidden");
    let cancelled = buyer.cancel(&order).await;
    assert_eq!(cancelled.problem(), "already-paid");
    assert_money_is_right(&service, &payment).await;
}

#[tokio::test]
async fn an_order_that_is_still_on_its_way_to_the_database_can_be_paid() {
    let (postgres, payment, Some(redis)) = (Postgres::start(), Payment::start(), Redis::start()) else {
        return skipped("without a Redis");
    };
    let arguments = ["--payment", &payment.address(), "--strategy", "redis-lua", "--redis-url", &redis.url()];
    let service = Service::start_with(&postgres.url(), &arguments);
    service.reset(&[item(200, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    // It is in the database some milliseconds after it was acknowledged; at least one of so many is paid before.
    for n in 0..100 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let order = buyer.order(1, "k").await.order_id();
        let paid = buyer.pay(&order).await;
        assert_eq!((paid.status, &paid.json()["state"]), (200, &json!("paid")), "{n}");
    }
    assert_eq!(buyer.pay("999999").await.problem(), "not-found");
    assert_eq!(payment.count("capture").await, 100);
    assert_money_is_right(&service, &payment).await;
}

#[tokio::test]
async fn an_order_that_is_given_back_while_its_money_is_taken_gets_it_back() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    let service = service(&postgres, &payment);
    service.reset(&[with(item(5, 1), "hold_ms", 150)]).await;
    payment.behave(json!({"latency_ms": 300})).await;
    let mut late = service.buyer("late").await;
    let order = late.order(1, "k1").await.order_id();
    let refused = late.pay(&order).await;
    assert_eq!(refused.problem(), "hold-expired");
    assert_eq!((payment.count("capture").await, payment.count("refund").await), (1, 1));

    service.reset(&[item(5, 1)]).await;
    let (mut one, mut twin) = (service.buyer("u").await, service.buyer("u").await);
    let order = one.order(1, "k2").await.order_id();
    let (paid, cancelled) = tokio::join!(one.pay(&order), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        twin.cancel(&order).await
    });
    assert_eq!((paid.problem().as_str(), cancelled.status), ("cancelled", 200));
    assert_eq!((payment.count("capture").await, payment.count("refund").await), (2, 2));
    eventually("every payment to be finished", PATIENCE, async || unfinished(&service).await == 0).await;
    assert!(service.stock().await.is_conserved());
}

#[tokio::test]
async fn a_dead_dependency_leaves_payments_to_be_finished_later() {
    let (postgres, mut payment) = (Postgres::start(), Payment::start());
    let service = service(&postgres, &payment);
    service.reset(&[item(5, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    let order = buyer.order(1, "k1").await.order_id();
    payment.kill();
    let unclear = buyer.pay(&order).await;
    assert_eq!((unclear.status, unclear.problem().as_str()), (503, "payment-unclear"));
    payment.launch();
    eventually("the payment to be finished", PATIENCE, async || state_of(&service, &order).await == "paid").await;
    assert_money_is_right(&service, &payment).await;

    // Back only when the hold has run out: then the money must not be taken any more, not even later.
    service.reset(&[with(item(5, 1), "hold_ms", 300)]).await;
    let order = buyer.order(1, "k2").await.order_id();
    payment.kill();
    assert_eq!(buyer.pay(&order).await.status, 503);
    eventually("the hold to run out", PATIENCE, async || state_of(&service, &order).await == "expired").await;
    payment.launch();
    eventually("every payment to be finished", PATIENCE, async || unfinished(&service).await == 0).await;
    assert_eq!((payment.count("capture").await, payment.count("void").await), (1, 1));
    let mut straggler = Connection::open(&payment.address()).await.unwrap();
    let body = json!({"order": order, "amount_cents": 9900}).to_string();
    let key = payment.books().await.last().unwrap()["key"].as_str().unwrap().to_owned();
    let reply = straggler.send("POST", "/captures", &[("Idempotency-Key", &key)], &body).await.unwrap();
    assert_eq!((reply.status, reply.problem().as_str()), (409, "capture-voided"), "a capture that was on its way");
}

#[tokio::test]
async fn a_service_that_is_killed_between_two_steps_loses_no_money() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    // The money is taken at once, and the reply comes later: at 200 ms the service knows nothing of it yet.
    payment.behave(json!({"latency_ms": 350})).await;
    for (hold_ms, ends) in [(60_000, "paid"), (100, "expired")] {
        let mut first = service(&postgres, &payment);
        first.reset(&[with(item(5, 1), "hold_ms", hold_ms)]).await;
        let (before, mut buyer) = (payment.count("capture").await, first.buyer("u1").await);
        let order = buyer.order(1, &format!("k-{ends}")).await.order_id();
        let path = format!("/orders/{order}/pay");
        let cut_off = tokio::spawn(async move { buyer.send("POST", &path, &[], "").await.is_err() });
        eventually("the money to be taken", PATIENCE, async || payment.count("capture").await == before + 1).await;
        first.kill();
        assert!(cut_off.await.unwrap(), "nobody got an answer");
        let second = service(&postgres, &payment);
        eventually("the order to end", PATIENCE, async || state_of(&second, &order).await == ends).await;
        eventually("every payment to be finished", PATIENCE, async || unfinished(&second).await == 0).await;
        let (captures, refunds) = (payment.count("capture").await, payment.count("refund").await);
        assert_eq!((captures, refunds), (before + 1, usize::from(ends == "expired")), "{order}");
        assert!(second.stock().await.is_conserved());
    }
}

/// Deducted for good, the units of a declined payment go back, also when the process dies after it learned that and before it gave
/// them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_units_of_a_declined_payment_go_back_whoever_dies_in_between() {
    let (postgres, payment) = (Postgres::start(), Payment::start_with(&["--decline", "1"]));
    // What has the key of an attempt to pay, `order-1-1`.
    let proxy = LossyProxy::marking(&postgres.socket(), "order-").await;
    let (mut stranded, mut declined) = (Vec::new(), 0);
    for nth in 1..=6 {
        let arguments = ["--payment", &payment.address(), "--deduct", "order"];
        let mut service = Service::start_with(&proxy.url(), &arguments);
        service.reset(&[item(1, 1)]).await;
        let mut buyer = service.buyer("u1").await;
        let order = buyer.order(1, "k").await.order_id();
        // The answer to one of the statements that follow never comes, and then the process is killed.
        proxy.lose_reply(nth);
        let _ = buyer.pay(&order).await;
        service.kill();
        proxy.lose_reply(0);
        let service = Service::start_with(&proxy.url(), &arguments);
        eventually("every payment to be finished", PATIENCE, async || unfinished(&service).await == 0).await;
        // Where nobody had been asked for money yet, the order stands, and its buyer would ask again.
        let before = std::mem::replace(&mut declined, payment.count("decline").await);
        let stock = service.stock().await;
        if declined > before && (stock.available, stock.is_conserved()) != (1, true) {
            stranded.push((nth, state_of(&service, &order).await));
        }
    }
    assert!(declined >= 4, "only {declined} payments came to be declined");
    assert_eq!(stranded, Vec::<(usize, Value)>::new(), "after which statement the units were left");
}

#[tokio::test]
async fn garbage_is_never_taken_for_an_answer() {
    let (postgres, mut payment) = (Postgres::start(), Payment::start_with(&["--decline", "0.2"]));
    let service = service(&postgres, &payment);
    service.reset(&[with(item(100, 1), "hold_ms", 3_000)]).await;
    payment.behave(json!({"garbage": 0.6, "decline": 0.2})).await;
    let mut told = Vec::new();
    for n in 0..30 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let order = buyer.order(1, &format!("k{n}")).await.order_id();
        let reply = buyer.pay(&order).await;
        // What does not answer sensibly is left alone for a while: then nothing is begun (429).
        assert!(matches!(reply.status, 200 | 402 | 429 | 503), "{reply:?}");
        told.push((order, reply.status));
        if n == 15 {
            payment.kill();
            payment.launch();
            payment.behave(json!({"garbage": 0.6, "decline": 0.2})).await;
        }
    }
    assert!(told.iter().any(|(_, status)| *status == 200), "{told:?}");
    payment.behave(json!({})).await;
    eventually("the last hold to end", PATIENCE, async || service.stock().await.held == 0).await;
    assert_money_is_right(&service, &payment).await;
    for (order, status) in &told {
        let state = state_of(&service, order).await;
        assert!(*status != 200 || state == "paid", "{order} was told {status} and is {state}");
        assert!(!matches!(status, 402 | 429) || state != "paid", "{order} was told {status} and is {state}");
    }
}
