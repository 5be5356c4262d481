//! The stack with its databases in containers: the same rehearsal, the same faults, the same verdicts; and nothing is left of it.
//! Where no Docker engine answers, each of these is skipped, and says so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Room, Sandbox, skipped, wait_for};

/// What a container can suffer, each by itself. An engine on a busy machine takes its time over a command, and a fault that takes
/// effect in the second half of its time has missed it.
const FAULTS: &str = r#"
[[fault]]
id = "dead-database"
at = "1500ms"
lasts = "2s"
inject.kill = { role = "postgres" }

[[fault]]
id = "stopped-database"
at = "4s"
lasts = "2s"
inject.pause = { role = "postgres" }

[[fault]]
id = "unplugged-database"
at = "6500ms"
lasts = "2s"
inject.disconnect = { role = "postgres" }

[[fault]]
id = "sessions-ended"
at = "9200ms"
lasts = "1s"
inject.terminate-backends = { every = "100ms" }

[[fault]]
id = "hot-row-locked"
at = "10800ms"
lasts = "1s"
inject.lock-row = {}

"#;

/// A sale from Redis, in which everything happens to both databases that can happen to a container: to Redis on the one side, to
/// Postgres on the other. In the end Redis is emptied, its replica takes over, and the new one is killed.
const BOTH: &str = include_str!("../../../scenarios/redis.toml");
/// Each with how long it lasts. One after the other, since an engine that is busy takes its time.
const TO_REDIS: [(&str, &str, &str); 5] = [
    ("redis-killed", "1200ms", "kill = { role = \"redis\" }"),
    ("redis-paused", "1200ms", "pause = { role = \"redis\" }"),
    ("redis-unplugged", "1200ms", "disconnect = { role = \"redis\" }"),
    ("redis-stopped", "2500ms", "stop = { role = \"redis\", within = \"500ms\" }"),
    ("redis-throttled", "1200ms", "throttle = { role = \"redis\", cpus = 0.02 }"),
];
const TO_POSTGRES: [(&str, &str, &str); 7] = [
    ("postgres-throttled", "1200ms", "throttle = { role = \"postgres\", cpus = 0.03 }"),
    ("read-only", "1200ms", "read-only = {}"),
    ("no-connections", "4s", "exhaust-connections = {}"),
    ("checkpoints", "1200ms", "checkpoint-storm = {}"),
    ("postgres-stopped", "1200ms", "stop = { role = \"postgres\" }"),
    ("crash-loop", "1500ms", "crash-loop = { role = \"postgres\", every = \"400ms\" }"),
    ("rolling-restart", "1200ms", "rolling-restart = { role = \"postgres\" }"),
];
/// After them, when nobody buys any more: replication is asynchronous, so what was sold a moment ago might be lost.
const IN_THE_END: [(&str, &str, &str); 2] = [
    ("redis-failover", "1200ms", "promote-replica = {}"),
    ("new-redis-killed", "1200ms", "kill = { role = \"redis\" }"),
];

fn both() -> String {
    let mut faults = String::new();
    let last = TO_POSTGRES[TO_POSTGRES.len() - 1].0;
    // Postgres has nothing to do, and so nothing to be kept from, while there is no Redis to sell from: it is throttled before.
    let throttled = TO_POSTGRES[0].0;
    for (first, chain) in [(throttled, &TO_REDIS[..]), ("", &TO_POSTGRES[..]), (last, &IN_THE_END[..])] {
        let mut before = first;
        for (id, lasts, inject) in chain {
            let delay = if before == last { "1s" } else { "200ms" };
            let when = match before {
                "" => "at = \"1500ms\"".to_owned(),
                other => format!("after = {{ healed = \"{other}\", delay = \"{delay}\", by = \"38s\" }}"),
            };
            faults.push_str(&format!("[[fault]]\nid = \"{id}\"\n{when}\nlasts = \"{lasts}\"\ninject.{inject}\n\n"));
            before = id;
        }
    }
    let (before, rest) = BOTH.split_once("[[fault]]").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    let mut text = format!("{before}{faults}[steady_state]{after}");
    for (from, to) in [
        // It ends as soon as nobody buys any more and all faults are healed.
        ("duration = \"14s\"", "duration = \"45s\""),
        ("lasts = \"11s\"", "lasts = \"8s\""),
        ("request_timeout = \"2s\"", "request_timeout = \"1s\""),
        ("stock = 420", "stock = 120"),
    ] {
        assert!(text.contains(from), "the scenario no longer has {from}");
        text = text.replacen(from, to, 1);
    }
    text
}

/// The short rehearsal, a little longer and with other faults; none of them where they are not wanted.
fn scenario(faults: &str) -> String {
    let short = include_str!("support/short.toml");
    assert!(short.contains("duration = \"7s\"") && short.contains("lasts = \"7s\""), "it has another length now");
    let short = short.replace("\"7s\"", "\"12s\"");
    let (before, rest) = short.split_once("[[fault]]").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    format!("{before}{faults}[steady_state]{after}")
}

fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether there is an engine, with the images that `make images` makes. They are made once, and then kept.
fn ready() -> Option<Room> {
    static IMAGE: OnceLock<Result<(), String>> = OnceLock::new();
    let made = IMAGE.get_or_init(|| {
        docker(&["version"])?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = Path::new(env!("CARGO_BIN_EXE_seckill")).parent().and_then(Path::parent).unwrap();
        let mut command = Command::new("sh");
        command.arg("ci/image/databases.sh").current_dir(root).env("CARGO_TARGET_DIR", target);
        let output = command.output().unwrap();
        assert!(output.status.success(), "ci/image/databases.sh: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
    match made {
        Ok(()) => Some(Room::for_rehearsals(2)),
        Err(why) => {
            skipped(&format!("no Docker engine ({})", why.trim()));
            None
        }
    }
}

/// What the engine has of the runs of this sandbox, which are called like their private folders.
fn left_in_engine(runs: &[String]) -> String {
    let of = |run: &String| {
        let label = format!("label=seckill.run={run}");
        let containers = docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]).unwrap();
        containers + &docker(&["network", "ls", "--filter", &label, "--format", "{{.Name}}"]).unwrap()
    };
    runs.iter().map(of).collect()
}

fn runs_in(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.tmp()).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|n| n.starts_with("seckill-"))
        .collect()
}

#[test]
fn a_rehearsal_passes_on_containers_that_are_killed_paused_and_cut_off() {
    let Some(_room) = ready() else { return };
    let sandbox = Sandbox::new();
    // There is enough of it: the lock of a row that nobody wants any more would hit nobody.
    let plenty = scenario(FAULTS).replace("stock = 80", "stock = 500").replace("sell_out = true", "sell_out = false");
    sandbox.write("scenario.toml", &plenty);
    let ended = sandbox.seckill(&["run", "scenario.toml", "--stack", "containers", "--out", "run", "--output", "json"]);
    ended.assert_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let faults = summary["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 5);
    for fault in faults {
        assert!(fault["error"].is_null() && fault["recovered_at_ms"].is_number(), "{fault:#}");
        assert!(fault["hit"].as_str().is_some_and(|hit| !hit.starts_with('0')), "{fault:#}");
    }
    let cost = &summary["cost"];
    assert!(cost["cpu_s"]["postgres"].as_f64() > Some(0.0), "{cost:#}");
    assert!(cost["rss_peak_bytes"]["postgres"].as_u64() > Some(1 << 20), "{cost:#}");
    assert!(cost["wal_bytes_per_order"].as_f64() > Some(100.0), "{cost:#}");
    assert!(summary["notes"].to_string().contains("in a container of the image"), "{}", summary["notes"]);
    let log = fs::read_to_string(sandbox.path("run/logs/postgres.log")).unwrap();
    let starts = log.matches("database system is ready to accept connections").count();
    assert_eq!(starts, 2, "the log of all that the container lived through, once:\n{log}");
    assert!(log.contains("database system was interrupted"), "it was no kill:\n{log}");
    sandbox.assert_nothing_left();
    let id: Value = serde_json::from_str(&fs::read_to_string(sandbox.path("run/run.json")).unwrap()).unwrap();
    assert_eq!(left_in_engine(&[format!("seckill-{}", id["run_id"].as_str().unwrap())]), "");
    // It says in its folder on what it was run, and is judged there like any other.
    let resolved = fs::read_to_string(sandbox.path("run/scenario.toml")).unwrap();
    assert!(resolved.contains("stack = \"containers\""), "{resolved}");
    sandbox.seckill(&["check", "run"]).assert_code(0);
}

#[test]
fn a_sale_from_redis_passes_on_containers_whatever_happens_to_them() {
    let Some(_room) = ready() else { return };
    if let Err(missing) = harness::doctor::find_redis() {
        return skipped(&missing.to_string());
    }
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", &both());
    let mut arguments = vec!["run", "scenario.toml", "--stack", "containers", "--out", "run", "--output", "json"];
    arguments.extend(["--set", "load.send_lag_limit=3s", "--set", "steady_state.within=2s"]);
    let ended = sandbox.seckill(&arguments);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    // How much was under way when the engine had obeyed at last is left to chance, so that I11 may find too little of it.
    for invariant in summary["invariants"].as_array().unwrap().iter().filter(|found| found["id"] != "I11") {
        assert_eq!(invariant["verdict"], "pass", "{invariant:#}");
    }
    let faults = summary["faults"].as_array().unwrap();
    assert_eq!(faults.len(), TO_REDIS.len() + TO_POSTGRES.len() + IN_THE_END.len());
    for fault in faults {
        assert!(fault["error"].is_null() && fault["healed_at_ms"].is_number(), "{fault:#}");
        assert!(fault["hit"].as_str().is_some_and(|hit| !hit.starts_with('0')), "{fault:#}");
    }
    let hit = |id: &str| faults.iter().find(|fault| fault["id"] == id).unwrap()["hit"].as_str().unwrap();
    for throttled in ["redis-throttled", "postgres-throttled"] {
        let said = hit(throttled);
        assert!(said.contains("limited by the engine; throttled in"), "{said}");
    }
    assert!(!hit("postgres-throttled").contains("throttled in 0 of"), "{}", hit("postgres-throttled"));
    assert!(hit("crash-loop").contains("times"), "{}", hit("crash-loop"));
    assert_eq!(hit("rolling-restart"), "1 of 1 restarted");
    assert_eq!(hit("new-redis-killed"), "1 process killed", "the one that had taken over");
    for role in ["redis", "redis-replica"] {
        assert!(summary["cost"]["cpu_s"][role].as_f64() > Some(0.0), "{:#}", summary["cost"]);
    }
    let commands =
        summary["links"].as_array().unwrap().iter().find(|link| link["to"] == "redis" && link["from"] == "service");
    assert!(commands.unwrap()["calls"].as_u64() > Some(100), "{:#}", summary["links"]);
    sandbox.assert_nothing_left();
    assert_eq!(left_in_engine(&[format!("seckill-{}", summary["run_id"].as_str().unwrap())]), "");
}

#[test]
fn a_seeded_bug_is_convicted_there_as_well() {
    let Some(_room) = ready() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", &scenario(""));
    let ended = sandbox.seckill(&["run", "scenario.toml", "--stack", "containers", "--set", "target.bug=4"]);
    ended.assert_code(11);
    assert!(ended.stdout.contains("I1 (no oversell) is violated"), "{}", ended.stdout);
    sandbox.assert_nothing_left();
}

#[test]
fn a_harness_that_is_killed_leaves_no_container() {
    let Some(_room) = ready() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", &scenario(FAULTS));
    let mut started = sandbox.start(&["run", "scenario.toml", "--stack", "containers", "--out", "run"]);
    let history = sandbox.path("run/history");
    wait_for("the first part of the history", Duration::from_secs(120), || {
        assert!(started.is_running(), "{}", fs::read_to_string(sandbox.path("stderr")).unwrap());
        fs::read_dir(&history)
            .is_ok_and(|parts| parts.flatten().any(|p| p.path().extension().is_some_and(|e| e == "parquet")))
    });
    let runs = runs_in(&sandbox);
    assert_eq!(left_in_engine(&runs).lines().count(), 2, "a container and a network of {runs:?}");
    let killed = Instant::now();
    started.kill();
    // The limit only tells late from never; it takes about a second.
    wait_for("the container to be gone", Duration::from_secs(20), || left_in_engine(&runs).is_empty());
    eprintln!("gone after {:?}", killed.elapsed());
    sandbox.wait_until_nothing_left();
    assert_eq!(left_in_engine(&runs), "");
}

#[test]
fn an_image_that_cannot_be_had_is_named_with_the_setting_and_the_remedy() {
    let Some(_room) = ready() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", &scenario(""));
    // Nobody listens there.
    let image = "127.0.0.1:1/no/postgres:0";
    let set = format!("target.containers.postgres={image}");
    let ended = sandbox.seckill(&["run", "scenario.toml", "--stack", "containers", "--set", &set]);
    ended.assert_code(20);
    ended.assert_says(&[
        &format!("the image {image} is not on"),
        "target.reference.containers.postgres",
        "`make images`",
    ]);
    sandbox.assert_nothing_left();
}

#[test]
fn without_an_engine_it_says_how_to_get_one() {
    let sandbox = Sandbox::new();
    sandbox.write("scenario.toml", &scenario(""));
    let mut command = sandbox.command(&["run", "scenario.toml", "--stack", "containers"]);
    command.env("DOCKER_HOST", format!("unix://{}", sandbox.path("no.sock").display()));
    let ended = assert_cmd::Command::from_std(command).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(20), "{said}");
    for part in ["containers need a Docker engine, and none answers", "DOCKER_HOST="] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    sandbox.assert_nothing_left();
}
