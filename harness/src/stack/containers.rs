//! Containers: the databases of a stack as containers of this machine's Docker engine, in a private network of the run.
//!
//! This module owns how the engine is asked: images, the network, what belongs to a run. What one container can be made
//! to suffer is [`container`]'s business, and what it is for, that of whoever starts it.
//!
//! The containers are reached by their addresses in the network, not by published ports, which cost half the throughput.
//! The addresses are fixed, since the proxies know them, and a container that was started again would get another. The
//! network leads nowhere else, so nothing in it reaches further than this machine.
//!
//! Everything carries the run's name as its label, by which the guard finds and removes it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
use testcontainers::bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use testcontainers::bollard::query_parameters::InspectNetworkOptions;
use testcontainers::core::client::docker_client_instance;

use super::StackError;
use super::leftovers::Run;
use crate::doctor;

pub mod container;
pub mod databases;
mod image;
pub mod leftovers;

/// What belongs to a run has the run's name under this label.
const LABEL: &str = "seckill.run";

/// How often a private network is asked for, since somebody else may take its addresses at the same moment.
const TRIES: usize = 8;

/// The network of a run, and the engine it is in.
#[derive(Debug, Clone)]
pub struct Yard {
    docker: Docker,
    network: String,
    subnet: Ipv4Net,
    run: Run,
}

impl Yard {
    /// Makes the run's network. The guard removes it again.
    ///
    /// # Errors
    /// No engine answers, or it refuses.
    pub async fn open(run: &Run) -> Result<Yard, StackError> {
        let docker = engine().await?;
        let network = run.thing("network");
        let subnet = network_of(&docker, &network, run).await?;
        Ok(Yard { docker, network, subnet, run: run.clone() })
    }

    /// The address by which containers see this machine.
    ///
    /// # Errors
    /// The network is too small.
    pub fn gateway(&self) -> Result<Ipv4Addr, StackError> {
        self.address(0)
    }

    /// The address of the n-th container; the first one is the engine's own.
    fn address(&self, number: usize) -> Result<Ipv4Addr, StackError> {
        let free = self.subnet.hosts().nth(number);
        free.ok_or_else(|| StackError::Other(format!("the network {} has too few addresses", self.subnet)))
    }
}

/// Whether a `DOCKER_HOST` leads to this machine.
fn is_of_this_machine(host: &str) -> bool {
    let Some((scheme, rest)) = host.split_once("://") else { return false };
    match scheme {
        "unix" => true,
        "tcp" | "http" | "https" => {
            let place = rest.trim_end_matches('/');
            let place = place.strip_prefix("localhost:").map_or(place.to_owned(), |port| format!("127.0.0.1:{port}"));
            place.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        }
        _ => false,
    }
}

/// The engine, if one answers. It has to be of this machine: what is in its containers is killed and paused.
pub(crate) async fn engine() -> Result<Docker, StackError> {
    let missing = |why: String| StackError::Missing {
        why: format!("containers need a Docker engine, and none answers: {why}"),
        remedy: doctor::docker_remedy(),
    };
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !is_of_this_machine(&host)
    {
        return Err(StackError::Missing {
            why: format!(
                "DOCKER_HOST names {host}, which is not this machine, and what runs there is not broken from here"
            ),
            remedy: "unset DOCKER_HOST, or name a socket or an address on loopback: unix:///var/run/docker.sock"
                .to_owned(),
        });
    }
    let docker = docker_client_instance().await.map_err(|error| missing(error.to_string()))?;
    match tokio::time::timeout(Duration::from_secs(10), docker.ping()).await {
        Ok(Ok(_)) => Ok(docker),
        Ok(Err(error)) => Err(missing(error.to_string())),
        Err(_) => Err(missing("nothing within 10 s".to_owned())),
    }
}

fn refused(what: impl Into<String>) -> impl FnOnce(EngineError) -> StackError {
    let what = what.into();
    move |error| StackError::Other(format!("{what}: {}", words(&error)))
}

/// What the engine says, without the library's words about it.
pub(crate) fn words(error: &EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The status of the engine's answer, if it answered.
fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Makes a network with a subnet of our own choice, without which the engine fixes no address. The choice is the engine's,
/// all the same, since it knows which are free: it makes a network first whose subnet is then taken over.
async fn network_of(docker: &Docker, name: &str, run: &Run) -> Result<Ipv4Net, StackError> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let probe = format!("{name}-probe");
        docker
            .create_network(network(&probe, None, run))
            .await
            .map_err(refused("the Docker engine makes no network"))?;
        let found = docker.inspect_network(&probe, None::<InspectNetworkOptions>).await;
        docker.remove_network(&probe).await.map_err(refused("the Docker engine does not remove a network"))?;
        let found = found.map_err(refused("the Docker engine does not tell of its network"))?;
        let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let subnet = configs.iter().find_map(|config| config.subnet.as_ref()?.parse::<Ipv4Net>().ok());
        let Some(subnet) = subnet else {
            return Err(StackError::Other("the Docker engine gives its networks no IPv4 addresses".to_owned()));
        };
        match docker.create_network(network(name, Some(subnet), run)).await {
            Ok(_) => return Ok(subnet),
            Err(error) => last = words(&error),
        }
    }
    Err(StackError::Other(format!("the Docker engine makes no network with fixed addresses: {last}")))
}

fn network(name: &str, subnet: Option<Ipv4Net>, run: &Run) -> NetworkCreateRequest {
    let config = |subnet: Ipv4Net| IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        internal: Some(true),
        ipam: subnet.map(|subnet| Ipam { config: Some(vec![config(subnet)]), ..Ipam::default() }),
        labels: Some(HashMap::from([(LABEL.to_owned(), run.name().to_owned())])),
        ..NetworkCreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_of_another_machine_is_none() {
        for host in
            ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "http://localhost:2375/", "tcp://[::1]:2376"]
        {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in
            ["tcp://192.0.2.7:2375", "ssh://root@db", "tcp://docker:2375", "tcp://127.0.0.1.evil.example:1", "10.0.0.1"]
        {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
