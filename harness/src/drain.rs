//! The drain probe: fresh buyers try to buy everything that the audit says is left, and one unit more (I5b).
//!
//! What a counter says can be bought and what can really be bought are two things: a stranded shard, a "sold out" flag
//! that nobody clears, a cache that was deducted alone. So the probe buys.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::history::{DrainProbe, OrderState, Outcome, Role, StockRow};
use crate::load::buyer::alone::Alone;
use crate::load::classify;
use crate::load::client::{Connection, Entry};
use crate::scenario::Scenario;
use crate::scenario::journey::{CompiledStep, Journey};

/// Buyers at work at once. A shop at rest is not to be loaded here.
const AT_ONCE: i64 = 16;
/// More units than these are not bought one by one; the probe then says so.
const MOST: i64 = 50_000;

/// When so many buyers in a row have come to nothing, however often each of them tried, the others are not sent: a shop that takes
/// no orders takes none of thousands either, and each would try for seconds.
const GIVEN_UP_AFTER: i64 = 64;
/// How long one reply may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What one fresh buyer came to.
enum Bought {
    Sold,
    SoldOut,
    Other(String),
}

/// Probes every item that some cohort can order.
pub async fn probe(
    scenario: &Scenario,
    stock: &[StockRow],
    entry: &Entry,
    user_prefix: &str,
    key_prefix: &str,
) -> Vec<DrainProbe> {
    let mut probes = Vec::new();
    for row in stock {
        let has = |j: &Journey, role| j.steps.iter().any(|s| s.role == role);
        // One that pays keeps what it bought, however long the probe takes.
        let journey = Journey::all(scenario)
            .into_iter()
            .filter(|j| j.item == row.item && has(j, Role::Order))
            .max_by_key(|j| has(j, Role::Pay));
        let Some(journey) = journey else { continue };
        let hold = scenario.find_item(row.item).map(|item| item.hold.0).filter(|_| !has(&journey, Role::Pay));
        let started = Instant::now();
        let names = (format!("{user_prefix}p{}x", row.item), format!("{key_prefix}p{}x", row.item));
        let mut probe = probe_item(Arc::new(journey), row, entry, names).await;
        probe.outlasted_its_holds = hold.is_some_and(|hold| started.elapsed() >= hold);
        probes.push(probe);
    }
    probes
}

async fn probe_item(journey: Arc<Journey>, row: &StockRow, entry: &Entry, (user, key): (String, String)) -> DrainProbe {
    let buyers = row.available.max(0) + 1;
    let mut probe = DrainProbe { item: row.item, available: row.available, buyers, ..DrainProbe::default() };
    if buyers > MOST {
        probe.other = buyers;
        probe.detail = format!("{} units are left; the probe buys at most {MOST}, so nothing was tried", row.available);
        return probe;
    }
    let (next, in_vain) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE.min(buyers) {
        let (journey, user, key) = (journey.clone(), user.clone(), key.clone());
        let (next, in_vain) = (next.clone(), in_vain.clone());
        let mut connection = Connection::new(entry);
        let header_lines = entry.header_lines();
        tasks.spawn(async move {
            let mut bought = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= buyers || in_vain.load(Ordering::Relaxed) >= GIVEN_UP_AFTER {
                    return bought;
                }
                let names = (format!("{user}{n}"), format!("{key}{n}"));
                let buyer = Alone::new(&journey, &mut connection, header_lines.as_bytes(), names);
                let came_to = FreshBuyer(buyer).buy().await;
                match came_to {
                    Bought::Other(_) => in_vain.fetch_add(1, Ordering::Relaxed),
                    Bought::Sold | Bought::SoldOut => in_vain.swap(0, Ordering::Relaxed),
                };
                bought.push(came_to);
            }
        });
    }
    let mut examples = Vec::new();
    for bought in tasks.join_all().await.into_iter().flatten() {
        match bought {
            Bought::Sold => probe.sold += 1,
            Bought::SoldOut => probe.sold_out += 1,
            Bought::Other(why) => {
                probe.other += 1;
                examples.push(why);
            }
        }
    }
    examples.sort();
    examples.dedup();
    examples.truncate(5);
    // Those that were not sent would have been told the same.
    let unsent = buyers - probe.sold - probe.sold_out - probe.other;
    probe.other += unsent;
    probe.detail = examples.join("; ");
    // Whoever comes after the end of the sale is told so, and that is all there is to say of it.
    if unsent > 0 && !probe.detail.ends_with(": ended") {
        probe.detail = format!("{}; given up after {GIVEN_UP_AFTER} in a row", probe.detail);
    }
    probe
}

/// Why an attempt came to nothing, and whether another one can help.
type Failed = (String, bool);

/// A buyer who wants one unit of what is left.
struct FreshBuyer<'a>(Alone<'a>);

impl FreshBuyer<'_> {
    /// Walks the journey up to and including its order, and pays if the journey has a way to: the hold of a probe that
    /// takes long would otherwise expire, and be sold to another of its buyers.
    async fn buy(mut self) -> Bought {
        let (mut ordered, mut pending, mut placed) = (false, false, false);
        for step in self.0.journey.steps.iter().filter(|s| !s.only_unsettled) {
            if step.role == Role::Ticket && !pending {
                continue;
            }
            let told = match step.role {
                Role::Ticket => self.ask(step).await,
                _ => self.insist(step).await,
            };
            match (step.role, told) {
                (Role::Order | Role::Ticket, Err((reason, _))) if reason == "sold-out" => return Bought::SoldOut,
                (Role::Order | Role::Ticket, Ok(state)) => {
                    pending = state == OrderState::Pending;
                    ordered = !pending;
                    placed = state == OrderState::Placed;
                }
                // Where stock is taken at payment, only paying shows whether something is left.
                (Role::Pay, Err((reason, _))) if placed && reason == "sold-out" => return Bought::SoldOut,
                // A hold whose payment did not go through may expire, and be sold to another buyer of the probe.
                (Role::Pay, Err((reason, _))) if ordered => {
                    return Bought::Other(format!("ordered, but {}: {reason}", step.name));
                }
                (Role::Pay, Ok(_)) if ordered => return Bought::Sold,
                (_, Err((reason, _))) => return Bought::Other(format!("{}: {reason}", step.name)),
                (_, Ok(_)) => {}
            }
        }
        match (ordered, pending) {
            (true, _) if placed => Bought::Other("placed, and the journey has no step that pays".into()),
            (true, _) => Bought::Sold,
            (_, true) => Bought::Other("accepted, and no step of the journey asks about the ticket".into()),
            _ => Bought::Other("the journey has no order".into()),
        }
    }

    /// Makes a step, a few times if it has to be.
    async fn insist(&mut self, step: &CompiledStep) -> Result<OrderState, Failed> {
        let mut told = self.once(step).await;
        for attempt in 1..6 {
            if !matches!(told, Err((_, true))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
            told = self.once(step).await;
        }
        told
    }

    /// Asks about a ticket until it is decided, or its time is over.
    async fn ask(&mut self, step: &CompiledStep) -> Result<OrderState, Failed> {
        let end = tokio::time::Instant::now() + step.polling.at_least.0;
        loop {
            match self.once(step).await {
                Ok(OrderState::Pending) if tokio::time::Instant::now() >= end => {
                    return Err(("the ticket is not decided in time".into(), false));
                }
                Err((_, true)) if tokio::time::Instant::now() < end => {}
                Ok(OrderState::Pending) => {}
                told => return told,
            }
            tokio::time::sleep(step.polling.every.0).await;
        }
    }

    /// One attempt at one step: the state of the order, as far as it is said.
    async fn once(&mut self, step: &CompiledStep) -> Result<OrderState, Failed> {
        if let Some(missing) = self.0.missing(step).next() {
            return Err((format!("missing-{missing}"), false));
        }
        let request = self.0.request(step, 1);
        let (said, replied) = self.0.send(step, &request, LIMIT, |_| ()).await;
        match replied {
            None => Err((said.classified.reason, true)),
            Some(_) if said.classified.outcome == Outcome::Ok => Ok(said.state),
            Some((status, ())) => {
                let again = classify::worth_retrying(&said, status);
                Err((said.classified.reason, again))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A shop that answers every request with this, and counts them.
    async fn shop(answer: &'static [u8]) -> (std::net::SocketAddr, Arc<AtomicI64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicI64::new(0)));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    // The buyers here wait for each answer, so that what is read is one request.
                    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                        count.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_shop_that_takes_no_orders_is_not_asked_thousands_of_times() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("short.toml");
        std::fs::write(&file, include_str!("../tests/e2e/support/short.toml")).unwrap();
        let scenario = crate::scenario::load(&file, &[], None).unwrap().scenario;
        let (address, asked) = shop(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let row = StockRow { item: 1, available: 5_000, ..StockRow::default() };
        let probes = probe(&scenario, &[row], &Entry::plain(address), "u", "k").await;
        let [probe] = &probes[..] else { panic!("{probes:?}") };
        assert_eq!((probe.buyers, probe.sold, probe.sold_out, probe.other), (5_001, 0, 0, 5_001));
        assert!(probe.detail.ends_with("given up after 64 in a row"), "{}", probe.detail);
        let asked = asked.load(Ordering::Relaxed);
        assert!((64..64 + AT_ONCE).contains(&asked), "asked {asked} times");
    }
}
