//! The databases that the service stands on: processes of this machine, or containers of its Docker engine. Nobody else in
//! the stack knows which.

use std::path::{Path, PathBuf};

use super::{Ground, PATIENCE, canonical, start};
use crate::doctor::{self, PostgresBinaries, RedisProgram};
use crate::fault::proxy::{Endpoint, Proxy};
use crate::scenario::{Reference, Replication, Runs, topology};
use crate::stack::containers::container::Container;
use crate::stack::containers::{self, Yard};
use crate::stack::leftovers::Run;
use crate::stack::postgres::Postgres;
use crate::stack::process::RunAs;
use crate::stack::redis::{Cache, Redis};
use crate::stack::{Component, StackError, disk};

/// A database that does its work, where it answers, and the link that leads to it or over which it follows another one.
pub(super) struct Database {
    pub component: Box<dyn Component>,
    pub endpoint: Endpoint,
    pub link: Proxy,
}

/// The databases of a stack, that of the ledger apart.
pub(super) struct Databases {
    pub postgres: Database,
    pub others: Vec<Database>,
    /// What a reader of the report should know of them.
    pub notes: Vec<String>,
}

/// What they are made of.
pub(super) enum Programs {
    /// Programs of this machine.
    Here { postgres: PostgresBinaries, redis: Option<RedisProgram> },
    /// Images, which the engine is asked for when it is time.
    Images,
}

impl Programs {
    /// Those that the scenario needs.
    ///
    /// # Errors
    /// What is missing on this machine, with the remedy.
    pub fn find(reference: &Reference) -> Result<Programs, StackError> {
        if reference.stack == Runs::Containers {
            return Ok(Programs::Images);
        }
        let postgres = doctor::find_postgres()?;
        if reference.small_disk.is_some() {
            disk::possible()?;
        }
        let redis = reference.redis.then(doctor::find_redis).transpose()?;
        Ok(Programs::Here { postgres, redis })
    }

    /// Where they are, with symbolic links resolved: by this the guard knows their processes.
    pub fn paths(&self) -> Result<Vec<PathBuf>, StackError> {
        let Programs::Here { postgres, redis } = self else { return Ok(Vec::new()) };
        let mut paths = vec![canonical(&postgres.program("postgres"))?];
        paths.extend(redis.iter().map(|redis| redis.path.clone()));
        Ok(paths)
    }
}

impl Databases {
    /// Starts them, each on its host if it has one there, and waits until they do their work.
    ///
    /// # Errors
    /// What is refused, or does not come up.
    pub async fn up(ground: &Ground<'_>, programs: &Programs, run: &Run) -> Result<Databases, StackError> {
        match programs {
            Programs::Here { postgres, redis } => Databases::here(ground, postgres, redis.as_ref()).await,
            Programs::Images => Databases::in_containers(ground, &Yard::open(run).await?).await,
        }
    }

    async fn here(
        ground: &Ground<'_>,
        binaries: &PostgresBinaries,
        redis: Option<&RedisProgram>,
    ) -> Result<Databases, StackError> {
        let run_as = doctor::unprivileged_user()?.map(|user| RunAs { uid: user.uid, gid: user.gid });
        let (bin, reference) = (&binaries.bin_dir, ground.reference);
        let mut postgres = Postgres::create(bin, &ground.folder, ground.logs, run_as, reference.small_disk)?;
        ground.host(topology::POSTGRES).map_or(Ok(()), |host| postgres.move_to(host))?;
        start(&postgres).await?;
        let mut others = Vec::new();
        if let Some(replication) = reference.standby {
            others.push(follow(ground, bin, &postgres, replication).await?);
        }
        if let Some(program) = redis {
            others.extend(remember(ground, program).await?);
        }
        let endpoint = postgres.endpoint();
        let link = ground.link(topology::TO_POSTGRES, endpoint.clone())?;
        let postgres = Database { component: Box::new(postgres), endpoint, link };
        Ok(Databases { postgres, others, notes: Vec::new() })
    }

    async fn in_containers(ground: &Ground<'_>, yard: &Yard) -> Result<Databases, StackError> {
        let reference = ground.reference;
        let images = &reference.containers;
        let (postgres, note) = containers::databases::postgres(yard, images, ground.logs).await?;
        let (mut notes, mut others) = (vec![note], Vec::new());
        if reference.redis {
            let aof = reference.redis_aof();
            let (first, note) = containers::databases::redis(yard, images, ground.logs, aof, None).await?;
            first.ready(PATIENCE).await?;
            notes.push(note);
            let upstream = Endpoint::Tcp(first.address());
            others.push(contained(ground, first, topology::TO_REDIS)?);
            if reference.redis_replica {
                others.push(follow_in_container(ground, yard, upstream).await?);
            }
        }
        postgres.ready(PATIENCE).await?;
        Ok(Databases { postgres: contained(ground, postgres, topology::TO_POSTGRES)?, others, notes })
    }

    /// The link to the service's Redis, if there is one.
    pub fn to_redis(&self) -> Option<&Proxy> {
        self.others.iter().map(|database| &database.link).find(|link| link.name() == topology::TO_REDIS)
    }
}

/// A database in a container, with the link that leads to it.
fn contained(ground: &Ground<'_>, container: Container, link: &'static str) -> Result<Database, StackError> {
    let endpoint = Endpoint::Tcp(container.address());
    let link = ground.link(link, endpoint.clone())?;
    Ok(Database { component: Box::new(container), endpoint, link })
}

/// Makes the replica of a Redis in a container. It follows over a link whose proxy listens where containers see this machine.
async fn follow_in_container(ground: &Ground<'_>, yard: &Yard, upstream: Endpoint) -> Result<Database, StackError> {
    let link = ground.link_at(topology::REPLICA_TO_REDIS, upstream, (yard.gateway()?, 0).into())?;
    let (images, aof, first) = (&ground.reference.containers, ground.reference.redis_aof(), link.listen_addr());
    let (second, _) = containers::databases::redis(yard, images, ground.logs, aof, Some(first)).await?;
    second.ready(PATIENCE).await?;
    Cache::at(second.address()).follows(PATIENCE).await?;
    Ok(Database { endpoint: Endpoint::Tcp(second.address()), component: Box::new(second), link })
}

/// Makes the standby of a cluster that runs, and the link over which it follows.
async fn follow(
    ground: &Ground<'_>,
    bin: &Path,
    postgres: &Postgres,
    replication: Replication,
) -> Result<Database, StackError> {
    let link = ground.link(topology::STANDBY_TO_POSTGRES, Endpoint::Unix(postgres.socket()))?;
    let mut standby = postgres.copy(bin, &ground.folder, ground.logs, link.listen_addr())?;
    ground.host(topology::STANDBY).map_or(Ok(()), |host| standby.move_to(host))?;
    start(&standby).await?;
    postgres.followed(replication, PATIENCE).await?;
    Ok(Database { endpoint: standby.endpoint(), component: Box::new(standby), link })
}

/// Makes the service's Redis and its replica, if there is to be one, each with the link to the first.
async fn remember(ground: &Ground<'_>, program: &RedisProgram) -> Result<Vec<Database>, StackError> {
    let aof = ground.reference.redis_aof();
    let made = |redis: Redis, link| {
        let endpoint = redis.endpoint();
        Database { component: Box::new(redis), endpoint, link }
    };
    let first = Redis::create(program, &ground.folder, ground.logs, aof, None, ground.host(topology::REDIS))?;
    start(&first).await?;
    let link = ground.link(topology::TO_REDIS, first.endpoint())?;
    let mut replica = None;
    if ground.reference.redis_replica {
        // Past the first one's host: what is lost there is what the service sends.
        let link = ground.link(topology::REPLICA_TO_REDIS, first.cache().endpoint())?;
        let (follows, host) = (Some(link.listen_addr()), ground.host(topology::REDIS_REPLICA));
        let second = Redis::create(program, &ground.folder, ground.logs, aof, follows, host)?;
        start(&second).await?;
        second.cache().follows(PATIENCE).await?;
        replica = Some(made(second, link));
    }
    Ok([made(first, link)].into_iter().chain(replica).collect())
}
