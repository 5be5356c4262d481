//! Mechanisms that can be switched or chosen: when stock is deducted, who may not order, and what makes requests cheaper
//! without changing their answers.

use std::time::Duration;

use crate::support::http::{Connection, Reply};
use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::service::{Buyer, Service};
use crate::support::{eventually, item, now_us, with};
use prost::Message as _;
use serde_json::{Value, json};
use target_service::abuse::{COOL_DOWN_US, REPEATS};
use target_service::wire::{NewOrder, OrderTold, PROTOBUF};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);

fn count(ledger: &[Value], order: &str, kind: &str) -> usize {
    ledger.iter().filter(|row| row["order"] == *order && row["kind"] == *kind).count()
}

#[tokio::test]
async fn deducted_at_order_stock_stays_with_who_never_pays() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    let service = Service::start_with(&postgres.url(), &["--deduct", "order", "--payment", &payment.address()]);
    // A hold would have run out at once.
    service.reset(&[with(item(2, 1), "hold_ms", 1)]).await;
    let (mut idle, mut poor, mut late) =
        (service.buyer("idle").await, service.buyer("poor").await, service.buyer("late").await);
    idle.order(1, "k").await.order_id();
    let order = poor.order(1, "k").await.order_id();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(late.order(1, "k1").await.problem(), "sold-out", "nothing has run out");
    // Whose payment is declined gives the unit back at once, since no time would.
    payment.behave(json!({"decline": 1.0})).await;
    assert_eq!(poor.pay(&order).await.problem(), "payment-declined");
    let ledger = service.ledger().await;
    assert_eq!(count(&ledger, &order, "release"), 1, "{ledger:#?}");
    payment.behave(json!({})).await;
    let order = late.order(1, "k2").await.order_id();
    assert_eq!(late.pay(&order).await.status, 200);
    let stock = service.stock().await;
    assert_eq!((stock.available, stock.held, stock.sold), (0, 1, 1), "one unit is locked for good");
}

#[tokio::test]
async fn deducted_at_payment_an_order_promises_nothing() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--deduct", "payment"]);
    service.reset(&[item(3, 1)]).await;
    let mut buyers: Vec<(Buyer, String)> = Vec::new();
    for n in 0..12 {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        let reply = buyer.order(1, "k").await;
        assert_eq!((reply.status, &reply.json()["state"]), (201, &json!("placed")));
        let order = reply.order_id();
        assert_eq!(buyer.order(1, "k").await.order_id(), order, "the same order");
        buyers.push((buyer, order));
    }
    let before = service.stock().await;
    assert_eq!((before.available, before.held), (3, 0), "orders set nothing aside");
    let cancelled = buyers[11].1.clone();
    assert_eq!(buyers[11].0.cancel(&cancelled).await.status, 200);
    assert_eq!(buyers[11].0.pay(&cancelled).await.problem(), "cancelled");
    let mut paying = JoinSet::new();
    for (mut buyer, order) in buyers.drain(..11) {
        paying.spawn(async move {
            let reply = buyer.pay(&order).await;
            (reply.status, reply.problem(), buyer.pay(&order).await.status, order)
        });
    }
    let told = paying.join_all().await;
    let paid: Vec<&String> = told.iter().filter(|t| t.0 == 200).map(|t| &t.3).collect();
    assert_eq!(paid.len(), 3, "{told:?}");
    assert_eq!(
        told.iter().filter(|t| t.1 == "sold-out").count(),
        8,
        "ordered, then told that it is sold out: {told:?}"
    );
    assert!(told.iter().all(|t| t.0 == t.2), "asked again, they hear the same: {told:?}");
    let ledger = service.ledger().await;
    for order in &paid {
        assert_eq!(["place", "reserve", "pay", "release"].map(|kind| count(&ledger, order, kind)), [1, 1, 1, 0]);
    }
    assert_eq!(ledger.iter().filter(|row| row["kind"] == "reserve").count(), 3);
    let stock = service.stock().await;
    assert!(stock.is_conserved() && stock.sold == 3, "{stock:?}");
    assert_eq!(service.buyer("fresh").await.order(1, "k").await.problem(), "sold-out");
}

#[tokio::test]
async fn deducted_at_payment_the_limit_holds_and_money_for_nothing_comes_back() {
    let (postgres, payment) = (Postgres::start(), Payment::start());
    let service = Service::start_with(&postgres.url(), &["--deduct", "payment", "--payment", &payment.address()]);
    service.reset(&[item(1, 1), with(item(9, 1), "id", 2)]).await;
    let (mut one, mut other) = (service.buyer("one").await, service.buyer("other").await);
    let (first, second) = (one.order(1, "k1").await.order_id(), other.order(1, "k1").await.order_id());
    let twice = one.order(1, "k2").await.order_id();
    assert_eq!(one.pay(&first).await.status, 200);
    assert_eq!(other.pay(&second).await.problem(), "sold-out");
    let refused = one.pay(&twice).await.problem();
    assert!(refused == "sold-out" || refused == "limit-reached", "{refused}");
    eventually("every payment to be finished", PATIENCE, async || {
        service.admin("GET", "/audit/payments", None).await["open"] == 0
    })
    .await;
    let (captures, refunds) = (payment.count("capture").await, payment.count("refund").await);
    assert_eq!(captures - refunds, 1, "only one unit was sold");
    // Enough is left of this one: what is in the way is the limit.
    let body = json!({"quantity": 1}).to_string();
    let mut orders = Vec::new();
    for key in ["a", "b"] {
        let reply = one.send("POST", "/items/2/orders", &[("Idempotency-Key", key)], &body).await.unwrap();
        orders.push(reply.order_id());
    }
    assert_eq!(one.pay(&orders[0]).await.status, 200);
    assert_eq!(one.pay(&orders[1]).await.problem(), "limit-reached");
}

#[tokio::test]
async fn a_payment_at_the_very_end_of_a_hold_is_paid_or_released_and_never_both() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--sweep-interval", "1ms"]);
    const BUYERS: i64 = 60;
    const HOLD_MS: i64 = 400;
    service.reset(&[with(item(BUYERS, 1), "hold_ms", HOLD_MS)]).await;
    let mut racing = JoinSet::new();
    for n in 0..BUYERS {
        let mut buyer = service.buyer(&format!("u{n}")).await;
        racing.spawn(async move {
            let reply = buyer.order(1, "k").await;
            let (order, ends) = (reply.order_id(), reply.json()["expires_at"].as_i64().unwrap());
            // From well before the end to well after it, so that both outcomes are there on any machine.
            let wait = ends - now_us() + (n - BUYERS / 2) * 5_000;
            tokio::time::sleep(Duration::from_micros(wait.max(0) as u64)).await;
            (buyer.pay(&order).await, order)
        });
    }
    let told: Vec<(Reply, String)> = racing.join_all().await;
    eventually("every hold to end", PATIENCE, async || service.stock().await.held == 0).await;
    let ledger = service.ledger().await;
    let (mut paid, mut late) = (0, 0);
    for (reply, order) in &told {
        let entries = (count(&ledger, order, "pay"), count(&ledger, order, "release"));
        if reply.status == 200 {
            assert_eq!(entries, (1, 0), "{order}");
            paid += 1;
        } else {
            assert_eq!((entries, reply.problem().as_str()), ((0, 1), "hold-expired"), "{order}");
            late += 1;
        }
    }
    assert!(paid > 0 && late > 0, "{paid} paid, {late} came too late");
    assert!(service.stock().await.is_conserved());
}

#[tokio::test]
async fn deducting_at_payment_is_refused_with_another_strategy() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_seckill-target"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--database-url", "host=x"])
        .args(["--deduct", "payment", "--strategy", "batch"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("leave --strategy batch out"), "{said}");
}

/// Orders under one new key after the other until a reply is as it should be. What was released is read from the ledger soon
/// after, so some orders may be granted before.
async fn until(what: &str, buyer: &mut Buyer, holds: impl Fn(&Reply) -> bool) {
    let mut n = 0;
    eventually(what, PATIENCE, async || {
        n += 1;
        holds(&buyer.order(1, &format!("{what}-{n}")).await)
    })
    .await;
}

#[tokio::test]
async fn who_leaves_an_order_unpaid_has_to_wait() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--switch", "C7=on"]);
    service.reset(&[with(item(500, 200), "hold_ms", 30)]).await;
    let (mut hoarder, mut person) = (service.buyer("hoarder").await, service.buyer("person").await);
    let first = hoarder.order(1, "k0").await.order_id();
    eventually("the hold to end", PATIENCE, async || service.stock().await.held == 0).await;
    until("pause", &mut hoarder, |reply| {
        reply.status == 429 && reply.problem() == "cooling-down" && reply.header("retry-after") == Some("5")
    })
    .await;
    assert_eq!(person.order(1, "k").await.status, 201, "others may order");
    let again = hoarder.order(1, "k0").await;
    assert_eq!((again.status, again.order_id()), (200, first), "what was made before is still told");
    eventually("all holds to end", PATIENCE, async || service.stock().await.held == 0).await;
    // The pause is by the service's clock, which a drill sets ahead.
    let ahead = json!({"offset_ms": COOL_DOWN_US / 1000 + 1_000});
    service.admin("PUT", "/clock", Some(ahead)).await;
    until("over", &mut hoarder, |reply| reply.status == 201).await;
    // A limit on repeats, whatever becomes of them.
    service.reset(&[item(50, 9)]).await;
    let mut eager = service.buyer("eager").await;
    for n in 0..REPEATS {
        assert_eq!(eager.order(1, &format!("e{n}")).await.status, 201, "{n}");
    }
    assert_eq!(eager.order(1, "more").await.problem(), "cooling-down");
    assert!(service.stock().await.is_conserved());
}

#[tokio::test]
async fn who_does_not_pay_twice_is_refused_by_whatever_process() {
    let postgres = Postgres::start();
    let arguments = ["--switch", "C5=on"];
    let mut first = Service::start_with(&postgres.url(), &arguments);
    first.reset(&[with(item(500, 200), "hold_ms", 30)]).await;
    let mut hoarder = first.buyer("hoarder").await;
    let tagged = |reply: &Reply| reply.status == 403 && reply.problem() == "non-payer";
    assert_eq!(hoarder.order(1, "k").await.status, 201);
    until("tagged", &mut hoarder, tagged).await;
    assert_eq!(first.buyer("person").await.order(1, "k").await.status, 201);
    eventually("the holds to end", PATIENCE, async || first.stock().await.held == 0).await;
    first.kill();
    let second = Service::start_with(&postgres.url(), &arguments);
    until("known", &mut second.buyer("hoarder").await, tagged).await;
    let released = second.ledger().await.iter().filter(|row| row["kind"] == "release").count();
    assert!(released >= 2, "it takes two: {released}");
}

#[tokio::test]
async fn machines_are_refused_and_people_are_not() {
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--switch", "C8=on"]);
    service.reset(&[item(50, 9)]).await;
    let mut person = service.buyer("person").await;
    // Nobody can be quicker than this clock: the time between login and order is set, not waited for.
    service.admin("PUT", "/clock", Some(json!({"offset_ms": 2_000}))).await;
    assert_eq!(person.order(1, "k").await.status, 201);
    let mut farm = Vec::new();
    for n in 0..5 {
        let mut connection = Connection::open(&service.listen).await.unwrap();
        let body = json!({"user": format!("farm{n}")}).to_string();
        let reply = connection.send("POST", "/sessions", &[("X-Device-Id", "rack")], &body).await.unwrap();
        farm.push((connection, format!("Bearer {}", reply.json()["token"].as_str().unwrap())));
    }
    service.admin("PUT", "/clock", Some(json!({"offset_ms": 4_000}))).await;
    for (connection, bearer) in &mut farm {
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
        let reply = connection.send("POST", "/items/1/orders", &headers, r#"{"quantity":1}"#).await.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (403, "risk-refused"), "{reply:?}");
    }
    assert_eq!(service.stock().await.held, 1);
}

/// Everything about a reply that does not differ from one moment to the next.
fn seen(reply: &Reply) -> (u16, Vec<Option<String>>, Value) {
    let names = ["content-type", "cache-control", "retry-after", "x-served-by-tier", "x-degrade-level"];
    let mut body = reply.json();
    if let Some(order) = body.as_object_mut().filter(|order| order.contains_key("id")) {
        assert_eq!(reply.header("location").unwrap(), format!("/orders/{}", order["id"].as_str().unwrap()));
        for moment in ["id", "created_at", "expires_at"] {
            order.insert(moment.into(), json!("some"));
        }
    }
    (reply.status, names.map(|name| reply.header(name).map(str::to_owned)).to_vec(), body)
}

#[tokio::test]
async fn what_is_cheaper_says_the_same() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    let mut all = Vec::new();
    for on in [true, false] {
        for id in ["E3", "E4", "E5"] {
            service.admin("PUT", &format!("/switches/{id}"), Some(json!({"on": on}))).await;
        }
        service.reset(&[item(2, 1)]).await;
        let mut buyer = service.buyer("买家 \"u\"").await;
        let mut replies = vec![buyer.order(1, "k1").await, buyer.order(1, "k1").await, buyer.order(2, "k1").await];
        replies.push(buyer.order(1, "k2").await);
        replies.push(service.buyer("v").await.order(1, "k").await);
        replies.push(service.buyer("w").await.order(1, "k").await);
        let key = [("Idempotency-Key", "k9")];
        for (path, headers, body) in [
            ("/items/7/orders", &key[..], r#"{"quantity":1}"#),
            ("/items/x/orders", &key[..], r#"{"quantity":1}"#),
            ("/items/1/orders", &[][..], r#"{"quantity":1}"#),
            ("/items/1/orders", &key[..], "nonsense"),
            ("/items/1/orders", &key[..], r#"{"quantity":0}"#),
        ] {
            replies.push(buyer.send("POST", path, headers, body).await.unwrap());
        }
        replies.push(buyer.send("GET", "/items/1/orders", &[], "").await.unwrap());
        let mut nobody = Connection::open(&service.listen).await.unwrap();
        replies.push(nobody.send("POST", "/items/1/orders", &key, r#"{"quantity":1}"#).await.unwrap());
        // The service need not read what is too much, so this is the connection's last request.
        let mut big = service.buyer("big").await;
        replies.push(big.send("POST", "/items/1/orders", &key, &"x".repeat(70_000)).await.unwrap());
        all.push(replies.iter().map(seen).collect::<Vec<_>>());
    }
    assert_eq!(all[0].iter().map(|reply| reply.0).collect::<Vec<_>>(), {
        [201, 200, 422, 409, 201, 409, 404, 404, 400, 400, 400, 405, 401, 413]
    });
    for (on, off) in all[0].iter().zip(&all[1]) {
        assert_eq!(on, off);
    }
}

#[tokio::test]
async fn whoever_asks_for_protobuf_gets_it_while_it_is_on() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(2, 2)]).await;
    let token = service.buyer("u").await.token;
    let body = NewOrder { quantity: 1 }.encode_to_vec();
    let head = format!(
        "POST /items/1/orders HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Idempotency-Key: k\r\nContent-Type: {PROTOBUF}\r\nAccept: {PROTOBUF}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(&service.listen).await.unwrap();
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        let end = reply.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&reply[..end]).to_lowercase(), reply[end + 4..].to_vec())
    };
    for status in ["201", "200"] {
        let (head, body) = ask().await;
        assert!(head.contains(&format!("http/1.1 {status}")) && head.contains(PROTOBUF), "{head}");
        let told = OrderTold::decode(body.as_slice()).unwrap();
        assert_eq!((told.user.as_str(), told.quantity, told.state.as_str(), told.amount_cents), ("u", 1, "held", 9900));
        service.admin("PUT", "/switches/E5", Some(json!({"on": false}))).await;
    }
    service.admin("PUT", "/switches/E2", Some(json!({"on": false}))).await;
    let (head, _) = ask().await;
    assert!(head.contains("http/1.1 400") && head.contains("application/problem+json"), "{head}");
}

#[tokio::test]
async fn sold_out_is_said_without_the_database_and_a_returned_unit_is_on_sale_at_once() {
    let postgres = Postgres::start();
    // A process that was just started asks the database for a while, since an earlier one may still be writing to it.
    let service = Service::start_with(&postgres.url(), &["--strategy", "batch", "--statement-timeout", "200ms"]);
    service.reset(&[item(1, 1)]).await;
    let mut owner = service.buyer("owner").await;
    let mut order = owner.order(1, "k0").await.order_id();
    let mut late = service.buyer("late").await;
    let statements = async || -> f64 {
        let text = service.try_admin("GET", "/metrics", None).await.body;
        let line = text.lines().find(|line| line.starts_with("seckill_database_statements ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    const ORDERS: usize = 400;
    eventually("sold out to be said from memory", PATIENCE, async || {
        let before = statements().await;
        for n in 0..ORDERS {
            assert_eq!(late.order(1, &format!("s{n}")).await.problem(), "sold-out");
        }
        // The sweeper asks now and then.
        statements().await - before < ORDERS as f64 / 2.0
    })
    .await;
    for turn in 0..20 {
        assert_eq!(owner.cancel(&order).await.status, 200);
        // The very next one to ask gets it.
        let mut next = service.buyer(&format!("next{turn}")).await;
        order = next.order(1, "k").await.order_id();
        assert_eq!(late.order(1, &format!("t{turn}")).await.problem(), "sold-out");
        owner = next;
    }
    assert!(service.stock().await.is_conserved());
}
