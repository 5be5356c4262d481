//! What a run with containers may leave behind, and how the guard takes it away. The guard has no runtime of its own, so each
//! question to the engine brings one.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
use testcontainers::bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;

use super::{LABEL, status, words};
use crate::stack::leftovers::{Leftover, Run};

/// How long the engine may take to answer before it is taken for dead. Runs without containers ask it, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the engine may still be at work on what it was asked for last. It lists only what is done.
const AFTERMATH: Duration = Duration::from_millis(250);

/// The containers of a run, with their volumes.
pub struct Containers;

impl Leftover for Containers {
    fn what(&self) -> &'static str {
        "container"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        let filters = of(run);
        ask(|docker| Box::pin(async move { containers(&docker, &filters).await })).unwrap_or_default()
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        let id = found.to_owned();
        ask(|docker| Box::pin(async move { remove_container(&docker, &id).await }))
    }
}

/// The networks of a run. They go last, since a container that the harness asked for with its last breath is in one of them.
pub struct Networks;

impl Leftover for Networks {
    fn what(&self) -> &'static str {
        "container network"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        let filters = of(run);
        let networks = |docker: Docker| async move {
            let labelled = ListNetworksOptionsBuilder::new().filters(&filters).build();
            let networks = docker.list_networks(Some(labelled)).await?;
            Ok(networks.into_iter().filter_map(|network| network.id).collect())
        };
        ask(|docker| Box::pin(networks(docker))).unwrap_or_default()
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        let id = found.to_owned();
        let removal = |docker: Docker| async move {
            tokio::time::sleep(AFTERMATH).await;
            let inside = HashMap::from([("network".to_owned(), vec![id.clone()])]);
            for container in containers(&docker, &inside).await? {
                remove_container(&docker, &container).await?;
            }
            unless_gone(docker.remove_network(&id).await)
        };
        ask(|docker| Box::pin(removal(docker)))
    }
}

fn of(run: &Run) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{LABEL}={}", run.name())])])
}

async fn containers(docker: &Docker, filters: &HashMap<String, Vec<String>>) -> Result<Vec<String>, EngineError> {
    let all = ListContainersOptionsBuilder::new().all(true).filters(filters).build();
    let containers = docker.list_containers(Some(all)).await?;
    Ok(containers.into_iter().filter_map(|container| container.id).collect())
}

async fn remove_container(docker: &Docker, id: &str) -> Result<(), EngineError> {
    let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    unless_gone(docker.remove_container(id, Some(force)).await)
}

/// Something that is gone already is as good as removed.
fn unless_gone(removed: Result<(), EngineError>) -> Result<(), EngineError> {
    match removed {
        Err(error) if status(&error) == Some(404) => Ok(()),
        removed => removed,
    }
}

/// Asks the engine, on a thread of its own since whoever calls may be part of a runtime.
fn ask<T: Send>(
    question: impl FnOnce(Docker) -> BoxFuture<'static, Result<T, EngineError>> + Send,
) -> Result<T, String> {
    let answer = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let docker = docker_client_instance().await.map_err(|error| error.to_string())?;
            let alive = tokio::time::timeout(PATIENCE, docker.ping()).await;
            alive.map_err(|_| "the Docker engine does not answer".to_owned())?.map_err(|error| words(&error))?;
            question(docker).await.map_err(|error| words(&error))
        })
    };
    std::thread::scope(|scope| scope.spawn(answer).join()).unwrap_or_else(|_| Err("the question failed".to_owned()))
}
