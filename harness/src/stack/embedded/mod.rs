//! The stack of the reference service: a private Postgres and the service, a proxy on each link.
//!
//! The processes listen on Unix sockets in the run's private folder, so runs side by side cannot get into each other's way,
//! and no port is free one moment and taken the next. Only the proxies listen on TCP, and they do so for as long as the run
//! lasts. Databases in containers are in a network of the run's own instead.
//!
//! Each role has a file of its own here; what all roles of `seckill-target` have in common is in [`program`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::group::Group;
use super::guard::Guard;
use super::host::Host;
use super::leftovers::Run;
use super::{Component, Heirs, LOCAL, Local, Provision, Stack, StackError};
use crate::doctor;
use crate::fault::proxy::{Endpoint, Proxy, ProxyConfig};
use crate::load::client::Entry;
use crate::scenario::catalogue::Catalogue;
use crate::scenario::{Reference, Scenario, topology};

mod access;
mod databases;
mod dependency;
mod program;
mod service;

use access::Access;
use databases::{Databases, Programs};
use dependency::Dependency;
use service::Service;

/// How long a part may take to come up. Generous: a loaded machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the reference service can be asked for, as its program says.
///
/// # Errors
/// There is no such program, or it is of another version than the harness.
pub fn catalogue(reference: &Reference) -> Result<Catalogue, StackError> {
    let program = program_of(reference)?;
    let other = |why: String| StackError::Missing {
        why: format!("{} does not say what it has: {why}", program.display()),
        remedy: "build it and the harness together: cargo build --release --workspace".to_owned(),
    };
    let mut command = Command::new(&program);
    command.args(["catalogue", "--output", "json"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| other(error.to_string()))?;
    if !output.status.success() {
        return Err(other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| other(error.to_string()))
}

/// The program that plays the roles: the one that the scenario names, or the one that was built with the harness.
fn program_of(reference: &Reference) -> Result<PathBuf, StackError> {
    let Some(path) = &reference.program else { return Ok(doctor::target_binary()?) };
    doctor::is_executable(path).then(|| path.clone()).ok_or_else(|| StackError::Missing {
        why: format!("target.program: there is no program {}", path.display()),
        remedy: "build that version with cargo build --release -p target-service, and name its seckill-target"
            .to_owned(),
    })
}

/// What every role needs to be set up: where it may work, which program it is, what the scenario says.
struct Ground<'a> {
    scenario: &'a Scenario,
    reference: &'a Reference,
    /// `seckill-target`, with symbolic links resolved.
    program: PathBuf,
    /// The program of the service: another build of it, where the scenario names one.
    service: PathBuf,
    /// The private folder of the run.
    folder: PathBuf,
    logs: &'a Path,
    /// The hosts of roles that have one of their own.
    hosts: Vec<Host>,
}

impl Ground<'_> {
    /// Makes the folder that a role works in, and by which its processes are known.
    fn folder_of(&self, role: &str) -> Result<PathBuf, StackError> {
        let folder = self.folder.join(role);
        std::fs::create_dir_all(&folder).map_err(|e| StackError::io(format!("cannot make {}", folder.display()), e))?;
        Ok(folder)
    }

    /// The host that a role has to itself, if it has one.
    fn host(&self, role: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.role() == role)
    }

    /// Puts the proxy on a link, where whoever calls finds it; what the link speaks, the topology tells.
    fn link(&self, name: &'static str, upstream: Endpoint) -> Result<Proxy, StackError> {
        let caller = self.host(topology::ends(name).0);
        self.link_at(name, upstream, caller.map_or(LOCAL, |host| (host.outside, 0).into()))
    }

    fn link_at(
        &self,
        name: &'static str,
        upstream: Endpoint,
        listen: std::net::SocketAddr,
    ) -> Result<Proxy, StackError> {
        let links = self.scenario.links();
        let protocol = links.iter().find(|link| link.name == name).map_or_else(Default::default, |link| link.speaks);
        // By the name, so that another link in the stack does not change what is drawn on this one.
        let seed = name.bytes().fold(self.scenario.seed, |seed, byte| seed.rotate_left(5) ^ u64::from(byte));
        Ok(Proxy::start(ProxyConfig { name: name.to_owned(), listen, upstream, protocol, seed })?)
    }
}

/// Starts a component and waits until it does its work.
async fn start(component: &impl Local) -> Result<(), StackError> {
    component.process().start()?;
    component.ready(PATIENCE).await
}

/// Provisions Postgres, the service, the roles around it that the scenario asks for, and the proxies between them.
///
/// # Errors
/// What is missing or refused. Nothing is left running: the guard cleans up when it is dropped.
pub async fn up(scenario: &Scenario, reference: &Reference, provision: &Provision) -> Result<Stack, StackError> {
    let databases = Programs::find(reference)?;
    let program = canonical(&doctor::target_binary()?)?;
    let service = canonical(&program_of(reference)?)?;
    let mut programs = vec![program.clone(), service.clone()];
    programs.dedup();
    programs.extend(databases.paths()?);
    // The guard first: whatever is made before it is left behind by a kill in between.
    let folder = doctor::folder_for_sockets()?.join(format!("seckill-{}", provision.run_id));
    let guard = Guard::start(&folder, &programs)
        .map_err(|e| StackError::io("cannot start the guard that cleans up after the run", e))?;
    private_folder(&folder)?;
    let run = Run::of_id(&provision.run_id);
    let hosts = Host::all(&run, &scenario.hosts())?;
    let ground = Ground { scenario, reference, program, service, folder, logs: &provision.logs, hosts };
    let databases = Databases::up(&ground, &databases, &run).await?;
    let dependencies = dependency::up(&ground).await?;

    // Whoever the buyers reach first speaks TLS with them.
    let tls = reference.tls.then(|| ground.folder_of("tls")).transpose()?;
    let with_access = reference.access > 0;
    let service = Service::new(
        &ground,
        &databases.postgres.link,
        &dependencies,
        databases.to_redis(),
        tls.as_deref().filter(|_| !with_access),
    )?;
    let public = service.program.public.clone();
    let (entrance, to_service, access) = if with_access {
        let to_service = ground.link(topology::ACCESS_TO_SERVICE, public)?;
        let access = Access::all(&ground, &to_service, tls.as_deref())?;
        let entrance = ground.link_at(scenario.entrance(), access[0].public(), provision.listen)?;
        entrance.share_among(access.iter().map(Access::public).collect())?;
        (entrance, Some(to_service), access)
    } else {
        (ground.link_at(scenario.entrance(), public, provision.listen)?, None, Vec::new())
    };
    start(&service).await?;
    for process in &access {
        start(process).await?;
    }

    let certificate = tls.map(|folder| folder.join("certificate.pem"));
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| StackError::io(format!("cannot read {path:?}"), e));
    let pem = certificate.as_ref().map(read).transpose()?;
    let entry = Entry::of(scenario, entrance.listen_addr(), pem.as_deref()).map_err(StackError::Other)?;

    let first = if with_access { topology::ACCESS } else { "service" };
    let mut addresses = vec![
        (format!("{first} (through its proxy)"), format!("{}://{}", entry.scheme(), entry.address)),
        ("service, audit listener".to_owned(), format!("unix:{}", service.program.admin.display())),
        ("postgres (through its proxy)".to_owned(), format!("{}", databases.postgres.link.listen_addr())),
        ("postgres, directly".to_owned(), databases.postgres.endpoint.to_string()),
    ];
    addresses.extend(certificate.map(|path| (format!("{first}, its certificate"), path.display().to_string())));
    addresses.extend(dependencies.iter().map(Dependency::address));

    let mut control = service.program.control.clone();
    if let Some(payment) = dependencies.iter().find(|dependency| dependency.name() == dependency::PAYMENT) {
        control = control.with_payments(&Endpoint::Unix(payment.program.admin.clone()))?;
    }
    let Databases { postgres, others, notes } = databases;
    let mut links: Vec<Proxy> = [Some(entrance), to_service, Some(postgres.link)].into_iter().flatten().collect();
    let mut components: Vec<Box<dyn Component>> = vec![postgres.component];
    for dependency in dependencies {
        let (link, component) = dependency.into_parts();
        links.push(link);
        components.push(component);
    }
    for database in others {
        addresses.push((format!("{}, directly", database.component.role()), database.endpoint.to_string()));
        links.push(database.link);
        components.push(database.component);
    }
    components.push(Box::new(service));
    if with_access {
        let members = access.into_iter().map(|process| Box::new(process) as Box<dyn Component>);
        components.push(Box::new(Group::new(topology::ACCESS, members.collect())));
    }
    let meters = Some(control.meters()?);
    let (control, hosts, heirs, guard) = (Some(control), ground.hosts, Heirs::default(), Some(guard));
    Ok(Stack { links, components, control, meters, shop: None, entry, addresses, notes, hosts, run, heirs, guard })
}

fn canonical(path: &Path) -> Result<PathBuf, StackError> {
    std::fs::canonicalize(path).map_err(|e| StackError::io(format!("cannot find {}", path.display()), e))
}

/// A folder of the run's own below `base`. Others may pass through it, since Postgres runs as another user, but not list it.
fn private_folder(folder: &Path) -> Result<(), StackError> {
    let fail = |e| StackError::io(format!("cannot make {}; TMPDIR names another place", folder.display()), e);
    std::fs::create_dir(folder).map_err(fail)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).map_err(fail)
}
