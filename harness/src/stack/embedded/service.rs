//! The reference service: sells, on the database that it is shown the way to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;

use super::Ground;
use super::dependency::Dependency;
use super::program::{Program, is_ready, switches};
use crate::fault::proxy::Proxy;
use crate::stack::process::Process;
use crate::stack::{Local, StackError};

/// The reference service.
#[derive(Debug)]
pub(super) struct Service {
    pub program: Program,
}

impl Service {
    /// The service on the database behind `database` and the Redis behind `redis`, which is told where its dependencies are, and speaks TLS if there
    /// is a folder for its certificate. Nothing is started yet.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub(super) fn new(
        ground: &Ground<'_>,
        database: &Proxy,
        dependencies: &[Dependency],
        redis: Option<&Proxy>,
        tls: Option<&Path>,
    ) -> Result<Service, StackError> {
        let reference = ground.reference;
        let folder = ground.folder_of("service")?;
        let database = database.listen_addr();
        let url = format!("host={} port={} user=postgres dbname=postgres", database.ip(), database.port());
        let mut arguments: Vec<String> =
            ["serve", "--strategy", &reference.strategy, "--deduct", reference.deduct.name(), "--database-url", &url]
                .map(str::to_owned)
                .to_vec();
        for (flag, value) in [
            // The same at each start, so that a service that was killed still knows its buyers.
            ("--secret", secret(ground)?),
            ("--pool-size", reference.pool.to_string()),
            ("--shards", reference.shards().to_string()),
            // So that whoever was refused stays so when it is started again.
            ("--refusals", folder.join("refusals").display().to_string()),
            ("--workers", reference.workers.to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if let Some(queue) = reference.queue {
            arguments.extend(["--queue".to_owned(), queue.to_string()]);
        }
        if let Some(redis) = redis {
            arguments.extend(["--redis-url".to_owned(), format!("redis://{}", redis.listen_addr())]);
        }
        arguments.extend(switches(reference));
        if let Some(folder) = tls {
            // The same at each start, too: the service makes its certificate where there is none yet.
            arguments.extend(["--tls".to_owned(), folder.display().to_string()]);
        }
        for dependency in dependencies {
            arguments.extend([format!("--{}", dependency.name()), dependency.link().listen_addr().to_string()]);
        }
        if let Some(bug) = &reference.bug {
            arguments.extend(["--bug".to_owned(), bug.0.clone(), "--allow-seeded-bugs".to_owned()]);
        }
        if let Some(slow) = &reference.slow {
            let allowed = "--allow-seeded-bugs".to_owned();
            arguments.extend(["--slow".to_owned(), slow.clone()]);
            arguments.extend(Some(allowed).filter(|allowed| !arguments.contains(allowed)));
        }
        let listens = ground.host("service").map(|host| (host, host.http(0)));
        Ok(Service { program: Program::new(ground, "service", folder, arguments, listens)? })
    }
}

/// A key for session tokens that is the same for the whole run and different for each: it is no secret from this machine.
///
/// # Errors
/// The service's folder, of which it is made, cannot be made itself.
pub(super) fn secret(ground: &Ground<'_>) -> Result<String, StackError> {
    let folder = ground.folder_of("service")?;
    Ok(folder.as_os_str().as_encoded_bytes().iter().rev().take(32).map(|b| format!("{b:02x}")).collect())
}

impl Local for Service {
    fn process(&self) -> &Arc<Process> {
        &self.program.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(is_ready(&self.program, limit))
    }
    fn farewell(&self) -> Signal {
        Signal::SIGTERM
    }
}
