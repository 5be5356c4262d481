//! Faults of processes and of the clock, through the real binary: each has its effect, is healed, and leaves nothing behind,
//! however the harness ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::stack::{cgroup, leftovers};
use serde_json::Value;

use crate::support::{Room, Sandbox, skipped, skipped_in_part, wait_for};

const PROCESSES: &str = include_str!("../../../scenarios/processes.toml");
const EVERY_ROLE: &str = include_str!("../../../scenarios/every-role.toml");
const SHORT: &str = include_str!("support/short.toml");

fn summary(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap()
}

/// What a fault says that it hit, by its id.
fn hit<'a>(summary: &'a Value, id: &str) -> &'a str {
    let faults = summary["faults"].as_array().unwrap();
    let fault = faults.iter().find(|fault| fault["id"] == id).unwrap_or_else(|| panic!("no fault {id}: {faults:#?}"));
    assert!(fault["healed_at_ms"].is_number() && fault["recovered_at_ms"].is_number(), "{fault:#}");
    fault["hit"].as_str().unwrap_or_else(|| panic!("{fault:#}"))
}

/// The number before a word: 3 of `in 3 of 39 periods`, before ` of`.
#[track_caller]
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().filter(|before| before.len() < text.len());
    let before = before.unwrap_or_else(|| panic!("no {word:?} in {text:?}"));
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap_or_else(|_| panic!("no number before {word:?} in {text:?}"))
}

/// The groups of runs that are on this machine.
fn groups_of(run: &leftovers::Run) -> Vec<String> {
    leftovers::find_all(run)
}

#[test]
fn each_fault_of_a_process_has_its_effect_and_a_correct_service_passes() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    let partitions = harness::doctor::network_namespaces();
    if let Err(why) = &partitions {
        skipped_in_part(&format!("partitions, since {why}"));
    }
    let scenario = if partitions.is_ok() { PROCESSES.to_owned() } else { without_hosts() };
    sandbox.write("processes.toml", &scenario);
    let ended = sandbox.seckill(&["run", "processes.toml", "--out", "run", "--quiet"]);
    ended.assert_code(0);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    let run = leftovers::Run::of_id(summary["run_id"].as_str().unwrap());
    assert!(groups_of(&run).is_empty(), "left behind: {:?}", groups_of(&run));

    for (id, least) in [("short-of-processor", 1), ("noisy-neighbour", 5)] {
        let said = hit(&summary, id);
        assert!(number_before(said, " process") >= least, "{said}");
        if cgroup::find().is_ok() {
            assert!(number_before(said, " of ") >= 5 && number_before(said, " ms") >= 100, "{id}: {said}");
        } else {
            assert!(said.contains("stopped in turns"), "{said}");
        }
    }
    assert!(hit(&summary, "deployment").starts_with("1 process ended within"), "{}", hit(&summary, "deployment"));
    let maintenance = hit(&summary, "database-maintenance");
    assert!(number_before(maintenance, " processes") >= 5 && !maintenance.contains("killed"), "{maintenance}");
    assert_eq!(hit(&summary, "crash"), "1 process killed, started again while it lasted");
    let looped = hit(&summary, "crash-loop");
    assert!(number_before(looped, " times") >= 3, "{looped}");
    assert_eq!(hit(&summary, "rolling-restart"), "1 of 1 restarted");
    assert!(number_before(hit(&summary, "frozen-database"), " processes stopped") >= 5);
    for (id, off) in [("clock-ahead", 3000..3001), ("clock-behind", 1000..1001), ("fast-clock", 500..3000)] {
        let said = hit(&summary, id);
        assert!(off.contains(&number_before(said, " ms when it was set right")), "{id}: {said}");
    }
    for id in ["network-parted", "replies-lost"].into_iter().filter(|_| partitions.is_ok()) {
        assert!(number_before(hit(&summary, id), " packet") >= 3, "{}", hit(&summary, id));
    }
    assert!(hit(&summary, "clock-behind").contains("-1000 ms"));
    let window = summary["invariants"].as_array().unwrap().iter().find(|found| found["id"] == "I10").unwrap();
    assert!(window["detail"].as_str().unwrap().contains("set wrong by up to"), "{window:#}");
}

#[test]
fn each_fault_of_a_process_hits_each_role_and_a_correct_service_passes() {
    let _room = Room::for_rehearsals(1);
    if let Err(why) = harness::doctor::find_redis() {
        return skipped(&why.to_string());
    }
    let sandbox = Sandbox::new();
    sandbox.write("every-role.toml", EVERY_ROLE);
    sandbox.seckill(&["run", "every-role.toml", "--out", "run", "--quiet"]).assert_code(0);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    for fault in summary["faults"].as_array().unwrap() {
        let said = hit(&summary, fault["id"].as_str().unwrap());
        assert!(fault["hit_count"].as_u64().unwrap() >= 1, "{fault:#}");
        assert!(
            !said.contains("of them killed") && !said.contains("did not end"),
            "it ends when it is asked to: {said}"
        );
    }
    for (role, processes) in [("access", 2), ("payment", 1), ("profile", 1), ("redis", 1)] {
        let says = |id: &str| hit(&summary, &format!("{role}-{id}"));
        let who = if processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") };
        assert!(says("in-order").starts_with(&format!("{who} ended within")), "{}", says("in-order"));
        assert_eq!(says("dead"), format!("{who} killed"));
        assert_eq!(says("dead-and-supervised"), format!("{who} killed, started again while it lasted"));
        assert_eq!(says("frozen"), format!("{who} stopped"));
        assert!(number_before(says("crashing"), " times") >= 2, "{}", says("crashing"));
        assert_eq!(says("rolling"), format!("{processes} of {processes} restarted"));
        assert!(
            says("short-of-processor").starts_with(&format!("{who} stopped in turns")),
            "{}",
            says("short-of-processor")
        );
        assert!(number_before(says("short-of-processor"), " ms in all") >= 200, "{}", says("short-of-processor"));
    }
}

/// The scenario for a machine that lets nobody make hosts.
fn without_hosts() -> String {
    let faults = PROCESSES.split_inclusive("\n\n").filter(|part| !part.contains("inject.partition"));
    faults.collect::<String>().replace("hosts = true", "hosts = false")
}

/// The processes whose group has that name.
fn folder_of_group(name_ends: &str) -> Option<PathBuf> {
    let groups = cgroup::bases().into_iter().flat_map(|base| fs::read_dir(base).into_iter().flatten().flatten());
    groups.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(name_ends))
}

#[test]
fn a_harness_that_is_killed_leaves_no_group_no_host_and_no_stopped_process() {
    let _room = Room::for_rehearsals(1);
    if let Err(why) = cgroup::find() {
        skipped(&why.to_string());
        return;
    }
    let sandbox = Sandbox::new();
    let faults = "inject.throttle = { role = \"service\", cpus = 0.05 }\n\n[[fault]]\nid = \"frozen\"\nat = \"1s\"\nlasts = \"5s\"\ninject.pause = { role = \"postgres\" }\n";
    let throttled = SHORT
        .replace("at = \"3500ms\"\nlasts = \"1500ms\"", "at = \"1s\"\nlasts = \"5s\"")
        .replace("inject.kill = { role = \"service\" }", faults);
    sandbox.write("throttled.toml", &throttled);
    // Its two roles on hosts of their own, where that can be had.
    let hosts = 2 * usize::from(harness::doctor::network_namespaces().is_ok());
    let set = format!("target.hosts={}", hosts > 0);
    let mut started = sandbox.start(&["run", "throttled.toml", "--out", "run", "--quiet", "--set", &set]);
    let run_id = || {
        let run: Value = serde_json::from_slice(&fs::read(sandbox.path("run/run.json")).ok()?).ok()?;
        Some(run["run_id"].as_str()?.to_owned())
    };
    let group = || folder_of_group(&format!("seckill-{}-throttle-service", run_id()?));
    wait_for("the group of the service and a database that stands still", Duration::from_secs(60), || {
        assert!(started.is_running(), "{}", fs::read_to_string(sandbox.path("stderr")).unwrap());
        group().is_some_and(|group| fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty()))
            && stopped_in(&sandbox.tmp()) > 0
    });
    let run = leftovers::Run::of_id(&run_id().unwrap());
    assert_eq!(leftovers::find_all(&run).len(), 1 + hosts, "{:?}", leftovers::find_all(&run));
    let data = sandbox.tmp().join(run.name()).join("postgres");
    let shared = segment_of(&data);
    assert!(segments().contains(&shared), "the database has made segment {shared}");
    let dynamic = crate::support::files(&data.join("pg_dynshmem"));
    assert!(!dynamic.is_empty(), "what it shares besides lies in its folder, and not where it would stay behind");
    started.kill();
    sandbox.wait_until_nothing_left();
    assert!(leftovers::find_all(&run).is_empty(), "left behind: {:?}", leftovers::find_all(&run));
    assert!(!segments().contains(&shared), "segment {shared} of a database that was killed is left");
}

/// The segment of shared memory that a database has written down to have made.
fn segment_of(data: &Path) -> String {
    let notes = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    notes.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// The segments of shared memory that there are on this machine.
fn segments() -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().skip(1).filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
}

/// The links of a stack with many roles, in the order in which they are parted.
const LINKS: [&str; 8] = [
    "client→access",
    "access→service",
    "service→postgres",
    // These carry what is sold, so before all is.
    "service→payment",
    "standby→postgres",
    "redis-replica→redis",
    "service→redis",
    "service→profile",
];

/// A sale with all roles on hosts of their own, in which every link is parted, and the service is stopped in turns.
fn parted() -> String {
    let mut faults: String = (0..LINKS.len())
        .map(|n| {
            let (link, at) = (LINKS[n], 1200 + 520 * n);
            let inject = format!("inject.partition = {{ link = \"{link}\" }}");
            format!("[[fault]]\nid = \"parted-{n}\"\nat = \"{at}ms\"\nlasts = \"450ms\"\n{inject}\n\n")
        })
        .collect();
    faults.push_str("[[fault]]\nid = \"in-turns\"\nat = \"6500ms\"\nlasts = \"1s\"\n");
    faults.push_str("inject.throttle = { role = \"service\", cpus = 0.2, by = \"signals\" }\n\n");
    let (before, rest) = SHORT.split_once("# A fault that takes effect later").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    let roles = "strategy = \"redis-lua\"\nredis = true\nredis_aof = \"always\"\nredis_replica = true\nstandby = \"async\"\n\
                 profile = true\npayment = true\naccess = 2\nhosts = true\n";
    format!("{before}{faults}[steady_state]{after}")
        .replace("\"7s\"", "\"10s\"")
        .replace("lasts = \"5s\"", "lasts = \"7s\"")
        .replace("stock = 80", "stock = 160")
        .replace("[target.reference]\n", &format!("[target.reference]\n{roles}"))
        // With a token the state is dressed with the buyer's profile, which has to be fetched.
        .replace("[step.order]\n", "[step.mine]\npath = \"/items/${item}/state\"\nheaders = { authorization = \"Bearer ${token}\" }\n\n[step.order]\n")
        .replace("\"state\", \"order\"", "\"state\", \"mine\", \"order\"")
}

#[test]
fn every_link_can_be_parted_and_a_service_that_is_stopped_in_turns_sells_on() {
    let _room = Room::for_rehearsals(1);
    let redis = harness::doctor::find_redis().map(drop);
    if let Err(why) = harness::doctor::network_namespaces().map(drop).and(redis) {
        return skipped(&why.to_string());
    }
    let sandbox = Sandbox::new();
    sandbox.write("parted.toml", &parted());
    let ended = sandbox.seckill(&["run", "parted.toml", "--out", "run", "--quiet"]);
    ended.assert_code(0);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    let run = leftovers::Run::of_id(summary["run_id"].as_str().unwrap());
    assert!(groups_of(&run).is_empty(), "left behind: {:?}", groups_of(&run));
    for (n, link) in LINKS.into_iter().enumerate() {
        let said = hit(&summary, &format!("parted-{n}"));
        assert!(number_before(said, " packet") >= 1, "{link}: {said}");
    }
    let turns = hit(&summary, "in-turns");
    assert!(turns.starts_with("1 process stopped in turns, as was asked for"), "{turns}");
    // It stands still for four fifths of each turn.
    assert!(number_before(turns, " ms in all") >= 500, "{turns}");
}

#[test]
fn a_clock_is_set_right_with_its_service_down_or_frozen() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    let fault = |id: &str, at: &str, lasts: &str, inject: &str| {
        format!("[[fault]]\nid = \"{id}\"\nat = \"{at}\"\nlasts = \"{lasts}\"\ninject.{inject}\n\n")
    };
    let step = "clock-step = { role = \"service\", by = \"1s\" }";
    // Each clock is to be set right in the middle of what keeps the service from it.
    let faults = fault("ahead", "1500ms", "1s", step)
        + &fault("frozen", "2s", "1s", "pause = { role = \"service\" }")
        + &fault("ahead-again", "3500ms", "1s", step)
        + &fault("dead", "4s", "2s", "kill = { role = \"service\" }");
    let (before, rest) = SHORT.split_once("# A fault that takes effect later").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    sandbox.write("clocks.toml", &format!("{before}{faults}[steady_state]{after}"));
    sandbox.seckill(&["run", "clocks.toml", "--out", "run", "--quiet"]);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    assert!(hit(&summary, "ahead").contains("off by 1000 ms"), "{}", hit(&summary, "ahead"));
    // Nothing is left to be set right of a service that is down, and nobody waits for it to come back.
    assert!(hit(&summary, "ahead-again").contains("off by 0 ms"), "{}", hit(&summary, "ahead-again"));
    let healed = |id: &str| {
        let faults = summary["faults"].as_array().unwrap();
        faults.iter().find(|fault| fault["id"] == id).unwrap()["healed_at_ms"].as_f64().unwrap()
    };
    assert!(healed("ahead") >= healed("frozen") - 50.0, "a frozen service answers when it goes on: {summary:#}");
    assert!(healed("ahead-again") < healed("dead"), "{summary:#}");
}

/// Processes that work in a folder and were stopped by a signal.
fn stopped_in(folder: &Path) -> usize {
    let folder = fs::canonicalize(folder).unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let stopped = processes.filter(|process| {
        let state = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let state = state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        state && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
    });
    stopped.count()
}

#[test]
fn each_mistake_in_a_fault_is_explained_where_it_is() {
    let sandbox = Sandbox::new();
    for (replace, by, says) in [
        ("cpus = 0.03", "cpus = 0.0", "fault \"short-of-processor\": `cpus` is 0; from 0.01 to 64 processors"),
        (
            "inject.stop = { role = \"service\" }",
            "inject.stop = { role = \"service\", within = \"1ms\" }",
            "`within` is 1ms; from 100ms to 25s",
        ),
        ("every = \"400ms\"", "every = \"1ms\"", "`every` is 1ms; at least 50ms"),
        (
            "rolling-restart = { role = \"postgres\"",
            "rolling-restart = { role = \"db\"",
            "there is no process \"db\"; service, postgres",
        ),
        ("by = \"3s\"", "by = \"0s\"", "`by` is +0s; from 1ms to 60s"),
        ("by = \"3s\"", "by = \"soon\"", "`soon` is not a duration; "),
        (
            "clock-skew = { role = \"service\"",
            "clock-skew = { role = \"postgres\"",
            "the clock of \"postgres\" cannot be set; role = \"service\"",
        ),
        ("rate = 1.5", "rate = 1.0", "`rate` is 1; 1.5 is fast, 0.5 is slow"),
        ("hosts = true", "hosts = false", "on `service→postgres` nobody has a host of its own; set hosts = true"),
        ("loss = 0.3", "loss = 3.0", "`loss` is 3; a share from 0.001 to 1"),
        (
            "hosts = true",
            "hosts = [\"service\", \"db\"]",
            "`hosts` names \"db\", and this stack has no such role; true for all, or some of service, postgres",
        ),
        ("hosts = true", "hosts = \"all\"", "true, false or a list of roles"),
        (
            "cpus = 0.03",
            "cpus = 1.5, by = \"signals\"",
            "`cpus` is 1.5, and `signals` only ever stop it for a part; less than 1, such as 0.25",
        ),
        (
            "restart_after = \"300ms\"",
            "restart_after = \"30s\"",
            "`restart_after` is 30s, and the fault is healed after; a fault that `lasts` longer",
        ),
        (
            "rolling-restart = { role = \"postgres\"",
            "rolling-restart = { role = \"postgres\", between = \"1s\"",
            "`between` is 1s, and \"postgres\" is one process alone; such as access = 2",
        ),
        ("cpus = 0.03", "cpus = 0.03, by = \"magic\"", "unknown variant `magic`; `quota`"),
    ] {
        let scenario = PROCESSES.replacen(replace, by, 1);
        assert_ne!(scenario, PROCESSES, "{replace} is not in the scenario");
        sandbox.write("processes.toml", &scenario);
        let ended = sandbox.seckill(&["run", "processes.toml", "--out", "run"]);
        let says: Vec<&str> = says.split("; ").filter(|part| !part.is_empty()).collect();
        ended.assert_code(2).assert_says(&says).assert_says(&["processes.toml:", "help:"]);
        assert!(!sandbox.path("run").exists(), "a run folder was made for nothing");
    }
    sandbox.assert_nothing_left();
}
