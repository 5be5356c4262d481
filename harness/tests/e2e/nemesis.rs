//! The timeline of faults through the real binary: what can be wrong with it, what events bring about, and what stops a run.

use crate::support::{Room, Sandbox};
use serde_json::Value;

const SPIKE: &str = include_str!("../../../scenarios/spike.toml");
const SHORT: &str = include_str!("support/short.toml");

const KILL: &str = "inject.kill = { role = 'service' }";

/// The main scenario with these faults in the place of its own.
fn with_faults(faults: &str) -> String {
    let (before, rest) = SPIKE.split_once("[[fault]]").unwrap();
    let (_, after) = rest.split_once("[steady_state]").unwrap();
    format!("{before}{faults}\n[steady_state]{after}")
}

/// Each of these must end with exit code 2 and a message that says these things, before anything is started.
#[track_caller]
fn refused(mistakes: &[(String, &[&str])]) {
    let sandbox = Sandbox::new();
    for (text, says) in mistakes {
        sandbox.write("wrong.toml", text);
        let ended = sandbox.seckill(&["run", "wrong.toml", "--out", "run"]);
        ended.assert_code(2).assert_says(&["wrong.toml", "help:"]).assert_says(says);
        assert!(!sandbox.path("run").exists(), "nothing is made for a scenario that is wrong: {text}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn a_fault_that_does_not_say_when_in_one_way_is_refused() {
    let fault = |lines: &str| with_faults(&format!("[[fault]]\nid = 'a'\n{lines}\n{KILL}\n"));
    let pair = |a: &str, b: &str| {
        with_faults(&format!("[[fault]]\nid = 'a'\n{a}\n{KILL}\n[[fault]]\nid = 'b'\n{b}\n{KILL}\n"))
    };
    refused(&[
        (fault("lasts = '1s'"), &["fault \"a\" does not say when it happens", "during = \"the name of a phase\""]),
        (
            fault("at = '1s'\nduring = 'spike'\nlasts = '1s'"),
            &["fault \"a\" says in several ways when it happens", "one of at"],
        ),
        (fault("at = '1s'"), &["fault \"a\" does not say how long it `lasts`", "lasts = \"800ms\""]),
        (fault("during = 'nowhere'"), &["there is no phase \"nowhere\"", "one of before, spike, after"]),
        (fault("during = 'before'\nlasts = '9s'"), &["lasts for 9s during phase \"before\"", "shorten `lasts`"]),
        (fault("at = '1s'\nlasts = '1s'\noptional = true"), &["is `optional`", "only one with `after`"]),
        (fault("after = { delay = '1s' }\nlasts = '1s'"), &["`after` names no event, or several", "stock = 0.5"]),
        (
            fault("after = { stock = 0.5, first = 'sold-out' }\nlasts = '1s'"),
            &["`after` names no event, or several", "recovered = \"other-fault\""],
        ),
        (fault("after = { stock = 50.0 }\nlasts = '1s'"), &["after.stock is 50", "such as 0.5"]),
        (fault("after = { first = '' }\nlasts = '1s'"), &["after.first is empty", "\"limit-reached\""]),
        (fault("after = { rate = -1.0 }\nlasts = '1s'"), &["after.rate is not above 0", "such as 500"]),
        (
            fault("after = { stock = 0.5, by = '29s' }\nlasts = '5s'"),
            &["waits until 29s, then for 0s, and lasts for 5s", "load.duration (30s)"],
        ),
        (fault("after = { sold = true }\nlasts = '1s'"), &["unknown field `sold`"]),
        (fault("after = { healed = 'nobody' }\nlasts = '1s'"), &["waits for \"nobody\"", "no such fault"]),
        (
            pair("after = { healed = 'b' }\nlasts = '1s'", "after = { recovered = 'a' }\nlasts = '1s'"),
            &["fault \"a\" waits for itself, at once or by way of others", "fault \"b\" waits for itself"],
        ),
    ]);
}

#[test]
fn faults_that_would_end_each_other_are_refused() {
    let fault = |id: &str, when: &str, inject: &str| format!("[[fault]]\nid = '{id}'\n{when}\ninject.{inject}\n");
    let pause = "pause = { role = 'postgres' }";
    let chaos = |id: &str, until: &str| {
        format!(
            "[[chaos]]\nid = '{id}'\nfaults = 2\nfrom = '2s'\nuntil = '{until}'\nlasts = '1s'\n\
             inject = [{{ latency = {{ link = 'service→postgres', delay = '1ms' }} }}, {{ kill = {{ role = 'postgres' }} }}]\n"
        )
    };
    let two = |a: (&str, &str), b: (&str, &str)| with_faults(&(fault("a", a.0, a.1) + &fault("b", b.0, b.1)));
    refused(&[
        (
            two(("at = '2s'\nlasts = '6s'", pause), ("at = '4s'\nlasts = '8s'", pause)),
            &[
                "fault \"b\" (pause, from 4s until 12s) may be in effect on \"postgres\" together with",
                "fault \"a\" (pause, from 2s until 8s), and healing one would end the other",
                "after = { healed = \"ID\" }",
            ],
        ),
        // The worst case of what the seed draws.
        (
            two(
                ("at = ['2s', '9s']\nlasts = ['1s', '2s']", "read-only = {}"),
                ("at = '10s'\nlasts = '1s'", "read-only = {}"),
            ),
            &["(read-only, from 2s until 11s)"],
        ),
        (
            two(
                ("during = 'spike'", "clock-step = { role = 'service', by = '3s' }"),
                ("at = '6s'\nlasts = '1s'", "clock-skew = { role = 'service', rate = 1.5 }"),
            ),
            &[
                "fault \"b\" (clock-skew, from 6s until 7s) may be in effect on \"service\"",
                "fault \"a\" (clock-step, from 5s",
            ],
        ),
        (
            with_faults(&(fault("a", "at = '9s'\nlasts = '1s'", pause) + &chaos("storm", "12s"))),
            &[
                "chaos \"storm\" (kill, from 2s until 12s) may be in effect on \"postgres\"",
                "fault \"a\" (pause, from 9s",
            ],
        ),
        (
            with_faults(&(chaos("storm", "12s") + &chaos("gale", "14s"))),
            &["chaos \"gale\" (kill, from 2s until 14s) may be", "chaos \"storm\" (kill, from 2s until 12s)"],
        ),
    ]);
    // One after the other, on other processes, or with the event known in the run only.
    let sandbox = Sandbox::new();
    let fine = [
        fault("a", "at = '2s'\nlasts = '2s'", pause) + &fault("b", "at = '4s'\nlasts = '2s'", pause),
        fault("a", "at = '2s'\nlasts = '2s'", pause)
            + &fault("b", "at = '2s'\nlasts = '2s'", "pause = { role = 'service' }"),
        fault("a", "at = '2s'\nlasts = '9s'", pause)
            + &fault("b", "after = { stock = 0.5 }\nlasts = '2s'", pause)
            + &fault("c", "at = '2s'\nlasts = '9s'", "read-only = {}"),
        fault("a", "at = '12s'\nlasts = '1s'", pause) + &chaos("storm", "12s"),
    ];
    for faults in fine {
        sandbox.write("fine.toml", &with_faults(&faults));
        sandbox.seckill(&["run", "fine.toml", "--dry-run"]).assert_code(0);
    }
}

#[test]
fn chaos_without_room_for_it_is_refused() {
    let chaos = |more: &str| {
        let two = "inject = [{ kill = { role = 'service' } }, { pause = { role = 'service' } }]";
        let text = "[[chaos]]\nid = 'storm'\nfaults = 3\nfrom = '2s'\nuntil = '12s'\nlasts = ['1s', '2s']\n";
        let keys: Vec<&str> = more.lines().filter_map(|line| line.split_once(" =").map(|(key, _)| key)).collect();
        let kept = |line: &&str| keys.iter().all(|key| !line.starts_with(&format!("{key} =")));
        let text: Vec<&str> = text.lines().chain([two]).filter(kept).collect();
        with_faults(&format!("{}\n{more}\n", text.join("\n")))
    };
    refused(&[
        (chaos("faults = 0"), &["chaos \"storm\": `faults` is 0", "from 1 to 100"]),
        (chaos("inject = []"), &["nothing to `inject`", "kill = { role"]),
        (chaos("until = '1s'"), &["it goes from 2s until 1s", "`until` is later than `from`"]),
        (chaos("until = '50s'"), &["it goes from 2s until 50s", "load.duration (30s) at the latest"]),
        (chaos("concurrent = 2"), &["`concurrent` is 2", "from 1 to 1", "on the same process"]),
        (chaos("faults = 9"), &["its faults may take 18s, and there are 10s", "fewer `faults`"]),
        (chaos("inject = [{ kill = { role = 'nobody' } }]"), &["there is no process \"nobody\""]),
        (
            chaos("") + &format!("[[fault]]\nid = 'storm-2'\nat = '1s'\nlasts = '1s'\n{KILL}\n"),
            &["chaos \"storm\": its faults are called storm-1", "its own id"],
        ),
    ]);
}

#[test]
fn a_steady_state_that_could_not_be_probed_is_refused() {
    let steady = |text: &str| {
        let (before, rest) = SPIKE.split_once("[steady_state]").unwrap();
        let (_, after) = rest.split_once("[expect]").unwrap();
        format!("{before}[steady_state]\n{text}\n[expect]{after}")
    };
    let probe = |text: &str| steady(&format!("[[steady_state.probe]]\n{text}"));
    refused(&[
        (steady("every = '1s'"), &["steady_state has no request", "[[steady_state.probe]]"]),
        (steady("step = 'state'"), &["does not say within which time", "within = \"500ms\""]),
        (steady("step = 'nothing'\nwithin = '1s'"), &["steady_state: there is no step \"nothing\"", "one of "]),
        (steady("step = 'pay'\nwithin = '1s'"), &["steady_state: ", "may use only ${item}"]),
        (steady("step = 'state'\nwithin = '1s'\nhold = 0"), &["`every` and `hold` must be more than 0"]),
        (probe("step = 'state'\nwithin = '1s'"), &["a probe has a `name`"]),
        (probe("name = 'a'\nstep = 'state'\nwithin = '1s'\nerror_fraction = 0.1"), &["make two probes of it"]),
        (probe("name = 'a'"), &["probe \"a\" neither asks for a `step`", "error_fraction"]),
        (
            probe("name = 'a'\nstep = 'state'\nwithin = '1s'\njson = '/available'"),
            &["`json` and its bounds do not fit together", "at_least = 0"],
        ),
        (
            steady(
                "step = 'state'\nwithin = '1s'\n[[steady_state.probe]]\nname = 'b'\nerror_fraction = 0.1\ncohort = 'x'",
            ),
            &["probe \"b\": there is no cohort \"x\"", "one of buyers"],
        ),
        (
            steady(
                "step = 'state'\nwithin = '1s'\n[[steady_state.probe]]\nname = 'b'\nerror_fraction = 0.1\nover = '10m'",
            ),
            &["probe \"b\": `over` is 600s", "from 1s to 60s"],
        ),
    ]);
}

#[test]
fn a_stop_condition_that_says_nothing_is_refused() {
    let stop = |text: &str| format!("{SPIKE}\n[[stop]]\n{text}\n");
    refused(&[
        (stop("p99 = '1s'"), &["a stop has a `name`"]),
        (stop("name = 'a'"), &["stop \"a\" has no condition, or several", "unsteady_for = \"10s\""]),
        (stop("name = 'a'\np99 = '1s'\nerror_fraction = 0.1"), &["stop \"a\" has no condition, or several"]),
        (stop("name = 'a'\np99 = '0s'"), &["stop \"a\": its limit is 0s"]),
        (stop("name = 'a'\nerror_fraction = 5.0"), &["error_fraction of stop \"a\"", "a share from 0 to 1"]),
        (stop("name = 'a'\nunsteady_for = '1s'\ncohort = 'buyers'"), &["is about the steady state", "remove `cohort`"]),
        (stop("name = 'a'\np99 = '1s'\ncohort = 'x'"), &["stop \"a\": there is no cohort \"x\""]),
        (stop("name = 'a'\np99 = '1s'\nover = '100ms'"), &["`over` is 100ms", "from 1s to 60s"]),
        (stop("name = 'a'\np99 = '1s'\nmin_requests = 0"), &["`min_requests` is 0"]),
        (stop("name = 'a'\np99 = '1s'\nfrom = '40s'"), &["stop \"a\" is looked at from 40s on", "load.duration (30s)"]),
    ]);
}

/// The short rehearsal with other faults, probes and conditions.
fn short(faults: &str, steady_and_more: &str) -> String {
    let (before, rest) = SHORT.split_once("# A fault that takes effect").unwrap();
    let (_, after) = rest.split_once("[expect]").unwrap();
    format!("{before}{faults}\n{steady_and_more}\n[expect]{after}")
}

const STEADY: &str = "[steady_state]\nstep = 'state'\nwithin = '2s'\n";

fn summary(sandbox: &Sandbox) -> Value {
    serde_json::from_slice(&std::fs::read(sandbox.path("run/summary.json")).unwrap()).unwrap()
}

fn fault<'a>(summary: &'a Value, id: &str) -> &'a Value {
    let faults = summary["faults"].as_array().unwrap();
    faults.iter().find(|fault| fault["id"] == id).unwrap_or_else(|| panic!("no fault {id} in {summary:#}"))
}

#[test]
fn faults_wait_for_what_happens_in_the_sale_and_for_each_other() {
    let _room = Room::for_rehearsals(1);
    let faults = "[[fault]]\nid = 'half'\nafter = { stock = 0.5, delay = '100ms' }\nlasts = '800ms'\n\
                  inject.latency = { link = 'service→postgres', delay = '5ms' }\n\
                  [[fault]]\nid = 'then'\nafter = { recovered = 'half', delay = '200ms' }\nlasts = '600ms'\n\
                  inject.kill = { role = 'service' }\n\
                  [[fault]]\nid = 'never'\nafter = { first = 'no-such-reason', by = '3s' }\nlasts = '500ms'\noptional = true\n\
                  inject.kill = { role = 'service' }\n";
    let steady = "[steady_state]\n[[steady_state.probe]]\nname = 'stock'\nstep = 'state'\nwithin = '2s'\njson = '/available'\n\
                  at_least = 0\n[[steady_state.probe]]\nname = 'errors'\nerror_fraction = 0.3\nover = '1s'\n";
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", &short(faults, steady));
    sandbox.seckill(&["run", "short.toml", "--out", "run"]).assert_code(0);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox);
    let ms =
        |id: &str, key: &str| fault(&summary, id)[key].as_f64().unwrap_or_else(|| panic!("{id} {key}: {summary:#}"));
    assert!(ms("half", "triggered_at_ms") > 1_000.0, "nothing is sold before the sale opens");
    assert!(ms("half", "injected_at_ms") >= ms("half", "triggered_at_ms") + 100.0);
    assert_eq!(ms("then", "triggered_at_ms"), ms("half", "recovered_at_ms"));
    assert!(ms("then", "injected_at_ms") >= ms("half", "recovered_at_ms") + 200.0);
    let never = fault(&summary, "never");
    assert!(never["injected_at_ms"].is_null(), "{never:#}");
    assert!(never["skipped"].as_str().unwrap().contains("the first \"no-such-reason\" (not by 3s)"), "{never:#}");
    assert!(["stock", "errors"].contains(&fault(&summary, "then")["last_probe"].as_str().unwrap()), "{summary:#}");
    assert!(summary["stopped"].is_null());
}

#[test]
fn a_stop_condition_heals_everything_ends_the_load_and_says_so() {
    let _room = Room::for_rehearsals(1);
    // Without the service nobody is answered; the kill would last for five seconds, and the other fault comes too late.
    let faults = "[[fault]]\nid = 'dead-service'\nat = '1500ms'\nlasts = '5s'\ninject.kill = { role = 'service' }\n\
                  [[fault]]\nid = 'too-late'\nat = '5500ms'\nlasts = '1s'\n\
                  inject.latency = { link = 'service→postgres', delay = '5ms' }\n";
    let stop =
        "[[stop]]\nname = 'error-budget'\ncohort = 'buyers'\nerror_fraction = 0.2\nover = '1s'\nmin_requests = 20\n";
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", &short(faults, &format!("{STEADY}{stop}")));
    let ended = sandbox.seckill(&["run", "short.toml", "--out", "run"]);
    ended.assert_code(10).assert_says(&["stopped by \"error-budget\""]);
    sandbox.assert_nothing_left();
    assert!(ended.stdout.contains("STOPPED") && ended.stdout.contains("error-budget"), "{}", ended.stdout);
    let summary = summary(&sandbox);
    assert_eq!(
        (&summary["ended"], &summary["verdict"]),
        (&Value::from("stopped"), &Value::from("pass")),
        "{summary:#}"
    );
    let stopped = &summary["stopped"];
    assert_eq!((&stopped["name"], &stopped["healed"][0]), (&Value::from("error-budget"), &Value::from("dead-service")));
    assert!(stopped["healed_after_ms"].as_f64().unwrap() <= 2_000.0, "{stopped:#}");
    assert!(stopped["why"].as_str().unwrap().contains("without an answer over 1s"), "{stopped:#}");
    let recovered = fault(&summary, "dead-service")["recovered_at_ms"].as_f64();
    assert!(recovered > stopped["at_ms"].as_f64(), "healing is seen by the steady state, not assumed: {summary:#}");
    assert!(fault(&summary, "too-late")["injected_at_ms"].is_null());
    let events = std::fs::read_to_string(sandbox.path("run/events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"stopped\""), "{events}");
    assert!(sandbox.path("run/audit.json").exists(), "what was sold until then is audited");
    // Judged again, it comes to the same.
    sandbox.seckill(&["check", "run"]).assert_code(10);
}

#[test]
fn a_probe_that_does_not_hold_before_the_load_is_named() {
    let _room = Room::for_rehearsals(1);
    let steady = "[steady_state]\nhold = 1\n[[steady_state.probe]]\nname = 'page'\nstep = 'state'\nwithin = '2s'\n\
                  [[steady_state.probe]]\nname = 'enough'\nstep = 'state'\nwithin = '2s'\njson = '/available'\nat_least = 1000\n";
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", &short("", steady));
    let ended = sandbox.seckill(&["run", "short.toml", "--out", "run"]);
    ended
        .assert_code(20)
        .assert_says(&["does not hold before the load: enough: `state` has 80 at /available", "from 1000"]);
    sandbox.assert_nothing_left();
}

#[test]
fn twenty_kills_leave_nothing_behind() {
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("scenarios")).unwrap();
    sandbox.write("scenarios/kill-soak.toml", include_str!("../../../scenarios/kill-soak.toml"));
    let ended = sandbox.seckill(&["soak-kill", "--times", "20", "--jobs", "4", "--seed", "7", "--output", "json"]);
    ended.assert_code(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((count("kills") + count("ended_before"), count("with_leftovers")), (20, 0), "{report:#}");
    assert!(count("kills") >= 15, "most are killed before they end: {report:#}");
    assert!(sandbox.path("reports/bench/kill-soak.json").exists());
    sandbox.assert_nothing_left();
}
