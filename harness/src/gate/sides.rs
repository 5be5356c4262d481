//! What `--old` and `--new` may name: a program, a git revision, an image, an address, a variant of the scenario, or nothing but
//! settings; and what each changes in the scenario.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Build;
use crate::exit;

/// How a revision is built where the user names no command: in the revision's own folder.
pub const BUILD: &str = "cargo build --locked --release --workspace --bins";
/// Where the program is in an image, and what a revision's build makes, unless told otherwise.
pub const PROGRAM: &str = "target/release/seckill-target";
/// Where the image that `make image` builds has it.
const IN_IMAGE: &str = "/usr/local/bin/seckill-target";

/// How a side is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The build beside the harness.
    Beside,
    /// A program.
    Binary(PathBuf),
    /// A git revision, which is built.
    Revision(String),
    /// A container image, whose program is taken out of it.
    Image(String),
    /// A service that is running.
    Url(String),
    /// A variant of the scenario.
    Variant(String),
}

/// Why a side cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// Nothing of that name.
    #[error(
        "--{side} {text}: there is no such file, revision or image\nhelp: name a program by its path, a revision as git:REV, an image as \
         image:NAME, a running service as http://ADDRESS, or a variant of the scenario as variant:NAME"
    )]
    Nobody {
        /// `old` or `new`.
        side: &'static str,
        /// What was written.
        text: String,
    },
    /// A command failed.
    #[error("{what}: {why}\nhelp: {help}")]
    Failed {
        /// What was tried.
        what: String,
        /// What came of it.
        why: String,
        /// The remedy.
        help: String,
    },
}

impl SideError {
    /// The exit code that it ends the command with.
    pub fn exit_code(&self) -> i32 {
        match self {
            SideError::Nobody { .. } => exit::USAGE,
            SideError::Failed { .. } => exit::NO_STACK,
        }
    }
}

/// How revisions are built.
#[derive(Debug, Clone)]
pub struct Builder {
    /// The command, run by a shell in the revision's folder.
    pub command: String,
    /// The program that it makes, from that folder on.
    pub program: PathBuf,
    /// Where worktrees are kept between gates.
    pub folder: PathBuf,
}

impl Default for Builder {
    fn default() -> Self {
        Builder { command: BUILD.to_owned(), program: PROGRAM.into(), folder: "target/gate".into() }
    }
}

/// What a text names. A prefix decides; without one, a file is a program, then a revision is tried, then an image.
///
/// # Errors
/// There is nothing of that name.
pub fn named(side: &'static str, text: Option<&str>) -> Result<Named, SideError> {
    let Some(text) = text else { return Ok(Named::Beside) };
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(Named::Binary(path.into()));
    }
    for (prefix, make) in [
        ("git:", Named::Revision as fn(String) -> Named),
        ("image:", Named::Image),
        ("variant:", Named::Variant),
        ("http://", Named::Url),
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return Ok(make(rest.trim_end_matches('/').to_owned()));
        }
    }
    if Path::new(text).is_file() {
        return Ok(Named::Binary(text.into()));
    }
    let revision = format!("{text}^{{commit}}");
    if succeeds("git", &["rev-parse", "--verify", "--quiet", &revision]) {
        return Ok(Named::Revision(text.to_owned()));
    }
    if succeeds("docker", &["image", "inspect", text]) {
        return Ok(Named::Image(text.to_owned()));
    }
    Err(SideError::Nobody { side, text: text.to_owned() })
}

impl Named {
    /// Makes the side: builds the revision, takes the program out of the image. `say` tells people what takes long.
    ///
    /// # Errors
    /// What failed, with the end of what it said.
    pub fn make(&self, builder: &Builder, settings: &[String], say: &dyn Fn(&str)) -> Result<Build, SideError> {
        let program = |path: &Path| format!("target.program={}", toml_text(&path.display().to_string()));
        let absolute = |path: &Path| {
            std::fs::canonicalize(path).map_err(|error| SideError::Failed {
                what: path.display().to_string(),
                why: error.to_string(),
                help: "name a program that is there".to_owned(),
            })
        };
        let (name, own) = match self {
            Named::Beside => ("the build beside this harness".to_owned(), None),
            Named::Binary(path) => (path.display().to_string(), Some(program(&absolute(path)?))),
            Named::Revision(revision) => {
                let (commit, path) = build(revision, builder, say)?;
                (format!("{revision} ({commit})"), Some(program(&absolute(&path)?)))
            }
            Named::Image(image) => {
                let path = extract(image, builder)?;
                (format!("image {image}"), Some(program(&absolute(&path)?)))
            }
            Named::Url(address) => {
                let external = format!("target={{external={{address={}}}}}", toml_text(address));
                (format!("http://{address}"), Some(external))
            }
            // Whose settings are read with the scenario.
            Named::Variant(variant) => (format!("variant {variant}"), None),
        };
        let set: Vec<String> = own.into_iter().chain(settings.iter().cloned()).collect();
        let name = if settings.is_empty() { name } else { format!("{name} with {}", settings.join(", ")) };
        Ok(Build { name, set })
    }

    /// The variant of the scenario that it is, if it is one.
    pub fn variant(&self) -> Option<&str> {
        match self {
            Named::Variant(name) => Some(name),
            _ => None,
        }
    }
}

fn toml_text(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command to its end; what it printed.
fn output(command: &mut Command, what: &str, help: &str) -> Result<String, SideError> {
    let failed = |why: String| SideError::Failed { what: what.to_owned(), why, help: help.to_owned() };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(failed(format!("{}\n{}", output.status, lines[lines.len().saturating_sub(8)..].join("\n"))))
}

/// Builds a revision in a worktree of its own, which is kept: the next gate against it builds nothing. Its short name and the program.
fn build(revision: &str, builder: &Builder, say: &dyn Fn(&str)) -> Result<(String, PathBuf), SideError> {
    let full = format!("{revision}^{{commit}}");
    let help = "name a revision that this repository has; CI often fetches one only (fetch-depth: 0 brings all)";
    let commit =
        output(Command::new("git").args(["rev-parse", "--verify", &full]), &format!("revision {revision}"), help)?;
    let short: String = commit.chars().take(12).collect();
    let tree = builder.folder.join(&short);
    let program = tree.join(&builder.program);
    if program.is_file() {
        return Ok((short, program));
    }
    if !tree.join(".git").exists() {
        let help = "`git worktree prune` forgets worktrees that are gone; remove the folder if something else is in it";
        let mut command = Command::new("git");
        command.args(["worktree", "add", "--detach", "--force"]).arg(&tree).arg(&commit);
        output(&mut command, &format!("a worktree of {short}"), help)?;
    }
    say(&format!("building {short}: {}", builder.command));
    let mut command = Command::new("sh");
    command.arg("-c").arg(&builder.command).current_dir(&tree);
    // A target folder that is shared would be written over by the other side's build.
    command.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    output(&mut command, &format!("building {short} by `{}`", builder.command), "--build names another command")?;
    if program.is_file() {
        return Ok((short, program));
    }
    Err(SideError::Failed {
        what: format!("building {short} by `{}`", builder.command),
        why: format!("it made no {}", program.display()),
        help: "--program names the file that the build makes, from the worktree's folder on".to_owned(),
    })
}

/// Takes the service's program out of an image.
fn extract(image: &str, builder: &Builder) -> Result<PathBuf, SideError> {
    let what = format!("the program of image {image}");
    let help =
        format!("the image has to have {IN_IMAGE}, as the one of `make image` does, for this machine's C library");
    let docker = |arguments: &[&str]| output(Command::new("docker").args(arguments), &what, &help);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", image])?;
    let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
    let folder = builder.folder.join(format!("image-{short}"));
    std::fs::create_dir_all(&folder).map_err(|error| SideError::Failed {
        what: folder.display().to_string(),
        why: error.to_string(),
        help: "make it writable".to_owned(),
    })?;
    let program = folder.join("seckill-target");
    let container = docker(&["create", image])?;
    let copied = docker(&["cp", &format!("{container}:{IN_IMAGE}"), &program.display().to_string()]);
    docker(&["rm", &container])?;
    copied.map(|_| program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_what_a_side_is() {
        let of = |text| named("old", Some(text)).unwrap();
        assert_eq!(named("old", None).unwrap(), Named::Beside);
        assert_eq!(of("git:main"), Named::Revision("main".into()));
        assert_eq!(of("image:shop:1"), Named::Image("shop:1".into()));
        assert_eq!(of("http://127.0.0.1:80/"), Named::Url("127.0.0.1:80".into()));
        assert_eq!(of("variant:batch"), Named::Variant("batch".into()));
        assert_eq!(of("file:x"), Named::Binary("x".into()));
        let complaint = named("new", Some("no-such-thing-at-all")).unwrap_err();
        assert!(complaint.to_string().contains("git:REV"), "{complaint}");
        assert_eq!(complaint.exit_code(), exit::USAGE);
    }

    #[test]
    fn a_side_is_a_setting_like_any_other() {
        let builder = Builder::default();
        let make = |named: Named, set: &[&str]| {
            named.make(&builder, &set.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), &|_| {}).unwrap()
        };
        assert!(make(Named::Beside, &[]).set.is_empty());
        let slow = make(Named::Beside, &["target.slow=sleep=3ms"]);
        assert_eq!(slow.set, ["target.slow=sleep=3ms"]);
        assert!(slow.name.ends_with("with target.slow=sleep=3ms"), "{}", slow.name);
        assert_eq!(make(Named::Url("127.0.0.1:80".into()), &[]).set, ["target={external={address=\"127.0.0.1:80\"}}"]);
        let missing = Named::Binary("/nowhere/at/all".into()).make(&builder, &[], &|_| {});
        assert_eq!(missing.unwrap_err().exit_code(), exit::NO_STACK);
    }
}
