//! Bug 17. An attempt whose outcome is unknown is repeated by the service under a key that it makes up, so
//! the first attempt's order is not recognised.

use std::sync::Arc;
use std::time::Duration;

use crate::inventory::{Answer, Inventory};
use crate::order::{Reservation, Wanted};
use crate::store::{Store, StoreError};

const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct RetryUnderNewKey {
    sound: Arc<dyn Inventory>,
}

impl RetryUnderNewKey {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let mut outcome = self.sound.reserve(wanted).await;
        let uncertain = outcome.as_ref().is_err_and(StoreError::is_uncertain);
        for attempt in 2..=ATTEMPTS {
            if !uncertain || outcome.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let again = Wanted { key: format!("{}~{attempt}", wanted.key), ..wanted.clone() };
            outcome = self.sound.reserve(&again).await;
        }
        outcome
    }
}

impl Inventory for RetryUnderNewKey {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }
}
