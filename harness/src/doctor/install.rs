//! Installs the Postgres and Redis servers by the system's package manager, and leaves nothing else behind.
//!
//! Debian's package creates a database cluster of its own and starts it. A rehearsal brings its own private server, so both
//! are held back while the package is installed, and what holds them back is removed afterwards, also on failure.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::packages::{Package, PackageManager, as_root};
use super::{Finding, POSTGRES_SERVER, REDIS_SERVER, find_postgres, find_redis};

/// Says that a file or a line is ours, so that one left by a killed installation is known and removed by the next.
const MARK: &str = "seckill doctor: present only while it installs Postgres";

/// Says in a file of ours that its folder was not there before either.
const MADE_FOLDER: &str = "as is this folder";

/// Where Debian keeps what its packages do for a new server.
const CREATECLUSTER: &str = "etc/postgresql-common/createcluster.conf";

/// Our own addition to it: such files are read in the order of their names, and the last word counts.
const DROP_IN: &str = "etc/postgresql-common/createcluster.d/zz-seckill-doctor.conf";

/// Set by a signal that asks this program to end. A handler can reach nothing but what is global.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why the installation could not be done; each message ends with what a person can do instead.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Only root may install.
    #[error("installing needs root; run: {command}")]
    NotRoot {
        /// The command that does it.
        command: String,
    },
    /// No package manager that this program can drive.
    #[error(
        "no apt-get, dnf or apk here to install with; install the servers that are missing by hand and run the doctor again"
    )]
    NoPackageManager,
    /// What is missing is nothing that a package manager brings.
    #[error("nothing that is missing can be installed by a package manager; each finding names its remedy")]
    NothingInstallable,
    /// The package manager failed; its own words are on stderr.
    #[error("`{command}` ended with {status}; see its own message above")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A program could not be started, or a file could not be written.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody asked the program to end; what had begun was finished and what held services back is removed.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
    /// The setting that holds back a system cluster has no effect, so nothing was installed.
    #[error(
        "create_main_cluster = false has no effect here (pg_conftool says {answer:?}), so nothing more was installed; \
         run: apt-get install -y --no-install-recommends postgresql, which creates and starts a cluster"
    )]
    ClusterNotHeldBack {
        /// What `pg_conftool` answered.
        answer: String,
    },
    /// The package manager succeeded, and still no usable server is found.
    #[error("the package was installed, and still {0}")]
    StillMissing(#[from] super::Missing),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> InstallError {
    let what = what.into();
    move |source| InstallError::Io { what, source }
}

/// Installs those of the findings that are missing and that a package manager can bring; says what it installed.
pub fn install(findings: &[Finding]) -> Result<Vec<String>, InstallError> {
    let wanted = |name: &str| findings.iter().any(|finding| finding.name == name && finding.is_missing());
    let (postgres, redis) = (wanted(POSTGRES_SERVER), wanted(REDIS_SERVER));
    if !postgres && !redis {
        return Err(InstallError::NothingInstallable);
    }
    let manager = PackageManager::detect().ok_or(InstallError::NoPackageManager)?;
    if !nix::unistd::geteuid().is_root() {
        let package = if postgres { Package::Postgres } else { Package::Redis };
        let command = own_command().unwrap_or_else(|| manager.command(package));
        return Err(InstallError::NotRoot { command });
    }
    let _alone = lock(Path::new("/")).map_err(io_error("waiting for another doctor to finish its installation"))?;
    clear_leftovers(Path::new("/")).map_err(io_error("clearing away what a killed installation left"))?;
    let _signals = SignalsHeld::new();
    let mut installed = Vec::new();
    // Another doctor may have installed either while this one waited.
    if postgres && find_postgres().is_err() {
        match manager {
            PackageManager::Apt => install_with_apt(manager.package(Package::Postgres), Path::new("/"))?,
            _ => bring(manager, Package::Postgres)?,
        }
        let found = find_postgres()?;
        installed.push(format!("the Postgres server {found}; no system cluster was created or started"));
    }
    if redis && find_redis().is_err() {
        bring(manager, Package::Redis)?;
        let found = find_redis()?;
        installed.push(format!("the Redis server {}; nothing was started", found.path.display()));
    }
    Ok(installed)
}

/// Installs a package that starts nothing by itself.
fn bring(manager: PackageManager, package: Package) -> Result<(), InstallError> {
    let package = manager.package(package);
    match manager {
        PackageManager::Apt => apt_install(package),
        PackageManager::Dnf => run(Command::new("dnf").args(["install", "-y", "-q", package]), Reach::Interrupted),
        PackageManager::Apk => run(Command::new("apk").args(["add", "--no-cache", "-q", package]), Reach::Interrupted),
        _ => Err(InstallError::NoPackageManager),
    }
}

/// Installs what makes and parts hosts; false if it cannot be had here. A rehearsal can do without, so this is no error.
pub(super) fn network_tools() -> bool {
    if !nix::unistd::geteuid().is_root() || PackageManager::detect() != Some(PackageManager::Apt) {
        return false;
    }
    let missing = |package| !super::probes::has(package);
    let packages = [Package::Iproute, Package::Nftables].into_iter().filter(|package| missing(*package));
    let installed: Vec<bool> = packages
        .map(|package| {
            let name = PackageManager::Apt.package(package);
            let known = apt_knows(name) || apt_get(&["update"], Reach::Interrupted).is_ok();
            known && apt_install(name).is_ok()
        })
        .collect();
    !installed.is_empty() && installed.into_iter().all(|done| done)
}

/// The command by which somebody who is not root lets this very program do the installation.
pub(super) fn own_command() -> Option<String> {
    let installs = matches!(PackageManager::detect()?, PackageManager::Apt | PackageManager::Dnf | PackageManager::Apk);
    let own = std::env::current_exe().ok()?;
    let own = own.display().to_string();
    // Double quotes, because `su -c` puts the whole command into single ones.
    let own = if own.contains(char::is_whitespace) { format!("\"{own}\"") } else { own };
    installs.then(|| as_root(&format!("{own} doctor --install")))
}

/// The order matters: the file in which a cluster is declined belongs to `postgresql-common`, so that comes first.
fn install_with_apt(package: &str, root: &Path) -> Result<(), InstallError> {
    if !apt_knows(package) {
        apt_get(&["update"], Reach::Interrupted)?;
    }
    let _no_start = PolicyDenied::new(root).map_err(io_error("forbidding service starts in usr/sbin/policy-rc.d"))?;
    apt_install("postgresql-common")?;
    let _no_cluster = ClusterDeclined::new(root).map_err(io_error("declining a main cluster in createcluster.conf"))?;
    let answer = asked_create_main_cluster();
    if answer != "off" {
        return Err(InstallError::ClusterNotHeldBack { answer });
    }
    apt_install(package)
}

/// Whether apt's lists, which may be absent or empty on a fresh machine, offer the package.
fn apt_knows(package: &str) -> bool {
    let Ok(output) = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output() else {
        return false;
    };
    let answer = String::from_utf8_lossy(&output.stdout);
    answer.contains("Candidate: ") && !answer.contains("Candidate: (none)")
}

/// Downloads, then installs. A download may be interrupted at any moment; dpkg may not, because it would leave packages
/// half configured, and a person who then mends them by hand would get the very cluster that is declined here.
fn apt_install(package: &str) -> Result<(), InstallError> {
    let words = ["install", "-y", "--no-install-recommends", package];
    let download =
        || apt_get(&["install", "-y", "--no-install-recommends", "--download-only", package], Reach::Interrupted);
    // Old lists name files that the mirror has dropped, so a failure may be mended by renewing them.
    download().or_else(|error| {
        if matches!(error, InstallError::Interrupted) {
            return Err(error);
        }
        apt_get(&["update"], Reach::Interrupted)?;
        download()
    })?;
    apt_get(&words, Reach::LeftAlone)
}

fn apt_get(arguments: &[&str], reach: Reach) -> Result<(), InstallError> {
    let mut command = Command::new("apt-get");
    // Another apt may be at work, as on a machine that has just been started: it is waited for.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    run(&mut command, reach)
}

/// Whether Ctrl-C in a terminal reaches the program that is run.
#[derive(PartialEq)]
enum Reach {
    Interrupted,
    LeftAlone,
}

/// The package manager's own words go to stderr, because stdout is for the doctor's findings.
fn run(command: &mut Command, reach: Reach) -> Result<(), InstallError> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("doctor: {line}");
    if reach == Reach::LeftAlone {
        // A terminal signals the group in its foreground, and this program is then in one of its own.
        command.process_group(0);
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()))
        .status()
        .map_err(io_error(format!("starting `{line}`")))?;
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(InstallError::Interrupted);
    }
    if status.success() { Ok(()) } else { Err(InstallError::Failed { command: line, status }) }
}

/// Asks in the same way as the package's own script will ask.
fn asked_create_main_cluster() -> String {
    Command::new("pg_conftool")
        .args(["/etc/postgresql-common/createcluster.conf", "show", "-bs", "create_main_cluster"])
        .output()
        .map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Lets one doctor install at a time: what carries the mark while this is held was left by one that was killed. A folder
/// is locked instead of a file of our own, so that nothing is left behind; the kernel releases it when the process ends.
fn lock(root: &Path) -> io::Result<File> {
    let folder = File::open(root.join("usr/sbin"))?;
    if folder.try_lock().is_err() {
        eprintln!("doctor: another doctor is installing; waiting for it");
        folder.lock()?;
    }
    Ok(folder)
}

/// Clears away what an installation that was killed has left on this machine: a forgotten policy would keep every package
/// from starting its services. Does nothing while another doctor installs, or when not root.
pub(super) fn mend_killed_installation() {
    let root = Path::new("/");
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Ok(folder) = File::open(root.join("usr/sbin")) else { return };
    if folder.try_lock().is_ok()
        && let Err(error) = clear_leftovers(root)
    {
        eprintln!("doctor: what a killed installation left could not be cleared away: {error}");
    }
}

fn clear_leftovers(root: &Path) -> io::Result<()> {
    let marked = |path: &Path| fs::read_to_string(path).ok().filter(|text| text.contains(MARK));
    for file in ["usr/sbin/policy-rc.d", DROP_IN] {
        let path = root.join(file);
        if let Some(text) = marked(&path) {
            eprintln!("doctor: removing {}, which a killed installation left", path.display());
            fs::remove_file(&path)?;
            if let Some(folder) = path.parent().filter(|_| text.contains(MADE_FOLDER)) {
                // Somebody may have put a file of their own there meanwhile, and then the folder stays.
                let _ = fs::remove_dir(folder);
            }
        }
    }
    let file = root.join(CREATECLUSTER);
    if let Some(text) = marked(&file) {
        eprintln!("doctor: putting {} back, which a killed installation changed", file.display());
        let lines = text.split_inclusive('\n').filter(|line| !line.contains(MARK));
        fs::write(&file, lines.collect::<String>())?;
    }
    Ok(())
}

/// While it lives, packages may not start services; a policy that the machine already has is left as it is.
struct PolicyDenied(Option<PathBuf>);

impl PolicyDenied {
    fn new(root: &Path) -> io::Result<Self> {
        let path = root.join("usr/sbin/policy-rc.d");
        match OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path) {
            Ok(mut file) => {
                // From here on the file is removed on every way out.
                let guard = Self(Some(path.clone()));
                write!(file, "#!/bin/sh\n# {MARK}\nexit 101\n")?;
                // The mask of the process may have taken the right to execute away.
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                Ok(guard)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

impl Drop for PolicyDenied {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            removed(&path, fs::remove_file(&path));
        }
    }
}

/// While it lives, `create_main_cluster = false` holds: by a file of its own where the configuration includes such files,
/// else by a line at the end of `createcluster.conf`, whose text is put back afterwards.
enum ClusterDeclined {
    DropIn { file: PathBuf, made_folder: Option<PathBuf> },
    Edited { file: PathBuf, original: String },
}

impl ClusterDeclined {
    fn new(root: &Path) -> io::Result<Self> {
        let file = root.join(CREATECLUSTER);
        let text = fs::read_to_string(&file)?;
        let includes =
            text.lines().any(|line| line.trim_start().starts_with("include_dir") && line.contains("createcluster.d"));
        if includes { Self::drop_in(root.join(DROP_IN)) } else { Self::edit(file, text) }
    }

    fn drop_in(file: PathBuf) -> io::Result<Self> {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let made_folder = match fs::create_dir(folder) {
            Ok(()) => Some(folder.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            Err(error) => return Err(error),
        };
        let folder_too = if made_folder.is_some() { format!("# {MADE_FOLDER}\n") } else { String::new() };
        let text = format!("# {MARK}\n{folder_too}create_main_cluster = false\n");
        // The guard comes first, so that a file written by half is removed too.
        let guard = Self::DropIn { file: file.clone(), made_folder };
        fs::write(file, text)?;
        Ok(guard)
    }

    fn edit(file: PathBuf, original: String) -> io::Result<Self> {
        let gap = if original.is_empty() || original.ends_with('\n') { "" } else { "\n" };
        let edited = format!("{original}{gap}create_main_cluster = false # {MARK}\n");
        let guard = Self::Edited { file: file.clone(), original };
        fs::write(file, edited)?;
        Ok(guard)
    }
}

impl Drop for ClusterDeclined {
    fn drop(&mut self) {
        match self {
            Self::DropIn { file, made_folder } => {
                removed(file, fs::remove_file(&*file));
                if let Some(folder) = made_folder {
                    removed(folder, fs::remove_dir(&*folder));
                }
            }
            Self::Edited { file, original } => removed(file, fs::write(&*file, original)),
        }
    }
}

/// A guard that cannot clean up can only say so.
fn removed(path: &Path, result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("doctor: {} could not be put back: {error}; remove what names the seckill doctor", path.display());
    }
}

/// While it lives, the signals that ask a program to end do not end this one before it has put everything back; they are
/// noted. They are not ignored, because programs started meanwhile would inherit that, as they do not inherit a handler.
struct SignalsHeld(Vec<(Signal, SigAction)>);

extern "C" fn note_interruption(_signal: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

impl SignalsHeld {
    fn new() -> Self {
        let action = SigAction::new(SigHandler::Handler(note_interruption), SaFlags::SA_RESTART, SigSet::empty());
        let held = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().filter_map(|signal| {
            // SAFETY: the handler stores to one atomic and nothing else, so it may run at any moment.
            let earlier = unsafe { sigaction(signal, &action) }.ok()?;
            Some((signal, earlier))
        });
        Self(held.collect())
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        for (signal, earlier) in &self.0 {
            // SAFETY: this puts back the action that was in force before.
            let _ = unsafe { sigaction(*signal, earlier) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (sbin, etc) = (root.path().join("usr/sbin"), root.path().join("etc/postgresql-common"));
        fs::create_dir_all(&sbin).unwrap();
        fs::create_dir_all(&etc).unwrap();
        (root, sbin.join("policy-rc.d"), etc)
    }

    #[test]
    fn service_starts_are_forbidden_only_for_a_while() {
        let (root, policy, _) = debian();
        let guard = PolicyDenied::new(root.path()).unwrap();
        assert!(super::super::packages::is_executable(&policy));
        assert!(fs::read_to_string(&policy).unwrap().ends_with("exit 101\n"));
        drop(guard);
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays_and_one_left_by_a_killed_installation_goes() {
        clear_leftovers(Path::new("/nonexistent")).unwrap();
        let (root, policy, _) = debian();
        fs::write(&policy, "#!/bin/sh\nexit 101\n").unwrap();
        drop(PolicyDenied::new(root.path()).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "#!/bin/sh\nexit 101\n");
        clear_leftovers(root.path()).unwrap();
        assert!(policy.exists());

        fs::remove_file(&policy).unwrap();
        std::mem::forget(PolicyDenied::new(root.path()).unwrap());
        assert!(policy.exists());
        clear_leftovers(root.path()).unwrap();
        assert!(!policy.exists());
    }

    #[test]
    fn a_cluster_is_declined_by_a_file_of_our_own_where_such_files_are_read() {
        let (root, _, etc) = debian();
        fs::write(etc.join("createcluster.conf"), "ssl = on\ninclude_dir '/etc/postgresql-common/createcluster.d'\n")
            .unwrap();
        let guard = ClusterDeclined::new(root.path()).unwrap();
        let dropped_in = fs::read_to_string(etc.join("createcluster.d/zz-seckill-doctor.conf")).unwrap();
        assert!(dropped_in.ends_with("create_main_cluster = false\n"));
        drop(guard);
        assert!(!etc.join("createcluster.d").exists(), "the folder was not there before");

        std::mem::forget(ClusterDeclined::new(root.path()).unwrap());
        clear_leftovers(root.path()).unwrap();
        assert!(!etc.join("createcluster.d").exists());

        fs::create_dir(etc.join("createcluster.d")).unwrap();
        fs::write(etc.join("createcluster.d/mine.conf"), "ssl = off\n").unwrap();
        drop(ClusterDeclined::new(root.path()).unwrap());
        let left: Vec<_> = etc.join("createcluster.d").read_dir().unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["mine.conf"]);
    }

    #[test]
    fn elsewhere_a_line_is_added_and_the_text_put_back_even_after_a_killed_installation() {
        let (root, _, etc) = debian();
        let file = etc.join("createcluster.conf");
        let original = "# include_dir 'createcluster.d'\nssl = on";
        fs::write(&file, original).unwrap();
        let guard = ClusterDeclined::new(root.path()).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("ssl = on\ncreate_main_cluster = false #"));
        drop(guard);
        assert_eq!(fs::read_to_string(&file).unwrap(), original);

        std::mem::forget(ClusterDeclined::new(root.path()).unwrap());
        clear_leftovers(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), original);
    }

    #[test]
    fn nothing_is_installed_when_nothing_installable_is_missing() {
        let state = super::super::State::Missing { why: "no room".into(), remedy: "make room".into() };
        let finding = Finding { name: "temporary folder", needed_for: "runs", required: true, state };
        assert!(matches!(install(&[finding]), Err(InstallError::NothingInstallable)));
    }
}
