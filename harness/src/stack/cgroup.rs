//! Cgroups: a group of processes whose processor time is limited.
//!
//! Both versions are spoken, whichever has the controller for processor time here. A group is made below the harness's own, or
//! beside it, never outside of what somebody allotted to the harness. This file knows no roles and no faults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StackError;
use crate::doctor::Missing;

/// Within such a period a group may use its share, and then has to wait for the next one.
pub const PERIOD_US: u64 = 50_000;
/// The kernel's longest period.
const LONGEST_PERIOD_US: u64 = 1_000_000;
/// The kernel's smallest quota.
const LEAST_QUOTA_US: u64 = 1_000;

/// Which interface the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups that limit processor time can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    /// The group below which ours are made.
    base: PathBuf,
    /// The harness's own group, into which processes go back.
    home: PathBuf,
}

impl Hierarchy {
    /// Reads what `/proc/self/mounts` and `/proc/self/cgroup` say.
    fn parse(mounts: &str, own: &str) -> Option<Hierarchy> {
        let mounted = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let (at, found, options) = (fields.next()?, fields.next()?, fields.next()?);
                let fits = found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
                fits.then(|| PathBuf::from(at))
            })
        };
        let own_path = |controller: &str| {
            let line = own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|c| c == controller).then_some(path)
            });
            line.unwrap_or("/").trim_matches('/').to_owned()
        };
        // In a container the own path may be that of the machine, which is not to be seen there.
        let below = |mount: &Path, path: &str| Some(mount.join(path)).filter(|p| p.is_dir());
        if let Some(mount) = mounted("cgroup", "cpu") {
            let home = below(&mount, &own_path("cpu")).unwrap_or(mount);
            return Some(Hierarchy { version: Version::One, base: home.clone(), home });
        }
        let mount = mounted("cgroup2", "")?;
        let home = below(&mount, &own_path("")).unwrap_or_else(|| mount.clone());
        // A group that has processes of its own cannot hand controllers on, but for the root.
        let base = if home == mount { mount } else { home.parent().unwrap_or(&mount).to_owned() };
        Some(Hierarchy { version: Version::Two, base, home })
    }

    /// Makes a group of that name.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(&self, name: &str) -> Result<Group, StackError> {
        let path = self.base.join(name);
        std::fs::create_dir(&path)
            .map_err(|e| StackError::io(format!("cannot make the cgroup {}", path.display()), e))?;
        Ok(Group { version: self.version, path, home: self.home.clone() })
    }

    /// Whether a group made here can limit processor time, as far as that can be told without making one.
    fn limits(&self) -> Result<(), Missing> {
        let writable = nix::unistd::access(&self.base, nix::unistd::AccessFlags::W_OK);
        if let Err(error) = writable {
            let why = format!("groups below {} cannot be made: {error}", self.base.display());
            return Err(Missing::new(why, "run the harness as root, or delegate this cgroup to its user"));
        }
        if self.version == Version::One {
            return Ok(());
        }
        let control = self.base.join("cgroup.subtree_control");
        let enabled = || std::fs::read_to_string(&control).is_ok_and(|all| all.split_whitespace().any(|c| c == "cpu"));
        if enabled() || std::fs::write(&control, "+cpu").is_ok() && enabled() {
            return Ok(());
        }
        let why = format!("the controller for processor time is not handed on by {}", self.base.display());
        Err(Missing::new(why, format!("echo +cpu > {}   # as root", control.display())))
    }
}

fn parsed() -> Option<Hierarchy> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Hierarchy::parse(&read("/proc/self/mounts"), &read("/proc/self/cgroup"))
}

/// Where groups that limit processor time can be made on this machine.
///
/// # Errors
/// They cannot, with the remedy.
pub fn find() -> Result<Hierarchy, Missing> {
    let mount = "mount -t cgroup2 none /sys/fs/cgroup   # as root";
    let found = parsed().ok_or_else(|| Missing::new("no cgroups with a controller for processor time", mount))?;
    found.limits().map(|()| found)
}

/// The groups below which those of runs are; whether any can be made does not matter.
pub fn bases() -> Vec<PathBuf> {
    parsed().into_iter().map(|found| found.base).collect()
}

/// How many microseconds of processor time within a period of how many are so many processors.
pub fn quota(cpus: f64) -> (i64, u64) {
    // A small share of a short period would be less than the kernel grants.
    let period = ((LEAST_QUOTA_US as f64 / cpus) as u64).clamp(PERIOD_US, LONGEST_PERIOD_US);
    let quota = ((cpus * period as f64).round() as u64).max(LEAST_QUOTA_US);
    (i64::try_from(quota).unwrap_or(i64::MAX), period)
}

/// A group of processes.
#[derive(Debug)]
pub struct Group {
    version: Version,
    path: PathBuf,
    home: PathBuf,
}

/// What a limit has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttled {
    /// Periods in which the group had something to do.
    pub periods: u64,
    /// Those in which it used up its share and had to wait.
    pub throttled: u64,
    /// For how long its processors were kept from it, summed over them.
    pub time: Duration,
}

impl Throttled {
    /// What has been added since; all of it if it was counted anew meanwhile.
    pub fn since(self, before: &Throttled) -> Throttled {
        if self.periods < before.periods {
            return self;
        }
        Throttled {
            periods: self.periods - before.periods,
            throttled: self.throttled.saturating_sub(before.throttled),
            time: self.time.saturating_sub(before.time),
        }
    }
}

impl std::ops::Add for Throttled {
    type Output = Throttled;

    fn add(self, other: Throttled) -> Throttled {
        Throttled {
            periods: self.periods + other.periods,
            throttled: self.throttled + other.throttled,
            time: self.time + other.time,
        }
    }
}

impl std::fmt::Display for Throttled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.time.as_secs_f64() * 1e3;
        write!(f, "throttled in {} of {} periods, kept waiting for {ms:.0} ms", self.throttled, self.periods)
    }
}

impl Group {
    /// Where it is in the file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits the processor time of all its processes together; 0.25 is a quarter of one processor.
    ///
    /// # Errors
    /// The system refuses.
    pub fn limit(&self, cpus: f64) -> Result<(), StackError> {
        let (quota, period) = quota(cpus);
        match self.version {
            // The period first: a quota is held against the period that stands at the moment.
            Version::One => {
                self.write("cpu.cfs_period_us", &period.to_string())?;
                self.write("cpu.cfs_quota_us", &quota.to_string())
            }
            Version::Two => self.write("cpu.max", &format!("{quota} {period}")),
        }
    }

    /// Takes a process in; what it starts from then on belongs to the group, too. False if it has ended meanwhile.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take_in(&self, pid: i32) -> Result<bool, StackError> {
        move_to(&self.path, pid)
    }

    /// The processes in it.
    pub fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// What its limit has come to so far.
    pub fn throttled(&self) -> Throttled {
        stat(&std::fs::read_to_string(self.path.join("cpu.stat")).unwrap_or_default())
    }

    /// Lets its processes go back to where they came from, and removes it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn dissolve(&self) -> Result<(), StackError> {
        for _ in 0..200 {
            for pid in self.pids() {
                move_to(&self.home, pid)?;
            }
            // A process that has ended and was not waited for keeps its group busy for a moment.
            if std::fs::remove_dir(&self.path).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let last = std::fs::remove_dir(&self.path);
        last.map_err(|e| StackError::io(format!("cannot remove the cgroup {}", self.path.display()), e))
    }

    fn write(&self, file: &str, value: &str) -> Result<(), StackError> {
        let path = self.path.join(file);
        std::fs::write(&path, value)
            .map_err(|e| StackError::io(format!("cannot write {value} to {}", path.display()), e))
    }
}

fn move_to(group: &Path, pid: i32) -> Result<bool, StackError> {
    let path = group.join("cgroup.procs");
    match std::fs::write(&path, pid.to_string()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(false),
        Err(error) => Err(StackError::io(format!("cannot move process {pid} to {}", group.display()), error)),
    }
}

/// Reads `cpu.stat`: version one counts in nanoseconds, version two in microseconds.
fn stat(text: &str) -> Throttled {
    let mut stat = Throttled::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let Ok(value) = value.trim().parse::<u64>() else { continue };
        match key {
            "nr_periods" => stat.periods = value,
            "nr_throttled" => stat.throttled = value,
            "throttled_time" => stat.time = Duration::from_nanos(value),
            "throttled_usec" => stat.time = Duration::from_micros(value),
            _ => {}
        }
    }
    stat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_version_is_found_where_it_has_the_controller() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["cpu/mine", "unified/mine", "pure/user/mine"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let mount =
            |kind: &str, name: &str, options: &str| format!("x {} {kind} rw,{options} 0 0\n", at(name).display());
        let both = mount("cgroup2", "unified", "nosuid")
            + &mount("cgroup", "cpuset", "cpuset")
            + &mount("cgroup", "cpu", "cpuacct,cpu");
        let own = "3:cpuset:/\n2:cpu,cpuacct:/mine\n0::/mine\n";
        let (version, mine) = (Version::One, at("cpu/mine"));
        assert_eq!(Hierarchy::parse(&both, own), Some(Hierarchy { version, base: mine.clone(), home: mine }));
        // A container does not see its own path.
        let (version, mount_point) = (Version::One, at("cpu"));
        let container = Hierarchy { version, base: mount_point.clone(), home: mount_point };
        assert_eq!(Hierarchy::parse(&both, "2:cpu:/docker/1234\n"), Some(container));
        // In version two, a group with processes cannot have limited groups below it: ours stand beside it.
        let pure = mount("cgroup2", "pure", "nosuid");
        let beside = Hierarchy { version: Version::Two, base: at("pure/user"), home: at("pure/user/mine") };
        assert_eq!(Hierarchy::parse(&pure, "0::/user/mine\n"), Some(beside));
        let rooted = Hierarchy { version: Version::Two, base: at("pure"), home: at("pure") };
        assert_eq!(Hierarchy::parse(&pure, "0::/\n"), Some(rooted));
        assert_eq!(Hierarchy::parse("proc /proc proc rw 0 0\n", own), None);
    }

    #[test]
    fn version_two_is_limited_by_its_one_file() {
        let root = tempfile::tempdir().unwrap();
        let (version, at) = (Version::Two, root.path().to_owned());
        let hierarchy = Hierarchy { version, base: at.clone(), home: at };
        let group = hierarchy.create("seckill-x-service").unwrap();
        group.limit(0.25).unwrap();
        assert_eq!(std::fs::read_to_string(group.path().join("cpu.max")).unwrap(), "12500 50000");
        group.limit(0.01).unwrap();
        assert_eq!(std::fs::read_to_string(group.path().join("cpu.max")).unwrap(), "1000 100000");
        assert_eq!(group.pids(), Vec::<i32>::new());
        assert!(hierarchy.create("seckill-x-service").unwrap_err().to_string().contains("cannot make the cgroup"));
        assert!(hierarchy.limits().unwrap_err().remedy.contains("echo +cpu"), "nobody hands the controller on");
    }

    #[test]
    fn what_a_limit_came_to_is_read_in_either_unit() {
        let one = stat("nr_periods 40\nnr_throttled 30\nthrottled_time 1500000000\nnr_bursts 0\n");
        let two = stat("usage_usec 17\nnr_periods 40\nnr_throttled 30\nthrottled_usec 1500000\n");
        assert_eq!(one, two);
        assert_eq!((one.periods, one.throttled, one.time), (40, 30, Duration::from_millis(1500)));
        assert_eq!(stat(""), Throttled::default());
        let before = Throttled { periods: 30, throttled: 25, time: Duration::from_millis(1100) };
        assert_eq!(one.since(&before).to_string(), "throttled in 5 of 10 periods, kept waiting for 400 ms");
        assert_eq!(before.since(&one), before, "it was counted anew");
        assert_eq!(before + Throttled::default(), before);
    }
}
