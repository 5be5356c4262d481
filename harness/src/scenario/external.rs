//! What a scenario says of a service that is not the reference service: where it is, how its books are read, how it is set up,
//! tagged, cleaned up and broken.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::value::{self, Dur};
use crate::fault::proxy::Protocol;

/// The header by which the traffic of a rehearsal is known, unless the scenario names another.
pub const TAG: &str = "x-rehearsal";

/// A service that is already running, or that is started by commands of its own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Where buyers reach it: `127.0.0.1:8080`, or `unix:/path/of/its/socket`.
    #[schemars(with = "String")]
    pub address: Spanned<String>,
    /// The name by which it is asked for, in the `host` header: a shop that serves several names, or none but its own, goes by it. The
    /// name of `load.connection.tls` if absent, or the address.
    #[schemars(with = "Option<String>")]
    pub host: Option<Spanned<String>>,
    /// Where its meters are, for the live page and for the expectations of a drill. Of the reference contract, the audit listener has
    /// them.
    #[schemars(with = "Option<ShopMetrics>")]
    pub metrics: Option<Spanned<ShopMetrics>>,
    /// Where its audit listener is; without one, and without `sql` or `audit_command`, only what the clients saw is judged.
    #[schemars(with = "Option<String>")]
    pub audit: Option<Spanned<String>>,
    /// Where the audit listener of its payment dependency is, whose books are then held against the ledger.
    #[schemars(with = "Option<String>")]
    pub payments: Option<Spanned<String>>,
    /// How long it may take until it answers, where it is started at the same time as the rehearsal, by a compose file say: its
    /// addresses are tried again until then. Without it, each is tried once.
    pub ready_within: Option<Dur>,
    /// Private networks that it may be in, such as `10.99.0.0/24`; without one it has to be on this machine.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<Spanned<String>>,
    /// Its stock and ledger as queries to its Postgres, instead of an audit listener. They are only read.
    #[schemars(with = "Option<ShopSql>")]
    pub sql: Option<Spanned<ShopSql>>,
    /// A command that prints its stock and ledger as one JSON object, `{"stock": [...], "ledger": [...]}`, instead of an audit
    /// listener: for any other database.
    #[schemars(with = "Option<Vec<String>>")]
    pub audit_command: Option<Spanned<Vec<String>>>,
    /// A command that puts the shop into the state that the scenario describes: run before the steady state is probed, with an
    /// opening far ahead, and again with the real times. Its environment has them. Without it, and without an audit listener, the
    /// sale is taken as it is, and `opens_at` and the rest of the items have to be true.
    #[schemars(with = "Option<Vec<String>>")]
    pub setup: Option<Spanned<Vec<String>>>,
    /// What takes the traces of a rehearsal out of the shop.
    #[schemars(with = "Option<Cleanup>")]
    pub cleanup: Option<Spanned<Cleanup>>,
    /// The header of every request, with the run's id as its value, by which the shop can tell a rehearsal's traffic;
    /// `x-rehearsal` if absent, none if empty.
    #[schemars(with = "Option<String>")]
    pub tag: Option<Spanned<String>>,
    /// Its processes, by the role that faults name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, ShopProcess>")]
    pub process: BTreeMap<String, Spanned<ShopProcess>>,
    /// Links behind the service, by their names: `"service→postgres"`. A proxy listens on each, and the shop has to be told to go
    /// there.
    #[serde(default, deserialize_with = "by_normal_names")]
    #[schemars(with = "BTreeMap<String, ShopLink>")]
    pub link: BTreeMap<String, Spanned<ShopLink>>,
}

/// Queries to the shop's own Postgres. Both are read from one snapshot. A `$1` in them is the prefix of the run's users.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopSql {
    /// Where it is: `postgres://user@127.0.0.1:5432/shop`, on this machine or in a network that `allow` names. A password
    /// stands in the environment, as PGPASSWORD.
    #[schemars(with = "String")]
    pub url: Spanned<String>,
    /// One row for each item, with the columns `item` and `available`, and `initial`, `held` and `sold` where the shop has them.
    #[schemars(with = "String")]
    pub stock: Spanned<String>,
    /// One row for each thing that happened to an order, with the columns `seq`, `at`, `kind`, `order`, `item`, `user` and
    /// `quantity`, and `amount_cents`, `key`, `state`, `reason` and `expires_at` where the shop has them.
    #[schemars(with = "String")]
    pub ledger: Spanned<String>,
}

/// Meters in the text format of Prometheus or OpenMetrics, and what those that matter here are called.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopMetrics {
    /// Where they are: `127.0.0.1:9100/metrics`; the path is `/metrics` unless given.
    pub at: String,
    /// How far it is degraded, from 0 on.
    #[serde(default = "ShopMetrics::degrade_level")]
    pub degrade_level: String,
    /// The state of a breaker: 0 is closed.
    #[serde(default = "ShopMetrics::breaker_state")]
    pub breaker_state: String,
    /// The label that says before which dependency.
    #[serde(default = "ShopMetrics::breaker_label")]
    pub breaker_label: String,
}

impl ShopMetrics {
    fn degrade_level() -> String {
        "seckill_degrade_level".to_owned()
    }

    fn breaker_state() -> String {
        "seckill_breaker_state".to_owned()
    }

    fn breaker_label() -> String {
        "dependency".to_owned()
    }

    /// Those of the contract, at an address.
    pub fn of_contract(at: String) -> ShopMetrics {
        let (degrade_level, breaker_state) = (Self::degrade_level(), Self::breaker_state());
        ShopMetrics { at, degrade_level, breaker_state, breaker_label: Self::breaker_label() }
    }

    /// Its address, and its path with the slash.
    pub fn place(&self) -> (&str, &str) {
        let bare = self.at.trim_start_matches("http://");
        match bare.find('/').filter(|_| !bare.starts_with("unix:")) {
            Some(slash) => bare.split_at(slash),
            None => (bare, "/metrics"),
        }
    }
}

/// What is run at the end, whatever the end was.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cleanup {
    /// Takes the traces of the run away; its environment has the run's id and the prefix of its users.
    pub command: Vec<String>,
    /// Ends with 0 if nothing is left. Without it, that the command ended with 0 has to do.
    pub verify: Option<Vec<String>>,
}

/// A process of the shop that faults may break: one that `start` starts, one that a file names, or a container.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShopProcess {
    /// The command that it is, or with `pid_file` the one that starts it and ends.
    pub start: Option<Vec<String>>,
    /// A command that ends it in order; SIGTERM unless given.
    pub stop: Option<Vec<String>>,
    /// A command that kills it; SIGKILL to it and its descendants unless given.
    pub kill: Option<Vec<String>>,
    /// The file in which it writes its process id, where it runs in the background.
    pub pid_file: Option<String>,
    /// The name of the container that it is, of this machine's Docker engine.
    pub container: Option<String>,
    /// The address that answers when it does its work; that of the service if absent.
    pub ready: Option<String>,
    /// How long it may take until it does; 20s if absent.
    pub within: Option<Dur>,
}

/// A link between two parts of the shop, with our proxy on it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShopLink {
    /// Where the proxy listens, on this machine: the address that the caller is told.
    pub listen: String,
    /// Where it leads to.
    pub upstream: String,
    /// What passes there.
    #[serde(default)]
    pub protocol: Speaks,
}

/// What passes over a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Speaks {
    /// HTTP/1.1.
    Http,
    /// The protocol of Postgres.
    Postgres,
    /// That of Redis.
    Redis,
    /// Anything else.
    #[default]
    Opaque,
}

impl Speaks {
    /// As the proxy knows it.
    pub fn protocol(self) -> Protocol {
        match self {
            Speaks::Http => Protocol::Http,
            Speaks::Postgres => Protocol::Postgres,
            Speaks::Redis => Protocol::Redis,
            Speaks::Opaque => Protocol::Opaque,
        }
    }
}

/// Links by the one spelling of their names.
fn by_normal_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Spanned<ShopLink>>, D::Error> {
    let mut links = BTreeMap::new();
    for (name, link) in BTreeMap::<String, Spanned<ShopLink>>::deserialize(deserializer)? {
        if links.insert(value::normal_link(&name), link).is_some() {
            return Err(de::Error::custom(format!("the link \"{name}\" stands twice")));
        }
    }
    Ok(links)
}

impl External {
    /// The networks that it may be in.
    pub fn allowed(&self) -> Vec<IpNet> {
        self.allow.iter().filter_map(|text| value::network(text.get_ref()).ok()).collect()
    }

    /// Whether something tells what the service kept.
    pub fn has_books(&self) -> bool {
        self.audit.is_some() || self.sql.is_some() || self.audit_command.is_some()
    }

    /// Whether the service is told its stock, window and limits before the run.
    pub fn is_set_up(&self) -> bool {
        self.audit.is_some() || self.setup.is_some()
    }

    /// The header that tags the traffic, if there is one.
    pub fn tag(&self) -> Option<&str> {
        let named = self.tag.as_ref().map_or(TAG, |tag| tag.get_ref());
        (!named.is_empty()).then_some(named)
    }
}

/// Hosts of a Postgres as a URL gives them, each of which has to be of this machine or of a network that is named.
///
/// # Errors
/// What is wrong with the URL.
pub fn postgres(url: &str, allowed: &[IpNet]) -> Result<tokio_postgres::Config, String> {
    use tokio_postgres::config::Host;
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|error| format!("no address of a Postgres: {error}"))?;
    if config.get_hosts().is_empty() {
        return Err("it names no host".to_owned());
    }
    for host in config.get_hosts() {
        let Host::Tcp(name) = host else { continue };
        let at = if name.contains(':') { format!("[{name}]:1") } else { format!("{name}:1") };
        value::endpoint(&at, allowed).map_err(|_| format!("`{name}` is not this machine"))?;
    }
    // What it connects to, whatever the host is called.
    for address in config.get_hostaddrs() {
        let at = std::net::SocketAddr::new(*address, 1).to_string();
        value::endpoint(&at, allowed).map_err(|_| format!("`{address}` is not this machine"))?;
    }
    if config.get_password().is_some() {
        return Err(
            "it has a password, and every run's folder has a copy of the scenario: give it as PGPASSWORD instead"
                .to_owned(),
        );
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        config.password(password);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_somebody_else_is_no_target() {
        for url in ["postgres://shop@127.0.0.1:5432/shop", "postgres://[::1]/shop", "host=/run/postgresql user=shop"] {
            assert!(postgres(url, &[]).is_ok(), "{url}");
        }
        for (url, why) in [
            ("postgres://shop@192.0.2.7/shop", "`192.0.2.7` is not this machine"),
            ("postgres://shop@db.example/shop", "`db.example` is not this machine"),
            ("postgres://shop@127.0.0.1,10.9.9.9/shop", "`10.9.9.9` is not this machine"),
            ("host=127.0.0.1 hostaddr=192.0.2.7 user=shop", "`192.0.2.7` is not this machine"),
            ("host=localhost,localhost hostaddr=127.0.0.1,2001:db8::7 user=shop", "`2001:db8::7` is not this machine"),
            ("postgres://shop:s3cret@127.0.0.1/shop", "give it as PGPASSWORD"),
            ("host=/run/postgresql user=shop password = 'two words'", "give it as PGPASSWORD"),
            ("user=shop", "names no host"),
            ("mysql://shop", "no address of a Postgres"),
        ] {
            let error = postgres(url, &[]).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
        assert!(postgres("postgres://shop@10.9.9.9/shop", &[value::network("10.9.9.0/24").unwrap()]).is_ok());
    }
}
