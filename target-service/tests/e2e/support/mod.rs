//! A private Postgres, the service under test as a real process, and a small HTTP client.
//!
//! Everything that is started here is stopped when dropped, also when a test panics.

#[path = "../../../../harness/tests/e2e/support/browser.rs"]
pub mod browser;
pub mod http;
pub mod payment;
pub mod postgres;
pub mod proxy;
pub mod redis;
pub mod role;
pub mod service;
#[path = "../../../../harness/tests/e2e/support/skipped.rs"]
pub mod skipped;
pub mod source;

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Now, in unix microseconds.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

/// An item that is on sale now and holds for long enough not to matter.
pub fn item(stock: i64, limit: i32) -> Value {
    json!({
        "id": 1, "title": "A phone", "price_cents": 9900, "stock": stock, "per_user_limit": limit,
        "opens_at": now_us() - 1_000_000, "closes_at": now_us() + 3_600_000_000_i64, "hold_ms": 60_000,
    })
}

/// The item with one field changed.
pub fn with(mut item: Value, field: &str, value: impl Into<Value>) -> Value {
    item[field] = value.into();
    item
}

/// What a process of the program says when it is ready, as its first line; one that says anything else is killed.
pub fn said_when_ready(process: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    match serde_json::from_str::<Value>(&line) {
        Ok(said) if said["ready"] == true => said,
        _ => {
            let _ = process.kill();
            panic!("it did not become ready: {line:?}")
        }
    }
}

/// Waits until the condition holds, or fails.
pub async fn eventually(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not happen within {patience:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
