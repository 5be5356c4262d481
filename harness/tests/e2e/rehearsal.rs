//! Whole rehearsals through the real binary: a few seconds of load on a real stack, with faults, to a verdict; and every
//! way in which one can end before its time.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Room, Sandbox, Started, files, wait_for};

const SHORT: &str = include_str!("support/short.toml");
const COHORTS: &str = include_str!("../../../scenarios/cohorts.toml");
const EVENING: &str = include_str!("../../../scenarios/traces/ordinary-evening.csv");

fn summary(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap()
}

/// The verdicts of the invariants by their ID, as two judgements are compared.
fn verdicts(summary: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    summary["invariants"].as_array().unwrap().iter().map(|i| (text(&i["id"]), text(&i["verdict"]))).collect()
}

fn verdict_of(summary: &Value, id: &str) -> String {
    verdicts(summary).into_iter().find(|(i, _)| i == id).unwrap_or_else(|| panic!("no {id} in {summary:#}")).1
}

/// Follows a path of keys; fails naming the one that is missing.
#[track_caller]
fn at<'a>(summary: &'a Value, path: &str) -> &'a Value {
    let mut value = summary;
    for key in path.split('.') {
        value = value.get(key).unwrap_or_else(|| panic!("summary.json has no {path}: {value:#}"));
    }
    value
}

fn copy(from: &Path, to: &Path) {
    for name in files(from) {
        let to = to.join(&name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from.join(&name), to).unwrap();
    }
}

/// Waits until the history has its first part, so that the load is under way and there is something to judge.
fn wait_for_history(started: &mut Started, run: &Path) {
    let history = run.join("history");
    wait_for("the first part of the history", Duration::from_secs(120), || {
        assert!(started.is_running(), "the harness ended before it recorded anything");
        fs::read_dir(&history)
            .is_ok_and(|parts| parts.flatten().any(|p| p.path().extension().is_some_and(|e| e == "parquet")))
    });
}

#[test]
fn a_correct_target_passes_side_by_side_with_another_and_its_evidence_bears_it_out() {
    let room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    sandbox.write("service.toml", SHORT);
    sandbox.write(
        "postgres.toml",
        &SHORT.replace("role = \"service\"", "role = \"postgres\"").replace("dead-service", "dead-database"),
    );
    // The same TMPDIR, the same working folder, the same moment: nothing of the one may be taken for the other's.
    let (one, other) = std::thread::scope(|scope| {
        let one =
            scope.spawn(|| sandbox.seckill(&["run", "service.toml", "--out", "one", "--output", "json", "--quiet"]));
        let other = scope.spawn(|| sandbox.seckill(&["run", "postgres.toml", "--out", "other"]));
        (one.join().unwrap(), other.join().unwrap())
    });
    drop(room);
    one.assert_code(0);
    other.assert_code(0);
    sandbox.assert_nothing_left();
    let printed: Value = serde_json::from_str(&one.stdout)
        .unwrap_or_else(|e| panic!("--output json prints only JSON on stdout: {e}\n{}", one.stdout));
    assert!(other.stdout.contains("PASS") && other.stdout.contains("other/report.html"), "{}", other.stdout);
    assert!(!sandbox.path("reports").exists(), "with --out, nothing is written elsewhere");

    for (name, killed) in [("one", "service"), ("other", "postgres")] {
        let run = sandbox.path(name);
        has_every_file(&run);
        says_what_is_documented(&summary(&run), killed);
    }
    assert_eq!(printed["run_id"], summary(&sandbox.path("one"))["run_id"]);
    assert_ne!(printed["run_id"], summary(&sandbox.path("other"))["run_id"]);
    assert_eq!(
        printed["schedule_hash"],
        summary(&sandbox.path("other"))["schedule_hash"],
        "the same seed, the same load"
    );
    let timeline = |summary: &Value| summary["timeline_hash"].as_str().map(str::len);
    assert_eq!(timeline(&printed), Some(16), "and the faults are told as well");

    assert_eq!(printed["latency"]["step_order"], serde_json::json!(["login", "state", "order", "lookup", "pay"]));
    judged_again_it_comes_to_the_same(&sandbox);
    evidence_with_a_hole_proves_nothing(&sandbox);
    a_ledger_that_is_cut_off_accuses_nobody(&sandbox);
    sandbox.assert_nothing_left();
}

#[test]
fn the_reference_service_passes_over_tls_with_http_2_and_with_a_connection_for_each_request() {
    let room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let run = |out: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> = ["run", "short.toml", "--out", out].into_iter().chain(sets).collect();
        sandbox.seckill(&arguments)
    };
    let http2 = ["target.tls=true", "load.connection.http='2'"];
    let one_each = ["load.connection.reuse=false", "load.cookies=true"];
    let (encrypted, single) = std::thread::scope(|scope| {
        let encrypted = scope.spawn(|| run("encrypted", &http2));
        let single = scope.spawn(|| run("single", &one_each));
        (encrypted.join().unwrap(), single.join().unwrap())
    });
    drop(room);
    encrypted.assert_code(0);
    single.assert_code(0);
    let (encrypted, single) = (summary(&sandbox.path("encrypted")), summary(&sandbox.path("single")));
    let link = |summary: &Value, key: &str| at(summary, "links")[0][key].clone();
    // What is encrypted cannot be counted, and is not said to be nothing.
    assert_eq!((link(&encrypted, "calls"), link(&encrypted, "calls_per_order")), (Value::Null, Value::Null));
    let calls = link(&single, "calls").as_u64().unwrap();
    // Each call has its connection; some find the service dead, and get no further.
    assert!(calls > 200 && link(&single, "connections").as_u64().unwrap() >= calls);
    for summary in [&encrypted, &single] {
        assert!(at(summary, "goodput.committed_orders").as_u64().unwrap() >= 80, "it was sold out");
    }
    sandbox.assert_nothing_left();
}

fn has_every_file(run: &Path) {
    let names = files(run);
    for name in ["scenario.toml", "latency.hlog", "summary.json", "report.html", "report.md", "junit.xml"] {
        assert!(names.iter().any(|n| n == name), "no {name} among {names:?}");
        assert!(fs::metadata(run.join(name)).unwrap().len() > 0, "{name} is empty");
    }
    assert!(names.iter().any(|n| n.starts_with("history/") && n.ends_with(".parquet")), "no history in {names:?}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<svg"), "the report draws its charts itself");
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.contains(outside), "the report opens offline, and has {outside}");
    }
    let scenario = fs::read_to_string(run.join("scenario.toml")).unwrap();
    assert!(scenario.contains("seed = 7"), "{scenario}");
}

fn says_what_is_documented(summary: &Value, killed: &str) {
    assert_eq!(at(summary, "verdict"), "pass");
    assert_eq!(at(summary, "exit_code"), 0);
    assert_eq!(at(summary, "partial"), false);
    assert_eq!(at(summary, "seed"), 7);
    assert!(!at(summary, "invariants").as_array().unwrap().is_empty());
    for invariant in summary["invariants"].as_array().unwrap() {
        assert_eq!(at(invariant, "verdict"), "pass", "{invariant:#}");
        assert!(at(invariant, "detail").is_string() && at(invariant, "witness").is_array());
    }
    for path in [
        "load.offered_rps",
        "load.peak_rps",
        "load.send_lag_us_p50",
        "load.send_lag_us_max",
        "outcomes.ok",
        "outcomes.info",
        "goodput.per_second",
        "cost.wal_bytes_per_order",
        "machine.cpus",
    ] {
        assert!(at(summary, path).is_number(), "{path} is no number: {}", at(summary, path));
    }
    // Too few samples leave a percentile null, but never out.
    for stats in [at(summary, "latency.steps.order"), at(summary, "latency.phases.sale")] {
        assert!(at(stats, "count").as_u64().unwrap() > 0 && at(stats, "us_max").as_u64().unwrap() > 0);
        for key in ["us_p50", "us_p99", "us_p999", "us_p99_interval", "us_p999_interval"] {
            at(stats, key);
        }
    }
    for key in ["send_lag_us_p99", "send_lag_us_p999", "send_lag_us_p99_interval", "send_lag_us_p999_interval"] {
        assert!(at(summary, "load")[key].is_null(), "{key} of so few arrivals: {:#}", at(summary, "load"));
    }
    assert!(at(summary, "load.send_lag_missing")[0].as_str().unwrap().starts_with("not enough samples for TP99 ("));
    let number = |path: &str| at(summary, path).as_u64().unwrap();
    assert!(number("load.planned") > 200, "the schedule is a function of the seed");
    assert_eq!(number("load.planned"), number("load.sent") + number("load.dropped"));
    assert!(number("outcomes.fail.sold-out") > 0);
    assert!(number("goodput.committed_orders") >= 80, "it was sold out");
    assert!((1..=80).contains(&number("goodput.units_sold")));
    assert_eq!(number("goodput.stock"), 80);
    for role in ["service", "postgres"] {
        assert!(at(summary, "cost.cpu_s")[role].as_f64().unwrap() > 0.0, "{role} cost nothing");
        assert!(at(summary, "cost.cpu_s_per_1000_orders")[role].is_number());
        assert!(at(summary, "cost.rss_peak_bytes")[role].as_u64().unwrap() > 0);
    }
    let links = at(summary, "links").as_array().unwrap();
    assert_eq!(links.len(), 2);
    for link in links {
        assert!(at(link, "from").is_string() && at(link, "to").is_string());
        assert!(at(link, "calls").as_u64().unwrap() > 0 && at(link, "calls_per_order").as_f64().unwrap() > 0.0);
    }
    let faults = at(summary, "faults").as_array().unwrap();
    assert_eq!(faults.len(), 2);
    for fault in faults {
        let ms = |key: &str| at(fault, key).as_f64().unwrap_or_else(|| panic!("no {key} in {fault:#}"));
        // The plan is a lower bound; how late a busy machine is, nobody can promise.
        assert!(ms("injected_at_ms") >= 1500.0, "{fault:#}");
        assert!(ms("healed_at_ms") > ms("injected_at_ms"), "{fault:#}");
        assert!(ms("recovered_at_ms") >= ms("healed_at_ms"), "{fault:#}");
    }
    assert_eq!((&faults[0]["kind"], &faults[0]["link"]), (&"latency".into(), &"service→postgres".into()));
    assert_eq!((&faults[1]["kind"], &faults[1]["role"]), (&"kill".into(), &killed.into()));
}

/// The evidence alone gives the verdict: the stack is long gone, and so is the summary.
fn judged_again_it_comes_to_the_same(sandbox: &Sandbox) {
    let first = summary(&sandbox.path("one"));
    copy(&sandbox.path("one"), &sandbox.path("again"));
    for name in ["summary.json", "report.html", "report.md", "junit.xml", "latency.hlog"] {
        fs::remove_file(sandbox.path("again").join(name)).unwrap();
    }
    let check = sandbox.seckill(&["check", "again", "--output", "json"]);
    check.assert_code(0);
    let printed: Value = serde_json::from_str(&check.stdout).expect("only JSON on stdout");
    assert_eq!(printed, first, "judged again, everything is the same");
    has_every_file(&sandbox.path("again"));

    fs::remove_file(sandbox.path("again").join("report.html")).unwrap();
    let report = sandbox.seckill(&["report", "again"]);
    report.assert_code(0);
    assert!(report.stdout.contains("PASS"), "{}", report.stdout);
    has_every_file(&sandbox.path("again"));
}

/// With a part of the history gone, nothing that is left can pass, and the gap is named.
fn evidence_with_a_hole_proves_nothing(sandbox: &Sandbox) {
    copy(&sandbox.path("one"), &sandbox.path("hole"));
    let history = sandbox.path("hole").join("history");
    let parts = files(&history);
    assert!(parts.len() > 2, "{parts:?}");
    fs::remove_file(history.join(&parts[1])).unwrap();
    let check = sandbox.seckill(&["check", "hole"]);
    check.assert_code(12);
    assert!(check.stdout.contains("UNKNOWN") && check.stdout.contains("damage"), "{}", check.stdout);
    let summary = summary(&sandbox.path("hole"));
    assert_eq!(summary["verdict"], "unknown");
    assert!(summary["distrust"].to_string().contains("missing"), "{}", summary["distrust"]);
    // The report of a judged run ends with the code of its verdict, too.
    sandbox.seckill(&["report", "hole"]).assert_code(12);
}

/// With the end of the ledger gone, the orders in it must not be taken for lost.
fn a_ledger_that_is_cut_off_accuses_nobody(sandbox: &Sandbox) {
    copy(&sandbox.path("one"), &sandbox.path("cut"));
    let ledger = sandbox.path("cut").join("ledger.jsonl");
    let rows = fs::read_to_string(&ledger).unwrap();
    let kept: Vec<_> = rows.lines().take(rows.lines().count() / 2).collect();
    fs::write(&ledger, kept.join("\n")).unwrap();
    sandbox.seckill(&["check", "cut"]).assert_code(12);
    let summary = summary(&sandbox.path("cut"));
    assert!(summary["distrust"].to_string().contains("where audit.json counts"), "{}", summary["distrust"]);
    assert_eq!(verdict_of(&summary, "I2"), "unknown");
    assert!(verdicts(&summary).iter().all(|(_, verdict)| verdict != "fail"), "{summary:#}");
}

#[test]
fn an_audit_that_cannot_be_written_makes_the_verdict_unknown() {
    let room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let run = sandbox.path("run");
    // A folder under the ledger's name is as good as a full disk, for the last step of writing it.
    fs::create_dir_all(run.join("ledger.jsonl")).unwrap();
    let ended = sandbox.seckill(&["run", "short.toml", "--out", "run"]);
    drop(room);
    ended.assert_code(12);
    sandbox.assert_nothing_left();
    let summary = summary(&run);
    assert_eq!(summary["ended"], "completed", "the history is closed");
    assert!(summary["distrust"].to_string().contains("ledger.jsonl"), "{}", summary["distrust"]);
    assert!(verdicts(&summary).iter().all(|(_, verdict)| verdict != "fail"), "{summary:#}");
    assert!(!files(&run).iter().any(|name| name.contains("audit.json") || name.ends_with(".partial")));
    // Judged again, it comes to the same.
    sandbox.seckill(&["check", "run"]).assert_code(12);
}

#[test]
fn every_kind_of_buyer_comes_and_is_measured_by_itself() {
    let room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("traces")).unwrap();
    sandbox.write("cohorts.toml", COHORTS);
    sandbox.write("traces/ordinary-evening.csv", EVENING);
    // How fast a busy machine is, nobody can promise.
    let mut arguments = vec!["run", "cohorts.toml", "--out", "run", "--quiet"];
    for set in ["load.send_lag_limit=3s", "load.patience=10s", "steady_state.within=3s", "slo.0.p50=10s"] {
        arguments.extend(["--set", set]);
    }
    let ended = sandbox.seckill(&arguments);
    drop(room);
    ended.assert_code(0);
    sandbox.assert_nothing_left();
    let first = summary(&sandbox.path("run"));
    let number = |path: &str| at(&first, path).as_u64().unwrap();
    assert_eq!(number("load.planned"), number("load.sent") + number("load.dropped"));
    let made = |cohort: &str, step: &str| number(&format!("latency.cohorts.{cohort}.{step}.count"));
    let recorded = EVENING.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() as u64;
    assert_eq!(made("bystanders", "login"), recorded, "the trace is played");
    assert_eq!(made("people", "login"), 250, "everybody answers the challenge");
    assert!(
        made("readers", "page") > 20 * made("writers", "login") && made("writers", "login") > 0,
        "a hundred to one"
    );
    assert!(made("hoarders", "login") > 15, "hoarders come again");
    assert!(first["latency"]["cohorts"]["hoarders"].get("pay").is_none(), "and never pay");
    assert_eq!(made("skewed", "login"), 40);
    // Whoever waits for the opening is told of it, and nobody has to ask too early to learn of it.
    let ended_as = |step: &str, how: &str| at(&first, "outcomes.steps")[step][how].as_u64().unwrap_or(0);
    assert!(ended_as("opening", "ok") >= 25 && made("early-birds", "order") >= 25, "{first:#}");
    // A token is got once, and opens one purchase, however often it is spent.
    assert_eq!((made("replayers", "answer"), made("replayers", "challenge") >= 20), (20, true));
    assert!(ended_as("token-order", "fail:token-spent") > 0, "nobody has spent a token again: {first:#}");
    assert_eq!(verdict_of(&first, "I6"), "pass", "{first:#}");
    assert!(number("outcomes.fail.too-early") > 0, "some clocks are early");
    for cohort in ["bots", "stormers"] {
        assert!(made(cohort, "order") > made(cohort, "login"), "{cohort} try more than once");
    }
    assert!(ended.stdout.contains("bystanders · order"), "{}", ended.stdout);
    // The run folder needs nothing of where the scenario came from.
    fs::remove_dir_all(sandbox.path("traces")).unwrap();
    let again = sandbox.seckill(&["check", "run", "--output", "json"]);
    again.assert_code(0);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).expect("only JSON on stdout"), first);
}

#[test]
fn a_target_that_oversells_is_convicted_with_a_witness() {
    let room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let ended = sandbox.seckill(&["run", "short.toml", "--out", "run", "--set", "target.bug=4"]);
    drop(room);
    ended.assert_code(11);
    sandbox.assert_nothing_left();
    let summary = summary(&sandbox.path("run"));
    assert_eq!(summary["verdict"], "fail");
    assert_eq!(summary["exit_code"], 11);
    let oversell = summary["invariants"].as_array().unwrap().iter().find(|i| i["id"] == "I1").unwrap();
    assert_eq!(oversell["verdict"], "fail");
    assert!(!oversell["witness"].as_array().unwrap().is_empty(), "{oversell:#}");
    assert!(ended.stdout.contains("FAIL") && ended.stdout.contains("I1"), "{}", ended.stdout);
    let scenario = fs::read_to_string(sandbox.path("run/scenario.toml")).unwrap();
    assert!(scenario.contains("bug = 4"), "the run folder says what was rehearsed: {scenario}");
    let junit = fs::read_to_string(sandbox.path("run/junit.xml")).unwrap();
    assert!(junit.contains("<failure"), "{junit}");
    // Convicted again from the evidence alone.
    sandbox.seckill(&["check", "run"]).assert_code(11);
}

/// The short rehearsal, with its folder, once its load is under way.
fn under_load() -> (Sandbox, PathBuf, Started) {
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let run = sandbox.path("run");
    let mut started = sandbox.start(&["run", "short.toml", "--out", "run", "--quiet"]);
    wait_for_history(&mut started, &run);
    (sandbox, run, started)
}

#[test]
fn an_interrupted_rehearsal_ends_in_order_and_says_that_it_is_partial() {
    let room = Room::for_rehearsals(1);
    let (sandbox, run, started) = under_load();
    kill(Pid::from_raw(started.id()), Signal::SIGINT).unwrap();
    assert_eq!(started.code(), Some(12));
    drop(room);
    sandbox.assert_nothing_left();
    let summary = summary(&run);
    assert_eq!(summary["partial"], true);
    assert_eq!(summary["ended"], "interrupted");
    assert_eq!(summary["verdict"], "unknown");
    assert_eq!(summary["exit_code"], 12);
    for report in ["report.md", "report.html"] {
        let text = fs::read_to_string(run.join(report)).unwrap().to_lowercase();
        assert!(text.contains("partial"), "{report} does not say that it is about a part");
    }
    // It ended in order, so what it has is whole: cut short is not damaged.
    let damage = summary["distrust"].to_string();
    assert!(!damage.contains("damage"), "{damage}");
    assert_eq!(verdicts(&summary).iter().filter(|(_, verdict)| verdict == "fail").count(), 0);
}

#[test]
fn a_killed_harness_leaves_nothing_behind_but_a_readable_history() {
    let room = Room::for_rehearsals(1);
    let (sandbox, run, started) = under_load();
    assert!(!sandbox.left_behind().is_empty(), "there must be something to clean up for this to mean anything");
    started.kill();
    // The guard's own promise is about a second; the test only tells late from never, and prints what it was.
    let took = sandbox.wait_until_nothing_left();
    eprintln!("everything was gone {took:?} after the harness was killed");
    drop(room);
    let check = sandbox.seckill(&["check", "run"]);
    check.assert_code(12);
    assert!(check.stdout.contains("damage") && check.stdout.contains("killed"), "{}", check.stdout);
    let summary = summary(&run);
    assert_eq!(summary["partial"], true);
    assert_eq!(verdict_of(&summary, "I1"), "unknown");
    assert!(at(&summary, "load.requests").as_u64().unwrap() > 0, "what was written before the kill is read");
}

#[test]
fn a_stack_alone_comes_up_prints_its_addresses_and_goes_down_when_asked() {
    let room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    let started = sandbox.start(&["stack", "up", "short.toml"]);
    let printed = || fs::read_to_string(sandbox.path("stdout")).unwrap();
    wait_for("the addresses", Duration::from_secs(120), || printed().contains("postgres, directly"));
    let text = printed();
    let line = text.lines().find(|line| line.contains("http://")).expect("an address for buyers");
    let address = line.rsplit("http://").next().unwrap().trim();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /time HTTP/1.1\r\nhost: target\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    // A client of the proxies' API that keeps its connection does not keep the stack up.
    let line = text.lines().find(|line| line.starts_with("toxiproxy API")).expect("an address for toxics");
    let mut toxics = TcpStream::connect(line.split_whitespace().last().unwrap()).unwrap();
    toxics.write_all(b"GET /proxies/client-to-service HTTP/1.1\r\nhost: api\r\n\r\n").unwrap();
    let mut reply = [0; 4096];
    let length = toxics.read(&mut reply).unwrap();
    let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains(address), "{reply}");
    kill(Pid::from_raw(started.id()), Signal::SIGINT).unwrap();
    assert_eq!(started.code(), Some(0));
    drop(toxics);
    drop(room);
    // The logs stay behind in TMPDIR for whoever wants to read them; the stack does not.
    let left: Vec<String> = sandbox.left_behind().into_iter().filter(|left| !left.ends_with(".log")).collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
}
