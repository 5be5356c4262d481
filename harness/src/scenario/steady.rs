//! What it means that the system is well, and what stops a run: the steady-state hypothesis and the `[[stop]]` conditions.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::Scenario;
use super::value::Dur;

/// What it means that the system is well: probes that are made all the time beside the load, and that all have to hold.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SteadyState {
    /// The step whose request is the first probe; it must need nothing captured. Or name it in a `probe`.
    #[schemars(with = "Option<String>")]
    pub step: Option<Spanned<String>>,
    /// It must be answered with success within this time.
    pub within: Option<Dur>,
    /// How often the probes are made.
    #[serde(default = "default_every")]
    pub every: Dur,
    /// Times in a row that all must hold for a recovery to count.
    #[serde(default = "default_hold")]
    pub hold: u32,
    /// JSON pointer to the units available in the first request's reply, for the stock's curve and for faults that wait for it.
    #[serde(default = "default_available")]
    pub available: String,
    /// Further probes.
    #[serde(default)]
    #[schemars(with = "Vec<ProbeSpec>")]
    pub probe: Vec<Spanned<ProbeSpec>>,
}

/// One probe: a `step` that must be answered `within` a time, or an `error_fraction` that the buyers must not exceed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeSpec {
    /// Unique in the scenario.
    pub name: String,
    /// The step whose request it is; it must need nothing captured. Its `check` applies.
    #[schemars(with = "Option<String>")]
    pub step: Option<Spanned<String>>,
    /// It must be answered with success within this time.
    pub within: Option<Dur>,
    /// JSON pointer to a number in the reply, which has to be `at_least` or `at_most` something.
    pub json: Option<String>,
    /// The number's lower bound.
    pub at_least: Option<f64>,
    /// The number's upper bound.
    pub at_most: Option<f64>,
    /// Largest share of the buyers' requests without an answer, from 0 to 1. A refusal is an answer.
    pub error_fraction: Option<f64>,
    /// Of this cohort; of all if absent.
    pub cohort: Option<String>,
    /// Over so long; the last two seconds if absent.
    pub over: Option<Dur>,
}

fn default_every() -> Dur {
    Dur::millis(50)
}
fn default_hold() -> u32 {
    3
}
/// Where the units available stand unless a scenario says.
pub fn default_available() -> String {
    "/available".into()
}

impl SteadyState {
    /// All probes, the one without a table of its own first, called as its step.
    pub fn probes(&self) -> Vec<ProbeSpec> {
        let plain = self.step.as_ref().map(|step| ProbeSpec {
            name: step.get_ref().clone(),
            step: Some(step.clone()),
            within: self.within,
            ..ProbeSpec::default()
        });
        plain.into_iter().chain(self.probe.iter().map(|probe| probe.get_ref().clone())).collect()
    }
}

impl ProbeSpec {
    /// How long it looks back on the load.
    pub fn over(&self) -> Duration {
        self.over.map_or(Duration::from_secs(2), |over| over.0)
    }
}

/// A condition that ends a run before its time: everything is healed and the load ends. One of `p99`, `error_fraction` and
/// `unsteady_for`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// Unique in the scenario.
    pub name: String,
    /// The cohort that is looked at; all if absent.
    pub cohort: Option<String>,
    /// The 99th percentile of its latencies, from the intended start, is above this.
    pub p99: Option<Dur>,
    /// A larger share of its requests than this has no answer, from 0 to 1: an error budget. A refusal is an answer.
    pub error_fraction: Option<f64>,
    /// The steady state has not held for longer than this.
    pub unsteady_for: Option<Dur>,
    /// The window that slides over the load; five seconds if absent.
    pub over: Option<Dur>,
    /// With fewer requests in the window nothing is said of it; 100 if absent.
    pub min_requests: Option<u64>,
    /// Not before this time, counted from the start of the load.
    pub from: Dur,
}

impl Stop {
    /// Length of the window.
    pub fn over(&self) -> Duration {
        self.over.map_or(Duration::from_secs(5), |over| over.0)
    }

    /// The fewest requests of a window that says something.
    pub fn min_requests(&self) -> u64 {
        self.min_requests.unwrap_or(100)
    }

    /// The condition in words: `TP99 of bystanders above 500ms over 5s`.
    pub fn words(&self) -> String {
        let whose = self.cohort.as_deref().unwrap_or("all buyers");
        let over = Dur(self.over());
        match (self.p99, self.error_fraction, self.unsteady_for) {
            (Some(limit), ..) => format!("TP99 of {whose} above {limit} over {over}"),
            (_, Some(share), _) => format!("more than {}% of {whose} without an answer over {over}", percent(share)),
            (.., Some(length)) => format!("no steady state for longer than {length}"),
            _ => String::new(),
        }
    }
}

/// A share in percent, with as many digits as people read.
pub fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
}

impl Scenario {
    /// The longest window of the load that something is measured over while it runs; none where nothing is.
    pub fn longest_window(&self) -> Option<Duration> {
        let stops =
            self.stop.iter().map(|stop| stop.get_ref()).filter(|stop| stop.unsteady_for.is_none()).map(Stop::over);
        let probes = self.steady_state.probes();
        let probes = probes.iter().filter(|probe| probe.error_fraction.is_some()).map(ProbeSpec::over);
        stops.chain(probes).max()
    }

    /// The number of a cohort, as arrivals and windows know it.
    pub fn cohort_number(&self, name: Option<&str>) -> Option<usize> {
        self.cohort.keys().position(|known| Some(known.as_str()) == name)
    }
}
