//! The layers of checks in front of the database: the access layer's (V2), the service's (V3), and what is left without them (V4).

use crate::support::http::{Connection, Reply};
use crate::support::postgres::Postgres;
use crate::support::role::Role;
use crate::support::service::{SECRET, Service, Stock};
use crate::support::{item, now_us, with};
use serde_json::json;
use target_service::access::rules::MOST_PER_SECOND;
use tokio::task::JoinSet;

const ONE: &str = r#"{"quantity":1}"#;
const LATE: usize = 40;

fn start(postgres: &Postgres, on: bool) -> (Service, Role) {
    let is = if on { "on" } else { "off" };
    let (v2, v3) = (format!("V2={is}"), format!("V3={is}"));
    let patient = ["--pool-wait", "20s", "--request-timeout", "25s"];
    let service = Service::start_with(&postgres.url(), &[&["--switch", &v3], &patient[..]].concat());
    let access = Role::start(
        "access",
        &["--service", &service.listen, "--secret", SECRET, "--switch", &v2, "--switch", "M2=off", "--timeout", "25s"],
    );
    (service, access)
}

/// How many requests a layer has stopped, by rule.
fn dropped(metrics: &str, stage: &str, reason: &str) -> u64 {
    let name = format!("seckill_funnel_dropped_total{{stage=\"{stage}\",reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().unwrap())
}

async fn bearer(access: &Role, user: &str) -> String {
    let reply = access.ask("POST", "/sessions", &[], &json!({"user": user}).to_string()).await;
    format!("Bearer {}", reply.json()["token"].as_str().unwrap())
}

async fn order(access: &Role, bearer: &str, path: &str, key: &str) -> Reply {
    access.ask("POST", path, &[("Authorization", bearer), ("Idempotency-Key", key)], ONE).await
}

/// Everything that these layers are there for, by clients that have never seen a page: the page's own gate (V1) is bypassed by all
/// of them. Ten units, and everybody wants one.
async fn rush(service: &Service, access: &Role) {
    let later = with(with(item(5, 1), "id", 2), "opens_at", now_us() + 60_000_000);
    service.reset(&[item(10, 1), later]).await;
    let eve = bearer(access, "eve").await;
    let nobody = access.ask("POST", "/items/1/orders", &[("Idempotency-Key", "k")], ONE).await;
    assert_eq!(nobody.problem(), "unauthorized");
    let absurd = [("Authorization", eve.as_str()), ("Idempotency-Key", "k")];
    for body in [r#"{"quantity":0}"#, r#"{"quantity":-3}"#, "nonsense"] {
        assert_eq!(access.ask("POST", "/items/1/orders", &absurd, body).await.problem(), "bad-request");
    }
    // Somebody looks at the items, as a page does.
    for path in ["/items/1/state", "/items/2/state"] {
        assert_eq!(access.get(path).await.status, 200);
    }
    for n in 0..3 {
        assert_eq!(order(access, &eve, "/items/2/orders", &format!("early{n}")).await.problem(), "too-early");
    }
    let token = [("Authorization", eve.as_str()), ("Idempotency-Key", "t"), ("Challenge-Token", "0.forged")];
    assert_eq!(access.ask("POST", "/items/1/orders", &token, ONE).await.problem(), "challenge-required");
    let mut crowd = JoinSet::new();
    for n in 0..30 {
        let (listen, bearer) = (access.listen.clone(), bearer(access, &format!("u{n}")).await);
        crowd.spawn(async move {
            let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
            let mut connection = Connection::open(&listen).await.unwrap();
            let first = connection.send("POST", "/items/1/orders", &headers, ONE).await.unwrap();
            (first, connection, bearer)
        });
    }
    let told = crowd.join_all().await;
    assert_eq!(told.iter().filter(|(reply, ..)| reply.status == 201).count(), 10);
    assert_eq!(access.get("/items/1/state").await.json()["available"], 0);
    // Whoever has an order still finds it by its key.
    for (reply, mut connection, bearer) in told {
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k")];
        let again = connection.send("POST", "/items/1/orders", &headers, ONE).await.unwrap();
        assert_eq!(again.status, if reply.status == 201 { 200 } else { 409 }, "{again:?}");
    }
    for n in 0..LATE {
        let late = bearer(access, &format!("late{n}")).await;
        assert_eq!(order(access, &late, "/items/1/orders", "k").await.problem(), "sold-out");
    }
    // One who does not stop asking.
    let mallory = bearer(access, "mallory").await;
    for n in 0..4 * MOST_PER_SECOND {
        let told = order(access, &mallory, "/items/1/orders", &format!("m{n}")).await.problem();
        assert!(told == "sold-out" || told == "quota-exceeded", "{told}");
    }
}

/// At no prefix of the ledger are more units out than there are.
async fn assert_nothing_is_oversold(service: &Service) {
    let mut out = 0;
    for row in service.ledger().await.iter().filter(|row| row["item"] == 1) {
        out += i64::from(row["kind"] == "reserve") - i64::from(row["kind"] == "release");
        assert!((0..=10).contains(&out), "{row}");
    }
    assert_eq!(service.stock().await, Stock { initial: 10, available: 0, held: 10, sold: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_layer_refuses_by_its_rules_and_counts_them() {
    let postgres = Postgres::start();
    let (service, access) = start(&postgres, true);
    rush(&service, &access).await;
    assert_nothing_is_oversold(&service).await;
    let outside = access.metrics().await;
    assert_eq!(dropped(&outside, "access", "login"), 1);
    assert_eq!(dropped(&outside, "access", "legality"), 3);
    assert!(dropped(&outside, "access", "frequency") >= 1, "{outside}");
    let inside = service.try_admin("GET", "/metrics", None).await.body;
    assert_eq!(dropped(&inside, "service", "sale-open"), 3, "{inside}");
    assert_eq!(dropped(&inside, "service", "answer"), 1);
    let (looked, data) = (dropped(&inside, "service", "coarse-stock"), dropped(&inside, "data", "sold-out"));
    // Of those who came when it was long sold out, none came to the row. Some of the crowd had to.
    assert!(looked >= LATE as u64 && data <= 20, "{looked} were refused by a look, {data} by the data layer");
    // Who may not order at all is a rule of this layer, too.
    service.admin("PUT", "/switches/C7", Some(json!({"on": true}))).await;
    let often = bearer(&access, "often").await;
    for n in 0..4 {
        order(&access, &often, "/items/1/orders", &format!("o{n}")).await;
    }
    let inside = service.try_admin("GET", "/metrics", None).await.body;
    assert_eq!(dropped(&inside, "service", "eligibility"), 1);
}

/// V4: with all of them off, and the page's gate bypassed (V1), the same rush comes to the same: nothing is oversold, and the data
/// layer alone has refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_these_layers_nothing_is_oversold() {
    let postgres = Postgres::start();
    let (service, access) = start(&postgres, false);
    rush(&service, &access).await;
    assert_nothing_is_oversold(&service).await;
    let outside = access.metrics().await;
    assert!(!outside.contains("seckill_funnel_dropped_total{"), "{outside}");
    let inside = service.try_admin("GET", "/metrics", None).await.body;
    for rule in ["sale-open", "coarse-stock", "eligibility"] {
        assert_eq!(dropped(&inside, "service", rule), 0, "{rule}");
    }
    assert_eq!(dropped(&inside, "data", "too-early"), 3);
    assert!(dropped(&inside, "data", "sold-out") >= (20 + LATE) as u64, "{inside}");
}

/// What the upper layers know may be out of date: a unit that comes back is for sale at once, whatever was seen a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_sold_out_is_looked_at_again() {
    let postgres = Postgres::start();
    for strategy in ["conditional-update", "shards", "unit-rows", "batch"] {
        let service = Service::start_with(&postgres.url(), &["--switch", "V3=on", "--strategy", strategy]);
        service.reset(&[item(1, 1)]).await;
        let mut owner = service.buyer("owner").await;
        let mut held = owner.order(1, "k").await.order_id();
        for turn in 0..5 {
            owner.send("GET", "/items/1/state", &[], "").await.unwrap();
            let mut late = service.buyer(&format!("late{turn}")).await;
            assert_eq!(late.order(1, "k").await.problem(), "sold-out", "{strategy}");
            assert_eq!(owner.cancel(&held).await.status, 200, "{strategy}");
            let mut next = service.buyer(&format!("next{turn}")).await;
            held = next.order(1, "k").await.order_id();
            owner = next;
        }
        assert!(service.stock().await.is_conserved(), "{strategy}");
    }
}
