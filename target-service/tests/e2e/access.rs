//! The access layer in front of a service: what it answers itself, what it passes on, and what it says when it cannot.

use std::time::{Duration, Instant};

use crate::support::http::{Connection, Reply};
use crate::support::postgres::Postgres;
use crate::support::role::Role;
use crate::support::service::Service;
use crate::support::{eventually, item, with};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who accepts connections and tells what was asked of him; he answers with these bytes, or not at all.
async fn somebody(answer: Option<&'static str>) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 8192];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let _ = heard.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
                    if let Some(answer) = answer {
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    (address, hears)
}

#[tokio::test]
async fn pages_and_states_come_from_memory_and_orders_from_the_service() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    let access = Role::start("access", &["--service", &service.listen, "--state-ttl", "300ms"]);
    let tier = |reply: &Reply| reply.header("x-served-by-tier").unwrap().to_owned();

    let page = access.get("/items/1").await;
    assert_eq!((page.status, tier(&page).as_str(), page.header("age")), (200, "service", None), "the service made it");
    let page = access.get("/items/1").await;
    assert_eq!((page.status, tier(&page).as_str(), page.header("age")), (200, "access", Some("0")));
    let mut connection = Connection::open(&access.listen).await.unwrap();
    let etag = page.header("etag").unwrap();
    let known = connection.send("GET", "/items/1", &[("If-None-Match", etag)], "").await.unwrap();
    assert_eq!((known.status, known.body.as_str()), (304, ""));

    let mut states = Vec::new();
    eventually("a state from memory", PATIENCE, async || {
        states.push(access.get("/items/1/state").await);
        tier(states.last().unwrap()) == "access"
    })
    .await;
    for state in &states {
        // Whatever comes from memory says so, and what does not, does not.
        assert_eq!(state.json()["stale"], json!(tier(state) == "access"), "{state:?}");
        assert_eq!(state.header("x-degrade-level"), Some("0"));
    }
    let token = access.ask("POST", "/sessions", &[], r#"{"user":"u1"}"#).await;
    assert_eq!((token.status, tier(&token).as_str()), (201, "service"));
    let bearer = format!("Bearer {}", token.json()["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "k1")];
    let order = access.ask("POST", "/items/1/orders", &headers, r#"{"quantity":1}"#).await;
    assert_eq!((order.status, tier(&order).as_str()), (201, "service"), "{order:?}");
    let again = access.ask("POST", "/items/1/orders", &headers, r#"{"quantity":1}"#).await;
    assert_eq!((again.status, again.order_id()), (200, order.order_id()));
    assert_eq!(access.get("/items/1/state").await.json()["available"], 5, "as old as it may be");
    let mine = access.ask("GET", "/items/1/state", &[("Authorization", &bearer)], "").await;
    assert_eq!((tier(&mine).as_str(), &mine.json()["available"]), ("service", &json!(4)), "nobody else's answer");
    eventually("the state to be renewed", PATIENCE, async || {
        access.get("/items/1/state").await.json()["available"] == 4
    })
    .await;
    let missing = access.get("/items/7").await;
    assert_eq!((missing.status, tier(&missing).as_str()), (404, "service"));
    let metrics = access.metrics().await;
    assert!(metrics.contains(r#"access_requests_total{tier="access",outcome="state"}"#), "{metrics}");

    // Turned off, every state comes from the service.
    let mut admin = Connection::open(&access.admin).await.unwrap();
    admin.send("PUT", "/switches/M2", &[], r#"{"on":false}"#).await.unwrap();
    let state = access.get("/items/1/state").await;
    assert_eq!((tier(&state).as_str(), &state.json()["stale"]), ("service", &json!(false)));
}

#[tokio::test]
async fn what_was_seen_last_is_shown_while_no_service_answers() {
    let postgres = Postgres::start();
    for (switch, shown) in [("L4=on", true), ("L4=off", false)] {
        let mut service = Service::start(&postgres.url());
        service.reset(&[item(5, 1)]).await;
        let ttl = ["--state-ttl", "1ms", "--page-ttl", "1ms"];
        let access = Role::start("access", &[&["--service", &service.listen, "--switch", switch][..], &ttl].concat());
        assert_eq!((access.get("/items/1").await.status, access.get("/items/1/state").await.status), (200, 200));
        service.kill();
        tokio::time::sleep(Duration::from_millis(5)).await;
        for path in ["/items/1", "/items/1/state"] {
            let reply = access.get(path).await;
            assert_eq!(reply.header("x-served-by-tier"), Some("access"));
            if !shown {
                assert_eq!(reply.problem(), "upstream-unavailable");
                continue;
            }
            assert_eq!((reply.status, reply.header("x-degrade-level")), (200, Some("4")), "{reply:?}");
            assert!(reply.header("age").is_some());
            if path.ends_with("state") {
                assert_eq!((&reply.json()["on_sale"], &reply.json()["stale"]), (&json!(false), &json!(true)));
            }
        }
        // What may have been done is never said to have been refused.
        let order = access.ask("POST", "/items/1/orders", &[], "{}").await;
        assert_eq!(order.problem(), "upstream-unavailable");
    }
}

#[tokio::test]
async fn what_is_too_much_or_has_no_answer_is_said_so() {
    let (silent, _heard) = somebody(None).await;
    let access = Role::start("access", &["--service", &silent, "--timeout", "300ms", "--max-in-flight", "1"]);
    let began = Instant::now();
    let (first, second) = tokio::join!(access.get("/time"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        access.get("/time").await
    });
    assert_eq!(first.problem(), "upstream-timeout");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(second.problem(), "overloaded");
    for reply in [&first, &second] {
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(reply.header("x-served-by-tier"), Some("access"));
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let access = Role::start("access", &["--service", &nobody]);
    assert_eq!(access.get("/time").await.problem(), "upstream-unavailable");
}

#[tokio::test]
async fn services_take_turns_and_one_that_is_gone_is_passed_over() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-mine: 1\r\nconnection: x-mine\r\n\r\nok";
    let (one, mut one_hears) = somebody(Some(answer)).await;
    let (other, mut other_hears) = somebody(Some(answer)).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let access = Role::start("access", &["--service", &one, "--service", &gone, "--service", &other]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for _ in 0..6 {
        let reply = access.ask("POST", "/x?y=1", &[("traceparent", trace), ("Connection", "close")], "body").await;
        assert_eq!((reply.status, reply.body.as_str(), reply.header("x-mine")), (200, "ok", None));
    }
    let heard = |hears: &mut tokio::sync::mpsc::UnboundedReceiver<String>| {
        let mut all = Vec::new();
        while let Ok(text) = hears.try_recv() {
            all.push(text.to_ascii_lowercase());
        }
        all.concat()
    };
    let (first, second) = (heard(&mut one_hears), heard(&mut other_hears));
    for text in [&first, &second] {
        assert!(text.contains("post /x?y=1 http/1.1") && text.contains(trace), "{text}");
        assert!(text.contains("via: 1.1 access") && !text.contains("connection: close"), "{text}");
    }
    let times = |text: &str| text.matches("post /x").count();
    assert_eq!((times(&first) + times(&second), times(&first) >= 2, times(&second) >= 2), (6, true, true));
}

#[tokio::test]
async fn a_stream_of_events_passes_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let access = Role::start("access", &["--service", &address, "--timeout", "200ms"]);
    let mut client = TcpStream::connect(&access.listen).await.unwrap();
    client.write_all(b"GET /tickets/1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut buffer = vec![0; 4096];
    assert!(upstream.read(&mut buffer).await.unwrap() > 0);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    upstream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    for event in ["one", "two", "three"] {
        // Each is read before the next is sent, the last one long after the limit on a reply.
        let text = format!("data: {event}\n\n");
        upstream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
        while !seen.contains(&text) {
            let read = tokio::time::timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "ended early: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn what_the_shop_knows_of_a_buyer_is_never_a_reason_not_to_sell() {
    let postgres = Postgres::start();
    let profile = Role::start("profile", &[]);
    let (silent, _heard) = somebody(None).await;
    let (mad, _heard) = somebody(Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"user\":1")).await;
    for (address, known) in [(&profile.listen, true), (&silent, false), (&mad, false)] {
        let service = Service::start_with(&postgres.url(), &["--profile", address]);
        service.reset(&[with(item(5, 1), "hold_ms", 60_000)]).await;
        let mut buyer = service.buyer("u1").await;
        let began = Instant::now();
        let state = buyer.send("GET", "/items/1/state", &[], "").await.unwrap();
        assert_eq!((state.status, &state.json()["you"]["default"]), (200, &json!(!known)), "{state:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "it is not waited for");
        assert_eq!(buyer.order(1, "k1").await.status, 201);
    }
}

#[tokio::test]
async fn a_purge_reaches_several_nodes_at_once_and_nothing_old_is_said_afterwards() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(5, 1), "title", "before")]).await;
    let ttl = ["--service", &service.listen, "--page-ttl", "60s"];
    let nodes: Vec<Role> = (0..3).map(|_| Role::start("access", &ttl)).collect();
    let is_old = |reply: &Reply| reply.body.contains("<h1>before</h1>");
    for node in &nodes {
        node.get("/items/1/page").await;
    }
    service.reset(&[with(item(5, 1), "title", "after")]).await;
    for node in &nodes {
        assert!(is_old(&node.get("/items/1/page").await), "without a purge it stays as it was");
    }
    // Buyers go on asking meanwhile; what each was told, and when he had asked.
    let buyers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let address = node.listen.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await.unwrap();
                let (mut told, end) = (Vec::new(), Instant::now() + Duration::from_secs(2));
                while Instant::now() < end {
                    let asked = Instant::now();
                    let reply = connection.send("GET", "/items/1/page", &[], "").await.unwrap();
                    told.push((asked, Instant::now(), reply.body.contains("<h1>before</h1>")));
                }
                told
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    for node in &nodes {
        let mut admin = Connection::open(&node.admin).await.unwrap();
        assert_eq!(admin.send("POST", "/purge", &[], "").await.unwrap().status, 200);
    }
    let done = Instant::now();
    let mut last_stale = Duration::ZERO;
    for buyer in buyers {
        let told = buyer.await.unwrap();
        assert!(
            told.iter().any(|(_, _, old)| *old) && told.iter().any(|(_, _, old)| !old),
            "before and after are seen"
        );
        assert!(
            told.iter().all(|(asked, _, old)| !old || *asked < done),
            "something old was said to who asked afterwards"
        );
        for (_, heard, _) in told.iter().filter(|(_, _, old)| *old) {
            last_stale = last_stale.max(heard.saturating_duration_since(began));
        }
    }
    println!("P7: from the purge of 3 nodes to the last stale reply: {last_stale:?}");
}
