//! A queue for each item in front of the database (W2): few statements contend for the hot row, and other items keep
//! their share of the connections.
//!
//! A backend that waits for a row lock costs processor time each time the lock changes hands, so a hundred of them are
//! slower than a few. The queue is bounded: who finds it full is told to come back later, and nothing was sent for him.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answer, ConditionalUpdate, Inventory};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

/// Statements of one item that are in the database at once: one that holds the lock, one that waits for it.
const AT_ONCE: usize = 2;
/// Buyers of one item that wait here.
const WAITING: usize = 4096;

/// The strategy.
pub struct ItemQueue {
    sound: ConditionalUpdate,
    queues: Mutex<HashMap<i64, Arc<Queue>>>,
}

struct Queue {
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ItemQueue {
    /// The strategy on this database.
    pub fn new(store: Store) -> Self {
        Self { sound: ConditionalUpdate::new(store), queues: Mutex::default() }
    }

    fn queue(&self, item: i64) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Queue { turns: Semaphore::new(AT_ONCE), waiting: AtomicUsize::new(0) });
        Arc::clone(queues.entry(item).or_insert_with(fresh))
    }

    async fn in_turn(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let queue = self.queue(wanted.item);
        let before = queue.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&queue.waiting);
        if before >= WAITING {
            return Err(StoreError::PoolExhausted);
        }
        let patience = self.store().limits().pool_wait;
        let turn = timeout(patience, queue.turns.acquire()).await.map_err(|_| StoreError::PoolExhausted)?;
        drop(place);
        let outcome = self.sound.reserve(wanted).await;
        drop(turn);
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
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Box::pin(std::future::ready(()))
    }
}
