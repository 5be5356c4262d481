//! Error replies: RFC 9457 problem documents, told apart by the slug in `type`.
//!
//! Clients classify by `type`, never by status alone: sold out and limit reached are both 409.

use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Response as AxumResponse};
use serde_json::json;

use crate::challenge::Unopened;
use crate::order::Refusal;
use crate::store::StoreError;

/// What went wrong, as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table in `spec` says what each one means")]
pub enum Kind {
    BadRequest,
    KeyMissing,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    KeyReused,
    InFlight,
    TooEarly,
    Ended,
    SoldOut,
    LimitReached,
    HoldExpired,
    Cancelled,
    AlreadyPaid,
    NonPayer,
    CoolingDown,
    RiskRefused,
    QuotaExceeded,
    Degraded,
    PaymentDeclined,
    PaymentUnclear,
    SnapshotGone,
    ChallengeRequired,
    TokenSpent,
    Overloaded,
    Timeout,
    UpstreamTimeout,
    UpstreamUnavailable,
    DatabaseUnavailable,
    Internal,
}

impl Kind {
    /// How many there are.
    const COUNT: usize = Self::Internal as usize + 1;

    /// Status, slug, title, and after how many seconds a retry makes sense.
    fn spec(self) -> (StatusCode, &'static str, &'static str, Option<&'static str>) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "bad-request", "The request cannot be understood", None),
            Self::KeyMissing => {
                (S::BAD_REQUEST, "idempotency-key-missing", "An Idempotency-Key header is required", None)
            }
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "A valid session token is required", None),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The order belongs to somebody else", None),
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is no such thing", None),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not supported here", None)
            }
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", None),
            Self::KeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key belongs to another purchase", None)
            }
            Self::InFlight => (S::CONFLICT, "in-flight", "A request with this key is being worked on", Some("1")),
            Self::TooEarly => (S::TOO_EARLY, "too-early", "The sale has not started", None),
            Self::Ended => (S::GONE, "ended", "The sale is over", None),
            Self::SoldOut => (S::CONFLICT, "sold-out", "Sold out", None),
            Self::LimitReached => (S::CONFLICT, "limit-reached", "The limit per user is reached", None),
            Self::HoldExpired => (S::CONFLICT, "hold-expired", "The hold ran out before it was paid", None),
            Self::Cancelled => (S::CONFLICT, "cancelled", "The order was cancelled", None),
            Self::AlreadyPaid => (S::CONFLICT, "already-paid", "The order is paid", None),
            Self::NonPayer => (S::FORBIDDEN, "non-payer", "Too many orders were left unpaid", None),
            Self::CoolingDown => {
                (S::TOO_MANY_REQUESTS, "cooling-down", "Too many orders, or one left unpaid just now", Some("5"))
            }
            Self::RiskRefused => (S::FORBIDDEN, "risk-refused", "The account does not behave like a person", None),
            Self::QuotaExceeded => {
                (S::TOO_MANY_REQUESTS, "quota-exceeded", "Too many requests of one user in a second", Some("1"))
            }
            Self::Degraded => {
                (S::TOO_MANY_REQUESTS, "degraded", "Switched off for the moment 稍后再试; nothing was done", Some("1"))
            }
            Self::PaymentDeclined => (S::PAYMENT_REQUIRED, "payment-declined", "The payment was declined", None),
            Self::PaymentUnclear => (
                S::SERVICE_UNAVAILABLE,
                "payment-unclear",
                "The payment dependency gave no clear answer; the payment may yet go through",
                Some("1"),
            ),
            Self::SnapshotGone => (S::NOT_FOUND, "snapshot-gone", "The audit snapshot is closed", None),
            Self::ChallengeRequired => {
                (S::FORBIDDEN, "challenge-required", "A token for an answered challenge is required", None)
            }
            Self::TokenSpent => (S::CONFLICT, "token-spent", "The token has opened another purchase", None),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once", Some("1")),
            Self::Timeout => {
                (S::SERVICE_UNAVAILABLE, "timeout", "The request took too long; its outcome is unknown", Some("1"))
            }
            Self::UpstreamTimeout => (
                S::SERVICE_UNAVAILABLE,
                "upstream-timeout",
                "The service did not answer in time; the outcome is unknown",
                Some("1"),
            ),
            Self::UpstreamUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "upstream-unavailable",
                "The service cannot be reached; the outcome may be unknown",
                Some("1"),
            ),
            Self::DatabaseUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "database-unavailable",
                "The database cannot be used; the outcome may be unknown",
                Some("1"),
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Something unexpected went wrong", None),
        }
    }

    /// The machine-readable name.
    pub fn slug(self) -> &'static str {
        self.spec().1
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.spec().0
    }
}

/// An error reply.
#[derive(Debug)]
pub struct Problem {
    /// What went wrong.
    pub kind: Kind,
    /// What a person would want to know beyond the title.
    pub detail: Option<String>,
}

impl Problem {
    /// A problem that its title explains.
    pub fn new(kind: Kind) -> Self {
        Self { kind, detail: None }
    }

    /// A problem with an explanation.
    pub fn because(kind: Kind, detail: impl ToString) -> Self {
        Self { kind, detail: Some(detail.to_string()) }
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(match refusal {
            Refusal::SoldOut => Kind::SoldOut,
            Refusal::TooEarly => Kind::TooEarly,
            Refusal::Ended => Kind::Ended,
            Refusal::LimitReached => Kind::LimitReached,
            Refusal::UnknownItem | Refusal::UnknownOrder => Kind::NotFound,
            Refusal::KeyReused => Kind::KeyReused,
            Refusal::NotOwner => Kind::Forbidden,
            Refusal::HoldExpired => Kind::HoldExpired,
            Refusal::Cancelled => Kind::Cancelled,
            Refusal::AlreadyPaid => Kind::AlreadyPaid,
            Refusal::NonPayer => Kind::NonPayer,
            Refusal::CoolingDown => Kind::CoolingDown,
            Refusal::Risky => Kind::RiskRefused,
        })
    }
}

impl From<Unopened> for Problem {
    fn from(why: Unopened) -> Self {
        let kind = match why {
            Unopened::Unknown => Kind::ChallengeRequired,
            Unopened::Spent => Kind::TokenSpent,
            Unopened::Full => Kind::Overloaded,
        };
        Self::because(kind, why)
    }
}

/// Whatever the database did, the reply is never a definite refusal: the order may exist.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::PoolExhausted | StoreError::Full(_) | StoreError::Contended(_) => Kind::Overloaded,
            StoreError::Timeout => Kind::Timeout,
            StoreError::Unreachable(_) | StoreError::Lost(_) => Kind::DatabaseUnavailable,
            StoreError::Violation(_) | StoreError::Query(_) | StoreError::Corrupt(_) => Kind::Internal,
        };
        if kind == Kind::Internal {
            tracing::error!(%error, "the database refused a statement that should have worked");
        }
        Self::because(kind, error)
    }
}

impl Problem {
    /// The reply, put together from its parts.
    pub fn assembled(self) -> Response<Bytes> {
        let (status, slug, title, retry_after) = self.kind.spec();
        let mut body = json!({"type": slug, "title": title, "status": status.as_u16()});
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The same reply from memory (E4): it was put together when it was first needed, and what is told to everybody alike is
    /// the same bytes for everybody. One that says more than its title is put together each time.
    pub fn prebuilt(self) -> Response<Bytes> {
        static REPLIES: [OnceLock<Response<Bytes>>; Kind::COUNT] = [const { OnceLock::new() }; Kind::COUNT];
        if self.detail.is_some() {
            return self.assembled();
        }
        let kind = self.kind;
        REPLIES[kind as usize].get_or_init(|| self.assembled()).clone()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> AxumResponse {
        self.assembled().map(Body::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_service_says_when_to_come_back() {
        for kind in [Kind::Overloaded, Kind::Timeout, Kind::DatabaseUnavailable, Kind::InFlight, Kind::Degraded] {
            let response = Problem::new(kind).into_response();
            assert!(response.headers().contains_key(header::RETRY_AFTER), "{kind:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn what_is_prebuilt_is_what_would_be_put_together() {
        for kind in [Kind::SoldOut, Kind::Overloaded, Kind::Unauthorized, Kind::Internal] {
            for _ in 0..2 {
                let (ready, fresh) = (Problem::new(kind).prebuilt(), Problem::new(kind).assembled());
                assert_eq!((ready.status(), ready.headers()), (fresh.status(), fresh.headers()));
                assert_eq!(ready.body(), fresh.body());
            }
        }
        let body = Problem::because(Kind::SoldOut, "since noon").prebuilt().into_body();
        assert!(body.windows(10).any(|text| text == b"since noon"), "{body:?}");
        assert!(!Problem::new(Kind::SoldOut).prebuilt().into_body().windows(6).any(|text| text == b"detail"));
    }

    #[test]
    fn an_uncertain_outcome_is_never_a_refusal() {
        for error in [
            StoreError::PoolExhausted,
            StoreError::Timeout,
            StoreError::Unreachable("x".into()),
            StoreError::Lost("x".into()),
            StoreError::Contended("x".into()),
            StoreError::Violation("x".into()),
            StoreError::Corrupt("x"),
        ] {
            assert!(Problem::from(error).kind.status().is_server_error());
        }
    }

    #[test]
    fn refusals_keep_their_slugs() {
        let slug = |refusal| Problem::from(refusal).kind.slug();
        assert_eq!(slug(Refusal::SoldOut), "sold-out");
        assert_eq!(slug(Refusal::LimitReached), "limit-reached");
        assert_eq!(slug(Refusal::KeyReused), "idempotency-key-reused");
        assert_eq!(Problem::from(Refusal::TooEarly).kind.status().as_u16(), 425);
        assert_eq!(Problem::from(Refusal::Ended).kind.status().as_u16(), 410);
    }
}
