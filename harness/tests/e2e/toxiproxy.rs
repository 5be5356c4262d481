//! Toxiproxy's HTTP API: its shapes, its status codes, and what it does to real connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use harness::toxiproxy::{Collection, serve};

/// An API of its own, and the address of a server that echoes.
struct Api {
    client: Client,
    base: String,
    upstream: SocketAddr,
    cancel: CancellationToken,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn api() -> Api {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in upstream.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let cancel = CancellationToken::new();
    tokio::spawn(serve(listener, Arc::new(Collection::new(Vec::new(), 1)), cancel.clone()));
    Api { client: Client::new(), base, upstream: address, cancel }
}

impl Api {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            // Some clients do not say what they send.
            request = request.body(body.to_string());
        }
        let reply = request.send().await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.ask(Method::DELETE, path, None).await
    }

    /// Makes a proxy to the echo server; where it listens.
    async fn proxy(&self, name: &str) -> SocketAddr {
        let (status, proxy) = self.post("/proxies", json!({"name": name, "upstream": self.upstream.to_string()})).await;
        assert_eq!(status, 201, "{proxy}");
        proxy["listen"].as_str().unwrap().parse().unwrap()
    }
}

/// Sends a few bytes through a new connection and waits for them; how long that took.
fn echo(address: SocketAddr) -> std::io::Result<Duration> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let begun = Instant::now();
    stream.write_all(b"hello")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"hello");
    Ok(begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_come_change_and_go() {
    let api = api().await;
    let listen = api.proxy("echo").await;
    assert_ne!(listen.port(), 0);
    let view = json!({"name": "echo", "listen": listen.to_string(), "upstream": api.upstream.to_string(),
        "enabled": true, "toxics": []});
    assert_eq!(api.get("/proxies/echo").await, (200, view.clone()));
    assert_eq!(api.get("/proxies").await, (200, json!({"echo": view})));
    echo(listen).unwrap();

    let (status, disabled) = api.patch("/proxies/echo", json!({"enabled": false})).await;
    assert_eq!((status, &disabled["enabled"]), (200, &json!(false)));
    assert!(echo(listen).is_err());
    // Its port and its toxics outlive that.
    let latency = json!({"type": "latency", "attributes": {"latency": 50}});
    assert_eq!(api.post("/proxies/echo/toxics", latency).await.0, 200);
    let (status, enabled) = api.post("/proxies/echo", json!({"enabled": true})).await;
    assert_eq!((status, &enabled["listen"]), (200, &json!(listen.to_string())));
    assert!(echo(listen).unwrap() >= Duration::from_millis(50));

    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, moved) = api.patch("/proxies/echo", json!({"upstream": gone.to_string()})).await;
    assert_eq!((status, &moved["upstream"]), (200, &json!(gone.to_string())));
    assert!(echo(listen).is_err());
    assert_eq!(api.delete("/proxies/echo").await.0, 204);
    assert_eq!(api.get("/proxies").await, (200, json!({})));
    assert!(TcpStream::connect(listen).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn toxics_come_change_and_go() {
    let api = api().await;
    let listen = api.proxy("echo").await;
    let down = json!({"attributes": {"latency": 40, "jitter": 0}, "name": "latency_downstream", "type": "latency",
        "stream": "downstream", "toxicity": 1.0});
    let asked = json!({"type": "latency", "attributes": {"latency": 40}});
    assert_eq!(api.post("/proxies/echo/toxics", asked.clone()).await, (200, down.clone()));
    let up =
        json!({"name": "up", "type": "latency", "stream": "upstream", "toxicity": 1, "attributes": {"latency": 30}});
    assert_eq!(api.post("/proxies/echo/toxics", up).await.0, 200);
    assert!(echo(listen).unwrap() >= Duration::from_millis(70), "both directions are delayed");
    let (_, listed) = api.get("/proxies/echo/toxics").await;
    assert_eq!((&listed[0]["name"], &listed[1]), (&json!("up"), &down), "those upstream come first");
    assert_eq!(api.get("/proxies/echo/toxics/latency_downstream").await, (200, down));
    assert_eq!(api.post("/proxies/echo/toxics", asked).await.0, 409);

    let slow = json!({"attributes": {"latency": 90}, "toxicity": 1.0});
    let (status, changed) = api.patch("/proxies/echo/toxics/up", slow).await;
    assert_eq!((status, &changed["attributes"]), (200, &json!({"latency": 90, "jitter": 0})));
    assert!(echo(listen).unwrap() >= Duration::from_millis(130));
    let (status, spared) = api.post("/proxies/echo/toxics/up", json!({"toxicity": 0.0})).await;
    assert_eq!((status, &spared["toxicity"], &spared["attributes"]["latency"]), (200, &json!(0.0), &json!(90)));

    assert_eq!(api.delete("/proxies/echo/toxics/up").await.0, 204);
    assert_eq!(api.post("/proxies/echo/toxics", json!({"type": "reset_peer"})).await.0, 200);
    assert!(echo(listen).is_err());
    assert_eq!(api.ask(Method::POST, "/reset", None).await, (204, json!("")));
    assert_eq!(api.get("/proxies/echo/toxics").await, (200, json!([])));
    echo(listen).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn populating_keeps_what_fits_and_makes_the_rest_anew() {
    let api = api().await;
    let wanted = |listen: &str| {
        json!([{"name": "one", "listen": listen, "upstream": api.upstream.to_string()},
            {"name": "off", "upstream": api.upstream.to_string(), "enabled": false}])
    };
    let (status, made) = api.post("/populate", wanted("127.0.0.1:0")).await;
    assert_eq!((status, &made["proxies"][1]["enabled"]), (201, &json!(false)));
    let listen = made["proxies"][0]["listen"].as_str().unwrap().to_owned();
    assert_eq!(api.post("/proxies/one/toxics", json!({"type": "latency"})).await.0, 200);
    let (_, again) = api.post("/populate", wanted(&listen)).await;
    assert_eq!(again["proxies"][0]["toxics"].as_array().unwrap().len(), 1, "the same proxy keeps its toxics");
    let (_, anew) = api.post("/populate", wanted("127.0.0.1:0")).await;
    assert_ne!(anew["proxies"][0]["listen"], json!(listen));
    assert_eq!(anew["proxies"][0]["toxics"], json!([]));
    // A mistake in one of them, and none is touched.
    let mistaken = json!([{"name": "new", "upstream": api.upstream.to_string()}, {"name": "bad"}]);
    let missing = json!({"error": "missing required field: upstream at proxy 2", "status": 400});
    assert_eq!(api.post("/populate", mistaken).await, (400, missing));
    assert_eq!(api.get("/proxies/new").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_those_of_toxiproxy() {
    let api = api().await;
    api.proxy("echo").await;
    let refusal = |error: &str, status: u16| (status, json!({"error": error, "status": status}));
    let upstream = json!(api.upstream.to_string());
    assert_eq!(api.get("/proxies/none").await, refusal("proxy not found", 404));
    assert_eq!(api.delete("/proxies/none").await, refusal("proxy not found", 404));
    assert_eq!(api.patch("/proxies/none/toxics/x", json!({})).await, refusal("proxy not found", 404));
    assert_eq!(api.patch("/proxies/echo/toxics/x", json!({})).await, refusal("toxic not found", 404));
    let twice = api.post("/proxies", json!({"name": "echo", "upstream": upstream})).await;
    assert_eq!(twice, refusal("proxy already exists", 409));
    let nameless = api.post("/proxies", json!({"upstream": upstream})).await;
    assert_eq!(nameless, refusal("missing required field: name", 400));
    let typeless = api.post("/proxies/echo/toxics", json!({"type": "noop"})).await;
    assert_eq!(typeless, refusal("invalid toxic type", 400));
    for (path, body) in [
        ("/proxies", json!([1])),
        ("/proxies/echo/toxics", json!({"type": "latency", "toxicity": 2.0})),
        ("/proxies/echo/toxics", json!({"type": "slicer", "attributes": {"average_size": 0}})),
    ] {
        let (status, told) = api.post(path, body).await;
        assert_eq!(status, 400);
        assert!(told["error"].as_str().unwrap().starts_with("bad request body: "), "{told}");
    }
    // Faults go nowhere but to this machine, and nobody else finds the proxies.
    for body in [
        json!({"name": "a", "upstream": "192.0.2.1:80"}),
        json!({"name": "b", "upstream": upstream, "listen": "192.0.2.1:80"}),
    ] {
        assert_eq!(api.post("/proxies", body).await.0, 403);
    }
    let browser = api.client.get(format!("{}/proxies", api.base)).header("user-agent", "Mozilla/5.0").send().await;
    assert_eq!(browser.unwrap().status().as_u16(), 403);
    assert_eq!(api.get("/nowhere").await, (404, json!("404 page not found\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_version_and_what_was_read() {
    let api = api().await;
    let listen = api.proxy("echo").await;
    let (status, version) = api.get("/version").await;
    assert_eq!(status, 200);
    assert!(version["version"].as_str().unwrap().starts_with("2."), "{version}");
    echo(listen).unwrap();
    let (status, metrics) = api.get("/metrics").await;
    assert_eq!(status, 200);
    let upstream = api.upstream;
    let line = format!(
        "toxiproxy_proxy_received_bytes_total{{direction=\"upstream\",proxy=\"echo\",listener=\"{listen}\",\
         upstream=\"{upstream}\"}} 5\n"
    );
    assert!(metrics.as_str().unwrap().contains(&line), "{metrics}");
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("toxiproxy.json");
    let refused = |arguments: &[&str]| {
        let output = Command::cargo_bin("seckill").unwrap().arg("proxy").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--listen", "192.0.2.1:8474"]).contains("--allow NETWORK"));
    assert!(refused(&["--allow", "0.0.0.0/0"]).contains("not a private network"));
    let path = config.to_str().unwrap();
    assert!(refused(&["--config", path]).contains(path), "a file that does not exist is named");
    std::fs::write(&config, r#"[{"name": "far", "upstream": "192.0.2.1:80"}]"#).unwrap();
    let told = refused(&["--config", path]);
    assert!(told.contains(path) && told.contains("192.0.2.1:80") && told.contains("--allow"), "{told}");
}
