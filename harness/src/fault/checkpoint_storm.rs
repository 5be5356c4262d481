//! Postgres writes checkpoint after checkpoint, while somebody else writes in bulk: the disk is busy, and every page is
//! logged whole again.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::database::{Background, check_role, database, postgres, session};
use super::{ActiveFault, Fault, Hit, Hold, Place};
use crate::scenario::About;
use crate::scenario::value::Dur;
use crate::stack::{Stack, StackError};

/// `CHECKPOINT` again and again, and bulk writes to a table of the harness's own, which is gone after healing. The log that
/// this writes counts as the database's.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointStorm {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Rest between a checkpoint and the next.
    #[serde(default = "default_every")]
    pub every: Dur,
    /// Megabytes (MiB) that are written before each checkpoint; 0 writes nothing.
    #[serde(default = "default_megabytes")]
    pub megabytes: u32,
}

fn default_every() -> Dur {
    Dur::millis(100)
}
fn default_megabytes() -> u32 {
    8
}

/// More than this in one round is no storm but a flood.
const MOST: u32 = 64;

/// The table is emptied when it has so many MiB, so that a storm does not fill the disk.
const FULL: u32 = 128;

const TABLE: &str = "seckill_scratch";

#[derive(Debug)]
struct Storm {
    role: String,
    rounds: Background<(u32, u64)>,
}

impl Fault for CheckpointStorm {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres that the harness has started".into()
    }

    fn holds(&self) -> &'static [Hold] {
        &[Hold::Scratch]
    }

    fn detail(&self) -> String {
        format!("{} MiB and a checkpoint every {}", self.megabytes, self.every)
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
        if self.megabytes > MOST {
            about.parameter("megabytes", &format!("`megabytes` is {}", self.megabytes), format!("from 0 to {MOST}"));
        }
        if self.every < Dur::millis(1) {
            about.parameter("every", &format!("`every` is {}", self.every), "at least 1ms");
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, storm) = (self.role.get_ref().clone(), self.clone());
            let create = format!("CREATE TABLE IF NOT EXISTS {TABLE} (filler text)");
            session(stack, &role).await?.run(&[&create]).await?;
            let rounds = Background::start(stack, |stack, stop| storm.rage(stack, stop));
            let active: Box<dyn ActiveFault> = Box::new(Storm { role, rounds });
            Ok(active)
        })
    }

    fn undo<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<(), StackError>> {
        Box::pin(drop_table(stack, self.role.get_ref()))
    }
}

impl CheckpointStorm {
    /// Returns how many checkpoints there were, and how many MiB were written.
    async fn rage(self, stack: Arc<Stack>, stop: CancellationToken) -> (u32, u64) {
        let (mut checkpoints, mut written, mut in_table) = (0, 0, 0);
        while !stop.is_cancelled() {
            // A database that is killed meanwhile ends this round, and not the storm.
            if self.round(&stack, &mut in_table).await.is_ok() {
                checkpoints += 1;
                written += u64::from(self.megabytes);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.every.0) => {}
            }
        }
        (checkpoints, written)
    }

    async fn round(&self, stack: &Stack, in_table: &mut u32) -> Result<(), StackError> {
        let session = database(stack, self.role.get_ref())?.connect().await?;
        if *in_table >= FULL {
            session.run(&[&format!("TRUNCATE {TABLE}")]).await?;
            *in_table = 0;
        }
        if self.megabytes > 0 {
            // A kibibyte for each row, and nothing that could be compressed away.
            let rows = u64::from(self.megabytes) * 1024;
            let filler = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 31 + n * 0))";
            let write = format!("INSERT INTO {TABLE} SELECT {filler} FROM generate_series(1, {rows}) AS n");
            session.run(&[&write]).await?;
            *in_table += self.megabytes;
        }
        session.run(&["CHECKPOINT"]).await
    }
}

async fn drop_table(stack: &Arc<Stack>, role: &str) -> Result<(), StackError> {
    session(stack, role).await?.run(&[&format!("DROP TABLE IF EXISTS {TABLE}")]).await
}

/// A storm in which no checkpoint was completed was none.
pub(super) fn came_to(checkpoints: u32, written: u64) -> Hit {
    Hit::new(checkpoints.into(), format!("{checkpoints} checkpoints, {written} MiB written"))
}

impl ActiveFault for Storm {
    fn heal<'a>(&'a mut self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            let (checkpoints, written) = self.rounds.stop().await?;
            drop_table(stack, &self.role).await?;
            Ok(came_to(checkpoints, written))
        })
    }
}
