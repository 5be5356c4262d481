//! What is known without asking: which items are sold out, and which keys may have an order.
//!
//! **How long "sold out" is believed.** Until units come back, and for [`TRUST`] at most: then one batch asks again, whatever it
//! was that nobody told of. A release that was given up on may take effect later, so nothing is believed until it cannot any more.
//!
//! **Keys** are those of all items in one set, for a key that names an order of another item must not hear "sold out" either.
//! Those of earlier processes are read once, a page after another, in a task of its own; until then nobody is refused.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::lock;
use crate::order::Wanted;
use crate::store::{Store, StoreError};

/// How long it is believed that an item is sold out without asking again.
const TRUST: Duration = Duration::from_secs(1);
/// Keys that are remembered, at 8 bytes each. Beyond that nobody is refused from memory.
const KEYS_AT_MOST: usize = 4_000_000;
/// Keys that are read at once.
const PAGE: i64 = 10_000;
/// First and longest pause before a page is read that could not be read.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// By the primary key: whatever happens meanwhile, no page reads what another one has read.
const KEYS: &str = "SELECT id, user_id, idempotency_key FROM orders WHERE id > $1::bigint ORDER BY id LIMIT $2::bigint";

/// What is known of all items.
pub(super) struct Memory {
    store: Store,
    /// From when on no statement of an earlier process can still be under way.
    trusted_from: Instant,
    /// Raised whenever units may have come back, of whatever item.
    returns: AtomicU64,
    /// Releases that were given up on and may yet take effect.
    doubts: AtomicUsize,
    keys: Mutex<Keys>,
}

/// Units that were left of an item.
#[derive(Clone, Copy)]
pub(super) struct Left {
    units: i64,
    /// How often units had come back before that was seen.
    returns: u64,
    seen: Instant,
}

/// Hashes of keys that may have an order.
#[derive(Default)]
struct Keys {
    hashes: HashSet<u64>,
    hasher: std::hash::RandomState,
    known: Known,
    /// Raised when another sale begins.
    sale: u64,
}

/// Which keys the set has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Those of this process.
    #[default]
    Own,
    /// The others are being read.
    Reading,
    All,
    /// There are too many to be remembered.
    TooMany,
}

impl Keys {
    fn add(&mut self, user: &str, key: &str) {
        if self.known == Known::TooMany {
            return;
        }
        self.hashes.insert(self.hasher.hash_one((user, key)));
        if self.hashes.len() > KEYS_AT_MOST {
            (self.hashes, self.known) = (HashSet::new(), Known::TooMany);
        }
    }

    /// Whether the key certainly has no order.
    fn is_new(&self, wanted: &Wanted) -> bool {
        self.known == Known::All && !self.hashes.contains(&self.hasher.hash_one((&*wanted.user, &*wanted.key)))
    }
}

impl Memory {
    pub(super) fn new(store: Store) -> Arc<Self> {
        let trusted_from = Instant::now() + store.limits().statement * 2;
        Arc::new(Self {
            store,
            trusted_from,
            returns: AtomicU64::new(0),
            doubts: AtomicUsize::new(0),
            keys: Mutex::default(),
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// How often units have come back, to be read before what is left is looked at.
    pub(super) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Units may have come back: nothing that is remembered of what is left holds any more.
    pub(super) fn units_came_back(&self) {
        self.returns.fetch_add(1, Ordering::AcqRel);
    }

    /// Units may come back at some moment from now on that nobody will tell of: nothing is believed until it is over.
    pub(super) fn units_may_come_back(self: &Arc<Self>) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        let memory = Arc::clone(self);
        tokio::spawn(async move {
            memory.store.outlive_statements().await;
            memory.units_came_back();
            memory.doubts.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// Remembers that the key may have an order.
    pub(super) fn may_have_ordered(&self, wanted: &Wanted) {
        lock(&self.keys).add(&wanted.user, &wanted.key);
    }

    /// What is to be remembered of an item of which so many units were left after units had come back so often. To believe it, one
    /// has to know the keys, too.
    pub(super) fn seen(self: &Arc<Self>, units: i64, returns: u64) -> Option<Left> {
        if Instant::now() < self.trusted_from {
            return None;
        }
        let mut keys = lock(&self.keys);
        if keys.known == Known::Own {
            keys.known = Known::Reading;
            tokio::spawn(Arc::clone(self).read_keys(keys.sale));
        }
        Some(Left { units, returns, seen: Instant::now() })
    }

    /// Whether the buyer can be refused without asking.
    pub(super) fn is_sold_out(&self, left: Left, wanted: &Wanted) -> bool {
        left.units < i64::from(wanted.quantity)
            && left.seen.elapsed() < TRUST
            && self.doubts.load(Ordering::Acquire) == 0
            && left.returns == self.returns()
            && lock(&self.keys).is_new(wanted)
    }

    /// Another sale begins.
    pub(super) fn forget(&self) {
        let mut keys = lock(&self.keys);
        *keys = Keys { sale: keys.sale + 1, ..Keys::default() };
    }

    /// Adds the keys in the database, for this sale.
    async fn read_keys(self: Arc<Self>, sale: u64) {
        let (mut after, mut pause) = (i64::MIN, PAUSE.0);
        loop {
            let rows = match self.page(after).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::debug!(%error, "keys cannot be read at the moment");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
            };
            let mut keys = lock(&self.keys);
            if keys.sale != sale {
                return;
            }
            rows.iter().for_each(|row| keys.add(row.get(1), row.get(2)));
            match rows.last() {
                _ if keys.known == Known::TooMany => return,
                Some(row) if rows.len() as i64 == PAGE => (after, pause) = (row.get(0), PAUSE.0),
                _ => {
                    keys.known = Known::All;
                    return;
                }
            }
        }
    }

    async fn page(&self, after: i64) -> Result<Vec<Row>, StoreError> {
        self.store.lease().await?.query(KEYS, &[&after, &PAGE]).await
    }
}
