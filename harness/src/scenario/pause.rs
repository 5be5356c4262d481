//! How long buyers think before a step.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use statrs::distribution::ContinuousCDF;

use super::value::{Drawn, Dur};
use crate::load::arrival::{check_response_times, response_times};

/// A wait: of a fixed length, `"2s"`; between two, `["1s", "3s"]`, each as likely; or as people are,
/// `{ median = "2s", sigma = 0.5 }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pause {
    /// Of a fixed length, or between two.
    Between(Drawn),
    /// Log-normal, as the times are that people take to answer.
    LogNormal(LogNormalPause),
}

/// The times that people take: log-normal.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogNormalPause {
    /// Half of all times are shorter.
    pub median: Dur,
    /// Standard deviation of the time's natural logarithm: 0.5 puts two thirds between 0.6 and 1.6 times the median.
    #[serde(default = "half")]
    pub sigma: f64,
}

fn half() -> f64 {
    0.5
}

/// The longest in a thousand are left out: nobody's think time shall decide how long a run takes.
const LONGEST: f64 = 0.999;

impl Pause {
    /// The wait that a random number from 0 up to 1 stands for.
    pub fn draw(&self, random: f64) -> Duration {
        match self {
            Pause::Between(drawn) => drawn.draw(random).0,
            Pause::LogNormal(LogNormalPause { median, sigma }) => response_times(*median, *sigma)
                .map(|times| Duration::from_secs_f64(times.inverse_cdf(random * LONGEST)))
                .unwrap_or_default(),
        }
    }

    /// The longest wait there is.
    pub fn longest(&self) -> Duration {
        self.draw(1.0)
    }

    /// The wait, if it is always the same.
    pub fn fixed(&self) -> Option<Duration> {
        match self {
            Pause::Between(drawn) if drawn.least == drawn.most => Some(drawn.least.0),
            _ => None,
        }
    }

    /// What is wrong with the numbers, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Pause::Between(_) => Ok(()),
            Pause::LogNormal(LogNormalPause { median, sigma }) => check_response_times(*median, *sigma),
        }
    }
}

impl Default for Pause {
    fn default() -> Self {
        Pause::Between(Drawn { least: Dur::default(), most: Dur::default() })
    }
}

impl<'de> Deserialize<'de> for Pause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pause;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a wait: \"2s\", or between two, [\"1s\", \"3s\"], or log-normal, { median = \"2s\", sigma = 0.5 }",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pause, E> {
                Drawn::deserialize(de::value::StrDeserializer::new(text)).map(Pause::Between)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, bounds: A) -> Result<Pause, A::Error> {
                Drawn::deserialize(de::value::SeqAccessDeserializer::new(bounds)).map(Pause::Between)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, keys: A) -> Result<Pause, A::Error> {
                LogNormalPause::deserialize(MapAccessDeserializer::new(keys)).map(Pause::LogNormal)
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for Pause {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pause".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (drawn, people) = (generator.subschema_for::<Drawn>(), generator.subschema_for::<LogNormalPause>());
        schemars::json_schema!({
            "description": "A wait: of one length, between two of which the seed draws one, or log-normal as people's times are.",
            "anyOf": [drawn, people],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Pause, String> {
        #[derive(Deserialize)]
        struct Buyer {
            think: Pause,
        }
        toml::from_str::<Buyer>(text).map(|buyer| buyer.think).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_wait_is_said_in_three_ways() {
        assert_eq!(read("think = '2s'").unwrap().fixed(), Some(Duration::from_secs(2)));
        assert_eq!(read("think = ['1s', '3s']").unwrap().draw(0.5), Duration::from_secs(2));
        let people = read("think = { median = '2s', sigma = 0.5 }").unwrap();
        let seconds = |random: f64| people.draw(random).as_secs_f64();
        assert!((seconds(0.5 / LONGEST) - 2.0).abs() < 1e-6);
        // 84.13% of a log-normal are below e^sigma medians.
        assert!((seconds(0.841_344_746 / LONGEST) - 2.0 * 0.5f64.exp()).abs() < 1e-6);
        assert!(seconds(0.999_999_9) < 2.0 * (0.5f64 * 3.1).exp(), "nobody thinks for ever");
        assert_eq!(read("think = { median = '2s' }").unwrap(), people);
        assert!(read("think = 2").unwrap_err().contains("[\"1s\", \"3s\"]"));
        assert!(read("think = ['3s', '1s']").unwrap_err().contains("backwards"));
        assert!(read("think = { mean = '1s' }").unwrap_err().contains("`median`"));
    }

    proptest! {
        #[test]
        fn longer_draws_are_longer_waits(a in 0.0f64..1.0, b in 0.0f64..1.0, ms in 1u64..5_000, sigma in 0.01f64..3.0) {
            let people = Pause::LogNormal(LogNormalPause { median: Dur::millis(ms), sigma });
            prop_assert_eq!(people.check(), Ok(()));
            prop_assert!(a.total_cmp(&b) == std::cmp::Ordering::Greater || people.draw(a) <= people.draw(b));
        }
    }
}
