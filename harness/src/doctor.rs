//! What a machine must have before a rehearsal can run here, and the command that gets what is missing.
//!
//! This module owns the list of requirements, the probes behind them, and their installation by the system's package
//! manager. It knows nothing of scenarios, stacks or runs: the embedded stack asks it where the Postgres binaries are and
//! which user to drop to, and that is all they share.

mod install;
mod packages;
mod postgres;
mod probes;

pub use install::{InstallError, install};
pub use packages::PackageManager;
pub(crate) use packages::{is_executable, on_path};
pub use postgres::{MINIMUM_POSTGRES_MAJOR, POSTGRES_BIN_VARIABLE, PostgresBinaries, PostgresVersion, find_postgres};
pub use probes::{
    RedisProgram, User, docker_remedy, find_redis, folder_for_sockets, network_namespaces, target_binary,
    unprivileged_user,
};

use std::fmt::Write as _;

use serde::Serialize;

/// The exit code of every verb whose stack, or the set-up before it, could not be provisioned.
pub const EXIT_NOT_PROVISIONED: i32 = 20;

/// One requirement, and whether this machine meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is required, in the words of a person: `Postgres server`.
    pub name: &'static str,
    /// What would not work without it.
    pub needed_for: &'static str,
    /// Whether its absence makes a rehearsal impossible; what is not required is reported and never fails.
    pub required: bool,
    /// What was found.
    #[serde(flatten)]
    pub state: State,
}

/// Whether a requirement is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It is there and it works.
    Present {
        /// The version, the place or the measured value.
        detail: String,
    },
    /// It is not there, or what is there cannot be used.
    Missing {
        /// What was looked for and what was found instead.
        why: String,
        /// The command that mends it, ready to be pasted, or one sentence where no command can.
        remedy: String,
    },
}

/// Why something that the harness needs cannot be used, and the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{why}; to mend it: {remedy}")]
pub struct Missing {
    /// What was looked for and what was found instead.
    pub why: String,
    /// The command that mends it, ready to be pasted, or one sentence where no command can.
    pub remedy: String,
}

impl Missing {
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

impl From<Result<String, Missing>> for State {
    fn from(probe: Result<String, Missing>) -> Self {
        match probe {
            Ok(detail) => Self::Present { detail },
            Err(Missing { why, remedy }) => Self::Missing { why, remedy },
        }
    }
}

impl Finding {
    /// True when a rehearsal cannot run because of this finding.
    pub fn blocks(&self) -> bool {
        self.required && self.is_missing()
    }

    /// True when it is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing { .. })
    }

    /// True when an installation has something to do: for what is not required only where nobody has to be asked.
    fn calls_for_installation(&self) -> bool {
        self.blocks() || (self.name == REDIS_SERVER && self.is_missing() && nix::unistd::geteuid().is_root())
    }
}

/// A requirement before it is looked at.
struct Requirement {
    name: &'static str,
    needed_for: &'static str,
    required: bool,
    probe: fn() -> Result<String, Missing>,
}

/// The names under which [`install`] recognises the requirements that it can install.
const POSTGRES_SERVER: &str = "Postgres server";
const REDIS_SERVER: &str = "Redis server";

/// The name under which what lets packets be lost is recognised.
const NETWORK_TOOLS: &str = "network namespaces";

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        name: POSTGRES_SERVER,
        needed_for: "the embedded stack: every run starts a private server in a temporary folder",
        required: true,
        probe: || find_postgres().map(|found| found.to_string()),
    },
    Requirement {
        name: "unprivileged user",
        needed_for: "running Postgres, whose servers refuse to run as root",
        required: true,
        probe: probes::unprivileged,
    },
    Requirement {
        name: "reference target",
        needed_for: "the embedded stack: it is the service that is rehearsed",
        required: true,
        probe: || target_binary().map(|path| path.display().to_string()),
    },
    Requirement {
        name: "temporary folder",
        needed_for: "the database of a run and its unix sockets",
        required: true,
        probe: probes::temporary_folder,
    },
    Requirement {
        name: "file descriptors",
        needed_for: "thousands of connections at once; the harness raises the soft limit to the hard one",
        required: false,
        probe: probes::file_descriptors,
    },
    Requirement {
        name: "processors",
        needed_for: "measuring the target without the generator standing in its way",
        required: false,
        probe: probes::processors,
    },
    Requirement { name: "timerfd", needed_for: "punctual sends", required: false, probe: probes::timerfd },
    Requirement {
        name: "real-time priority",
        needed_for: "punctual sends on a busy machine",
        required: false,
        probe: probes::real_time,
    },
    Requirement {
        name: NETWORK_TOOLS,
        needed_for: "`hosts = true` and the fault `partition`",
        required: false,
        probe: network_namespaces,
    },
    Requirement {
        name: "cgroups",
        needed_for: "the fault `throttle`; without them, processes are stopped and let go on in turns",
        required: false,
        probe: probes::cgroups,
    },
    Requirement { name: "Docker engine", needed_for: "`--stack containers`", required: false, probe: probes::docker },
    Requirement {
        name: REDIS_SERVER,
        needed_for: "the strategies that deduct stock in Redis",
        required: false,
        probe: probes::redis,
    },
    Requirement {
        name: "Chromium",
        needed_for: "the tests that open a report or the live page in a browser",
        required: false,
        probe: probes::chromium,
    },
    Requirement {
        name: "oha",
        needed_for: "`make bench`: comparing the generator with it",
        required: false,
        probe: probes::oha,
    },
    Requirement {
        name: "wrk",
        needed_for: "`make bench`: comparing the generator with it",
        required: false,
        probe: probes::wrk,
    },
];

/// Looks at everything a rehearsal needs, in the order in which a person would want to mend it.
pub fn examine() -> Vec<Finding> {
    REQUIREMENTS
        .iter()
        .map(|requirement| Finding {
            name: requirement.name,
            needed_for: requirement.needed_for,
            required: requirement.required,
            state: (requirement.probe)().into(),
        })
        .collect()
}

/// The findings as a person reads them; ends with the verdict.
pub fn render_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let name = finding.name;
        // Writing to a string cannot fail.
        let _ = match &finding.state {
            State::Present { detail } => writeln!(text, "present   {name:width$}  {detail}"),
            State::Missing { why, remedy } => {
                let mark = if finding.required { "MISSING " } else { "absent  " };
                let indent = " ".repeat(10 + width + 2);
                let needed_for = finding.needed_for;
                writeln!(
                    text,
                    "{mark}  {name:width$}  {why}\n{indent}needed for: {needed_for}\n{indent}get it by:  {remedy}"
                )
            }
        };
    }
    text.push('\n');
    text.push_str(&verdict(findings));
    text
}

/// The closing lines: all is well, or every command that is still to be run, alone on its line.
fn verdict(findings: &[Finding]) -> String {
    let blocking: Vec<_> = findings.iter().filter(|finding| finding.blocks()).collect();
    if blocking.is_empty() {
        return "Everything that a rehearsal requires is present.\n".to_owned();
    }
    let mut text = String::from("A rehearsal cannot run here yet. To mend it:\n");
    for finding in &blocking {
        if let State::Missing { remedy, .. } = &finding.state {
            let _ = writeln!(text, "    {remedy}");
        }
    }
    if blocking.iter().any(|finding| finding.name == POSTGRES_SERVER)
        && let Some(command) = install::own_command()
    {
        let _ = writeln!(text, "or, so that the package creates and starts no database of its own:\n    {command}");
    }
    let _ = writeln!(text, "(exit code {EXIT_NOT_PROVISIONED})");
    text
}

/// `seckill doctor`: examines, installs what is missing when asked to, prints the findings on stdout, and returns the
/// exit code: 0 when everything required is present, [`EXIT_NOT_PROVISIONED`] otherwise.
pub fn run(install_missing: bool, json: bool) -> i32 {
    if install_missing {
        install::mend_killed_installation();
    }
    let mut findings = examine();
    if install_missing && findings.iter().any(Finding::calls_for_installation) {
        match install(&findings) {
            Ok(installed) => {
                for what in installed {
                    eprintln!("doctor: installed {what}");
                }
            }
            Err(error) => eprintln!("doctor: {error}"),
        }
        // Also after a failure: an installation that was interrupted at its very end has done its work.
        findings = examine();
    }
    let lacks = |finding: &Finding| finding.name == NETWORK_TOOLS && matches!(finding.state, State::Missing { .. });
    if install_missing && findings.iter().any(lacks) && install::network_tools() {
        eprintln!("doctor: installed iproute2 and nftables");
        findings = examine();
    }
    if json {
        match serde_json::to_string_pretty(&findings) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("doctor: the findings could not be written as JSON: {error}");
                return 1;
            }
        }
    } else {
        print!("{}", render_text(&findings));
    }
    if findings.iter().any(Finding::blocks) { EXIT_NOT_PROVISIONED } else { 0 }
}
