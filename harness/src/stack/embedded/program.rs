//! What the roles have in common that `seckill-target` plays: a folder, two Unix sockets in it, a log, and an admin listener
//! that says when it is ready.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ground;
use crate::fault::proxy::Endpoint;
use crate::scenario::Reference;
use crate::scenario::value::Toggle;
use crate::stack::StackError;
use crate::stack::control::Control;
use crate::stack::host::Host;
use crate::stack::process::{Process, Spec};

/// A process of `seckill-target`.
#[derive(Debug)]
pub(super) struct Program {
    /// The process.
    pub process: Arc<Process>,
    /// A client of its admin listener.
    pub control: Control,
    /// Where it serves.
    pub public: Endpoint,
    /// Where its admin listener is.
    pub admin: PathBuf,
}

impl Program {
    /// A process that works in `folder`, with the arguments beside its listeners. It serves on a socket there, or on the host
    /// and at the address that it is given. Nothing is started yet.
    ///
    /// # Errors
    /// The client of its admin listener cannot be made.
    pub(super) fn new(
        ground: &Ground<'_>,
        role: &'static str,
        folder: PathBuf,
        mut arguments: Vec<String>,
        listens: Option<(&Host, SocketAddr)>,
    ) -> Result<Program, StackError> {
        let admin = folder.join("admin.sock");
        let public =
            listens.map_or_else(|| Endpoint::Unix(folder.join("public.sock")), |(_, address)| Endpoint::Tcp(address));
        // The admin listener is no part of the network that can be lost: the harness has to see what goes on.
        for (flag, at) in [("--listen", &public), ("--admin-listen", &Endpoint::Unix(admin.clone()))] {
            arguments.extend([flag.to_owned(), at.to_string()]);
        }
        let control = Control::new(&Endpoint::Unix(admin.clone()))?;
        let log = ground.logs.join(format!("{role}.log"));
        let program = if role == "service" { &ground.service } else { &ground.program };
        let spec = Spec { role, program: program.clone(), called: None, arguments, folder, log, run_as: None };
        let mut process = Process::new(spec);
        if let Some((host, _)) = listens {
            process.move_to(host.namespace(), []);
        }
        Ok(Program { process: Arc::new(process), control, public, admin })
    }
}

/// Waits until it says that it is ready.
///
/// # Errors
/// It ended, or did not say so in time; the message has the end of its log.
pub(super) async fn is_ready(program: &Program, limit: Duration) -> Result<(), StackError> {
    let (end, role) = (Instant::now() + limit, program.process.role());
    while !program.control.is_ready().await {
        if let Some(status) = program.process.ended() {
            let tail = program.process.log_tail();
            return Err(StackError::Other(format!("the {role} ended with {status}:\n{tail}")));
        }
        if Instant::now() > end {
            let tail = program.process.log_tail();
            return Err(StackError::Other(format!("the {role} is not ready after {limit:?}:\n{tail}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// How the switches of a scenario are given to a process that has some of them.
pub(super) fn switches(reference: &Reference) -> impl Iterator<Item = String> + '_ {
    let one = |(id, toggle): (&String, &Toggle)| {
        ["--switch".to_owned(), format!("{id}={}", if toggle.0 { "on" } else { "off" })]
    };
    reference.switches.iter().flat_map(one)
}
