//! Which faults would end each other.
//!
//! Healing brings a role back to what it was: whatever is paused goes on, whatever is down is started, a setting is reset. Whoever
//! else had paused it, had it down, or had set the same would then go on to be told of as if it lasted.

use super::Inject;
use crate::scenario::topology::{ACCESS, ACCESS_PROCESSES};

/// Something of a role that a fault holds while it lasts, and that healing gives back whoever holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Whether its processes are there: what starts them ends whatever had them down, or had stopped those before them.
    Running,
    /// Their turns at the processors: what lets them go on ends whatever had stopped them, or held them to a part.
    Turns,
    /// The service's clock.
    Clock,
    /// Whether the database writes.
    Writes,
    /// The connections that the database has to give.
    Connections,
    /// The table that the harness itself writes into.
    Scratch,
    /// The network that a container is on.
    Network,
}

impl Inject {
    /// Whether healing one of the two would end the other.
    pub fn excludes(&self, other: &Inject) -> bool {
        let same = match (self.role(), other.role()) {
            (Some(one), Some(other)) => shared(one, other),
            _ => false,
        };
        same && self.fault().holds().iter().any(|hold| other.fault().holds().contains(hold))
    }
}

/// Whether two roles have a process in common: they are the same, or one is of the access layer and the other all of it.
fn shared(one: &str, other: &str) -> bool {
    let part = |whole: &str, role: &str| whole == ACCESS && ACCESS_PROCESSES.contains(&role);
    one == other || part(one, other) || part(other, one)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Kinds of roles that hold nothing: what they did is done, or is theirs alone.
    const FREE: [&str; 5] = ["terminate-backends", "lock-row", "redis-flush", "promote-standby", "promote-replica"];

    /// Each kind of a role that holds something, on the same one as far as it can be.
    fn holders() -> Vec<Inject> {
        let lines = [
            "kill = { role = 'service' }",
            "stop = { role = 'service' }",
            "crash-loop = { role = 'service' }",
            "rolling-restart = { role = 'service' }",
            "disk-full = { role = 'service' }",
            "pause = { role = 'service' }",
            "throttle = { role = 'service', cpus = 0.5 }",
            "clock-step = { role = 'service', by = '3s' }",
            "clock-skew = { role = 'service', rate = 1.5 }",
            "read-only = { role = 'service' }",
            "exhaust-connections = { role = 'service' }",
            "checkpoint-storm = { role = 'service' }",
            "disconnect = { role = 'service' }",
        ];
        lines.iter().map(|line| toml::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    }

    #[test]
    fn each_kind_of_a_role_says_what_it_holds() {
        let links = Inject::needs().into_iter().filter(|(_, needs)| needs.contains("a link")).map(|(kind, _)| kind);
        let holders = holders();
        let known: BTreeSet<&str> = holders.iter().map(Inject::kind).chain(FREE).chain(links).collect();
        assert_eq!(known, Inject::KINDS.iter().copied().collect(), "each kind has its line here");
        for one in &holders {
            assert!(one.excludes(one), "two of {} on one role would end each other", one.kind());
        }
    }

    #[test]
    fn who_holds_the_same_of_the_same_processes_excludes_the_other() {
        let holders = holders();
        let excludes = |one: &str, other: &str| {
            let find = |kind: &str| holders.iter().find(|inject| inject.kind() == kind).unwrap();
            assert_eq!(find(one).excludes(find(other)), find(other).excludes(find(one)));
            find(one).excludes(find(other))
        };
        for (one, other) in [
            ("kill", "stop"),
            ("kill", "pause"),
            ("disk-full", "kill"),
            ("pause", "throttle"),
            ("clock-step", "clock-skew"),
        ] {
            assert!(excludes(one, other), "{one} and {other}");
        }
        for (one, other) in [("kill", "throttle"), ("kill", "clock-step"), ("read-only", "pause")] {
            assert!(!excludes(one, other), "{one} and {other}");
        }
        let kill = |role: &str| -> Inject { toml::from_str(&format!("kill = {{ role = '{role}' }}")).unwrap() };
        assert!(kill("access").excludes(&kill("access-2")) && kill("access-2").excludes(&kill("access")));
        assert!(!kill("access-1").excludes(&kill("access-2")) && !kill("redis").excludes(&kill("redis-replica")));
    }
}
