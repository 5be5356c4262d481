//! The life of the process, top to bottom: database, listeners, ready line, signals, drain.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::bugs;
use crate::challenge::Challenges;
use crate::config::{Address, Settings};
use crate::deduct::Deduct;
use crate::degrade::{self, Degrade};
use crate::dependency::Dependency;
use crate::extras::{self, Profiles};
use crate::gateway::Admission;
use crate::idempotency::InFlight;
use crate::inventory::{AtPayment, Ground, Inventory};
use crate::listen::{Bound, Serves, bind};
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::session::Sessions;
use crate::settle::client::{self, Payments};
use crate::slow::{Slow, SlowOrders, SlowPages};
use crate::store::Store;
use crate::store::schema::{self, Soundness};
use crate::switches::Switches;
use crate::{admin, api, process, settle, sweeper, tls};

/// A second bound, for when the one on requests is switched off.
const MAX_KEYS_IN_FLIGHT: usize = 65_536;

/// Runs the service until it is told to stop.
pub async fn run(settings: Settings) -> Result<()> {
    // Registered first, so that an early SIGTERM ends the process in an orderly way, too.
    let shutdown = process::stop_on_signals()?;
    let prepared = async {
        let tls = settings.tls.as_deref().map(tls::acceptor).transpose()?;
        let app = prepare(&settings, shutdown.clone()).await?;
        let public = bind(&settings.listen).await?;
        let admin = bind(&settings.admin_listen).await?;
        anyhow::Ok((app, tls, public, admin))
    };
    let (app, tls, (public, public_address), (admin, admin_address)) = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        prepared = prepared => prepared?,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(public, api::lean::Public::new(&app), tls, shutdown.clone()));
    tasks.spawn(serve(admin, admin::router(Arc::clone(&app)), None, shutdown.clone()));
    let mut workers = JoinSet::new();
    workers.spawn(degrade::watch::run(Arc::clone(&app)));
    workers.spawn(sweeper::run(Arc::clone(&app), settings.sweep_interval));
    if let Some(payments) = &app.payments {
        workers.spawn(settle::worker::run(Arc::clone(&app), Arc::clone(payments)));
    }
    process::announce(&public_address, &admin_address)?;

    shutdown.cancelled().await;
    tracing::info!("stopping: no new connections, requests under way are finished");
    drain(&app, tasks, settings.drain).await;
    workers.abort_all();
    Ok(())
}

async fn prepare(settings: &Settings, shutdown: CancellationToken) -> Result<Arc<App>> {
    let session = settings.bug.map_or("", bugs::session_options);
    let store = Store::new(&settings.database_url, settings.limits, session)?;
    let without = bugs::relaxed_guards(settings.bug);
    let soundness =
        schema::prepare(&store, settings.startup_patience, without, settings.slow.and_then(Slow::lock)).await?;
    let Settings { shards, queue, .. } = *settings;
    let ground = Ground { store: store.clone(), redis: settings.redis.clone(), shards, queue };
    let inventory: Arc<dyn Inventory> = match settings.deduct {
        Deduct::Payment => Arc::new(AtPayment::new(store.clone())),
        Deduct::Order | Deduct::Hold => settings.strategy.build(&ground)?,
    };
    let inventory = match settings.bug {
        None => inventory,
        Some(bug) => {
            tracing::warn!(%bug, "a seeded bug is planted: this service is wrong on purpose");
            bugs::plant(bug, inventory, &ground)?
        }
    };
    let metrics = Metrics::default();
    metrics.strategy(settings.strategy);
    metrics.register_more(|registry| inventory.register(registry));
    let (switches, breakers) = (Switches::with(&settings.switches), metrics.breakers());
    let dependency = |name, address: &Option<Address>, slow| {
        address.clone().map(|address| Dependency::new(name, address, slow, &switches, &breakers))
    };
    if let Some(slow) = settings.slow {
        tracing::warn!(%slow, "a slow-down is planted: this service is slower on purpose");
    }
    Ok(Arc::new(App {
        store,
        inventory,
        deduct: settings.deduct,
        abuse: Default::default(),
        clock: Default::default(),
        sessions: Sessions::new(&secret(settings)?),
        challenges: Challenges::new(&random_secret()?),
        in_flight: InFlight::new(MAX_KEYS_IN_FLIGHT),
        refusals: Refusals::open(settings.refusals.as_deref())?,
        pages: Default::default(),
        shelves: Default::default(),
        degrade: Degrade::new(metrics.degrade()),
        admission: Admission::new(settings.max_in_flight),
        profiles: dependency("profile", &settings.profile, extras::SLOW).map(Profiles::new),
        payments: dependency("payment", &settings.payment, client::CALL).map(|it| Arc::new(Payments::new(it))),
        switches,
        metrics,
        snapshots: Default::default(),
        probe: Default::default(),
        bug: settings.bug,
        slow_pages: settings.slow.and_then(SlowPages::of),
        slow_orders: settings.slow.map(SlowOrders::of),
        damaged: AtomicBool::new(soundness == Soundness::Damaged),
        request_timeout: settings.request_timeout,
        trace_requests: settings.trace_requests,
        shutdown,
    }))
}

fn secret(settings: &Settings) -> Result<Vec<u8>> {
    if let Some(secret) = &settings.secret {
        return Ok(secret.0.clone());
    }
    tracing::info!("no --secret given: sessions end with this process");
    random_secret()
}

fn random_secret() -> Result<Vec<u8>> {
    let mut secret = vec![0; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("opening the system's random source")?;
    std::io::Read::read_exact(&mut source, &mut secret).context("reading the system's random source")?;
    Ok(secret)
}

async fn serve(listener: Bound, what: impl Serves, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
    listener.serve(what, tls, shutdown.cancelled_owned()).await;
}

async fn drain(app: &App, mut tasks: JoinSet<()>, patience: Duration) {
    let finished = async {
        while tasks.join_next().await.is_some() {}
        // Requests whose client has gone are no longer tied to a connection.
        while app.admission.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        app.inventory.close().await;
    };
    if timeout(patience, finished).await.is_err() {
        tracing::warn!(in_flight = app.admission.in_flight(), "requests were cut off at the end of the drain");
    }
}
