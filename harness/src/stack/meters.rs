//! What a service says of itself in its meters, as far as a drill shows it: how far it is degraded, and the state of its breakers.

use std::time::Duration;

use super::StackError;
use super::control::{client_of, unreachable_control};
use crate::fault::proxy::Endpoint;
use crate::scenario::external::ShopMetrics;

/// How long the meters may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The way to the meters.
#[derive(Debug, Clone)]
pub struct Meters {
    client: reqwest::Client,
    url: String,
    names: ShopMetrics,
}

impl Meters {
    /// Meters at an address.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(endpoint: &Endpoint, names: &ShopMetrics) -> Result<Meters, StackError> {
        let (client, base) = client_of(endpoint)?;
        Ok(Meters { client, url: format!("{base}{}", names.place().1), names: names.clone() })
    }

    /// What they say now: `degrade_level`, and `breaker:DEPENDENCY` of each breaker.
    ///
    /// # Errors
    /// They cannot be read within a second.
    pub async fn read(&self) -> Result<Vec<(String, f64)>, StackError> {
        let Meters { client, url, names } = self;
        let reply = client.get(url).timeout(LIMIT).send().await.map_err(|e| unreachable_control(url, &e))?;
        let status = reply.status();
        if !status.is_success() {
            return Err(StackError::Other(format!("GET {url} answered {status}")));
        }
        Ok(read(&reply.text().await.map_err(|e| unreachable_control(url, &e))?, names))
    }
}

/// Reads the text format of OpenMetrics.
fn read(text: &str, names: &ShopMetrics) -> Vec<(String, f64)> {
    let label = format!("{}=\"", names.breaker_label);
    let line = |line: &str| {
        let (name, rest) = line.split_at(line.find(['{', ' '])?);
        let value: f64 = rest.rsplit('}').next()?.split_whitespace().next()?.parse().ok()?;
        if name == names.degrade_level {
            Some(("degrade_level".to_owned(), value))
        } else if name == names.breaker_state {
            let dependency = rest.split(label.as_str()).nth(1)?.split('"').next()?;
            Some((format!("breaker:{dependency}"), value))
        } else {
            None
        }
    };
    // Several instances tell the same thing; the worst of them is what people are to see.
    let mut worst: Vec<(String, f64)> = Vec::new();
    for (name, value) in text.lines().filter_map(line) {
        match worst.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) => *most = most.max(value),
            None => worst.push((name, value)),
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP seckill_degrade_level 0: everything works\nseckill_degrade_level 2\n\
                        seckill_breaker_state{dependency=\"profile\"} 1.0\nseckill_stock_units{state=\"sold\"} 7\n# EOF\n";

    #[test]
    fn meters_are_read_and_others_are_left_alone() {
        let names = ShopMetrics::of_contract("127.0.0.1:1".to_owned());
        assert_eq!(read(TEXT, &names), [("degrade_level".to_owned(), 2.0), ("breaker:profile".to_owned(), 1.0)]);
        assert_eq!(names.place(), ("127.0.0.1:1", "/metrics"));
    }

    #[test]
    fn a_shop_has_names_of_its_own() {
        let names: ShopMetrics = toml::from_str(
            "at = \"http://127.0.0.1:9/m?x=1\"\ndegrade_level = \"shop_lossy\"\nbreaker_state = \"circuit\"\nbreaker_label = \"to\"",
        )
        .unwrap();
        assert_eq!(names.place(), ("127.0.0.1:9", "/m?x=1"));
        let instances = "circuit{name=\"a\",to=\"ads\"} 2\ncircuit{name=\"b\",to=\"ads\"} 0\n";
        let text = format!("shop_lossy 1\n{instances}{TEXT}");
        assert_eq!(read(&text, &names), [("degrade_level".to_owned(), 1.0), ("breaker:ads".to_owned(), 2.0)]);
    }
}
