//! Putting an item on sale by hand, through the audit listener: for somebody who wants to look at the page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use axum::body::Bytes;
use clap::Args;
use hyper::http::Method;
use serde_json::json;

use crate::config::{Address, parse_duration};
use crate::outbound::Outbound;

/// How long the service may take to empty its tables.
const PATIENCE: Duration = Duration::from_secs(10);

/// How `seckill-target sell` is started.
#[derive(Args, Debug)]
pub struct Options {
    /// The service's listener for tests and drills.
    #[arg(long, value_name = "ADDR")]
    admin: Address,
    /// The item's number.
    #[arg(long, default_value_t = 1)]
    item: i64,
    /// What the page calls it.
    #[arg(long, default_value = "青瓷茶盏 · Celadon tea bowl")]
    title: String,
    /// Price of one unit, in cents.
    #[arg(long, value_name = "CENTS", default_value_t = 9_900)]
    price: i64,
    /// Units for sale.
    #[arg(long, default_value_t = 20)]
    stock: i64,
    /// Units that one buyer may have.
    #[arg(long, default_value_t = 1)]
    limit: i32,
    /// When the sale opens, from now on.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    opens_in: Duration,
    /// How long it goes on.
    #[arg(long, value_name = "DURATION", default_value = "60m", value_parser = parse_duration)]
    lasts: Duration,
    /// How long an unpaid order is held.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    hold: Duration,
}

/// Puts the item on sale.
pub async fn run(options: Options) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?;
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let (opens, closes) = (now + options.opens_in, now + options.opens_in + options.lasts);
    let item = json!({
        "id": options.item,
        "title": options.title,
        "price_cents": options.price,
        "stock": options.stock,
        "per_user_limit": options.limit,
        "opens_at": micros(opens),
        "closes_at": micros(closes),
        "hold_ms": i64::try_from(options.hold.as_millis()).unwrap_or(i64::MAX),
    });
    let body = Bytes::from(json!({ "items": [item] }).to_string());
    let service = Outbound::new(options.admin.clone());
    let answered = service.call(Method::POST, "/reset", &[], body, PATIENCE).await;
    match answered.with_context(|| format!("no service listens for tests and drills on {}", options.admin))? {
        (200, _) => Ok(()),
        (status, body) => bail!("the service refused with {status}: {}", String::from_utf8_lossy(&body)),
    }
}
