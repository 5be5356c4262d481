//! The write path where something would have to go wrong twice: rows that no code may write, requests that come twice, a queue that
//! is full, a cache that says something else than the ledger.

use std::time::Duration;

use crate::support::http::Connection;
use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::service::{Buyer, Service, Stock};
use crate::support::skipped::skipped;
use crate::support::{eventually, item, now_us, with};
use serde_json::{Value, json};
use target_service::abuse::{COOL_DOWN_US, REPEATS};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

const SOON: Duration = Duration::from_secs(20);
/// Nobody who is told at once is told later than this.
const QUIET: Duration = Duration::from_secs(3);

async fn crowd(service: &Service, buyers: usize) -> Vec<Buyer> {
    let mut crowd = Vec::new();
    for n in 0..buyers {
        crowd.push(service.buyer(&format!("u{n}")).await);
    }
    crowd
}

fn count(ledger: &[Value], kind: &str) -> usize {
    ledger.iter().filter(|row| row["kind"] == *kind).count()
}

/// Rows that make no sense, and the constraint that refuses each.
const WRONG_ROWS: [(&str, &str); 9] = [
    ("orders_quantity_positive", "INSERT INTO orders VALUES (1, 1, 'u', 'k', 0, 0, 'held', 1, 2)"),
    ("orders_quantity_positive", "UPDATE orders SET quantity = -quantity"),
    ("orders_amount_floor", "UPDATE orders SET amount_cents = -1"),
    ("orders_end_after_beginning", "UPDATE orders SET expires_at_us = created_at_us"),
    ("order_event_quantity_positive", "INSERT INTO order_event VALUES (1, 1, 'release', 1, NULL, 0)"),
    ("purchase_floor", "UPDATE purchase SET quantity = -1"),
    ("payment_intent_amount_floor", "INSERT INTO payment_intent VALUES ('k', 1, 'u', -1, 1, 'capturing', 1)"),
    ("item_window", "UPDATE item SET closes_at_us = opens_at_us"),
    ("item_available_floor", "UPDATE item SET available = -1"),
];

#[tokio::test]
async fn the_database_refuses_what_no_row_may_say() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 2)]).await;
    assert_eq!(service.buyer("u").await.order(1, "k").await.status, 201);
    let client = postgres.client().await;
    for (constraint, statement) in WRONG_ROWS {
        let error = client.batch_execute(statement).await.expect_err(statement);
        let refused = error.as_db_error().unwrap();
        assert_eq!((refused.code(), refused.constraint()), (&SqlState::CHECK_VIOLATION, Some(constraint)), "{refused}");
    }
    assert_eq!(service.stock().await, Stock { initial: 5, available: 4, held: 1, sold: 0 });
}

/// C6 against concurrent orders of one user. Without the cap he has whatever there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_per_user_is_a_switch() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let url = redis.as_ref().map_or("redis://127.0.0.1:1".to_owned(), Redis::url);
    let strategies = ["conditional-update", "transaction", "batch", "shards", "unit-rows"];
    for strategy in strategies.into_iter().chain(redis.as_ref().map(|_| "redis-lua")) {
        let patient = ["--pool-wait", "20s", "--request-timeout", "25s", "--redis-url", &url];
        let service = Service::start_with(&postgres.url(), &[&["--strategy", strategy], &patient[..]].concat());
        for (on, granted) in [(true, 2), (false, 20)] {
            service.admin("PUT", "/switches/C6", Some(json!({"on": on}))).await;
            service.reset(&[item(50, 2)]).await;
            let mut orders = JoinSet::new();
            for n in 0..20 {
                let mut buyer = service.buyer("one").await;
                orders.spawn(async move { buyer.order(1, &format!("k{n}")).await });
            }
            let told = orders.join_all().await;
            let refused = told.iter().filter(|reply| reply.problem() == "limit-reached").count();
            let bought = told.iter().filter(|reply| reply.status == 201).count();
            assert_eq!((bought, refused), (granted, 20 - granted), "{strategy}, C6 {on}: {told:?}");
            assert_eq!(service.stock().await.held, granted as i64, "{strategy}");
        }
    }
}

/// C7: the reply says when to come back, so whoever does is judged anew, also under the same key.
#[tokio::test]
async fn who_comes_back_after_the_cool_down_is_served_under_the_same_key() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let refusals = folder.path().join("refusals").display().to_string();
    let service = Service::start_with(&postgres.url(), &["--switch", "C7=on", "--refusals", &refusals]);
    service.reset(&[item(50, 9)]).await;
    let mut eager = service.buyer("eager").await;
    for n in 0..REPEATS {
        assert_eq!(eager.order(1, &format!("e{n}")).await.status, 201, "{n}");
    }
    for _ in 0..2 {
        let told = eager.order(1, "more").await;
        assert_eq!((told.problem().as_str(), told.header("retry-after")), ("cooling-down", Some("5")));
    }
    let ahead = json!({"offset_ms": COOL_DOWN_US / 1000 + 1_000});
    service.admin("PUT", "/clock", Some(ahead)).await;
    assert_eq!(eager.order(1, "more").await.status, 201, "the same key after the cool-down");
    assert_eq!(eager.order(1, "more").await.status, 200, "and it is one order");
    assert_eq!(service.stock().await.held, REPEATS as i64 + 1);
}

/// R6: each request of the journey comes twice, at the same time and once more when all is over.
async fn everything_twice(service: &Service, strategy: &str, payment: Option<&Payment>) {
    service.reset(&[item(20, 2)]).await;
    let twice = async |user: &'static str| {
        let (first, second) = tokio::join!(service.buyer(user), service.buyer(user));
        assert_eq!(first.token, second.token, "{strategy}: one session, however often it is asked for");
        (first, second)
    };
    let (mut first, mut second) = twice("payer").await;
    let told = tokio::join!(first.order(2, "k"), second.order(2, "k"));
    // One of the two may be told that the other one is under way.
    let order = [told.0, told.1].into_iter().find(|reply| matches!(reply.status, 200 | 201)).unwrap().order_id();
    assert_eq!(first.order(2, "k").await.order_id(), order, "{strategy}");
    let told = tokio::join!(first.pay(&order), second.pay(&order));
    assert_eq!((told.0.status, told.1.status), (200, 200), "{strategy}: {told:?}");
    let late = first.pay(&order).await;
    assert_eq!((late.status, &late.json()["state"]), (200, &json!("paid")), "{strategy}");

    let (mut first, mut second) = twice("waverer").await;
    let order = first.order(1, "k").await.order_id();
    let told = tokio::join!(first.cancel(&order), second.cancel(&order));
    assert_eq!((told.0.status, told.1.status), (200, 200), "{strategy}: {told:?}");
    let late = first.cancel(&order).await;
    assert_eq!((late.status, &late.json()["state"]), (200, &json!("cancelled")), "{strategy}");
    assert_eq!(first.pay(&order).await.problem(), "cancelled", "{strategy}: a payment that came too late");
    let again = first.order(1, "k").await;
    assert_eq!(
        (again.status, &again.json()["state"]),
        (200, &json!("cancelled")),
        "{strategy}: nor does the key buy again"
    );

    let ledger = service.ledger().await;
    let entries = ["reserve", "pay", "release"].map(|kind| count(&ledger, kind));
    assert_eq!(entries, [2, 1, 1], "{strategy}: {ledger:#?}");
    assert_eq!(service.stock().await, Stock { initial: 20, available: 18, held: 0, sold: 2 }, "{strategy}");
    if let Some(payment) = payment {
        assert_eq!((payment.count("capture").await, payment.count("refund").await), (1, 0), "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_may_come_twice() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let url = redis.as_ref().map_or("redis://127.0.0.1:1".to_owned(), Redis::url);
    let patient = ["--pool-wait", "20s", "--request-timeout", "25s", "--redis-url", &url];
    let strategies = ["conditional-update", "transaction", "item-queue", "batch", "shards", "unit-rows"];
    for strategy in strategies.into_iter().chain(redis.as_ref().map(|_| "redis-lua")) {
        let strategy_is = [&["--strategy", strategy], &patient[..]].concat();
        everything_twice(&Service::start_with(&postgres.url(), &strategy_is), strategy, None).await;
        let payment = Payment::start();
        let address = payment.address();
        let pays = [&["--payment", address.as_str()], &strategy_is[..]].concat();
        everything_twice(&Service::start_with(&postgres.url(), &pays), strategy, Some(&payment)).await;
    }
}

/// A payment that was declined stays so for whoever asks again under its key, as a copy does that was long on its way. Another key
/// is another card.
#[tokio::test]
async fn a_late_copy_of_a_declined_payment_takes_no_money() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    let service = Service::start_with(&postgres.url(), &["--payment", &payment.address()]);
    service.reset(&[item(5, 1)]).await;
    let mut buyer = service.buyer("u").await;
    let order = buyer.order(1, "k").await.order_id();
    let path = format!("/orders/{order}/pay");
    payment.behave(json!({"decline": 1.0})).await;
    let first = buyer.send("POST", &path, &[("Idempotency-Key", "first")], "").await.unwrap();
    assert_eq!(first.problem(), "payment-declined");
    payment.behave(json!({})).await;
    for _ in 0..2 {
        let copy = buyer.send("POST", &path, &[("Idempotency-Key", "first")], "").await.unwrap();
        assert_eq!(copy.problem(), "payment-declined");
    }
    assert_eq!((payment.count("capture").await, payment.count("decline").await), (0, 1));
    let second = buyer.send("POST", &path, &[("Idempotency-Key", "second")], "").await.unwrap();
    assert_eq!((second.status, &second.json()["state"]), (200, &json!("paid")));
    let copy = buyer.send("POST", &path, &[("Idempotency-Key", "first")], "").await.unwrap();
    assert_eq!(copy.problem(), "payment-declined", "what came of the first one");
    assert_eq!(buyer.pay(&order).await.status, 200);
    assert_eq!((payment.count("capture").await, payment.count("refund").await), (1, 0));
}

/// A full queue says so at once, nothing is lost by it, and whoever comes back is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_loses_nothing() {
    let postgres = Postgres::start();
    for strategy in ["batch", "item-queue"] {
        let patient = [
            "--lock-timeout",
            "20s",
            "--statement-timeout",
            "20s",
            "--query-timeout",
            "22s",
            "--request-timeout",
            "25s",
        ];
        let bounded = ["--strategy", strategy, "--queue", "5", "--pool-wait", "20s"];
        let service = Service::start_with(&postgres.url(), &[&bounded[..], &patient].concat());
        service.reset(&[item(100, 1)]).await;
        let crowd = crowd(&service, 30).await;
        let mut holder = postgres.client().await;
        let held = holder.transaction().await.unwrap();
        held.execute("SELECT FROM item WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mut orders = JoinSet::new();
        for mut buyer in crowd {
            let tell = tell.clone();
            orders.spawn(async move {
                let reply = buyer.order(1, "k").await;
                let status = reply.status;
                let _ = tell.send(reply);
                (buyer, status)
            });
        }
        // Two statements of the queue, or a first batch of no more than those who may wait, are at the database, and five wait behind
        // them. All others are told so while the row is still held.
        let mut refused = 0;
        while let Ok(Some(reply)) = tokio::time::timeout(QUIET, told.recv()).await {
            let retry = reply.header("retry-after").map(str::to_owned);
            assert_eq!(
                (reply.status, reply.problem(), retry),
                (503, "overloaded".into(), Some("1".into())),
                "{strategy}"
            );
            assert!(reply.body.contains("is full"), "{reply:?}");
            refused += 1;
        }
        assert!((20..=25).contains(&refused), "{strategy}: {refused} were refused");
        let served = 30 - refused;
        assert_eq!(service.metric("seckill_queue_turned_away_total").await, f64::from(refused), "{strategy}");
        assert!(service.metric("seckill_queue_waiting").await <= 5.0, "{strategy}");
        held.rollback().await.unwrap();
        let mut bought = 0;
        for (mut buyer, status) in orders.join_all().await {
            bought += i32::from(status == 201);
            let again = buyer.order(1, "k").await;
            assert_eq!(again.status, if status == 201 { 200 } else { 201 }, "{strategy}: {again:?}");
        }
        assert_eq!(bought, served, "{strategy}");
        assert_eq!(service.stock().await, Stock { initial: 100, available: 70, held: 30, sold: 0 }, "{strategy}");
        assert_eq!(count(&service.ledger().await, "reserve"), 30, "{strategy}");
        assert_eq!(service.metric("seckill_queue_waiting").await, 0.0, "{strategy}");
    }
}

/// M3: at rest Redis has what the ledger has, and the audit says so. Where somebody makes it something else, the audit says that,
/// and it is set up from the ledger, be it too little or too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_equals_the_ledger_at_rest_and_a_difference_is_told_and_mended() {
    let (postgres, Some(redis)) = (Postgres::start(), Redis::start()) else { return skipped("without a Redis") };
    let service = Service::start_with(&postgres.url(), &["--strategy", "redis-lua", "--redis-url", &redis.url()]);
    service.reset(&[item(10, 3), with(item(7, 1), "id", 2)]).await;
    let mut buyer = service.buyer("u").await;
    let order = buyer.order(3, "k").await.order_id();
    buyer.order(1, "more").await;
    assert_eq!(service.buyer("v").await.order(2, "k").await.status, 201);
    assert_eq!(buyer.pay(&order).await.status, 200);
    let caches = async || {
        let audit = service.admin("GET", "/audit/stock?close=true", None).await;
        [0, 1].map(|n| (audit["items"][n]["available"].clone(), audit["items"][n]["caches"].clone()))
    };
    let at_rest = [(json!(5), json!([["redis", 5]])), (json!(7), json!([["redis", 7]]))];
    assert_eq!(caches().await, at_rest);
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let set_ups = async || service.metric(r#"seckill_redis_set_ups_total{reason="apart"}"#).await;
    for (round, units) in [(0.0, -2_i32), (1.0, 3)] {
        assert_eq!(set_ups().await, round);
        let mut falsify = redis::cmd("HINCRBY");
        falsify.arg("seckill:item:1").arg("available").arg(units).exec_async(&mut by_hand).await.unwrap();
        let [(available, told), other] = caches().await;
        assert_eq!((available, told), (json!(5), json!([["redis", 5 + units]])), "what is wrong is told");
        assert_eq!(other, at_rest[1]);
        eventually("the difference to be counted", SOON, async || {
            service.metric("seckill_redis_apart_units").await == f64::from(units.abs())
        })
        .await;
        eventually("Redis to be set up anew", SOON, async || set_ups().await == round + 1.0).await;
        assert_eq!(caches().await, at_rest, "it is what the ledger has again");
    }
    // And what is left is sold, no more and no less.
    let mut orders = JoinSet::new();
    for n in 0..9 {
        let mut buyer = service.buyer(&format!("late{n}")).await;
        orders.spawn(async move { buyer.order(1, "k").await.status });
    }
    assert_eq!(orders.join_all().await.into_iter().filter(|status| *status == 201).count(), 5);
    assert_eq!(service.stock().await, Stock { initial: 10, available: 0, held: 2 + 5, sold: 3 });
}

/// A login may be copied on its way, too, and the copy come much later: whoever it names is not in a hurry because of it (C8).
#[tokio::test]
async fn a_late_copy_of_a_login_makes_nobody_a_machine() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--switch", "C8=on"]);
    service.reset(&[item(5, 1)]).await;
    let mut person = service.buyer("person").await;
    service.admin("PUT", "/clock", Some(json!({"offset_ms": 2_000}))).await;
    let mut copy = Connection::open(&service.listen).await.unwrap();
    assert_eq!(copy.send("POST", "/sessions", &[], r#"{"user":"person"}"#).await.unwrap().status, 201);
    // Its clock stands still, so that nobody can be slow enough by chance.
    service.admin("PUT", "/clock", Some(json!({"offset_ms": 2_000, "gain_ppm": -1_000_000}))).await;
    let told = person.order(1, "k").await;
    assert_eq!(told.status, 201, "{told:?}, {}", now_us());
}
