//! The words of the sale: orders, their states, what a buyer asks for and why it may be refused.
//!
//! Owns no I/O. Everything here can be built and compared without a database or a socket.

use serde::{Serialize, Serializer};

/// Where an order stands. A placed or held order becomes exactly one of the last three, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// Ordered, and nothing is set aside before it is paid.
    Placed,
    /// Units are set aside until the hold runs out.
    Held,
    /// The units are sold.
    Paid,
    /// The buyer gave the units back.
    Cancelled,
    /// The hold ran out and the sweeper gave the units back.
    Expired,
}

impl OrderState {
    /// The spelling used by the database and by replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Held => "held",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Every state there is.
    const ALL: [Self; 5] = [Self::Placed, Self::Held, Self::Paid, Self::Cancelled, Self::Expired];

    /// Reads the database's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// An order as a buyer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Also the sequence number of the order's reserve entry in the ledger. A string in JSON, because
    /// sequence numbers may outgrow what a JavaScript number can hold.
    #[serde(serialize_with = "as_text")]
    pub id: i64,
    /// The item bought.
    pub item: i64,
    /// The buyer.
    pub user: String,
    /// Units.
    pub quantity: i32,
    /// Price times quantity, fixed when the order was made.
    pub amount_cents: i64,
    /// Where the order stands.
    pub state: OrderState,
    /// Unix microseconds on the service's clock.
    pub created_at: i64,
    /// When an unpaid order ends, unix microseconds on the service's clock.
    pub expires_at: i64,
    /// The buyer's own name for the attempt: retries share it.
    pub idempotency_key: String,
}

fn as_text<S: Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// What a buyer asks for, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The item wanted.
    pub item: i64,
    /// The buyer.
    pub user: String,
    /// The buyer's idempotency key.
    pub key: String,
    /// Units wanted.
    pub quantity: i32,
    /// When the request was accepted, unix microseconds on the service's clock.
    pub now: i64,
}

/// An existing order that its owner wants to pay or cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The order.
    pub order: i64,
    /// Who asks.
    pub user: String,
    /// When the request was accepted, unix microseconds on the service's clock.
    pub now: i64,
}

/// Why a request is definitely refused. A refusal promises that nothing was committed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer units are left than were asked for.
    SoldOut,
    /// The sale has not started.
    TooEarly,
    /// The sale is over.
    Ended,
    /// The buyer would exceed the limit per user.
    LimitReached,
    /// There is no such item.
    UnknownItem,
    /// The key was used for a different purchase before.
    KeyReused,
    /// There is no such order.
    UnknownOrder,
    /// The order belongs to somebody else.
    NotOwner,
    /// The hold ran out before it was paid.
    HoldExpired,
    /// The order was cancelled before it was paid.
    Cancelled,
    /// The order was paid before it was cancelled.
    AlreadyPaid,
    /// The buyer let too many orders run out unpaid.
    NonPayer,
    /// The buyer ordered too often, or too soon after leaving an order unpaid.
    CoolingDown,
    /// The buyer behaves like a machine.
    Risky,
}

/// How an attempt to reserve ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// A new order: it holds the units, unless they are deducted at payment.
    Held(Order),
    /// The key already has an order: here it is, in its present state.
    Replayed(Order),
    /// Nothing was reserved, and nothing will be.
    Refused(Refusal),
}

/// How an attempt to pay or cancel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The order now is, or already was, what was asked for.
    Settled(Order),
    /// The order is not, and cannot become, what was asked for.
    Refused(Refusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_their_spelling() {
        for state in OrderState::ALL {
            assert_eq!(OrderState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(OrderState::parse("lost"), None);
    }

    #[test]
    fn an_order_id_is_text_in_json() {
        let order = Order {
            id: 9_007_199_254_740_993,
            item: 1,
            user: "u1".into(),
            quantity: 1,
            amount_cents: 9900,
            state: OrderState::Held,
            created_at: 1,
            expires_at: 2,
            idempotency_key: "k".into(),
        };
        assert_eq!(serde_json::to_value(order).unwrap()["id"], "9007199254740993");
    }
}
