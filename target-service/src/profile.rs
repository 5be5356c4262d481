//! The user-profile dependency, as a process of its own: what a shop knows of a user beside his orders. It makes it up, the
//! same for a user each time.

use anyhow::Result;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::api::{fresh, unknown_route, wrong_method};
use crate::config::Address;
use crate::process;

/// How `seckill-target profile` is started.
#[derive(Args, Debug)]
pub struct Options {
    /// Where profiles are served: `unix:/path` or `127.0.0.1:port`; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    /// The listener for monitoring.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Address,
}

/// Runs the user-profile dependency until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let shutdown = process::stop_on_signals()?;
    let public = Router::new()
        .route("/profiles/{user}", get(profile))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    let admin = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    process::serve_both((&options.listen, public, None), (&options.admin_listen, admin), &shutdown).await
}

async fn profile(Path(user): Path<String>) -> Response {
    let digest = Sha256::digest(user.as_bytes());
    fresh(StatusCode::OK, &json!({"user": user, "level": 1 + digest[0] % 5, "coupons": digest[1] % 4}))
}

async fn healthz() -> Response {
    fresh(StatusCode::OK, &json!({"ready": true}))
}
