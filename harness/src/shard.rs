//! A process's part in a run: all of it, or that of one of several generators, which never talk to each other.
//!
//! What the shards of a run have in common follows from the command line alone: the seed gives the schedule, the start is
//! an absolute time, and scenario and start give the run's id. The first shard is the **leader**: it alone sets the sale up
//! before the start, and audits it once all shards must have ended. Everybody drives a slice of the schedule, and disturbs
//! a link of its own on the common timeline.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Micros, Role, ShardInfo};
use crate::load::clock::{Clock, unix_us};
use crate::load::slice::Slice;
use crate::load::turns::{Side, Turn};
use crate::scenario::journey::{CompiledStep, Journey};
use crate::scenario::{Loaded, Scenario, Target};

/// What the shards need before the start beside the time in which the buyers connect: to reach the target, to set up the
/// sale twice, and to see the steady state hold.
const PREPARATION_US: Micros = 5_000_000;
/// A start that is further away is taken for a slip in the date.
const FURTHEST_US: Micros = 24 * 3_600 * 1_000_000;

/// The moment at which the schedule of all shards begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartAt {
    unix_us: i64,
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<StartAt, String> {
        let seconds = |digits: &str| digits.parse::<i64>().ok()?.checked_mul(1_000_000);
        let unix_us = match text.strip_prefix('@') {
            Some(digits) => seconds(digits),
            None => text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond),
        };
        unix_us.map(|unix_us| StartAt { unix_us }).ok_or_else(|| {
            "write a time with its zone, such as 2026-11-22T21:00:00Z or 2026-11-22T21:00:00+08:00, or @ and the seconds \
             since 1970, such as @1795381200"
                .to_owned()
        })
    }
}

/// What one process does of a run.
#[derive(Debug, Clone)]
pub struct Part {
    /// The run's id, the same for all shards.
    pub run_id: String,
    /// The arrivals that it drives.
    pub slice: Slice,
    /// When the schedule begins, in Unix microseconds; as soon as everything is ready if none.
    pub start_unix_us: Option<i64>,
    /// With whom it begins, if it is one side of a duet.
    pub meeting: Option<Arc<Meeting>>,
}

/// Where the two sides of a duet meet when both are ready, so that their schedules begin at the same moment.
#[derive(Debug)]
pub struct Meeting {
    both: tokio::sync::Barrier,
    clock: OnceLock<Clock>,
}

impl Default for Meeting {
    fn default() -> Self {
        Meeting { both: tokio::sync::Barrier::new(2), clock: OnceLock::new() }
    }
}

impl Meeting {
    /// Waits for the other side; the clock that both go by then begins in `lead_us`.
    pub async fn clock(&self, lead_us: Micros) -> Clock {
        self.both.wait().await;
        *self.clock.get_or_init(|| Clock::starting_in(lead_us))
    }
}

impl Part {
    /// The part of a process that is alone.
    pub fn whole() -> Part {
        let run_id = unique(unix_us(), std::process::id());
        Part { run_id, slice: Slice::WHOLE, start_unix_us: None, meeting: None }
    }

    /// One side of a duet: all arrivals that come in its turns, as soon as the other side is ready, too.
    pub fn of_duet(turn: Turn, meeting: Arc<Meeting>) -> Part {
        let side = if turn.side == Side::Old { "a" } else { "b" };
        let run_id = format!("{}{side}", unique(unix_us(), std::process::id()));
        Part { run_id, slice: Slice::in_turns(turn), start_unix_us: None, meeting: Some(meeting) }
    }

    /// The part of one shard. Without a `run_id`, it follows from scenario, start and number of shards.
    ///
    /// # Errors
    /// What does not allow the scenario to be driven so, with the remedy.
    pub fn of_shard(loaded: &Loaded, slice: Slice, start: StartAt, run_id: Option<String>) -> Result<Part, String> {
        let scenario = &loaded.scenario;
        if !scenario.variant.is_empty() {
            return Err(
                "--shard runs one experiment, and this scenario has variants\nhelp: name one with --variant".to_owned()
            );
        }
        if matches!(scenario.target, Target::Reference(_)) {
            return Err("--shard needs a target that all shards reach, and [target.reference] is one that each would \
                        start for itself\nhelp: start it with `seckill stack up SCENARIO`, and give the address that \
                        it prints as [target.external]"
                .to_owned());
        }
        let ahead = start.unix_us - unix_us();
        let needed = PREPARATION_US + lead_us(scenario, slice);
        let soonest = Timestamp::from_microsecond(unix_us() + needed + 10_000_000).unwrap_or_default();
        let fits = |what: &str| format!("{what}\nhelp: the same time for all shards, such as --start-at {soonest:.0}");
        if ahead < 0 {
            return Err(fits(&format!("--start-at is {} s ago", -ahead / 1_000_000)));
        }
        if ahead < needed {
            let (ahead, needed) = (ahead as f64 / 1e6, needed as f64 / 1e6);
            return Err(fits(&format!("--start-at is {ahead:.1} s ahead, and to get ready takes {needed:.1} s")));
        }
        if ahead > FURTHEST_US {
            return Err(fits("--start-at is more than 24 hours ahead"));
        }
        let run_id = run_id.unwrap_or_else(|| {
            let together = format!("{} {} {}", start.unix_us, slice.count(), loaded.resolved);
            format!("{:x}{:08x}", start.unix_us / 1_000_000, crc32fast::hash(together.as_bytes()))
        });
        Ok(Part { run_id, slice, start_unix_us: Some(start.unix_us), meeting: None })
    }

    /// What the run folder says of it; none for a process that is alone.
    pub fn shard(&self) -> Option<ShardInfo> {
        self.start_unix_us.map(|_| ShardInfo { index: self.slice.index(), count: self.slice.count() })
    }

    /// Whether it sets up the sale and audits it.
    pub fn leads(&self) -> bool {
        self.slice.index() == 1
    }
}

/// What an id may be made of: it stands in the names of users and keys, and in those of folders.
///
/// # Errors
/// What is accepted.
pub fn run_id(text: &str) -> Result<String, String> {
    let fits = (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("use 1 to 40 lower-case letters and digits".to_owned()) }
}

/// An id that no other run of this machine has: what bears it, a network namespace say, may be seen by all of them. It is made
/// of the time in steps that are too short for a process to come and go in, and of the process, whose number has 22 bits
/// at most. It sorts by time, and has 13 digits in base 36, which the paths of sockets have room for.
fn unique(now_us: Micros, process: u32) -> String {
    let mut rest = (u128::from(now_us.unsigned_abs()) / 64) << 22 | u128::from(process & 0x3f_ffff);
    let mut digits = Vec::new();
    while rest > 0 {
        let digit = u32::try_from(rest % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.iter().rev().collect()
}

/// How long before the epoch the buyers begin to come and connect. Being late shows as send lag and as distrust.
pub fn lead_us(scenario: &Scenario, slice: Slice) -> Micros {
    700_000 + i64::from(slice.share(scenario.load.virtual_buyers)) * 300
}

/// When every shard must have ended, for the leader knows of the others only what the scenario says.
///
/// The last arrival may wait for a buyer as long as its patience lasts. Each of its walks then takes no longer than one step
/// that has to be made as often as buyers try, all pauses for thought, and all waits for tickets and events. A walk in which
/// several steps have to be made so often takes longer; merging then says that the audit came too early.
pub fn all_ended_by(scenario: &Scenario) -> Micros {
    let last = scenario.plan().last().map_or(0, |arrival| arrival.at_us);
    let timeout = scenario.load.request_timeout.0;
    let waiting = |step: &CompiledStep| match (&step.stream, step.role) {
        (_, Role::Ticket) => step.polling.at_least.0 + step.polling.every.0 * u32::from(step.polling.again),
        (Some(stream), _) => stream.within.0,
        (None, _) => Duration::ZERO,
    };
    let slowest = |journey: &Journey| {
        let one_step = (timeout + journey.retry.max) * u32::from(journey.retry.attempts);
        let waited: Duration = journey.steps.iter().map(waiting).sum();
        let walk = one_step + journey.think.longest() * journey.steps.len() as u32 + waited;
        walk.max(journey.every()) * u32::from(journey.walks())
    };
    let journey = Journey::all(scenario).iter().map(slowest).max().unwrap_or_default();
    last + scenario.load.patience.micros() + journey.as_micros() as Micros
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario;

    fn loaded(sets: &[&str]) -> Loaded {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/kubernetes/base/scenario.toml");
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        scenario::load(Path::new(path), &sets, None).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn runs_that_begin_together_have_ids_of_their_own() {
        let now = 1_795_857_222_000_000;
        let mut ids: Vec<String> =
            (0..200).flat_map(|later| (0..20).map(move |process| unique(now + later * 64, 22_632 + process))).collect();
        assert!(ids.is_sorted(), "they sort by time");
        assert!(ids.iter().all(|id| id.len() == 13 && run_id(id).is_ok()), "{}", ids[0]);
        ids.dedup();
        assert_eq!(ids.len(), 4_000);
    }

    #[test]
    fn a_start_is_the_same_moment_however_it_is_written() {
        let at = |text: &str| text.parse::<StartAt>().unwrap();
        let start = at("2026-11-22T21:00:00Z");
        assert_eq!(start, at("2026-11-23T05:00:00+08:00"));
        assert_eq!(start, at("@1795381200"));
        assert_eq!(at("2026-11-22T21:00:00.25Z").unix_us, start.unix_us + 250_000);
    }

    #[test]
    fn shards_agree_on_their_names_without_talking() {
        let start = StartAt { unix_us: unix_us() + 3_600_000_000 };
        let part =
            |loaded: &Loaded, slice: &str, start| Part::of_shard(loaded, slice.parse().unwrap(), start, None).unwrap();
        let one = part(&loaded(&[]), "1/3", start);
        let other = part(&loaded(&[]), "3/3", start);
        assert_eq!(one.run_id, other.run_id);
        assert!(one.leads() && !other.leads());
        assert_eq!(other.shard(), Some(ShardInfo { index: 3, count: 3 }));
        // Whatever is different makes another run.
        let later = StartAt { unix_us: start.unix_us + 1_000_000 };
        for another in [
            part(&loaded(&["seed=8"]), "1/3", start),
            part(&loaded(&["item.0.stock=7"]), "1/3", start),
            part(&loaded(&[]), "1/4", start),
            part(&loaded(&[]), "1/3", later),
        ] {
            assert_ne!(one.run_id, another.run_id);
        }
        assert_eq!(Part::whole().shard(), None);
    }

    #[test]
    fn everybody_has_ended_after_the_last_arrival_and_one_step_made_as_often_as_can_be() {
        let sets = [
            "load.request_timeout=1s",
            "load.patience=500ms",
            "load.retry={attempts=3, max=\"200ms\"}",
            "cohort.buyers.arrivals=[{constant={rate=1, lasts=\"10s\"}}]",
        ];
        let bound = all_ended_by(&loaded(&sets).scenario);
        // The last of ten arrivals is due at 9.5 s.
        assert_eq!(bound, 9_500_000 + 500_000 + 3 * 1_200_000);
        let thinking = [&sets[..], &["cohort.buyers.think=1s"]].concat();
        assert_eq!(all_ended_by(&loaded(&thinking).scenario), bound + 5 * 1_000_000);
    }
}
