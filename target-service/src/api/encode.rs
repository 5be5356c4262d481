//! Orders as replies.
//!
//! Encoded beforehand (E3) are the parts that are the same in all of them: the head, and what stands between the values.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use prost::Message as _;

use crate::order::Order;
use crate::wire::{OrderTold, PROTOBUF};

/// How a reply is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// By the serialiser, under a head made for this reply.
    SerialisedJson,
    /// Written around parts encoded beforehand.
    WrittenJson,
    /// In Protobuf.
    Protobuf,
}

/// Longer than most; a longer one grows.
const USUAL_BYTES: usize = 256;

static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| head("application/json"));

/// The reply that tells a buyer of his order.
pub(super) fn order(status: StatusCode, order: &Order, format: Format) -> Response<Bytes> {
    let (body, head) = match format {
        Format::SerialisedJson => (serialised(order), head("application/json")),
        Format::WrittenJson => (written(order), HEAD.clone()),
        Format::Protobuf => (OrderTold::from(order).encode_to_vec(), head(PROTOBUF)),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = head;
    let location = format!("/orders/{}", order.id);
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn head(media_type: &'static str) -> HeaderMap {
    let mut head = HeaderMap::with_capacity(8);
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head
}

fn serialised(order: &Order) -> Vec<u8> {
    serde_json::to_vec(order).expect("an order is always JSON")
}

fn written(order: &Order) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    let number = |out: &mut Vec<u8>, before: &str, number: i64| {
        out.extend_from_slice(before.as_bytes());
        write!(out, "{number}").expect("memory takes what is written");
    };
    let text = |out: &mut Vec<u8>, before: &str, text: &str| {
        out.extend_from_slice(before.as_bytes());
        if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        } else {
            serde_json::to_writer(out, text).expect("text is always JSON");
        }
    };
    number(&mut out, "{\"id\":\"", order.id);
    number(&mut out, "\",\"item\":", order.item);
    text(&mut out, ",\"user\":", &order.user);
    number(&mut out, ",\"quantity\":", order.quantity.into());
    number(&mut out, ",\"amount_cents\":", order.amount_cents);
    text(&mut out, ",\"state\":", order.state.as_str());
    number(&mut out, ",\"created_at\":", order.created_at);
    number(&mut out, ",\"expires_at\":", order.expires_at);
    text(&mut out, ",\"idempotency_key\":", &order.idempotency_key);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::OrderState;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_say_the_same(
            (id, item, amount_cents, quantity) in any::<(i64, i64, i64, i32)>(),
            (user, key) in any::<(String, String)>(),
        ) {
            let mut order = Order {
                id, item, user, quantity, amount_cents, state: OrderState::Held, created_at: 1, expires_at: -2,
                idempotency_key: key,
            };
            for state in [OrderState::Held, OrderState::Paid, OrderState::Cancelled, OrderState::Expired] {
                order.state = state;
                let replies = [Format::WrittenJson, Format::SerialisedJson]
                    .map(|format| super::order(StatusCode::OK, &order, format));
                prop_assert_eq!(replies[0].body(), replies[1].body());
                prop_assert_eq!(replies[0].headers(), replies[1].headers());
            }
        }
    }
}
