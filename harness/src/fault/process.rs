//! Faults of processes: killed and started again, or stopped in their tracks.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::{ActiveFault, Fault};
use crate::stack::{Stack, StackError};

/// How long a part may take to come up again.
const PATIENCE: Duration = Duration::from_secs(20);

/// SIGKILL to a component and all its processes; healing starts it again on the same data.
#[derive(Debug)]
pub struct Kill {
    /// The component's role.
    pub role: String,
}

#[derive(Debug)]
struct Killed {
    role: String,
    hit: usize,
}

impl Fault for Kill {
    fn inject<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let hit = stack.component(&self.role)?.kill().await?;
            let killed: Box<dyn ActiveFault> = Box::new(Killed { role: self.role.clone(), hit });
            Ok(killed)
        })
    }
}

impl ActiveFault for Killed {
    fn heal<'a>(self: Box<Self>, stack: &'a Stack) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            let component = stack.component(&self.role)?;
            let end = Instant::now() + PATIENCE;
            // What a supervisor does: started again until it stays up, within bounds.
            loop {
                // Here, and not on the blocking pool: see `Process::start`.
                component.start()?;
                match component.ready(PATIENCE).await {
                    Ok(()) => return Ok(hit(self.hit, "killed")),
                    Err(_) if component.process().ended().is_some() && Instant::now() < end => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }
}

/// SIGSTOP to a component and all its processes; healing lets them go on.
#[derive(Debug)]
pub struct Pause {
    /// The component's role.
    pub role: String,
}

#[derive(Debug)]
struct Paused {
    role: String,
    hit: usize,
}

impl Fault for Pause {
    fn inject<'a>(&'a self, stack: &'a Stack) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let hit = stack.component(&self.role)?.pause(true);
            let paused: Box<dyn ActiveFault> = Box::new(Paused { role: self.role.clone(), hit });
            Ok(paused)
        })
    }
}

impl ActiveFault for Paused {
    fn heal<'a>(self: Box<Self>, stack: &'a Stack) -> BoxFuture<'a, Result<String, StackError>> {
        Box::pin(async move {
            stack.component(&self.role)?.pause(false);
            Ok(hit(self.hit, "stopped"))
        })
    }
}

fn hit(processes: usize, how: &str) -> String {
    format!("{processes} {} {how}", if processes == 1 { "process" } else { "processes" })
}
