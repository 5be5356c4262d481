//! Conditions that end a run before its time, looked at while the load runs.

use std::time::Duration;

use crate::history::Micros;
use crate::load::clock::Clock;
use crate::load::live::Live;
use crate::measure::stats::text_us;
use crate::sampler::Steady;
use crate::scenario::Scenario;
use crate::scenario::steady::{Stop, percent};
use crate::scenario::value::Dur;

/// How often the conditions are looked at: often enough that everything is healed within two seconds.
const LOOK: Duration = Duration::from_millis(100);

/// A condition that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Its name.
    pub name: String,
    /// When it was seen.
    pub at_us: Micros,
    /// What was measured, against which limit.
    pub why: String,
}

/// What a run was stopped by that somebody wanted to end, in the place of a condition's name.
pub const BUTTON: &str = "stop-button";

/// Waits until one of the scenario's conditions is met, or until somebody wants the run to end, who says why. It may never end.
pub async fn watch_or(
    wanted: impl Future<Output = String>,
    scenario: &Scenario,
    live: &Live,
    steady: &Steady,
    clock: Clock,
) -> Met {
    tokio::select! {
        met = watch(scenario, live, steady, clock) => met,
        why = wanted => Met { name: BUTTON.to_owned(), at_us: clock.now_us(), why },
    }
}

/// Waits until one of the scenario's conditions is met. It may never end.
pub async fn watch(scenario: &Scenario, live: &Live, steady: &Steady, clock: Clock) -> Met {
    let mut watched: Vec<Watched<'_>> =
        scenario.stop.iter().map(|stop| Watched::new(stop.get_ref(), scenario)).collect();
    if watched.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let now_us = clock.now_us();
        for stop in &mut watched {
            if let Some(why) = stop.look(now_us, live, steady.now()) {
                return Met { name: stop.stop.name.clone(), at_us: now_us, why };
            }
        }
    }
}

/// A condition with what has to be remembered of it.
struct Watched<'a> {
    stop: &'a Stop,
    cohort: Option<usize>,
    /// Since when the steady state does not hold.
    unsteady_since: Option<Micros>,
}

impl<'a> Watched<'a> {
    fn new(stop: &'a Stop, scenario: &Scenario) -> Watched<'a> {
        Watched { stop, cohort: scenario.cohort_number(stop.cohort.as_deref()), unsteady_since: None }
    }

    /// Why the run is to be stopped now, if it is.
    fn look(&mut self, now_us: Micros, live: &Live, steady: bool) -> Option<String> {
        let stop = self.stop;
        if now_us < stop.from.micros() {
            return None;
        }
        let met = format!("{}: ", stop.words());
        if let Some(longest) = stop.unsteady_for {
            let since = *self.unsteady_since.get_or_insert(now_us);
            if steady {
                self.unsteady_since = None;
            }
            let lasted = now_us - since;
            return (!steady && lasted > longest.micros())
                .then(|| format!("{met}{}", Dur(Duration::from_micros(lasted as u64))));
        }
        let view = live.window(self.cohort, now_us, stop.over());
        if view.ops < stop.min_requests() {
            return None;
        }
        let measured = match (stop.p99, stop.error_fraction) {
            (Some(limit), _) => view.percentile_us(0.99).filter(|us| *us as i64 > limit.micros()).map(text_us),
            (_, Some(most)) => {
                view.error_fraction().filter(|share| *share > most).map(|share| format!("{}%", percent(share)))
            }
            _ => None,
        };
        measured.map(|measured| format!("{met}{measured} ({} requests)", view.ops))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;
    use crate::load::live::Seen;

    const SPIKE: &str = include_str!("../../../scenarios/spike.toml");

    /// The main scenario with a condition, and a load of a request each 10 ms, of which some have no answer.
    fn loaded(stop: &str, until_ms: Micros, unanswered: impl Fn(Micros) -> bool) -> (Scenario, Live) {
        let scenario: Scenario = toml::from_str(&format!("{SPIKE}\n[[stop]]\nname = 's'\n{stop}\n")).unwrap();
        let live = Live::of(&scenario);
        for ms in (0..until_ms).step_by(10) {
            let answered = !unanswered(ms);
            let (outcome, reason) = if answered { (Outcome::Ok, "") } else { (Outcome::Info, "timeout") };
            let latency_us = if answered { 4_000 } else { 2_000_000 };
            live.see(Seen { cohort: 0, outcome, answered, reason, at_us: ms * 1_000, latency_us });
        }
        (scenario, live)
    }

    fn look(scenario: &Scenario, live: &Live, now_ms: Micros) -> Option<String> {
        Watched::new(scenario.stop[0].get_ref(), scenario).look(now_ms * 1_000, live, true)
    }

    #[test]
    fn an_error_budget_is_of_the_window() {
        let stop = "error_fraction = 0.25\nover = '2s'\ncohort = 'buyers'";
        // Half of the third second is lost: a quarter of the window that ends with it, and a bit less of earlier ones.
        let (scenario, live) = loaded(stop, 10_000, |ms| (2_000..3_000).contains(&ms) && ms % 20 == 0);
        assert_eq!(look(&scenario, &live, 10_000), None, "it is over");
        let (scenario, live) = loaded(stop, 3_000, |ms| (2_000..3_000).contains(&ms) && ms % 20 == 0);
        assert_eq!(look(&scenario, &live, 2_999), None, "it is not more than the budget");
        let (scenario, live) = loaded(stop, 3_000, |ms| ms >= 2_000);
        let why = look(&scenario, &live, 2_999).unwrap();
        assert_eq!(why, "more than 25% of buyers without an answer over 2s: 50% (200 requests)");
    }

    #[test]
    fn a_percentile_needs_enough_requests() {
        let (scenario, live) = loaded("p99 = '500ms'\nover = '1s'", 5_000, |ms| ms % 50 == 0);
        let why = look(&scenario, &live, 4_999).unwrap();
        assert_eq!(why, "TP99 of all buyers above 500ms over 1s: 2 s (100 requests)");
        let (scenario, live) = loaded("p99 = '500ms'\nover = '1s'\nmin_requests = 101", 5_000, |ms| ms % 50 == 0);
        assert_eq!(look(&scenario, &live, 4_999), None);
        let (scenario, live) = loaded("p99 = '500ms'\nfrom = '5s'", 5_000, |_| true);
        assert_eq!(look(&scenario, &live, 4_999), None);
        assert!(look(&scenario, &live, 5_000).is_some());
    }

    #[test]
    fn the_steady_state_may_be_gone_for_a_while() {
        let (scenario, live) = loaded("unsteady_for = '3s'", 0, |_| false);
        let mut watched = Watched::new(scenario.stop[0].get_ref(), &scenario);
        for (second, steady) in [(1, false), (3, false), (4, true), (5, false), (8, false)] {
            assert_eq!(watched.look(second * 1_000_000, &live, steady), None, "{second}");
        }
        assert_eq!(watched.look(8_100_000, &live, false).unwrap(), "no steady state for longer than 3s: 3100ms");
    }
}
