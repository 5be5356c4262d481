//! The package managers that can bring what is missing, and the exact command for each.

use std::ffi::OsStr;
use std::path::PathBuf;

use nix::unistd::geteuid;

/// A package manager found on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// Debian, Ubuntu and their children.
    Apt,
    /// Fedora, RHEL and their children.
    Dnf,
    /// Alpine.
    Apk,
    /// openSUSE.
    Zypper,
    /// Arch.
    Pacman,
    /// Homebrew, which must not be run as root.
    Brew,
}

/// What the harness can ask a package manager for; the name of the package differs from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Package {
    Postgres,
    Docker,
    Redis,
    Chromium,
    Wrk,
    Iproute,
    Nftables,
}

impl PackageManager {
    /// The first package manager whose program is on the PATH.
    pub fn detect() -> Option<Self> {
        [
            ("apt-get", Self::Apt),
            ("dnf", Self::Dnf),
            ("apk", Self::Apk),
            ("zypper", Self::Zypper),
            ("pacman", Self::Pacman),
            ("brew", Self::Brew),
        ]
        .into_iter()
        .find_map(|(program, manager)| on_path(program).map(|_| manager))
    }

    /// The name of the package here.
    pub(crate) fn package(self, package: Package) -> &'static str {
        match (package, self) {
            (Package::Postgres, Self::Dnf | Self::Zypper) => "postgresql-server",
            (Package::Postgres, Self::Brew) => "postgresql@17",
            (Package::Postgres, _) => "postgresql",
            (Package::Docker, Self::Apt) => "docker.io",
            (Package::Docker, Self::Dnf) => "moby-engine",
            (Package::Docker, _) => "docker",
            // The server without the package that starts one on the machine.
            (Package::Redis, Self::Apt) => "redis-tools",
            (Package::Redis, _) => "redis",
            (Package::Chromium, _) => "chromium",
            (Package::Wrk, _) => "wrk",
            (Package::Iproute, Self::Dnf) => "iproute",
            (Package::Iproute, _) => "iproute2",
            (Package::Nftables, _) => "nftables",
        }
    }

    /// The command that installs the package, as the root user would type it.
    fn root_command(self, package: &str) -> String {
        match self {
            Self::Apt => {
                format!("apt-get update && apt-get install -y --no-install-recommends {package}")
            }
            Self::Dnf => format!("dnf install -y {package}"),
            Self::Apk => format!("apk add {package}"),
            Self::Zypper => format!("zypper --non-interactive install {package}"),
            Self::Pacman => format!("pacman -S --noconfirm {package}"),
            Self::Brew => format!("brew install {package}"),
        }
    }

    /// The command that installs the package, as the present user must type it.
    pub(crate) fn command(self, package: Package) -> String {
        let command = self.root_command(self.package(package));
        if self == Self::Brew { command } else { as_root(&command) }
    }
}

/// The command that installs `package` here, or a sentence where no package manager is known.
pub(crate) fn remedy(package: Package) -> String {
    match PackageManager::detect() {
        Some(manager) => manager.command(package),
        None => format!(
            "install {} with this system's package manager and put its folder on the PATH",
            PackageManager::Apt.package(package)
        ),
    }
}

/// Turns a command for root into what the present user types: itself for root, `sudo` where there is one, else `su`.
pub(crate) fn as_root(command: &str) -> String {
    if geteuid().is_root() {
        command.to_owned()
    } else if on_path("sudo").is_some() {
        // Each part gets its own sudo, because `sudo a && b` would run `b` as the ordinary user.
        command.split(" && ").map(|part| format!("sudo {part}")).collect::<Vec<_>>().join(" && ")
    } else if command.contains('$') {
        // `$$` means the shell of the present user, so it must be filled in before `su` starts another.
        format!("su -c \"{command}\"")
    } else {
        format!("su -c '{command}'")
    }
}

/// The program's path, looked up as a shell would, plus the folders of system programs that an ordinary user's PATH or a
/// clean environment often lacks.
pub(crate) fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = program.as_ref();
    search_folders().map(|folder| folder.join(program)).find(|path| is_executable(path))
}

/// The folders of PATH, then those where systems keep programs in any case.
pub(crate) fn search_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    listed.into_iter().chain(["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
}

/// True for a file that somebody may execute; whether the present user may is found out by running it.
pub(crate) fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
