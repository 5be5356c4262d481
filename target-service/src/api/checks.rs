//! What the service looks at before an order goes to the data layer (V3), rule by rule: who asks, whether the sale is open, and
//! whether anything was left a moment ago.
//!
//! None of it is needed for the sale to be right: the data layer has the last word (V4), and what is known up here may be out of
//! date. So an item that was seen sold out is looked at once more, without a lock, before anybody is told so.

use super::items::Shelves;
use crate::app::App;
use crate::order::{Refusal, Reservation, Wanted};
use crate::store::StoreError;
use crate::store::orders::replay;
use crate::switches::SwitchId;

/// The answer to an order that need not go any further, if these rules have one.
pub(super) async fn answer(app: &App, wanted: &Wanted) -> Result<Option<Reservation>, StoreError> {
    if let Some(refusal) = app.abuse.objection(&app.switches, wanted) {
        return refused(app, wanted, refusal, "eligibility").await.map(Some);
    }
    if !app.switches.is_on(SwitchId::V3) {
        return Ok(None);
    }
    let Some(shelf) = Shelves::recent(app, wanted.item).await else { return Ok(None) };
    if let Some(refusal) = shelf.closed(wanted.now) {
        return refused(app, wanted, refusal, "sale-open").await.map(Some);
    }
    if shelf.has(wanted.quantity) {
        return Ok(None);
    }
    let seen = app.inventory.look(wanted).await?;
    if let Some(Reservation::Refused(_)) = seen {
        app.metrics.dropped("service", "coarse-stock");
    }
    Ok(seen)
}

/// Whoever is refused now may be asking again for what was made before.
async fn refused(app: &App, wanted: &Wanted, why: Refusal, rule: &'static str) -> Result<Reservation, StoreError> {
    if let Some(order) = app.inventory.find(&wanted.user, &wanted.key).await? {
        return Ok(replay(order, wanted));
    }
    app.metrics.dropped("service", rule);
    Ok(Reservation::Refused(why))
}
