//! Bug 10. Once an item was sold out it is refused from memory, which is fast, and stays so when holds
//! expire, which is wrong.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::inventory::{Answer, Inventory};
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::{Store, StoreError, orders};

pub(super) struct SoldOutFlagSticks {
    sound: Arc<dyn Inventory>,
    sold_out: Mutex<HashSet<i64>>,
}

impl SoldOutFlagSticks {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound, sold_out: Mutex::default() }
    }

    fn flags(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.sold_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let flagged = self.flags().contains(&wanted.item);
        if flagged {
            let known = self.sound.find(&wanted.user, &wanted.key).await?;
            return Ok(known.map_or(Reservation::Refused(Refusal::SoldOut), |order| orders::replay(order, wanted)));
        }
        let reservation = self.sound.reserve(wanted).await?;
        if reservation == Reservation::Refused(Refusal::SoldOut) {
            self.flags().insert(wanted.item);
        }
        Ok(reservation)
    }
}

impl Inventory for SoldOutFlagSticks {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }

    fn forget(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.flags().clear();
        self.sound.forget()
    }
}
