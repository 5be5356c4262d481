//! The databases that the service stands on: processes of this machine, or containers of its Docker engine. Nobody else in
//! the stack knows which.

use std::path::{Path, PathBuf};

use super::{Ground, PATIENCE, canonical, start};
use crate::doctor::{self, PostgresBinaries, RedisProgram};
use crate::fault::proxy::{Endpoint, Proxy};
use crate::scenario::{Reference, Replication, Runs, topology};
use crate::stack::containers::{self, Yard};
use crate::stack::host::Host;
use crate::stack::leftovers::Run;
use crate::stack::postgres::Postgres;
use crate::stack::process::RunAs;
use crate::stack::redis::Redis;
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
    pub async fn up(
        ground: &Ground<'_>,
        programs: &Programs,
        run: &Run,
        hosts: &[Host],
    ) -> Result<Databases, StackError> {
        match programs {
            Programs::Here { postgres, redis } => Databases::here(ground, postgres, redis.as_ref(), hosts).await,
            Programs::Images => Databases::in_containers(ground, &Yard::open(run).await?).await,
        }
    }

    async fn here(
        ground: &Ground<'_>,
        binaries: &PostgresBinaries,
        redis: Option<&RedisProgram>,
        hosts: &[Host],
    ) -> Result<Databases, StackError> {
        let run_as = doctor::unprivileged_user()?.map(|user| RunAs { uid: user.uid, gid: user.gid });
        let (bin, reference) = (&binaries.bin_dir, ground.reference);
        let mut postgres = Postgres::create(bin, &ground.folder, ground.logs, run_as, reference.small_disk)?;
        hosts.iter().try_for_each(|host| postgres.move_to(host))?;
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
        let images = &ground.reference.containers;
        let (postgres, note) = containers::databases::postgres(yard, images, ground.logs).await?;
        postgres.ready(PATIENCE).await?;
        let endpoint = Endpoint::Tcp(postgres.address());
        let link = ground.link(topology::TO_POSTGRES, endpoint.clone())?;
        let postgres = Database { component: Box::new(postgres), endpoint, link };
        Ok(Databases { postgres, others: Vec::new(), notes: vec![note] })
    }

    /// The link to the service's Redis, if there is one.
    pub fn to_redis(&self) -> Option<&Proxy> {
        self.others.iter().map(|database| &database.link).find(|link| link.name() == topology::TO_REDIS)
    }
}

/// Makes the standby of a cluster that runs, and the link over which it follows.
async fn follow(
    ground: &Ground<'_>,
    bin: &Path,
    postgres: &Postgres,
    replication: Replication,
) -> Result<Database, StackError> {
    let link = ground.link(topology::STANDBY_TO_POSTGRES, Endpoint::Unix(postgres.socket()))?;
    let standby = postgres.copy(bin, &ground.folder, ground.logs, link.listen_addr())?;
    start(&standby).await?;
    postgres.followed(replication, PATIENCE).await?;
    Ok(Database { endpoint: Endpoint::Unix(standby.socket()), component: Box::new(standby), link })
}

/// Makes the service's Redis and its replica, if there is to be one, each with the link to the first.
async fn remember(ground: &Ground<'_>, program: &RedisProgram) -> Result<Vec<Database>, StackError> {
    let aof = ground.reference.redis_aof;
    let made = |redis: Redis, link| {
        let endpoint = Endpoint::Unix(redis.socket().to_owned());
        Database { component: Box::new(redis), endpoint, link }
    };
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
        replica = Some(made(second, link));
    }
    Ok([made(first, link)].into_iter().chain(replica).collect())
}
