//! The embedded stack: a private Postgres and the reference service as processes of this machine, a proxy on each link.
//!
//! Inside the stack everything listens on Unix sockets in the run's private folder, so runs side by side cannot get into
//! each other's way, and no port is free one moment and taken the next. Only the proxies listen on TCP, and they do so for
//! as long as the run lasts.
//!
//! Each role has a file of its own here; what all roles of `seckill-target` have in common is in [`program`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::group::Group;
use super::guard::Guard;
use super::postgres::Postgres;
use super::process::RunAs;
use super::redis::Redis;
use super::{Component, LOCAL, Local, Provision, Stack, StackError, disk};
use crate::doctor::{self, RedisProgram};
use crate::fault::proxy::{Endpoint, Proxy, ProxyConfig};
use crate::load::client::Entry;
use crate::scenario::catalogue::Catalogue;
use crate::scenario::{Reference, Replication, Scenario, topology};

mod access;
mod dependency;
mod program;
mod service;

use access::Access;
use dependency::Dependency;
use service::Service;

/// How long a part may take to come up. Generous: a loaded machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the reference service can be asked for, as its program says.
///
/// # Errors
/// There is no such program, or it is of another version than the harness.
pub fn catalogue() -> Result<Catalogue, StackError> {
    let program = doctor::target_binary()?;
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

/// What every role needs to be set up: where it may work, which program it is, what the scenario says.
struct Ground<'a> {
    scenario: &'a Scenario,
    reference: &'a Reference,
    /// `seckill-target`, with symbolic links resolved.
    program: PathBuf,
    /// The private folder of the run.
    folder: PathBuf,
    logs: &'a Path,
}

impl Ground<'_> {
    /// Makes the folder that a role works in, and by which its processes are known.
    fn folder_of(&self, role: &str) -> Result<PathBuf, StackError> {
        let folder = self.folder.join(role);
        std::fs::create_dir_all(&folder).map_err(|e| StackError::io(format!("cannot make {}", folder.display()), e))?;
        Ok(folder)
    }

    /// Puts the proxy on a link; what the link speaks, the topology tells.
    fn link(&self, name: &'static str, upstream: Endpoint) -> Result<Proxy, StackError> {
        self.link_at(name, upstream, LOCAL)
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
    let binaries = doctor::find_postgres()?;
    if reference.small_disk.is_some() {
        disk::possible()?;
    }
    let redis = reference.redis.then(doctor::find_redis).transpose()?;
    let program = canonical(&doctor::target_binary()?)?;
    let run_as = doctor::unprivileged_user()?.map(|user| RunAs { uid: user.uid, gid: user.gid });
    let folder = private_folder(&doctor::folder_for_sockets()?, &provision.run_id)?;
    let mut programs = vec![program.clone(), canonical(&binaries.bin_dir.join("postgres"))?];
    programs.extend(redis.iter().map(|redis| redis.path.clone()));
    let guard = Guard::start(&folder, &programs)
        .map_err(|e| StackError::io("cannot start the guard that cleans up after the run", e))?;
    let ground = Ground { scenario, reference, program, folder, logs: &provision.logs };

    let bin = &binaries.bin_dir;
    let postgres = Postgres::create(bin, &ground.folder, ground.logs, run_as, reference.small_disk)?;
    start(&postgres).await?;
    let standby = match reference.standby {
        Some(replication) => Some(follow(&ground, bin, &postgres, replication).await?),
        None => None,
    };

    let redis = match &redis {
        Some(program) => remember(&ground, program).await?,
        None => Vec::new(),
    };

    let to_postgres = ground.link(topology::TO_POSTGRES, Endpoint::Unix(postgres.socket()))?;
    let dependencies = dependency::up(&ground).await?;

    // Whoever the buyers reach first speaks TLS with them.
    let tls = reference.tls.then(|| ground.folder_of("tls")).transpose()?;
    let with_access = reference.access > 0;
    let service = Service::new(
        &ground,
        &to_postgres,
        &dependencies,
        redis.first().map(|(_, link)| link),
        tls.as_deref().filter(|_| !with_access),
    )?;
    let public = Endpoint::Unix(service.program.public.clone());
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
        ("postgres (through its proxy)".to_owned(), format!("{}", to_postgres.listen_addr())),
        ("postgres, directly".to_owned(), format!("unix:{}", postgres.socket().display())),
    ];
    addresses.extend(certificate.map(|path| (format!("{first}, its certificate"), path.display().to_string())));
    addresses.extend(dependencies.iter().map(Dependency::address));

    let mut control = service.program.control.clone();
    if let Some(payment) = dependencies.iter().find(|dependency| dependency.name() == dependency::PAYMENT) {
        control = control.with_payments(&Endpoint::Unix(payment.program.admin.clone()))?;
    }
    let mut links: Vec<Proxy> = [Some(entrance), to_service, Some(to_postgres)].into_iter().flatten().collect();
    let mut components: Vec<Box<dyn Component>> = vec![Box::new(postgres)];
    for dependency in dependencies {
        let (link, component) = dependency.into_parts();
        links.push(link);
        components.push(component);
    }
    if let Some((standby, link)) = standby {
        addresses.push(("standby, directly".to_owned(), format!("unix:{}", standby.socket().display())));
        links.push(link);
        components.push(Box::new(standby));
    }
    for (redis, link) in redis {
        addresses.push((format!("{}, directly", redis.role()), format!("unix:{}", redis.socket().display())));
        links.push(link);
        components.push(Box::new(redis));
    }
    components.push(Box::new(service));
    if with_access {
        let members = access.into_iter().map(|process| Box::new(process) as Box<dyn Component>);
        components.push(Box::new(Group::new(topology::ACCESS, members.collect())));
    }
    Ok(Stack { links, control: Some(control), components, entry, addresses, guard: Some(guard) })
}

/// Makes the standby of a cluster that runs, and the link over which it follows.
async fn follow(
    ground: &Ground<'_>,
    bin: &Path,
    postgres: &Postgres,
    replication: Replication,
) -> Result<(Postgres, Proxy), StackError> {
    let link = ground.link(topology::STANDBY_TO_POSTGRES, Endpoint::Unix(postgres.socket()))?;
    let standby = postgres.copy(bin, &ground.folder, ground.logs, link.listen_addr())?;
    start(&standby).await?;
    postgres.followed(replication, PATIENCE).await?;
    Ok((standby, link))
}

/// Makes the service's Redis and its replica, if there is to be one, each with the link to the first.
async fn remember(ground: &Ground<'_>, program: &RedisProgram) -> Result<Vec<(Redis, Proxy)>, StackError> {
    let aof = ground.reference.redis_aof;
    let first = Redis::create(program, &ground.folder, ground.logs, aof, None)?;
    start(&first).await?;
    let upstream = || Endpoint::Unix(first.socket().to_owned());
    let link = ground.link(topology::TO_REDIS, upstream())?;
    let mut replica = None;
    if ground.reference.redis_replica {
        let link = ground.link(topology::REPLICA_TO_REDIS, upstream())?;
        let second = Redis::create(program, &ground.folder, ground.logs, aof, Some(link.listen_addr()))?;
        start(&second).await?;
        second.follows(PATIENCE).await?;
        replica = Some((second, link));
    }
    Ok([(first, link)].into_iter().chain(replica).collect())
}

fn canonical(path: &Path) -> Result<PathBuf, StackError> {
    std::fs::canonicalize(path).map_err(|e| StackError::io(format!("cannot find {}", path.display()), e))
}

/// A folder of the run's own below `base`. Others may pass through it, since Postgres runs as another user, but not list it.
fn private_folder(base: &Path, run_id: &str) -> Result<PathBuf, StackError> {
    let folder = base.join(format!("seckill-{run_id}"));
    let fail = |e| StackError::io(format!("cannot make {}; TMPDIR names another place", folder.display()), e);
    std::fs::create_dir(&folder).map_err(fail)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).map_err(fail)?;
    Ok(folder)
}
