//! Passing a request on, and its reply back, without looking at either more than a proxy has to.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use axum::response::Response;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::Access;
use super::cache::Fetched;
use crate::outbound::explain;
use crate::problem::{Kind, Problem};

/// No request of the service needs a larger body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A reply up to this size is waited for as a whole, so that the time limit holds for all of it.
const SMALL_REPLY_BYTES: u64 = 256 * 1024;

/// What concerns one connection only (RFC 9110 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Passes a request on to the service whose turn it is. If that cannot be connected to, nothing was sent, and the next one is
/// tried; anything else that goes wrong leaves open what the service did.
pub(super) async fn forward(access: &Arc<Access>, request: Request) -> Result<Response, Problem> {
    let end = Instant::now() + access.timeout;
    let (mut parts, body) = request.into_parts();
    let body = timeout_at(end, to_bytes(body, MAX_BODY_BYTES)).await;
    let body = body.map_err(|_| Problem::because(Kind::BadRequest, "the body did not come"))?;
    let body = body.map_err(|_| Problem::new(Kind::TooLarge))?;
    if let Some(problem) = access.objection(&parts, &body) {
        return Err(problem);
    }
    strip(&mut parts.headers);
    parts.headers.insert(header::VIA, HeaderValue::from_static("1.1 access"));
    let mut last = "there is no service".to_owned();
    for service in access.in_turn() {
        match timeout_at(end, service.send(outgoing(&parts, &body))).await {
            Err(_) => return Err(Problem::new(Kind::UpstreamTimeout)),
            Ok(Ok(mut reply)) => {
                access.heard(reply.headers_mut());
                return received(reply.map(Body::new), end).await;
            }
            Ok(Err(error)) if error.is_connect() => last = explain(&error),
            Ok(Err(error)) => return Err(Problem::because(Kind::UpstreamUnavailable, explain(&error))),
        }
    }
    Err(Problem::because(Kind::UpstreamUnavailable, last))
}

/// The request as it goes to a service; headers such as `traceparent` and `idempotency-key` go along as they came.
fn outgoing(parts: &Parts, body: &Bytes) -> Request {
    let mut request = Request::new(Body::from(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    request
}

/// Small replies are read whole within the time limit. Whatever is large or a stream of events passes as it comes.
async fn received(mut reply: Response, end: Instant) -> Result<Response, Problem> {
    use hyper::body::Body as _;
    strip(reply.headers_mut());
    if reply.body().size_hint().exact().is_none_or(|size| size > SMALL_REPLY_BYTES) {
        return Ok(reply);
    }
    let (parts, body) = reply.into_parts();
    match timeout_at(end, body.collect()).await {
        Ok(Ok(body)) => Ok(Response::from_parts(parts, Body::from(body.to_bytes()))),
        Ok(Err(error)) => Err(Problem::because(Kind::UpstreamUnavailable, error)),
        Err(_) => Err(Problem::new(Kind::UpstreamTimeout)),
    }
}

/// Takes away what concerned the connection that a message came over, and what its `connection` header names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Asks a service for something that is to be kept.
pub(super) async fn fetch(access: &Arc<Access>, path: &str) -> Fetched {
    let request = Request::get(path).body(Body::empty());
    let reply = match request {
        Ok(request) => forward(access, request).await,
        Err(error) => Err(Problem::because(Kind::BadRequest, error)),
    };
    let response = reply.unwrap_or_else(|problem| access.own(axum::response::IntoResponse::into_response(problem)));
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, SMALL_REPLY_BYTES as usize).await.unwrap_or_default();
    Fetched { status: parts.status, headers: parts.headers, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_a_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("idempotency-key", "\"k1\""),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["idempotency-key", "traceparent"]);
    }
}
