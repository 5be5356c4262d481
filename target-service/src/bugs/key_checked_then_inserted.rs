//! Bugs 18 and 19. Without a unique key in the database, looking it up beforehand is all there is.
//!
//! 18: the twin of a slow attempt looks before the first has committed, and both insert. (Keys in flight are
//! not tracked either, see the handler.) 19: keys in flight are tracked, but an attempt whose outcome is
//! unknown is repeated by the service without looking again.

use std::time::Duration;

use super::by_statement::{attempt, explain};
use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

const RETRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

pub(super) struct KeyCheckedThenInserted {
    store: Store,
    retries: usize,
}

impl KeyCheckedThenInserted {
    /// Bug 18.
    pub(super) fn new(store: Store) -> Self {
        Self { store, retries: 0 }
    }

    /// Bug 19.
    pub(super) fn with_retries(store: Store) -> Self {
        Self { store, retries: RETRIES }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        if let Some(order) = orders::find(&self.store, &wanted.user, &wanted.key).await? {
            return Ok(orders::replay(order, wanted));
        }
        let mut outcome = self.insert(wanted).await;
        let uncertain = outcome.as_ref().is_err_and(StoreError::is_uncertain);
        for _ in 0..self.retries {
            if !uncertain || outcome.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            outcome = self.insert(wanted).await;
        }
        outcome
    }

    async fn insert(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut lease = self.store.lease().await?;
        match attempt(&mut lease, RESERVE, wanted).await? {
            Some(reservation) => Ok(reservation),
            None => explain(&mut lease, wanted).await,
        }
    }
}

impl Inventory for KeyCheckedThenInserted {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
