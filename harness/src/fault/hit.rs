//! What a fault really hit, as it says itself when it is healed.

/// What a fault really hit: a number to judge by, and words for people. Numbers in the words may be about anything, such as how
/// far a standby was behind; whether anything was hit is told by the number alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// How many of what the fault is about really noticed it: connections, processes, sessions, packets. 0 says that it might as
    /// well not have been there.
    pub count: u64,
    /// The same in words, with what else there is to tell.
    pub words: String,
}

impl Hit {
    /// What was hit, and what there is to tell of it.
    pub fn new(count: u64, words: impl Into<String>) -> Hit {
        Hit { count, words: words.into() }
    }
}

/// What was hit of processes, for people.
pub(super) fn processes(number: usize, how: &str) -> Hit {
    let number = number as u64;
    Hit::new(number, format!("{} {how}", counted(number, "process", "processes")))
}

/// A number with its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::{
        Inject, checkpoint_storm, clock_step, crash_loop, disk_full, exhaust_connections, link, lock_row, partition,
        promote_standby, read_only, redis_flush, rolling_restart, terminate_backends, throttle,
    };
    use super::*;
    use crate::fault::toxic::ToxicHit;
    use crate::stack::cgroup::Throttled;

    /// Kinds that fail to be injected or healed where there is nothing to hit.
    const SURE: [&str; 3] = ["promote-standby", "promote-replica", "disconnect"];

    /// What kinds say when they hit nothing, and when they hit as little as can be.
    fn cases() -> Vec<(Vec<&'static str>, Hit, Hit)> {
        let quota = |throttled, periods| Throttled { periods, throttled, time: Duration::from_millis(10 * throttled) };
        let bytes = |connections| ToxicHit { connections, chunks: connections, bytes: 100 * connections, calls: 0 };
        let of_links =
            Inject::needs().into_iter().filter(|(kind, needs)| needs.contains("a link") && *kind != "partition");
        vec![
            (
                of_links.map(|(kind, _)| kind).collect(),
                link::describe(&bytes(0), "calls"),
                link::describe(&bytes(1), "calls"),
            ),
            (vec!["kill", "pause", "stop"], processes(0, "ended within 5000 ms"), processes(1, "ended within 0 ms")),
            (
                vec!["throttle"],
                throttle::limited(3, "", quota(0, 40)),
                throttle::limited(1, "by the engine", quota(1, 40)),
            ),
            (
                vec!["throttle"],
                throttle::stood_still(3, Duration::ZERO, "since there are no cgroups 2"),
                throttle::stood_still(1, Duration::from_millis(40), "as was asked for"),
            ),
            (vec!["crash-loop"], crash_loop::died(7, 0), crash_loop::died(1, 1)),
            (vec!["rolling-restart"], rolling_restart::came_to(0, 2, 0), rolling_restart::came_to(1, 2, 0)),
            (vec!["clock-skew"], clock_step::set_right(false, 0), clock_step::set_right(false, -3)),
            // It was off until a restart has set it right.
            (vec!["clock-step"], clock_step::set_right(false, 0), clock_step::set_right(true, 0)),
            (vec!["terminate-backends"], terminate_backends::ended(0, 12), terminate_backends::ended(1, 1)),
            (vec!["lock-row"], lock_row::held(1, 0, false), lock_row::held(1, 1, true)),
            (vec!["exhaust-connections"], exhaust_connections::taken(0), exhaust_connections::taken(1)),
            (vec!["read-only"], read_only::switched(0), read_only::switched(1)),
            (vec!["checkpoint-storm"], checkpoint_storm::came_to(0, 8), checkpoint_storm::came_to(1, 0)),
            (vec!["disk-full"], disk_full::taken(0, true), disk_full::taken(4096, false)),
            (vec!["redis-flush"], redis_flush::forgotten(0, Some(5)), redis_flush::forgotten(1, Some(0))),
            (vec!["partition"], partition::packets(0), partition::packets(1)),
        ]
    }

    #[test]
    fn each_kind_knows_when_it_hit_nothing_whatever_numbers_there_are_in_its_words() {
        for (kinds, nothing, something) in cases() {
            assert_eq!(nothing.count, 0, "{kinds:?}: {nothing:?}");
            assert!(something.count > 0, "{kinds:?}: {something:?}");
        }
        // However little was lost with the primary, it is gone.
        assert_eq!(promote_standby::took_over("standby", Some(0)).count, 1);
        let known: BTreeSet<&str> = cases().into_iter().flat_map(|(kinds, ..)| kinds).chain(SURE).collect();
        assert_eq!(known, Inject::KINDS.iter().copied().collect(), "each kind has its case here");
    }
}
