//! Health, readiness and metrics, asked over a connection of their own: a full pool is load, not absence.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Row;

use crate::api::fresh;
use crate::app::App;
use crate::metrics::StockUnits;
use crate::problem::{Kind, Problem};
use crate::store::orders::spread_stock;
use crate::store::{DirectClient, Store, StoreError};

const PATIENCE: Duration = Duration::from_millis(500);

const STOCK_UNITS: &str = concat!(
    "SELECT (SELECT coalesce(sum(",
    spread_stock!(),
    "), 0)::bigint FROM item i) AS available,
           coalesce(sum(quantity) FILTER (WHERE state = 'held'), 0)::bigint AS held,
           coalesce(sum(quantity) FILTER (WHERE state = 'paid'), 0)::bigint AS sold
      FROM orders"
);

/// A connection for asking whether the database is there. It is opened when first needed, and again after
/// each failure.
#[derive(Default)]
pub struct Probe {
    client: Mutex<Option<DirectClient>>,
}

impl Probe {
    /// Asks a question that has one row for an answer, within a short time limit.
    pub(crate) async fn ask(&self, store: &Store, sql: &str) -> Result<Row, StoreError> {
        let asking = async {
            let mut slot = self.client.lock().await;
            // Taken out, so that a question that fails or is given up on takes the connection with it.
            let client = match slot.take() {
                Some(client) if !client.is_closed() => client,
                _ => store.connect().await?,
            };
            let row = client.query_one(sql, &[]).await?;
            *slot = Some(client);
            Ok(row)
        };
        timeout(PATIENCE, asking).await.unwrap_or(Err(StoreError::Timeout))
    }
}

pub(super) async fn healthz() -> Response {
    fresh(StatusCode::OK, &json!({"alive": true}))
}

pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    match app.probe.ask(&app.store, "SELECT 1").await {
        Ok(_) => Ok(fresh(StatusCode::OK, &json!({"ready": true}))),
        Err(error) => Err(Problem::because(Kind::DatabaseUnavailable, error)),
    }
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.metrics.set_active(app.admission.in_flight());
    app.metrics.set_statements(app.store.statements());
    app.metrics.set_pool(&app.store.status());
    // Without the database the last known stock stays, and everything else is shown all the same.
    if let Ok(row) = app.probe.ask(&app.store, STOCK_UNITS).await {
        app.metrics.set_stock(StockUnits { available: row.get(0), held: row.get(1), sold: row.get(2) });
    }
    let text = app.metrics.render().map_err(|error| Problem::because(Kind::Internal, error))?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
