//! Drills through the real binary: what is refused before anything is made, a drill without people and its replay, and one with
//! people, who are played over HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::{self, Browser};
use crate::support::{Room, Sandbox, Started, answers, skipped, wait_for};

const SHORT: &str = include_str!("support/short.toml");

/// A drill around the short rehearsal.
const DRILL: &str = r#"
name = "short-drill"
title = "A short drill 短演练"
scenario = "short.toml"

[[role]]
name = "on-call"
person = "Lin"

[[check]]
id = "stock"
text = "The stock is agreed on"
owner = "on-call"
done = "80 units"

[[check]]
id = "tools"
text = "There is a shell"
owner = "on-call"
command = "echo a shell"

[[expect]]
id = "lost-orders"
text = "Orders are lost while the service is dead"
after = "dead-service"
unsteady = true
within = "5s"
back_within = "20s"

[[runbook]]
id = "opening"
text = "Say that the sale is open"
owner = "on-call"
at = "1s"
within = "60s"

[[runbook]]
id = "find-it"
text = "Say what is dead"
owner = "on-call"
after = "kill"
within = "60s"
locates = true
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("short.toml", SHORT);
    sandbox.write("drill.toml", DRILL);
    sandbox
}

/// The same with a load that goes on until somebody stops it, however busy the machine is.
fn long_sandbox() -> Sandbox {
    let sandbox = sandbox();
    let long = SHORT.replace("duration = \"7s\"", "duration = \"90s\"").replace("lasts = \"7s\"", "lasts = \"90s\"");
    assert_eq!(long.matches("90s").count(), 2, "the short rehearsal has changed");
    sandbox.write("short.toml", &long);
    sandbox
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

#[test]
fn the_committed_schema_of_drills_is_the_one_in_force() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/drill.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    let current = format!("{:#}\n", harness::drill::file::json_schema());
    assert!(committed == current, "write it anew: target/release/seckill schema drill > schemas/drill.json");
}

#[test]
fn the_drills_that_come_with_the_project_are_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../drills");
    for name in ["presale.toml", "surprise.toml", "degrading.toml", "adapted-shop.toml"] {
        let path = Path::new(folder).join(name);
        if let Err(error) = harness::drill::file::read(&path, &[], None, harness::scenario::load_variant) {
            panic!("{error}");
        }
    }
}

#[test]
fn a_checklist_with_blanks_keeps_a_drill_from_starting() {
    let sandbox = sandbox();
    let blank = DRILL.replace("done = \"80 units\"", "done = \" \"").replace("echo a shell", "echo no >&2; exit 3");
    sandbox.write("drill.toml", &blank);
    let ended = sandbox.seckill(&["drill", "drill.toml", "--out", "out"]);
    ended.assert_code(2).assert_says(&[
        "the release checklist is not done",
        "stock (on-call): The stock is agreed on",
        "`done` is blank",
        "tools (on-call)",
        "ended with exit status: 3: no",
        "help: write into `done`",
    ]);
    assert!(!sandbox.path("out").exists(), "nothing is made");
    sandbox.assert_nothing_left();
}

#[test]
fn a_live_page_that_cannot_be_served_keeps_a_drill_from_starting() {
    let sandbox = sandbox();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = sandbox.seckill(&["drill", "drill.toml", "--out", "out", "--listen", &address]);
    ended.assert_code(20).assert_says(&["cannot listen on", &address, "--listen 127.0.0.1:0"]);
    assert!(!sandbox.path("out").exists(), "nothing is made");
    sandbox.assert_nothing_left();
}

#[test]
fn each_mistake_in_a_drill_is_explained_where_it_is() {
    let sandbox = sandbox();
    let mistakes: &[(&str, &str, &str, &[&str])] = &[
        (
            "scenario = \"short",
            "scenario = \"long",
            "scenario =",
            &["there is no file long.toml", "from the drill's own folder"],
        ),
        (
            "unsteady = true",
            "unsteady = true\nbreaker = \"profile\"",
            "id = \"lost-orders\"",
            &["names 2 signals", "exactly one of"],
        ),
        (
            "after = \"dead-service\"",
            "after = \"dead\"",
            "after = \"dead\"",
            &["breaks nothing called \"dead\"", "dead-service"],
        ),
        (
            "owner = \"on-call\"\nat",
            "owner = \"nobody\"\nat",
            "owner = \"nobody\"",
            &["no role \"nobody\"", "one of on-call"],
        ),
        ("at = \"1s\"", "at = \"1h\"", "at = \"1h\"", &["`at` is 3600s", "before that"]),
        ("after = \"kill\"", "after = \"kill\"\nat = \"2s\"", "id = \"find-it\"", &["neither or both", "give at"]),
        ("id = \"tools\"", "id = \"stock\"", "id = \"stock\"", &["two [[check]] called \"stock\""]),
        ("text = \"The stock", "test = \"The stock", "test =", &["unknown field `test`", "seckill schema drill"]),
        ("within = \"5s\"", "within = \"soon\"", "within =", &["`soon` is not a duration"]),
        (
            "unsteady = true",
            "errors = { step = \"oder\", above = 0.1 }",
            "errors",
            &["no step \"oder\"", "one of login"],
        ),
        (
            "scenario = \"short.toml\"",
            "scenario = \"short.toml\"\nvariant = \"on\"",
            "variant",
            &["the scenario has none called \"on\"", "leave `variant` out"],
        ),
    ];
    for (from, to, line, says) in mistakes {
        let text = DRILL.replacen(from, to, 1);
        assert_ne!(text, DRILL, "the drill no longer has {from}");
        sandbox.write("drill.toml", &text);
        let ended = sandbox.seckill(&["drill", "drill.toml", "--out", "out"]);
        ended.assert_code(2).assert_says(says);
        let places: Vec<String> = (1..)
            .zip(text.lines())
            .filter(|(_, found)| found.contains(line))
            .map(|(number, _)| format!("drill.toml:{number}:"))
            .collect();
        assert!(places.iter().any(|place| ended.stderr.contains(place)), "none of {places:?} in\n{}", ended.stderr);
        assert!(!sandbox.path("out").exists(), "a folder was made for nothing");
    }
    let ended = sandbox.seckill(&["drill", "nope.toml"]);
    ended.assert_code(2).assert_says(&["cannot read the drill nope.toml", "`ls drills/`"]);
}

#[test]
fn a_drill_without_people_is_reviewed_and_plays_again_the_same() {
    let _room = Room::for_rehearsals(1);
    let sandbox = sandbox();
    let surprise = format!(
        "{DRILL}\n[surprise]\nfaults = 2\nfrom = \"1500ms\"\nuntil = \"6s\"\nlasts = [\"800ms\", \"1500ms\"]\n\
         inject = [{{ kill = {{ role = \"service\" }} }}, {{ latency = {{ link = \"service→postgres\", delay = \"8ms\" }} }}]\n\
         [[stop]]\nname = \"nothing-works\"\nerror_fraction = 0.99\n"
    );
    sandbox.write("drill.toml", &surprise.replace("after = \"dead-service\"", "after = \"any\""));
    let arguments =
        ["drill", "drill.toml", "--unattended", "--seed", "11", "--out", "drills/first", "--output", "json"];
    let first = sandbox.seckill(&arguments);
    let score: Value = serde_json::from_str(&first.stdout).unwrap_or_else(|e| panic!("{e}\n{}", first.stderr));
    assert_eq!(first.code, score["exit_code"].as_i64().map(|code| code as i32));
    assert_ne!(score["verdict"], "fail", "{}", score["verdict_reason"]);
    let ids: Vec<&str> = score["faults"].as_array().unwrap().iter().filter_map(|fault| fault["id"].as_str()).collect();
    assert_eq!(ids, ["surprise-1", "surprise-2"], "the scenario's own faults give way to the surprise");
    assert!(score["faults"][0]["recovered_ms"].is_number() && score["faults"][0]["alert_ms"].is_null(), "{score:#}");
    assert_eq!(score["runbook"][0]["outcome"], "not-asked");
    assert_eq!(score["checklist"][1]["evidence"], "`echo a shell`: a shell");
    assert!(score["previous"].is_null());
    let folder = sandbox.path("drills/first");
    for name in ["drill.toml", "drill.jsonl", "drill.json", "review.md", "review.html", "report.html", "summary.json"] {
        assert!(folder.join(name).is_file(), "{name} is missing");
    }
    let page = fs::read_to_string(folder.join("review.html")).unwrap();
    assert!(
        page.contains("<svg") && page.contains("What is to be done") && !page.contains("src=\"http"),
        "it opens offline"
    );

    // From its folder, wherever that is now: the same seed, and so the same faults at the same times.
    fs::rename(&folder, sandbox.path("drills/moved")).unwrap();
    let again = ["drill", "drills/moved/drill.toml", "--unattended", "--out", "drills/second", "--output", "json"];
    let again = sandbox.seckill(&again);
    let second: Value = serde_json::from_str(&again.stdout).unwrap_or_else(|e| panic!("{e}\n{}", again.stderr));
    assert_eq!((&second["seed"], &second["timeline_hash"]), (&score["seed"], &score["timeline_hash"]));
    assert_eq!(second["previous"]["same_timeline"], true, "it is compared with the one before: {second:#}");
    assert_eq!(second["previous"]["started_at"], score["started_at"]);

    // The review is made again from the folder alone.
    let review = fs::read(sandbox.path("drills/moved/review.md")).unwrap();
    fs::remove_file(sandbox.path("drills/moved/review.md")).unwrap();
    let said = sandbox.seckill(&["report", "drills/moved"]);
    assert!(said.stdout.contains("## What broke, and what came of it"), "{}", said.stdout);
    assert_eq!(fs::read(sandbox.path("drills/moved/review.md")).unwrap(), review);
    sandbox.seckill(&["check", "drills/moved"]);
    assert_eq!(read_json(&sandbox.path("drills/moved/drill.json")), score, "the evidence gives the same scores again");
    sandbox.assert_nothing_left();
}

/// What a server answered.
struct Answer {
    status: u16,
    body: String,
}

/// Sends one request, as a browser, a monitoring or an intruder would.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {address}\r\n"));
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Answer { status, body }
}

/// The live page's address, as the drill says it.
fn page(sandbox: &Sandbox, started: &mut Started) -> (SocketAddr, String) {
    let mut url = None;
    wait_for("the address of the live page", Duration::from_secs(60), || {
        assert!(started.is_running(), "{}", fs::read_to_string(sandbox.path("stderr")).unwrap());
        let said = fs::read_to_string(sandbox.path("stderr")).unwrap();
        url = said.lines().find_map(|line| line.strip_prefix("live page: http://").map(str::to_owned));
        url.is_some()
    });
    let url = url.unwrap();
    let (address, path) = url.split_once('/').unwrap();
    (address.parse().unwrap(), format!("/{path}"))
}

fn state(address: SocketAddr) -> Value {
    let answer = ask(address, "GET", "/state", &[], "");
    serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body))
}

/// Snapshots as they are pushed, until one of them is the last.
fn pushed_until_over(address: SocketAddr) -> Vec<Value> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("text/event-stream"), "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| data.starts_with('{'));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[test]
fn people_see_acknowledge_and_stop_and_nobody_else_does() {
    let _room = Room::for_rehearsals(1);
    let sandbox = long_sandbox();
    let mut started = sandbox.start(&["drill", "drill.toml", "--out", "out", "--quiet"]);
    let (address, path) = page(&sandbox, &mut started);
    assert!(address.ip().is_loopback() && path == "/", "{address}{path}");
    let watching = std::thread::spawn(move || pushed_until_over(address));
    let html = ask(address, "GET", "/", &[], "");
    assert!(html.status == 200 && html.body.contains("Stop and heal"), "{}", html.status);
    assert!(!html.body.contains("src=") && !html.body.contains("@import"), "the page takes nothing from elsewhere");

    // Somebody else's page in the same browser, and a name that leads here by a trick.
    let foreign = ask(address, "POST", "/stop", &[("origin", "http://evil.example")], "");
    let renamed = ask(address, "GET", "/state", &[("host", "evil.example")], "");
    assert_eq!((foreign.status, renamed.status), (403, 403));

    let early = ask(address, "POST", "/ack/opening", &[], "{}");
    assert!(early.status == 409 && early.body.contains("not due yet"), "{}", early.body);
    let unknown = ask(address, "POST", "/ack/nothing", &[], "{}");
    assert!(unknown.status == 409 && unknown.body.contains("one of opening, find-it"), "{}", unknown.body);

    let limit = Duration::from_secs(120);
    wait_for("the opening to be due", limit, || state(address)["runbook"][0]["due_s"].is_number());
    let own = format!("http://{address}");
    let opened = ask(address, "POST", "/ack/opening", &[("origin", &own)], r#"{"by":"Lin"}"#);
    assert_eq!(opened.status, 204, "{}", opened.body);
    let twice = ask(address, "POST", "/ack/opening", &[], "{}");
    assert!(twice.status == 409 && twice.body.contains("already"), "{}", twice.body);

    wait_for("the service to be dead", limit, || state(address)["runbook"][1]["due_s"].is_number());
    let alert =
        r#"{"alerts":[{"status":"firing","labels":{"alertname":"ShopDown"},"annotations":{"summary":"no answer"}}]}"#;
    assert_eq!(ask(address, "POST", "/alerts", &[], alert).status, 204);
    for nothing in ["{}", r#"{"alerts":[1,{"labels":3}]}"#, r#"{"alerts":[{"labels":{"alertname":" "}}]}"#] {
        assert_eq!(ask(address, "POST", "/alerts", &[], nothing).status, 409, "{nothing}");
    }
    assert_eq!(ask(address, "POST", "/ack/find-it", &[], "{}").status, 204);
    let shown = state(address);
    assert_eq!(shown["alerts"][0]["name"], "ShopDown");
    assert!(shown["steps"].as_array().unwrap().iter().any(|step| step["step"] == "order"), "{shown:#}");
    assert_eq!(ask(address, "POST", "/stop", &[], "").status, 204);

    let code = started.code();
    let score = read_json(&sandbox.path("out/drill.json"));
    assert!(code.is_some_and(|code| code >= 10), "a drill that was stopped does not pass: {code:?}");
    assert!(score["stopped"].as_str().is_some_and(|why| why.contains("pressed stop on the page")), "{score:#}");
    assert_eq!(score["runbook"][0]["outcome"], "in-time");
    assert_eq!(score["runbook"][0]["by"], "Lin");
    let dead = score["faults"].as_array().unwrap().iter().find(|fault| fault["id"] == "dead-service").unwrap();
    assert_eq!(dead["alert"], "ShopDown");
    assert!(dead["alert_ms"].is_number() && dead["located_ms"].is_number(), "{dead:#}");
    let snapshots = watching.join().unwrap();
    let stages: Vec<&str> = snapshots.iter().filter_map(|shot| shot["stage"].as_str()).collect();
    assert!(stages.contains(&"load") && stages.last() == Some(&"over"), "{stages:?}");
    let last = snapshots.last().unwrap();
    assert!(last["verdict"].as_str().is_some_and(|verdict| verdict.contains("exit code")), "{last:#}");
    sandbox.assert_nothing_left();
}

#[test]
fn elsewhere_than_on_loopback_nobody_gets_in_without_the_token() {
    let _room = Room::for_rehearsals(1);
    let sandbox = long_sandbox();
    let mut started = sandbox.start(&["drill", "drill.toml", "--out", "out", "--quiet", "--listen", "0.0.0.0:0"]);
    let (address, path) = page(&sandbox, &mut started);
    let token = path.strip_prefix("/?token=").unwrap_or_else(|| panic!("no token in {path}"));
    assert_eq!(token.len(), 32);
    for path in ["/", "/state", "/events", "/?token=0123"] {
        assert_eq!(ask(address, "GET", path, &[], "").status, 401, "{path}");
    }
    assert_eq!(ask(address, "POST", "/stop", &[], "").status, 401);
    assert_eq!(ask(address, "GET", &path, &[], "").status, 200);
    assert_eq!(ask(address, "GET", "/state", &[("x-drill-token", token)], "").status, 200);
    started.kill();
    sandbox.wait_until_nothing_left();
}

#[test]
fn a_terminal_shows_what_the_page_does_and_takes_acknowledgements() {
    if !answers("script", "--version") {
        return skipped("there is no `script` to make a terminal with: apt-get install bsdutils");
    }
    let _room = Room::for_rehearsals(1);
    let sandbox = sandbox();
    let seckill = env!("CARGO_BIN_EXE_seckill");
    let drill = format!("stty rows 40 cols 150; exec {seckill} drill drill.toml --out out");
    let mut shown =
        sandbox.command_of(Path::new("script"), &["--quiet", "--flush", "--return", "--command", &drill, "typescript"]);
    let mut child = shown.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let screen = || String::from_utf8_lossy(&fs::read(sandbox.path("typescript")).unwrap_or_default()).into_owned();
    wait_for("the first step on the screen", Duration::from_secs(60), || {
        screen().contains("under load") && screen().contains(" s left")
    });
    typed.write_all(b"ack opening Lin\n").unwrap();
    wait_for("the acknowledgement on the screen", Duration::from_secs(30), || screen().contains("✓ opening"));
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", screen());
    drop(typed);
    let seen = screen();
    for what in
        ["A short drill", "checklist ✓ stock  ✓ tools", "steady state", "find-it", "dead-service", "TP999", "stock █"]
    {
        assert!(seen.contains(what), "{what} is not on the screen:\n{seen}");
    }
    let score = read_json(&sandbox.path("out/drill.json"));
    assert_eq!((&score["runbook"][0]["by"], &score["runbook"][0]["outcome"]), (&"Lin".into(), &"in-time".into()));
    sandbox.assert_nothing_left();
}

#[test]
fn a_dry_run_says_what_a_drill_would_do_and_starts_nothing() {
    let sandbox = sandbox();
    sandbox.write(
        "drill.toml",
        &DRILL.replace("done = \"80 units\"", "done = \" \"").replace("echo a shell", "touch ran"),
    );
    let ended = sandbox.seckill(&["drill", "drill.toml", "--dry-run", "--out", "out"]);
    ended.assert_code(0);
    for says in [
        "stock (on-call): The stock is agreed on: BLANK",
        "by `touch ran`",
        "lost-orders: no steady state within 5s of dead-service, gone within 20s of its healing",
        "opening (on-call): at 1s, within 60s",
        "find-it (on-call): after kill",
    ] {
        assert!(ended.stdout.contains(says), "{says}\n{}", ended.stdout);
    }
    assert!(!sandbox.path("out").exists() && !sandbox.path("ran").exists(), "nothing is made, and no command is run");
    sandbox.write("drill.toml", &DRILL.replace("at = \"1s\"", "at = \"1h\""));
    sandbox.seckill(&["drill", "drill.toml", "--dry-run"]).assert_code(2);
}

#[test]
fn a_drill_that_could_not_start_does_not_take_its_folder() {
    let _room = Room::for_rehearsals(1);
    let sandbox = sandbox();
    let hold = ["drill", "drill.toml", "--out", "out", "--unattended", "--quiet"];
    let nobody = elsewhere(", within=\"1s\"", "");
    let failed = sandbox.seckill(&[&hold[..], &["--set", &nobody, "--set", ONE_FAULT]].concat());
    failed.assert_code(20);
    // The same command without the mistake.
    let held = sandbox.seckill(&hold);
    held.assert_code(0);
    let entries = fs::read_to_string(sandbox.path("out/drill.jsonl")).unwrap();
    assert_eq!(entries.matches("\"opened\"").count(), 1, "the first try left its entries:\n{entries}");
    sandbox.assert_nothing_left();
}

/// Somebody else's shop, where nobody answers, with a process that can be killed.
fn elsewhere(process: &str, more: &str) -> String {
    format!(
        "target={{external={{address=\"127.0.0.1:1\",process={{service={{start=[\"sleep\",\"60\"]{process}}}}}{more}}}}}"
    )
}

const ONE_FAULT: &str = r#"fault=[{id="dead-service",at="4s",lasts="1s",inject={kill={role="service"}}}]"#;

#[test]
fn what_nothing_can_tell_is_not_expected() {
    let sandbox = sandbox();
    sandbox.write("drill.toml", &DRILL.replace("unsteady = true", "breaker = \"ads\""));
    let with = |metrics: &str| {
        let target = elsewhere("", metrics);
        sandbox.seckill(&["drill", "drill.toml", "--dry-run", "--set", &target, "--set", ONE_FAULT])
    };
    with("").assert_code(2).assert_says(&["nothing tells what the breakers", "target.external.metrics"]);
    with(",metrics={at=\"192.0.2.7:9100\"}").assert_code(2).assert_says(&["metrics.at", "is not this machine"]);
    with(",metrics={at=\"127.0.0.1:9100/metrics\"}").assert_code(0);
}

/// Reads what the service's own meters said: a level that came and went, and a breaker that opened and closed.
#[test]
fn levels_and_breakers_of_the_real_service_are_held_against_what_was_expected() {
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    let copied = |name: &str| fs::read_to_string(Path::new(home).join(name)).unwrap();
    let drill = copied("drills/degrading.toml").replace("../scenarios/", "");
    sandbox.write("drill.toml", &drill);
    let scenario = copied("scenarios/degrading.toml");
    sandbox.write("degrading.toml", &scenario);
    let ended = sandbox.seckill(&["drill", "drill.toml", "--unattended", "--out", "on", "--quiet"]);
    let expected = |folder: &str| -> Vec<(String, String)> {
        let score = read_json(&sandbox.path(folder).join("drill.json"));
        let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        score["expectations"].as_array().unwrap().iter().map(|e| (text(e, "id"), text(e, "outcome"))).collect()
    };
    let met = ["extras-off", "breaker-opens", "closed", "snapshot"].map(|id| (id.to_owned(), "met".to_owned()));
    assert_eq!(expected("on"), met, "{}", ended.stderr);
    // Where nothing is given up by itself, the same drill says so; the breaker works all the same.
    sandbox.write("drill.toml", &drill.replace("\"on\"", "\"no-levels\""));
    let ended = sandbox.seckill(&["drill", "drill.toml", "--unattended", "--out", "off", "--quiet"]);
    let missed: Vec<String> =
        expected("off").into_iter().filter(|(_, outcome)| outcome != "met").map(|(id, _)| id).collect();
    assert_eq!(missed, ["extras-off", "closed", "snapshot"], "{}", ended.stderr);
    ended.assert_code(10);
    sandbox.assert_nothing_left();
}

/// How much the page's letters stand out from its ground: the ratio of WCAG 2.1, from 1 to 21.
const CONTRAST: &str = r"(() => {
    const light = (color) => {
        const parts = color.match(/[0-9.]+/g).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const style = getComputedStyle(document.body);
    const both = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
})()";

#[test]
fn in_a_browser_people_see_and_press_with_a_keyboard_and_hear_what_it_is() {
    let Some(mut browser) = Browser::open() else {
        return skipped(browser::MISSING);
    };
    let _room = Room::for_rehearsals(1);
    let sandbox = long_sandbox();
    let mut started = sandbox.start(&["drill", "drill.toml", "--out", "out", "--quiet"]);
    let (address, _) = page(&sandbox, &mut started);
    browser.go(&format!("http://{address}/"));
    browser.wait_until("document.getElementById('stage').textContent === 'under load'");
    browser.wait_until("document.querySelector('[data-step=opening]') !== null");
    browser.wait_until("document.querySelectorAll('#chart-rate svg path').length === 2");
    for width in [360_u64, 1920] {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.call("Emulation.setDeviceMetricsOverride", &size);
        // Not against `innerWidth`, which on a phone grows with what is too wide.
        let wide = browser.eval("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= width, "something is {wide} pixels wide on a screen of {width}");
    }
    // In the dark as in the light: another ground, and letters that stand out from it (WCAG 2.1, 1.4.6).
    let shades = ["light", "dark"].map(|scheme| {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", &feature);
        let contrast = browser.eval(CONTRAST).as_f64().unwrap();
        assert!(contrast >= 7.0, "letters have a contrast of {contrast:.1} in the {scheme}");
        browser.eval("getComputedStyle(document.body).backgroundColor")
    });
    assert_ne!(shades[0], shades[1]);
    let heard = browser.heard();
    let hears = |role: &str, name: &str| heard.iter().any(|(r, n)| r == role && n.starts_with(name));
    assert!(hears("button", "Acknowledge: Say that the sale is open") && hears("button", "Stop and heal"), "{heard:?}");
    assert!(
        (hears("image", "Stock left: ") || hears("img", "Stock left: ")) && hears("heading", "A short drill"),
        "{heard:?}"
    );
    assert_eq!(browser.eval("document.getElementById('urgent').textContent.includes('Now due: Say that')"), true);

    let key =
        |key: &str, kind: &str, modifiers: u8| json!({ "type": kind, "key": key, "text": key, "modifiers": modifiers });
    browser.call("Input.dispatchKeyEvent", &key("a", "keyDown", 0));
    wait_for("the acknowledgement", Duration::from_secs(20), || state(address)["runbook"][0]["done_s"].is_number());
    // Brushing against the button does nothing, and one press of the key does not either.
    browser.eval("document.getElementById('stop').dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }))");
    browser.eval("document.getElementById('stop').dispatchEvent(new PointerEvent('pointerup', { bubbles: true }))");
    browser.call("Input.dispatchKeyEvent", &key("S", "keyDown", 8));
    assert!(state(address)["stopped"].is_null());
    browser.call("Input.dispatchKeyEvent", &key("S", "keyDown", 8));
    wait_for("the stop", Duration::from_secs(20), || state(address)["stopped"].is_string());
    browser.wait_until("document.getElementById('stage').textContent === 'over'");
    assert_eq!(browser.eval("document.getElementById('verdict').textContent.includes('exit code')"), true);
    drop(browser);
    assert!(started.code().is_some_and(|code| code >= 10));
}

/// The commands of the tutorial that this test can run: what makes a drill without people, and what renders it again.
#[test]
fn the_tutorials_commands_do_what_it_says() {
    let home = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let tutorial = fs::read_to_string(format!("{home}/docs/drill.md")).unwrap();
    let commands: Vec<Vec<&str>> = tutorial
        .lines()
        .filter_map(|line| line.strip_prefix("target/release/seckill "))
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace().collect())
        .collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in &commands {
        // Each is understood: a mistake in the command line is told before help is.
        let asked = Command::new(env!("CARGO_BIN_EXE_seckill")).args(command).arg("--help").output().unwrap();
        assert!(asked.status.success(), "{command:?}: {}", String::from_utf8_lossy(&asked.stderr));
    }
    if !Path::new(home).join("target/release/seckill-target").exists() {
        return skipped("the checklist of drills/presale.toml looks for the service in target/release");
    }
    let _room = Room::for_rehearsals(1);
    let sandbox = Sandbox::new();
    let out = sandbox.path("out");
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        let output = command.current_dir(home).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let mut codes = Vec::new();
    for command in commands.iter().filter(|command| command.contains(&"--unattended")) {
        let place = |word: &str| match word.strip_prefix("reports/drills/latest") {
            // What the page's command before has made.
            Some(rest) => format!("{}{rest}", out.display()),
            None => word.to_owned(),
        };
        let made = sandbox.path(&format!("out-{}", codes.len()));
        let mut arguments: Vec<String> = command.iter().map(|word| place(word)).collect();
        arguments.extend(["--out".to_owned(), made.display().to_string()]);
        let (code, said) = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains("## Expected and observed") && said.contains("review.html"), "{said}");
        assert_ne!(read_json(&made.join("drill.json"))["verdict"], "fail", "{said}");
        if codes.is_empty() {
            fs::rename(&made, &out).unwrap();
            let (again, said) = run(&["report", out.to_str().unwrap()]);
            assert_eq!(again, code, "{said}");
        }
        codes.push(code);
    }
    assert_eq!(codes.len(), 3, "the pre-sale drill, the surprise, and the first one once more");
    sandbox.assert_nothing_left();
}
