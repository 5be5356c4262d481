//! The command line: arguments into [`Settings`], and what each command prints.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::bugs::{Bug, Pending};
use crate::config::{Address, Secret, Settings, SwitchSetting, at_least_one, parse_duration};
use crate::deduct::Deduct;
use crate::inventory::{Strategy, Unbuilt};
use crate::slow::{self, Slow};
use crate::store::Limits;
use crate::switches::{SwitchId, Switches};
use crate::{access, payment, process, profile, sell, server, wire};

/// The reference flash-sale service of a rehearsal harness.
#[derive(Debug, Parser)]
#[command(name = "seckill-target", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service. It prints one line of JSON when it is ready.
    Serve(Box<Serve>),
    /// Run a process of the access layer, which answers what it can from memory and passes the rest on to the service.
    Access(access::Options),
    /// Run the payment dependency, which takes money once for each key and keeps its books on disk.
    Payment(payment::Options),
    /// Run the user-profile dependency.
    Profile(profile::Options),
    /// Put one item on sale at a running service, and forget every earlier sale.
    Sell(sell::Options),
    /// List the seeded bugs.
    Bugs {
        /// How to print the list.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Measure what the service's own messages cost in JSON and in Protobuf.
    Messages {
        /// How to print the figures.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// List everything that can be chosen: strategies, when to deduct, switches, seeded bugs.
    Catalogue {
        /// How to print the lists.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Args, Debug)]
struct Serve {
    /// The public listener: `unix:/path` or `127.0.0.1:port`; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    /// The listener for tests, drills and monitoring.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Address,
    /// Speak TLS on the public listener, with certificate.pem and key.pem in this folder; they are made if there are none.
    #[arg(long, value_name = "FOLDER")]
    tls: Option<PathBuf>,
    /// Such as `host=127.0.0.1 port=5432 user=postgres dbname=seckill`.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// Such as `redis://127.0.0.1:6379`, for the strategies that work with Redis.
    #[arg(long, value_name = "URL", value_parser = redis_client)]
    redis_url: Option<redis::Client>,
    /// The payment dependency: `unix:/path` or `127.0.0.1:port`. Without one, an order is paid by saying so.
    #[arg(long, value_name = "ADDR")]
    payment: Option<Address>,
    /// The user-profile dependency. Without one, nothing about a buyer is shown.
    #[arg(long, value_name = "ADDR")]
    profile: Option<Address>,
    /// Connections to the database.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pool_size: usize,
    /// Threads that run the service.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    workers: usize,
    /// How stock is deducted.
    #[arg(long, value_enum, default_value_t)]
    strategy: Strategy,
    /// Shards of each item, for the strategy `shards`.
    #[arg(long, default_value = "16")]
    shards: NonZeroU16,
    /// Buyers of one item that wait at once, for the strategies `item-queue` and `batch`; further ones are told to come back
    /// later. Beyond --max-in-flight it is never reached.
    #[arg(long, default_value_t = 4096, value_parser = at_least_one)]
    queue: usize,
    /// When stock is deducted.
    #[arg(long, value_enum, default_value_t)]
    deduct: Deduct,
    /// Turn a mechanism on or off; may be repeated.
    #[arg(long = "switch", value_name = "ID=on|off")]
    switches: Vec<SwitchSetting>,
    /// Plant a seeded bug, by number or name. Needs --allow-seeded-bugs.
    #[arg(long, value_name = "NUMBER_OR_NAME")]
    bug: Option<Bug>,
    /// Plant a slow-down, such as `sleep=3ms` or `lock=2ms@0.1` for one order in ten; `seckill-target catalogue` lists them.
    /// Needs --allow-seeded-bugs.
    #[arg(long, value_name = "KIND=SIZE")]
    slow: Option<Slow>,
    /// Say that this service is meant to be wrong, or slow.
    #[arg(long)]
    allow_seeded_bugs: bool,
    /// Signs sessions, at least 16 hexadecimal digits; random by default.
    #[arg(long, value_name = "HEX")]
    secret: Option<Secret>,
    /// The file in which refused keys are kept, so that they stay refused after a restart. Without one, only in memory.
    #[arg(long, value_name = "FILE")]
    refusals: Option<PathBuf>,
    /// How long a request may take.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    request_timeout: Duration,
    /// Requests worked on at once; further ones are told to come back later.
    #[arg(long, default_value_t = 8192, value_parser = at_least_one)]
    max_in_flight: usize,
    /// How long a request waits for a database connection.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pool_wait: Duration,
    /// How long a new database connection may take.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// How long the database may take to answer, seen from here. Should exceed --statement-timeout.
    #[arg(long, value_name = "DURATION", default_value = "1500ms", value_parser = parse_duration)]
    query_timeout: Duration,
    /// The database's own limit on a statement.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    statement_timeout: Duration,
    /// The database's own limit on waiting for a lock.
    #[arg(long, value_name = "DURATION", default_value = "800ms", value_parser = parse_duration)]
    lock_timeout: Duration,
    /// How long to wait for the database at startup.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    startup_patience: Duration,
    /// How long requests may take to finish at shutdown.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    drain: Duration,
    /// How often expired holds are looked for.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    sweep_interval: Duration,
    /// Give each request a tracing span with its `traceparent`.
    #[arg(long)]
    trace_requests: bool,
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Access(options) => process::run(options.workers, access::run(options)),
            Command::Payment(options) => process::run(1, payment::run(options)),
            Command::Profile(options) => process::run(1, profile::run(options)),
            Command::Sell(options) => process::run(1, sell::run(options)),
            Command::Bugs { output } => {
                list_bugs(output);
                Ok(())
            }
            Command::Messages { output } => {
                print_messages(output);
                Ok(())
            }
            Command::Catalogue { output } => {
                list_choices(output);
                Ok(())
            }
        }
    }
}

impl Serve {
    fn run(self) -> Result<()> {
        if let Err(complaint) = self.check_bug().and_then(|()| self.check_redis()).and_then(|()| self.check_deduct()) {
            Cli::command().error(ErrorKind::ValueValidation, complaint).exit();
        }
        let settings = self.settings();
        process::run(settings.workers, server::run(settings))
    }

    fn check_redis(&self) -> Result<(), String> {
        let strategy = self.strategy.needs_redis().then(|| format!("the strategy {}", self.strategy));
        let bug = self.bug.filter(|bug| bug.needs_redis()).map(|bug| format!("seeded bug {bug}"));
        match strategy.or(bug).filter(|_| self.redis_url.is_none()) {
            Some(who) => Err(Unbuilt::NeedsRedis(who).to_string()),
            None => Ok(()),
        }
    }

    fn check_deduct(&self) -> Result<(), String> {
        let foreign = self.deduct == Deduct::Payment && self.strategy != Strategy::ConditionalUpdate;
        if foreign {
            return Err(format!(
                "--deduct payment deducts by the conditional update: leave --strategy {} out, or take --deduct hold or order",
                self.strategy
            ));
        }
        Ok(())
    }

    fn check_bug(&self) -> Result<(), String> {
        if let Some(slow) = self.slow.filter(|_| !self.allow_seeded_bugs) {
            return Err(format!(
                "--slow {slow} makes the service slower on purpose; add --allow-seeded-bugs if that is meant"
            ));
        }
        match self.bug {
            None => Ok(()),
            Some(bug) if !self.allow_seeded_bugs => {
                Err(format!("--bug {bug} makes the service wrong on purpose; add --allow-seeded-bugs if that is meant"))
            }
            Some(bug) => match bug.pending() {
                None => self.check_strategy_of(bug),
                Some(Pending(reason)) => Err(format!("seeded bug {bug} is not implemented yet: {reason}")),
            },
        }
    }

    /// A bug that is planted in the place of a strategy, and one that would not run for it. That nobody has asked for another one
    /// cannot be told from asking for the usual one.
    fn check_strategy_of(&self, bug: Bug) -> Result<(), String> {
        match bug.strategy() {
            Some(place) if self.strategy != place && self.strategy != Strategy::default() => Err(format!(
                "seeded bug {bug} is planted in the place of --strategy {place}, and {} would not run: leave --strategy out",
                self.strategy
            )),
            _ => Ok(()),
        }
    }

    fn settings(self) -> Settings {
        Settings {
            limits: Limits {
                pool_size: self.pool_size,
                pool_wait: self.pool_wait,
                connect: self.connect_timeout,
                query: self.query_timeout,
                statement: self.statement_timeout,
                lock: self.lock_timeout,
            },
            listen: self.listen,
            admin_listen: self.admin_listen,
            tls: self.tls,
            database_url: self.database_url,
            redis: self.redis_url,
            payment: self.payment,
            profile: self.profile,
            workers: self.workers,
            strategy: self.strategy,
            shards: self.shards,
            queue: self.queue,
            deduct: self.deduct,
            switches: self.switches,
            bug: self.bug,
            slow: self.slow,
            secret: self.secret,
            refusals: self.refusals,
            request_timeout: self.request_timeout,
            max_in_flight: self.max_in_flight,
            startup_patience: self.startup_patience,
            drain: self.drain,
            sweep_interval: self.sweep_interval,
            trace_requests: self.trace_requests,
        }
    }
}

fn redis_client(url: &str) -> Result<redis::Client, String> {
    redis::Client::open(url).map_err(|error| format!("{error}; expected for example `redis://127.0.0.1:6379`"))
}

fn list_bugs(output: Output) {
    match output {
        Output::Json => println!("{}", bugs()),
        Output::Text => print_bugs(),
    }
}

fn bugs() -> serde_json::Value {
    let bug = |bug: &Bug| {
        let pending = bug.pending().map(|Pending(reason)| reason);
        json!({
            "number": bug.number(),
            "name": bug.name(),
            "implemented": pending.is_none(),
            "pending": pending,
            "needs_redis": bug.needs_redis(),
            "needs_payment": bug.needs_payment(),
            "needs_lagging_standby": bug.needs_lagging_standby(),
            "strategy": bug.strategy().map(|strategy| strategy.to_string()),
        })
    };
    Bug::ALL.iter().map(bug).collect()
}

fn slow_downs() -> serde_json::Value {
    let of = |(kind, meaning, example)| json!({"kind": kind, "meaning": meaning, "example": example});
    slow::KINDS.into_iter().map(of).collect()
}

fn print_bugs() {
    for bug in Bug::ALL {
        let pending = bug.pending().map_or(String::new(), |Pending(reason)| format!("  (pending: {reason})"));
        println!("{:>2}  {}{pending}", bug.number(), bug.name());
    }
}

fn print_messages(output: Output) {
    let costs = wire::measure();
    match output {
        Output::Json => println!("{}", json!(costs)),
        Output::Text => {
            for cost in costs {
                println!(
                    "{:<6} {:<9} {:>4} bytes, encode {:>6.0} ns, decode {:>6.0} ns",
                    cost.message, cost.format, cost.bytes, cost.encode_ns, cost.decode_ns
                );
            }
        }
    }
}

fn list_choices(output: Output) {
    let default = |id: &SwitchId| if Switches::default().is_on(*id) { "on" } else { "off" };
    match output {
        Output::Json => {
            let strategies: Vec<_> = Strategy::value_variants()
                .iter()
                .map(|s| json!({"name": s.to_string(), "meaning": meaning(s), "default": *s == Strategy::default(), "needs_redis": s.needs_redis()}))
                .collect();
            let switches: Vec<_> = SwitchId::ALL
                .iter()
                .map(|id| json!({"id": id.to_string(), "meaning": meaning(id), "default": default(id)}))
                .collect();
            let deduct: Vec<_> = Deduct::value_variants()
                .iter()
                .map(|d| json!({"name": d.to_string(), "meaning": meaning(d), "default": *d == Deduct::default()}))
                .collect();
            let choices = json!({
                "strategies": strategies,
                "deduct": deduct,
                "switches": switches,
                "bugs": bugs(),
                "slow_downs": slow_downs(),
            });
            println!("{choices}");
        }
        Output::Text => {
            println!("strategies");
            for strategy in Strategy::value_variants() {
                println!("    {strategy}  {}", meaning(strategy));
            }
            println!("when stock is deducted");
            for deduct in Deduct::value_variants() {
                println!("    {deduct}  {}", meaning(deduct));
            }
            println!("switches");
            for id in &SwitchId::ALL {
                println!("    {id}  {} (default: {})", meaning(id), default(id));
            }
            println!("seeded bugs");
            print_bugs();
            println!("planted slow-downs");
            for (kind, meaning, example) in slow::KINDS {
                println!("    {kind}  {meaning} (such as {example}; {example}@0.01 for one order in 100)");
            }
        }
    }
}

/// What a value means, in the one line that its comment has for it.
fn meaning(value: &impl ValueEnum) -> String {
    value.to_possible_value().and_then(|known| Some(known.get_help()?.to_string())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_that_can_be_chosen_says_what_it_is() {
        for strategy in Strategy::value_variants() {
            assert!(!meaning(strategy).is_empty(), "{strategy}");
            assert_eq!(strategy.to_possible_value().unwrap().get_name(), strategy.to_string());
        }
        for deduct in Deduct::value_variants() {
            assert!(!meaning(deduct).is_empty(), "{deduct}");
            assert_eq!(deduct.to_possible_value().unwrap().get_name(), deduct.to_string());
        }
        for id in &SwitchId::ALL {
            assert!(!meaning(id).is_empty(), "{id}");
        }
        assert_eq!(SwitchId::value_variants(), SwitchId::ALL, "each switch is in both lists");
    }
}
