//! The one task that carries things between Redis and the database, and sets Redis up from the ledger.
//!
//! A round persists what is in the stream, takes over what the database has released, and sees that there are numbers for
//! orders. There is one task and its rounds do not overlap: when it sets Redis up, nothing is under way to the database.

mod ledger;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionManager;
use redis::streams::StreamRangeReply;
use redis::{AsyncCommands as _, RedisError};
use tokio::sync::{Notify, oneshot};

use self::ledger::Ledger;
use super::figures::{Figures, Why};
use super::scripts::{self, EVERYTHING, IDS, OPEN, PENDING, RETURNS, STREAM, Scripts, is_another_redis, meaning};
use crate::order::Order;
use crate::store::{Store, StoreError};

/// Rest between rounds when nobody asks for one.
const REST: Duration = Duration::from_millis(10);
/// Rest after a round that failed.
const REST_IN_TROUBLE: Duration = Duration::from_millis(50);
/// Orders that are persisted in one transaction.
const BATCH: usize = 500;
/// Numbers for orders: asked for in such a block when fewer than half of it are left.
const BLOCK: i64 = 512;
/// How long whoever waits for a round is kept waiting.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// How often Redis and the database are compared.
const COMPARE: Duration = Duration::from_secs(1);
/// A difference that is the same for so many comparisons is no order under way.
const PERSISTENT: u32 = 3;
/// Commands that are sent together when Redis is set up.
const TOGETHER: usize = 1_000;

/// What the strategy and its keeper tell each other.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The scripts by which is sold; none while Redis is closed.
    scripts: Mutex<Option<Scripts>>,
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    /// Whether earlier sales are to be forgotten.
    start_over: Mutex<bool>,
    poke: Notify,
    figures: Figures,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn scripts(&self) -> Option<Scripts> {
        lock(&self.0.scripts).clone()
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.0.figures
    }

    /// Nobody may sell until the keeper has set Redis up again.
    pub(super) fn close(&self) {
        lock(&self.0.scripts).take();
        self.wake();
    }

    /// There is something to do.
    pub(super) fn wake(&self) {
        self.0.poke.notify_one();
    }

    /// Waits for a round that begins from now on and succeeds.
    pub(super) async fn once_round(&self) -> Result<(), StoreError> {
        let (done, round) = oneshot::channel();
        lock(&self.0.waiting).push(done);
        self.wake();
        match tokio::time::timeout(PATIENCE, round).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Timeout),
        }
    }

    /// Forgets earlier sales, and sets Redis up from what the database has now.
    pub(super) async fn start_over(&self) {
        *lock(&self.0.start_over) = true;
        self.close();
        if let Err(error) = self.once_round().await {
            tracing::warn!(%error, "the stock in Redis is set up later");
        }
    }
}

/// The task.
pub(super) struct Keeper {
    redis: ConnectionManager,
    shared: Shared,
    ledger: Ledger,
    compared: Instant,
    /// The difference that was seen last, item by item, and how often in a row.
    difference: (Vec<(i64, i64)>, u32),
    /// Why Redis has to be set up next.
    why: Why,
}

impl Keeper {
    /// Starts it; it goes on until the process ends.
    pub(super) fn start(store: Store, redis: ConnectionManager) -> Shared {
        let shared = Shared::default();
        let ledger = Ledger::new(store);
        let difference = (Vec::new(), 0);
        let (compared, why) = (Instant::now(), Why::NotKnown);
        let keeper = Keeper { redis, shared: shared.clone(), ledger, compared, difference, why };
        tokio::spawn(keeper.keep());
        shared
    }

    async fn keep(mut self) {
        let mut troubled = false;
        loop {
            let rest = if troubled { REST_IN_TROUBLE } else { REST };
            let _ = tokio::time::timeout(rest, self.shared.0.poke.notified()).await;
            // Only those who wait already: who comes later has to see a round that begins later.
            let waiting = std::mem::take(&mut *lock(&self.shared.0.waiting));
            match self.round().await {
                Ok(()) => {
                    for done in waiting {
                        let _ = done.send(());
                    }
                    troubled = false;
                }
                Err(error) => {
                    // One line per outage, not one per round.
                    if !troubled {
                        tracing::warn!(%error, "nothing is carried between Redis and the database at the moment");
                    }
                    troubled = true;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let held = self.scripts_that_hold().await?;
        let start_over = std::mem::take(&mut *lock(&self.shared.0.start_over));
        let scripts = match held {
            Some(scripts) if !start_over => scripts,
            _ => {
                let outcome = self.set_up(start_over).await;
                if outcome.is_err() {
                    *lock(&self.shared.0.start_over) |= start_over;
                }
                outcome?
            }
        };
        self.persist().await?;
        self.give_back(&scripts).await?;
        self.refill(&scripts).await?;
        self.compare().await
    }

    /// The scripts by which is sold, if Redis still knows them and its data are those that they are for.
    async fn scripts_that_hold(&mut self) -> Result<Option<Scripts>, StoreError> {
        let Some(scripts) = self.shared.scripts() else { return Ok(None) };
        let (open, known): (Option<String>, Vec<bool>) = redis::pipe()
            .get(OPEN)
            .cmd("SCRIPT")
            .arg("EXISTS")
            .arg(&scripts.reserve)
            .query_async(&mut self.redis)
            .await
            .map_err(|error| meaning(&error))?;
        if open.as_deref() == Some(&scripts.generation) && known == [true] {
            return Ok(Some(scripts));
        }
        tracing::warn!("Redis has lost its memory or was started again: closed until it is set up from the ledger");
        self.shared.close();
        Ok(None)
    }

    /// Closes Redis, persists what is in it, and fills it from the ledger. From then on only this process sells.
    async fn set_up(&mut self, forget: bool) -> Result<Scripts, StoreError> {
        self.shared.close();
        let failed = |error: RedisError| meaning(&error);
        self.redis.del::<_, ()>(OPEN).await.map_err(failed)?;
        if !forget {
            // What was acknowledged and is still there: by this process, or by one before it.
            self.persist().await?;
        }
        let sale = self.ledger.read().await?;
        self.wipe().await.map_err(failed)?;
        let mut commands: VecDeque<redis::Cmd> = sale.commands().into();
        while !commands.is_empty() {
            let mut pipe = redis::pipe();
            for command in commands.drain(..TOGETHER.min(commands.len())) {
                pipe.add_command(command).ignore();
            }
            pipe.query_async::<()>(&mut self.redis).await.map_err(failed)?;
        }
        let generation = format!("{}-{}", std::process::id(), unix_us());
        let scripts = Scripts::load(&mut self.redis, generation).await.map_err(failed)?;
        self.redis.set::<_, _, ()>(OPEN, &scripts.generation).await.map_err(failed)?;
        *lock(&self.shared.0.scripts) = Some(scripts.clone());
        let why = std::mem::replace(&mut self.why, Why::NotKnown);
        self.shared.figures().set_up(if forget { Why::Reset } else { why });
        self.difference = (Vec::new(), 0);
        tracing::info!(items = sale.items.len(), orders = sale.orders.len(), "Redis was set up from the ledger");
        Ok(scripts)
    }

    async fn wipe(&mut self) -> Result<(), RedisError> {
        let mut cursor: u64 = 0;
        loop {
            let (next, names): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg(&["MATCH", EVERYTHING, "COUNT", "1000"])
                .query_async(&mut self.redis)
                .await?;
            if !names.is_empty() {
                self.redis.unlink::<_, ()>(names).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Carries everything that is in the stream to the database.
    async fn persist(&mut self) -> Result<(), StoreError> {
        loop {
            let failed = |error: RedisError| meaning(&error);
            let mut look = redis::pipe();
            look.xlen(STREAM).xrange_count(STREAM, "-", "+", BATCH);
            let (behind, batch): (i64, StreamRangeReply) = look.query_async(&mut self.redis).await.map_err(failed)?;
            self.shared.figures().behind(behind);
            if batch.ids.is_empty() {
                return Ok(());
            }
            let mut orders: Vec<Order> = Vec::with_capacity(batch.ids.len());
            for entry in &batch.ids {
                let field = |name: &str| entry.get::<String>(name).ok_or(StoreError::Corrupt("an entry of the stream"));
                orders.push(scripts::order_from(&field("order")?, &field("user")?, &field("key")?)?);
            }
            self.write(&orders).await?;
            let now = unix_us() / 1_000;
            self.shared.figures().persisted(batch.ids.iter().map(|entry| since(&entry.id, now)));
            let entries: Vec<&str> = batch.ids.iter().map(|entry| entry.id.as_str()).collect();
            let numbers: Vec<i64> = orders.iter().map(|order| order.id).collect();
            // In this order: a number is pending at least as long as its entry is there.
            let mut done = redis::pipe();
            done.xdel(STREAM, &entries).ignore().srem(PENDING, numbers).ignore();
            done.query_async::<()>(&mut self.redis).await.map_err(failed)?;
        }
    }

    async fn write(&self, orders: &[Order]) -> Result<(), StoreError> {
        match self.ledger.write(orders).await {
            Err(StoreError::Violation(_)) => {}
            outcome => return outcome,
        }
        // One by one, so that an order that cannot be kept does not take the others with it. There is none unless somebody
        // else has written to the ledger.
        for order in orders {
            match self.ledger.write(std::slice::from_ref(order)).await {
                Err(StoreError::Violation(rule)) => {
                    tracing::error!(
                        order = order.id,
                        rule,
                        "an order that was acknowledged breaks a rule of the ledger"
                    );
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Takes over what the database has released since.
    async fn give_back(&mut self, scripts: &Scripts) -> Result<(), StoreError> {
        for release in self.ledger.releases().await? {
            let (stock, taken) = (scripts::item(release.item), scripts::taken(release.item));
            let mut call = scripts.call(&scripts.give_back, &[OPEN, &stock, &taken, IDS, RETURNS]);
            call.arg(release.seq).arg(&release.user).arg(release.quantity);
            self.run(call).await?;
            self.ledger.took_over(&release);
        }
        self.ledger.all_taken_over();
        Ok(())
    }

    /// Sees that there are numbers for orders.
    async fn refill(&mut self, scripts: &Scripts) -> Result<(), StoreError> {
        let (left, returns): (i64, Option<String>) =
            redis::pipe().llen(IDS).get(RETURNS).query_async(&mut self.redis).await.map_err(|error| meaning(&error))?;
        if left > BLOCK / 2 {
            return Ok(());
        }
        let numbers = self.ledger.numbers(BLOCK).await?;
        let mut call = scripts.call(&scripts.refill, &[OPEN, IDS, RETURNS]);
        call.arg(returns.as_deref().unwrap_or("0")).arg(numbers);
        self.run(call).await
    }

    /// Calls a script; that it finds Redis closed is noticed in the next round.
    async fn run(&mut self, call: redis::Cmd) -> Result<(), StoreError> {
        match call.query_async::<i64>(&mut self.redis).await {
            Ok(1) => Ok(()),
            Ok(_) => Err(StoreError::Contended("Redis is closed, or units came back meanwhile".into())),
            Err(error) => {
                if is_another_redis(&error) {
                    self.shared.close();
                }
                Err(meaning(&error))
            }
        }
    }

    /// Compares the two where they should be alike, and sets Redis up again if they stay apart.
    async fn compare(&mut self) -> Result<(), StoreError> {
        if self.compared.elapsed() < COMPARE {
            return Ok(());
        }
        self.compared = Instant::now();
        let mut apart = Vec::new();
        let kept: HashMap<i64, i64> = self.ledger.available().await?;
        for (item, available) in kept {
            let here: Option<i64> =
                self.redis.hget(scripts::item(item), "available").await.map_err(|error| meaning(&error))?;
            // What is still in the stream makes a difference that does not stay the same.
            if here != Some(available) {
                apart.push((item, here.unwrap_or_default() - available));
            }
        }
        apart.sort_unstable();
        let times = if apart == self.difference.0 && !apart.is_empty() { self.difference.1 + 1 } else { 1 };
        self.difference = (apart, times);
        self.shared.figures().apart(self.difference.0.iter().map(|(_, units)| units.abs()).sum());
        if !self.difference.0.is_empty() && times >= PERSISTENT {
            self.why = Why::Apart;
            tracing::warn!(difference = ?self.difference.0, "Redis and the ledger stay apart: set up anew");
            self.shared.close();
        }
        Ok(())
    }
}

/// How long ago an entry was put into the stream: its name begins with the milliseconds of Redis's clock.
fn since(entry: &str, now_ms: u128) -> Duration {
    let put = entry.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(now_ms);
    Duration::from_millis(now_ms.saturating_sub(put) as u64)
}

fn unix_us() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros())
}
