//! What the tests of the real binary share: a place of their own to run it in, and a look at what it leaves behind.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

pub mod browser;
pub mod proxied;
pub mod skipped;

pub use skipped::{skipped, skipped_in_part};

/// A folder of the test's own, with the TMPDIR of every `seckill` started through it.
pub struct Sandbox {
    root: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        // The name is short, since the paths of Unix sockets may have 107 bytes only.
        let root = tempfile::Builder::new().prefix("sk").tempdir().unwrap();
        let sandbox = Sandbox { root };
        fs::create_dir(sandbox.tmp()).unwrap();
        for folder in [sandbox.root.path(), &sandbox.tmp()] {
            // Run by root, the harness gives its Postgres to another user, who must be able to pass through here.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
        }
        sandbox
    }

    /// The TMPDIR, in which every run has its private folder.
    pub fn tmp(&self) -> PathBuf {
        self.root.path().join("tmp")
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `seckill` with these arguments, working in the sandbox.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_seckill")), arguments)
    }

    /// The same with another `seckill` than the one that was built.
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.root.path()).stdin(Stdio::null());
        command.env("TMPDIR", self.tmp()).env_remove("SECKILL_LOG");
        command
    }

    /// Runs `seckill` to its end.
    pub fn seckill(&self, arguments: &[&str]) -> Ended {
        Ended::of(arguments, &assert_cmd::Command::from_std(self.command(arguments)).output().unwrap())
    }

    /// Starts `seckill`, with its output in the files `stdout` and `stderr`: what outlives it can then never keep a pipe open.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let file = |name: &str| fs::File::create(self.path(name)).unwrap();
        let child = self.command(arguments).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Started { child: Some(child) }
    }

    /// What is left of runs: their folders in TMPDIR, and processes that work there or were told of a place there.
    pub fn left_behind(&self) -> Vec<String> {
        let tmp = fs::canonicalize(self.tmp()).unwrap();
        let mut left: Vec<String> = fs::read_dir(&tmp)
            .unwrap()
            .flatten()
            .map(|entry| format!("folder {}", entry.file_name().to_string_lossy()))
            .collect();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&tmp));
            let told = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let told = String::from_utf8_lossy(&told).replace('\0', " ");
            if works_there || told.contains(tmp.to_str().unwrap()) {
                left.push(format!("process {pid}: {told}"));
            }
        }
        left
    }

    /// After an orderly end, everything is gone by the time the harness is.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left = self.left_behind();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// Waits until nothing is left; returns how long that took. The limit only tells late from never.
    #[track_caller]
    pub fn wait_until_nothing_left(&self) -> Duration {
        let start = Instant::now();
        wait_for("everything of the run to be gone", Duration::from_secs(20), || self.left_behind().is_empty());
        start.elapsed()
    }
}

/// Whether a program is on this machine, and does what it is asked for.
pub fn answers(program: &str, asked: &str) -> bool {
    Command::new(program).arg(asked).output().is_ok_and(|ended| ended.status.success())
}

/// Rehearsals that may be under way at once: more of them on a small machine would only measure each other.
const AT_ONCE: usize = 3;
static ROOMS: Mutex<Rooms> = Mutex::new(Rooms { taken: 0, next: 0, served: 0 });
static CHANGED: Condvar = Condvar::new();

/// Who comes first is served first: one that needs much would otherwise wait until nobody else wants anything.
struct Rooms {
    taken: usize,
    next: u64,
    served: u64,
}

/// Room for some rehearsals, until it is dropped.
pub struct Room(usize);

impl Room {
    /// As many as are started, and one more if it minds what runs beside it.
    pub fn for_rehearsals(wanted: usize) -> Room {
        let mut rooms = ROOMS.lock().unwrap_or_else(|e| e.into_inner());
        let turn = rooms.next;
        rooms.next += 1;
        let not_yet = |rooms: &mut Rooms| rooms.served != turn || rooms.taken + wanted > AT_ONCE;
        let mut rooms = CHANGED.wait_while(rooms, not_yet).unwrap_or_else(|e| e.into_inner());
        rooms.taken += wanted;
        rooms.served += 1;
        CHANGED.notify_all();
        Room(wanted)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        ROOMS.lock().unwrap_or_else(|e| e.into_inner()).taken -= self.0;
        CHANGED.notify_all();
    }
}

/// A `seckill` under way; it is killed if the test ends before it.
pub struct Started {
    child: Option<Child>,
}

impl Started {
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for its end; none if a signal ended it.
    pub fn code(mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a `seckill` ended, and what it said.
pub struct Ended {
    what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn of(arguments: &[&str], output: &Output) -> Ended {
        Ended {
            what: arguments.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Ended {
        let Ended { what, stdout, stderr, .. } = self;
        // The verdict and its reason come first; the series for the charts would bury them.
        let stdout: String = stdout.chars().take(4000).collect();
        assert_eq!(self.code, Some(code), "seckill {what}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Asserts that stderr says each of these.
    #[track_caller]
    pub fn assert_says(&self, texts: &[&str]) -> &Ended {
        for text in texts {
            assert!(self.stderr.contains(text), "seckill {} does not say `{text}`:\n{}", self.what, self.stderr);
        }
        self
    }
}

/// Polls until something holds. The limit is generous: it is there to end a hung test, not to judge speed.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The name of every file in a folder and below.
pub fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            names.extend(files(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}
