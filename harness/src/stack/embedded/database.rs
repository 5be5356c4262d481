//! The databases that the service stands on: processes of this machine, or containers of its Docker engine. Nobody else in
//! the stack knows which.

use super::{Ground, PATIENCE, start};
use crate::doctor::{self, PostgresBinaries};
use crate::fault::proxy::Endpoint;
use crate::stack::containers::{Yard, databases};
use crate::stack::postgres::Postgres;
use crate::stack::process::RunAs;
use crate::stack::{Component, StackError};

/// A database that does its work, and where it answers.
pub(super) struct Database {
    pub endpoint: Endpoint,
    pub component: Box<dyn Component>,
    /// What a reader of the report should know of it.
    pub note: Option<String>,
}

impl Database {
    /// A private Postgres of these programs.
    pub async fn postgres(ground: &Ground<'_>, binaries: &PostgresBinaries) -> Result<Database, StackError> {
        let run_as = doctor::unprivileged_user()?.map(|user| RunAs { uid: user.uid, gid: user.gid });
        let postgres = Postgres::create(&binaries.bin_dir, &ground.folder, ground.logs, run_as)?;
        start(&postgres).await?;
        let endpoint = Endpoint::Unix(postgres.socket());
        Ok(Database { endpoint, component: Box::new(postgres), note: None })
    }

    /// The same in a container.
    pub async fn postgres_in(yard: &Yard, ground: &Ground<'_>) -> Result<Database, StackError> {
        let (postgres, note) = databases::postgres(yard, &ground.reference.containers, ground.logs).await?;
        postgres.ready(PATIENCE).await?;
        let endpoint = Endpoint::Tcp(postgres.address());
        Ok(Database { endpoint, component: Box::new(postgres), note: Some(note) })
    }
}
