//! The timeline of faults through the real binary: what can be wrong with it, what events bring about, and what stops a run.

mod support;

use support::Sandbox;

const SPIKE: &str = include_str!("../../scenarios/spike.toml");

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
