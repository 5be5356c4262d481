//! The dependencies of the service that are no database: payment and user profiles, each a process of its own behind a link of
//! its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;

use super::program::{Program, is_ready};
use super::{Ground, start};
use crate::fault::proxy::Proxy;
use crate::scenario::topology;
use crate::stack::process::Process;
use crate::stack::{Component, Local, StackError};

/// The role of the payment dependency.
pub(super) const PAYMENT: &str = "payment";
const PROFILE: &str = "profile";

/// A dependency of the service, and the link to it.
#[derive(Debug)]
pub(super) struct Dependency {
    pub program: Program,
    link: Proxy,
}

/// A dependency as a component, when its link has gone to the others.
#[derive(Debug)]
struct Role(Program);

/// Starts the dependencies that the scenario asks for.
///
/// # Errors
/// One of them does not come up.
pub(super) async fn up(ground: &Ground<'_>) -> Result<Vec<Dependency>, StackError> {
    let mut dependencies = Vec::new();
    if ground.reference.payment {
        // It keeps its books in its folder, so that one that is started again finds them.
        let books = ground.folder_of(PAYMENT)?.join("books.jsonl").display().to_string();
        let declines = ground.reference.payment_declines.to_string();
        let arguments = ["--books", &books, "--decline", &declines].map(str::to_owned);
        dependencies.push(Dependency::up(ground, PAYMENT, topology::TO_PAYMENT, &arguments).await?);
    }
    if ground.reference.profile {
        dependencies.push(Dependency::up(ground, PROFILE, topology::TO_PROFILE, &[]).await?);
    }
    Ok(dependencies)
}

impl Dependency {
    async fn up(
        ground: &Ground<'_>,
        role: &'static str,
        link: &'static str,
        arguments: &[String],
    ) -> Result<Dependency, StackError> {
        let command = std::iter::once(role.to_owned()).chain(arguments.iter().cloned());
        let listens = ground.host(role).map(|host| (host, host.http(0)));
        let role = Role(Program::new(ground, role, ground.folder_of(role)?, command.collect(), listens)?);
        start(&role).await?;
        let link = ground.link(link, role.0.public.clone())?;
        Ok(Dependency { program: role.0, link })
    }

    /// Its role, which is also the flag by which the service is told of it.
    pub(super) fn name(&self) -> &'static str {
        self.program.process.role()
    }

    /// The link to it.
    pub(super) fn link(&self) -> &Proxy {
        &self.link
    }

    /// Where its admin listener is, for people.
    pub(super) fn address(&self) -> (String, String) {
        (format!("{}, admin listener", self.name()), format!("unix:{}", self.program.admin.display()))
    }

    /// Its link, and what can be broken.
    pub(super) fn into_parts(self) -> (Proxy, Box<dyn Component>) {
        (self.link, Box::new(Role(self.program)))
    }
}

impl Local for Role {
    fn process(&self) -> &Arc<Process> {
        &self.0.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(is_ready(&self.0, limit))
    }
    fn farewell(&self) -> Signal {
        Signal::SIGTERM
    }
}
