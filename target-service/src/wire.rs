//! The service's own messages in Protobuf (E2), for clients that ask for it: an order as it is sent, and as it is told. Fields
//! are those of the JSON messages.

use std::hint::black_box;
use std::time::{Duration, Instant};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::order::{Order, OrderState};

/// The media type of both messages.
pub const PROTOBUF: &str = "application/x-protobuf";

/// What a buyer sends.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct NewOrder {
    /// Units wanted.
    #[prost(int64, tag = "1")]
    pub quantity: i64,
}

/// What a buyer is told of an order.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OrderTold {
    /// The order's number.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// The item bought.
    #[prost(int64, tag = "2")]
    pub item: i64,
    /// The buyer.
    #[prost(string, tag = "3")]
    pub user: String,
    /// Units.
    #[prost(int32, tag = "4")]
    pub quantity: i32,
    /// Price times quantity.
    #[prost(int64, tag = "5")]
    pub amount_cents: i64,
    /// Where the order stands, in the words of the JSON message.
    #[prost(string, tag = "6")]
    pub state: String,
    /// Unix microseconds on the service's clock.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// When an unpaid order ends, unix microseconds on the service's clock.
    #[prost(int64, tag = "8")]
    pub expires_at: i64,
    /// The buyer's own name for the attempt.
    #[prost(string, tag = "9")]
    pub idempotency_key: String,
}

impl From<&Order> for OrderTold {
    fn from(order: &Order) -> Self {
        Self {
            id: order.id,
            item: order.item,
            user: order.user.clone(),
            quantity: order.quantity,
            amount_cents: order.amount_cents,
            state: order.state.as_str().to_owned(),
            created_at: order.created_at,
            expires_at: order.expires_at,
            idempotency_key: order.idempotency_key.clone(),
        }
    }
}

/// What one message costs in one format: the fastest of several rounds, since whatever else the machine does only adds to it.
#[derive(Debug, Serialize)]
pub struct MessageCost {
    /// `order` or `reply`.
    pub message: &'static str,
    /// `json` or `protobuf`.
    pub format: &'static str,
    /// Length of the message.
    pub bytes: usize,
    /// To encode it, in nanoseconds.
    pub encode_ns: f64,
    /// To decode it, in nanoseconds.
    pub decode_ns: f64,
}

/// The reply as a client would read it from JSON.
#[derive(Deserialize)]
#[expect(dead_code, reason = "decoding fills every field, as a client's would")]
struct OrderRead {
    id: String,
    item: i64,
    user: String,
    quantity: i32,
    amount_cents: i64,
    state: String,
    created_at: i64,
    expires_at: i64,
    idempotency_key: String,
}

/// Measures both messages in both formats.
pub fn measure() -> Vec<MessageCost> {
    let order = Order {
        id: 4_711_000_123,
        item: 1,
        user: "20261128T120000Z-spike-u10234".into(),
        quantity: 1,
        amount_cents: 99_900,
        state: OrderState::Held,
        created_at: 1_795_867_200_123_456,
        expires_at: 1_795_867_203_123_456,
        idempotency_key: "20261128T120000Z-spike-k10234".into(),
    };
    let (asked, told) = (NewOrder { quantity: 1 }, OrderTold::from(&order));
    let json = |value: &NewOrder| serde_json::to_vec(value).expect("a number is always JSON");
    let reply = || serde_json::to_vec(&order).expect("an order is always JSON");
    let (json_asked, json_told) = (json(&asked), reply());
    let (proto_asked, proto_told) = (asked.encode_to_vec(), told.encode_to_vec());
    vec![
        cost(
            "order",
            "json",
            &json_asked,
            || json(black_box(&asked)),
            |b| serde_json::from_slice::<NewOrder>(b).is_ok(),
        ),
        cost("order", "protobuf", &proto_asked, || black_box(&asked).encode_to_vec(), |b| NewOrder::decode(b).is_ok()),
        cost("reply", "json", &json_told, reply, |b| serde_json::from_slice::<OrderRead>(b).is_ok()),
        // The service has an order, so making the message of it is part of encoding it.
        cost(
            "reply",
            "protobuf",
            &proto_told,
            || OrderTold::from(black_box(&order)).encode_to_vec(),
            |b| OrderTold::decode(b).is_ok(),
        ),
    ]
}

fn cost(
    message: &'static str,
    format: &'static str,
    encoded: &[u8],
    mut encode: impl FnMut() -> Vec<u8>,
    mut decode: impl FnMut(&[u8]) -> bool,
) -> MessageCost {
    let encode_ns = fastest(|| black_box(encode()).len());
    let decode_ns = fastest(|| usize::from(black_box(decode(black_box(encoded)))));
    MessageCost { message, format, bytes: encoded.len(), encode_ns, decode_ns }
}

/// Nanoseconds of one call.
fn fastest(mut call: impl FnMut() -> usize) -> f64 {
    const CALLS: u32 = 20_000;
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(call());
        }
        best = best.min(started.elapsed());
    }
    best.as_secs_f64() * 1e9 / f64::from(CALLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_both_formats() {
        for cost in measure() {
            assert!(cost.bytes > 0 && cost.encode_ns > 0.0 && cost.decode_ns > 0.0, "{cost:?}");
        }
        let order = Order {
            id: i64::MAX,
            item: 2,
            user: "买家".into(),
            quantity: 3,
            amount_cents: -1,
            state: OrderState::Paid,
            created_at: 4,
            expires_at: 5,
            idempotency_key: "k".into(),
        };
        let read = OrderTold::decode(OrderTold::from(&order).encode_to_vec().as_slice()).unwrap();
        assert_eq!((read.id, read.user.as_str(), read.state.as_str()), (i64::MAX, "买家", "paid"));
        assert_eq!(NewOrder::decode(NewOrder { quantity: -1 }.encode_to_vec().as_slice()).unwrap().quantity, -1);
    }
}
