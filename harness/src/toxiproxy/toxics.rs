//! Toxics as Toxiproxy's clients write them, and which of ours each of them is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Refusal;
use crate::fault::toxic::{self, Direction, Distribution, ToxicKind};

/// Every type of toxic, and its attributes. All of them are whole numbers, 0 unless given.
static TYPES: [(&str, &[&str]); 7] = [
    // Milliseconds.
    ("latency", &["latency", "jitter"]),
    // Kilobytes of 1,000 bytes per second; 0 is no limit.
    ("bandwidth", &["rate"]),
    // Milliseconds.
    ("slow_close", &["delay"]),
    // Milliseconds; 0 never closes.
    ("timeout", &["timeout"]),
    // Milliseconds.
    ("reset_peer", &["timeout"]),
    // Bytes, bytes and microseconds.
    ("slicer", &["average_size", "size_variation", "delay"]),
    ("limit_data", &["bytes"]),
];

/// Which direction a toxic strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// From the client to the upstream.
    Upstream,
    /// From the upstream to the client.
    Downstream,
}

/// A toxic of a proxy, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Toxic {
    /// The parameters, all of them.
    pub attributes: BTreeMap<&'static str, u64>,
    /// Unique on its proxy.
    pub name: String,
    /// Which of the types it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The direction.
    pub stream: Stream,
    /// The fraction of connections that it strikes.
    pub toxicity: f32,
}

/// A toxic as it is asked for, or the change of one: what is absent or null stays as it is, or gets its default.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    stream: Option<String>,
    toxicity: Option<f32>,
    attributes: Option<Map<String, Value>>,
}

impl Toxic {
    /// A new toxic.
    ///
    /// # Errors
    /// It has no such direction or type, or an attribute that is no number.
    pub fn new(asked: Asked) -> Result<Toxic, Refusal> {
        let stream = match asked.stream.as_deref() {
            None | Some("downstream") => Stream::Downstream,
            Some("upstream") => Stream::Upstream,
            Some(_) => return Err(Refusal::bad("stream was invalid, can be either upstream or downstream")),
        };
        let asked_kind = asked.kind.unwrap_or_default();
        let known = TYPES.iter().find(|(name, _)| *name == asked_kind);
        let (kind, keys) = known.ok_or_else(|| Refusal::bad("invalid toxic type"))?;
        let direction = if stream == Stream::Upstream { "upstream" } else { "downstream" };
        let name = asked.name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{kind}_{direction}"));
        let attributes = keys.iter().map(|key| (*key, 0)).collect();
        let fresh = Toxic { attributes, name, kind, stream, toxicity: 1.0 };
        fresh.changed(&Asked { toxicity: asked.toxicity, attributes: asked.attributes, ..Asked::default() })
    }

    /// The same toxic with other attributes or another toxicity; nothing else of it can be changed.
    ///
    /// # Errors
    /// An attribute is no number.
    pub fn changed(&self, asked: &Asked) -> Result<Toxic, Refusal> {
        let mut changed = self.clone();
        for (key, value) in asked.attributes.iter().flatten() {
            // As Toxiproxy does it: what it does not know, it ignores.
            let Some(attribute) = changed.attributes.get_mut(key.as_str()).filter(|_| !value.is_null()) else {
                continue;
            };
            *attribute = value.as_u64().ok_or_else(|| {
                Refusal::bad(format!(
                    "bad request body: the attribute `{key}` is {value}; it must be a whole number from 0 on"
                ))
            })?;
        }
        changed.toxicity = asked.toxicity.unwrap_or(self.toxicity);
        Ok(changed)
    }

    /// What is armed for it; nothing where it would change nothing.
    pub fn to_arm(&self) -> Option<toxic::Toxic> {
        let number = |key: &str| self.attributes.get(key).copied().unwrap_or(0);
        let ms = |key: &str| Duration::from_millis(number(key));
        let bytes = |key: &str| u32::try_from(number(key)).unwrap_or(u32::MAX);
        let kind = match self.kind {
            "latency" => {
                ToxicKind::Latency { delay: ms("latency"), jitter: ms("jitter"), distribution: Distribution::Uniform }
            }
            "bandwidth" if number("rate") == 0 => return None,
            "bandwidth" => ToxicKind::Bandwidth { bytes_per_second: number("rate").saturating_mul(1_000) },
            "slow_close" => ToxicKind::SlowClose { delay: ms("delay") },
            "timeout" if number("timeout") == 0 => ToxicKind::BlackHole,
            "timeout" => ToxicKind::Timeout { after: ms("timeout") },
            "reset_peer" => ToxicKind::Reset { after: ms("timeout") },
            "slicer" => ToxicKind::Slicer {
                size: bytes("average_size"),
                variation: bytes("size_variation"),
                delay: Duration::from_micros(number("delay")),
            },
            _ => ToxicKind::LimitData { bytes: number("bytes") },
        };
        let direction = match self.stream {
            Stream::Upstream => Direction::Up,
            Stream::Downstream => Direction::Down,
        };
        Some(toxic::Toxic { kind, direction, fraction: f64::from(self.toxicity) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn toxic(asked: Value) -> Result<Toxic, String> {
        Toxic::new(serde_json::from_value(asked).unwrap()).map_err(|refusal| refusal.error)
    }

    #[test]
    fn a_toxic_has_defaults_and_every_attribute() {
        let latency =
            toxic(json!({"type": "latency", "attributes": {"latency": 20, "unknown": 1, "jitter": null}})).unwrap();
        assert_eq!(
            serde_json::to_value(&latency).unwrap(),
            json!({"attributes": {"latency": 20, "jitter": 0}, "name": "latency_downstream", "type": "latency",
                "stream": "downstream", "toxicity": 1.0})
        );
        let change = json!({"toxicity": 0.5, "stream": "upstream", "attributes": {"jitter": 3}});
        let changed = latency.changed(&serde_json::from_value(change).unwrap()).unwrap();
        assert_eq!((changed.toxicity, changed.stream), (0.5, Stream::Downstream));
        assert_eq!(changed.attributes, BTreeMap::from([("jitter", 3), ("latency", 20)]));
    }

    #[test]
    fn what_is_wrong_is_said_as_toxiproxy_says_it() {
        assert_eq!(toxic(json!({"type": "noop"})).unwrap_err(), "invalid toxic type");
        let sideways = toxic(json!({"type": "latency", "stream": "sideways"})).unwrap_err();
        assert_eq!(sideways, "stream was invalid, can be either upstream or downstream");
        let text = toxic(json!({"type": "latency", "attributes": {"latency": "20"}})).unwrap_err();
        assert!(text.starts_with("bad request body: the attribute `latency`"), "{text}");
    }

    #[test]
    fn each_type_is_one_of_ours_in_our_units() {
        let armed = |kind: &str, attributes: Value| {
            toxic(json!({"type": kind, "stream": "upstream", "attributes": attributes})).unwrap().to_arm()
        };
        let kind = |name: &str, attributes: Value| {
            let toxic = armed(name, attributes).unwrap();
            assert_eq!((toxic.direction, toxic.fraction), (Direction::Up, 1.0));
            toxic.kind
        };
        let ms = Duration::from_millis;
        assert_eq!(kind("bandwidth", json!({"rate": 10})), ToxicKind::Bandwidth { bytes_per_second: 10_000 });
        assert_eq!(armed("bandwidth", json!({})), None);
        assert_eq!(kind("slow_close", json!({"delay": 7})), ToxicKind::SlowClose { delay: ms(7) });
        assert_eq!(kind("timeout", json!({})), ToxicKind::BlackHole);
        assert_eq!(kind("timeout", json!({"timeout": 7})), ToxicKind::Timeout { after: ms(7) });
        assert_eq!(kind("reset_peer", json!({"timeout": 7})), ToxicKind::Reset { after: ms(7) });
        let slicer = json!({"average_size": 64, "size_variation": 32, "delay": 10});
        let delay = Duration::from_micros(10);
        assert_eq!(kind("slicer", slicer), ToxicKind::Slicer { size: 64, variation: 32, delay });
        assert_eq!(kind("limit_data", json!({"bytes": 9})), ToxicKind::LimitData { bytes: 9 });
    }
}
