//! One probe per requirement: each looks at the machine, changes nothing, and takes at most a few seconds.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use super::Missing;
use super::packages::{Package, as_root, on_path, remedy};
use crate::priority::{REAL_TIME_POLICY, make_real_time};

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// Enough connections for a spike of thousands of buyers, each of which holds a socket at both ends.
const WANTED_DESCRIPTORS: u64 = 8192;

/// Room for the write-ahead log and the tables of one run.
const WANTED_BYTES: u64 = 1 << 30;

/// The kernel's limit for the path of a unix socket, with its closing zero.
const SOCKET_PATH_BYTES: usize = 108;

/// What a run appends to the temporary folder at most: `/seckill-<13 digits>/access/1/public.sock`.
const SOCKET_SUFFIX_BYTES: usize = 43;

/// The user whom the harness becomes to run what refuses to run as root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Its name in the user database.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
}

impl User {
    /// Makes the command run as this user, without any of root's other groups.
    pub fn applied_to<'command>(&self, command: &'command mut Command) -> &'command mut Command {
        // The standard library empties the supplementary groups when it changes the user as root.
        command.gid(self.gid).uid(self.uid)
    }
}

/// The user to drop to: `None` when the harness is not root and so need not drop, else `postgres`, else `nobody`.
pub fn unprivileged_user() -> Result<Option<User>, Missing> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| nix::unistd::User::from_name(name).ok().flatten())
        .filter(|user| !user.uid.is_root())
        .map(|user| Some(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
        .ok_or_else(|| {
            Missing::new(
                "the harness runs as root, and there is neither a user postgres nor a user nobody to drop to",
                "useradd --system --shell /usr/sbin/nologin postgres",
            )
        })
}

/// The service binary that was built beside the running program.
pub fn target_binary() -> Result<PathBuf, Missing> {
    const BUILD: &str = "cargo build --release --workspace";
    let own = std::env::current_exe()
        .map_err(|error| Missing::new(format!("the running program does not know its own path: {error}"), BUILD))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    // A test program lives in `deps/`, one folder below the binaries that were built with it.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(format!("seckill-target{}", std::env::consts::EXE_SUFFIX));
    if super::packages::is_executable(&path) {
        Ok(path)
    } else {
        Err(Missing::new(format!("there is no {}", path.display()), BUILD))
    }
}

/// Looks the user up, then becomes it once: in some containers root may not.
pub(super) fn unprivileged() -> Result<String, Missing> {
    let Some(user) = unprivileged_user()? else {
        return Ok("not needed: not running as root".to_owned());
    };
    let mut command = Command::new("true");
    command.current_dir("/");
    match output_within(user.applied_to(&mut command), PATIENCE) {
        Ok(output) if output.status.success() => Ok(format!("{} ({})", user.name, user.uid)),
        Ok(output) => Err(Missing::new(
            format!("a program run as the user {} ended with {}", user.name, output.status),
            "run the harness as an ordinary user",
        )),
        Err(error) => Err(Missing::new(
            format!("this root may not become the user {}: {error}", user.name),
            "run the harness as an ordinary user",
        )),
    }
}

/// The folder must have room, a short path, and be open to the user that Postgres will run as.
pub(super) fn temporary_folder() -> Result<String, Missing> {
    let folder = folder_for_sockets()?;
    let missing = |why: String| unusable(&folder, &why);
    let space = nix::sys::statvfs::statvfs(&folder)
        .map_err(|error| missing(format!("does not tell its free space: {error}")))?;
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    let free = space.blocks_available() as u64 * space.fragment_size() as u64;
    let mib = free >> 20;
    if free < WANTED_BYTES {
        return Err(missing(format!("has {mib} MiB free, and a run wants {} MiB", WANTED_BYTES >> 20)));
    }
    Ok(format!("{}, {mib} MiB free", folder.display()))
}

/// The folder for temporary files, with symbolic links resolved, if the sockets and the Postgres of a run can be there.
pub fn folder_for_sockets() -> Result<PathBuf, Missing> {
    examine_folder_for_sockets(&std::env::temp_dir())
}

fn examine_folder_for_sockets(folder: &Path) -> Result<PathBuf, Missing> {
    let resolved =
        std::fs::canonicalize(folder).map_err(|error| unusable(folder, &format!("cannot be used: {error}")))?;
    let missing = |why: String| unusable(&resolved, &why);
    let longest = SOCKET_PATH_BYTES - 1 - SOCKET_SUFFIX_BYTES;
    let length = resolved.as_os_str().len();
    if length > longest {
        return Err(missing(format!(
            "has a path of {length} bytes; unix sockets of a run fit only below a path of {longest} or fewer"
        )));
    }
    probe_writing(&resolved).map_err(|error| missing(format!("cannot be written to: {error}")))?;
    if let Ok(Some(user)) = unprivileged_user() {
        let mut command = Command::new("test");
        command.arg("-x").arg(&resolved).current_dir("/");
        let entered = output_within(user.applied_to(&mut command), PATIENCE);
        if !entered.is_ok_and(|output| output.status.success()) {
            return Err(missing(format!(
                "cannot be entered by the user {}, who runs Postgres: it, or a folder above it, is closed to others",
                user.name
            )));
        }
    }
    Ok(resolved)
}

fn unusable(folder: &Path, why: &str) -> Missing {
    const REMEDY: &str = "export TMPDIR=/var/tmp   # or any folder with a short path, room and free access";
    Missing::new(format!("the folder for temporary files, {}, {why}", folder.display()), REMEDY)
}

/// Writes to a file that has no name, where the file system knows such: a kill in between leaves nothing behind.
fn probe_writing(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(b"x")
}

pub(super) fn file_descriptors() -> Result<String, Missing> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| Missing::new(format!("the limit cannot be read: {error}"), "ulimit -Hn"))?;
    if hard >= WANTED_DESCRIPTORS {
        let allowed = if hard == nix::libc::RLIM_INFINITY { "any number".to_owned() } else { hard.to_string() };
        Ok(format!("{soft} now, {allowed} allowed"))
    } else {
        Err(Missing::new(
            format!("{hard} allowed, and a full spike wants {WANTED_DESCRIPTORS}"),
            as_root(&format!("prlimit --pid $$ --nofile={WANTED_DESCRIPTORS}")),
        ))
    }
}

pub(super) fn processors() -> Result<String, Missing> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors >= 2 {
        Ok(processors.to_string())
    } else {
        Err(Missing::new(
            "there is one, which the generator and the target have to share",
            "give this machine a second processor, or read its latencies as upper bounds",
        ))
    }
}

#[cfg(target_os = "linux")]
pub(super) fn timerfd() -> Result<String, Missing> {
    use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
    TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)
        .map(|_| "offered by the kernel".to_owned())
        .map_err(|error| Missing::new(format!("the kernel refuses it: {error}"), "use a Linux kernel 2.6.25 or newer"))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn timerfd() -> Result<String, Missing> {
    Err(Missing::new("this system has none", "run the rehearsal on Linux"))
}

/// Asks for the generator's real-time policy in a thread that ends at once, so that nothing else is touched by the answer.
pub(super) fn real_time() -> Result<String, Missing> {
    let remedy = || as_root("prlimit --pid $$ --rtprio=10");
    match std::thread::spawn(make_real_time).join() {
        Ok(Ok(())) => Ok(format!("{REAL_TIME_POLICY} is allowed")),
        Ok(Err(error)) => Err(Missing::new(format!("{REAL_TIME_POLICY} is refused: {error}"), remedy())),
        Err(_) => Err(Missing::new("the probe failed", remedy())),
    }
}

/// Asks the engine itself for its version, because a client program on the PATH says nothing about the engine.
pub(super) fn docker() -> Result<String, Missing> {
    let sockets = docker_sockets();
    for socket in &sockets {
        if let Ok(version) = ask_docker(socket) {
            return Ok(format!("{version} at {}", socket.display()));
        }
    }
    let tried: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    Err(Missing::new(format!("no engine answers at {}", tried.join(", ")), remedy(Package::Docker)))
}

/// How to get a Docker engine.
pub fn docker_remedy() -> String {
    format!(
        "{}; or start the one that is installed, or name its socket: DOCKER_HOST=unix://...",
        remedy(Package::Docker)
    )
}

fn docker_sockets() -> Vec<PathBuf> {
    if let Some(socket) = std::env::var("DOCKER_HOST").ok().and_then(|host| Some(host.strip_prefix("unix://")?.into()))
    {
        return vec![socket];
    }
    let below = |variable: &str, rest: &str| std::env::var_os(variable).map(|folder| PathBuf::from(folder).join(rest));
    let rootless = [below("XDG_RUNTIME_DIR", "docker.sock"), below("HOME", ".docker/run/docker.sock")];
    let existing = rootless.into_iter().flatten().filter(|socket| socket.exists());
    std::iter::once(PathBuf::from("/var/run/docker.sock")).chain(existing).collect()
}

fn ask_docker(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Version 1.0 of HTTP, so that the answer comes whole and the engine closes the connection after it.
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: serde_json::Value = serde_json::from_str(body.trim()).map_err(io::Error::other)?;
    body["Version"].as_str().map(str::to_owned).ok_or_else(|| io::Error::other("the answer names no version"))
}

/// Whether the program is there that a package is wanted for.
pub(super) fn has(package: Package) -> bool {
    match package {
        Package::Iproute => on_path("ip").is_some(),
        Package::Nftables => on_path("nft").is_some(),
        _ => false,
    }
}

/// What a host of its own takes: root, the two programs, and a kernel that lets us.
///
/// # Errors
/// What is missing, with the remedy.
pub fn network_namespaces() -> Result<String, Missing> {
    for (package, name) in [(Package::Iproute, "ip"), (Package::Nftables, "nft")] {
        if !has(package) {
            return Err(Missing::new(format!("no program {name} on the PATH"), remedy(package)));
        }
    }
    if !nix::unistd::geteuid().is_root() {
        let why = "only root makes network namespaces and firewall rules in them";
        return Err(Missing::new(why, "run the harness as root, or leave out hosts = true and the partitions"));
    }
    // A thread of its own, so that nobody else is moved.
    let alone = || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
    match std::thread::spawn(alone).join() {
        Ok(Ok(())) => Ok("can be made, with ip and nft".to_owned()),
        Ok(Err(error)) => Err(Missing::new(
            format!("this root may not make network namespaces: {error}"),
            "give the container the capability: docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN",
        )),
        Err(_) => Err(Missing::new("the probe failed", "run the harness as root")),
    }
}

pub(super) fn cgroups() -> Result<String, Missing> {
    crate::stack::cgroup::find().map(|_| "processor time can be limited".to_owned())
}

/// A program that is a Redis server if it is called by the right name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisProgram {
    /// The program, with symbolic links resolved.
    pub path: PathBuf,
    /// The name to call it by.
    pub called: String,
}

/// The Redis server of this machine.
///
/// # Errors
/// There is none, and how to get one.
pub fn find_redis() -> Result<RedisProgram, Missing> {
    // In Debian, server and checker are one program of the package redis-tools, which is whole without the package that starts
    // a server on the machine.
    let names =
        [("redis-server", "redis-server"), ("valkey-server", "valkey-server"), ("redis-check-rdb", "redis-server")];
    let found = names.iter().find_map(|(program, called)| Some((on_path(program)?, *called)));
    let Some((path, called)) = found else {
        let why = "no program redis-server or valkey-server on the PATH";
        return Err(Missing::new(why, remedy(Package::Redis)));
    };
    let path = path.canonicalize().unwrap_or(path);
    Ok(RedisProgram { path, called: called.to_owned() })
}

pub(super) fn redis() -> Result<String, Missing> {
    find_redis().map(|found| found.path.display().to_string())
}

pub(super) fn chromium() -> Result<String, Missing> {
    any_program(&["chromium", "chromium-browser", "google-chrome"], || remedy(Package::Chromium))
}

pub(super) fn oha() -> Result<String, Missing> {
    any_program(&["oha"], || "cargo install --locked oha".to_owned())
}

pub(super) fn wrk() -> Result<String, Missing> {
    any_program(&["wrk"], || remedy(Package::Wrk))
}

/// The first of these programs on the PATH. It is not run: some of them take seconds to start, and none is required.
fn any_program(names: &[&str], remedy: impl FnOnce() -> String) -> Result<String, Missing> {
    names.iter().find_map(on_path).map(|path| path.display().to_string()).ok_or_else(|| {
        let names = names.join(" or ");
        Missing::new(format!("no program {names} on the PATH"), remedy())
    })
}

/// Runs a program that answers briefly, and kills it when it does not.
pub(super) fn output_within(command: &mut Command, patience: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_temporary_folder_with_a_long_path_is_refused_before_a_socket_fails_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("x".repeat(60));
        std::fs::create_dir(&folder).unwrap();
        let error = examine_folder_for_sockets(&folder).unwrap_err();
        assert!(error.why.contains("unix sockets"), "{}", error.why);
        assert!(error.remedy.starts_with("export TMPDIR="), "{}", error.remedy);
    }

    #[test]
    fn a_temporary_folder_that_does_not_exist_is_refused() {
        let error = examine_folder_for_sockets(Path::new("/nonexistent")).unwrap_err();
        assert!(error.why.contains("/nonexistent, cannot be used"), "{}", error.why);
    }

    #[test]
    fn the_engine_is_asked_over_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let engine = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request: Vec<_> =
                io::BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            stream
                .write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Version\":\"27.1\"}\n")
                .unwrap();
            request
        });
        assert_eq!(ask_docker(&socket).unwrap(), "27.1");
        assert_eq!(engine.join().unwrap()[0], "GET /version HTTP/1.0");
        assert!(ask_docker(&folder.path().join("none.sock")).is_err());
    }

    #[test]
    fn a_program_that_does_not_answer_is_killed() {
        let started = Instant::now();
        let error = output_within(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
