//! The target's control side: the listener for tests and drills, by which a sale is set up and audited.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StackError;
use crate::fault::proxy::Endpoint;
use crate::history::{FinalState, LedgerEntry, StockRow};

/// So much of a reply is quoted in an error: somebody else's server may answer with a whole page.
const MOST_QUOTED: usize = 200;

/// A client of the audit listener.
#[derive(Debug, Clone)]
pub struct Control {
    client: reqwest::Client,
    base: String,
    endpoint: Endpoint,
}

/// An item as the target is told to sell it. Times are Unix microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct ItemSetup {
    /// Its number.
    pub id: i64,
    /// For people.
    pub title: String,
    /// Price of one unit.
    pub price_cents: i64,
    /// Units at the start.
    pub stock: i64,
    /// Units that one user may hold or own.
    pub per_user_limit: i64,
    /// When the sale opens.
    pub opens_at: i64,
    /// When it closes.
    pub closes_at: i64,
    /// How long a hold lasts, in milliseconds.
    pub hold_ms: i64,
}

#[derive(Debug, Deserialize)]
struct StockReply {
    snapshot: String,
    as_of: i64,
    items: Vec<StockRow>,
}

#[derive(Debug, Deserialize)]
struct ClockReply {
    offset_ms: i64,
}

#[derive(Debug, Deserialize)]
struct LedgerReply {
    entries: Vec<LedgerEntry>,
    next: Option<i64>,
}

impl Control {
    /// A client for the listener at `endpoint`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(endpoint: &Endpoint) -> Result<Control, StackError> {
        // Proxies from the environment must not see traffic that never leaves this machine.
        let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
        let (builder, base) = match endpoint {
            Endpoint::Unix(path) => (builder.unix_socket(path.as_path()), "http://target".to_owned()),
            Endpoint::Tcp(address) => (builder, format!("http://{address}")),
        };
        let client = builder.build().map_err(|e| StackError::Other(format!("cannot make an HTTP client: {e}")))?;
        Ok(Control { client, base, endpoint: endpoint.clone() })
    }

    /// Where the listener is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Puts the shop into a known state: these items, nothing sold.
    ///
    /// # Errors
    /// The target cannot be reached or refuses.
    pub async fn reset(&self, items: &[ItemSetup]) -> Result<(), StackError> {
        // A target that has only just come up may refuse for a moment, on a busy machine for a few.
        let mut last = self.try_reset(items).await;
        for _ in 0..10 {
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            last = self.try_reset(items).await;
        }
        last
    }

    async fn try_reset(&self, items: &[ItemSetup]) -> Result<(), StackError> {
        let url = format!("{}/reset", self.base);
        let reply = self.client.post(&url).json(&serde_json::json!({ "items": items })).send().await;
        let reply = reply.map_err(|e| unreachable_control(&url, &e))?;
        if reply.status().is_success() {
            return Ok(());
        }
        let status = reply.status();
        let said: String = reply.text().await.unwrap_or_default().chars().take(MOST_QUOTED).collect();
        Err(StackError::Other(format!("POST {url} answered {status}: {}", said.replace(['\n', '\r'], " "))))
    }

    /// Sets the service's clock wrong: by an offset at once, and by so many microseconds more with each second.
    ///
    /// # Errors
    /// The target cannot be reached or refuses.
    pub async fn set_clock(&self, offset_ms: i64, gain_ppm: i64) -> Result<(), StackError> {
        let url = format!("{}/clock", self.base);
        let body = serde_json::json!({ "offset_ms": offset_ms, "gain_ppm": gain_ppm });
        let reply = self.client.put(&url).json(&body).send().await.map_err(|e| unreachable_control(&url, &e))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(());
        }
        let said: String = reply.text().await.unwrap_or_default().chars().take(MOST_QUOTED).collect();
        Err(StackError::Other(format!("PUT {url} answered {status}: {}", said.replace(['\n', '\r'], " "))))
    }

    /// By how many milliseconds the service's clock is off, as it says itself.
    ///
    /// # Errors
    /// The target cannot be reached, or its answer is not as the contract says.
    pub async fn clock_offset_ms(&self) -> Result<i64, StackError> {
        let ClockReply { offset_ms } = self.get("/clock").await?;
        Ok(offset_ms)
    }

    /// Whether the target says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let reply = self.client.get(format!("{}/readyz", self.base)).timeout(Duration::from_secs(1)).send().await;
        reply.is_ok_and(|r| r.status().is_success())
    }

    /// The stock and the whole ledger, from one snapshot.
    ///
    /// # Errors
    /// The target cannot be reached, or its answer is not as the contract says.
    pub async fn audit(&self) -> Result<FinalState, StackError> {
        let stock: StockReply = self.get("/audit/stock").await?;
        let mut ledger = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/audit/ledger?snapshot={}&after={after}&limit=10000", stock.snapshot);
            let page: LedgerReply = self.get(&path).await?;
            ledger.extend(page.entries);
            match page.next {
                Some(next) if next > after => after = next,
                Some(next) => return Err(StackError::Other(format!("the audit's cursor went from {after} to {next}"))),
                None => break,
            }
        }
        Ok(FinalState {
            taken_unix_us: stock.as_of,
            source: "http".into(),
            stock: stock.items,
            ledger,
            probes: Vec::new(),
        })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, StackError> {
        let url = format!("{}{path}", self.base);
        let reply = self.client.get(&url).send().await.map_err(|e| unreachable_control(&url, &e))?;
        let status = reply.status();
        let body: Value = reply
            .json()
            .await
            .map_err(|e| StackError::Other(format!("GET {url} answered {status}, not with JSON: {e}")))?;
        if !status.is_success() {
            return Err(StackError::Other(format!("GET {url} answered {status}: {body}")));
        }
        serde_path_to_error::deserialize(body).map_err(|e| {
            let (at, why) = (e.path().to_string(), e.into_inner());
            StackError::Other(format!("GET {url} does not keep the contract: {at}: {why}"))
        })
    }
}

fn unreachable_control(url: &str, error: &reqwest::Error) -> StackError {
    StackError::Other(format!("cannot reach the target's audit listener at {url}: {error}"))
}
