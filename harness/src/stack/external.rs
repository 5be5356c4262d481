//! An external stack: a service that is already running, on this machine or in a private network that the scenario names.
//! We put a proxy in front of it, and nothing else.

use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::control::Control;
use super::leftovers::Run;
use super::{Heirs, Provision, Stack, StackError};
use crate::fault::proxy::{Endpoint, Proxy, ProxyConfig};
use crate::load::client::Entry;
use crate::scenario::{External, Scenario, topology, value};

const CONNECTION: &str = "load.connection";
const ADDRESS: &str = "target.external.address";
const PAYMENTS: &str = "target.external.payments";
/// The key of the audit listener.
pub const AUDIT: &str = "target.external.audit";

/// Puts a proxy in front of the service and checks that both its listeners answer.
///
/// # Errors
/// An address is not of this machine, or nobody answers there.
pub async fn up(scenario: &Scenario, external: &External, provision: &Provision) -> Result<Stack, StackError> {
    let address = endpoint_of(ADDRESS, external.address.get_ref(), external)?;
    reachable(ADDRESS, &address).await?;
    let control = match &external.audit {
        None => None,
        Some(audit) => {
            let address = endpoint_of(AUDIT, audit.get_ref(), external)?;
            reachable(AUDIT, &address).await?;
            Some(Control::new(&address)?)
        }
    };
    let control = match (control, &external.payments) {
        (Some(control), Some(payments)) => {
            let address = endpoint_of(PAYMENTS, payments.get_ref(), external)?;
            reachable(PAYMENTS, &address).await?;
            Some(control.with_payments(&address)?)
        }
        (control, _) => control,
    };
    let proxy = Proxy::start(ProxyConfig {
        name: topology::ENTRANCE.to_owned(),
        listen: provision.listen,
        upstream: address.clone(),
        protocol: scenario.spoken(),
        seed: scenario.seed,
    })?;
    let entry = Entry::of(scenario, proxy.listen_addr(), None).map_err(StackError::Other)?;
    shakes_hands(&entry).await?;
    let addresses = vec![
        ("service (through its proxy)".to_owned(), format!("{}://{}", entry.scheme(), entry.address)),
        ("service, directly".to_owned(), format!("{}://{address}", entry.scheme())),
    ];
    let run = Run::of_id(&provision.run_id);
    let (links, notes, hosts) = (vec![proxy], Vec::new(), Vec::new());
    Ok(Stack {
        links,
        components: Vec::new(),
        control,
        entry,
        addresses,
        notes,
        hosts,
        run,
        heirs: Heirs::default(),
        guard: None,
    })
}

/// Connects once with all that the scenario says of connections, since a certificate that does not fit would otherwise only
/// show as requests that are never sent.
async fn shakes_hands(entry: &Entry) -> Result<(), StackError> {
    let attempt = tokio::time::timeout(Duration::from_secs(3), entry.connect()).await;
    let what = match attempt {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no connection was agreed on within 3 s".to_owned(),
    };
    let help = "`ca` must hold the certificate that signed the service's, `name` must stand in the service's; see that the \
                service speaks TLS on this address, and HTTP/2 if that is asked for";
    Err(StackError::Setting { key: CONNECTION, what, help: help.to_owned() })
}

/// The place under a key. That it may be a target was checked with the file.
fn endpoint_of(key: &'static str, text: &str, external: &External) -> Result<Endpoint, StackError> {
    let help = "an address of this machine, such as 127.0.0.1:8080".to_owned();
    value::endpoint(text, &external.allowed()).map_err(|what| StackError::Setting { key, what, help })
}

async fn reachable(key: &'static str, at: &Endpoint) -> Result<(), StackError> {
    let connect = async {
        match at {
            Endpoint::Tcp(address) => TcpStream::connect(address).await.map(drop),
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    match tokio::time::timeout(Duration::from_secs(3), connect).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StackError::Setting {
            key,
            what: format!("nobody answers at {at} ({error})"),
            help: "start the service first, or correct the address".to_owned(),
        }),
        Err(_) => Err(StackError::Setting {
            key,
            what: format!("{at} did not answer within 3 s"),
            help: "see whether the service is alive, or correct the address".to_owned(),
        }),
    }
}
