//! An inventory that is right but for the statement that reserves, which is all that several bugs are.

use crate::inventory::{Answer, Inventory, reserve_by};
use crate::order::{Reservation, Wanted};
use crate::store::{Lease, Store, StoreError, orders};

pub(super) struct ByStatement {
    store: Store,
    statement: &'static str,
}

impl ByStatement {
    pub(super) fn new(store: Store, statement: &'static str) -> Self {
        Self { store, statement }
    }
}

impl Inventory for ByStatement {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(reserve_by(&self.store, self.statement, wanted))
    }
}

/// What the counter says, read without a lock; nothing for an unknown item.
pub(super) async fn read_available(lease: &mut Lease, item: i64) -> Result<Option<i64>, StoreError> {
    let row = lease.query_opt("SELECT available FROM item WHERE id = $1", &[&item]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The reason why nothing was reserved.
pub(super) async fn explain(lease: &mut Lease, wanted: &Wanted) -> Result<Reservation, StoreError> {
    let reason = orders::classify(lease, wanted).await?;
    reason.ok_or_else(|| StoreError::Contended("units kept coming and going".into()))
}

/// Runs a reserving statement with the usual five parameters. Nothing when it found no row or met a
/// constraint.
pub(super) async fn attempt(
    lease: &mut Lease,
    statement: &str,
    wanted: &Wanted,
) -> Result<Option<Reservation>, StoreError> {
    let Wanted { item, user, key, quantity, now } = wanted;
    match lease.query_opt(statement, &[item, user, key, quantity, now]).await {
        Ok(Some(row)) => Ok(Some(Reservation::Held(orders::order_from(&row)?))),
        Ok(None) | Err(StoreError::Violation(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
