//! Commands of the scenario that are run beside a rehearsal: they set the shop up, print its books, clean it up.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::scenario::external::Cleanup;
use crate::stack::StackError;
use crate::stack::control::ItemSetup;
use crate::stack::process::tail_of;

/// How long a command may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So much of what it said on stderr is quoted.
const MOST_QUOTED: usize = 400;

/// What commands are told in their environment.
pub type Environment = Vec<(&'static str, String)>;

/// The environment of every command of a run.
pub fn environment(run_id: &str, address: &str) -> Environment {
    vec![
        ("SECKILL_RUN_ID", run_id.to_owned()),
        ("SECKILL_USER_PREFIX", crate::run::user_prefix(run_id)),
        ("SECKILL_ADDRESS", address.to_owned()),
    ]
}

/// What the set-up is told besides: all items as JSON, and the first one in words of its own. Times are Unix microseconds.
pub fn of_items(items: &[ItemSetup]) -> Environment {
    let mut told = vec![("SECKILL_ITEMS", serde_json::to_string(items).expect("numbers and texts are JSON"))];
    if let Some(item) = items.first() {
        told.extend([
            ("SECKILL_ITEM", item.id.to_string()),
            ("SECKILL_STOCK", item.stock.to_string()),
            ("SECKILL_PRICE_CENTS", item.price_cents.to_string()),
            ("SECKILL_PER_USER_LIMIT", item.per_user_limit.to_string()),
            ("SECKILL_OPENS_AT", item.opens_at.to_string()),
            ("SECKILL_CLOSES_AT", item.closes_at.to_string()),
            ("SECKILL_HOLD_MS", item.hold_ms.to_string()),
        ]);
    }
    told
}

/// How the failure of a command is told.
fn failed(key: &str, command: &[String]) -> impl Fn(String) -> StackError {
    let shown = command.join(" ");
    move |what| StackError::Other(format!("{key}: `{shown}` {what}"))
}

/// A command with its environment: without input, and in a group of its own.
fn prepared(key: &str, command: &[String], told: &[(&'static str, String)]) -> Result<Command, StackError> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| failed(key, command)("names no program".to_owned()))?;
    let mut prepared = Command::new(program);
    prepared.args(arguments).envs(told.iter().map(|(name, value)| (name, value)));
    prepared.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(prepared)
}

/// Runs a command to its end and gives what it printed. It gets no input, and is killed with all that it started when its time
/// is over.
///
/// # Errors
/// It cannot be started, did not end in time, or ended with another code than 0; what it said on stderr.
pub async fn run(key: &str, command: &[String], told: &[(&'static str, String)]) -> Result<Vec<u8>, StackError> {
    let failed = failed(key, command);
    let child = prepared(key, command, told)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| failed(format!("cannot be started: {error}")))?;
    let group = child.id();
    let Ok(ended) = tokio::time::timeout(PATIENCE, child.wait_with_output()).await else {
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
        }
        return Err(failed(format!("did not end within {} s", PATIENCE.as_secs())));
    };
    let output = ended.map_err(|error| failed(format!("could not be waited for: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<char> = said.trim().chars().collect();
    let tail: String = said[said.len().saturating_sub(MOST_QUOTED)..].iter().collect();
    Err(failed(format!("ended with {}: {tail}", output.status)))
}

/// Runs a command that leaves something in the background, which may keep what the command writes to open: it goes into a log.
///
/// # Errors
/// It cannot be started, did not end in time, or ended with another code than 0; the end of the log.
pub async fn run_into(
    log: &Path,
    key: &str,
    command: &[String],
    told: &[(&'static str, String)],
) -> Result<(), StackError> {
    let failed = failed(key, command);
    let open = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let out = open.map_err(|error| StackError::io(format!("cannot write the log {}", log.display()), error))?;
    let error = out.try_clone().map_err(|error| StackError::io("cannot share the log", error))?;
    let child = prepared(key, command, told)?.stdout(out).stderr(error).spawn();
    let mut child = child.map_err(|error| failed(format!("cannot be started: {error}")))?;
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("ended with {status}:\n{}", tail_of(log)))),
        Ok(Err(error)) => Err(failed(format!("could not be waited for: {error}"))),
        Err(_) => Err(failed(format!("did not end within {} s", PATIENCE.as_secs()))),
    }
}

/// The clean-up of a run, which is made once.
#[derive(Debug)]
pub struct CleanUp {
    spec: Cleanup,
    told: Environment,
    done: AtomicBool,
}

impl CleanUp {
    /// One that is still to be made.
    pub fn new(spec: Cleanup, told: Environment) -> CleanUp {
        CleanUp { spec, told, done: AtomicBool::new(false) }
    }

    /// Makes it, and sees that nothing is left; nothing where it was made before.
    ///
    /// # Errors
    /// The command failed, or the check says that something is left.
    pub async fn make(&self) -> Option<Result<String, String>> {
        if self.done.swap(true, Ordering::SeqCst) {
            return None;
        }
        Some(self.try_to().await.map_err(|error| format!("the shop was NOT cleaned up: {error}")))
    }

    async fn try_to(&self) -> Result<String, StackError> {
        run("target.external.cleanup.command", &self.spec.command, &self.told).await?;
        let Some(verify) = &self.spec.verify else {
            return Ok(
                "the shop was cleaned up; nothing says whether something is left (target.external.cleanup.verify)"
                    .to_owned(),
            );
        };
        run("target.external.cleanup.verify", verify, &self.told).await?;
        Ok("the shop was cleaned up, and its check found nothing left".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_command_is_told_of_the_run_and_its_failure_is_quoted() {
        let told = environment("7", "127.0.0.1:1");
        let printed = run("k", &words(&["sh", "-c", "echo $SECKILL_USER_PREFIX"]), &told).await.unwrap();
        assert_eq!(printed, b"r7-u\n");
        let error = run("k", &words(&["sh", "-c", "echo no stock >&2; exit 3"]), &told).await.unwrap_err().to_string();
        assert!(error.starts_with("k: `sh -c") && error.contains("exit status: 3: no stock"), "{error}");
        let error = run("k", &words(&["/no/such/program"]), &told).await.unwrap_err().to_string();
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_clean_up_is_made_once_and_verified() {
        let of = |command: &str, verify: &str| {
            let spec = Cleanup { command: words(&["sh", "-c", command]), verify: Some(words(&["sh", "-c", verify])) };
            CleanUp::new(spec, Vec::new())
        };
        let clean = of("true", "true");
        assert!(clean.make().await.unwrap().unwrap().contains("nothing left"));
        assert!(clean.make().await.is_none());
        let left = of("true", "echo 3 orders are left >&2; false").make().await.unwrap().unwrap_err();
        assert!(left.contains("NOT cleaned up") && left.contains("3 orders are left"), "{left}");
        assert!(of("false", "true").make().await.unwrap().is_err());
    }
}
