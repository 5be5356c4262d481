//! Bug 16. When the database's reply is lost the order may well be committed, but the buyer is told
//! "sold out", as if it were certain.

use std::sync::Arc;

use crate::inventory::{Answer, Inventory};
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::Store;

pub(super) struct CommittedButToldFailed {
    sound: Arc<dyn Inventory>,
}

impl CommittedButToldFailed {
    pub(super) fn new(sound: Arc<dyn Inventory>) -> Self {
        Self { sound }
    }
}

impl Inventory for CommittedButToldFailed {
    fn store(&self) -> &Store {
        self.sound.store()
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(async move {
            match self.sound.reserve(wanted).await {
                Err(error) if error.is_uncertain() => Ok(Reservation::Refused(Refusal::SoldOut)),
                outcome => outcome,
            }
        })
    }
}
