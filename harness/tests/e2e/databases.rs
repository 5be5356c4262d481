//! Faults of databases, in whole rehearsals through the real binary: a watcher of the test's own looks at the database
//! meanwhile, and must see each fault take effect and go away again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use crate::support::{Room, Sandbox, Started, skipped};

const DATABASES: &str = include_str!("../../../scenarios/databases.toml");

/// What a machine that is busy with other things needs, whatever the scenario.
const PATIENT: &[&str] =
    &["--set", "load.send_lag_limit=3s", "--set", "load.patience=5s", "--set", "steady_state.within=2s"];

/// The folder of the socket by which the run's own Postgres of that role is reached, once it is there.
fn sockets(sandbox: &Sandbox, folder: &str) -> Option<PathBuf> {
    let runs = fs::read_dir(sandbox.tmp()).ok()?.flatten();
    runs.map(|run| run.path().join(folder)).find(|sockets| sockets.join(".s.PGSQL.5432").exists())
}

/// Asks for rows of one column, as somebody whom the faults do not mean.
async fn ask(sockets: &Path, sql: &str) -> Result<Vec<String>, Option<SqlState>> {
    let mut config = Config::new();
    config.host_path(sockets).user("postgres").dbname("postgres").application_name("seckill-harness");
    let code = |error: &tokio_postgres::Error| error.code().cloned();
    let (client, connection) = config.connect(NoTls).await.map_err(|error| code(&error))?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query(sql).await;
    drop(client);
    let _ = connection.await;
    let rows = answer.map_err(|error| code(&error))?;
    let value = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(rows.iter().filter_map(value).collect())
}

/// Looks again and again while a rehearsal runs; gives what was seen after each look that found the database.
fn watch(
    sandbox: &Sandbox,
    started: &mut Started,
    folder: &str,
    sql: &str,
    mut seen: impl FnMut(Result<Vec<String>, SqlState>),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Timers are made within it.
    let _inside = runtime.enter();
    while started.is_running() {
        if let Some(sockets) = sockets(sandbox, folder) {
            let look = tokio::time::timeout(Duration::from_secs(2), ask(&sockets, sql));
            match runtime.block_on(look) {
                Ok(Ok(rows)) => seen(Ok(rows)),
                Ok(Err(Some(code))) => seen(Err(code)),
                // It is not up yet, not up any more, or stopped in its tracks.
                Ok(Err(None)) | Err(_) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

fn summary(run: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(run.join("summary.json")).unwrap()).unwrap()
}

/// Asserts that every fault was injected, healed, and recovered from.
#[track_caller]
fn assert_healed(summary: &Value, faults: &[&str]) {
    let found = summary["faults"].as_array().unwrap();
    for id in faults {
        let fault = found.iter().find(|fault| fault["id"] == *id).unwrap_or_else(|| panic!("no fault {id}"));
        for when in ["injected_at_ms", "healed_at_ms", "recovered_at_ms"] {
            assert!(fault[when].is_number(), "{id} has no {when}: {fault:#}");
        }
    }
}

#[test]
fn a_database_has_its_moods_and_every_order_is_kept() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("databases.toml", DATABASES);
    let mut arguments = vec!["run", "databases.toml", "--out", "run", "--quiet"];
    arguments.extend(PATIENT);
    let mut started = sandbox.start(&arguments);
    let mut sessions = BTreeSet::new();
    let (mut refused, mut read_only, mut locked, mut scratch) = (0, BTreeSet::new(), 0, BTreeSet::new());
    let (mut fewest, mut most) = (u64::MAX, 0);
    let look = "SELECT setting FROM pg_settings WHERE name = 'server_version_num'
        UNION ALL SELECT 'pid ' || pid FROM pg_stat_activity WHERE application_name = 'seckill-target'
        UNION ALL SELECT 'waits' FROM pg_locks WHERE NOT granted
        UNION ALL SELECT 'read-only ' || reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'
        UNION ALL SELECT 'checkpoints ' || checkpoints_req FROM pg_stat_bgwriter
        UNION ALL SELECT 'scratch ' || (to_regclass('seckill_scratch') IS NOT NULL)";
    watch(&sandbox, &mut started, "pg", look, |seen| match seen {
        Err(SqlState::TOO_MANY_CONNECTIONS) => refused += 1,
        Err(_) => {}
        Ok(rows) => {
            for row in rows {
                match row.split_once(' ') {
                    Some(("pid", pid)) => drop(sessions.insert(pid.to_owned())),
                    Some(("read-only", value)) => drop(read_only.insert(value.to_owned())),
                    Some(("scratch", there)) => drop(scratch.insert(there.to_owned())),
                    Some(("checkpoints", count)) => {
                        let count: u64 = count.parse().unwrap();
                        (fewest, most) = (count.min(fewest), count.max(most));
                    }
                    _ if row == "waits" => locked += 1,
                    _ => {}
                }
            }
        }
    });
    let code = started.code();
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    assert_eq!((code, &summary["verdict"]), (Some(0), &Value::from("pass")), "{summary:#}");
    assert_healed(&summary, &["sessions-ended", "hot-row-locked", "no-connections", "read-only", "checkpoints"]);
    // The pool has 8 sessions: more than that are only seen if some were ended.
    assert!(sessions.len() > 12, "sessions of the service were ended, and made anew: {sessions:?}");
    assert!(locked > 3, "the hot row was locked: somebody was seen to wait {locked} times");
    assert!(refused > 3, "connections were refused {refused} times");
    assert_eq!(read_only, BTreeSet::from(["off".to_owned(), "on".to_owned()]));
    // By itself the database makes none in a run as short, and a slow disk takes half a second for one.
    assert!(most >= fewest + 2, "checkpoints from {fewest} to {most}");
    assert_eq!(
        scratch,
        BTreeSet::from(["false".to_owned(), "true".to_owned()]),
        "a scratch table that was dropped again"
    );
}

const FAILOVER: &str = include_str!("../../../scenarios/failover.toml");

/// A failover with that kind of replication; gives its exit code and its summary.
fn failover(replication: &str) -> (Option<i32>, Value) {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("failover.toml", FAILOVER);
    let standby = format!("target.standby={replication}");
    let mut arguments = vec!["run", "failover.toml", "--out", "run", "--quiet", "--set", &standby];
    arguments.extend(PATIENT);
    let mut started = sandbox.start(&arguments);
    let mut in_recovery = Vec::new();
    watch(&sandbox, &mut started, "sb", "SELECT pg_is_in_recovery()", |seen| {
        in_recovery.extend(seen.into_iter().flatten())
    });
    let code = started.code();
    sandbox.assert_nothing_left();
    in_recovery.dedup();
    assert_eq!(in_recovery, ["t", "f"], "the standby followed, and was then promoted");
    let summary = summary(&sandbox.path("run"));
    assert_healed(&summary, &["slow-link-to-the-standby", "failover", "dead-primary"]);
    let log = |role: &str| fs::read_to_string(sandbox.path(&format!("run/logs/{role}.log"))).unwrap();
    let starts = |log: &str| log.matches("ready to accept connections").count();
    assert_eq!(starts(&log("postgres")), 1, "the old primary stays dead:\n{}", log("postgres"));
    assert!(log("standby").contains("was not properly shut down"), "the new one was killed:\n{}", log("standby"));
    (code, summary)
}

fn verdict<'a>(summary: &'a Value, id: &str) -> &'a Value {
    let all = summary["invariants"].as_array().unwrap();
    all.iter().find(|invariant| invariant["id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

#[test]
fn a_synchronous_standby_takes_over_without_losing_an_order() {
    let (code, summary) = failover("sync");
    assert_eq!(code, Some(0), "{summary:#}");
    assert_eq!(summary["verdict"], "pass");
}

#[test]
fn a_standby_that_lagged_takes_over_and_the_orders_it_lacks_are_found_missing() {
    let (code, summary) = failover("async");
    assert_eq!(code, Some(11), "{summary:#}");
    let lost = verdict(&summary, "I2");
    assert_eq!(lost["verdict"], "fail", "{lost:#}");
    assert!(!lost["witness"].as_array().unwrap().is_empty(), "{lost:#}");
}

#[test]
fn a_failover_that_is_given_up_half_way_leaves_the_sale_with_its_old_primary() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    // The primary is dead when the standby, which stands still, is asked to take over; then the run is stopped.
    let faults = "[[fault]]\nid = \"frozen-standby\"\nat = \"1500ms\"\nlasts = \"7s\"\ninject.pause = { role = \"standby\" }\n\n\
                  [[fault]]\nid = \"failover\"\nat = \"2s\"\nlasts = \"1s\"\ninject.promote-standby = {}\n\n";
    let stop = "[[stop]]\nname = \"over\"\np99 = \"1ms\"\nover = \"1s\"\nmin_requests = 1\nfrom = \"5s\"\n\n";
    let (before, rest) = FAILOVER.split_once("[[fault]]").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    sandbox.write("given-up.toml", &format!("{before}{faults}{stop}[steady_state]{after}"));
    let mut arguments = vec!["run", "given-up.toml", "--out", "run", "--quiet", "--set", "target.standby=async"];
    arguments.extend(PATIENT);
    let ended = sandbox.seckill(&arguments);
    sandbox.assert_nothing_left();
    let told = fs::read_to_string(sandbox.path("run/events.jsonl")).unwrap();
    let why = "it could not be injected: the run was stopped before it was in effect\"";
    assert!(told.contains(why), "{told}\n{}", ended.stderr);
    let log = |role: &str| fs::read_to_string(sandbox.path(&format!("run/logs/{role}.log"))).unwrap();
    let (postgres, standby) = (log("postgres"), log("standby"));
    let starts = postgres.matches("database system is ready to accept connections").count();
    assert_eq!(starts, 2, "the old primary was killed and is there again:\n{postgres}");
    assert!(!standby.contains("received promote request"), "{standby}");
    // The books are read from it, and nothing that was acknowledged is missing.
    let summary = summary(&sandbox.path("run"));
    assert_eq!(verdict(&summary, "I2")["verdict"], "pass", "{summary:#}");
    assert!(sandbox.path("run/audit.json").exists());
}

/// `databases.toml` on a small disk, with these faults instead of its own, in a few seconds.
fn on_a_small_disk(faults: &str) -> String {
    let (before, rest) = DATABASES.split_once("[[fault]]").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    let shorter = [
        ("pool = 8", "pool = 8\nsmall_disk = \"192MiB\""),
        ("duration = \"28s\"", "duration = \"9s\""),
        ("lasts = \"25s\"", "lasts = \"6s\""),
    ];
    let mut text = format!("{before}{faults}\n[steady_state]{after}");
    for (from, to) in shorter {
        assert!(text.contains(from), "the scenario no longer has {from}");
        text = text.replacen(from, to, 1);
    }
    text
}

const FULL: &str = "[[fault]]\nid = \"full\"\nat = \"2s\"\nlasts = \"2500ms\"\ninject.disk-full = {}\n";

/// Mounts and loop devices of the sandbox's runs.
fn disks(sandbox: &Sandbox) -> Vec<String> {
    let tmp = fs::canonicalize(sandbox.tmp()).unwrap();
    let tmp = tmp.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(tmp)).map(str::to_owned).collect();
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        found.extend(file.contains(tmp).then(|| format!("{}: {file}", device.path().display())));
    }
    found
}

fn can_mount() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let possible = root && Path::new("/dev/loop-control").exists();
    if !possible {
        skipped("a disk can be mounted here only by root, and where there are loop devices");
    }
    possible
}

#[test]
fn a_full_disk_refuses_orders_and_has_room_again() {
    if !can_mount() {
        return;
    }
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("full.toml", &on_a_small_disk(FULL));
    let mut arguments = vec!["run", "full.toml", "--out", "run", "--quiet"];
    arguments.extend(PATIENT);
    let mut started = sandbox.start(&arguments);
    let mut room = Vec::new();
    while started.is_running() {
        for run in fs::read_dir(sandbox.tmp()).unwrap().flatten() {
            let mounted = run.path().join("disk");
            // Below this it is not yet mounted, and the folder is on the machine's own disk.
            if mounted.join("postgres").exists()
                && let Ok(disk) = nix::sys::statvfs::statvfs(&mounted)
            {
                room.push(disk.blocks_available() > 0);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let code = started.code();
    sandbox.assert_nothing_left();
    assert!(disks(&sandbox).is_empty(), "{:#?}", disks(&sandbox));
    room.dedup();
    assert!(room.len() >= 3 && room[0], "there was room, then none, then room: {room:?}");
    let summary = summary(&sandbox.path("run"));
    assert_eq!((code, &summary["verdict"]), (Some(0), &Value::from("pass")), "{summary:#}");
    assert_healed(&summary, &["full"]);
    let log = fs::read_to_string(sandbox.path("run/logs/postgres.log")).unwrap();
    assert!(log.contains("No space left on device"), "{log}");
}

#[test]
fn a_killed_harness_leaves_no_disk_mounted() {
    if !can_mount() {
        return;
    }
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("full.toml", &on_a_small_disk(FULL));
    let started = sandbox.start(&["run", "full.toml", "--out", "run", "--quiet"]);
    crate::support::wait_for("the service to be up on its small disk", Duration::from_secs(120), || {
        !disks(&sandbox).is_empty() && sandbox.path("run/history").exists()
    });
    started.kill();
    sandbox.wait_until_nothing_left();
    assert!(disks(&sandbox).is_empty(), "{:#?}", disks(&sandbox));
}

const REDIS: &str = include_str!("../../../scenarios/redis.toml");

fn has_redis() -> bool {
    let found = harness::doctor::find_redis();
    if let Err(missing) = &found {
        skipped(&missing.to_string());
    }
    found.is_ok()
}

/// A sale from Redis with these settings; gives its exit code and its summary.
fn sale_from_redis(sets: &[&str]) -> (Option<i32>, Value) {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("redis.toml", REDIS);
    let mut arguments = vec!["run", "redis.toml", "--out", "run", "--quiet"];
    arguments.extend(PATIENT);
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let ended = sandbox.seckill(&arguments);
    sandbox.assert_nothing_left();
    (ended.code, summary(&sandbox.path("run")))
}

#[test]
fn a_sale_from_redis_survives_the_death_of_everybody() {
    if !has_redis() {
        return;
    }
    let (code, summary) = sale_from_redis(&[]);
    assert_eq!((code, &summary["verdict"]), (Some(0), &Value::from("pass")), "{summary:#}");
    assert_healed(&summary, &["dead-redis", "dead-database", "dead-service"]);
}

#[test]
fn a_redis_that_is_emptied_sells_nothing_twice_and_what_it_took_along_is_found_missing() {
    if !has_redis() {
        return;
    }
    let quiet = ["fault.0.chance=0", "fault.1.chance=0", "fault.2.chance=0", "expect.indeterminate=false"];
    let flushed = ["fault.3.chance=1", "fault.4.chance=1", "expect.retries=false"];
    let (code, summary) = sale_from_redis(&[&quiet[..], &flushed[..]].concat());
    assert_eq!(code, Some(11), "{summary:#}");
    assert_healed(&summary, &["redis-emptied", "slow-database"]);
    let failed: Vec<&Value> =
        summary["invariants"].as_array().unwrap().iter().filter(|i| i["verdict"] == "fail").collect();
    assert_eq!(failed.iter().map(|i| &i["id"]).collect::<Vec<_>>(), ["I2"], "{failed:#?}");
    let fault = summary["faults"].as_array().unwrap().iter().find(|fault| fault["id"] == "redis-emptied").unwrap();
    assert!(fault["hit"].as_str().unwrap().contains("keys forgotten"), "{fault:#}");
}

#[test]
fn a_replica_of_redis_takes_over_and_nothing_is_sold_twice() {
    if !has_redis() {
        return;
    }
    let failover =
        ["fault.0.chance=0", "fault.1.chance=0", "fault.2.chance=0", "fault.5.chance=1", "expect.retries=false"];
    let (code, summary) = sale_from_redis(&[&failover[..], &["expect.indeterminate=false"]].concat());
    assert_healed(&summary, &["redis-failover"]);
    // Replication of Redis is asynchronous: an order of the last millisecond may be lost, and nothing else.
    let failed: Vec<&Value> =
        summary["invariants"].as_array().unwrap().iter().filter(|i| i["verdict"] == "fail").collect();
    assert!(failed.iter().all(|invariant| invariant["id"] == "I2"), "{failed:#?}");
    assert_eq!(code, Some(if failed.is_empty() { 0 } else { 11 }), "{summary:#}");
}
