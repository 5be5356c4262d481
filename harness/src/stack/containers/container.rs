//! One container: started, watched, killed, paused, cut off from its network, held to a part of a processor, and started again
//! on the same data.

use std::mem::ManuallyDrop;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
use testcontainers::bollard::models::{
    ContainerState, ContainerUpdateBody, EndpointIpamConfig, EndpointSettings, NetworkConnectRequest,
    NetworkDisconnectRequest,
};
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions,
    StatsOptionsBuilder,
};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::io::AsyncWriteExt;

use super::image::Image;
use super::{LABEL, Yard, refused, status, words};
use crate::stack::cgroup::{self, Throttled};
use crate::stack::database::Database;
use crate::stack::process::tail_of;
use crate::stack::redis::Cache;
use crate::stack::{Component, Quota, StackError};

/// How long a container may take to be gone after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// Asks the container at an address whether it does its work.
pub type Probe = fn(SocketAddr) -> BoxFuture<'static, Result<(), String>>;

/// How a container is run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `postgres`, `redis`, ...
    pub role: &'static str,
    /// Its number in the run's network, from 1 on.
    pub number: usize,
    /// The port that it listens on.
    pub port: u16,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, String)>,
    /// The program and its arguments, as the image takes them.
    pub command: Vec<String>,
    /// The signal on which it ends in an orderly way.
    pub farewell: &'static str,
    /// Whether it does its work.
    pub probe: Probe,
    /// How it is asked, for a Postgres.
    pub database: Option<fn(SocketAddr) -> Database>,
    /// How it is asked, for a Redis.
    pub cache: Option<fn(SocketAddr) -> Cache>,
    /// Where what it writes goes.
    pub log: PathBuf,
}

/// A container of a stack.
#[derive(Debug)]
pub struct Container {
    spec: Spec,
    docker: Docker,
    network: String,
    address: Ipv4Addr,
    // Never dropped, which would remove it: that is the guard's business, as for everything else of a run.
    container: ManuallyDrop<ContainerAsync<GenericImage>>,
    /// How it ended, if it has since it was started last. Each start has a place of its own, so that who watches the one
    /// before cannot speak of this one.
    ended: Mutex<Arc<Mutex<Option<String>>>>,
}

impl Container {
    /// Makes a container in the run's network and starts it.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn run(yard: &Yard, image: &Image, spec: Spec) -> Result<Container, StackError> {
        let address = yard.address(spec.number)?;
        let (name, tag) = image.parts();
        let request = GenericImage::new(name, tag)
            .with_network(yard.network.as_str())
            .with_container_name(yard.run.thing(spec.role))
            .with_label(LABEL, yard.run.name())
            .with_cmd(spec.command.clone())
            .with_shm_size(256 << 20)
            // Nobody but the proxies is to find it.
            .with_host_config_modifier(|host| host.publish_all_ports = Some(false));
        let request =
            spec.environment.iter().fold(request, |request, (name, value)| request.with_env_var(*name, value));
        let container = request.start().await.map_err(|error| {
            StackError::Other(format!("cannot start {} as a container of {image}: {error}", spec.role))
        })?;
        let (docker, network) = (yard.docker.clone(), yard.network.clone());
        let container = ManuallyDrop::new(container);
        let container = Container { spec, docker, network, address, container, ended: Mutex::default() };
        // It was given some address. The one that is its own is kept through all that happens to it.
        container.leave().await?;
        container.join().await?;
        container.watch();
        Ok(container)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        (self.address, self.spec.port).into()
    }

    fn id(&self) -> &str {
        self.container.id()
    }

    fn cannot(&self, what: &str) -> impl FnOnce(EngineError) -> StackError {
        refused(format!("cannot {what} the container of {}", self.spec.role))
    }

    async fn state(&self) -> Result<ContainerState, StackError> {
        let found = self.docker.inspect_container(self.id(), None::<InspectContainerOptions>).await;
        Ok(found.map_err(self.cannot("look at"))?.state.unwrap_or_default())
    }

    async fn join(&self) -> Result<(), StackError> {
        let own = EndpointIpamConfig { ipv4_address: Some(self.address.to_string()), ..EndpointIpamConfig::default() };
        let endpoint = EndpointSettings { ipam_config: Some(own), ..EndpointSettings::default() };
        let request = NetworkConnectRequest { container: self.id().to_owned(), endpoint_config: Some(endpoint) };
        match self.docker.connect_network(&self.network, request).await {
            // It is there already, as when healing is tried again.
            Err(error) if words(&error).contains("already exists in network") => Ok(()),
            joined => joined.map_err(self.cannot("connect")),
        }
    }

    async fn leave(&self) -> Result<(), StackError> {
        let request = NetworkDisconnectRequest { container: self.id().to_owned(), force: Some(true) };
        self.docker.disconnect_network(&self.network, request).await.map_err(self.cannot("disconnect"))
    }

    /// Keeps its output in the log, and sees how it ends. Each start writes the log anew and whole: the engine keeps what was
    /// written before.
    fn watch(&self) {
        let ended = Arc::new(Mutex::new(None));
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended.clone();
        let (docker, id, log) = (self.docker.clone(), self.id().to_owned(), self.spec.log.clone());
        tokio::spawn(async move {
            if let Err(error) = keep_log(&docker, &id, &log).await {
                tracing::warn!("cannot write the log {}: {error}", log.display());
            }
            // The output ends with the container, or when the engine loses its patience.
            loop {
                let found = docker.inspect_container(&id, None::<InspectContainerOptions>).await;
                let state = found.map(|found| found.state.unwrap_or_default());
                let how = match state {
                    Ok(state) if state.running == Some(true) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    Ok(state) => format!("exit code {}", state.exit_code.unwrap_or_default()),
                    Err(error) => words(&error),
                };
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
                break;
            }
        });
    }

    async fn signal(&self, signal: &str) -> Result<(), StackError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.docker.kill_container(self.id(), Some(options)).await {
            // It is not running.
            Err(error) if status(&error) == Some(409) => Ok(()),
            sent => sent.map_err(self.cannot("signal")),
        }
    }

    /// Waits until it runs no more; false if it still does after the limit.
    async fn gone(&self, limit: Duration) -> Result<bool, StackError> {
        let end = Instant::now() + limit;
        while self.state().await?.running == Some(true) {
            if Instant::now() > end {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(true)
    }

    async fn get_ready(&self, limit: Duration) -> Result<(), StackError> {
        let role = self.spec.role;
        let end = Instant::now() + limit;
        loop {
            let Err(error) = (self.spec.probe)(self.address()).await else { return Ok(()) };
            if let Some(how) = self.ended() {
                return Err(StackError::Other(format!(
                    "the container of {role} ended with {how}:\n{}",
                    self.log_tail()
                )));
            }
            if Instant::now() > end {
                return Err(StackError::Other(format!(
                    "{role} does not answer at {} after {limit:?}: {error}\n{}",
                    self.address(),
                    self.log_tail()
                )));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    fn log_tail(&self) -> String {
        tail_of(&self.spec.log)
    }
}

async fn keep_log(docker: &Docker, id: &str, path: &Path) -> std::io::Result<()> {
    let mut file = tokio::fs::File::create(path).await?;
    let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
    let mut output = std::pin::pin!(docker.logs(id, Some(options)));
    while let Some(Ok(chunk)) = output.next().await {
        file.write_all(&chunk.into_bytes()).await?;
        file.flush().await?;
    }
    Ok(())
}

/// The processes in a container, as this machine numbers them: their control group is named after it. None where the engine
/// runs them somewhere else.
fn processes_of(id: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id)))
        .collect()
}

impl Component for Container {
    fn role(&self) -> &'static str {
        self.spec.role
    }

    fn pids(&self) -> Vec<i32> {
        processes_of(self.id())
    }

    fn ended(&self) -> Option<String> {
        let last = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async {
            let running = self.state().await?.running == Some(true);
            if !running {
                let started = self.docker.start_container(self.id(), None::<StartContainerOptions>).await;
                started.map_err(self.cannot("start"))?;
                self.watch();
            }
            Ok(())
        })
    }

    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(self.get_ready(limit))
    }

    fn kill(&self) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async {
            let hit = self.pids().len();
            // All of them die with the first process, as in a power cut.
            self.signal("SIGKILL").await?;
            if self.gone(DEATH).await? {
                return Ok(hit);
            }
            Err(StackError::Other(format!("the container of {} does not die", self.spec.role)))
        })
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<usize, StackError>> {
        Box::pin(async move {
            let hit = self.pids().len();
            if self.state().await?.paused.unwrap_or(false) != paused {
                let done = if paused { self.container.pause().await } else { self.container.unpause().await };
                let what = if paused { "pause" } else { "go on with" };
                done.map_err(|e| StackError::Other(format!("cannot {what} the container of {}: {e}", self.spec.role)))?;
            }
            Ok(hit)
        })
    }

    fn disconnect(&self, off: bool) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move { if off { self.leave().await } else { self.join().await } })
    }

    fn stop(&self, limit: Duration) -> BoxFuture<'_, Result<bool, StackError>> {
        Box::pin(async move {
            self.signal(self.spec.farewell).await?;
            self.gone(limit).await
        })
    }

    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { self.database()?.wal_bytes().await.ok() })
    }

    fn database(&self) -> Option<Database> {
        self.spec.database.map(|reach| reach(self.address()))
    }

    fn cache(&self) -> Option<Cache> {
        self.spec.cache.map(|reach| reach(self.address()))
    }

    fn quota(&self) -> Option<&dyn Quota> {
        Some(self)
    }
}

impl Quota for Container {
    fn limit(&self, cpus: Option<f64>) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move {
            // A quota below zero is none. Zero would leave it as it is.
            let (quota, period) = cpus.map_or((-1, cgroup::PERIOD_US), cgroup::quota);
            let limits = ContainerUpdateBody {
                cpu_quota: Some(quota),
                cpu_period: Some(period as i64),
                ..ContainerUpdateBody::default()
            };
            self.docker.update_container(self.id(), limits).await.map_err(self.cannot("limit"))
        })
    }

    fn throttled(&self) -> BoxFuture<'_, Result<Throttled, StackError>> {
        Box::pin(async {
            let once = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
            let mut stats = std::pin::pin!(self.docker.stats(self.id(), Some(once)));
            let Some(stats) = stats.next().await.transpose().map_err(self.cannot("measure"))? else {
                return Ok(Throttled::default());
            };
            let data = stats.cpu_stats.and_then(|cpu| cpu.throttling_data).unwrap_or_default();
            Ok(Throttled {
                periods: data.periods.unwrap_or(0),
                throttled: data.throttled_periods.unwrap_or(0),
                time: Duration::from_nanos(data.throttled_time.unwrap_or(0)),
            })
        })
    }
}
