//! Finds the Postgres server binaries of this machine, on the PATH or in the folders where distributions hide them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use super::Missing;
use super::packages::{self, Package, is_executable, search_folders};
use super::probes::{output_within, unprivileged_user};

/// The oldest major version that the harness runs on.
pub const MINIMUM_POSTGRES_MAJOR: u32 = 13;

/// The variable that names the folder of the binaries, for somebody who wants another version than the one found.
pub const POSTGRES_BIN_VARIABLE: &str = "SECKILL_POSTGRES_BIN";

/// Where distributions keep the server binaries, off the PATH; `*` stands for any text within one folder name.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// A pair of server binaries that were found and that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostgresBinaries {
    /// The folder that holds `initdb` and `postgres`, with symbolic links resolved.
    pub bin_dir: PathBuf,
    /// What `postgres --version` says.
    pub version: PostgresVersion,
}

/// A version of Postgres, such as 15.18; development versions count as minor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PostgresVersion {
    /// The part that decides about features.
    pub major: u32,
    /// The part that counts corrections.
    pub minor: u32,
}

impl fmt::Display for PostgresVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for PostgresBinaries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in {}", self.version, self.bin_dir.display())
    }
}

impl PostgresBinaries {
    /// The path of one of the programs, such as `initdb`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

impl PostgresVersion {
    /// Reads the answer of `postgres --version`: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or `17beta1`.
    pub(crate) fn parse(answer: &str) -> Option<Self> {
        let version = answer.split_once("(PostgreSQL) ")?.1;
        let leading_number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse::<u32>().ok()
        };
        let major = leading_number(version)?;
        let minor = version.split_once('.').and_then(|(_, rest)| leading_number(rest)).unwrap_or(0);
        Some(Self { major, minor })
    }
}

/// The Postgres server binaries to use: those in the folder that `SECKILL_POSTGRES_BIN` names, else the first usable ones
/// on the PATH, else the newest in the folders of the distributions.
pub fn find_postgres() -> Result<PostgresBinaries, Missing> {
    if let Some(folder) = std::env::var_os(POSTGRES_BIN_VARIABLE).filter(|value| !value.is_empty()) {
        let folder = PathBuf::from(folder);
        return inspect(&folder).map_err(|why| {
            Missing::new(
                format!("{POSTGRES_BIN_VARIABLE} names {}, but {why}", folder.display()),
                format!("name the folder that holds initdb and postgres, or unset {POSTGRES_BIN_VARIABLE}"),
            )
        });
    }
    find_in(search_folders(), Path::new("/"))
}

/// Searches the folders of the PATH in their order, then the usual folders below `root`, the newest version first.
pub(crate) fn find_in(path: impl Iterator<Item = PathBuf>, root: &Path) -> Result<PostgresBinaries, Missing> {
    let mut rejected = Vec::new();
    let mut try_folder = |folder: PathBuf| {
        if !is_executable(&folder.join("postgres")) {
            return None;
        }
        inspect(&folder).map_err(|why| rejected.push(why)).ok()
    };
    if let Some(found) = path.into_iter().find_map(&mut try_folder) {
        return Ok(found);
    }
    let usual = USUAL_FOLDERS.iter().flat_map(|pattern| expand(root, pattern));
    if let Some(found) = usual.filter_map(&mut try_folder).max_by_key(|found| found.version) {
        return Ok(found);
    }
    let why = if rejected.is_empty() {
        "neither the PATH nor the folders of the distributions hold the programs initdb and postgres".to_owned()
    } else {
        rejected.sort();
        rejected.dedup();
        rejected.join("; ")
    };
    Err(Missing::new(why, packages::remedy(Package::Postgres)))
}

/// Says whether the folder holds binaries that run here; otherwise why not.
fn inspect(folder: &Path) -> Result<PostgresBinaries, String> {
    let server = folder.join("postgres");
    // The link on the PATH may stand alone, while `initdb` and its other siblings are where it leads.
    let bin_dir = server
        .canonicalize()
        .ok()
        .and_then(|real| real.parent().map(Path::to_path_buf))
        .filter(|real| is_executable(&real.join("initdb")))
        .unwrap_or_else(|| folder.to_path_buf());
    for program in ["postgres", "initdb"] {
        if !is_executable(&bin_dir.join(program)) {
            return Err(format!("{} holds no program {program}", bin_dir.display()));
        }
    }
    ask_version(&bin_dir.join("initdb"))?;
    let version = ask_version(&bin_dir.join("postgres"))?;
    if version.major < MINIMUM_POSTGRES_MAJOR {
        return Err(format!(
            "{} is version {version}, and {MINIMUM_POSTGRES_MAJOR} or newer is needed",
            server.display()
        ));
    }
    Ok(PostgresBinaries { bin_dir, version })
}

/// Runs the program as the user that will run it later, so that a folder closed to that user is noticed here.
fn ask_version(program: &Path) -> Result<PostgresVersion, String> {
    let mut command = Command::new(program);
    command.arg("--version").current_dir("/");
    if let Ok(Some(user)) = unprivileged_user() {
        user.applied_to(&mut command);
    }
    let output = output_within(&mut command, Duration::from_secs(10))
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    let answer = String::from_utf8_lossy(&output.stdout);
    PostgresVersion::parse(&answer).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("{} --version answered {:?}", program.display(), format!("{answer}{complaint}").trim())
    })
}

/// The existing folders that match a pattern with at most one `*`.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = pattern.trim_start_matches('/');
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![root.join(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = root.join(parent).read_dir() else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| match after.trim_start_matches('/') {
            "" => entry.path(),
            rest => entry.path().join(rest),
        })
        .filter(|folder| folder.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder that the dropped user may enter, because the programs in it are run as that user.
    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn fake(folder: &Path, program: &str, answer: &str) {
        std::fs::create_dir_all(folder).unwrap();
        // A child process writes the file: were it open for writing here while another test starts a program, that child
        // would hold it open too for a moment, and the system refuses to run a file that somebody writes to.
        let script = r#"printf '#!/bin/sh\necho "%s (PostgreSQL) %s"\n' "$1" "$2" > "$3" && chmod 755 "$3""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", program, answer]).arg(folder.join(program));
        assert!(shell.status().unwrap().success());
    }

    fn fake_server(folder: &Path, version: &str) {
        fake(folder, "postgres", version);
        fake(folder, "initdb", version);
    }

    #[test]
    fn versions_are_read_from_what_servers_answer() {
        let parsed = |answer: &str| PostgresVersion::parse(answer).map(|version| version.to_string());
        assert_eq!(parsed("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18"));
        assert_eq!(parsed("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18.0"));
        assert_eq!(parsed("postgres (PostgreSQL) 9.6.24\n").as_deref(), Some("9.6"));
        assert_eq!(parsed("exec format error"), None);
    }

    #[test]
    fn the_newest_of_the_distributions_folders_is_taken_by_number_and_not_by_name() {
        let root = open_folder();
        for version in ["9.6", "13", "17"] {
            fake_server(&root.path().join("usr/lib/postgresql").join(version).join("bin"), &format!("{version}.2"));
        }
        fake_server(&root.path().join("usr/pgsql-16/bin"), "16.1");
        let found = find_in(std::iter::empty(), root.path()).unwrap();
        assert_eq!(found.version, PostgresVersion { major: 17, minor: 2 });
    }

    #[test]
    fn a_lone_link_on_the_path_leads_to_its_siblings_and_an_old_server_is_passed_over() {
        let root = open_folder();
        let (old, real, path) = (root.path().join("old"), root.path().join("real"), root.path().join("path"));
        fake_server(&old, "12.22");
        fake_server(&real, "15.3");
        std::fs::create_dir(&path).unwrap();
        symlink(real.join("postgres"), path.join("postgres")).unwrap();
        let found = find_in([old, path].into_iter(), root.path()).unwrap();
        assert_eq!(found.bin_dir, real.canonicalize().unwrap());
    }

    #[test]
    fn what_was_rejected_is_said_and_the_remedy_is_a_command() {
        let root = open_folder();
        let (old, half) = (root.path().join("old"), root.path().join("half"));
        fake_server(&old, "12.22");
        fake(&half, "postgres", "15.3");
        let error = find_in([old, half].into_iter(), root.path()).unwrap_err();
        assert!(error.why.contains("version 12.22, and 13 or newer is needed"), "{}", error.why);
        assert!(error.why.contains("holds no program initdb"), "{}", error.why);
        assert!(error.remedy.contains("postgresql"), "{}", error.remedy);
        let nothing = find_in(std::iter::empty(), &root.path().join("nowhere")).unwrap_err();
        assert!(nothing.why.contains("neither the PATH nor"), "{}", nothing.why);
    }
}
