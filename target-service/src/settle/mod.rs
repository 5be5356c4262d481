//! Paying through a dependency: from the intent to a paid order, or to the money back with its owner.
//!
//! The intent is written down first, then the money is taken, then the order is called paid. Each step can be done again, and
//! whoever is killed between two of them leaves a row that the [`worker`] finishes. An order that was given back meanwhile
//! gets its money back; a capture that nobody heard of is called off under its key, so that it cannot come too late.

pub mod client;
pub mod worker;

use crate::app::App;
use crate::deduct::Deduct;
use crate::order::{Claim, Order, OrderState, Settlement};
use crate::problem::{Kind, Problem};
use crate::store::intents::{self, Intent, IntentState as S};
use crate::store::{StoreError, orders};

use client::{Capture, Payments};

/// Steps of one intent at most; it has fewer, and each either ends or goes on.
const MOST_STEPS: usize = 8;

/// Why an intent is not finished yet.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The payment dependency said nothing that makes sense.
    #[error("the payment dependency: {0}")]
    Payment(String),
}

/// Pays an order for its buyer. Under a key he is told the same however often he asks; without one, to ask again after a
/// payment was declined is to try again.
pub async fn pay(app: &App, payments: &Payments, claim: &Claim, key: Option<&str>) -> Result<Settlement, Problem> {
    if payments.is_cut_off() && is_untouched(app, claim, key).await? {
        return Err(Problem::because(Kind::Degraded, "payments are paused; this one was not begun"));
    }
    let begun = match intents::begin(&app.store, claim, key).await? {
        None if app.inventory.land(claim.order).await? => intents::begin(&app.store, claim, key).await?,
        begun => begun,
    };
    let intent = match begun {
        Some(intent) if intent.state != S::Paid => intent,
        // Paid already, or not to be paid: the order says which.
        _ => return Ok(app.inventory.judge(claim).await?),
    };
    let outcome = finish(app, payments, intent.clone(), claim.now).await;
    let outcome_label = match &outcome {
        Ok(state) => state.as_str(),
        Err(_) => "unclear",
    };
    app.metrics.payment(outcome_label);
    match outcome {
        Ok(S::Declined) => Err(Kind::PaymentDeclined.into()),
        Ok(_) => Ok(app.inventory.judge(claim).await?),
        Err(error) => {
            // The worker need not wait until the request's time is over. If this fails, it will wait.
            let _ = intents::release(&app.store, &intent.key, app.clock.now_us() + worker::AGAIN_US).await;
            Err(match error {
                Unfinished::Store(error) => error.into(),
                Unfinished::Payment(why) => Problem::because(Kind::PaymentUnclear, why),
            })
        }
    }
}

/// Takes an intent to its end, from wherever it stands. Several may do so at once. `now` is the moment at which the hold has
/// to stand for money to be taken.
async fn finish(app: &App, payments: &Payments, mut intent: Intent, now: i64) -> Result<S, Unfinished> {
    for _ in 0..MOST_STEPS {
        let next = match intent.state {
            S::Capturing => match wanted(app, &intent, now).await? {
                true => match payments.capture(&intent).await {
                    Capture::Taken => S::Captured,
                    // A hold ends by itself, and until then its buyer may try another card. What is deducted for good is not.
                    Capture::Declined if app.deduct == Deduct::Order => S::Returning,
                    Capture::Declined => S::Declined,
                    Capture::GivenBack => S::Refunding,
                    Capture::Unclear(why) => return Err(Unfinished::Payment(why)),
                },
                false => S::Refunding,
            },
            S::Captured => match app.inventory.confirm(&intent.claim()).await? {
                Settlement::Settled(_) => S::Paid,
                Settlement::Refused(_) => S::Refunding,
            },
            S::Refunding => {
                payments.refund(&intent).await.map_err(Unfinished::Payment)?;
                S::Refunded
            }
            S::Returning => {
                app.inventory.release(&intent.claim()).await?;
                S::Declined
            }
            done @ (S::Paid | S::Declined | S::Refunded) => return Ok(done),
        };
        intent = intents::advance(&app.store, &intent, next, app.clock.now_us()).await?;
    }
    Err(Unfinished::Payment(format!("the payment {} does not come to an end", intent.key)))
}

/// Whether nobody has begun to pay this order, which could be. Only then is it certain that no money moves if nothing is begun.
async fn is_untouched(app: &App, claim: &Claim, key: Option<&str>) -> Result<bool, StoreError> {
    if intents::of_order(&app.store, claim, key).await?.is_some() {
        return Ok(false);
    }
    let mut lease = app.store.lease().await?;
    let order = orders::find_by_id(&mut lease, claim.order).await?;
    Ok(order.is_some_and(|order| order.user == claim.user && is_payable(&order, claim.now)))
}

fn is_payable(order: &Order, now: i64) -> bool {
    matches!(order.state, OrderState::Held | OrderState::Placed) && order.expires_at > now
}

/// Whether the order can still be paid, so that it makes sense to take the money.
async fn wanted(app: &App, intent: &Intent, now: i64) -> Result<bool, StoreError> {
    let mut lease = app.store.lease().await?;
    let order: Option<Order> = orders::find_by_id(&mut lease, intent.order).await?;
    Ok(order.is_some_and(|order| is_payable(&order, now)))
}
