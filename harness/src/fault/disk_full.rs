//! The disk of a database is full: whatever needs another page is refused, and what needs another piece of the log ends it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::database::{Background, check_role, postgres};
use super::process::PATIENCE;
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::{About, Target};
use crate::stack::{Component, Stack, StackError};

/// The disk of the database is filled up, and what becomes free on it, too; healing gives the room back, and starts a database
/// that has ended over it. It needs `small_disk` in `[target.reference]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskFull {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
}

/// How often it is looked whether something has become free.
const LOOK: Duration = Duration::from_millis(20);

/// The file that fills the disk.
const FILLER: &str = "filler";

/// The smallest piece that is filled.
const PIECE: usize = 4096;

#[derive(Debug)]
struct Full {
    role: String,
    filler: PathBuf,
    filling: Background<u64>,
}

impl Fault for DiskFull {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres on a disk of its own (`small_disk`), which only root can mount".into()
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Running]
    }

    fn detail(&self) -> String {
        "the disk is full, then has room again".into()
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
        let has_disk = match &about.scenario().target {
            Target::Reference(reference) => reference.small_disk.is_some() && self.role.get_ref() == "postgres",
            Target::External(_) => true,
        };
        if !has_disk {
            let what = format!("\"{}\" has no disk of its own that could be full", self.role.get_ref());
            about.parameter("role", &what, "add small_disk = \"256MiB\" to [target.reference]: that of \"postgres\"");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let role = self.role.get_ref().clone();
            let disk = stack.component(&role)?.disk();
            let disk = disk.ok_or_else(|| StackError::Other(format!("`{role}` has no disk of its own")))?;
            let filler = disk.join(FILLER);
            let cannot = |e| StackError::io(format!("cannot fill {}", disk.display()), e);
            let mut file = OpenOptions::new().create(true).append(true).open(&filler).map_err(cannot)?;
            fill(&disk, &mut file).map_err(cannot)?;
            let filling = Background::start(stack, |_, stop| keep_full(disk.clone(), file, stop));
            let active: Box<dyn ActiveFault> = Box::new(Full { role, filler, filling });
            Ok(active)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(async move {
            let component = stack.component(self.role.get_ref())?;
            let Some(disk) = component.disk() else { return Ok(()) };
            give_back(&disk.join(FILLER))?;
            revive(component).await.map(drop)
        })
    }
}

/// Takes all the room that there is: in large pieces first, then in the smallest.
fn fill(disk: &Path, file: &mut File) -> std::io::Result<()> {
    loop {
        let free = statvfs(disk).map(|disk| disk.blocks_available() * disk.fragment_size())?;
        let end = file.metadata()?.len();
        let piece = i64::try_from(free).unwrap_or(i64::MAX);
        if free <= PIECE as u64 || posix_fallocate(&*file, end.try_into().unwrap_or(i64::MAX), piece).is_err() {
            break;
        }
    }
    loop {
        match file.write(&[0; PIECE]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Takes what becomes free, too: a database removes old pieces of its log. Returns how many bytes were taken.
async fn keep_full(disk: PathBuf, mut file: File, stop: CancellationToken) -> u64 {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        // What cannot be taken now is tried again with the next look.
        let _ = fill(&disk, &mut file);
    }
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// How much was taken, and whether the database had to be started again.
pub(super) fn taken(bytes: u64, revived: bool) -> Hit {
    let ended = if revived { "; the database had ended over it, and was started again" } else { "" };
    Hit::new(bytes, format!("{} MiB taken{ended}", bytes >> 20))
}

impl ActiveFault for Full {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let bytes = self.filling.stop().await?;
            give_back(&self.filler)?;
            let revived = revive(stack.component(&self.role)?).await?;
            Ok(taken(bytes, revived))
        })
    }
}

/// Removes the file that fills the disk, if it is there.
fn give_back(filler: &Path) -> Result<(), StackError> {
    match std::fs::remove_file(filler) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StackError::io(format!("cannot remove {}", filler.display()), error))
        }
        _ => Ok(()),
    }
}

/// Waits until a component does its work, and starts it where it has ended, as a supervisor does; whether it had to.
async fn revive(component: &dyn Component) -> Result<bool, StackError> {
    let end = Instant::now() + PATIENCE;
    let mut started = false;
    loop {
        match component.ready(PATIENCE).await {
            Ok(()) => return Ok(started),
            Err(_) if component.ended().is_some() && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                component.start().await?;
                started = true;
            }
            Err(error) => return Err(error),
        }
    }
}
