//! The access layer: some processes in front of the service, which share the buyers' connections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;

use super::Ground;
use super::program::{Program, is_ready, switches};
use super::service::secret;
use crate::fault::proxy::{Endpoint, Proxy};
use crate::scenario::topology;
use crate::stack::process::Process;
use crate::stack::{Local, StackError};

/// One process of the access layer.
#[derive(Debug)]
pub(super) struct Access {
    pub program: Program,
}

impl Access {
    /// All of them, in front of the service behind `service`. Those that speak TLS share the certificate in `tls`.
    ///
    /// # Errors
    /// Their folders cannot be made.
    pub(super) fn all(ground: &Ground<'_>, service: &Proxy, tls: Option<&Path>) -> Result<Vec<Access>, StackError> {
        let make = |(index, role): (usize, &&'static str)| {
            let folder = ground.folder_of(&format!("access/{}", index + 1))?;
            let mut arguments = ["access", "--service", &service.listen_addr().to_string()].map(str::to_owned).to_vec();
            // With it, it sees by itself who is logged in.
            arguments.extend(["--secret".to_owned(), secret(ground)?]);
            arguments.extend(switches(ground.reference));
            if let Some(folder) = tls {
                arguments.extend(["--tls".to_owned(), folder.display().to_string()]);
            }
            let listens = ground.host(topology::ACCESS).map(|host| (host, host.http(index)));
            Ok(Access { program: Program::new(ground, role, folder, arguments, listens)? })
        };
        ground.scenario.access_processes().iter().enumerate().map(make).collect()
    }

    /// Where it serves.
    pub(super) fn public(&self) -> Endpoint {
        self.program.public.clone()
    }
}

impl Local for Access {
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
