//! Makes sure that nothing outlives the harness, however it ends.
//!
//! The guard is a small process of its own, started before anything else. It does nothing until the pipe from the harness
//! closes, which the kernel does on every end, `kill -9` included; then it ends every process of the run, takes away what
//! bears the run's name ([`leftovers`]), removes shared memory that killed databases have left ([`segments`]), and removes the run's private folder. An orderly end takes the same path: there is
//! no second way to clean up that could differ.
//!
//! A process belongs to the run if it works in the run's private folder **and** runs one of the programs that the run
//! started. So a shell that somebody opened in that folder is left alone, and no stale process id is ever trusted.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::leftovers::{self, Run};
use super::segments;
use crate::priority;

/// The hidden subcommand under which the binary acts as the guard.
pub const SUBCOMMAND: &str = "__guard";

/// A running guard; dropping it lets it clean up, and waits for that.
#[derive(Debug)]
pub struct Guard {
    child: Option<Child>,
}

impl Guard {
    /// Starts the guard of `folder`, which is to end processes of `programs` that work in it.
    ///
    /// # Errors
    /// The guard could not be started.
    pub fn start(folder: &Path, programs: &[PathBuf]) -> std::io::Result<Guard> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SUBCOMMAND).arg(folder).args(programs);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        // SAFETY: setsid is async-signal-safe. A session of its own keeps Ctrl-C, which goes to the whole foreground
        // process group, away from the guard.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
        }
        Ok(Guard { child: Some(command.spawn()?) })
    }

    /// Lets the guard clean up, and waits until everything is gone.
    pub fn finish(mut self) {
        self.clean_up();
    }

    fn clean_up(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.clean_up();
    }
}

/// What the guard process does. Returns its exit code.
pub fn main(arguments: &[String]) -> i32 {
    let Some((folder, programs)) = arguments.split_first() else { return 2 };
    let mut everything = Vec::new();
    // The harness never writes; the read ends when its end of the pipe is closed.
    let _ = std::io::stdin().read_to_end(&mut everything);
    // On a machine that is busy with a rehearsal beside this one it still has to be quick. Who may not, waits for its turn.
    priority::prefer();
    let folder = PathBuf::from(folder);
    let programs: Vec<PathBuf> = programs.iter().map(PathBuf::from).collect();
    i32::from(!sweep(&folder, &programs, Duration::from_secs(10)))
}

/// Ends the processes, takes away what bears the run's name, and removes the folder; false if something is left when the time is up.
fn sweep(folder: &Path, programs: &[PathBuf], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let mut quiet = 0;
    while Instant::now() < end {
        let pids = processes_in(folder, programs);
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // A process that was just being forked may be missed by one look; two quiet looks in a row are taken as the end.
        quiet = if pids.is_empty() { quiet + 1 } else { 0 };
        if quiet >= 2 {
            segments::remove_unused(folder);
            // Before the folder: something of the run may be mounted there.
            let left = Run::of_folder(folder).map(|run| leftovers::remove_all(&run, end - Instant::now()));
            remove_files(folder);
            let removed = match std::fs::remove_dir_all(folder) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
            return removed && left.is_none_or(|left| left.is_empty());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Removes the files of a folder, many at once: a cluster has a thousand, and on a disk that is busy each of them waits
/// for the journal. What cannot be removed is left to whoever removes the folders.
fn remove_files(folder: &Path) {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    let share = files.len().div_ceil(REMOVERS).max(1);
    std::thread::scope(|scope| {
        for files in files.chunks(share) {
            scope.spawn(|| files.iter().for_each(|file| drop(std::fs::remove_file(file))));
        }
    });
}

/// Threads that remove files; they wait more than they work.
const REMOVERS: usize = 16;

/// The processes that work in `folder` (or below it) and run one of `programs`.
pub fn processes_in(folder: &Path, programs: &[PathBuf]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
            link("cwd").is_some_and(|cwd| without_deleted(&cwd).starts_with(folder))
                && link("exe").is_some_and(|exe| programs.contains(&without_deleted(&exe)))
        })
        .collect()
}

/// The kernel appends ` (deleted)` to the name of a file that was replaced or removed meanwhile.
fn without_deleted(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Child {
        Command::new("sleep").arg("60").current_dir(folder).spawn().unwrap()
    }

    fn sleep_program() -> PathBuf {
        let found = ["/bin/sleep", "/usr/bin/sleep"].iter().find_map(|p| std::fs::canonicalize(p).ok());
        found.expect("a system without sleep")
    }

    #[test]
    fn ends_what_works_in_the_folder_and_nothing_else() {
        let mine = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let folder = mine.path().canonicalize().unwrap();
        let inside = folder.join("data");
        std::fs::create_dir(&inside).unwrap();
        let mut victim = sleeper(&inside);
        let mut bystander = sleeper(other.path());
        let program = sleep_program();
        assert!(processes_in(&folder, &[PathBuf::from("/no/such/program")]).is_empty(), "only named programs count");
        assert_eq!(processes_in(&folder, std::slice::from_ref(&program)), vec![victim.id() as i32]);
        // The sweep waits until the victim is gone, and a zombie has no cwd, so it need not be reaped first.
        assert!(sweep(&folder, &[program], Duration::from_secs(5)));
        assert!(!victim.wait().unwrap().success());
        assert!(!folder.exists());
        assert!(bystander.try_wait().unwrap().is_none(), "a process elsewhere was hit");
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}
