//! A queue for each item in front of the database (W2): few statements contend for the hot row, and other items keep
//! their share of the connections.
//!
//! A backend that waits for a row lock costs processor time each time the lock changes hands, so a hundred of them are
//! slower than a few. The queue is bounded: who finds it full is told to come back later, and nothing was sent for him.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answer, ConditionalUpdate, Inventory};
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::{Store, StoreError};

/// Statements of one item that are in the database at once: one that holds the lock, one that waits for it.
const AT_ONCE: usize = 2;

/// The strategy.
pub struct ItemQueue {
    sound: ConditionalUpdate,
    /// Buyers of one item that may wait here at once.
    most_waiting: usize,
    queues: Mutex<HashMap<i64, Arc<Queue>>>,
    waiting: Gauge,
    turned_away: Counter,
}

struct Queue {
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    queue: &'a AtomicUsize,
    all: &'a Gauge,
}

impl<'a> Place<'a> {
    /// The last place of so many; nothing if there is none left.
    fn take(queue: &'a AtomicUsize, all: &'a Gauge, most: usize) -> Option<Self> {
        all.inc();
        let before = queue.fetch_add(1, Ordering::Relaxed);
        Some(Place { queue, all }).filter(|_| before < most)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.dec();
        self.queue.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ItemQueue {
    /// The strategy on this database, with so many buyers of an item waiting at most.
    pub fn new(store: Store, most_waiting: usize) -> Self {
        let (sound, queues) = (ConditionalUpdate::new(store), Mutex::default());
        Self { sound, most_waiting, queues, waiting: Gauge::default(), turned_away: Counter::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, item: i64) -> Arc<Queue> {
        let fresh = || Arc::new(Queue { turns: Semaphore::new(AT_ONCE), waiting: AtomicUsize::new(0) });
        Arc::clone(self.lock().entry(item).or_insert_with(fresh))
    }

    async fn in_turn(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let queue = self.queue(wanted.item);
        let Some(place) = Place::take(&queue.waiting, &self.waiting, self.most_waiting) else {
            self.turned_away.inc();
            return Err(StoreError::Full("the queue for this item"));
        };
        let patience = self.store().limits().pool_wait;
        let turn = timeout(patience, queue.turns.acquire()).await.map_err(|_| StoreError::PoolExhausted)?;
        drop(place);
        let outcome = self.sound.reserve(wanted).await;
        drop(turn);
        if matches!(outcome, Ok(Reservation::Refused(Refusal::UnknownItem))) {
            // Nobody may fill the memory with items that do not exist.
            self.lock().remove(&wanted.item);
        }
        outcome
    }
}

impl Inventory for ItemQueue {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(self.in_turn(wanted))
    }

    fn forget(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.lock().clear();
        Box::pin(std::future::ready(()))
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("seckill_queue_waiting", "Buyers who wait for their turn at an item", self.waiting.clone());
        let what = "Buyers who found an item's queue full";
        registry.register("seckill_queue_turned_away", what, self.turned_away.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_the_queue_full_is_turned_away_and_a_place_is_given_up() {
        let (queue, all) = (AtomicUsize::new(2), Gauge::default());
        let last = Place::take(&queue, &all, 3);
        assert!(last.is_some());
        assert!(Place::take(&queue, &all, 3).is_none());
        drop(last);
        assert!(Place::take(&queue, &all, 3).is_some());
        assert_eq!((queue.load(Ordering::Relaxed), all.get()), (2, 0));
    }
}
