//! A service of somebody else: one that is already running, on this machine or in a private network that the scenario names, or
//! one whose processes the scenario says how to start. We put a proxy in front of it, and one on each link that it names.

use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};

use self::books::Books;
use self::hooks::{CleanUp, Environment};
use self::process::Foreign;
use super::control::{Control, ItemSetup};
use super::leftovers::Run;
use super::meters::Meters;
use super::{Component, Heirs, Provision, Stack, StackError};
use crate::fault::proxy::{Endpoint, Proxy, ProxyConfig};
use crate::load::client::Entry;
use crate::scenario::{External, Scenario, topology, value};

pub mod books;
pub mod hooks;
pub mod process;

const CONNECTION: &str = "load.connection";
const ADDRESS: &str = "target.external.address";
const PAYMENTS: &str = "target.external.payments";
const LINK: &str = "target.external.link";
const PROCESS: &str = "target.external.process";
const METRICS: &str = "target.external.metrics";
/// The key of the audit listener.
pub const AUDIT: &str = "target.external.audit";
/// The key of the command that sets a shop up.
pub const SETUP: &str = "target.external.setup";

/// What the scenario says of a shop besides its address: how its books are read, how it is set up and cleaned up.
#[derive(Debug)]
pub struct Shop {
    /// Its books, where there is no audit listener.
    pub books: Option<Books>,
    /// Takes the traces of the run away.
    pub cleanup: Option<CleanUp>,
    setup: Option<Vec<String>>,
    told: Environment,
}

impl Shop {
    fn of(external: &External, run_id: &str) -> Shop {
        let told = hooks::environment(run_id, external.address.get_ref());
        let sql = external.sql.as_ref().map(|sql| {
            let queries = sql.get_ref().clone();
            let config = crate::scenario::external::postgres(queries.url.get_ref(), &external.allowed());
            let config = Box::new(config.expect("a validated scenario names a Postgres"));
            Books::Sql { config, queries, prefix: crate::run::user_prefix(run_id) }
        });
        let command = external.audit_command.as_ref().map(|command| {
            let command = command.get_ref().clone();
            Books::Command { command, told: told.clone() }
        });
        let cleanup = external.cleanup.as_ref().map(|spec| CleanUp::new(spec.get_ref().clone(), told.clone()));
        let setup = external.setup.as_ref().map(|command| command.get_ref().clone());
        Shop { books: sql.or(command), cleanup, setup, told }
    }

    /// Has the shop set up by its command; false if it has none.
    ///
    /// # Errors
    /// The command failed.
    pub async fn set_up(&self, items: &[ItemSetup]) -> Result<bool, StackError> {
        let Some(command) = &self.setup else { return Ok(false) };
        let mut told = self.told.clone();
        told.extend(hooks::of_items(items));
        hooks::run(SETUP, command, &told).await?;
        Ok(true)
    }
}

/// Starts what the scenario says how to start, puts proxies in front of the service and on its links, and checks that the service
/// and its audit listeners answer.
///
/// # Errors
/// An address is not of this machine, nobody answers there, or a process does not come up. Nothing is left running.
pub async fn up(scenario: &Scenario, external: &External, provision: &Provision) -> Result<Stack, StackError> {
    let address = endpoint_of(ADDRESS, external.address.get_ref(), external)?;
    let shop = Shop::of(external, &provision.run_id);
    // The links first: a process may want its database at once.
    let behind = links(scenario, external)?;
    let components = processes(external, &address, &shop.told, provision).await?;
    let by = Instant::now() + external.ready_within.map_or(Duration::ZERO, |limit| limit.0);
    reachable(ADDRESS, &address, by).await?;
    let control = match &external.audit {
        None => None,
        Some(audit) => {
            let address = endpoint_of(AUDIT, audit.get_ref(), external)?;
            reachable(AUDIT, &address, by).await?;
            Some(Control::new(&address)?)
        }
    };
    let meters = match (&external.metrics, &control) {
        (Some(metrics), _) => {
            let metrics = metrics.get_ref();
            Some(Meters::new(&endpoint_of(METRICS, metrics.place().0, external)?, metrics)?)
        }
        (None, Some(control)) => Some(control.meters()?),
        (None, None) => None,
    };
    let control = match (control, &external.payments) {
        (Some(control), Some(payments)) => {
            let address = endpoint_of(PAYMENTS, payments.get_ref(), external)?;
            reachable(PAYMENTS, &address, by).await?;
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
    let mut entry = Entry::of(scenario, proxy.listen_addr(), None).map_err(StackError::Other)?;
    entry.tag(external.tag().map(|header| (header, provision.run_id.as_str())));
    shakes_hands(&entry).await?;
    let mut addresses = vec![
        ("service (through its proxy)".to_owned(), format!("{}://{}", entry.scheme(), entry.address)),
        ("service, directly".to_owned(), format!("{}://{address}", entry.scheme())),
    ];
    addresses.extend(behind.iter().map(|link| (format!("{} (proxy)", link.name()), link.listen_addr().to_string())));
    let run = Run::of_id(&provision.run_id);
    let (mut links, hosts) = (vec![proxy], Vec::new());
    links.extend(behind);
    Ok(Stack {
        links,
        components,
        control,
        meters,
        shop: Some(shop),
        entry,
        addresses,
        notes: notes(external),
        hosts,
        run,
        heirs: Heirs::default(),
        guard: None,
    })
}

/// What a reader of the report should know of what the scenario leaves out.
fn notes(external: &External) -> Vec<String> {
    let untold = "nobody set the sale up (no target.external.setup and no audit listener): that the scenario's stock, opening and \
                  limits are the shop's own is taken on trust";
    (!external.is_set_up()).then(|| untold.to_owned()).into_iter().collect()
}

/// A proxy on each link behind the service.
fn links(scenario: &Scenario, external: &External) -> Result<Vec<Proxy>, StackError> {
    let start = |(name, link): (&String, &toml::Spanned<crate::scenario::external::ShopLink>)| {
        let link = link.get_ref();
        let listen = link.listen.parse().map_err(|_| StackError::Setting {
            key: LINK,
            what: format!("`{}` is no address", link.listen),
            help: "an address on loopback, such as 127.0.0.1:6432".to_owned(),
        })?;
        let upstream = endpoint_of(LINK, &link.upstream, external)?;
        let protocol = link.protocol.protocol();
        Ok(Proxy::start(ProxyConfig { name: name.clone(), listen, upstream, protocol, seed: scenario.seed })?)
    };
    external.link.iter().map(start).collect()
}

/// The processes that the scenario names; those that do not run are started.
async fn processes(
    external: &External,
    address: &Endpoint,
    told: &Environment,
    provision: &Provision,
) -> Result<Vec<Box<dyn Component>>, StackError> {
    let mut components: Vec<Box<dyn Component>> = Vec::new();
    for (role, process) in &external.process {
        let process = process.get_ref();
        let ready = match &process.ready {
            Some(ready) => endpoint_of(PROCESS, ready, external)?,
            None => address.clone(),
        };
        if process.pid_file.is_none()
            && process.container.is_none()
            && reachable(PROCESS, &ready, Instant::now()).await.is_ok()
        {
            return Err(StackError::Setting {
                key: PROCESS,
                what: format!("{role} is to be started, and somebody answers at {ready} already"),
                help: "end the one that runs; or name it by its pid_file or its container instead".to_owned(),
            });
        }
        let foreign = Foreign::new(role, process, told.clone(), &provision.logs, ready).await?;
        foreign.provision().await?;
        components.push(Box::new(foreign));
    }
    // They may need each other before they answer.
    for component in &components {
        component.ready(Duration::from_secs(60)).await?;
    }
    Ok(components)
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

/// Asks once, and again until that time.
async fn reachable(key: &'static str, at: &Endpoint, by: Instant) -> Result<(), StackError> {
    loop {
        let asked = answers(key, at).await;
        if asked.is_ok() || Instant::now() >= by {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn answers(key: &'static str, at: &Endpoint) -> Result<(), StackError> {
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
            help: "start the service first, give it time with target.external.ready_within, or correct the address"
                .to_owned(),
        }),
        Err(_) => Err(StackError::Setting {
            key,
            what: format!("{at} did not answer within 3 s"),
            help: "see whether the service is alive, or correct the address".to_owned(),
        }),
    }
}
