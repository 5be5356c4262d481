//! Mistakes in what people give to `seckill`, through the real binary: each must end with the documented exit code and a
//! message that names the place, the key, what is accepted and a remedy; and none may leave anything running.

use std::fs;
use std::os::unix::fs::PermissionsExt;

mod adapters;
mod faults;
use crate::support::{Sandbox, skipped};

const SPIKE: &str = include_str!("../../../scenarios/spike.toml");
const COHORTS: &str = include_str!("../../../scenarios/cohorts.toml");
const DATABASES: &str = include_str!("../../../scenarios/databases.toml");
const FAILOVER: &str = include_str!("../../../scenarios/failover.toml");
const EVENING: &str = include_str!("../../../scenarios/traces/ordinary-evening.csv");

/// A mutated copy of the main scenario.
struct Mistake {
    /// For the failure's message.
    name: &'static str,
    /// What is replaced, once, and by what.
    replace: (&'static str, &'static str),
    /// Part of the line at which the message must point: its number is looked up in the mutated file.
    line: &'static str,
    /// What the message must say: the key or name, what is accepted, the remedy.
    says: &'static [&'static str],
}

/// What can be wrong with who comes, when, and how often they try.
const MISTAKES_OF_COHORTS: &[Mistake] = &[
    Mistake {
        name: "an objective for a step that the cohort does not make",
        replace: ("cohort = \"bystanders\"\nstep = \"order\"", "cohort = \"readers\"\nstep = \"order\""),
        line: "[[slo]]",
        says: &["the cohort \"readers\" does not make the step \"order\"", "one of page, state"],
    },
    Mistake {
        name: "more people than can be planned for",
        replace: ("buyers = 250", "buyers = 4000000000"),
        line: "think = {",
        says: &["`buyers` is 4000000000", "at most 10000000"],
    },
    Mistake {
        name: "more arrivals than can be planned for",
        replace: ("{ rate = 60, lasts = \"4s\" }", "{ rate = 10000000.0, lasts = \"100m\" }"),
        line: "step = {",
        says: &["arrivals; one kind of arrivals has at most 500000000"],
    },
    Mistake {
        name: "a level without length",
        replace: ("{ rate = 60, lasts = \"4s\" }", "{ rate = 60, lasts = \"0s\" }"),
        line: "step = {",
        says: &["load: `levels.lasts` is 0s", "longer"],
    },
    Mistake {
        name: "a step without levels",
        replace: ("step = { levels = [{ rate = 30", "step = { levels = [], poisson = true }\n#"),
        line: "step = {",
        says: &["`levels` is empty", "{ rate = 8, lasts = \"5s\" }"],
    },
    Mistake {
        name: "a crowd that goes on for too long",
        replace: ("{ rate = 60, lasts = \"4s\" }", "{ rate = 60, lasts = \"40s\" }"),
        line: "step = {",
        says: &["load: these arrivals go on after load.duration (10s)", "shorten `lasts`"],
    },
    Mistake {
        name: "people who cannot be meant",
        replace: ("median = \"1s\", sigma = 0.6, lasts", "median = \"1s\", sigma = 12, lasts"),
        line: "think = { buyers",
        says: &["`sigma` is 12", "from 0.01", "to 3"],
    },
    Mistake {
        name: "people who are given no time",
        replace: ("sigma = 0.6, lasts = \"5s\"", "sigma = 0.6, lasts = \"1ms\""),
        line: "think = { buyers",
        says: &["`lasts` is 1ms", "`median` of 1s", "hardly anybody"],
    },
    Mistake {
        name: "nobody to think",
        replace: ("buyers = 250", "buyers = 0"),
        line: "think = { buyers",
        says: &["`buyers` is 0; at least 1"],
    },
    Mistake {
        name: "a trace that stands still",
        replace: ("ordinary-evening.csv\" }", "ordinary-evening.csv\", speed = 0.0 }"),
        line: "speed = 0.0",
        says: &["`speed` is 0", "from 0.001 to 1000"],
    },
    Mistake {
        name: "a cohort that never comes",
        replace: ("share = 100\n", ""),
        line: "[cohort.readers]",
        says: &[
            "cohort \"readers\" has neither `arrivals` nor a `share`",
            "[[cohort.NAME.arrivals]]",
            "[[load.arrivals]]",
        ],
    },
    Mistake {
        name: "a share of less than nothing",
        replace: ("share = 100\n", "share = -1.0\n"),
        line: "[cohort.readers]",
        says: &["cohort \"readers\": `share` is -1", "a weight above 0"],
    },
    Mistake {
        name: "a share of nothing",
        replace: ("[[load.arrivals]]\nstep", "# step"),
        line: "[cohort.writers]",
        says: &["cohort \"writers\" has a `share`", "no common arrivals", "add [[load.arrivals]]"],
    },
    Mistake {
        name: "clocks that are off the wrong way round",
        replace: ("[\"-800ms\", \"800ms\"]", "[\"800ms\", \"-800ms\"]"),
        line: "clock_skew",
        says: &["from the earliest to the latest", "[\"-800ms\", \"800ms\"]"],
    },
    Mistake {
        name: "clocks that are off by one length of time",
        replace: ("[\"-800ms\", \"800ms\"]", "\"1s\""),
        line: "clock_skew",
        says: &["string \"1s\"", "a clock skew, which is two lengths of time: the earliest", "[\"-800ms\", \"800ms\"]"],
    },
    Mistake {
        name: "clocks that are off by a number",
        replace: ("[\"-800ms\", \"800ms\"]", "[-800, 800]"),
        line: "clock_skew",
        says: &["integer `-800`", "expected a string"],
    },
    Mistake {
        name: "a crowd in which nobody comes",
        replace: ("levels = [{ rate = 30", "levels = [{ rate = 0, lasts = \"5s\" }] }\n#"),
        line: "step = {",
        says: &[
            "load: every rate of its `arrivals` is 0, so nobody ever comes",
            "a rate above 0, in arrivals per second",
        ],
    },
    Mistake {
        name: "clocks that make buyers come when all is over",
        replace: ("[\"-800ms\", \"800ms\"]", "[\"-1s\", \"9s\"]"),
        line: "constant = { rate = 40",
        says: &["cohort.skewed: these arrivals", "after load.duration (10s), with the clock_skew"],
    },
    Mistake {
        name: "no attempt at all",
        replace: ("attempts = 12", "attempts = 0"),
        line: "attempts = 0",
        says: &["cohort.stormers.retry.attempts is 0", "the first attempt counts"],
    },
    Mistake {
        name: "a budget of less than nothing",
        replace: ("budget = 0.5", "budget = -0.5"),
        line: "budget = -0.5",
        says: &["load.retry.budget is -0.5", "retries for each first attempt, from 0 to 100"],
    },
    Mistake {
        name: "a jitter beyond the whole",
        replace: ("jitter = 0.0", "jitter = 1.5"),
        line: "jitter = 1.5",
        says: &["cohort.stormers.retry.jitter is 1.5", "a share from 0 to 1"],
    },
    Mistake {
        name: "a thought of no kind",
        replace: ("think = [\"100ms\", \"600ms\"]", "think = 100"),
        line: "think = 100",
        says: &["integer `100`", "a wait: \"2s\"", "{ median = \"2s\", sigma = 0.5 }"],
    },
    Mistake {
        name: "a thought of no length",
        replace: ("think = { median = \"250ms\"", "think = { median = \"0s\""),
        line: "think = { median",
        says: &["cohort \"people\": `think`: `median` is 0s"],
    },
    Mistake {
        name: "a hoarder without end",
        replace: ("times = 4", "times = 40"),
        line: "times = 40",
        says: &["cohort \"hoarders\": 40 walks with 1 orders each", "at most 16 times", "more buyers"],
    },
    Mistake {
        name: "no walk at all",
        replace: ("times = 4", "times = 0"),
        line: "times = 0",
        says: &["`repeat.times` is 0", "the first walk counts"],
    },
    Mistake {
        name: "a token that nobody spends",
        replace: ("double_click = true", "replay_token = true"),
        line: "[cohort.bots]",
        says: &["cohort \"bots\" has `replay_token`", "token = \"${challenge_token}\""],
    },
    Mistake {
        name: "a token that is spent once",
        replace: (
            "[step.order]\nrole = \"order\"\n",
            "[cohort.once]\njourney = [\"login\", \"order\"]\nreplay_token = true\nshare = 1\n\n[step.order]\nrole = \"order\"\ntoken = \"${token}\"\n",
        ),
        line: "[cohort.once]",
        says: &["cohort \"once\" has `replay_token`, and walks only once", "repeat = { times = 3"],
    },
];

/// What can be wrong with faults of a database.
const MISTAKES_OF_DATABASES: &[Mistake] = &[
    Mistake {
        name: "sessions ended faster than they can be made",
        replace: ("every = \"250ms\"", "every = \"1ms\""),
        line: "inject.terminate-backends",
        says: &["fault \"sessions-ended\": `every` is 1ms", "at least 10ms; or leave it out"],
    },
    Mistake {
        name: "more sessions than there are",
        replace: ("share = 0.5", "share = 1.5"),
        line: "inject.terminate-backends",
        says: &["`share` is 1.5", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "no session at all",
        replace: ("share = 0.5", "share = 0.0"),
        line: "inject.terminate-backends",
        says: &["`share` is 0", "a share above 0 and up to 1"],
    },
    Mistake {
        name: "a second time that never comes",
        replace: ("every = \"250ms\"", "every = \"50s\""),
        line: "inject.terminate-backends",
        says: &["`every` is 50s", "so it never comes to that"],
    },
    Mistake {
        name: "the lock of an item that is not for sale",
        replace: ("{ item = 1 }", "{ item = 9 }"),
        line: "inject.lock-row",
        says: &["fault \"hot-row-locked\": there is no item 9", "one of 1"],
    },
    Mistake {
        name: "two things to lock",
        replace: ("{ item = 1 }", "{ item = 1, sql = \"SELECT FROM item FOR UPDATE\" }"),
        line: "inject.lock-row",
        says: &["both `item` and `sql`", "remove one of the two"],
    },
    Mistake {
        name: "nothing to lock",
        replace: ("{ item = 1 }", "{ sql = \" \" }"),
        line: "inject.lock-row",
        says: &["`sql` is empty", "FOR UPDATE"],
    },
    Mistake {
        name: "a service that is asked in SQL",
        replace: ("inject.read-only = {}", "inject.read-only = { role = \"service\" }"),
        line: "inject.read-only",
        says: &["fault \"read-only\": \"service\" is no Postgres", "the databases of this stack are postgres"],
    },
    Mistake {
        name: "a database that is not there",
        replace: ("inject.read-only = {}", "inject.read-only = { role = \"standby\" }"),
        line: "inject.read-only",
        says: &["there is no process \"standby\"", "service, postgres"],
    },
    Mistake {
        name: "connections that are all left",
        replace: ("leave = 1 ", "leave = 1000 "),
        line: "inject.exhaust-connections",
        says: &["`leave` is 1000", "takes 200 connections"],
    },
    Mistake {
        name: "a flood instead of a storm",
        replace: ("megabytes = 8", "megabytes = 8000"),
        line: "inject.checkpoint-storm",
        says: &["`megabytes` is 8000", "from 0 to 64"],
    },
    Mistake {
        name: "a failover without anybody to take over",
        replace: ("inject.read-only = {}", "inject.promote-standby = {}"),
        line: "inject.",
        says: &["is no standby that could be promoted", "standby = \"async\" or \"sync\""],
    },
    Mistake {
        name: "a disk that is nobody's own",
        replace: ("inject.read-only = {}", "inject.disk-full = {}"),
        line: "inject.",
        says: &["\"postgres\" has no disk of its own", "small_disk = \"256MiB\""],
    },
    Mistake {
        name: "a disk that is too small",
        replace: ("pool = 8", "pool = 8\nsmall_disk = \"64MiB\""),
        line: "small_disk",
        says: &["`small_disk` is 64MiB", "from 128MiB"],
    },
    Mistake {
        name: "a disk without a unit",
        replace: ("pool = 8", "pool = 8\nsmall_disk = \"256\""),
        line: "small_disk",
        says: &["`256` is not a size", "KiB, MiB or GiB"],
    },
    Mistake {
        name: "replication of no kind",
        replace: ("pool = 8", "pool = 8\nstandby = \"maybe\""),
        line: "standby",
        says: &["`maybe`", "`async`", "`sync`"],
    },
    Mistake {
        name: "a Redis that is not there",
        replace: ("inject.read-only = {}", "inject.redis-flush = {}"),
        line: "inject.",
        says: &["\"redis\" is no Redis of this stack", "add redis = true"],
    },
    Mistake {
        name: "a strategy without its Redis",
        replace: ("strategy = \"conditional-update\"", "strategy = \"redis-lua\""),
        line: "strategy",
        says: &["the strategy \"redis-lua\" needs a Redis", "add redis = true"],
    },
];

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a captured value with a name that is taken",
        replace: ("capture = { token = \"/token\" }", "capture = { token = \"/token\", user = \"/user\" }"),
        line: "capture = { token",
        says: &["step \"login\"", "`user`", "fills in itself", "user, key, item, quantity are taken"],
    },
    Mistake {
        name: "two phases of one name",
        replace: ("name = \"after\"", "name = \"before\" # again"),
        line: "# again",
        says: &["two phases have the name \"before\"", "its own name"],
    },
    Mistake {
        name: "a fault of two kinds",
        replace: (
            "inject.kill = { role = \"postgres\" }",
            "inject = { kill = { role = \"postgres\" }, pause = { role = \"postgres\" } }",
        ),
        line: "inject = { kill",
        says: &["one kind and not several", "each `inject`"],
    },
    Mistake {
        name: "an event without a type",
        replace: ("[step.time]", "[step.time]\nsse = true\nevent = \"\""),
        line: "[step.time]",
        says: &["step \"time\": `event` is empty", "event = \"message\""],
    },
    Mistake {
        name: "unknown key",
        replace: ("virtual_buyers = 1500", "virtual_byers = 2000"),
        line: "virtual_byers",
        says: &["unknown field `virtual_byers`", "`virtual_buyers`", "correct the key or remove it"],
    },
    Mistake {
        name: "a unit that does not exist",
        replace: ("delay = \"8ms\"", "delay = \"8 bananas\""),
        line: "8 bananas",
        says: &["`8 bananas` is not a duration", "`250ms`", "help:"],
    },
    Mistake {
        name: "bounds for the seed that run backwards",
        replace: ("at = \"8s\"", "at = [\"9s\", \"8s\"]"),
        line: "[\"9s\", \"8s\"]",
        says: &["9s to 8s runs backwards", "shorter one first", "help:"],
    },
    Mistake {
        name: "a chance beyond certainty",
        replace: ("id = \"slow-database\"", "id = \"slow-database\"\nchance = 1.5"),
        line: "[[fault]]",
        says: &["chance of fault \"slow-database\"", "a share from 0 to 1"],
    },
    Mistake {
        name: "nothing wanted",
        replace: ("quantity = 1\n", "quantity = 0\n"),
        line: "[cohort.buyers]",
        says: &["cohort \"buyers\": `quantity` is 0", "at least 1", "tamper"],
    },
    Mistake {
        name: "more connections than the database takes",
        replace: ("pool = 16", "pool = 1000"),
        line: "pool = 1000",
        says: &["`pool` is 1000", "from 1 to 180"],
    },
    Mistake {
        name: "more processes of the access layer than have a name",
        replace: ("pool = 16", "pool = 16\naccess = 9"),
        line: "access = 9",
        says: &["`access` is 9", "from 0 to 8 processes"],
    },
    Mistake {
        name: "payments declined by nobody",
        replace: ("pool = 16", "pool = 16\npayment_declines = 0.1"),
        line: "payment_declines = 0.1",
        says: &["without a payment dependency", "payment = true"],
    },
    Mistake {
        name: "a link of a role that is not there",
        replace: ("link = \"service→postgres\"", "link = \"service→payment\""),
        line: "service→payment",
        says: &["there is no link \"service→payment\"", "client→service, service→postgres"],
    },
    Mistake {
        name: "accounts for nobody",
        replace: ("item = 1\nquantity", "item = 1\nusers = 0\nquantity"),
        line: "users = 0",
        says: &["nonzero", "help:"],
    },
    Mistake {
        name: "a duration without its unit",
        replace: ("at = \"8s\"", "at = 5"),
        line: "at = 5",
        says: &["integer `5`", "a duration with its unit", "\"250ms\"", "help:"],
    },
    Mistake {
        name: "a link that does not exist",
        replace: ("link = \"service→postgres\"", "link = \"service→redis\""),
        line: "service→redis",
        says: &["there is no link \"service→redis\"", "client→service, service→postgres"],
    },
    Mistake {
        name: "a process that does not exist",
        replace: ("role = \"postgres\"", "role = \"redis\""),
        line: "role = \"redis\"",
        says: &["there is no process \"redis\"", "service, postgres"],
    },
    Mistake {
        name: "a process that has no network of its own",
        replace: ("inject.kill = { role = \"postgres\" }", "inject.disconnect = { role = \"postgres\" }"),
        line: "inject.disconnect",
        says: &["`postgres` is a process of this machine", "--stack containers", "black-hole"],
    },
    Mistake {
        name: "an image that cannot be one",
        replace: ("[target.reference]", "[target.reference]\ncontainers = { postgres = \"postgres 17\" }"),
        line: "postgres 17",
        says: &["target.reference.containers.postgres: `postgres 17` is no name of an image", "postgres:17"],
    },
    Mistake {
        name: "`hosts` among containers",
        replace: ("[target.reference]", "[target.reference]\nstack = \"containers\"\nhosts = true"),
        line: "hosts = ",
        says: &["target: `hosts` is not to be had in a stack of containers", "--stack embedded"],
    },
    Mistake {
        name: "`standby` among containers",
        replace: ("[target.reference]", "[target.reference]\nstack = \"containers\"\nstandby = \"async\""),
        line: "standby = ",
        says: &["target: `standby` is not to be had in a stack of containers", "--stack embedded"],
    },
    Mistake {
        name: "`small_disk` among containers",
        replace: ("[target.reference]", "[target.reference]\nstack = \"containers\"\nsmall_disk = \"256MiB\""),
        line: "small_disk = ",
        says: &["target: `small_disk` is not to be had in a stack of containers", "--stack embedded"],
    },
    Mistake {
        name: "an image of Redis that cannot be one",
        replace: ("[target.reference]", "[target.reference]\ncontainers = { redis = \"redis:\" }"),
        line: "redis:",
        says: &["target.reference.containers.redis: `redis:` is no name of an image"],
    },
    Mistake {
        name: "a step without a path",
        replace: ("[step.time]\npath = \"/time\"", "[step.time]"),
        line: "[step.time]",
        says: &["missing field `path`", "add the key here"],
    },
    Mistake {
        name: "a path without its slash",
        replace: ("path = \"/time\"", "path = \"time\""),
        line: "path = \"time\"",
        says: &["step \"time\"", "the path `time`", "a path starts with `/`"],
    },
    Mistake {
        name: "an unknown step in a journey",
        replace: ("\"time\", \"state\", \"order\"", "\"time\", \"stat\", \"order\""),
        line: "journey =",
        says: &["there is no step \"stat\"", "login, lookup, order, page, pay, state, time", "[step.stat]"],
    },
    Mistake {
        name: "an unknown template variable",
        replace: ("Bearer ${token}\", idempotency-key", "Bearer ${tokn}\", idempotency-key"),
        line: "${tokn}",
        says: &["`${tokn}` is no variable", "${user}, ${key}, ${item}, ${quantity}", "capture = { tokn ="],
    },
    Mistake {
        name: "a body that is no JSON",
        replace: ("'{\"quantity\":${quantity}}'", "'{quantity:${quantity}}'"),
        line: "'{quantity:${quantity}}'",
        says: &["the body is not JSON", "key must be a string", "correct the template"],
    },
    Mistake {
        name: "an order without its key",
        replace: (", idempotency-key = '\"${key}\"' }", " }"),
        line: "[step.order]",
        says: &["step \"order\"", "sends no ${key}", "idempotency-key"],
    },
    Mistake {
        name: "a ticket's step that asks about no ticket",
        replace: ("role = \"lookup\"", "role = \"ticket\""),
        line: "path = \"/orders?idempotency_key",
        says: &["step \"lookup\"", "its path has no ${ticket}", "header:location"],
    },
    Mistake {
        name: "a ticket that nobody captured",
        replace: (
            "role = \"lookup\"\npath = \"/orders?idempotency_key=${key}\"",
            "role = \"ticket\"\npath = \"/tickets/${ticket}\"",
        ),
        line: "path = \"/tickets/",
        says: &["`${ticket}` is no variable", "capture = { ticket ="],
    },
    Mistake {
        name: "polling of what is no ticket",
        replace: ("only_unsettled = true", "only_unsettled = true\nevery = \"1s\""),
        line: "[step.lookup]",
        says: &["step \"lookup\"", "`every` is how a ticket is asked about", "role = \"ticket\""],
    },
    Mistake {
        name: "a state of a ticket that means two things",
        replace: (
            "role = \"lookup\"\npath = \"/orders?idempotency_key=${key}\"",
            "role = \"ticket\"\npath = \"/t/${ticket}\"\nreply = { failed = [\"expired\"] }",
        ),
        line: "[step.lookup]",
        says: &["\"expired\" stands twice", "means one thing"],
    },
    Mistake {
        name: "a token that the order does not send",
        replace: ("role = \"order\"", "role = \"order\"\ntoken = \"${challenge}\""),
        line: "token = \"${challenge}\"",
        says: &["`token` is `${challenge}`", "an earlier step captures"],
    },
    Mistake {
        name: "a token that nobody spends",
        replace: ("role = \"lookup\"", "role = \"lookup\"\ntoken = \"${token}\""),
        line: "token = \"${token}\"",
        says: &["step \"lookup\"", "only an order spends a `token`"],
    },
    Mistake {
        name: "a negative rate",
        replace: ("rate = 200", "rate = -200"),
        line: "rate = -200",
        says: &["cohort.buyers: `rate` is -200", "from 0 to 10000000"],
    },
    Mistake {
        name: "arrivals longer than the load",
        replace: ("lasts = \"13s\"", "lasts = \"43s\""),
        line: "lasts = \"43s\"",
        says: &["load.duration (30s)", "shorten `lasts`, or lengthen load.duration"],
    },
    Mistake {
        name: "a fault longer than the load",
        replace: ("lasts = \"3700ms\"", "lasts = \"60s\""),
        line: "[[fault]]",
        says: &["fault \"slow-database\" lasts from 8s for 60s", "load.duration (30s)"],
    },
    Mistake {
        name: "an unknown kind of arrivals",
        replace: ("poisson = {", "gaussian = {"),
        line: "gaussian = {",
        says: &[
            "unknown variant `gaussian`",
            "`constant`, `poisson`, `step`, `ramp`, `spike-decay`, `think`, `trace`",
            "use one of the names",
        ],
    },
    Mistake {
        name: "a text without its end",
        replace: ("name = \"spike\"", "name = \"spike"),
        line: "name = \"spike",
        says: &["this is not TOML", "text values stand in quotes"],
    },
];

#[test]
fn each_mistake_in_a_scenario_is_explained_where_it_is() {
    explained(&Sandbox::new(), SPIKE, MISTAKES);
}

#[test]
fn each_mistake_in_who_comes_is_explained_where_it_is() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("traces")).unwrap();
    sandbox.write("traces/ordinary-evening.csv", EVENING);
    explained(&sandbox, COHORTS, MISTAKES_OF_COHORTS);
}

#[test]
fn each_mistake_in_what_a_database_does_is_explained_where_it_is() {
    explained(&Sandbox::new(), DATABASES, MISTAKES_OF_DATABASES);
}

#[test]
fn a_standby_is_promoted_once() {
    let sandbox = Sandbox::new();
    let again = FAILOVER.replacen(
        "[steady_state]",
        "[[fault]]\nid = \"again\"\nat = \"6s\"\nlasts = \"1s\"\ninject.promote-standby = {}\n\n[steady_state]",
        1,
    );
    sandbox.write("wrong.toml", &again);
    let ended = sandbox.seckill(&["run", "wrong.toml", "--out", "run"]);
    ended.assert_code(2).assert_says(&["fault \"again\"", "promoted more than once", "keep one of these faults"]);
    sandbox.assert_nothing_left();
}

#[test]
fn each_mistake_in_a_trace_is_explained_with_its_line() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("traces")).unwrap();
    sandbox.write("cohorts.toml", COHORTS);
    let number = COHORTS.lines().position(|line| line.starts_with("trace = ")).unwrap() + 1;
    let offsets = |count: u32| (0..count).map(|n| format!("{}\n", n * 10)).collect::<String>();
    let refused = |says: &[&str]| {
        let ended = sandbox.seckill(&["run", "cohorts.toml", "--out", "run"]);
        ended.assert_code(2).assert_says(says);
        ended.assert_says(&[&format!("cohorts.toml:{number}:"), "traces/ordinary-evening.csv", "help:", "offset_ms"]);
        assert!(!sandbox.path("run").exists(), "a run folder was made for nothing");
    };
    refused(&["cannot be read", "No such file or directory", "found from the scenario's folder"]);
    for (text, says) in [
        (format!("offset_ms\n{}soon\n", offsets(15)), "line 17: `soon` is no number"),
        (format!("{}-0.5\n", offsets(0)), "line 1: -0.5 is negative"),
        ("offset_s\n1\n10.2\n".to_owned(), "line 3: this buyer comes at 10200ms, after load.duration (10s)"),
        ("when\n1\n".to_owned(), "line 1: no column of `when` says its unit"),
        (
            "offset_ms\n12\n12,5\n".to_owned(),
            "line 3: `12,5` has 2 columns where one column may be; a decimal is written with a point",
        ),
        ("1st,2nd\n1,2\n".to_owned(), "line 1: `1st,2nd` has 2 columns where one column may be"),
        (String::new(), "there is no arrival in it"),
    ] {
        sandbox.write("traces/ordinary-evening.csv", &text);
        refused(&[says]);
    }
    sandbox.assert_nothing_left();
}

#[test]
fn mistakes_in_faults_are_explained() {
    explained(&Sandbox::new(), faults::NETWORK, faults::MISTAKES);
}

#[test]
fn faults_are_listed_and_unknown_ones_are_not() {
    let sandbox = Sandbox::new();
    let ended = sandbox.seckill(&["faults", "--output", "json"]);
    ended.assert_code(0);
    let all: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let kinds: Vec<&str> = all["faults"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect();
    assert!(kinds.len() > 20 && kinds.contains(&"latency") && kinds.contains(&"kill"), "{kinds:?}");
    let text = sandbox.seckill(&["faults", "slow-close"]).assert_code(0).stdout.clone();
    assert!(
        text.starts_with("slow-close: ") && text.contains("delay      By how much later. (duration, required)"),
        "{text}"
    );
    sandbox.seckill(&["faults", "slow"]).assert_code(2).assert_says(&["no kind of fault \"slow\"", "slow-close"]);
}

/// Makes each mistake by itself, and sees that it is told well.
fn explained(sandbox: &Sandbox, scenario: &str, mistakes: &[Mistake]) {
    for mistake in mistakes {
        let (from, to) = mistake.replace;
        let text = scenario.replacen(from, to, 1);
        assert_ne!(text, scenario, "{}: the scenario no longer has {from}", mistake.name);
        sandbox.write("wrong.toml", &text);
        let ended = sandbox.seckill(&["run", "wrong.toml", "--out", "run"]);
        ended.assert_code(2).assert_says(mistake.says);
        // `line` may stand more than once, for a section: then one of its places must be meant.
        let numbers = (1..).zip(text.lines()).filter(|(_, line)| line.contains(mistake.line));
        let places: Vec<String> = numbers.map(|(number, _)| format!("wrong.toml:{number}:")).collect();
        let at_one = places.iter().any(|place| ended.stderr.contains(place));
        assert!(at_one, "{}: none of {places:?} in\n{}", mistake.name, ended.stderr);
        assert!(ended.stdout.is_empty(), "{}: results are for stdout, complaints are not", mistake.name);
        assert!(!sandbox.path("run").exists(), "{}: a run folder was made for nothing", mistake.name);
    }
    sandbox.assert_nothing_left();
}

#[test]
fn each_mistake_in_an_adapter_is_explained_where_it_is() {
    explained(&Sandbox::new(), adapters::SHOP, adapters::MISTAKES);
}

#[test]
fn several_mistakes_are_told_at_once() {
    let sandbox = Sandbox::new();
    let text = SPIKE.replacen("\"time\", \"state\"", "\"time\", \"stat\"", 1).replacen(
        "role = \"postgres\"",
        "role = \"redis\"",
        1,
    );
    sandbox.write("wrong.toml", &text);
    let ended = sandbox.seckill(&["run", "wrong.toml"]);
    ended.assert_code(2).assert_says(&["no step \"stat\"", "no process \"redis\""]);
}

#[test]
fn a_scenario_that_is_not_there_is_named_with_a_remedy() {
    let sandbox = Sandbox::new();
    let ended = sandbox.seckill(&["run", "nope.toml"]);
    ended.assert_code(2).assert_says(&["cannot read the scenario nope.toml", "help: `ls scenarios/`"]);
    sandbox.assert_nothing_left();
}

#[test]
fn an_override_says_how_it_is_written_and_where_it_went() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    let ended = sandbox.seckill(&["run", "spike.toml", "--set", "target.bug"]);
    ended.assert_code(2).assert_says(&["--set target.bug", "PATH=VALUE", "--set target.reference.pool=16"]);
    let ended = sandbox.seckill(&["run", "spike.toml", "--set", "load.virtual_byers=5"]);
    ended.assert_code(2).assert_says(&["unknown field `virtual_byers`", "after --set load.virtual_byers=5"]);
    let ended = sandbox.seckill(&["run", "spike.toml", "--set", "fault.9.at=1s"]);
    ended.assert_code(2).assert_says(&["--set fault.9.at=1s", "there is no element 9"]);
    sandbox.assert_nothing_left();
}

/// Mistakes in what a step sends and reads, and in how the service is reached.
const PROTOCOLS: &[Mistake] = &[
    Mistake {
        name: "two bodies",
        replace: ("json = '{\"user\":\"${user}\"}'", "json = '{\"user\":\"${user}\"}'\nform = { user = \"${user}\" }"),
        line: "form = { user",
        says: &["step \"login\" has both `json` and `form`", "remove one of the two"],
    },
    Mistake {
        name: "a variable that no form can have",
        replace: ("json = '{\"user\":\"${user}\"}'", "form = { user = \"${nobody}\" }"),
        line: "form = { user",
        says: &["`${nobody}` is no variable", "capture = { nobody ="],
    },
    Mistake {
        name: "a capture from nowhere",
        replace: ("token = \"/token\"", "token = \"token\""),
        line: "token = \"token\"",
        says: &["`token` is captured from `token`", "no place in a reply", "header:etag", "regex:"],
    },
    Mistake {
        name: "a capture from an unknown kind of place",
        replace: ("token = \"/token\"", "token = \"body:x\""),
        line: "body:x",
        says: &["`body:` is no kind of place", "cookie:sid"],
    },
    Mistake {
        name: "a capture by what is no regex",
        replace: ("token = \"/token\"", "token = 'regex:token=([a-z'"),
        line: "regex:token",
        says: &["`token=([a-z` is no regex", "unclosed"],
    },
    Mistake {
        name: "a capture by a regex with two groups",
        replace: ("token = \"/token\"", "token = 'regex:(a)(b)'"),
        line: "regex:(a)(b)",
        says: &["`(a)(b)` has 2 groups", "one value is kept"],
    },
    Mistake {
        name: "a refusal declared a success",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { status = [200, 404] }"),
        line: "check = { status",
        says: &["step \"time\": check: status 404 cannot be declared a success", "from 200 to 399"],
    },
    Mistake {
        name: "no success at all",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { status = [] }"),
        line: "check = { status",
        says: &["step \"time\": check.status is empty, so that no reply could be a success", "status = [200, 303]"],
    },
    Mistake {
        name: "a check of a JSON pointer with a stray tilde",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { json = { \"/a~2b\" = 1 } }"),
        line: "check = { json",
        says: &["`/a~2b` is no JSON pointer", "`~0` stands for a tilde and `~1` for a slash", "\"/state\" = \"open\""],
    },
    Mistake {
        name: "a capture from a JSON pointer with a stray tilde",
        replace: ("token = \"/token\"", "token = \"/a~2b\""),
        line: "token = \"/a~2b\"",
        says: &["`token` is captured from `/a~2b`", "`~0` stands for a tilde", "header:etag"],
    },
    Mistake {
        name: "an order's state at what is no JSON pointer",
        replace: ("path = \"/time\"", "path = \"/time\"\nreply = { state = \"state\" }"),
        line: "reply = { state",
        says: &["step \"time\": reply.state: `state` is no JSON pointer", "\"/order/state\""],
    },
    Mistake {
        name: "a check by what is no regex",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { not_body = '(' }"),
        line: "check = { not_body",
        says: &["step \"time\": check: `(` is no regex", "not_body = \"sorry\""],
    },
    Mistake {
        name: "a check of what is no JSON pointer",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { json = { state = 1 } }"),
        line: "check = { json",
        says: &["`state` is no JSON pointer", "\"/state\" = \"open\""],
    },
    Mistake {
        name: "a check of what is no header",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { header = { \"a b\" = \"x\" } }"),
        line: "check = { header",
        says: &["`a b` is no name of a header", "content-type"],
    },
    Mistake {
        name: "an unknown kind of check",
        replace: ("path = \"/time\"", "path = \"/time\"\ncheck = { text = \"x\" }"),
        line: "check = { text",
        says: &["unknown field `text`", "`not_body`"],
    },
    Mistake {
        name: "an event without a stream",
        replace: ("path = \"/time\"", "path = \"/time\"\nevent = \"open\""),
        line: "[step.time]",
        says: &["step \"time\": `event` is waited for", "add sse = true"],
    },
    Mistake {
        name: "a stream without an event",
        replace: ("path = \"/time\"", "path = \"/time\"\nsse = true"),
        line: "[step.time]",
        says: &["step \"time\": no `event` is named", "event = \"open\""],
    },
    Mistake {
        name: "a stream that is posted",
        replace: ("path = \"/time\"", "path = \"/time\"\nmethod = \"POST\"\nsse = true\nevent = \"open\""),
        line: "[step.time]",
        says: &["step \"time\": a stream of events is asked for with GET", "remove `method`"],
    },
    Mistake {
        name: "an order by events",
        replace: ("role = \"order\"", "role = \"order\"\nsse = true"),
        line: "[step.order]",
        says: &["step \"order\": only a page and a ticket can wait", "role = \"ticket\" and sse = true"],
    },
    Mistake {
        name: "a probe by events",
        replace: ("path = \"/items/${item}/state\"", "path = \"/items/${item}/state\"\nsse = true\nevent = \"open\""),
        line: "step = \"state\"",
        says: &["steady_state: a stream of events is no probe", "answered at once"],
    },
    Mistake {
        name: "an HTTP that is not spoken",
        replace: ("patience = \"1s\"", "patience = \"1s\"\nconnection = { http = \"3\" }"),
        line: "http = \"3\"",
        says: &["unknown variant `3`", "`1.1`", "`2`"],
    },
    Mistake {
        name: "certificates for the reference service",
        replace: ("patience = \"1s\"", "patience = \"1s\"\nconnection = { tls = { verify = false } }"),
        line: "verify = false",
        says: &["load.connection.tls is about external services", "[target.reference] tls = true"],
    },
    Mistake {
        name: "replies cut that nobody can read",
        replace: ("patience = \"1s\"", "patience = \"1s\"\nconnection = { http = \"2\" }"),
        line: "inject.cut-reply",
        says: &["fault \"lost-replies\"", "TLS or HTTP/2", "cut-after-commit"],
    },
    Mistake {
        name: "replies cut that are encrypted",
        replace: ("pool = 16", "pool = 16\ntls = true"),
        line: "inject.cut-reply",
        says: &["fault \"lost-replies\"", "plain HTTP/1.1"],
    },
];

#[test]
fn each_mistake_about_protocols_is_explained_where_it_is() {
    explained(&Sandbox::new(), SPIKE, PROTOCOLS);
    let cookies = SPIKE.replacen("[load]\n", "[load]\ncookies = true\n", 1);
    let twice = Mistake {
        name: "two senders of cookies",
        replace: ("path = \"/time\"", "path = \"/time\"\nheaders = { Cookie = \"a=b\" }"),
        line: "Cookie = \"a=b\"",
        says: &["step \"time\" has a `cookie` header", "load.cookies = false"],
    };
    explained(&Sandbox::new(), &cookies, &[twice]);
}

/// What stands in `load.connection` of an external service, the line that is meant, and what must be said of it.
const CERTIFICATES: &[(&str, &[&str])] = &[
    ("tls = {}", &["load.connection.tls has no `ca`", "verify = false trusts everybody"]),
    ("tls = { ca = \"nowhere.pem\" }", &["cannot read nowhere.pem", "the folder that the harness is started in"]),
    ("tls = { ca = \"empty.pem\" }", &["empty.pem", "there is no certificate in it", "a file in PEM"]),
    ("tls = { ca = \"broken.pem\" }", &["broken.pem", "a file in PEM"]),
    ("tls = { ca = \"empty.pem\", verify = false }", &["has a `ca`, and verifies nothing", "remove `ca`"]),
    ("tls = { verify = false, name = \"a shop\" }", &["\"a shop\" is no name of a server", "shop.example"]),
    ("tls = { verify = maybe }", &["this is not TOML"]),
];

#[test]
fn each_mistake_about_certificates_is_explained_where_it_is() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.pem", "");
    sandbox.write("broken.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    for (connection, says) in CERTIFICATES {
        let text = external("127.0.0.1:1");
        let text = text.replacen("[load]\n", &format!("[load]\nconnection.{connection}\n"), 1);
        let line = text.lines().position(|line| line.contains(connection)).unwrap() + 1;
        sandbox.write("wrong.toml", &text);
        let ended = sandbox.seckill(&["run", "wrong.toml", "--out", "run"]);
        ended.assert_code(2).assert_says(says).assert_says(&[&format!("wrong.toml:{line}:")]);
        assert!(!sandbox.path("run").exists(), "{connection}: a run folder was made for nothing");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn a_service_that_does_not_speak_as_the_scenario_says_is_named_with_its_key() {
    let sandbox = Sandbox::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It hangs up on everybody.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let text = external(&address);
    sandbox.write("x.toml", &text.replacen("[load]\n", "[load]\nconnection.tls = { verify = false }\n", 1));
    let ended = sandbox.seckill(&["run", "x.toml", "--out", "run", "--set", "target.audit=127.0.0.1:1"]);
    ended.assert_code(20).assert_says(&["target.external.audit"]);
    let ended = sandbox.seckill(&["run", "x.toml", "--out", "run2"]);
    ended.assert_code(20).assert_says(&["load.connection", "no TLS", "`ca` must hold"]);
    sandbox.assert_nothing_left();
}

/// `--set`, the key of the place at which the message must point, and what the message must say.
const UNKNOWN_TO_THE_TARGET: &[(&str, &str, &[&str])] = &[
    (
        "target.bug=99",
        "bug = 99",
        &["there is no seeded bug \"99\"", "4=case-when", "leave `bug` out", "after --set target.bug=99"],
    ),
    (
        "target.bug=redelivery-processed-again",
        "bug = \"redelivery-processed-again\"",
        &[
            "the seeded bug 20 (redelivery-processed-again) cannot be planted yet",
            "it needs the message queue",
            "4=case-when",
        ],
    ),
    (
        "target.bug=cache-never-compensated",
        "bug = \"cache-never-compensated\"",
        &["the seeded bug 7 (cache-never-compensated) needs a Redis", "add redis = true"],
    ),
    (
        "target.strategy=magic",
        "strategy = \"magic\"",
        &["there is no strategy \"magic\"", "\"conditional-update\" (One statement deducts"],
    ),
    (
        "target.switches.M999=off",
        "M999 = \"off\"",
        &["there is no switch \"M999\"", "C3 (Expired holds are released by the sweeper)", "K8", "P5"],
    ),
];

#[test]
fn what_the_target_does_not_have_is_a_mistake_in_the_scenario() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    for (set, line, says) in UNKNOWN_TO_THE_TARGET {
        let ended = sandbox.seckill(&["run", "spike.toml", "--set", set, "--out", "run"]);
        ended.assert_code(2).assert_says(says).assert_says(&["spike.toml:", line]);
        assert!(ended.stdout.is_empty(), "{set}: results are for stdout, complaints are not");
        assert!(!sandbox.path("run").exists(), "{set}: a run folder was made for nothing");
        sandbox.assert_nothing_left();
    }
    // Written in the file, it is found at its line.
    let text = SPIKE.replacen("[target.reference]", "[target.reference]\nbug = 98", 1);
    let number = text.lines().position(|line| line == "bug = 98").unwrap() + 1;
    sandbox.write("wrong.toml", &text);
    let ended = sandbox.seckill(&["stack", "up", "wrong.toml"]);
    ended.assert_code(2).assert_says(&[&format!("wrong.toml:{number}:"), "there is no seeded bug \"98\""]);
    sandbox.assert_nothing_left();
}

/// Several `--set`, the place at which the message must point, and what it must say.
const WITHOUT_EFFECT: &[(&[&str], &str, &[&str])] = &[
    (
        &["target.shards=4"],
        "shards = 4",
        &["`shards` is 4, and \"conditional-update\" keeps no stock in shards", "set strategy = \"shards\""],
    ),
    (&["target.redis_aof=always"], "redis_aof = \"always\"", &["`redis_aof` is about a Redis", "add redis = true"]),
    (&["target.redis_replica=true"], "redis_replica = true", &["`redis_replica` is about a Redis", "add redis = true"]),
    (
        &["target.strategy=redis-lua", "target.redis=true", "target.bug=4"],
        "strategy = \"redis-lua\"",
        &[
            "the seeded bug 4 (case-when) is planted in the place of the strategy \"conditional-update\"",
            "\"redis-lua\" would not run",
            "leave `strategy` out",
        ],
    ),
    (
        &["target.strategy=batch", "target.bug=11"],
        "strategy = \"batch\"",
        &["the seeded bug 11 (shard-remainder-stranded)", "set it to \"shards\""],
    ),
    (&["target.bug=25"], "bug = 25", &["needs a payment dependency", "payment_declines = 0.3"]),
    (&["target.bug=14"], "bug = 14", &["needs a standby that may lag behind", "add standby = \"async\""]),
];

#[test]
fn settings_without_effect_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    let run = |sets: &[&str]| {
        let mut arguments = vec!["run", "spike.toml", "--out", "run"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        arguments.push("--dry-run");
        sandbox.seckill(&arguments)
    };
    for (sets, line, says) in WITHOUT_EFFECT {
        run(sets).assert_code(2).assert_says(says).assert_says(&["spike.toml:", line, "help:"]);
    }
    // The same where they have one.
    for sets in [
        &["target.strategy=shards", "target.shards=4"][..],
        &["target.bug=11", "target.shards=4"],
        &["target.bug=7", "target.redis=true", "target.redis_aof=always", "target.redis_replica=true"],
        &["target.bug=23", "target.strategy=redis-lua", "target.redis=true"],
        &["target.bug=25", "target.payment=true"],
        &["target.bug=14", "target.standby=async"],
    ] {
        run(sets).assert_code(0);
    }
    sandbox.assert_nothing_left();
}

#[test]
fn what_the_target_does_not_have_is_told_at_once_with_all_other_mistakes() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", &SPIKE.replacen("role = \"postgres\"", "role = \"redis\"", 1));
    let mut arguments = vec!["run", "spike.toml", "--set", "target.pool=0"];
    for set in ["target.bug=99", "target.strategy=magic", "target.switches.M999=off", "target.switches.X1=on"] {
        arguments.extend(["--set", set]);
    }
    let ended = sandbox.seckill(&arguments);
    ended.assert_code(2).assert_says(&["`pool` is 0", "\"redis\"", "\"99\"", "\"magic\"", "\"M999\"", "\"X1\""]);
}

#[test]
fn a_target_that_is_not_there_is_named_with_the_command_that_builds_it() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    let alone = sandbox.path("seckill");
    // Copied by another process: one that this one writes itself would be "busy" while another test forks meanwhile.
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_seckill")).arg(&alone).status().unwrap();
    assert!(copied.success());
    let output = sandbox.command_of(&alone, &["run", "spike.toml", "--out", "run"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(20), "{said}");
    assert!(said.contains("seckill-target") && said.contains("help: cargo build"), "{said}");
    assert!(!sandbox.path("run").exists());
}

#[test]
fn a_folder_for_temporary_files_that_cannot_be_used_is_told_before_anything_is_started() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    let deep = sandbox.path(&"x".repeat(80));
    fs::create_dir(&deep).unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o711)).unwrap();
    let closed = sandbox.path("closed");
    fs::create_dir_all(closed.join("tmp")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let mut cases = vec![
        (deep, "unix sockets of a run fit only below a path of"),
        (sandbox.path("nowhere"), "No such file or directory"),
    ];
    // Only root gives its Postgres to another user.
    if nix::unistd::geteuid().is_root() {
        cases.push((closed.join("tmp"), "cannot be entered by the user"));
    }
    for (folder, why) in cases {
        let mut command = sandbox.command(&["run", "spike.toml", "--out", "run", "--quiet"]);
        let output = command.env("TMPDIR", &folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(20), "{said}");
        assert!(said.contains(why) && said.contains(folder.to_str().unwrap()), "{said}");
        assert!(said.contains("help: export TMPDIR="), "{said}");
        if folder.exists() {
            assert!(crate::support::files(&folder).is_empty(), "something was left in {}", folder.display());
        }
        assert!(!sandbox.path("run/logs/postgres.log").exists(), "Postgres was started");
    }
}

/// The main scenario against a service that is already running, without faults on processes that are not ours.
fn external(address: &str) -> String {
    let mut text = String::new();
    let mut keep = true;
    for line in SPIKE.lines() {
        match line {
            "[target.reference]" => {
                text.push_str(&format!("[target.external]\naddress = \"{address}\"\n"));
                keep = false;
            }
            "[[fault]]" => keep = false,
            "[[item]]" | "[steady_state]" => keep = true,
            _ => {}
        }
        if keep {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn an_external_target_that_nobody_answers_for_is_named_with_its_key() {
    let sandbox = Sandbox::new();
    // A port for the system's own services, and one that none of them has used for decades.
    let address = "127.0.0.1:1";
    sandbox.write("external.toml", &external(address));
    let ended = sandbox.seckill(&["run", "external.toml", "--out", "run"]);
    ended.assert_code(20).assert_says(&["target.external.address", address, "start the service first"]);
    // With its place in the file.
    ended.assert_says(&["external.toml:", &format!("address = \"{address}\"")]);
    sandbox.assert_nothing_left();
}

#[test]
fn an_external_target_that_is_not_this_machine_is_refused() {
    let sandbox = Sandbox::new();
    // An address that is set aside for documentation: nobody is asked even if the refusal should be broken.
    sandbox.write("external.toml", &external("192.0.2.1:80"));
    let ended = sandbox.seckill(&["run", "external.toml", "--out", "run"]);
    let line = "address = \"192.0.2.1:80\"";
    ended.assert_code(2).assert_says(&[
        "external.toml:",
        line,
        "target.external.address",
        "not this machine",
        "127.0.0.1:8080",
    ]);
    sandbox.write("external.toml", &external("here"));
    let ended = sandbox.seckill(&["run", "external.toml", "--out", "run"]);
    ended.assert_code(2).assert_says(&["\"here\" is no address"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_network_that_is_not_private_cannot_be_allowed() {
    let sandbox = Sandbox::new();
    let allowing = |address: &str, networks: &str| {
        external(address).replace("[target.external]", &format!("[target.external]\nallow = {networks}"))
    };
    sandbox.write("external.toml", &allowing("192.0.2.1:80", "[\"10.99.0.0/24\", \"192.0.2.0/24\"]"));
    let ended = sandbox.seckill(&["run", "external.toml", "--out", "run"]);
    ended.assert_code(2).assert_says(&[
        "external.toml:",
        "\"192.0.2.0/24\" is not a private network",
        "\"192.0.2.1:80\" is not this machine",
        "private networks only, such as \"10.99.0.0/24\"",
        "allow = [\"10.99.0.0/24\"]",
    ]);
    sandbox.write("external.toml", &allowing("10.98.0.1:80", "[\"10.99.0.0\"]"));
    let ended = sandbox.seckill(&["run", "external.toml", "--out", "run"]);
    ended.assert_code(2).assert_says(&["\"10.99.0.0\" is no network", "\"10.98.0.1:80\" is not this machine"]);
    let ended = sandbox.seckill(&["stack", "up", "external.toml", "--listen", "0.0.0.0"]);
    ended.assert_code(2).assert_says(&["--listen", "loopback or in a private network", "10.99.0.1"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_shard_that_cannot_be_driven_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    sandbox.write("external.toml", &external("127.0.0.1:1"));
    sandbox.write("spike.toml", SPIKE);
    let variants = "\n[[variant]]\nname = \"few\"\nset = [\"load.virtual_buyers=10\"]\n";
    sandbox.write("variants.toml", &format!("{}{variants}", external("127.0.0.1:1")));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = |seconds: u64| format!("@{seconds}");
    let soon = at(now + 3_600);
    let refused = |scenario: &str, arguments: &[&str], says: &[&str]| {
        let ended = sandbox.seckill(&[&["run", scenario, "--out", "run"], arguments].concat());
        ended.assert_code(2).assert_says(says);
        assert!(!sandbox.path("run").exists());
    };
    let external = "external.toml";
    refused(external, &["--shard", "1/2"], &["--start-at"]);
    refused(external, &["--start-at", &soon], &["--shard"]);
    for bad in ["0/2", "3/2", "2", "two/three"] {
        refused(external, &["--shard", bad, "--start-at", &soon], &["--shard", bad, "such as 2/4"]);
    }
    for bad in ["tomorrow", "2026-11-22 21:00", "@soon"] {
        let says = ["--start-at", bad, "2026-11-22T21:00:00Z", "@1795381200"];
        refused(external, &["--shard", "1/2", "--start-at", bad], &says);
    }
    refused(
        external,
        &["--shard", "1/2", "--start-at", &at(now - 60)],
        &["--start-at is 6", "s ago", "such as --start-at 20"],
    );
    refused(
        external,
        &["--shard", "1/2", "--start-at", &at(now + 3)],
        &["s ahead, and to get ready takes", "--start-at 20"],
    );
    refused(external, &["--shard", "1/2", "--start-at", &at(now + 100_000)], &["more than 24 hours ahead"]);
    refused(external, &["--shard", "1/2", "--start-at", &soon, "--run-id", "No!"], &["--run-id", "lower-case letters"]);
    let says = ["[target.reference]", "seckill stack up", "[target.external]"];
    refused("spike.toml", &["--shard", "1/2", "--start-at", &soon], &says);
    refused("variants.toml", &["--shard", "1/2", "--start-at", &soon], &["has variants", "--variant"]);
    let ended = sandbox.seckill(&["merge", "nowhere", "--out", "run"]);
    ended.assert_code(2).assert_says(&["nowhere/run.json", "give the folder of a run"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_stack_that_does_not_fit_the_target_is_a_mistake_of_usage() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    let ended = sandbox.seckill(&["run", "spike.toml", "--stack", "external"]);
    ended.assert_code(2).assert_says(&["--stack external does not fit spike.toml", "[target.reference]", "help:"]);
}

#[test]
fn a_run_folder_that_cannot_be_made_is_named_with_a_remedy() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    // A folder below a file cannot be made by anybody, root included.
    sandbox.write("file", "");
    let ended = sandbox.seckill(&["run", "spike.toml", "--out", "file/run"]);
    ended.assert_code(2).assert_says(&["cannot make the run folder file/run", "help:", "--out"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_full_disk_is_named_with_the_file_and_a_remedy() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    fs::create_dir(sandbox.path("run")).unwrap();
    // Every write to this device ends as one to a full disk does.
    std::os::unix::fs::symlink("/dev/full", sandbox.path("run/scenario.toml")).unwrap();
    let ended = sandbox.seckill(&["run", "spike.toml", "--out", "run"]);
    ended.assert_code(1).assert_says(&["run/scenario.toml", "No space left on device", "free some space", "--out"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_folder_that_holds_a_run_is_not_written_over() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    fs::create_dir(sandbox.path("run")).unwrap();
    sandbox.write("run/run.json", "{}");
    let ended = sandbox.seckill(&["run", "spike.toml", "--out", "run"]);
    ended.assert_code(2).assert_says(&["run", "another", "--out", "remove this one"]);
    assert_eq!(crate::support::files(&sandbox.path("run")), ["run.json"], "nothing was written beside it");
    assert_eq!(fs::read(sandbox.path("run/run.json")).unwrap(), b"{}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_folder_that_is_no_run_is_said_to_be_none() {
    let sandbox = Sandbox::new();
    for verb in ["check", "report"] {
        let ended = sandbox.seckill(&[verb, "nowhere"]);
        ended.assert_code(2).assert_says(&["nowhere/", "run"]);
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn a_disk_that_is_nearly_full_is_refused_before_anything_is_started() {
    let sandbox = Sandbox::new();
    sandbox.write("spike.toml", SPIKE);
    // Only root may mount; elsewhere this part is left out, and said to be.
    let small = sandbox.path("small");
    fs::create_dir(&small).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        skipped("a full disk, which only root can make");
        return;
    }
    let ended = sandbox.seckill(&["run", "spike.toml", "--out", "small/run"]);
    let unmounted = std::process::Command::new("umount").arg(&small).status();
    assert!(unmounted.is_ok_and(|status| status.success()), "the test's own disk stays mounted at {}", small.display());
    ended.assert_code(1).assert_says(&["small/run has", "KiB left", "4096 at least", "free some space", "--out"]);
    sandbox.assert_nothing_left();
}
