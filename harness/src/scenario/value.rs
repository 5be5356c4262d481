//! Small valid types that scenario files are made of: durations with units, link names, seeded-bug selectors.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::proxy::Endpoint;

/// A length of time, written with its unit: `250ms`, `3s`, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, JsonSchema)]
#[schemars(with = "String")]
pub struct Dur(pub Duration);

impl Dur {
    /// Whole microseconds.
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }

    /// From whole milliseconds.
    pub const fn millis(ms: u64) -> Dur {
        Dur(Duration::from_millis(ms))
    }
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        if us == 0 {
            write!(f, "0s")
        } else if us.is_multiple_of(1_000_000) {
            write!(f, "{}s", us / 1_000_000)
        } else if us.is_multiple_of(1_000) {
            write!(f, "{}ms", us / 1_000)
        } else {
            write!(f, "{us}us")
        }
    }
}

/// Reads a duration with its unit.
///
/// # Errors
/// Says what was written and what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!("`{text}` is not a duration; write a number with its unit, such as `500us`, `250ms`, `3s` or `1m30s`")
    };
    let trimmed = text.trim();
    if !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad());
    }
    let parsed: jiff::SignedDuration = trimmed.parse().map_err(|_| bad())?;
    Duration::try_from(parsed).map_err(|_| bad())
}

struct DurVisitor;

impl Visitor<'_> for DurVisitor {
    type Value = Dur;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit in quotes, such as \"250ms\", \"3s\" or \"1m30s\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Dur, E> {
        parse_duration(text).map(Dur).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurVisitor)
    }
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An amount of bytes, written with its unit: `256MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub u64);

impl Size {
    /// From whole mebibytes.
    pub const fn mebibytes(count: u64) -> Size {
        Size(count << 20)
    }

    fn parse(text: &str) -> Option<Size> {
        let (number, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
            .into_iter()
            .find_map(|(unit, shift)| Some((text.trim().strip_suffix(unit)?, shift)))?;
        number.trim().parse::<u64>().ok()?.checked_mul(1 << shift).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            [(30, "GiB"), (20, "MiB")].into_iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        let (shift, unit) = unit.unwrap_or((10, "KiB"));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Size::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not a size; write a whole number with its unit, KiB, MiB or GiB, such as \"256MiB\""
            ))
        })
    }
}

/// A length of time that is said, `"8s"`, or left to the seed between two bounds, `["8s", "10s"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The shortest.
    pub least: Dur,
    /// The longest.
    pub most: Dur,
}

impl Drawn {
    /// The length that a random number from 0 up to 1 stands for, in whole milliseconds where it was left open.
    pub fn draw(self, random: f64) -> Dur {
        if self.least == self.most {
            return self.least;
        }
        let spread = self.most.0.saturating_sub(self.least.0).mul_f64(random);
        Dur(self.least.0 + Duration::from_millis(spread.as_millis() as u64))
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most {
            return self.least.fmt(f);
        }
        write!(f, "{} to {}", self.least, self.most)
    }
}

impl<'de> Deserialize<'de> for Drawn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Drawn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration with its unit in quotes, such as \"250ms\" or \"8s\", or two that the seed draws between: [\"8s\", \"10s\"]",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Drawn, E> {
                let said = DurVisitor.visit_str(text)?;
                Ok(Drawn { least: said, most: said })
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut bounds: A) -> Result<Drawn, A::Error> {
                let mut next = |n| bounds.next_element()?.ok_or_else(|| de::Error::invalid_length(n, &self));
                let (least, most): (Dur, Dur) = (next(0)?, next(1)?);
                if bounds.next_element::<Dur>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                if most < least {
                    return Err(de::Error::custom(format!(
                        "{least} to {most} runs backwards; write the shorter one first"
                    )));
                }
                Ok(Drawn { least, most })
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for Drawn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Drawn".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A duration, or two that the seed draws between.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2 },
            ],
        })
    }
}

/// How far clocks are off: between two lengths of time, early ones with a minus, `["-800ms", "800ms"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockSkew {
    /// The least, in microseconds; negative is early.
    pub least_us: i64,
    /// The most.
    pub most_us: i64,
}

impl ClockSkew {
    /// Whether the clocks are right.
    pub fn is_none(self) -> bool {
        (self.least_us, self.most_us) == (0, 0)
    }

    /// How far one clock is off, in microseconds: anything between the two is as likely.
    pub fn draw_us(self, rng: &mut impl Rng) -> i64 {
        rng.random_range(self.least_us..=self.most_us)
    }
}

impl<'de> Deserialize<'de> for ClockSkew {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = ClockSkew;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a clock skew, which is two lengths of time: the earliest, with a minus where it is early, and the \
                     latest, such as [\"-800ms\", \"800ms\"]",
                )
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut bounds: A) -> Result<ClockSkew, A::Error> {
                let mut next = |n| -> Result<i64, A::Error> {
                    let text: String = bounds.next_element()?.ok_or_else(|| de::Error::invalid_length(n, &self))?;
                    signed_micros(&text).map_err(de::Error::custom)
                };
                let (least_us, most_us) = (next(0)?, next(1)?);
                if bounds.next_element::<String>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                if least_us > most_us {
                    return Err(de::Error::custom(
                        "a clock skew goes from the earliest to the latest: [\"-800ms\", \"800ms\"]",
                    ));
                }
                Ok(ClockSkew { least_us, most_us })
            }
        }
        deserializer.deserialize_seq(V)
    }
}

/// A length of time with a sign, in microseconds: `"-800ms"`.
fn signed_micros(text: &str) -> Result<i64, String> {
    let (sign, length) = match text.trim().strip_prefix('-') {
        Some(length) => (-1, length),
        None => (1, text.trim().trim_start_matches('+')),
    };
    parse_duration(length).map(|length| sign * Dur(length).micros())
}

/// A length of time ahead (`"3s"`) or behind (`"-3s"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedDur(i64);

impl SignedDur {
    /// Microseconds, negative for what is behind.
    pub fn micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for SignedDur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{}", Dur(Duration::from_micros(self.0.unsigned_abs())))
    }
}

impl<'de> Deserialize<'de> for SignedDur {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        signed_micros(&text).map(SignedDur).map_err(de::Error::custom)
    }
}

impl JsonSchema for SignedDur {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SignedDur".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A length of time such as \"3s\", or with a minus, \"-3s\".",
            "type": "string",
        })
    }
}

impl JsonSchema for ClockSkew {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClockSkew".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Two lengths of time, the earliest and the latest, early ones with a minus.",
            "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2,
        })
    }
}

/// A seeded bug by its number or its name.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct BugChoice(pub String);

impl<'de> Deserialize<'de> for BugChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = BugChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of a seeded bug, such as 4 or \"case-when\"")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<BugChoice, E> {
                Ok(BugChoice(n.to_string()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BugChoice, E> {
                Ok(BugChoice(text.to_owned()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// A switch of the target: `on` or `off`, with or without quotes, or a boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Toggle(pub bool);

impl<'de> Deserialize<'de> for Toggle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Toggle;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"on\" or \"off\"")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Toggle, E> {
                Ok(Toggle(on))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Toggle, E> {
                match text {
                    "on" => Ok(Toggle(true)),
                    "off" => Ok(Toggle(false)),
                    other => Err(E::custom(format!("`{other}` is neither \"on\" nor \"off\""))),
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// Networks that belong to nobody outside (RFC 1918, RFC 6598, RFC 4193): only such may be named as targets.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// A network that load and faults may go to besides this machine: `10.99.0.0/24`.
///
/// # Errors
/// It is no network, or not a private one.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| format!("\"{text}\" is no network"))?;
    let private = PRIVATE.iter().any(|range| range.parse::<IpNet>().is_ok_and(|range| range.contains(&network)));
    if private { Ok(network) } else { Err(format!("\"{text}\" is not a private network")) }
}

/// Where a service is: on this machine, or in one of the networks that the scenario names. Load and faults go nowhere else.
///
/// # Errors
/// What is wrong with it.
pub fn endpoint(text: &str, allowed: &[IpNet]) -> Result<Endpoint, String> {
    let bare = text.trim_start_matches("http://").trim_end_matches('/');
    let numeric = bare.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let no_address = |_| match bare.split_once('/').filter(|_| !bare.starts_with("unix:")) {
        Some((address, path)) => {
            format!(
                "\"{text}\" is an address with a path: give \"{address}\", and let the `path` of each step begin with /{path}"
            )
        }
        None => format!("\"{text}\" is no address"),
    };
    match numeric.as_deref().unwrap_or(bare).parse().map_err(no_address)? {
        Endpoint::Tcp(address) => {
            let named = allowed.iter().any(|network| network.contains(&address.ip()));
            if address.ip().is_loopback() || named {
                Ok(Endpoint::Tcp(address))
            } else {
                Err(format!("\"{text}\" is not this machine"))
            }
        }
        // A socket in the file system is always of this machine.
        socket => Ok(socket),
    }
}

/// A link's name with one spelling of its arrow: `client->service` becomes `client→service`.
pub fn normal_link(text: &str) -> String {
    text.replace("->", "→").split('→').map(str::trim).collect::<Vec<_>>().join("→")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_alike() {
        for text in ["256MiB", "1GiB", "512KiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Size::parse("1024MiB"), Some(Size::mebibytes(1024)));
        for text in ["", "256", "MiB", "-1MiB", "1.5GiB", "1MB", "99999999999GiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
        for bad in ["5", "5 parsecs", "", "-3s", "ms"] {
            assert!(parse_duration(bad).unwrap_err().contains("250ms"), "{bad}");
        }
    }

    #[test]
    fn what_is_left_to_the_seed_stays_within_its_bounds() {
        #[derive(Deserialize)]
        struct Times {
            at: Drawn,
        }
        let read = |text: &str| toml::from_str::<Times>(text).map(|t| t.at).map_err(|e| e.message().to_owned());
        let said = read("at = '8s'").unwrap();
        assert_eq!((said.draw(0.0), said.draw(0.99)), (Dur::millis(8_000), Dur::millis(8_000)));
        let drawn = read("at = ['8s', '10s']").unwrap();
        assert_eq!(
            (drawn.draw(0.0), drawn.draw(0.5), drawn.draw(0.9999)),
            (Dur::millis(8_000), Dur::millis(9_000), Dur::millis(9_999))
        );
        assert!(read("at = ['10s', '8s']").unwrap_err().contains("backwards"));
        for bad in ["at = 8", "at = ['8s']", "at = ['8s', '9s', '10s']"] {
            assert!(read(bad).unwrap_err().contains("[\"8s\", \"10s\"]"), "{bad}");
        }
    }

    #[test]
    fn clocks_are_early_or_late() {
        #[derive(Deserialize, Debug)]
        struct Clocks {
            skew: ClockSkew,
        }
        let read = |text: &str| toml::from_str::<Clocks>(text).map(|c| c.skew).map_err(|e| e.message().to_owned());
        assert_eq!(read("skew = ['-800ms', '+1s']").unwrap(), ClockSkew { least_us: -800_000, most_us: 1_000_000 });
        assert!(read("skew = ['800ms', '-800ms']").unwrap_err().contains("earliest to the latest"));
        assert!(read("skew = ['-800', '1s']").unwrap_err().contains("`800` is not a duration"));
        assert!(read("skew = ['1s']").is_err() && read("skew = '1s'").is_err());
        let one = |text: &str| signed_micros(text).map(SignedDur);
        assert_eq!(one("-1500ms").unwrap().to_string(), "-1500ms");
        assert_eq!((one("+2s").unwrap().micros(), one("2s").unwrap().to_string().as_str()), (2_000_000, "+2s"));
        assert!(one("--2s").is_err() && one("2").is_err());
    }

    #[test]
    fn only_this_machine_and_private_networks_that_are_named_are_targets() {
        let at = |text: &str| endpoint(text, &[]);
        assert!(at("http://localhost:8080/").is_ok() && at("[::1]:80").is_ok() && at("unix:/run/shop.sock").is_ok());
        assert!(at("10.0.0.7:80").unwrap_err().contains("not this machine"));
        assert!(at("shop.example").unwrap_err().contains("no address"));
        assert!(at("127.0.0.1:99999").is_err());
        let lab = [network("10.99.0.0/24").unwrap()];
        assert!(endpoint("10.99.0.7:80", &lab).is_ok());
        assert!(endpoint("10.98.0.7:80", &lab).unwrap_err().contains("not this machine"));
        for open in ["0.0.0.0/0", "8.8.8.0/24", "10.0.0.0/7", "::/0"] {
            assert!(network(open).unwrap_err().contains("not a private network"), "{open}");
        }
        assert!(network("10.99.0.1:80").unwrap_err().contains("no network"));
        assert!(network("fd00:1::/32").is_ok() && network("10.99.0.1/32").is_ok());
    }

    #[test]
    fn links_have_one_spelling() {
        assert_eq!(normal_link("service -> postgres"), "service→postgres");
        assert_eq!(normal_link("service→postgres"), "service→postgres");
    }
}
