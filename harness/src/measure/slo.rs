//! Objectives: what a scenario promises of its latencies and errors, and whether a run kept it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stats::{LatencyHistogram, P50, P99, P999, Percentile, text_us};
use crate::history::{Event, History, Op, Outcome, Sym};
use crate::summary::SloResult;

/// An objective of a scenario, `[[slo]]`. Every limit that is given is judged for itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SloSpec {
    /// The step; all steps if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The phase, by the intended start; the whole run if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The cohort; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// Limit of the median.
    #[serde(default, with = "duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub p50: Option<Duration>,
    /// Limit of the 99th percentile.
    #[serde(default, with = "duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub p99: Option<Duration>,
    /// Limit of the 99.9th percentile.
    #[serde(default, with = "duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub p999: Option<Duration>,
    /// Limit of the largest latency.
    #[serde(default, with = "duration_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub max: Option<Duration>,
    /// Largest share of operations without an answer, from 0 to 1: indeterminate, dropped, or never connected. A
    /// refusal such as "sold out" is an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_fraction: Option<f64>,
}

/// Durations as people write them in a scenario: `250ms`, `1m30s`.
mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::scenario::value::Dur;

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(Dur).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Dur>::deserialize(from)?.map(|dur| dur.0))
    }
}

/// One limit of an objective.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Percentile(&'static str, Percentile, Duration),
    Max(Duration),
    ErrorFraction(f64),
}

impl SloSpec {
    /// Whether it makes sense: what is wrong and what to write instead, if not.
    pub fn validate(&self) -> Result<(), String> {
        if self.limits().is_empty() {
            return Err("an objective needs a limit: one of p50, p99, p999, max, error_fraction".to_string());
        }
        if self.error_fraction.is_some_and(|f| !(0.0..=1.0).contains(&f)) {
            return Err("error_fraction is a share from 0 to 1, such as 0.01 for 1%".to_string());
        }
        Ok(())
    }

    /// Samples that it takes to judge it.
    pub fn samples_needed(&self) -> u64 {
        let needs = |limit: &Limit| if let Limit::Percentile(_, percentile, _) = limit { percentile.needs } else { 0 };
        self.limits().iter().map(needs).max().unwrap_or(0)
    }

    fn limits(&self) -> Vec<Limit> {
        let percentile = |key, p, limit: Option<Duration>| limit.map(|limit| Limit::Percentile(key, p, limit));
        let limits = [
            percentile("p50", P50, self.p50),
            percentile("p99", P99, self.p99),
            percentile("p999", P999, self.p999),
            self.max.map(Limit::Max),
            self.error_fraction.map(Limit::ErrorFraction),
        ];
        limits.into_iter().flatten().collect()
    }

    /// `page p99 <= 250 ms in phase base`.
    fn name(&self, limit: Limit) -> String {
        let limit = match limit {
            Limit::Percentile(key, _, limit) => format!("{key} <= {}", text_us(micros(limit))),
            Limit::Max(limit) => format!("max <= {}", text_us(micros(limit))),
            Limit::ErrorFraction(limit) => format!("error fraction <= {}%", round(limit * 100.0)),
        };
        let mut name = format!("{} {limit}", self.step.as_deref().unwrap_or("all steps"));
        if let Some(phase) = &self.phase {
            name += &format!(" in phase {phase}");
        }
        if let Some(cohort) = &self.cohort {
            name += &format!(" of cohort {cohort}");
        }
        name
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A number with at most four significant digits after the point, without trailing zeros.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The ops that an objective is about, and what was seen of them.
struct Watch<'a> {
    spec: &'a SloSpec,
    step: Wanted,
    cohort: Wanted,
    /// Spans of the phase; none for the whole run.
    spans: Option<Vec<(i64, i64)>>,
    latencies: LatencyHistogram,
    ops: u64,
    errors: u64,
}

/// Which name an op must have.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Only(Sym),
    /// A name that no op has.
    Absent,
}

impl Wanted {
    fn new(name: Option<&String>, history: &History) -> Wanted {
        match name {
            None => Wanted::Any,
            Some(name) => history.names.find(name).map_or(Wanted::Absent, Wanted::Only),
        }
    }

    fn fits(self, sym: Sym) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Only(wanted) => wanted == sym,
            Wanted::Absent => false,
        }
    }
}

impl<'a> Watch<'a> {
    fn new(spec: &'a SloSpec, history: &History) -> Watch<'a> {
        let spans = spec.phase.as_ref().map(|wanted| {
            let span = |event: &Event| match event {
                Event::Phase { name, from_us, until_us } if name == wanted => Some((*from_us, *until_us)),
                _ => None,
            };
            history.events.iter().filter_map(span).collect()
        });
        Watch {
            spec,
            step: Wanted::new(spec.step.as_ref(), history),
            cohort: Wanted::new(spec.cohort.as_ref(), history),
            spans,
            latencies: LatencyHistogram::default(),
            ops: 0,
            errors: 0,
        }
    }

    fn see(&mut self, op: &Op) {
        let at = op.intended_us;
        let in_phase =
            self.spans.as_ref().is_none_or(|spans| spans.iter().any(|(from, until)| (*from..*until).contains(&at)));
        if !in_phase || !self.step.fits(op.step) || !self.cohort.fits(op.cohort) {
            return;
        }
        self.ops += 1;
        self.errors += u64::from(op.is_unanswered());
        if op.outcome != Outcome::Dropped {
            self.latencies.record(op.latency_us());
        }
    }

    fn judge(&self, limit: Limit) -> SloResult {
        let name = self.spec.name(limit);
        let (met, measured) = match limit {
            Limit::Percentile(key, percentile, limit) => self.judge_percentile(key, percentile, limit),
            _ if self.ops == 0 => (None, "no operation to judge it by".to_string()),
            Limit::Max(limit) => {
                let max = self.latencies.max_us();
                (Some(max <= micros(limit)), format!("max {} of {} samples", text_us(max), self.latencies.count()))
            }
            Limit::ErrorFraction(limit) => {
                let share = self.errors as f64 / self.ops as f64;
                (
                    Some(share <= limit),
                    format!("{}% ({} of {} operations)", round(share * 100.0), self.errors, self.ops),
                )
            }
        };
        SloResult { name, met, measured }
    }

    fn judge_percentile(&self, key: &str, percentile: Percentile, limit: Duration) -> (Option<bool>, String) {
        let count = self.latencies.count();
        if let Some(missing) = percentile.missing(count) {
            return (None, missing);
        }
        let value = self.latencies.quantile_us(percentile.quantile);
        let measured = match self.latencies.interval_us(percentile) {
            Some([low, high]) => format!(
                "{key} {} (95% interval {} to {}, {count} samples)",
                text_us(value),
                text_us(low),
                text_us(high)
            ),
            None => format!("{key} {} ({count} samples)", text_us(value)),
        };
        (Some(value <= micros(limit)), measured)
    }
}

/// Judges objectives by a history: one result for each limit of each objective.
pub fn judge(history: &History, slos: &[SloSpec]) -> Vec<SloResult> {
    let mut watches: Vec<Watch<'_>> = slos.iter().map(|spec| Watch::new(spec, history)).collect();
    for op in &history.ops {
        watches.iter_mut().for_each(|watch| watch.see(op));
    }
    watches.iter().flat_map(|watch| watch.spec.limits().into_iter().map(|limit| watch.judge(limit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_as_people_write_it() {
        let spec: SloSpec = toml::from_str("step = 'page'\nphase = 'base'\np99 = '250ms'\nmax = '1m30s'").unwrap();
        assert_eq!(spec.p99, Some(Duration::from_millis(250)));
        assert_eq!(spec.max, Some(Duration::from_secs(90)));
        assert_eq!(spec.validate(), Ok(()));
        let names: Vec<String> = spec.limits().into_iter().map(|l| spec.name(l)).collect();
        assert_eq!(names, ["page p99 <= 250 ms in phase base", "page max <= 90 s in phase base"]);
        assert_eq!(toml::from_str::<SloSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let error = toml::from_str::<SloSpec>("p99 = '250'").unwrap_err().to_string();
        assert!(error.contains("`250` is not a duration") && error.contains("such as `500us`, `250ms`"), "{error}");
        assert!(toml::from_str::<SloSpec>("p95 = '1s'").unwrap_err().to_string().contains("unknown field `p95`"));
        assert!(SloSpec::default().validate().unwrap_err().contains("needs a limit"));
        let spec = SloSpec { error_fraction: Some(5.0), ..SloSpec::default() };
        assert!(spec.validate().unwrap_err().contains("from 0 to 1"));
    }
}
