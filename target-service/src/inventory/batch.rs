//! Leader and follower (W3): everybody who waits for the same item is served by one transaction.
//!
//! While a batch is at the database the next one gathers, so the batch is as large as the load makes it and nobody waits for
//! a window to close. The item's row is locked once for a batch and its log flushed once, which is what a flash sale spends
//! its time on. A buyer who is alone is served by the one-trip statement. The pattern is that of group commit (DeWitt et
//! al., *Implementation Techniques for Main Memory Database Systems*, 1984), and of AliSQL's queue for hot rows.
//!
//! **Lock first, then read.** Under READ COMMITTED a statement sees what was committed when it began. One that locks the
//! row and reads who has an order already would see the state from before its wait for the lock. So the lock is a
//! statement of its own, and what is read after it is final: nobody else writes orders of this item meanwhile.
//!
//! **Sold out from memory.** After a batch its leader knows how many units are left. Until a unit comes back, whoever wants
//! more than that is refused without a statement, for a moment. Only a buyer whose key may have an order is let through, so a
//! retry still finds its order. This holds while one process of the service writes the item's orders; beside another strategy or a
//! second process it would refuse keys that it does not know.

mod memory;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio_postgres::Row;

use self::memory::{Left, Memory};
use super::{Answer, ConditionalUpdate, Inventory};
use crate::order::{Claim, Order, OrderState, Refusal, Reservation, Settlement, Wanted};
use crate::store::orders::{self, order_columns};
use crate::store::{Lease, Store, StoreError};

/// Orders in one transaction. More make it longer without making it cheaper.
const MOST: usize = 500;

const LOCK: &str = "SELECT available, price_cents, per_user_limit, opens_at_us, closes_at_us, hold_ms
                      FROM item WHERE id = $1::bigint FOR NO KEY UPDATE";

/// What each buyer has of the item, and the number of the order that his key names: one row for each, in their order.
///
/// Both are looked up buyer by buyer through an index. Written as plain joins, the plan, which is made while the tables are
/// empty and kept, compares every buyer of the batch with every buyer that the item ever had. Without the constraint on
/// keys, which a seeded bug takes away, a key may name several orders: the first one counts.
const LOOK: &str = "
    SELECT coalesce((SELECT p.quantity FROM purchase p
                      WHERE p.item_id = $1::bigint AND p.user_id = asked.user_id), 0) AS taken,
           (SELECT o.id FROM orders o
             WHERE o.user_id = asked.user_id AND o.idempotency_key = asked.key
             ORDER BY o.id LIMIT 1) AS id
      FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS asked(user_id, key, n)
     ORDER BY asked.n";

/// The orders that some keys were found to name already.
const REPLAYED: &str = concat!("SELECT ", order_columns!("o"), " FROM orders o WHERE o.id = ANY($1::bigint[])");

/// Orders are numbered in the order in which their buyers came. Everything else about them is known already.
const WRITE: &str = "
     WITH deducted AS (
        UPDATE item SET available = available - $2::bigint WHERE id = $1::bigint
     ), quota AS (
        INSERT INTO purchase AS p (item_id, user_id, quantity, max_quantity)
        SELECT $1, asked.user_id, sum(asked.quantity)::int, $3::int
          FROM unnest($4::text[], $6::int[]) AS asked(user_id, quantity)
         GROUP BY asked.user_id ORDER BY asked.user_id
        ON CONFLICT (item_id, user_id) DO UPDATE SET quantity = p.quantity + excluded.quantity
     )
     INSERT INTO orders AS o (item_id, user_id, idempotency_key, quantity, amount_cents, state,
                              created_at_us, expires_at_us)
     SELECT $1, asked.user_id, asked.key, asked.quantity, $8::bigint * asked.quantity, 'held',
            asked.now, asked.now + $9::bigint * 1000
       FROM unnest($4, $5::text[], $6, $7::bigint[]) WITH ORDINALITY AS asked(user_id, key, quantity, now, n)
      ORDER BY asked.n
     RETURNING o.id";

/// The strategy.
pub struct Batch {
    sound: ConditionalUpdate,
    lanes: Mutex<HashMap<i64, Arc<Lane>>>,
    /// Buyers of one item that may wait at once; further ones are told to come back later.
    most_waiting: usize,
    memory: Arc<Memory>,
    figures: Figures,
}

/// What is shown of it.
#[derive(Clone)]
struct Figures {
    waiting: Gauge,
    turned_away: Counter,
    from_memory: Counter,
    size: Histogram,
}

impl Default for Figures {
    fn default() -> Self {
        let size = Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        Self { waiting: Gauge::default(), turned_away: Counter::default(), from_memory: Counter::default(), size }
    }
}

/// Everything about one item.
struct Lane {
    item: i64,
    queue: Mutex<Queue>,
    left: Mutex<Option<Left>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether somebody works the queue off.
    led: bool,
}

struct Waiting {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Reservation, StoreError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Batch {
    /// The strategy on this database, with so many buyers of an item waiting at most.
    pub fn new(store: Store, most_waiting: usize) -> Self {
        Self {
            memory: Memory::new(store.clone()),
            sound: ConditionalUpdate::new(store),
            lanes: Mutex::default(),
            most_waiting,
            figures: Figures::default(),
        }
    }

    fn lane(&self, item: i64) -> Arc<Lane> {
        let fresh = || Arc::new(Lane { item, queue: Mutex::default(), left: Mutex::default() });
        Arc::clone(lock(&self.lanes).entry(item).or_insert_with(fresh))
    }

    async fn wait_for_a_batch(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let lane = self.lane(wanted.item);
        let left = *lock(&lane.left);
        if left.is_some_and(|left| self.memory.is_sold_out(left, wanted)) {
            self.figures.from_memory.inc();
            return Ok(Reservation::Refused(Refusal::SoldOut));
        }
        let (reply, answer) = oneshot::channel();
        let lead = {
            let mut queue = lock(&lane.queue);
            if queue.waiting.len() >= self.most_waiting {
                self.figures.turned_away.inc();
                return Err(StoreError::Full("the queue for this item"));
            }
            self.figures.waiting.inc();
            queue.waiting.push_back(Waiting { wanted: wanted.clone(), reply });
            !std::mem::replace(&mut queue.led, true)
        };
        if lead {
            // A task of its own: the buyer who happened to come first may hang up, and those behind him must not notice.
            let (memory, figures) = (Arc::clone(&self.memory), self.figures.clone());
            tokio::spawn(Leader { lane, memory, figures, leads: true }.work());
        }
        let outcome = answer.await.unwrap_or_else(|_| {
            self.memory.may_have_ordered(wanted);
            Err(StoreError::Lost("the batch was given up".into()))
        });
        if matches!(outcome, Ok(Reservation::Refused(Refusal::UnknownItem))) {
            // Nobody may fill the memory with items that do not exist.
            lock(&self.lanes).remove(&wanted.item);
        }
        outcome
    }

    /// Units may have come back, and if nobody knows what became of the statement, they may yet.
    fn units_came_back<T>(&self, outcome: &Result<T, StoreError>) {
        if outcome.as_ref().is_err_and(StoreError::is_uncertain) {
            self.memory.units_may_come_back();
        }
        self.memory.units_came_back();
    }
}

impl Inventory for Batch {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.wait_for_a_batch(wanted))
    }

    /// It refuses from memory by itself.
    fn look<'a>(&'a self, _wanted: &'a Wanted) -> Answer<'a, Option<Reservation>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async {
            let outcome = self.sound.release(claim).await;
            // After an error, too: it may have been committed.
            self.units_came_back(&outcome);
            outcome
        })
    }

    fn expire(&self, now: i64, batch: i64) -> Answer<'_, usize> {
        Box::pin(async move {
            let outcome = self.sound.expire(now, batch).await;
            if !matches!(outcome, Ok(0)) {
                self.units_came_back(&outcome);
            }
            outcome
        })
    }

    fn forget(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        lock(&self.lanes).clear();
        self.memory.forget();
        Box::pin(std::future::ready(()))
    }

    fn register(&self, registry: &mut Registry) {
        let Figures { waiting, turned_away, from_memory, size } = self.figures.clone();
        registry.register("seckill_queue_waiting", "Buyers who wait for a batch", waiting);
        registry.register("seckill_queue_turned_away", "Buyers who found an item's queue full", turned_away);
        registry.register("seckill_refused_from_memory", "Buyers told \"sold out\" without a statement", from_memory);
        registry.register("seckill_batch_size", "Buyers served by one transaction", size);
    }
}

/// Works a lane's queue off, batch after batch, until nobody waits.
struct Leader {
    lane: Arc<Lane>,
    memory: Arc<Memory>,
    figures: Figures,
    /// Whether it leads the queue, until nobody waits.
    leads: bool,
}

impl Drop for Leader {
    /// A leader whose task fails must not leave a queue behind that nobody leads. For those in it nothing was sent yet.
    fn drop(&mut self) {
        if !self.leads {
            return;
        }
        let mut queue = lock(&self.lane.queue);
        queue.led = false;
        self.figures.waiting.dec_by(queue.waiting.len() as i64);
        for waiting in queue.waiting.drain(..) {
            let _ = waiting.reply.send(Err(StoreError::Contended("the batch before it was given up".into())));
        }
    }
}

/// The item under its lock.
struct Item {
    available: i64,
    price_cents: i64,
    per_user_limit: i32,
    opens_at: i64,
    closes_at: i64,
    hold_ms: i64,
}

impl Leader {
    async fn work(mut self) {
        loop {
            let batch: Vec<Waiting> = {
                let mut queue = lock(&self.lane.queue);
                let count = queue.waiting.len().min(MOST);
                if count == 0 {
                    (queue.led, self.leads) = (false, false);
                    return;
                }
                queue.waiting.drain(..count).collect()
            };
            self.figures.waiting.dec_by(batch.len() as i64);
            self.figures.size.observe(batch.len() as f64);
            let (wanted, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.wanted, w.reply)).unzip();
            let outcomes = self.serve(&wanted).await;
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever hung up has lost his answer, not his order.
                let _ = reply.send(outcome);
            }
        }
    }

    /// An outcome for each buyer, in their order.
    async fn serve(&self, wanted: &[Wanted]) -> Vec<Result<Reservation, StoreError>> {
        if let [alone] = wanted {
            return vec![self.one(alone).await];
        }
        match self.together(wanted).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            // A key went to an order of another item meanwhile, whose row was not locked: one by one they are told apart.
            Err(StoreError::Violation(_)) => {
                let mut outcomes = Vec::with_capacity(wanted.len());
                for one in wanted {
                    outcomes.push(self.one(one).await);
                }
                outcomes
            }
            Err(error) => {
                wanted.iter().for_each(|wanted| self.memory.may_have_ordered(wanted));
                wanted.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    /// The one-trip statement.
    async fn one(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let returns = self.memory.returns();
        let outcome = ConditionalUpdate::new(self.memory.store().clone()).reserve(wanted).await;
        match &outcome {
            Ok(Reservation::Refused(Refusal::SoldOut)) if wanted.quantity == 1 => self.remember(0, returns),
            Ok(Reservation::Refused(_)) => {}
            _ => self.memory.may_have_ordered(wanted),
        }
        outcome
    }

    /// One transaction for all of them.
    async fn together(&self, wanted: &[Wanted]) -> Result<Vec<Reservation>, StoreError> {
        let returns = self.memory.returns();
        let users: Vec<&str> = wanted.iter().map(|w| w.user.as_str()).collect();
        let keys: Vec<&str> = wanted.iter().map(|w| w.key.as_str()).collect();
        let mut lease = self.memory.store().lease().await?;
        let (item, seen) =
            lease.begin_with((LOCK, &[&self.lane.item]), (LOOK, &[&self.lane.item, &users, &keys])).await?;
        let Some(item) = item.first().map(item_from) else {
            lease.rollback().await?;
            return Ok(vec![Reservation::Refused(Refusal::UnknownItem); wanted.len()]);
        };
        let replays = self.replays(&mut lease, &seen).await?;
        let plan = decide(&item, wanted, &seen, &replays)?;
        let left = item.available - plan.units;
        let made = self.write(&mut lease, &item, wanted, &plan).await?;
        drop(lease);
        plan.accepted.iter().for_each(|n| self.memory.may_have_ordered(&wanted[*n]));
        if left == 0 {
            self.remember(left, returns);
        }
        Ok(plan.outcomes(wanted, &made))
    }

    /// The orders that keys of this batch name already, by their numbers. Mostly there are none.
    async fn replays(&self, lease: &mut Lease, seen: &[Row]) -> Result<HashMap<i64, Order>, StoreError> {
        let ids: Vec<i64> = seen.iter().filter_map(|row| row.get(ID)).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = lease.query(REPLAYED, &[&ids]).await?;
        rows.iter().map(|row| orders::order_from(row).map(|order| (order.id, order))).collect()
    }

    /// Inserts what was accepted and commits; the orders in the order of `plan.accepted`.
    async fn write(
        &self,
        lease: &mut Lease,
        item: &Item,
        wanted: &[Wanted],
        plan: &Plan,
    ) -> Result<Vec<Order>, StoreError> {
        if plan.accepted.is_empty() {
            lease.rollback().await?;
            return Ok(Vec::new());
        }
        let accepted = || plan.accepted.iter().map(|n| &wanted[*n]);
        let users: Vec<&str> = accepted().map(|w| w.user.as_str()).collect();
        let keys: Vec<&str> = accepted().map(|w| w.key.as_str()).collect();
        let quantities: Vec<i32> = accepted().map(|w| w.quantity).collect();
        let times: Vec<i64> = accepted().map(|w| w.now).collect();
        let limit = item.per_user_limit;
        let rows = lease
            .query_and_commit(
                WRITE,
                &[
                    &self.lane.item,
                    &plan.units,
                    &limit,
                    &users,
                    &keys,
                    &quantities,
                    &times,
                    &item.price_cents,
                    &item.hold_ms,
                ],
            )
            .await;
        match rows {
            Ok(rows) if rows.len() == plan.accepted.len() => {
                Ok(accepted().zip(&rows).map(|(wanted, row)| item.order(self.lane.item, wanted, row.get(0))).collect())
            }
            Ok(_) => Err(StoreError::Corrupt("another number of orders than was decided")),
            Err(error) => {
                if !error.is_uncertain() {
                    lease.rollback().await?;
                }
                Err(error)
            }
        }
    }

    /// Remembers how many units are left, as long as none come back.
    fn remember(&self, left: i64, returns: u64) {
        let seen = self.memory.seen(left, returns);
        *lock(&self.lane.left) = seen;
    }
}

fn item_from(row: &Row) -> Item {
    Item {
        available: row.get("available"),
        price_cents: row.get("price_cents"),
        per_user_limit: row.get("per_user_limit"),
        opens_at: row.get("opens_at_us"),
        closes_at: row.get("closes_at_us"),
        hold_ms: row.get("hold_ms"),
    }
}

/// Columns of [`LOOK`].
const TAKEN: usize = 0;
const ID: usize = 1;

impl Item {
    /// The order that was just written for a buyer: the same that the statement wrote.
    fn order(&self, item: i64, wanted: &Wanted, id: i64) -> Order {
        Order {
            id,
            item,
            user: wanted.user.clone(),
            quantity: wanted.quantity,
            amount_cents: self.price_cents * i64::from(wanted.quantity),
            state: OrderState::Held,
            created_at: wanted.now,
            expires_at: wanted.now + self.hold_ms * 1000,
            idempotency_key: wanted.key.clone(),
        }
    }
}

/// What was decided about each buyer, before anything is written.
struct Plan {
    decisions: Vec<Decision>,
    /// Positions of those who get an order, in their order.
    accepted: Vec<usize>,
    /// Units that they get.
    units: i64,
}

enum Decision {
    /// The order at this place of `accepted`.
    Accepted(usize),
    /// The same request came twice; it has the order at this place of `accepted`.
    Twin(usize),
    Answered(Reservation),
}

/// First come, first served, with what was seen under the lock.
fn decide(item: &Item, wanted: &[Wanted], seen: &[Row], replays: &HashMap<i64, Order>) -> Result<Plan, StoreError> {
    if seen.len() != wanted.len() {
        return Err(StoreError::Corrupt("another number of answers than of buyers"));
    }
    let mut plan = Plan { decisions: Vec::with_capacity(wanted.len()), accepted: Vec::new(), units: 0 };
    let mut taken: HashMap<&str, i32> = HashMap::new();
    let mut keys: HashMap<(&str, &str), usize> = HashMap::new();
    for (n, (wanted, row)) in wanted.iter().zip(seen).enumerate() {
        let taken = taken.entry(wanted.user.as_str()).or_insert_with(|| row.get(TAKEN));
        let decision = if let Some(id) = row.get::<_, Option<i64>>(ID) {
            // Twins of one batch name the same order.
            let order = replays.get(&id).ok_or(StoreError::Corrupt("an order vanished under the lock"))?;
            Decision::Answered(orders::replay(order.clone(), wanted))
        } else if let Some(place) = keys.get(&(wanted.user.as_str(), wanted.key.as_str())) {
            Decision::Twin(*place)
        } else if let Some(refusal) = refusal(item, wanted, *taken, item.available - plan.units) {
            Decision::Answered(Reservation::Refused(refusal))
        } else {
            *taken += wanted.quantity;
            plan.units += i64::from(wanted.quantity);
            plan.accepted.push(n);
            keys.insert((wanted.user.as_str(), wanted.key.as_str()), plan.accepted.len() - 1);
            Decision::Accepted(plan.accepted.len() - 1)
        };
        plan.decisions.push(decision);
    }
    Ok(plan)
}

fn refusal(item: &Item, wanted: &Wanted, taken: i32, left: i64) -> Option<Refusal> {
    if wanted.now < item.opens_at {
        Some(Refusal::TooEarly)
    } else if wanted.now >= item.closes_at {
        Some(Refusal::Ended)
    } else if taken.saturating_add(wanted.quantity) > item.per_user_limit {
        Some(Refusal::LimitReached)
    } else if left < i64::from(wanted.quantity) {
        Some(Refusal::SoldOut)
    } else {
        None
    }
}

impl Plan {
    /// The decisions with the orders that were made.
    fn outcomes(self, wanted: &[Wanted], made: &[Order]) -> Vec<Reservation> {
        let outcome = |(decision, wanted): (Decision, &Wanted)| match decision {
            Decision::Accepted(place) => Reservation::Held(made[place].clone()),
            Decision::Twin(place) => orders::replay(made[place].clone(), wanted),
            Decision::Answered(reservation) => reservation,
        };
        self.decisions.into_iter().zip(wanted).map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Limits;

    fn wanted() -> Wanted {
        Wanted { item: 1, user: "u".into(), key: "k".into(), quantity: 1, now: 0 }
    }

    #[tokio::test]
    async fn a_leader_that_fails_leaves_no_queue_behind() {
        let second = Duration::from_secs(1);
        let limits =
            Limits { pool_size: 1, pool_wait: second, connect: second, query: second, statement: second, lock: second };
        let batch = Batch::new(Store::new("host=/nowhere user=nobody", limits, "").unwrap(), 10);
        let (lane, memory, figures) = (batch.lane(1), Arc::clone(&batch.memory), batch.figures.clone());
        let (reply, answer) = oneshot::channel();
        lock(&lane.queue).led = true;
        lock(&lane.queue).waiting.push_back(Waiting { wanted: wanted(), reply });
        figures.waiting.inc();
        let leader = Leader { lane: Arc::clone(&lane), memory, figures, leads: true };
        let failed = tokio::spawn(async move {
            let _leader = leader;
            panic!("as a defect would");
        });
        assert!(failed.await.is_err());
        let told = tokio::time::timeout(5 * second, answer).await;
        assert!(matches!(told, Ok(Ok(Err(StoreError::Contended(_))))));
        assert!(!lock(&lane.queue).led);
        assert_eq!(batch.figures.waiting.get(), 0);
        // The next one leads again, and is told what is wrong with the database.
        assert!(matches!(batch.reserve(&wanted()).await, Err(StoreError::Unreachable(_))));
    }
}
