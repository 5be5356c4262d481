//! What a page costs: bytes that any cache may keep against those that change (P1), requests that never reach a handler (P5), and those
//! that are not made at all (P6).

use serde_json::json;

use super::Visitor;
use crate::support::http::{Connection, Reply};
use crate::support::item;
use crate::support::postgres::Postgres;
use crate::support::role::Role;
use crate::support::service::Service;

/// Whether a path is one of those whose replies are the same for everybody, and are kept.
fn is_static(path: &str) -> bool {
    path == "/items/1/page" || path.starts_with("/assets/")
}

/// How often the service itself has made something of the page.
async fn handled(service: &Service) -> f64 {
    let mut all = 0.0;
    for (route, status) in [("/items/{id}/page", 200), ("/items/{id}/page", 304), ("/assets/{name}", 200)] {
        let labels =
            format!("http_request_method=\"GET\",http_route=\"{route}\",http_response_status_code=\"{status}\"");
        all += service.metric(&format!("http_server_request_duration_seconds_count{{{labels}}}")).await;
    }
    all
}

/// How often the access layer has answered something of the page.
async fn answered(access: &Role, outcome: &str) -> u64 {
    let text = access.metrics().await;
    let of = |line: &str| {
        let line = line.strip_prefix("access_requests_total{")?;
        let (labels, count) = line.split_once("} ")?;
        labels.contains(&format!("outcome=\"{outcome}\"")).then(|| count.parse::<u64>().unwrap())
    };
    text.lines().filter_map(of).sum()
}

async fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    Connection::open(address).await.unwrap().send("GET", path, headers, "").await.unwrap()
}

#[tokio::test]
async fn most_of_a_page_is_static_and_is_asked_for_once() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let access = Role::start("access", &["--service", &service.listen]);
    visitor.visit(&access.listen);
    visitor.wait_for_phase("open");
    let sum = |visitor: &mut Visitor, wanted: fn(&str) -> bool| -> u64 {
        visitor.asked().iter().filter(|asked| wanted(&asked.path)).map(|asked| asked.bytes).sum()
    };
    let (fixed, changing) = (sum(&mut visitor, is_static), sum(&mut visitor, |path| !is_static(path)));
    let share = fixed as f64 / (fixed + changing) as f64;
    println!("P1: {fixed} bytes static, {changing} dynamic: {:.1} % static", 100.0 * share);
    assert!(changing > 0 && share > 0.9, "{share}: {:#?}", visitor.asked());

    // The whole way to a paid order, on one page.
    visitor.sign_in("u1");
    visitor.order(1);
    visitor.wait_for_deal("held");
    visitor.browser.click("#pay", 1);
    visitor.wait_for_deal("paid");
    let all = sum(&mut visitor, |_| true);
    println!("P1: {all} bytes until it is paid: {:.1} % static", 100.0 * fixed as f64 / all as f64);

    let before = (answered(&access, "view").await, answered(&access, "asset").await, handled(&service).await);
    visitor.asked.clear();
    visitor.visit(&access.listen);
    visitor.wait_for_phase("open");
    let after = (answered(&access, "view").await, answered(&access, "asset").await, handled(&service).await);
    assert_eq!(before, after, "a second visit asks nobody for what is static");
    let (again, fresh) = (sum(&mut visitor, is_static), sum(&mut visitor, |path| !is_static(path)));
    println!("P6: {again} bytes static and {fresh} dynamic on a second visit");
    assert!(again == 0 && fresh > 0, "{:#?}", visitor.asked());
    // Asked to load it anew, a browser asks whether the page is still the same, and for none of its parts.
    visitor.reload();
    visitor.wait_for_phase("open");
    assert_eq!(answered(&access, "asset").await, before.1);
}

#[tokio::test]
async fn a_page_is_the_same_bytes_for_everybody_and_made_once() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let access = Role::start("access", &["--service", &service.listen, "--page-ttl", "60s"]);
    let first = get(&access.listen, "/items/1/page", &[]).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let etag = first.header("etag").unwrap();
    let made = handled(&service).await;
    for headers in [&[("Accept-Language", "zh-CN")][..], &[("Accept-Language", "en"), ("Cookie", "a=1")], &[]] {
        let other = get(&access.listen, "/items/1/page", headers).await;
        assert_eq!((&other.body, other.header("etag")), (&first.body, Some(etag)), "{headers:?}");
        let known = [headers, &[("If-None-Match", etag)]].concat();
        let known = get(&access.listen, "/items/1/page", &known).await;
        assert_eq!((known.status, known.body.as_str()), (304, ""));
    }
    let parts: Vec<&str> = first.body.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert!(parts.len() >= 3, "{parts:?}");
    for path in parts {
        let part = get(&access.listen, path, &[]).await;
        assert_eq!(part.header("cache-control"), Some("public, max-age=31536000, immutable"), "{path}");
        assert_eq!(part.body, get(&service.listen, path, &[]).await.body, "it is the same wherever it comes from");
    }
    let unknown = get(&access.listen, "/assets/0000000000000000.page.css", &[]).await;
    assert_eq!((unknown.status, unknown.header("x-served-by-tier")), (404, Some("service")), "of another build");
    // Each part was asked of the service once by this test itself.
    let asked_by_us = 4.0;
    assert_eq!(handled(&service).await, made + asked_by_us, "no handler was called for a hit");

    // With the mechanism off at both, every page is made anew.
    let mut admin = Connection::open(&access.admin).await.unwrap();
    admin.send("PUT", "/switches/P5", &[], r#"{"on":false}"#).await.unwrap();
    service.admin("PUT", "/switches/P5", Some(json!({ "on": false }))).await;
    for _ in 0..3 {
        assert_eq!(get(&access.listen, "/items/1/page", &[]).await.body, first.body);
    }
    assert_eq!(handled(&service).await, made + asked_by_us + 3.0);
}

/// The way of the switches of an access layer.
async fn turn(access: &Role, switch: &str, on: bool) {
    let mut admin = Connection::open(&access.admin).await.unwrap();
    let turned =
        admin.send("PUT", &format!("/switches/{switch}"), &[], &json!({ "on": on }).to_string()).await.unwrap();
    assert_eq!(turned.status, 200, "{turned:?}");
}

async fn states_made(service: &Service) -> f64 {
    let labels = "http_request_method=\"GET\",http_route=\"/items/{id}/state\",http_response_status_code=\"200\"";
    service.metric(&format!("http_server_request_duration_seconds_count{{{labels}}}")).await
}

#[tokio::test]
async fn a_state_put_in_at_the_edge_costs_the_service_a_call_and_the_caches_the_page() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let access = Role::start("access", &["--service", &service.listen, "--page-ttl", "60s", "--switch", "M2=off"]);
    let plain = get(&access.listen, "/items/1/page", &[]).await;
    let made = states_made(&service).await;
    for _ in 0..5 {
        get(&access.listen, "/items/1/page", &[]).await;
    }
    assert_eq!(states_made(&service).await, made, "a page by itself costs the service nothing");
    turn(&access, "P9", true).await;
    let etag = plain.header("etag").unwrap();
    for n in 1..=5 {
        let whole = get(&access.listen, "/items/1/page", &[("If-None-Match", etag)]).await;
        assert_eq!((whole.status, whole.header("etag")), (200, None), "nobody has it yet");
        assert_eq!(whole.header("cache-control"), Some("no-store"));
        let state =
            whole.body.split_once("id=\"state\" data-level=\"0\">").unwrap().1.split_once("</script>").unwrap().0;
        let state: serde_json::Value = serde_json::from_str(state).unwrap();
        assert_eq!((&state["available"], &state["stale"]), (&json!(5), &json!(false)));
        assert_eq!(states_made(&service).await, made + f64::from(n), "each view costs the service a call");
    }
    // Where the access layer may keep states for a moment, it does here, too.
    turn(&access, "M2", true).await;
    let before = states_made(&service).await;
    for _ in 0..20 {
        get(&access.listen, "/items/1/page", &[]).await;
    }
    assert!(states_made(&service).await < before + 20.0);
}

#[tokio::test]
async fn a_page_that_was_put_together_asks_for_nothing_first_and_is_sent_again_each_time() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let mut again = Vec::new();
    for (switch, first_looks) in [("P9=off", 1), ("P9=on", 0)] {
        let access = Role::start("access", &["--service", &service.listen, "--switch", switch]);
        let mut bytes = Vec::new();
        for _ in 0..2 {
            visitor.asked();
            visitor.asked.clear();
            visitor.visit(&access.listen);
            visitor.browser.wait_until("performance.getEntriesByName('state-shown').length === 1");
            visitor.browser.wait_until("document.getElementById('left').textContent === '5 left'");
            // What the page was shown from, and not what it asked for later.
            let shown = "performance.getEntriesByName('state-shown')[0].startTime";
            let asked = format!(
                "performance.getEntriesByType('resource').filter((it) => it.name.endsWith('/state') && it.startTime < {shown}).length"
            );
            assert_eq!(visitor.browser.eval(&asked), first_looks, "{switch}");
            bytes.push(
                visitor.asked().iter().filter(|asked| is_static(&asked.path)).map(|asked| asked.bytes).sum::<u64>(),
            );
        }
        println!("{switch}: {} bytes of page and parts on a first visit, {} on a second", bytes[0], bytes[1]);
        again.push(bytes[1]);
    }
    assert!(again[0] == 0 && again[1] > 5_000, "{again:?}");
}
