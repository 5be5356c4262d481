//! The correct service: ordering, paying, cancelling, expiry, limits and the audit.

use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::postgres::Postgres;
use crate::support::service::{Service, Stock};
use crate::support::{eventually, item, now_us, with};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test]
async fn an_order_is_held_replayed_and_paid() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(10, 2)]).await;
    let mut buyer = service.buyer("u1").await;

    let held = buyer.order(2, "\"k1\"").await;
    assert_eq!(held.status, 201, "{held:?}");
    let order = held.json();
    let id = held.order_id();
    assert_eq!(held.header("location"), Some(format!("/orders/{id}").as_str()));
    assert_eq!(held.header("x-served-by-tier"), Some("service"));
    assert_eq!(held.header("x-degrade-level"), Some("0"));
    assert_eq!(order["state"], "held");
    assert_eq!(order["amount_cents"], 19_800);
    assert_eq!(order["idempotency_key"], "k1");
    assert_eq!(order["expires_at"].as_i64().unwrap() - order["created_at"].as_i64().unwrap(), 60_000_000);

    // The same key, quoted or bare, is the same order.
    let replay = buyer.order(2, "k1").await;
    assert_eq!((replay.status, replay.json()), (200, order.clone()));
    let other = buyer.order(1, "k1").await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency-key-reused"));
    assert_eq!(buyer.order(1, "k2").await.problem(), "limit-reached");
    assert_eq!(buyer.find("k1").await.json(), order);
    assert_eq!(buyer.find("k2").await.status, 404);

    let paid = buyer.pay(&id).await;
    assert_eq!((paid.status, paid.json()["state"].as_str()), (200, Some("paid")));
    assert_eq!(buyer.pay(&id).await.status, 200);
    assert_eq!(buyer.order(2, "k1").await.json()["state"], "paid");
    let cancel = buyer.cancel(&id).await;
    assert_eq!((cancel.status, cancel.problem().as_str()), (409, "already-paid"));

    assert_eq!(service.stock().await, Stock { initial: 10, available: 8, held: 0, sold: 2 });
    let kinds: Vec<_> = service.ledger().await.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["reserve", "pay"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_apart() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    let now = now_us();
    service
        .reset(&[
            item(10, 2),
            with(with(item(10, 2), "id", 2), "opens_at", now + 60_000_000),
            with(with(item(10, 2), "id", 3), "closes_at", now - 1),
        ])
        .await;
    let mut buyer = service.buyer("u1").await;
    // Each purchase has a key of its own: under one that was refused, another purchase is a mistake.
    let key = |key| [("Idempotency-Key", key)];
    let one = r#"{"quantity":1}"#;
    for (path, headers, body, status, problem) in [
        ("/items/1/orders", &[][..], one, 400, "idempotency-key-missing"),
        ("/items/1/orders", &[("Idempotency-Key", "\"open")][..], one, 400, "bad-request"),
        ("/items/1/orders", &key("k0")[..], r#"{"quantity":0}"#, 400, "bad-request"),
        ("/items/1/orders", &key("k1")[..], r#"{"quantity":-5}"#, 400, "bad-request"),
        ("/items/1/orders", &key("k2")[..], r#"{"quantity":3}"#, 409, "limit-reached"),
        ("/items/1/orders", &key("k3")[..], r#"{"quantity":9999999999}"#, 409, "limit-reached"),
        ("/items/1/orders", &key("k4")[..], "{", 400, "bad-request"),
        ("/items/2/orders", &key("item 2")[..], one, 425, "too-early"),
        ("/items/3/orders", &key("item 3")[..], one, 410, "ended"),
        ("/items/9/orders", &key("item 9")[..], one, 404, "not-found"),
        ("/items/x/orders", &key("item x")[..], one, 404, "not-found"),
        ("/items/1/orders", &key("k2")[..], one, 422, "idempotency-key-reused"),
        ("/nothing", &[][..], "", 404, "not-found"),
        ("/time", &[][..], "", 405, "method-not-allowed"),
    ] {
        let reply = buyer.send("POST", path, headers, body).await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (status, problem), "{path} {headers:?} {body}");
    }
    let large = format!(r#"{{"quantity":1,"padding":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(service.buyer("u2").await.send("POST", "/items/1/orders", &key("k"), &large).await.unwrap().status, 413);
    let mut stranger = Connection::open(&service.listen).await.unwrap();
    let reply = stranger.send("POST", "/items/1/orders", &key("k"), one).await.unwrap();
    assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthorized"));

    // Somebody else's order is neither shown, nor paid, nor cancelled.
    let id = buyer.order(1, "mine").await.order_id();
    let mut rival = service.buyer("u2").await;
    assert_eq!(rival.pay(&id).await.problem(), "forbidden");
    assert_eq!(rival.cancel(&id).await.problem(), "forbidden");
    assert_eq!(rival.find("mine").await.problem(), "not-found");
    assert_eq!(rival.pay("999999").await.problem(), "not-found");
    assert_eq!(service.stock().await, Stock { initial: 10, available: 9, held: 1, sold: 0 });

    // The clock decides, and it can be moved.
    service.admin("PUT", "/clock", Some(json!({"offset_ms": 61_000}))).await;
    let reply = buyer.send("POST", "/items/2/orders", &key("early"), one).await.unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[tokio::test]
async fn pages_state_and_time() {
    let postgres = Postgres::start();
    let socket = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}/public.sock", socket.path().display());
    // A stale socket file, as a killed process leaves it.
    drop(std::os::unix::net::UnixListener::bind(socket.path().join("public.sock")).unwrap());
    let service = Service::start_with(&postgres.url(), &["--switch", "P5=on"]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_seckill-target"))
        .args(["serve", "--listen", &listen, "--admin-listen", "127.0.0.1:0", "--database-url", &postgres.url()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let second = KillOnDrop(second);
    service.reset(&[item(5, 1)]).await;

    let mut reader = Connection::open(&service.listen).await.unwrap();
    let page = reader.send("GET", "/items/1", &[], "").await.unwrap();
    assert_eq!(page.status, 200);
    assert!((3_500..5_000).contains(&page.body.len()), "{}", page.body.len());
    assert!(page.header("cache-control").unwrap().contains("max-age"));
    let etag = page.header("etag").unwrap().to_owned();
    let again = reader.send("GET", "/items/1", &[("If-None-Match", &etag)], "").await.unwrap();
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(reader.send("GET", "/items/7", &[], "").await.unwrap().problem(), "not-found");

    let state = reader.send("GET", "/items/1/state", &[], "").await.unwrap().json();
    assert_eq!((&state["available"], &state["on_sale"], &state["stale"]), (&json!(5), &json!(true), &json!(false)));
    assert!(state["as_of"].as_i64().unwrap() <= now_us());
    let time = reader.send("GET", "/time", &[], "").await.unwrap().json();
    assert!((now_us() - time["unix_us"].as_i64().unwrap()).abs() < 2_000_000);

    let path = listen.as_str();
    eventually("serving on the unix socket", Duration::from_secs(5), async || Connection::open(path).await.is_ok())
        .await;
    let mut local = Connection::open(&listen).await.unwrap();
    assert_eq!(local.send("GET", "/items/1", &[], "").await.unwrap().body, page.body);
    drop(second);

    assert_eq!(service.admin("GET", "/switches/P5", None).await, json!({"id": "P5", "on": true}));
    service.admin("PUT", "/switches/P5", Some(json!({"on": false}))).await;
    assert_eq!(reader.send("GET", "/items/1", &[], "").await.unwrap().body, page.body);
    assert_eq!(service.try_admin("GET", "/switches/Z9", None).await.status, 404);
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn two_hundred_buyers_get_exactly_fifty_units() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(50, 1)]).await;
    let mut buyers = JoinSet::new();
    for n in 0..200 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        buyers.spawn(async move {
            let reply = buyer.order(1, "k").await;
            (reply.status, reply.problem())
        });
    }
    let replies = buyers.join_all().await;
    assert_eq!(replies.iter().filter(|reply| reply.0 == 201).count(), 50);
    assert_eq!(replies.iter().filter(|reply| reply.1 == "sold-out").count(), 150);
    assert_eq!(service.stock().await, Stock { initial: 50, available: 0, held: 50, sold: 0 });
    let metrics = service.try_admin("GET", "/metrics", None).await.body;
    assert!(metrics.contains(r#"seckill_orders_total{outcome="held"} 50"#), "{metrics}");
    assert!(metrics.contains(r#"seckill_stock_units{state="held"} 50"#), "{metrics}");
    assert!(metrics.contains("db_client_connection_max 16"), "{metrics}");
}

#[tokio::test]
async fn one_user_cannot_race_the_limit_or_a_key() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    // A second process on the same database: its set of keys in flight is its own.
    let other = Service::start(&postgres.url());
    service.reset(&[item(1_000, 3)]).await;
    let mut buyers = JoinSet::new();
    for n in 0..20 {
        let mut buyer = if n % 2 == 0 { service.buyer("u1").await } else { other.buyer("u1").await };
        buyers.spawn(async move { buyer.order(1, &format!("k{n}")).await.status });
    }
    let statuses = buyers.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 3, "{statuses:?}");

    // Twins of one request, through both processes, several times over.
    for round in 0..20 {
        let user = format!("twin{round}");
        let mut twins = JoinSet::new();
        for n in 0..8 {
            let mut buyer = if n % 2 == 0 { service.buyer(&user).await } else { other.buyer(&user).await };
            twins.spawn(async move {
                let reply = buyer.order(1, "same").await;
                match reply.status {
                    200 | 201 => Some(reply.order_id()),
                    _ => {
                        assert_eq!(reply.problem(), "in-flight");
                        None
                    }
                }
            });
        }
        let mut orders: Vec<_> = twins.join_all().await.into_iter().flatten().collect();
        orders.dedup();
        assert_eq!(orders.len(), 1, "{orders:?}");
    }
    assert_eq!(service.stock().await, Stock { initial: 1_000, available: 977, held: 23, sold: 0 });
}

#[tokio::test]
async fn expiry_releases_once_and_reopens_the_sale() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(3, 1), "hold_ms", 300)]).await;
    let mut first = Vec::new();
    for n in 0..3 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let id = buyer.order(1, "k").await.order_id();
        first.push((buyer, id));
    }
    let mut late = service.buyer("late").await;
    assert_eq!(late.order(1, "k").await.problem(), "sold-out");
    let ordered = Instant::now();
    eventually("release", Duration::from_secs(3), async || service.stock().await.available == 3).await;
    assert!(ordered.elapsed() < Duration::from_millis(800), "{:?}", ordered.elapsed());
    assert_eq!(service.stock().await, Stock { initial: 3, available: 3, held: 0, sold: 0 });

    // The old holds are gone for good, and their users may order again.
    let (buyer, id) = &mut first[0];
    assert_eq!(buyer.pay(id).await.problem(), "hold-expired");
    assert_eq!(buyer.cancel(id).await.json()["state"], "expired");
    assert_eq!(buyer.order(1, "k").await.json()["state"], "expired");
    assert_eq!(buyer.order(1, "k2").await.status, 201);
    assert_eq!(late.order(1, "k2").await.status, 201);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ledger = service.ledger().await;
    let released: Vec<_> = ledger.iter().filter(|entry| entry["kind"] == "release").collect();
    assert!(released.iter().all(|entry| entry["reason"] == "expired"));
    for (_, id) in &first {
        assert_eq!(released.iter().filter(|entry| entry["order"] == id.as_str()).count(), 1);
    }
}

#[tokio::test]
async fn payment_and_cancellation_race_expiry_without_harm() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--sweep-interval", "5ms"]);
    service.reset(&[with(item(100, 1), "hold_ms", 250)]).await;
    let mut races = JoinSet::new();
    for n in 0..60_u64 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let mut second = service.buyer(&format!("u{n}")).await;
        let held = buyer.order(1, "k").await;
        let expires_at = held.json()["expires_at"].as_i64().unwrap();
        let id = held.order_id();
        races.spawn(async move {
            // Around the end of the hold, some before and some after.
            let aim = expires_at - now_us() - 12_000 + (n as i64 % 20) * 1_000;
            tokio::time::sleep(Duration::from_micros(aim.max(0) as u64)).await;
            if n % 3 == 0 {
                let (one, two) = tokio::join!(buyer.cancel(&id), second.cancel(&id));
                assert_eq!((one.status, two.status), (200, 200));
            } else {
                let (pay, cancel) = tokio::join!(buyer.pay(&id), second.cancel(&id));
                assert!(pay.status == 200 || cancel.status == 200, "{pay:?} {cancel:?}");
                assert!(pay.status != 200 || cancel.problem() == "already-paid", "{pay:?} {cancel:?}");
            }
        });
    }
    races.join_all().await;
    eventually("rest", Duration::from_secs(3), async || service.stock().await.held == 0).await;
    let stock = service.stock().await;
    assert!(stock.is_conserved(), "{stock:?}");
    let ledger = service.ledger().await;
    for reserve in ledger.iter().filter(|entry| entry["kind"] == "reserve") {
        let later: Vec<_> =
            ledger.iter().filter(|entry| entry["order"] == reserve["order"] && entry["kind"] != "reserve").collect();
        assert_eq!(later.len(), 1, "an order ends once: {later:?}");
        assert!(later[0]["seq"].as_i64() > reserve["seq"].as_i64());
    }
}

#[tokio::test]
async fn the_audit_is_one_snapshot() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(100, 100)]).await;
    let mut buyer = service.buyer("u1").await;
    for n in 0..5 {
        assert_eq!(buyer.order(1, &format!("k{n}")).await.status, 201);
    }
    let stock = service.admin("GET", "/audit/stock", None).await;
    let snapshot = stock["snapshot"].as_str().unwrap();
    assert_eq!(stock["items"][0]["held"], 5);
    for n in 5..8 {
        assert_eq!(buyer.order(1, &format!("k{n}")).await.status, 201);
    }
    // Orders made meanwhile are not in the snapshot.
    let page = service.admin("GET", &format!("/audit/ledger?snapshot={snapshot}&limit=3"), None).await;
    assert_eq!(page["entries"].as_array().unwrap().len(), 3);
    let entry = &page["entries"][0];
    assert_eq!((&entry["kind"], &entry["state"], &entry["user"]), (&json!("reserve"), &json!("held"), &json!("u1")));
    assert_eq!(entry["expires_at"].as_i64().unwrap() - entry["at"].as_i64().unwrap(), 60_000_000);
    let next = page["next"].as_i64().unwrap();
    let last = service.admin("GET", &format!("/audit/ledger?snapshot={snapshot}&after={next}&limit=3"), None).await;
    assert_eq!(last["entries"].as_array().unwrap().len(), 2);
    assert!(last["next"].is_null());
    let gone = service.try_admin("GET", &format!("/audit/ledger?snapshot={snapshot}"), None).await;
    assert_eq!((gone.status, gone.problem().as_str()), (404, "snapshot-gone"));
    assert_eq!(service.ledger().await.len(), 8);
    // Open snapshots do not stand in the way of a reset, nor of further snapshots.
    for _ in 0..10 {
        service.admin("GET", "/audit/stock", None).await;
    }
    service.reset(&[item(1, 1)]).await;
    assert_eq!(service.stock().await, Stock { initial: 1, available: 1, held: 0, sold: 0 });
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--max-in-flight", "4", "--pool-size", "1"]);
    service.reset(&[item(1_000, 1_000)]).await;
    let burst = async |service: &Service, round: usize| {
        let mut buyers = Vec::new();
        for _ in 0..64 {
            buyers.push(service.buyer("u1").await);
        }
        let mut orders = JoinSet::new();
        for (n, mut buyer) in buyers.into_iter().enumerate() {
            orders.spawn(async move { buyer.order(1, &format!("r{round}-{n}")).await });
        }
        orders.join_all().await
    };
    let replies = burst(&service, 0).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(!refused.is_empty());
    for reply in refused {
        assert_eq!((reply.problem().as_str(), reply.header("retry-after")), ("overloaded", Some("1")));
        assert_eq!(reply.header("x-served-by-tier"), Some("service"));
    }
    service.admin("PUT", "/switches/K8", Some(json!({"on": false}))).await;
    assert!(burst(&service, 1).await.iter().all(|reply| reply.status == 201));
}

#[tokio::test]
async fn a_token_for_an_answered_challenge_opens_one_purchase() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(10, 3)]).await;
    let mut buyer = service.buyer("u1").await;
    let challenge = buyer.send("POST", "/challenges", &[], "").await.unwrap().json()["id"].as_str().unwrap().to_owned();
    let path = format!("/challenges/{challenge}/answer");
    let token = buyer.send("POST", &path, &[], "").await.unwrap().json()["token"].as_str().unwrap().to_owned();
    let mut other = service.buyer("u2").await;
    assert_eq!(other.send("POST", &path, &[], "").await.unwrap().status, 404, "it is somebody else's");

    let mut order = async |key: &str, token: &str| {
        let headers = [("idempotency-key", key), ("challenge-token", token)];
        buyer.send("POST", "/items/1/orders", &headers, r#"{"quantity":1}"#).await.unwrap()
    };
    let held = order("k1", &token).await;
    assert_eq!(held.status, 201, "{held:?}");
    assert_eq!(order("k1", &token).await.order_id(), held.order_id(), "a retry is the same purchase");
    let again = order("k2", &token).await;
    assert_eq!((again.status, again.problem().as_str()), (409, "token-spent"));
    let forged = order("k3", "0.AAAA").await;
    assert_eq!((forged.status, forged.problem().as_str()), (403, "challenge-required"));
    assert_eq!(service.stock().await, Stock { initial: 10, available: 9, held: 1, sold: 0 });
}

#[tokio::test]
async fn an_open_page_hears_of_the_opening_once() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    let opens_at = now_us() + 1_500_000;
    let soon = with(item(10, 2), "opens_at", opens_at);
    let over =
        with(with(with(item(10, 2), "id", 2), "opens_at", now_us() - 2_000_000), "closes_at", now_us() - 1_000_000);
    service.reset(&[soon, over]).await;
    let listen = async |path: &str, headers: &[(&str, &str)]| {
        let mut connection = Connection::open(&service.listen).await.unwrap();
        let mut all = vec![("connection", "close")];
        all.extend(headers);
        connection.write("GET", path, &all, "").await.unwrap();
        connection.rest().await.unwrap()
    };
    let events = |text: &str| {
        let names = text.lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned);
        names.collect::<Vec<_>>()
    };
    let whole = listen("/items/1/events", &[]).await;
    let opened = now_us();
    assert!(whole.contains("content-type: text/event-stream"), "{whole}");
    assert_eq!(events(&whole), ["state", "open"], "{whole}");
    assert!(whole.contains("\"on_sale\":false") && whole.contains("\"on_sale\":true"), "before and after: {whole}");
    assert!(opened >= opens_at, "it was told before the sale had opened");
    // Who comes again hears what he has not heard yet.
    assert_eq!(events(&listen("/items/1/events", &[("last-event-id", "1")]).await), ["open"]);
    assert_eq!(events(&listen("/items/1/events", &[("last-event-id", "2")]).await), [""; 0]);
    assert_eq!(events(&listen("/items/2/events", &[]).await), ["state", "ended"]);
    assert!(listen("/items/9/events", &[]).await.starts_with("HTTP/1.1 404"));
}
