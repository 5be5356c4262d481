//! Somebody else's shop, through the real binary: the small shop in Python of docs/adapting-a-shop.md, which answers 200 with a code
//! inside, is adapted, rehearsed, killed, and convicted when it oversells. Every command of that page is run.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::doctor;
use harness::fault::proxy::Endpoint;
use harness::history::{EntryKind, FinalState, OrderState};
use harness::scenario::external::{self, ShopProcess, ShopSql};
use harness::stack::Component;
use harness::stack::external::books;
use harness::stack::external::process::Foreign;
use harness::stack::postgres::Postgres;
use harness::stack::process::RunAs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Ended, Room, Sandbox, answers, skipped};

const PAGE: &str = include_str!("../../../docs/adapting-a-shop.md");

/// A sandbox with the example in it, and ports of its own.
struct Example {
    sandbox: Sandbox,
    sets: Vec<String>,
}

impl Example {
    /// None where there is no Python to run the shop.
    fn new() -> Option<Example> {
        if !answers("python3", "--version") {
            skipped("the example is a shop in Python, and there is no python3; apt-get install python3");
            return None;
        }
        let sandbox = Sandbox::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/adapted-shop");
        let to = sandbox.path("scenarios/adapted-shop");
        fs::create_dir_all(&to).unwrap();
        let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [shop, link, ads] = [0, 1, 2].map(|n: usize| free[n].local_addr().unwrap().to_string());
        for name in ["shop.py", "sale.toml"] {
            let text = fs::read_to_string(from.join(name)).unwrap();
            let text =
                text.replace("127.0.0.1:8099", &shop).replace("127.0.0.1:8098", &link).replace("127.0.0.1:8097", &ads);
            fs::write(to.join(name), text).unwrap();
        }
        // The generator may be as late as it likes on a machine that runs tests.
        Some(Example { sandbox, sets: vec!["--set".into(), "load.send_lag_limit=3s".into()] })
    }

    fn seckill(&self, words: &[&str]) -> Ended {
        let sets: Vec<&str> = self.sets.iter().map(String::as_str).collect();
        let _room = Room::for_rehearsals(1);
        self.sandbox.seckill(&[words, sets.as_slice()].concat())
    }
}

const SALE: &str = "scenarios/adapted-shop/sale.toml";
/// The shop with the bug, as the page starts it.
const OVERSELL: &str =
    r#"target.process.service.start=["python3","scenarios/adapted-shop/shop.py","serve","--bug","oversell"]"#;

#[test]
fn each_reply_of_the_shop_is_taken_for_what_it_is() {
    let Some(example) = Example::new() else { return };
    let ended = example.seckill(&["adapt", SALE, "--output", "json"]);
    ended.assert_code(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let steps = report["cohorts"][0]["steps"].as_array().unwrap();
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap();
    assert_eq!((&step("login")["taken_for"], &step("login")["by"]), (&"ok".into(), &"[[outcome]] 1".into()));
    assert_eq!(
        (&step("order")["state"], &step("order")["by"]),
        (&"pending".into(), &"[[step.order.outcome]] 1".into())
    );
    assert_eq!(step("lookup")["taken_for"], "left out");
    assert!(step("ticket")["order"].as_str().unwrap().starts_with('A'), "{report:#}");
    assert_eq!((&step("pay")["state"], &step("pay")["amount_cents"]), (&"paid".into(), &9_900.into()));
    assert_eq!((&report["audit"]["source"], &report["audit"]["ledger_rows"]), (&"command".into(), &2.into()));
    assert_eq!(report["audit"]["found"], serde_json::json!([step("ticket")["order"]]));
    assert_eq!(report["cleaned_up"], "the shop was cleaned up, and its check found nothing left");
}

#[test]
fn what_an_adapter_lacks_is_named_with_the_rule_that_would_mend_it() {
    let Some(example) = Example::new() else { return };
    let path = example.sandbox.path(SALE);
    let text = fs::read_to_string(&path).unwrap();
    // Without the rules, a refusal in a 200 is taken for a success.
    let (start, end) = (text.find("# --- what replies mean").unwrap(), text.find("# --- steps").unwrap());
    let untold = format!("{}{}", &text[..start], &text[end..]);
    fs::write(
        &path,
        untold
            .replace("closes_at = \"10m\"", "closes_at = \"900ms\"")
            .replace("opens_at = \"1s\"", "opens_at = \"0s\""),
    )
    .unwrap();
    let ended = example.seckill(&["adapt", SALE]);
    ended.assert_code(12);
    for says in [
        "its body has a code of its own: [[outcome]] at = \"/code\", is = 0, means = \"ok\"",
        "it was taken for a success by its status, and its body has code 1004: [[step.order.outcome]] at = \"/code\", is = 1004",
        "reason_at = \"/msg\"",
        "✗ the adapter is not complete",
    ] {
        assert!(ended.stdout.contains(says), "{says}\n{}", ended.stdout);
    }
    // A value that is somewhere else is named with the part of the reply that was looked at.
    fs::write(&path, text.replace("capture = { ticket = \"/data/queue\" }", "capture = { ticket = \"/data/ticket\" }"))
        .unwrap();
    let ended = example.seckill(&["adapt", SALE]);
    ended.assert_code(12);
    let says = "`ticket` is not where the step captures it (/data/ticket); the reply has `{\"code\": 0, \"msg\": \"ok\", \"data\": {\"queue\"";
    assert!(ended.stdout.contains(says), "{}", ended.stdout);
    // A probe that is content whatever happens, and one that looks where nothing is.
    for (from, to, says) in [
        (
            "available = \"/data/left\"",
            "available = \"/data/rest\"",
            "no number stands at /data/rest (steady_state.available)",
        ),
        (
            "state = \"/data/orderStatus\"",
            "state = \"/data/standing\"",
            "no state stands where reply.state says (/data/standing)",
        ),
        ("amount = \"/data/total\"", "amount = \"/data/sum\"", "no amount stands where reply.amount says (/data/sum)"),
    ] {
        fs::write(&path, text.replace(from, to)).unwrap();
        let ended = example.seckill(&["adapt", SALE]);
        ended.assert_code(12);
        assert!(ended.stdout.contains(says), "{says}\n{}", ended.stdout);
    }
    // Words that nobody declared, and books that name buyers otherwise.
    fs::write(&path, text.replace("done = [\"DONE\"]", "done = [\"FINISHED\"]")).unwrap();
    let ended = example.seckill(&["adapt", SALE]);
    ended.assert_code(12);
    let says = "`DONE` at /data/status is none of reply.pending, reply.done and reply.failed";
    assert!(ended.stdout.contains(says), "{}", ended.stdout);
    fs::write(&path, &text).unwrap();
    let shop = example.sandbox.path("scenarios/adapted-shop/shop.py");
    let program = fs::read_to_string(&shop).unwrap();
    fs::write(&shop, program.replace("\"user\": buyer,", "\"user\": \"customer \" + no,")).unwrap();
    let ended = example.seckill(&["adapt", SALE]);
    ended.assert_code(12);
    assert!(ended.stdout.contains("for \"customer A"), "{}", ended.stdout);
}

#[test]
fn a_correct_shop_passes_also_when_it_is_killed() {
    let Some(example) = Example::new() else { return };
    let ended = example.seckill(&["run", SALE, "--out", "run", "--output", "json"]);
    ended.assert_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let fault = |id: &str| summary["faults"].as_array().unwrap().iter().find(|fault| fault["id"] == id).unwrap();
    assert!(
        fault("dead-shop")["healed_at_ms"].is_number() && fault("slow-ads")["healed_at_ms"].is_number(),
        "{ended}",
        ended = ended.stdout
    );
    let links = summary["links"].as_array().unwrap();
    assert!(links.iter().any(|link| link["to"] == "ads" && link["calls"].as_u64() > Some(10)), "{links:?}");
    let costs = summary["cost"].to_string();
    assert!(costs.contains("\"service\"") && costs.contains("\"ads\""), "{costs}");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("the shop was cleaned up, and its check found nothing left"), "{notes}");
    assert!(summary.get("client_side").is_none());
}

/// The shop as its own people run it: in the background, before the rehearsal and after it, with its process id in a file.
#[test]
fn a_shop_that_runs_already_is_killed_by_its_pid_file_started_again_and_left_running() {
    let Some(example) = Example::new() else { return };
    let in_background = "python3 scenarios/adapted-shop/shop.py serve >shop.log 2>&1 & echo $! >shop.pid";
    let at = |name: &str| example.sandbox.path(name);
    let file = at("shop.pid");
    let pid = || fs::read_to_string(&file).unwrap().trim().parse::<i32>().unwrap();
    let runs = |pid: i32| kill(Pid::from_raw(pid), None).is_ok();
    let mut shell = Command::new("sh");
    // Where its commands look for its database as well.
    shell.args(["-c", in_background]).current_dir(at("")).env("TMPDIR", example.sandbox.tmp());
    assert!(shell.status().unwrap().success());
    let before = pid();
    // It is no part of the rehearsal, so nobody else ends it.
    let _goes = Ends(&pid);
    let service = format!(
        "target.process.service={{ pid_file = \"shop.pid\", start = [\"sh\", \"-c\", {in_background:?}], within = \"60s\" }}"
    );
    let set = ["--set", &service, "--set", "target.ready_within=\"60s\""];
    let ended = example.seckill(&[&["run", SALE, "--out", "run", "--output", "json"][..], &set].concat());
    ended.assert_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let faults = summary["faults"].as_array().unwrap();
    let dead = faults.iter().find(|fault| fault["id"] == "dead-shop").unwrap();
    assert_eq!((&dead["hit"], dead["healed_at_ms"].is_number()), (&"1 process killed".into(), true), "{dead:#}");
    assert!(pid() != before && !runs(before) && runs(pid()), "one was killed, and another runs on");
}

/// Kills a process of this test, when the test is over.
struct Ends<'a>(&'a dyn Fn() -> i32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw((self.0)()), Signal::SIGKILL);
    }
}

#[test]
fn a_shop_that_oversells_is_convicted_by_its_own_ledger() {
    let Some(example) = Example::new() else { return };
    let ended = example.seckill(&["run", SALE, "--out", "run", "--output", "json", "--set", OVERSELL]);
    ended.assert_code(11);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let oversell = summary["invariants"].as_array().unwrap().iter().find(|finding| finding["id"] == "I1").unwrap();
    assert_eq!(oversell["verdict"], "fail", "{oversell:#}");
}

#[test]
fn without_books_the_verdict_says_what_it_rests_on() {
    let Some(example) = Example::new() else { return };
    let path = example.sandbox.path(SALE);
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with("audit_command")).unwrap();
    fs::write(&path, text.replace(line, "")).unwrap();
    let ended = example.seckill(&["adapt", SALE, "--output", "json"]);
    ended.assert_code(0);
    let adapted: Value = serde_json::from_str(&ended.stdout).unwrap();
    // Its clean-up is broken as well: what the run leaves behind is told, and is no pass.
    let verify = text.lines().find(|line| line.starts_with("verify")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(verify, r#"verify = ["sh", "-c", "echo 3 orders are left >&2; exit 1"]"#)).unwrap();
    let ended = example.seckill(&["run", SALE, "--out", "run"]);
    ended.assert_code(12);
    let summary: Value = serde_json::from_slice(&fs::read(example.sandbox.path("run/summary.json")).unwrap()).unwrap();
    // What can be judged does not depend on what came of it, and is what was said before.
    let told = |key: &str| &summary["client_side"][key];
    assert_eq!(
        (told("judged"), told("convicted_only"), told("not_judged")),
        (&adapted["from_the_client_alone"], &adapted["convicted_only"], &adapted["not_at_all"])
    );
    assert_eq!(told("convicted_only"), &serde_json::json!(["I1", "I4", "I5c", "I6", "I10"]));
    assert_eq!(summary["cleaned_up"]["clean"], false, "{}", summary["cleaned_up"]);
    let left = summary["cleaned_up"]["text"].as_str().unwrap();
    assert!(left.contains("NOT cleaned up") && left.contains("3 orders are left"), "{left}");
    for file in ["report.md", "report.html"] {
        let report = fs::read_to_string(example.sandbox.path("run").join(file)).unwrap().replace("&#39;", "'");
        assert!(report.contains("Judged from the client's side alone: "), "{file}");
    }
    assert!(
        ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains("Judged from the client's side alone: ")
    );
}

/// People around somebody else's shop: its death is seen, and what could not be cleaned up is an action item of the review.
#[test]
fn a_drill_is_held_on_somebody_elses_shop() {
    let Some(example) = Example::new() else { return };
    let drill = include_str!("../../../drills/adapted-shop.toml");
    fs::create_dir_all(example.sandbox.path("drills")).unwrap();
    example.sandbox.write("drills/adapted-shop.toml", drill);
    let verify = r#"target.cleanup.verify=["sh","-c","echo 3 orders are left >&2; exit 1"]"#;
    let hold = ["drill", "drills/adapted-shop.toml", "--unattended", "--quiet", "--out", "out", "--set", verify];
    let ended = example.seckill(&hold);
    ended.assert_code(12);
    let score: Value = serde_json::from_slice(&fs::read(example.sandbox.path("out/drill.json")).unwrap()).unwrap();
    let expected = &score["expectations"][0];
    assert_eq!((&expected["fault"], &expected["outcome"]), (&"dead-shop".into(), &"met".into()), "{score:#}");
    assert_eq!(score["runbook"][0]["outcome"], "not-asked");
    let review = fs::read_to_string(example.sandbox.path("out/review.md")).unwrap();
    for says in ["Take the traces of the drill out of the shop", "3 orders are left", "## Curves", "dead-shop"] {
        assert!(review.contains(says), "{says}\n{review}");
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let Some(example) = Example::new() else { return };
    let ended = example.seckill(&["run", SALE, "--dry-run", "--out", "run"]);
    ended.assert_code(0);
    for says in
        ["x-rehearsal", "set-up    python3", "clean-up  python3", "fault     kill on service", "a proxy on 127.0.0.1"]
    {
        assert!(ended.stdout.contains(says), "{says}\n{}", ended.stdout);
    }
    assert!(!example.sandbox.path("run").exists());
}

#[test]
fn the_page_gives_no_command_that_is_not_run_here() {
    let named = |line: &'static str| line.find("target/release/seckill ").map(|at| &line[at..]);
    let commands: Vec<&str> = PAGE.lines().filter_map(named).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    let known = [
        format!("target/release/seckill adapt {SALE}"),
        format!("target/release/seckill run {SALE} --dry-run"),
        format!("target/release/seckill run {SALE}"),
        format!("target/release/seckill run {SALE} --set '{OVERSELL}'"),
        "target/release/seckill drill drills/adapted-shop.toml --unattended".to_owned(),
        "target/release/seckill schema scenario".to_owned(),
    ];
    for command in commands {
        let command = command.split('`').next().unwrap().trim();
        assert!(known.iter().any(|known| known == command), "{command} is not run by a test");
    }
}

/// A Postgres with the tables of somebody else's shop; they go with the folder.
struct Books {
    _folder: tempfile::TempDir,
    postgres: Postgres,
    url: String,
}

impl Books {
    /// With nothing in it.
    async fn empty() -> Books {
        let folder = tempfile::Builder::new().prefix("sk").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let bin = doctor::find_postgres().unwrap().bin_dir;
        let run_as = doctor::unprivileged_user().unwrap().map(|user| RunAs { uid: user.uid, gid: user.gid });
        let postgres = Postgres::create(&bin, folder.path(), folder.path(), run_as, None).unwrap();
        postgres.process.start().unwrap();
        postgres.ready(Duration::from_secs(60)).await.unwrap();
        let url = format!("host={} user=postgres dbname=postgres", folder.path().join("pg").display());
        Books { _folder: folder, postgres, url }
    }

    async fn new() -> Books {
        let books = Books::empty().await;
        let made = "CREATE TABLE goods (id bigint, left_over int);
             CREATE TABLE orders (no text, goods bigint, buyer text, count int, status text);
             CREATE TABLE events (id serial, at timestamptz, kind text, no text);
             INSERT INTO goods VALUES (1, 8);
             INSERT INTO orders VALUES ('A1', 1, 'r7-u1', 1, 'held'), ('A2', 1, 'r7-u2', 1, 'paid'), ('B1', 1, 'somebody', 1, 'held');
             INSERT INTO events (at, kind, no) VALUES ('2026-11-28 12:00:00.25+00', 'reserve', 'A1'),
                ('2026-11-28 12:00:01+00', 'reserve', 'A2'), ('2026-11-28 12:00:02+00', 'PAY', 'A2'), (now(), 'reserve', 'B1')";
        books.postgres.database().connect().await.unwrap().run(&[made]).await.unwrap();
        books
    }

    /// What the queries come to, for the run with the id 7.
    async fn read(&self, stock: &str, ledger: &str) -> Result<FinalState, String> {
        let query = |text: &str| toml::Spanned::new(0..0, text.to_owned());
        let queries = ShopSql { url: query(&self.url), stock: query(stock), ledger: query(ledger) };
        let config = Box::new(external::postgres(&self.url, &[]).unwrap());
        let books = books::Books::Sql { config, queries, prefix: "r7-u".to_owned() };
        books.audit(&[]).await.map_err(|error| error.to_string())
    }
}

/// Somebody else's shop with a Postgres of its own: our proxy speaks the database's protocol on the link that the shop is told to use.
#[test]
fn the_database_of_a_shop_is_broken_by_statement_and_by_commit() {
    let service = Path::new(env!("CARGO_BIN_EXE_seckill")).with_file_name("seckill-target");
    if !service.is_file() {
        return skipped("there is no seckill-target beside seckill: cargo build --release --workspace");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let books = runtime.block_on(Books::empty());
    let socket = books.postgres.socket();
    let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [shop, admin, link] = [0, 1, 2].map(|n: usize| free[n].local_addr().unwrap());
    drop(free);
    let target = format!(
        "[target.external]\naddress = \"{shop}\"\naudit = \"{admin}\"\nready_within = \"20s\"\n\
         [target.external.process.service]\nstart = [\"{}\", \"serve\", \"--listen\", \"{shop}\", \"--admin-listen\", \"{admin}\", \
         \"--database-url\", \"host=127.0.0.1 port={} user=postgres dbname=postgres\"]\n\
         [target.external.link.\"service→postgres\"]\nlisten = \"{link}\"\nupstream = \"unix:{}\"\nprotocol = \"postgres\"\n",
        service.display(),
        link.port(),
        socket.display()
    );
    let text = include_str!("support/short.toml").replace("[target.reference]\npool = 8\n", &target);
    let faults = text.find("# A fault that takes").unwrap()..text.find("[steady_state]").unwrap();
    let text = text.replace(
        &text[faults],
        "[[fault]]\nid = \"slow-orders\"\nat = \"1200ms\"\nlasts = \"1500ms\"\n\
         inject.slow-statement = { link = \"service→postgres\", match = \"orders\", delay = \"5ms\" }\n\
         [[fault]]\nid = \"lost-commits\"\nat = \"3s\"\nlasts = \"2s\"\n\
         inject.cut-after-commit = { link = \"service→postgres\", every = 3 }\n",
    );
    let sandbox = Sandbox::new();
    sandbox.write("shop.toml", &text);
    let _room = Room::for_rehearsals(1);
    let ended = sandbox.seckill(&["run", "shop.toml", "--out", "run", "--output", "json"]);
    ended.assert_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let faults = summary["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 2);
    assert!(faults.iter().all(|fault| fault["hit_count"].as_u64() > Some(0)), "{faults:#?}");
    let links = summary["links"].as_array().unwrap();
    assert!(links.iter().any(|link| link["to"] == "postgres" && link["calls"].as_u64() > Some(100)), "{links:?}");
    books.postgres.process.kill_all().unwrap();
    sandbox.assert_nothing_left();
}

const STOCK: &str = "SELECT id AS item, left_over AS available FROM goods;";
const LEDGER: &str = "SELECT e.id AS seq, e.at, e.kind, e.no AS \"order\", o.goods AS item, o.buyer AS \"user\", o.count AS quantity,
    CASE WHEN e.kind = 'reserve' THEN o.status END AS state FROM events e JOIN orders o USING (no) WHERE o.buyer LIKE $1 || '%'";

#[test]
fn the_books_of_a_postgres_are_read_from_one_snapshot_and_never_written() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let books = Books::new().await;
        let state = books.read(STOCK, LEDGER).await.unwrap();
        assert_eq!((state.source.as_str(), state.ledger.len()), ("sql", 3), "{state:#?}");
        assert_eq!((state.ledger[0].order.as_str(), state.ledger[0].at_unix_us % 1_000_000), ("A1", 250_000));
        assert_eq!((state.ledger[0].state, state.ledger[2].kind), (Some(OrderState::Held), EntryKind::Pay));
        let [stock] = &state.stock[..] else { panic!("{:?}", state.stock) };
        assert_eq!((stock.available, stock.held, stock.sold), (8, 1, 1));
        for (stock, ledger, says) in [
            (
                "SELECT id AS item FROM goods",
                LEDGER,
                "the shop's stock has no column `available`: it must have item, available",
            ),
            (STOCK, LEDGER.replace("o.count AS quantity", "o.count").as_str(), "ledger has no column `quantity`"),
            (STOCK, LEDGER.replace("AS state", "AS stat").as_str(), "a column `stat`, which nobody reads"),
            (STOCK, LEDGER.replace("e.at,", "e.at::date AS at,").as_str(), "`at` is `2026-11-28`"),
            ("SELECT nothing", LEDGER, "target.external.sql: stock: column \"nothing\" does not exist"),
            (
                "WITH gone AS (DELETE FROM goods RETURNING *) SELECT id AS item, left_over AS available FROM gone",
                LEDGER,
                "sql: stock",
            ),
        ] {
            let error = books.read(stock, ledger).await.unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
        let left = books.postgres.database().value("SELECT count(*) FROM goods").await.unwrap();
        assert_eq!(left, "1", "a query of the audit wrote something");
        books.postgres.process.kill_all().unwrap();
    });
}

/// A container that runs this machine's own `sleep`: no image has to be fetched. It goes with the test.
struct Sleeping {
    name: String,
}

impl Sleeping {
    /// None where there is no engine.
    fn new() -> Option<Sleeping> {
        let docker =
            |line: &str| Command::new("sh").args(["-c", line]).output().is_ok_and(|ended| ended.status.success());
        if !docker("docker info") {
            skipped("there is no Docker engine to run a container of a shop; apt-get install docker.io");
            return None;
        }
        let name = format!("seckill-shop-{}", std::process::id());
        assert!(docker(&format!("tar -cf - -T /dev/null | docker import - {name}")), "no image can be made");
        let mounts = "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro";
        let run = format!("docker run -d --network none --name {name} {mounts} {name} /usr/bin/sleep 600");
        assert!(docker(&run), "no container runs");
        Some(Sleeping { name })
    }

    fn status(&self) -> String {
        let asked = Command::new("docker").args(["inspect", "-f", "{{.State.Status}}", &self.name]).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.name]).output();
        let _ = Command::new("docker").args(["rmi", &self.name]).output();
    }
}

#[test]
fn a_container_of_the_shop_is_broken_by_its_name_and_never_ended_unasked() {
    let Some(container) = Sleeping::new() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let sandbox = Sandbox::new();
        let socket = sandbox.path("shop.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let spec = ShopProcess { container: Some(container.name.clone()), ..ShopProcess::default() };
        let ready = Endpoint::Unix(socket);
        let shop = Foreign::new("shop", &spec, Vec::new(), &sandbox.path(""), ready.clone()).await.unwrap();
        assert_eq!((shop.pids().len(), shop.is_ours()), (1, false));
        assert_eq!(shop.pause(true).await.unwrap(), 1);
        assert_eq!(container.status(), "paused");
        shop.pause(false).await.unwrap();
        assert_eq!((shop.kill().await.unwrap(), container.status().as_str()), (1, "exited"));
        assert!(shop.pids().is_empty());
        shop.start().await.unwrap();
        shop.ready(Duration::from_secs(20)).await.unwrap();
        assert_eq!((shop.pids().len(), container.status().as_str()), (1, "running"));
        assert!(!shop.is_ours(), "it ran before, and goes on when the rehearsal is over");
        assert!(shop.stop(Duration::from_secs(1)).await.unwrap());
        let nobody = ShopProcess { container: Some("no-such-shop".to_owned()), ..ShopProcess::default() };
        let error = Foreign::new("shop", &nobody, Vec::new(), &sandbox.path(""), ready).await.unwrap_err().to_string();
        assert!(error.contains("target.external.process.shop: container \"no-such-shop\""), "{error}");
    });
}
