//! What is meant to be done with a buyer's money, as rows: each step is one statement that takes effect or does not.

use tokio_postgres::Row;

use super::{Store, StoreError};
use crate::order::Claim;

/// How long whoever works on an intent has before somebody else may take it up, in microseconds. Longer than a request may
/// take, so that the worker only finds what was left behind.
const LEASE_US: i64 = 2_500_000;

/// Where an intent stands; see the migration for the ways between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentState {
    /// The money is to be taken, and may have been.
    Capturing,
    /// It was taken; the order is to be called paid.
    Captured,
    /// Done: taken, and the order is paid.
    Paid,
    /// It was not taken, and the units that were deducted for good are to go back.
    Returning,
    /// Done: it was not taken.
    Declined,
    /// It is to be given back, if it was taken at all.
    Refunding,
    /// Done: it is with the buyer.
    Refunded,
}

impl IntentState {
    const ALL: [Self; 7] =
        [Self::Capturing, Self::Captured, Self::Paid, Self::Returning, Self::Declined, Self::Refunding, Self::Refunded];

    /// The database's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capturing => "capturing",
            Self::Captured => "captured",
            Self::Paid => "paid",
            Self::Returning => "returning",
            Self::Declined => "declined",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
        }
    }
}

/// The intent to take the money for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The idempotency key under which the money is taken.
    pub key: String,
    /// The order.
    pub order: i64,
    /// Its buyer.
    pub user: String,
    /// What it costs.
    pub amount_cents: i64,
    /// When the buyer asked, which decides whether the hold still stood.
    pub asked_at: i64,
    /// Where it stands.
    pub state: IntentState,
}

impl Intent {
    /// The claim that the buyer made.
    pub fn claim(&self) -> Claim {
        Claim { order: self.order, user: self.user.clone(), now: self.asked_at }
    }
}

/// The states of intents that are not finished, as the index of migration 6 has them.
macro_rules! unfinished {
    () => {
        "state IN ('capturing', 'captured', 'refunding', 'returning')"
    };
}

/// Only an order that stands is paid. Each attempt has a key of its own, and twins conflict on one of the two indexes. What was
/// asked under a buyer's key before is no new attempt, whatever came of it.
const BEGIN: &str = "
    INSERT INTO payment_intent (key, order_id, user_id, amount_cents, asked_at_us, state, due_us, asked_key)
    SELECT 'order-' || o.id || '-' || (SELECT count(*) + 1 FROM payment_intent p WHERE p.order_id = o.id),
           o.id, o.user_id, o.amount_cents, $3::bigint, 'capturing', $3 + $4::bigint, $5::text
      FROM orders o
     WHERE o.id = $1::bigint AND o.user_id = $2::text AND o.state IN ('held', 'placed') AND o.expires_at_us > $3
       AND NOT EXISTS (SELECT FROM payment_intent p WHERE p.order_id = o.id AND p.asked_key = $5)
    ON CONFLICT DO NOTHING
    RETURNING *";

/// The attempt under the buyer's key, or else the one that was not declined.
const OF_ORDER: &str = "
    SELECT * FROM payment_intent
     WHERE order_id = $1::bigint AND user_id = $2::text AND (state <> 'declined' OR asked_key = $3::text)
     ORDER BY asked_key = $3 DESC NULLS LAST LIMIT 1";

/// Whoever comes second finds that the state is not what he thought.
const ADVANCE: &str = "UPDATE payment_intent SET state = $3::text, due_us = $4::bigint \
                       WHERE key = $1::text AND state = $2::text RETURNING *";

const BY_KEY: &str = "SELECT * FROM payment_intent WHERE key = $1::text";

const POSTPONE: &str = "UPDATE payment_intent SET due_us = least(due_us, $2::bigint) WHERE key = $1::text";

const TAKE_DUE: &str = concat!(
    "UPDATE payment_intent SET due_us = $1::bigint + $3::bigint
      WHERE key IN (SELECT key FROM payment_intent
                     WHERE ",
    unfinished!(),
    " AND due_us <= $1
                     ORDER BY due_us LIMIT $2::bigint
                       FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING *"
);

const OPEN: &str = concat!("SELECT * FROM payment_intent WHERE ", unfinished!(), " ORDER BY due_us");

fn intent_from(row: &Row) -> Result<Intent, StoreError> {
    let text: &str = row.get("state");
    let state = IntentState::ALL.into_iter().find(|state| state.as_str() == text);
    Ok(Intent {
        key: row.get("key"),
        order: row.get("order_id"),
        user: row.get("user_id"),
        amount_cents: row.get("amount_cents"),
        asked_at: row.get("asked_at_us"),
        state: state.ok_or(StoreError::Corrupt("a payment intent in an unknown state"))?,
    })
}

/// The attempt to pay an order: a new one, the one under way, or whatever came of it under the buyer's key. Nothing if the order
/// cannot be paid, or a twin's attempt was declined meanwhile.
pub async fn begin(store: &Store, claim: &Claim, key: Option<&str>) -> Result<Option<Intent>, StoreError> {
    let mut lease = store.lease().await?;
    let row = match lease.query_opt(BEGIN, &[&claim.order, &claim.user, &claim.now, &LEASE_US, &key]).await? {
        Some(row) => Some(row),
        None => lease.query_opt(OF_ORDER, &[&claim.order, &claim.user, &key]).await?,
    };
    row.as_ref().map(intent_from).transpose()
}

/// The attempt to pay an order that is under way or done, or came to its end under this key, if there is one.
pub async fn of_order(store: &Store, claim: &Claim, key: Option<&str>) -> Result<Option<Intent>, StoreError> {
    let mut lease = store.lease().await?;
    lease.query_opt(OF_ORDER, &[&claim.order, &claim.user, &key]).await?.as_ref().map(intent_from).transpose()
}

/// Moves an intent on, unless somebody else has; either way, the intent as it stands now.
pub async fn advance(store: &Store, intent: &Intent, to: IntentState, now: i64) -> Result<Intent, StoreError> {
    let mut lease = store.lease().await?;
    let due = now + LEASE_US;
    let row = match lease.query_opt(ADVANCE, &[&intent.key, &intent.state.as_str(), &to.as_str(), &due]).await? {
        Some(row) => row,
        None => lease
            .query_opt(BY_KEY, &[&intent.key])
            .await?
            // The sale was set up anew meanwhile.
            .ok_or_else(|| StoreError::Contended("the payment was forgotten in a reset".into()))?,
    };
    intent_from(&row)
}

/// Says that an intent may be taken up from then on, at the latest.
pub async fn release(store: &Store, key: &str, due: i64) -> Result<(), StoreError> {
    let mut lease = store.lease().await?;
    lease.query(POSTPONE, &[&key, &due]).await.map(drop)
}

/// Takes up so many intents that were left unfinished.
pub async fn take_due(store: &Store, now: i64, limit: i64) -> Result<Vec<Intent>, StoreError> {
    let mut lease = store.lease().await?;
    lease.query(TAKE_DUE, &[&now, &limit, &LEASE_US]).await?.iter().map(intent_from).collect()
}

/// Everything that is not finished.
pub async fn open(store: &Store) -> Result<Vec<Intent>, StoreError> {
    let mut lease = store.lease().await?;
    lease.query(OPEN, &[]).await?.iter().map(intent_from).collect()
}
