//! The target's control side: the listener for tests and drills, by which a sale is set up and audited.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StackError;
use super::meters::Meters;
use crate::fault::proxy::Endpoint;
use crate::history::{FinalState, LedgerEntry, PaymentEntry, StockRow};
use crate::scenario::external::ShopMetrics;

/// So much of a reply is quoted in an error: somebody else's server may answer with a whole page.
const MOST_QUOTED: usize = 200;

/// How long payments may take to be finished before the audit, once nobody buys any more.
const SETTLING: Duration = Duration::from_secs(10);

/// A client of the audit listener, and of the one of the payment dependency where there is one.
#[derive(Debug, Clone)]
pub struct Control {
    target: Listener,
    payments: Option<Listener>,
}

/// One listener and the way to it.
#[derive(Debug, Clone)]
struct Listener {
    client: reqwest::Client,
    base: String,
    endpoint: Endpoint,
}

impl Listener {
    fn new(endpoint: &Endpoint) -> Result<Listener, StackError> {
        let (client, base) = client_of(endpoint)?;
        Ok(Listener { client, base, endpoint: endpoint.clone() })
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

    async fn reset(&self, body: &Value) -> Result<(), StackError> {
        let url = format!("{}/reset", self.base);
        let reply = self.client.post(&url).json(body).send().await;
        let reply = reply.map_err(|e| unreachable_control(&url, &e))?;
        if reply.status().is_success() {
            return Ok(());
        }
        let status = reply.status();
        let said: String = reply.text().await.unwrap_or_default().chars().take(MOST_QUOTED).collect();
        Err(StackError::Other(format!("POST {url} answered {status}: {}", said.replace(['\n', '\r'], " "))))
    }
}

/// A client for a listener, and what stands before the path of its addresses.
pub(super) fn client_of(endpoint: &Endpoint) -> Result<(reqwest::Client, String), StackError> {
    // Proxies from the environment must not see traffic that never leaves this machine.
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
    // Nor may a reply send it to another one.
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    let (builder, base) = match endpoint {
        Endpoint::Unix(path) => (builder.unix_socket(path.as_path()), "http://target".to_owned()),
        Endpoint::Tcp(address) => (builder, format!("http://{address}")),
    };
    let client = builder.build().map_err(|e| StackError::Other(format!("cannot make an HTTP client: {e}")))?;
    Ok((client, base))
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

#[derive(Debug, Deserialize)]
struct PaymentsReply {
    entries: Vec<PaymentEntry>,
    next: Option<i64>,
}

/// What the service says of payments that are begun and not ended.
#[derive(Debug, Deserialize)]
struct Unfinished {
    open: u64,
}

impl Control {
    /// A client for the listener at `endpoint`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(endpoint: &Endpoint) -> Result<Control, StackError> {
        Ok(Control { target: Listener::new(endpoint)?, payments: None })
    }

    /// The same, with the audit listener of the payment dependency: its books belong to the final state.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn with_payments(&self, endpoint: &Endpoint) -> Result<Control, StackError> {
        Ok(Control { target: self.target.clone(), payments: Some(Listener::new(endpoint)?) })
    }

    /// Where the listener is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.target.endpoint
    }

    /// Where the listener of the payment dependency is, if there is one.
    pub fn payments(&self) -> Option<&Endpoint> {
        self.payments.as_ref().map(|listener| &listener.endpoint)
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
        self.target.reset(&serde_json::json!({ "items": items })).await?;
        // After the service has forgotten its payments, nobody asks for a capture of the run before any more.
        match &self.payments {
            Some(payments) => payments.reset(&serde_json::json!({})).await,
            None => Ok(()),
        }
    }

    /// Sets the service's clock wrong: by an offset at once, and by so many microseconds more with each second.
    ///
    /// # Errors
    /// The target cannot be reached or refuses.
    pub async fn set_clock(&self, offset_ms: i64, gain_ppm: i64) -> Result<(), StackError> {
        let url = format!("{}/clock", self.target.base);
        let body = serde_json::json!({ "offset_ms": offset_ms, "gain_ppm": gain_ppm });
        let reply = self.target.client.put(&url).json(&body).send().await.map_err(|e| unreachable_control(&url, &e))?;
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
        let ClockReply { offset_ms } = self.target.get("/clock").await?;
        Ok(offset_ms)
    }

    /// Whether the target says that it is ready.
    pub async fn is_ready(&self) -> bool {
        let Listener { client, base, .. } = &self.target;
        let reply = client.get(format!("{base}/readyz")).timeout(Duration::from_secs(1)).send().await;
        reply.is_ok_and(|r| r.status().is_success())
    }

    /// The target's own meters.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn meters(&self) -> Result<Meters, StackError> {
        let endpoint = self.endpoint();
        Meters::new(endpoint, &ShopMetrics::of_contract(endpoint.to_string()))
    }

    /// The stock and the whole ledger, from one snapshot.
    ///
    /// # Errors
    /// The target cannot be reached, or its answer is not as the contract says.
    pub async fn audit(&self) -> Result<FinalState, StackError> {
        if self.payments.is_some() {
            self.wait_for_payments().await?;
        }
        let stock: StockReply = self.target.get("/audit/stock").await?;
        let mut ledger = Vec::new();
        let mut after = 0;
        loop {
            let path = format!("/audit/ledger?snapshot={}&after={after}&limit=10000", stock.snapshot);
            let page: LedgerReply = self.target.get(&path).await?;
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
            payments: self.payment_books().await?,
        })
    }

    /// Waits until the service has finished the payments that somebody left behind. One that takes longer than it may is
    /// audited as it is.
    async fn wait_for_payments(&self) -> Result<(), StackError> {
        let end = Instant::now() + SETTLING;
        while self.target.get::<Unfinished>("/audit/payments").await?.open > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What the payment dependency itself says that it took and gave back.
    async fn payment_books(&self) -> Result<Option<Vec<PaymentEntry>>, StackError> {
        let Some(payments) = &self.payments else { return Ok(None) };
        let (mut books, mut after) = (Vec::new(), 0);
        loop {
            let page: PaymentsReply = payments.get(&format!("/audit/payments?after={after}&limit=10000")).await?;
            books.extend(page.entries);
            match page.next {
                Some(next) if next > after => after = next,
                Some(next) => {
                    return Err(StackError::Other(format!("the payments' cursor went from {after} to {next}")));
                }
                None => return Ok(Some(books)),
            }
        }
    }
}

pub(super) fn unreachable_control(url: &str, error: &reqwest::Error) -> StackError {
    StackError::Other(format!("cannot reach the target's audit listener at {url}: {error}"))
}
