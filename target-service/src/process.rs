//! What every process of this program does the same way: logging, runtime, signals, the ready line.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use axum::Router;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Address;
use crate::listen::bind;

/// Sets up logging and a runtime with so many threads, and runs the process to its end.
pub fn run(workers: usize, process: impl Future<Output = Result<()>>) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,deadpool=error,refinery_core=warn,tokio_postgres=warn".into()),
        )
        .with_writer(std::io::stderr)
        // It would be told on stderr, and panic where nobody reads that.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(process);
    // Whatever still runs has had its chance to finish in the drain.
    runtime.shutdown_background();
    outcome
}

/// Cancelled by SIGTERM and by Ctrl-C.
pub fn stop_on_signals() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// The one line on standard output. Whoever started the process waits for it.
pub fn announce(public: &Address, admin: &Address) -> Result<()> {
    let line = json!({"ready": true, "listen": public.to_string(), "admin": admin.to_string()});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing the ready line")
}

/// Serves two routers, the public one over TLS if there is an acceptor for it, until the token is cancelled, and lets what is under way finish; for processes that have nothing else
/// to look after.
pub async fn serve_both(
    public: (&Address, Router, Option<TlsAcceptor>),
    admin: (&Address, Router),
    shutdown: &CancellationToken,
) -> Result<()> {
    let (public_listener, public_address) = bind(public.0).await?;
    let (admin_listener, admin_address) = bind(admin.0).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(public_listener.serve(public.1, public.2, shutdown.clone().cancelled_owned()));
    tasks.spawn(admin_listener.serve(admin.1, None, shutdown.clone().cancelled_owned()));
    announce(&public_address, &admin_address)?;
    shutdown.cancelled().await;
    let finished = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, finished).await.is_err() {
        tracing::warn!("requests were cut off at the end of the drain");
    }
    Ok(())
}

/// How long requests may take to finish at shutdown.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(2);
