//! Degrading: what is given up when not everything works, when, and when it is there again. Each mechanism is shown on a
//! dependency that is really broken, and again with its switch off, where the opposite has to be seen.

use std::time::{Duration, Instant};

use crate::support::http::{Connection, Reply};
use crate::support::payment::Payment;
use crate::support::postgres::Postgres;
use crate::support::proxy::LossyProxy;
use crate::support::role::Role;
use crate::support::service::{Buyer, Service};
use crate::support::{eventually, item};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is looked that something does not happen that takes less than a second where it does.
const LONG_ENOUGH: Duration = Duration::from_millis(2_500);

fn level(reply: &Reply) -> u8 {
    reply.header("x-degrade-level").unwrap().parse().unwrap()
}

async fn state(service: &Service) -> Reply {
    Connection::open(&service.listen).await.unwrap().send("GET", "/items/1/state", &[], "").await.unwrap()
}

async fn mine(buyer: &mut Buyer) -> Reply {
    buyer.send("GET", "/items/1/state", &[], "").await.unwrap()
}

async fn breaker(service: &Service, dependency: &str, what: &str, more: &str) -> f64 {
    service.metric(&format!("seckill_breaker_{what}{{dependency=\"{dependency}\"{more}}}")).await
}

/// The levels that the service went through: no more than it had to, where it did not flap.
async fn changes(service: &Service) -> Vec<u64> {
    let told = service.admin("GET", "/degrade", None).await;
    let changes = told["changes"].as_array().unwrap();
    changes.iter().map(|change| change["to"].as_u64().unwrap()).collect()
}

/// Goes on asking, so that there is something to see, until the level is this one.
async fn until(service: &Service, wanted: u8, mut ask: impl AsyncFnMut()) {
    eventually(&format!("degrade level {wanted}"), PATIENCE, async || {
        ask().await;
        service.metric("seckill_degrade_level").await == f64::from(wanted)
    })
    .await;
}

/// Goes on asking for a while, and expects that nothing is given up.
async fn never(service: &Service, mut ask: impl AsyncFnMut() -> Reply) {
    let began = Instant::now();
    while began.elapsed() < LONG_ENOUGH {
        assert_eq!(level(&ask().await), 0);
    }
    assert_eq!(service.metric("seckill_degrade_level").await, 0.0);
    assert!(changes(service).await.is_empty());
}

#[tokio::test]
async fn a_silent_dependency_is_left_alone_and_found_again_by_counted_probes() {
    let (postgres, profile) = (Postgres::start(), Role::start("profile", &[]));
    let service = Service::start_with(&postgres.url(), &["--profile", &profile.listen]);
    service.reset(&[item(5, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    assert_eq!(mine(&mut buyer).await.json()["you"]["default"], false);
    assert_eq!(breaker(&service, "profile", "state", "").await, 0.0);

    profile.pause();
    eventually("the breaker to open", PATIENCE, async || {
        // A process that is being stopped may still answer what it was asked a moment ago.
        assert_eq!(mine(&mut buyer).await.status, 200);
        breaker(&service, "profile", "transitions_total", ",to=\"open\"").await > 0.0
    })
    .await;
    eventually("calls that are not made", PATIENCE, async || {
        let reply = mine(&mut buyer).await;
        assert_eq!((reply.status, &reply.json()["you"]["default"]), (200, &json!(true)));
        breaker(&service, "profile", "refused_total", "").await > 3.0
    })
    .await;
    eventually("a probe that fails", PATIENCE, async || {
        breaker(&service, "profile", "probes_total", ",outcome=\"bad\"").await > 0.0
    })
    .await;
    assert_eq!(breaker(&service, "profile", "transitions_total", ",to=\"closed\"").await, 0.0);

    profile.resume();
    eventually("the breaker to close", PATIENCE, async || breaker(&service, "profile", "state", "").await == 0.0).await;
    assert!(breaker(&service, "profile", "transitions_total", ",to=\"closed\"").await >= 1.0);
    assert!(breaker(&service, "profile", "probes_total", ",outcome=\"good\"").await >= 3.0);
    eventually("extras", PATIENCE, async || mine(&mut buyer).await.json()["you"]["default"] == false).await;

    // Without it, everybody waits for the dependency in vain.
    profile.pause();
    let service = Service::start_with(&postgres.url(), &["--profile", &profile.listen, "--switch", "L7=off"]);
    service.reset(&[item(5, 1)]).await;
    let mut buyer = service.buyer("u1").await;
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(mine(&mut buyer).await.json()["you"]["default"], true);
        assert!(began.elapsed() >= Duration::from_millis(100), "it was asked");
    }
    assert_eq!(breaker(&service, "profile", "state", "").await, 0.0);
    assert_eq!(breaker(&service, "profile", "refused_total", "").await, 0.0);
}

#[tokio::test]
async fn payments_are_refused_before_they_are_begun_and_what_is_unclear_stays_unclear() {
    let (postgres, mut payment) = (Postgres::start(), Payment::start());
    let service = Service::start_with(&postgres.url(), &["--payment", &payment.address()]);
    service.reset(&[item(100, 100)]).await;
    let mut buyer = service.buyer("u1").await;
    let mut orders = Vec::new();
    for n in 0..60 {
        orders.push(buyer.order(1, &format!("k{n}")).await.order_id());
    }
    payment.kill();
    let first = orders.remove(0);
    assert_eq!(buyer.pay(&first).await.problem(), "payment-unclear");
    let (mut unclear, mut refused) = (vec![first.clone()], Vec::new());
    for order in &orders {
        let reply = buyer.pay(order).await;
        match reply.problem().as_str() {
            "payment-unclear" => unclear.push(order.clone()),
            "degraded" => {
                assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")), "{reply:?}");
                refused.push(order.clone());
            }
            other => panic!("{other}"),
        }
        if refused.len() == 5 {
            break;
        }
    }
    assert_eq!(refused.len(), 5, "the breaker opens");
    let open = service.admin("GET", "/audit/payments", None).await;
    let begun = |order: &String| open["intents"].as_array().unwrap().iter().any(|intent| intent["order"] == **order);
    assert!(!refused.iter().any(begun), "nothing was begun for whom it was refused: {open}");
    assert!(unclear.iter().all(begun), "and everything else is still under way: {open}");
    // Whether the breaker is open or not, an unknown never becomes a known failure.
    for _ in 0..5 {
        assert_eq!(buyer.pay(&first).await.problem(), "payment-unclear");
    }
    assert_eq!(payment_count(&service).await, unclear.len() as u64);

    payment.launch();
    for order in refused.iter().chain(&unclear) {
        eventually("a payment", PATIENCE, async || buyer.pay(order).await.status == 200).await;
    }
    eventually("every payment to be finished", PATIENCE, async || payment_count(&service).await == 0).await;
    assert_eq!(payment.count("capture").await, refused.len() + unclear.len());
    assert_eq!(service.stock().await.sold as usize, refused.len() + unclear.len());

    // Without it, every payment is begun, and unclear.
    let service = Service::start_with(&postgres.url(), &["--payment", &payment.address(), "--switch", "L7=off"]);
    service.reset(&[item(100, 100)]).await;
    let mut buyer = service.buyer("u1").await;
    payment.kill();
    for n in 0..15 {
        let order = buyer.order(1, &format!("off-{n}")).await.order_id();
        assert_eq!(buyer.pay(&order).await.problem(), "payment-unclear");
    }
}

async fn payment_count(service: &Service) -> u64 {
    service.admin("GET", "/audit/payments", None).await["open"].as_u64().unwrap()
}

#[tokio::test]
async fn extras_are_off_while_what_they_come_from_is_slow() {
    let (postgres, profile) = (Postgres::start(), Role::start("profile", &[]));
    // With the breaker and without: it is the level that turns extras off, and that asks whether they are there again.
    for breaker in ["L7=on", "L7=off"] {
        let arguments = ["--profile", &profile.listen, "--switch", breaker, "--switch", "L1=on"];
        let service = Service::start_with(&postgres.url(), &arguments);
        service.reset(&[item(50, 50)]).await;
        let mut buyer = service.buyer("u1").await;
        assert_eq!(level(&mine(&mut buyer).await), 0);
        profile.pause();
        until(&service, 1, async || drop(mine(&mut buyer).await)).await;
        let reply = mine(&mut buyer).await;
        assert_eq!((level(&reply), reply.status, &reply.json()["you"]["default"]), (1, 200, &json!(true)));
        assert_eq!(
            (buyer.order(1, "k1").await.status, &reply.json()["stale"]),
            (201, &json!(false)),
            "no less than that"
        );
        profile.resume();
        until(&service, 0, async || drop(mine(&mut buyer).await)).await;
        let reply = mine(&mut buyer).await;
        assert_eq!((level(&reply), &reply.json()["you"]["default"]), (0, &json!(false)));
        assert_eq!(changes(&service).await, [1, 0]);
        assert_eq!(service.metric("seckill_degrade_transitions_total{level=\"1\",way=\"entered\"}").await, 1.0);
    }
    let service = Service::start_with(&postgres.url(), &["--profile", &profile.listen]);
    service.reset(&[item(50, 50)]).await;
    let mut buyer = service.buyer("u1").await;
    profile.pause();
    never(&service, async || mine(&mut buyer).await).await;
}

/// Buyers who look at the stock all the time, until they are dropped.
fn onlookers(service: &Service, path: &'static str, many: usize) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for _ in 0..many {
        let listen = service.listen.clone();
        crowd.spawn(async move {
            let mut connection = Connection::open(&listen).await.unwrap();
            loop {
                let reply = connection.send("GET", path, &[], "").await.unwrap();
                assert!(matches!(reply.status, 200 | 429 | 503), "{reply:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    crowd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_is_shown_as_it_was_a_moment_ago_while_the_database_is_slow() {
    let postgres = Postgres::start();
    let proxy = LossyProxy::start(&postgres.socket()).await;
    let slow = Duration::from_millis(350);
    let service = Service::start_with(&proxy.url(), &["--switch", "L2=on"]);
    service.reset(&[item(50, 50)]).await;
    let mut buyer = service.buyer("u1").await;
    let first = state(&service).await;
    assert_eq!((level(&first), &first.json()["stale"], first.header("age")), (0, &json!(false), None));
    let crowd = onlookers(&service, "/items/1/state", 6);
    proxy.delay(slow);
    until(&service, 2, async || ()).await;
    // Less is shown, and not less is sold.
    eventually("an order", PATIENCE, async || matches!(buyer.order(1, "k1").await.status, 200 | 201)).await;
    let mut seen = Vec::new();
    eventually("the snapshot to follow", PATIENCE, async || {
        seen.push(state(&service).await);
        seen.last().unwrap().json()["available"] == 49
    })
    .await;
    for reply in seen.iter().filter(|reply| reply.json()["stale"] == true) {
        let age: u64 = reply.header("age").unwrap().parse().unwrap();
        assert!(reply.status == 200 && age <= 2, "an age within its bound, and said: {reply:?}");
        assert!(reply.json()["as_of"].as_i64() >= first.json()["as_of"].as_i64());
    }
    assert!(seen.iter().any(|reply| level(reply) == 2 && reply.json()["stale"] == true));
    proxy.delay(Duration::ZERO);
    until(&service, 0, async || ()).await;
    let last = state(&service).await;
    assert_eq!((level(&last), &last.json()["stale"], &last.json()["available"]), (0, &json!(false), &json!(49)));
    assert_eq!(changes(&service).await, [2, 0]);
    drop(crowd);

    let service = Service::start_with(&proxy.url(), &[]);
    service.reset(&[item(50, 50)]).await;
    let _crowd = onlookers(&service, "/items/1/state", 6);
    proxy.delay(slow);
    never(&service, async || {
        let reply = state(&service).await;
        assert_ne!(reply.json()["stale"], true);
        reply
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordering_is_closed_while_the_database_is_gone() {
    let mut postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &["--switch", "L3=on"]);
    service.reset(&[item(50, 50)]).await;
    let mut buyer = service.buyer("u1").await;
    let order = buyer.order(1, "k1").await.order_id();
    assert_eq!(buyer.send("GET", "/items/1", &[], "").await.unwrap().status, 200);
    assert_eq!(mine(&mut buyer).await.json()["on_sale"], true);

    postgres.kill_hard();
    until(&service, 3, async || ()).await;
    for n in 0..5 {
        let page = buyer.send("GET", "/items/1", &[], "").await.unwrap();
        assert_eq!((page.status, level(&page), &page.json()["title"]), (200, 3, &json!("A phone")));
        let unknown = buyer.send("GET", "/items/7", &[], "").await.unwrap();
        assert!(unknown.status == 200 && unknown.body.contains("稍后再试"), "{unknown:?}");
        let state = mine(&mut buyer).await;
        let said = state.json();
        assert_eq!((state.status, &said["on_sale"], &said["stale"]), (200, &json!(false), &json!(true)), "{said}");
        assert_eq!(said["available"], 49);
        assert!(state.header("age").is_some());
        assert_eq!(buyer.send("GET", "/time", &[], "").await.unwrap().status, 200);
        for refused in [
            buyer.order(1, &format!("closed-{n}")).await,
            buyer.pay(&order).await,
            buyer.cancel(&order).await,
            buyer.find("k1").await,
        ] {
            assert_eq!((refused.status, refused.problem().as_str(), level(&refused)), (429, "degraded", 3));
            assert_eq!(refused.header("retry-after"), Some("1"));
            assert_eq!(refused.header("x-served-by-tier"), Some("service"));
        }
    }
    postgres.launch();
    until(&service, 0, async || ()).await;
    assert_eq!(buyer.find("k1").await.order_id(), order, "what was acknowledged is there");
    assert_eq!(buyer.order(1, "closed-0").await.status, 201, "what was refused was not done, and can be done now");
    assert_eq!(buyer.pay(&order).await.status, 200);
    assert_eq!(changes(&service).await, [3, 0]);

    // Without it, or where a person has to decide, whoever orders hears of a database.
    for off in [["--switch", "L3=off", "--switch", "L5=on"], ["--switch", "L3=on", "--switch", "L5=off"]] {
        let service = Service::start_with(&postgres.url(), &off);
        service.reset(&[item(50, 50)]).await;
        let mut buyer = service.buyer("u1").await;
        postgres.kill_hard();
        never(&service, async || {
            let refused = buyer.order(1, "k").await;
            assert_eq!(refused.status, 503);
            refused
        })
        .await;
        service.admin("PUT", "/degrade", Some(json!({"level": 3}))).await;
        let refused = buyer.order(1, "k").await;
        assert_eq!((refused.problem().as_str(), level(&refused)), ("degraded", 3));
        postgres.launch();
    }
}

#[tokio::test]
async fn everything_is_static_while_most_are_turned_away() {
    let postgres = Postgres::start();
    let crowded = ["--max-in-flight", "1", "--slow", "page-sleep=300ms", "--allow-seeded-bugs"];
    let start = |more: &[&str]| Service::start_with(&postgres.url(), &[&crowded[..], more].concat());
    let service = start(&["--switch", "L4=on"]);
    service.reset(&[item(50, 50)]).await;
    let mut buyer = service.buyer("u1").await;
    let order = buyer.order(1, "k1").await.order_id();
    assert_eq!(mine(&mut buyer).await.status, 200);

    let crowd = onlookers(&service, "/items/1", 24);
    until(&service, 4, async || ()).await;
    for n in 0..30 {
        for path in ["/items/1", "/items/1/state", "/items/7"] {
            let reply = buyer.send("GET", path, &[], "").await.unwrap();
            // Some are served all the same, to see how it goes, and may be told that there is no such item.
            assert!(matches!((level(&reply), reply.status), (4, 200 | 404)), "{path}: {reply:?}");
        }
        let refused = buyer.order(1, &format!("static-{n}")).await;
        assert_eq!((refused.status, refused.problem().as_str()), (429, "degraded"));
        assert_eq!(buyer.pay(&order).await.problem(), "degraded");
        let login = buyer.send("POST", "/sessions", &[], r#"{"user":"u2"}"#).await.unwrap();
        assert_eq!(login.problem(), "degraded");
    }
    assert_eq!(service.metric("seckill_degrade_level").await, 4.0, "the crowd is still there");
    drop(crowd);
    until(&service, 0, async || ()).await;
    assert_eq!(buyer.find("k1").await.order_id(), order, "what was acknowledged is there");
    assert_eq!(buyer.pay(&order).await.status, 200);
    assert_eq!(buyer.order(1, "static-0").await.status, 201);
    assert_eq!(changes(&service).await, [4, 0]);
    assert_eq!(service.stock().await.sold, 1);

    let service = start(&[]);
    service.reset(&[item(50, 50)]).await;
    let _crowd = onlookers(&service, "/items/1", 24);
    let mut turned_away = 0;
    never(&service, async || {
        let reply = state(&service).await;
        turned_away += u32::from(reply.status == 503);
        reply
    })
    .await;
    assert!(turned_away > 0, "most are turned away");
}

#[tokio::test]
async fn a_drill_can_force_a_level_and_let_it_go() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(50, 50)]).await;
    let mut buyer = service.buyer("u1").await;
    mine(&mut buyer).await;
    let force = async |level: Value| service.admin("PUT", "/degrade", Some(json!({"level": level}))).await;
    for (number, order, stale) in [(1, 201, false), (2, 201, true), (3, 429, true), (4, 429, true), (0, 201, false)] {
        assert_eq!(force(json!(number)).await["level"], number);
        assert_eq!(service.metric("seckill_degrade_level").await, f64::from(number));
        let reply = mine(&mut buyer).await;
        // At the highest level, some are served all the same.
        let probe = number == 4 && reply.json()["stale"] == false;
        assert_eq!((reply.status, level(&reply)), (200, number));
        assert!(probe || reply.json()["stale"] == stale, "{reply:?}");
        assert_eq!(buyer.order(1, &format!("k{number}")).await.status, order);
    }
    let told = force(Value::Null).await;
    assert_eq!((&told["level"], &told["forced"]), (&json!(0), &Value::Null));
    let refused = service.try_admin("PUT", "/degrade", Some(json!({"level": 5}))).await;
    assert!(refused.problem() == "bad-request" && refused.body.contains("0 to 4"), "{refused:?}");
    assert_eq!(changes(&service).await, [1, 2, 3, 4, 0]);
}
