//! The databases of the reference service as containers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::Yard;
use super::container::{Container, Spec};
use super::image::{Image, Source};
use crate::scenario::topology::{POSTGRES, REDIS, REDIS_REPLICA};
use crate::scenario::{Aof, Images};
use crate::stack::database::Database;
use crate::stack::redis::Cache;
use crate::stack::{StackError, postgres, redis};

/// Where the image of Postgres comes from.
const OF_POSTGRES: Source = Source { key: "postgres", public: "postgres:17", made_here: "seckill-postgres" };
/// Where the image of Redis comes from.
const OF_REDIS: Source = Source { key: "redis", public: "redis:7", made_here: "seckill-redis" };

/// Starts a Postgres with the settings of the embedded one, on a volume that lives as long as the container. It may not be
/// ready yet. Returns it with a line about what it is.
///
/// # Errors
/// There is no image of it, or the engine refuses.
pub async fn postgres(yard: &Yard, images: &Images, logs: &Path) -> Result<(Container, String), StackError> {
    let image =
        Image::find(&yard.docker, OF_POSTGRES, images.postgres.as_ref().map(|name| name.get_ref().as_str())).await?;
    let mut command = vec!["postgres".to_owned(), "-c".to_owned(), "listen_addresses=*".to_owned()];
    command.extend(postgres::settings(&postgres::log_sizes(None)));
    let spec = Spec {
        role: POSTGRES,
        number: 1,
        port: postgres::PORT,
        environment: vec![
            // As private as the embedded one: whoever is on this machine may ask it, and nobody else can.
            ("POSTGRES_HOST_AUTH_METHOD", "trust".to_owned()),
            ("POSTGRES_INITDB_ARGS", "-E UTF8 --locale=C --no-sync".to_owned()),
        ],
        command,
        // An immediate shutdown: the cluster is thrown away, so a last checkpoint would be for nobody.
        farewell: "SIGQUIT",
        probe: |address| {
            Box::pin(async move {
                let answered = Database::at(address).value("SELECT 1").await;
                answered.map(drop).map_err(|error| error.to_string())
            })
        },
        database: Some(Database::at),
        cache: None,
        log: logs.join("postgres.log"),
    };
    let what = format!("postgres ran in a container of the image {image}");
    Ok((Container::run(yard, &image, spec).await?, what))
}

/// Starts a Redis with the settings of the embedded one, as the replica of the one at that address if there is one. It may not be
/// ready yet. Returns it with a line about what it is.
///
/// # Errors
/// There is no image of it, or the engine refuses.
pub async fn redis(
    yard: &Yard,
    images: &Images,
    logs: &Path,
    aof: Aof,
    follows: Option<SocketAddr>,
) -> Result<(Container, String), StackError> {
    let image = Image::find(&yard.docker, OF_REDIS, images.redis.as_ref().map(|name| name.get_ref().as_str())).await?;
    let (role, number) = if follows.is_some() { (REDIS_REPLICA, 3) } else { (REDIS, 2) };
    let mut command = vec!["redis-server".to_owned()];
    command.extend(redis::listens(Some((Ipv4Addr::UNSPECIFIED, redis::PORT).into())));
    command.extend(redis::settings(aof, follows));
    let spec = Spec {
        role,
        number,
        port: redis::PORT,
        environment: Vec::new(),
        command,
        farewell: "SIGTERM",
        probe: |address| {
            Box::pin(async move {
                // While it reads its log of commands it answers with an error.
                let answered = Cache::at(address).ask::<String>(&["PING"]).await;
                answered.map(drop).map_err(|error| error.to_string())
            })
        },
        database: None,
        cache: Some(Cache::at),
        log: logs.join(format!("{role}.log")),
    };
    let what = format!("{role} ran in a container of the image {image}");
    Ok((Container::run(yard, &image, spec).await?, what))
}
