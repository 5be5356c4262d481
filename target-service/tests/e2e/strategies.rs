//! What holds under every strategy, and what only some promise. The faults come from the rehearsals.

use std::time::Duration;

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::service::{Buyer, Service, Stock};
use crate::support::skipped::skipped;
use crate::support::{eventually, item, now_us, with};
use serde_json::Value;
use tokio::task::JoinSet;

/// Those that need nothing but Postgres.
pub const STRATEGIES: [&str; 8] = [
    "conditional-update",
    "step-by-step",
    "transaction",
    "check-constraint",
    "item-queue",
    "batch",
    "shards",
    "unit-rows",
];

/// Those that can be tried here.
fn strategies(redis: Option<&Redis>) -> impl Iterator<Item = &'static str> {
    STRATEGIES.into_iter().chain(redis.map(|_| "redis-lua"))
}

async fn start(postgres: &Postgres, redis: Option<&Redis>, strategy: &str) -> Service {
    start_with(postgres, redis, strategy, &[])
}

fn start_with(postgres: &Postgres, redis: Option<&Redis>, strategy: &str, more: &[&str]) -> Service {
    let url = redis.map_or("redis://127.0.0.1:1".to_owned(), Redis::url);
    // A busy machine is slow, and that is no answer to what is asked here.
    let patient = ["--pool-wait", "20s", "--request-timeout", "25s"];
    let arguments = [&["--strategy", strategy, "--pool-size", "8", "--redis-url", &url], &patient[..], more].concat();
    Service::start_with(&postgres.url(), &arguments)
}

/// Logs buyers in and lets each order at once; the replies' statuses and problems.
async fn at_once(service: &Service, orders: Vec<(String, i64, String)>) -> Vec<(u16, String, String)> {
    let mut crowd: Vec<(Buyer, i64, String)> = Vec::new();
    for (user, quantity, key) in orders {
        crowd.push((service.buyer(&user).await, quantity, key));
    }
    let mut replies = JoinSet::new();
    for (mut buyer, quantity, key) in crowd {
        replies.spawn(async move {
            let reply = buyer.order(quantity, &key).await;
            let json = reply.json();
            let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
            (reply.status, text("type"), text("id"))
        });
    }
    replies.join_all().await
}

fn count(replies: &[(u16, String, String)], status: u16, problem: &str) -> usize {
    replies.iter().filter(|(s, p, _)| *s == status && p == problem).count()
}

/// At no prefix of the ledger are more units out than there are.
fn assert_never_oversold(strategy: &str, ledger: &[Value], stock: i64) {
    let mut out = 0;
    for entry in ledger {
        let quantity = entry["quantity"].as_i64().unwrap();
        match entry["kind"].as_str().unwrap() {
            "reserve" => out += quantity,
            "release" => out -= quantity,
            _ => {}
        }
        assert!((0..=stock).contains(&out), "{strategy}: {out} of {stock} at {entry}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_buys_exactly_what_there_is() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    for strategy in strategies(redis.as_ref()) {
        let service = start(&postgres, redis.as_ref(), strategy).await;
        service.reset(&[item(101, 3)]).await;
        // Ones, twos and threes: the last unit goes to somebody who wants one.
        let orders = (0..150).map(|n| (format!("u{n}"), n % 3 + 1, "k".to_owned())).collect();
        let replies = at_once(&service, orders).await;
        assert_eq!(count(&replies, 201, "") + count(&replies, 409, "sold-out"), 150, "{strategy}: {replies:?}");
        let more = at_once(&service, (0..40).map(|n| (format!("late{n}"), 1, "k".to_owned())).collect()).await;
        assert!(count(&more, 409, "sold-out") >= 37, "{strategy}: {more:?}");
        let stock = service.stock().await;
        assert_eq!(stock, Stock { initial: 101, available: 0, held: 101, sold: 0 }, "{strategy}");
        assert_never_oversold(strategy, &service.ledger().await, 101);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_buyer_in_a_crowd_has_his_own_answer() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    for strategy in strategies(redis.as_ref()) {
        let service = start(&postgres, redis.as_ref(), strategy).await;
        let later = with(with(item(10, 2), "id", 2), "opens_at", now_us() + 60_000_000);
        service.reset(&[item(1_000, 2), later]).await;
        // One user under many keys: as many as the limit allows, and no more, at whatever moment.
        let one_user: Vec<_> = (0..30).map(|n| ("many".to_owned(), 1, format!("k{n}"))).collect();
        // Everybody else orders under the same key as all others, which is his own all the same.
        let others = (0..30).map(|n| (format!("u{n}"), 1, "k".to_owned()));
        let greedy = (0..5).map(|n| (format!("g{n}"), 3, "k".to_owned()));
        let replies = at_once(&service, one_user.into_iter().chain(others).chain(greedy).collect()).await;
        assert_eq!(count(&replies, 201, ""), 32, "{strategy}: {replies:?}");
        assert_eq!(count(&replies, 409, "limit-reached"), 33, "{strategy}: {replies:?}");

        // The same key again is the same order, for another quantity it is a mistake, and for another item too.
        let mut buyer = service.buyer("u1").await;
        let first = buyer.order(1, "k").await;
        assert_eq!(first.status, 200, "{strategy}");
        assert_eq!(buyer.order(2, "k").await.problem(), "idempotency-key-reused", "{strategy}");
        let one = r#"{"quantity":1}"#;
        let other = buyer.send("POST", "/items/2/orders", &[("Idempotency-Key", "k")], one).await.unwrap();
        assert_eq!(other.problem(), "idempotency-key-reused", "{strategy}");
        let early = buyer.send("POST", "/items/2/orders", &[("Idempotency-Key", "e")], one).await.unwrap();
        assert_eq!(early.problem(), "too-early", "{strategy}");
        let nothing = buyer.send("POST", "/items/7/orders", &[("Idempotency-Key", "n")], one).await.unwrap();
        assert_eq!(nothing.problem(), "not-found", "{strategy}");
        assert!(service.stock().await.is_conserved(), "{strategy}");
    }
}

/// What comes back is for sale at once, and a key that has an order finds it however sold out the item is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_is_sold_again() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    for strategy in strategies(redis.as_ref()) {
        let service = start(&postgres, redis.as_ref(), strategy).await;
        service.reset(&[item(3, 1)]).await;
        let replies = at_once(&service, (0..20).map(|n| (format!("u{n}"), 1, "k".to_owned())).collect()).await;
        let winner = replies.iter().position(|(status, ..)| *status == 201).unwrap();
        let id = replies[winner].2.clone();
        // Whoever remembers that nothing is left does so from now on.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(
            count(&at_once(&service, vec![("x".into(), 1, "k".into())]).await, 409, "sold-out"),
            1,
            "{strategy}"
        );
        let mut owner = None;
        for n in 0..20 {
            let mut buyer = service.buyer(&format!("u{n}")).await;
            let again = buyer.order(1, "k").await;
            if again.status == 200 && again.order_id() == id {
                owner = Some(buyer);
            }
        }
        let mut owner = owner.unwrap_or_else(|| panic!("{strategy}: order {id} is not found by its key"));
        assert_eq!(owner.cancel(&id).await.status, 200, "{strategy}");
        let next = service.buyer("next").await.order(1, "k").await;
        assert_eq!(next.status, 201, "{strategy}: {next:?}");
        assert_never_oversold(strategy, &service.ledger().await, 3);
        assert!(service.stock().await.is_conserved(), "{strategy}");
    }
}

/// A key that names an order of another item is a mistake also where "sold out" is said from memory, and what it is told does not
/// stand between the key and its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_item_is_told_so_from_memory_too() {
    let postgres = Postgres::start();
    let service = start(&postgres, None, "batch").await;
    service.reset(&[item(1, 1), with(item(10, 1), "id", 2)]).await;
    let (mut buyer, mut late) = (service.buyer("buyer").await, service.buyer("late").await);
    let (two, key, one) = ("/items/2/orders", [("Idempotency-Key", "k")], r#"{"quantity":1}"#);
    let made = buyer.send("POST", two, &key, one).await.unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(late.order(1, "all").await.status, 201);
    let mut n = 0;
    eventually("sold out to be remembered", Duration::from_secs(10), async || {
        n += 1;
        assert_eq!(service.buyer("many").await.order(1, &format!("k{n}")).await.problem(), "sold-out");
        service.metric("seckill_refused_from_memory_total").await > 0.0
    })
    .await;
    assert_eq!(buyer.order(1, "k").await.problem(), "idempotency-key-reused");
    let again = buyer.send("POST", two, &key, one).await.unwrap();
    assert_eq!((again.status, again.order_id()), (200, made.order_id()), "{again:?}");
}

/// Only a strategy that remembers can refuse without the database; and it does not refuse who has an order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sold_out_from_memory() {
    let mut postgres = Postgres::start();
    // A sweeper that fails cannot know whether units came back, and forgets what is known: it comes too late for this.
    let service = start_with(&postgres, None, "batch", &["--sweep-interval", "60m"]);
    service.reset(&[item(2, 1)]).await;
    let mut crowd = Vec::new();
    for n in 0..4 {
        crowd.push(service.buyer(&format!("late{n}")).await);
    }
    let mut owner = service.buyer("owner").await;
    assert_eq!(owner.order(1, "k").await.status, 201);
    assert_eq!(service.buyer("other").await.order(1, "k").await.status, 201);
    assert_eq!(crowd[0].order(1, "k").await.problem(), "sold-out");
    // It is remembered once nothing of an earlier process can still be under way, and the keys were read.
    let mut n = 0;
    eventually("sold out to be remembered", Duration::from_secs(10), async || {
        n += 1;
        assert_eq!(crowd[1].order(1, &format!("k{n}")).await.problem(), "sold-out");
        service.metric("seckill_refused_from_memory_total").await > 0.0
    })
    .await;
    // And for a moment only. Asked just now, it is believed.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let remembered = service.metric("seckill_refused_from_memory_total").await;
    assert_eq!(crowd[1].order(1, "later").await.problem(), "sold-out");
    assert_eq!(service.metric("seckill_refused_from_memory_total").await, remembered, "it was not asked again");
    postgres.kill_hard();
    assert_eq!(crowd[2].order(1, "k").await.problem(), "sold-out", "the database was asked");
    assert_eq!(owner.order(1, "k").await.status, 503, "the owner's order cannot be found without the database");
    postgres.launch();
    eventually("recovery", Duration::from_secs(5), async || owner.order(1, "k").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_forgets_is_set_up_from_the_ledger() {
    let (postgres, Some(mut redis)) = (Postgres::start(), Redis::start()) else { return skipped("without a Redis") };
    let service = start(&postgres, Some(&redis), "redis-lua").await;
    service.reset(&[item(5, 2)]).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut buyers = Vec::new();
    for (n, quantity) in [(1, 2), (2, 1)] {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let reply = buyer.order(quantity, "k").await;
        assert_eq!(reply.status, 201, "{reply:?}");
        buyers.push((buyer, reply.json()["id"].clone()));
    }
    // At rest everything is in the database, so that nothing is lost with the memory of Redis.
    assert_eq!(service.stock().await, Stock { initial: 5, available: 2, held: 3, sold: 0 });
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
    // The same key finds its order, and its buyer has what he had: one more of two, and no further one.
    let again = buyers[0].0.order(2, "k").await;
    assert_eq!((again.status, &again.json()["id"]), (200, &buyers[0].1), "{again:?}");
    let more = buyers[0].0.order(1, "more").await;
    assert_eq!(more.problem(), "limit-reached", "{more:?}");
    redis.restart();
    // Connections broke with it, which whoever asks first is told.
    eventually("Redis is asked again", Duration::from_secs(5), async || {
        buyers[0].0.order(3, "too many").await.problem() == "limit-reached"
    })
    .await;
    let last = at_once(&service, (0..10).map(|n| (format!("late{n}"), 1, "k".to_owned())).collect()).await;
    assert_eq!((count(&last, 201, ""), count(&last, 409, "sold-out")), (2, 8), "{last:?}");
    assert_eq!(service.stock().await, Stock { initial: 5, available: 0, held: 5, sold: 0 });
    assert_never_oversold("redis-lua", &service.ledger().await, 5);
}

/// A buyer who was refused stays refused: his request may come once more, long after units came back, and in another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_copy_of_a_refused_request_is_refused() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let folder = tempfile::tempdir().unwrap();
    for strategy in strategies(redis.as_ref()) {
        let file = folder.path().join(strategy).display().to_string();
        let mut service = start_with(&postgres, redis.as_ref(), strategy, &["--refusals", &file]);
        service.reset(&[item(1, 1)]).await;
        let (mut owner, mut late) = (service.buyer("owner").await, service.buyer("late").await);
        let id = owner.order(1, "k").await.order_id();
        assert_eq!(owner.order(1, "again").await.problem(), "limit-reached", "{strategy}");
        assert_eq!(late.order(1, "k").await.problem(), "sold-out", "{strategy}");
        // Redis takes a release over within a second, or the buyer is told to ask again.
        let patience = Duration::from_secs(10);
        eventually("the units come back", patience, async || owner.cancel(&id).await.status == 200).await;
        assert_eq!(late.order(1, "k").await.problem(), "sold-out", "{strategy}");
        service.kill();
        let service = start_with(&postgres, redis.as_ref(), strategy, &["--refusals", &file]);
        let (mut owner, mut late) = (service.buyer("owner").await, service.buyer("late").await);
        assert_eq!(late.order(1, "k").await.problem(), "sold-out", "{strategy}");
        assert_eq!(owner.order(1, "again").await.problem(), "limit-reached", "{strategy}");
        // It is another purchase under another key, and a mistake for another quantity.
        assert_eq!(late.order(2, "k").await.problem(), "idempotency-key-reused", "{strategy}");
        assert_eq!(late.order(1, "new").await.status, 201, "{strategy}");
        assert!(service.stock().await.is_conserved(), "{strategy}");
        service.reset(&[item(1, 1)]).await;
        assert_eq!(late.order(1, "k").await.status, 201, "{strategy}: another sale");
    }
}

/// How far behind the database is can be seen, and is bounded: beyond that nobody is sold anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_on_their_way_to_the_database_are_counted_and_bounded() {
    let (mut postgres, Some(redis)) = (Postgres::start(), Redis::start()) else { return skipped("without a Redis") };
    let service = start(&postgres, Some(&redis), "redis-lua").await;
    service.reset(&[item(50_000, 1)]).await;
    let mut crowd = Vec::new();
    for n in 0..3 {
        crowd.push(service.buyer(&format!("u{n}")).await);
    }
    assert_eq!(crowd[0].order(1, "k").await.status, 201);
    assert_eq!(service.stock().await.held, 1);
    let lag = service.metric(r#"seckill_persist_lag_seconds{quantile="1"}"#).await;
    assert!(lag < 5.0 && service.metric(r#"seckill_redis_set_ups_total{reason="reset"}"#).await >= 1.0, "{lag}");
    postgres.kill_hard();
    // What is acknowledged meanwhile waits for the database, up to a point.
    assert_eq!(crowd[1].order(1, "k").await.status, 201);
    let client = redis::Client::open(redis.url()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    for _ in 0..20 {
        let mut filler = redis::pipe();
        for _ in 0..1_000 {
            filler.cmd("XADD").arg(&["seckill:orders", "*", "filler", ""]).ignore();
        }
        filler.query_async::<()>(&mut connection).await.unwrap();
    }
    let told = crowd[2].order(1, "k").await;
    assert_eq!((told.status, told.problem()), (503, "overloaded".to_owned()), "{told:?}");
    assert!(told.body.contains("is full"), "{told:?}");
    // The filler is no order; without it everything arrives.
    let without = "for _, entry in ipairs(redis.call('XRANGE', 'seckill:orders', '-', '+')) do
                       if entry[2][1] == 'filler' then redis.call('XDEL', 'seckill:orders', entry[1]) end
                   end";
    redis::cmd("EVAL").arg(without).arg(0).query_async::<()>(&mut connection).await.unwrap();
    postgres.launch();
    eventually("the order arrives", Duration::from_secs(5), async || service.stock().await.held == 2).await;
}
