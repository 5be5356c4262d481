//! Postgres ends the service's sessions, as an administrator or a failing pooler would.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use toml::Spanned;

use super::database::{Background, check_role, database, postgres, session, theirs};
use super::hit::counted;
use super::link::all;
use super::{ActiveFault, Fault, Hit, Place};
use crate::scenario::About;
use crate::scenario::value::Dur;
use crate::stack::{Stack, StackError};

/// `pg_terminate_backend` for the sessions of the service, in whatever they are doing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminateBackends {
    /// The database.
    #[serde(default = "postgres")]
    #[schemars(with = "String")]
    pub role: Spanned<String>,
    /// Share of the sessions that are ended, above 0 and up to 1, and one session at least. Which ones is up to the database, and not
    /// to the seed.
    #[serde(default = "all")]
    pub share: f64,
    /// How often; without it, once.
    pub every: Option<Dur>,
}

/// A session can hardly be made faster than this.
const OFTEN: Dur = Dur::millis(10);

#[derive(Debug)]
struct Terminating {
    first: u64,
    rounds: Option<Background<(u64, u64)>>,
}

impl Fault for TerminateBackends {
    fn place(&self) -> Place<'_> {
        Place::Role(&self.role)
    }

    fn needs() -> String {
        "a Postgres that the harness has started".into()
    }

    fn detail(&self) -> String {
        let share = if self.share < 1.0 { format!("{:.0}% of", self.share * 100.0) } else { "all".to_owned() };
        let often = self.every.map_or("once".to_owned(), |every| format!("every {every}"));
        format!("ends {share} the service's sessions, {often}")
    }

    fn check(&self, about: &mut About<'_>) {
        check_role(&self.role, about);
        about.share("share", self.share);
        if let Some(every) = self.every {
            about.while_it_lasts("every", every);
        }
        if self.every.is_some_and(|every| every < OFTEN) {
            let what = format!("`every` is {}", self.every.unwrap_or_default());
            about.parameter("every", &what, format!("at least {OFTEN}; or leave it out to end them once"));
        }
    }

    fn inject<'a>(&'a self, stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Box<dyn ActiveFault>, StackError>> {
        Box::pin(async move {
            let (role, share) = (self.role.get_ref().clone(), self.share);
            let first = session(stack, &role).await?.number(&statement(share)).await?;
            let rounds = self.every.map(|every| {
                Background::start(stack, |stack, stop| again_and_again(stack, role, share, every.0, stop))
            });
            let active: Box<dyn ActiveFault> = Box::new(Terminating { first, rounds });
            Ok(active)
        })
    }
}

/// Sessions are drawn, since those that were made first are not always those that work.
fn statement(share: f64) -> String {
    let theirs = theirs();
    format!(
        "SELECT count(pg_terminate_backend(pid)) FROM (
            SELECT pid FROM pg_stat_activity WHERE {theirs} ORDER BY random()
             LIMIT (SELECT ceil(count(*) * {share}::float8)::bigint FROM pg_stat_activity WHERE {theirs})) AS drawn"
    )
}

/// Returns how many rounds there were, and how many sessions they ended.
async fn again_and_again(
    stack: Arc<Stack>,
    role: String,
    share: f64,
    every: Duration,
    stop: CancellationToken,
) -> (u64, u64) {
    let mut ended = (0, 0);
    loop {
        tokio::select! {
            () = stop.cancelled() => return ended,
            () = tokio::time::sleep(every) => {}
        }
        // A database that is down meanwhile has no sessions to end.
        let Ok(database) = database(&stack, &role) else { return ended };
        if let Ok(session) = database.connect().await
            && let Ok(hit) = session.number(&statement(share)).await
        {
            ended = (ended.0 + 1, ended.1 + hit);
        }
    }
}

/// What was ended, in how many rounds.
pub(super) fn ended(sessions: u64, rounds: u64) -> Hit {
    let rounds = if rounds > 1 { format!(" in {rounds} rounds") } else { String::new() };
    Hit::new(sessions, format!("{} ended{rounds}", counted(sessions, "session", "sessions")))
}

impl ActiveFault for Terminating {
    fn heal<'a>(&'a mut self, _stack: &'a Arc<Stack>) -> BoxFuture<'a, Result<Hit, StackError>> {
        Box::pin(async move {
            match &mut self.rounds {
                None => Ok(ended(self.first, 1)),
                Some(rounds) => {
                    let (more, sessions) = rounds.stop().await?;
                    Ok(ended(self.first + sessions, more + 1))
                }
            }
        })
    }
}
