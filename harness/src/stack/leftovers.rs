//! What a run may leave on this machine besides its processes and its private folder, and how it is taken away.
//!
//! One rule for all of it: whatever is made for a run is **named** `seckill-RUNID`, or `seckill-RUNID-` and more. Nobody keeps
//! a list while the run goes on, so none can be lost with the harness; the guard looks for the name when everything has
//! ended. A kind of leftover is a type with [`Leftover`] and a line in [`KINDS`].

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::drop_to;
use super::{cgroup, containers};
use crate::doctor;

/// One kind of thing that a run may leave behind.
pub trait Leftover: Sync {
    /// What it is, for people: `cgroup`.
    fn what(&self) -> &'static str;
    /// Those of the run that are there; none where the machine cannot have any.
    fn find(&self, run: &Run) -> Vec<String>;
    /// Takes one away that was found.
    ///
    /// # Errors
    /// It is still there, and why. It is tried again until the guard's time is up.
    fn remove(&self, found: &str) -> Result<(), String>;
}

/// Everything that is looked for, in the order in which it is taken away: what holds others fast comes first.
const KINDS: &[&dyn Leftover] = &[
    &containers::leftovers::Containers,
    &containers::leftovers::Networks,
    &Mounts,
    &LoopDevices,
    &Cgroups,
    &Namespaces,
];

/// A run, by the name that all of its things bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run(String);

impl Run {
    /// The run of that id.
    pub fn of_id(run_id: &str) -> Run {
        Run(format!("seckill-{run_id}"))
    }

    /// The run whose private folder this is; none if a folder is not called like one.
    pub fn of_folder(folder: &Path) -> Option<Run> {
        let name = folder.file_name()?.to_str()?;
        name.strip_prefix("seckill-").filter(|id| !id.is_empty()).map(Run::of_id)
    }

    /// The name that the run itself has: `seckill-RUNID`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The name of a thing of the run: `seckill-RUNID-PART`.
    pub fn thing(&self, part: &str) -> String {
        format!("{}-{part}", self.0)
    }

    /// Whether something of that name is of this run. Ids are letters and digits, so no run's name begins another's.
    pub fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// What of the run is on this machine, as `KIND NAME`.
pub fn find_all(run: &Run) -> Vec<String> {
    let named = |kind: &&dyn Leftover| {
        let what = kind.what();
        kind.find(run).into_iter().map(move |found| format!("{what} {found}")).collect::<Vec<_>>()
    };
    KINDS.iter().flat_map(named).collect()
}

/// Takes away everything of the run, and tries again what does not obey at once; returns what is left when the time is up.
pub fn remove_all(run: &Run, limit: Duration) -> Vec<String> {
    let end = Instant::now() + limit;
    loop {
        let mut left = Vec::new();
        for kind in KINDS {
            for found in kind.find(run) {
                if let Err(why) = kind.remove(&found) {
                    left.push(format!("{} {found}: {why}", kind.what()));
                }
            }
        }
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Groups of processes whose processor time is limited. They are empty once the processes have ended.
struct Cgroups;

impl Leftover for Cgroups {
    fn what(&self) -> &'static str {
        "cgroup"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        cgroup::bases().iter().flat_map(|base| named_in(base, run)).collect()
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        std::fs::remove_dir(found).map_err(|error| error.to_string())
    }
}

/// Network namespaces. Their links, at both ends, and their firewall rules go with them.
struct Namespaces;

/// Where `ip netns` keeps the names.
pub(super) const NAMESPACES: &str = "/run/netns";

impl Leftover for Namespaces {
    fn what(&self) -> &'static str {
        "network namespace"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        named_in(Path::new(NAMESPACES), run)
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        let name = Path::new(found).file_name().unwrap_or_default();
        quiet(Command::new(doctor::on_path("ip").unwrap_or_else(|| "ip".into())).args(["netns", "delete"]).arg(name))
    }
}

/// Disks that are mounted in the run's private folder.
struct Mounts;

impl Leftover for Mounts {
    fn what(&self) -> &'static str {
        "mount"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // The fifth field is where it is mounted; the kernel writes a space in a name as \040.
        let places = table.lines().filter_map(|line| Some(line.split(' ').nth(4)?.replace("\\040", " ")));
        // The name of a network namespace is a mount, too, and is taken away as what it is.
        places
            .filter(|place| !Path::new(place).starts_with(NAMESPACES))
            .filter(|place| Path::new(place).iter().any(|part| part.to_str().is_some_and(|part| run.owns(part))))
            .collect()
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        quiet(Command::new(doctor::on_path("umount").unwrap_or_else(|| "umount".into())).arg(found))
    }
}

/// Devices behind which a file of the run's lies. They go with their mount, but for one that was never mounted.
struct LoopDevices;

impl Leftover for LoopDevices {
    fn what(&self) -> &'static str {
        "loop device"
    }

    fn find(&self, run: &Run) -> Vec<String> {
        let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let own = devices.filter(|device| {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            Path::new(file.trim_end()).iter().any(|part| part.to_str().is_some_and(|part| run.owns(part)))
        });
        own.map(|device| format!("/dev/{}", device.file_name().display())).collect()
    }

    fn remove(&self, found: &str) -> Result<(), String> {
        quiet(Command::new(doctor::on_path("losetup").unwrap_or_else(|| "losetup".into())).args(["-d", found]))
    }
}

/// The entries of a folder that are the run's, with their whole path.
fn named_in(folder: &Path, run: &Run) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let own = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| run.owns(name)));
    own.map(|entry| entry.path().display().to_string()).collect()
}

/// Runs a command that says something only if it fails. It dies with whoever waits for it: what it was about to make when the
/// harness was killed would come too late for the guard to see.
///
/// # Errors
/// What it said.
pub(super) fn quiet(command: &mut Command) -> Result<(), String> {
    drop_to(command, None);
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if said.is_empty() { output.status.to_string() } else { said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_owns_what_bears_its_name_and_nothing_of_another() {
        let run = Run::of_folder(Path::new("/tmp/seckill-up12")).unwrap();
        assert_eq!((run.name(), run.thing("postgres").as_str()), ("seckill-up12", "seckill-up12-postgres"));
        assert!(run.owns("seckill-up12") && run.owns("seckill-up12-postgres"));
        for other in ["seckill-up123", "seckill-up1", "seckill-up123-postgres", "up12", "xseckill-up12", ""] {
            assert!(!run.owns(other), "{other}");
        }
        assert_eq!(Run::of_folder(Path::new("/tmp/something-else")), None);
        assert_eq!(Run::of_folder(Path::new("/tmp/seckill-")), None);
    }

    #[test]
    fn what_bears_the_name_is_found_and_taken_away() {
        let run = Run::of_id(&format!("left{}", std::process::id()));
        let Ok(hierarchy) = cgroup::find() else {
            crate::skipped::skipped("no cgroups can be made here");
            return;
        };
        let group = hierarchy.create(&run.thing("anybody")).unwrap();
        assert_eq!(find_all(&run), vec![format!("cgroup {}", group.path().display())]);
        assert!(remove_all(&run, Duration::from_secs(5)).is_empty());
        assert!(find_all(&run).is_empty() && !group.path().exists());
    }
}
