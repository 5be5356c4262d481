//! Settings, parsed once from the command line into types that cannot be wrong later.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::bugs::Bug;
use crate::deduct::Deduct;
use crate::inventory::Strategy;
use crate::slow::Slow;
use crate::store::Limits;
use crate::switches::SwitchId;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:8080`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:/path/to/socket`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path after `unix:`".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected `unix:/path/to/socket` or an address such as `127.0.0.1:8080`".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A key for signing sessions.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        match digits {
            Some(digits) if digits.len() >= 16 && digits.len() % 2 == 0 => {
                Ok(Self(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err("expected at least 16 hexadecimal digits, an even number of them".into()),
        }
    }
}

/// `C3=off`, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchSetting {
    /// Which mechanism.
    pub id: SwitchId,
    /// Whether it works.
    pub on: bool,
}

impl FromStr for SwitchSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, on) = text.split_once('=').ok_or("expected `ID=on` or `ID=off`")?;
        let on = match on {
            "on" => true,
            "off" => false,
            other => return Err(format!("`{other}` is neither `on` nor `off`")),
        };
        Ok(Self { id: id.parse()?, on })
    }
}

/// Reads `250ms`, `2s`, `1.5s` or `1m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let complaint = || format!("`{text}` is not a duration above zero such as `250ms`, `1.5s` or `1m`");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(complaint)?;
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(complaint()),
    };
    let number: f64 = number.parse().map_err(|_| complaint())?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| complaint())?;
    if duration.is_zero() { Err(complaint()) } else { Ok(duration) }
}

/// Reads a whole number that is not zero.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

/// Everything that `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public listener.
    pub listen: Address,
    /// The listener for tests, drills and monitoring.
    pub admin_listen: Address,
    /// The folder with the certificate of the public listener, if it speaks TLS.
    pub tls: Option<PathBuf>,
    /// A tokio-postgres connection string.
    pub database_url: String,
    /// The Redis, where the strategy works with one.
    pub redis: Option<redis::Client>,
    /// Where the payment dependency is, if there is one.
    pub payment: Option<Address>,
    /// Where the user-profile dependency is, if there is one.
    pub profile: Option<Address>,
    /// Threads that run the service.
    pub workers: usize,
    /// How stock is deducted.
    pub strategy: Strategy,
    /// Shards of each item, where stock lies in shards.
    pub shards: NonZeroU16,
    /// Buyers of one item that wait at once, where they wait in the service.
    pub queue: usize,
    /// When stock is deducted.
    pub deduct: Deduct,
    /// Mechanisms set other than by default.
    pub switches: Vec<SwitchSetting>,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// A planted slow-down.
    pub slow: Option<Slow>,
    /// Signs sessions.
    pub secret: Option<Secret>,
    /// The file in which refused keys are kept.
    pub refusals: Option<PathBuf>,
    /// Limits on everything that involves the database.
    pub limits: Limits,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How many requests may be worked on at once.
    pub max_in_flight: usize,
    /// How long the database may take to appear at startup.
    pub startup_patience: Duration,
    /// How long requests may take to finish at shutdown.
    pub drain: Duration,
    /// How often expired holds are looked for.
    pub sweep_interval: Duration,
    /// Whether each request gets a tracing span with its `traceparent`.
    pub trace_requests: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in ["unix:/run/a.sock", "127.0.0.1:0", "[::1]:80"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert!("unix:".parse::<Address>().is_err());
        assert!("localhost".parse::<Address>().is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "5", "s", "0s", "-1s", "1h", "1e400s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_hexadecimal() {
        assert_eq!("00ff00ff00ff00ff".parse::<Secret>().unwrap().0, [0, 255, 0, 255, 0, 255, 0, 255]);
        assert!("00ff".parse::<Secret>().is_err());
        assert!("zz".repeat(16).parse::<Secret>().is_err());
    }

    #[test]
    fn switch_settings() {
        assert_eq!("C3=off".parse(), Ok(SwitchSetting { id: SwitchId::C3, on: false }));
        assert!("C3".parse::<SwitchSetting>().is_err());
        assert!("C3=maybe".parse::<SwitchSetting>().is_err());
        assert!("Z9=on".parse::<SwitchSetting>().unwrap_err().contains("C3"));
    }
}
