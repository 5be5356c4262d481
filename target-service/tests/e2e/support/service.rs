//! The service as a process of its own, and a buyer's view of it.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::http::{Connection, Reply};
use super::said_when_ready;

/// The secret that sessions in tests are signed with.
pub const SECRET: &str = "00112233445566778899aabbccddeeff";

/// What a service says that is started with arguments for which it has to refuse to start.
pub fn refused_start(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seckill-target"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--database-url", "host=/nowhere"])
        .args(arguments)
        .output()
        .unwrap()
}

/// A running service. It is killed when dropped.
pub struct Service {
    process: Child,
    /// The public address.
    pub listen: String,
    /// The admin address.
    pub admin: String,
}

impl Service {
    /// Starts the correct service.
    pub fn start(database_url: &str) -> Self {
        Self::start_with(database_url, &[])
    }

    /// Starts the service with a seeded bug.
    pub fn with_bug(database_url: &str, bug: &str) -> Self {
        Self::start_with(database_url, &["--bug", bug, "--allow-seeded-bugs"])
    }

    /// Starts the service with further arguments.
    pub fn start_with(database_url: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_seckill-target"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--secret", SECRET])
            .args(["--database-url", database_url])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = said_when_ready(&mut process);
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { listen: address("listen"), admin: address("admin"), process }
    }

    /// Kills the service at once.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks the service to stop, and returns its exit code.
    pub async fn terminate(&mut self, patience: Duration) -> Option<i32> {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        self.exit_code(patience).await
    }

    /// Waits for the service to end.
    pub async fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < deadline, "the service is still running");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Calls the admin listener, and expects success.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let reply = self.try_admin(method, path, body).await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {reply:?}");
        reply.json()
    }

    /// Calls the admin listener.
    pub async fn try_admin(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        Connection::open(&self.admin).await.unwrap().send(method, path, &[], &body).await.unwrap()
    }

    /// The value of one line of the metrics; zero if it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.try_admin("GET", "/metrics", None).await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Puts the items on sale.
    pub async fn reset(&self, items: &[Value]) {
        self.admin("POST", "/reset", Some(json!({"items": items}))).await;
    }

    /// The first item of the stock audit.
    pub async fn stock(&self) -> Stock {
        let audit = self.admin("GET", "/audit/stock?close=true", None).await;
        Stock::from(&audit["items"][0])
    }

    /// The whole ledger, read in pages.
    pub async fn ledger(&self) -> Vec<Value> {
        let mut entries = Vec::new();
        let mut path = "/audit/ledger?limit=100".to_owned();
        loop {
            let page = self.admin("GET", &path, None).await;
            entries.extend(page["entries"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_i64() else { return entries };
            path = format!("/audit/ledger?limit=100&snapshot={}&after={next}", page["snapshot"].as_str().unwrap());
        }
    }

    /// Logs a buyer in.
    pub async fn buyer(&self, user: &str) -> Buyer {
        let mut connection = Connection::open(&self.listen).await.unwrap();
        let body = json!({"user": user}).to_string();
        let reply = connection.send("POST", "/sessions", &[], &body).await.unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        Buyer { connection, token: reply.json()["token"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An item in the stock audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    pub initial: i64,
    pub available: i64,
    pub held: i64,
    pub sold: i64,
}

impl Stock {
    fn from(item: &Value) -> Self {
        let number = |name: &str| item[name].as_i64().unwrap();
        Self { initial: number("initial"), available: number("available"), held: number("held"), sold: number("sold") }
    }

    /// Whether every unit is somewhere, and only there.
    pub fn is_conserved(self) -> bool {
        self.available >= 0 && self.available + self.held + self.sold == self.initial
    }
}

/// A logged-in buyer with a connection.
pub struct Buyer {
    connection: Connection,
    pub token: String,
}

impl Buyer {
    /// Sends any request in the buyer's name.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Reply> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        self.connection.send(method, path, &all, body).await
    }

    /// Orders, and tells how it went even if the connection broke.
    pub async fn try_order(&mut self, quantity: i64, key: &str) -> std::io::Result<Reply> {
        let body = json!({"quantity": quantity}).to_string();
        self.send("POST", "/items/1/orders", &[("Idempotency-Key", key)], &body).await
    }

    /// Orders.
    pub async fn order(&mut self, quantity: i64, key: &str) -> Reply {
        self.try_order(quantity, key).await.unwrap()
    }

    /// Pays.
    pub async fn pay(&mut self, order: &str) -> Reply {
        self.send("POST", &format!("/orders/{order}/pay"), &[], "").await.unwrap()
    }

    /// Cancels.
    pub async fn cancel(&mut self, order: &str) -> Reply {
        self.send("POST", &format!("/orders/{order}/cancel"), &[], "").await.unwrap()
    }

    /// Asks what became of a key.
    pub async fn find(&mut self, key: &str) -> Reply {
        self.send("GET", &format!("/orders?idempotency_key={key}"), &[], "").await.unwrap()
    }
}
