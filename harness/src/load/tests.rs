//! The load against a little shop that queues its orders, and on a machine that has run out of descriptors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::arrival::Arrival;
use super::client::Entry;
use super::clock::Clock;
use super::driver::{self, LoadSpec};
use super::live::Live;
use super::slice::Slice;
use crate::check::{Evidence, Finding, Rules, Verdict, judge};
use crate::history::recorder::Recorder;
use crate::history::{Event, History, INTENTS_PER_ARRIVAL, LoadTotals, Op, OrderState, Outcome, Role, RunInfo, reader};
use crate::scenario::journey::Journey;
use crate::scenario::{self, Scenario};

/// How often each ticket was asked about.
type Asked = Arc<Mutex<HashMap<String, u32>>>;

/// Orders of buyers 0, 4, 8, ... come to an order after two questions; those of 1, 5, ... are sold out after one; those
/// of 2, 6, ... are made at once; those of 3, 7, ... are never decided.
fn shop() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = asked.clone();
            std::thread::spawn(move || serve(stream, &asked));
        }
    });
    address
}

fn serve(mut stream: TcpStream, asked: &Asked) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..n]);
        if n == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&buffer).into_owned();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        buffer.clear();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, headers, body) = answer(path, asked);
        let reply = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(path: &str, asked: &Asked) -> (u16, String, String) {
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0);
    if let Some(user) = path.strip_prefix("/orders-of/") {
        return match number(user) % 4 {
            2 => (201, String::new(), format!(r#"{{"id":"o{}","state":"held"}}"#, number(user))),
            _ => (202, format!("location: /tickets/t{}?fresh\r\n", number(user)), String::new()),
        };
    }
    if let Some(ticket) = path.strip_prefix("/tickets/") {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(ticket.to_owned()).or_default();
        *times += 1;
        let body = match (number(ticket) % 4, *times) {
            (0, 3..) => format!(r#"{{"state":"ORDERED","order":"o{}"}}"#, number(ticket)),
            (1, 2..) => r#"{"state":"failed","reason":"sold-out"}"#.to_owned(),
            _ => r#"{"state":"queued"}"#.to_owned(),
        };
        return (200, String::new(), body);
    }
    let count = |what: &str| {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(what.to_owned()).or_default();
        *times += 1;
        *times
    };
    if let Some(user) = path.strip_prefix("/challenge-of/") {
        return (200, String::new(), format!(r#"{{"token":"{user}.{}"}}"#, count(path)));
    }
    if let Some(token) = path.strip_prefix("/lenient/") {
        return (201, String::new(), format!(r#"{{"id":"o{token}.{}","state":"held"}}"#, count(path)));
    }
    if let Some(token) = path.strip_prefix("/strict/") {
        return match count(path) {
            1 => (201, String::new(), format!(r#"{{"id":"o{token}","state":"held"}}"#)),
            _ => (409, String::new(), r#"{"type":"/problems/token-spent"}"#.to_owned()),
        };
    }
    match path {
        "/slow" => std::thread::sleep(Duration::from_millis(20)),
        "/busy" => return (503, String::new(), String::new()),
        _ => {}
    }
    let paid = path.strip_prefix("/pay/").map(|order| format!(r#"{{"id":"{order}","state":"paid"}}"#));
    (200, String::new(), paid.unwrap_or_else(|| r#"{"token":"c"}"#.to_owned()))
}

/// One arrival for each of the first buyers, against a shop that is already running.
fn queueing(dir: &Path, address: SocketAddr, buyers: u32, arrivals: u32) -> Scenario {
    let text = format!(
        r#"
name = "queue"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 100, per_user_limit = 9, closes_at = "10m", hold = "1m" }}]
load = {{ duration = "1s", virtual_buyers = {buyers}, request_timeout = "1s", retry = {{ attempts = 2 }} }}
audit = {{ ticket_deadline = "300ms" }}
steady_state = {{ step = "page", within = "1s" }}
[step.page]
path = "/page"
[step.challenge]
path = "/challenge"
capture = {{ challenge_token = "/token" }}
[step.order]
role = "order"
method = "POST"
path = "/orders-of/${{user}}"
headers = {{ idempotency-key = "${{key}}", x-token = "${{challenge_token}}" }}
token = "${{challenge_token}}"
capture = {{ ticket = "header:location", order = "/id" }}
[step.ticket]
role = "ticket"
path = "/tickets/${{ticket}}"
capture = {{ order = "/order" }}
every = "20ms"
until = "700ms"
[step.pay]
role = "pay"
method = "POST"
path = "/pay/${{order}}"
[cohort.buyers]
journey = ["challenge", "order", "ticket", "pay"]
arrivals = [{{ constant = {{ rate = 100, lasts = "{}ms" }} }}]
"#,
        arrivals * 10
    );
    let path = dir.join("queue.toml");
    std::fs::write(&path, text).unwrap();
    scenario::load(&path, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario
}

/// A scenario against the shop, with these cohorts and what is said of the load.
fn cohorts(dir: &Path, address: SocketAddr, load: &str, cohorts: &str) -> Scenario {
    let text = format!(
        r#"
name = "cohorts"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 100, per_user_limit = 99, closes_at = "10m", hold = "1m" }}]
load = {{ duration = "1s", request_timeout = "1s", {load} }}
steady_state = {{ step = "page", within = "1s" }}
[step.page]
path = "/page"
[step.slow]
path = "/slow"
[step.busy]
path = "/busy"
[step.challenge]
path = "/challenge-of/${{user}}"
capture = {{ challenge_token = "/token" }}
[step.lenient]
role = "order"
method = "POST"
path = "/lenient/${{challenge_token}}"
headers = {{ idempotency-key = "${{key}}" }}
token = "${{challenge_token}}"
[step.strict]
role = "order"
method = "POST"
path = "/strict/${{challenge_token}}"
headers = {{ idempotency-key = "${{key}}" }}
token = "${{challenge_token}}"
{cohorts}
"#
    );
    let path = dir.join("cohorts.toml");
    std::fs::write(&path, text).unwrap();
    scenario::load(&path, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario
}

/// Drives the load of a scenario and reads its history; also how many orders were counted meanwhile.
fn drive(scenario: &Scenario, dir: &Path, address: SocketAddr) -> (History, u64) {
    drive_over(scenario, dir, Entry::plain(address))
}

/// The same with other connections than plain ones.
pub(super) fn drive_over(scenario: &Scenario, dir: &Path, entry: Entry) -> (History, u64) {
    drive_until(scenario, dir, entry, |_| false)
}

/// The same, cut short once that holds of what was counted.
fn drive_until(scenario: &Scenario, dir: &Path, entry: Entry, enough: impl Fn(&Live) -> bool) -> (History, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Clock::starting_in(400_000);
    let mut info: RunInfo = crate::check::testing::run_info();
    (info.epoch_unix_us, info.duration_us, info.closed) = (clock.epoch_unix_us(), 1_000_000, None);
    let recorder = Recorder::create(dir, &info).unwrap();
    let (user_prefix, key_prefix) = (info.user_prefix.clone(), info.key_prefix.clone());
    let spec = LoadSpec { scenario, entry, clock, slice: Slice::WHOLE, user_prefix, key_prefix };
    let ready = driver::start(&spec, &recorder).unwrap();
    let shared = ready.shared();
    let totals = runtime.block_on(async {
        let watch = async {
            while !enough(&shared.live) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shared.stop();
            std::future::pending().await
        };
        tokio::select! {
            totals = ready.finished() => totals.unwrap(),
            () = watch => unreachable!("a watch never ends"),
        }
    });
    let orders = shared.live.orders.load(Ordering::Relaxed);
    drop(shared);
    recorder.event(&Event::LoadTotals(totals));
    recorder.close("completed").unwrap();
    (reader::read(dir).unwrap(), orders)
}

fn finding(history: &History, scenario: &Scenario, id: &str) -> Finding {
    let rules = scenario.rules();
    let findings = judge(&Evidence { history, audit: None, rules: &rules });
    findings.into_iter().find(|finding| finding.id == id).unwrap()
}

#[test]
fn a_queued_order_is_followed_until_it_is_decided() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let scenario = queueing(dir.path(), address, 8, 3);
    let (history, orders) = drive(&scenario, &dir.path().join("run"), address);
    assert_eq!(history.damage, Vec::<String>::new());
    let distrusted = |event: &&Event| matches!(event, Event::Distrust { why, .. } if why.contains("ran out"));
    assert_eq!(history.events.iter().find(distrusted), None);
    let of = |user: u64, role: Role| -> Vec<&Op> {
        history.ops.iter().filter(|op| op.user == user && op.role == role).collect()
    };
    let told = |user: u64| -> Vec<(Outcome, OrderState, &str, &str)> {
        let text = |op: &&Op| (op.outcome, op.state, history.names.get(op.reason), history.names.get(op.order));
        of(user, Role::Ticket).iter().map(text).collect()
    };
    let pending = (Outcome::Ok, OrderState::Pending, "", "");
    let ordered = (Outcome::Ok, OrderState::Unknown, "", "o0");
    // Asked until it is decided, and once more at the end.
    assert_eq!(told(0), [pending, pending, ordered, ordered]);
    let refused = (Outcome::Fail, OrderState::Refused, "sold-out", "");
    assert_eq!(told(1), [pending, refused, refused]);
    assert_eq!(told(2), []);
    // Who came to an order pays it, whichever way it came.
    let paid = |user: u64| of(user, Role::Pay).iter().map(|op| history.names.get(op.order)).collect::<Vec<_>>();
    assert_eq!((paid(0), paid(1), paid(2)), (vec!["o0"], vec![], vec!["o2"]));
    assert_eq!(orders, 2);
    // The ticket is on the order that got it and on every question about it; the token on who was given it and spent it.
    let ticket = |op: &&Op| history.names.get(op.ticket) == "t0";
    assert!(of(0, Role::Order).iter().all(|op| ticket(op) && op.is_pending()));
    assert!(of(0, Role::Ticket).iter().all(|op| ticket(op) && op.quantity == 1 && op.attempt == 1));
    let tokens: Vec<&str> =
        history.ops.iter().filter(|op| op.user == 0).map(|op| history.names.get(op.token)).collect();
    assert_eq!(tokens[..2], ["c", "c"]);
    assert!(tokens[2..].iter().all(|token| token.is_empty()));
    assert_eq!(finding(&history, &scenario, "I9").verdict, Verdict::Pass);
    // This shop gives everybody one token.
    let shared = finding(&history, &scenario, "I6");
    assert!(shared.verdict == Verdict::Fail && shared.detail.contains("single-use token"), "{}", shared.detail);
}

#[test]
fn a_ticket_that_is_never_decided_is_asked_about_until_that_is_sure() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let scenario = queueing(dir.path(), address, 8, 4);
    let (history, _) = drive(&scenario, &dir.path().join("run"), address);
    let finding = finding(&history, &scenario, "I9");
    assert_eq!(finding.verdict, Verdict::Fail, "{}", finding.detail);
    assert!(finding.detail.starts_with("Ticket t3 of u3 was accepted"), "{}", finding.detail);
    assert!(!history.ops.iter().any(|op| op.user == 3 && op.role == Role::Pay));
}

/// Set for the process in which descriptors are scarce, to where the shop is.
const SCARCE: &str = "SECKILL_TEST_SCARCE";

#[test]
fn running_out_of_descriptors_is_distrusted() {
    if let Ok(address) = std::env::var(SCARCE) {
        return without_descriptors(address.parse().unwrap());
    }
    // The limit is the whole process's, so it is lowered in one of its own.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "load::tests::running_out_of_descriptors_is_distrusted", "--nocapture"]);
    let output = child.env(SCARCE, shop().to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn without_descriptors(address: SocketAddr) {
    use nix::sys::resource::{Resource, setrlimit};
    let dir = tempfile::TempDir::new().unwrap();
    let scenario = queueing(dir.path(), address, 64, 40);
    setrlimit(Resource::RLIMIT_NOFILE, 48, 48).unwrap();
    // Enough for the runtimes and the history, and for fewer connections than buyers are busy at once.
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - 18);
    let (history, _) = drive(&scenario, &dir.path().join("run"), address);
    let told = history.events.iter().any(|event| match event {
        Event::Distrust { why, .. } => why.contains("ran out of file descriptors or ports"),
        _ => false,
    });
    assert!(told, "{:?}", history.events);
    let passed = finding(&history, &scenario, "I9");
    let passed = vec![Finding { verdict: Verdict::Pass, ..passed }];
    let summary = crate::measure::summarize(&history, None, &scenario.rules(), passed, &[], "");
    assert_eq!(summary.verdict, Verdict::Unknown);
}

/// The ops of a cohort, as names of step, attempt and purchase of its arrival.
fn ops_of<'h>(history: &'h History, cohort: &str) -> Vec<(&'h str, u16, u64, &'h Op)> {
    let of_cohort = history.ops.iter().filter(|op| history.names.get(op.cohort) == cohort);
    of_cohort.map(|op| (history.names.get(op.step), op.attempt, op.intent % INTENTS_PER_ARRIVAL, op)).collect()
}

fn totals(history: &History) -> &LoadTotals {
    let totals = history.events.iter().find_map(|event| match event {
        Event::LoadTotals(totals) => Some(totals),
        _ => None,
    });
    totals.expect("the load ended")
}

fn distrust(history: &History, scenario: &Scenario) -> Vec<String> {
    // How late a busy machine sends is not what is asked here.
    let rules = Rules { send_lag_limit_us: u64::MAX, ..scenario.rules() };
    let reasons = crate::measure::summarize(history, None, &rules, Vec::new(), &[], "").distrust;
    reasons.into_iter().filter(|why| why.contains("arrivals")).collect()
}

#[test]
fn a_hoarder_orders_again_until_it_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let hoarders = |order: &str, replay: bool| {
        let what = format!(
            r#"
[cohort.hoarders]
journey = ["page", "challenge", "{order}"]
users = 2
repeat = {{ times = 3, every = "30ms" }}
replay_token = {replay}
arrivals = [{{ constant = {{ rate = 50, lasts = "100ms" }} }}]
[cohort.others]
journey = ["page"]
arrivals = [{{ constant = {{ rate = 50, lasts = "100ms" }} }}]
"#
        );
        let scenario = cohorts(dir.path(), address, "virtual_buyers = 8", &what);
        let (history, orders) = drive(&scenario, &dir.path().join(format!("{order}-{replay}")), address);
        assert_eq!(distrust(&history, &scenario), Vec::<String>::new());
        assert_eq!((totals(&history).planned, totals(&history).sent), (10, 10), "a walk is no arrival");
        (history, scenario, orders)
    };

    let (history, scenario, orders) = hoarders("strict", false);
    let ops = ops_of(&history, "hoarders");
    let steps: Vec<(&str, u64)> = ops
        .iter()
        .filter(|(.., op)| op.intent / 16 == ops[0].3.intent / 16)
        .map(|(step, _, purchase, _)| (*step, *purchase))
        .collect();
    let walk = |purchase: u64| {
        [("page", purchase.saturating_sub(1)), ("challenge", purchase.saturating_sub(1)), ("strict", purchase)]
    };
    assert_eq!(steps, [walk(0), walk(1), walk(2)].concat(), "each walk is a purchase of its own");
    assert_eq!(orders, 15);
    assert_ne!(finding(&history, &scenario, "I6").verdict, Verdict::Fail);

    // A bot that spends its token again is refused, gives up, and accuses nobody.
    let (history, scenario, orders) = hoarders("strict", true);
    let count = |step: &str| ops_of(&history, "hoarders").iter().filter(|(name, ..)| *name == step).count();
    assert_eq!((count("page"), count("challenge"), count("strict"), orders), (10, 5, 10, 5));
    assert_ne!(finding(&history, &scenario, "I6").verdict, Verdict::Fail);

    // A service that lets one token buy three times is convicted.
    let (history, scenario, orders) = hoarders("lenient", true);
    let count = |step: &str| ops_of(&history, "hoarders").iter().filter(|(name, ..)| *name == step).count();
    assert_eq!((count("page"), count("challenge"), count("lenient"), orders), (15, 5, 15, 15));
    let convicted = finding(&history, &scenario, "I6");
    assert!(
        convicted.verdict == Verdict::Fail && convicted.detail.contains("bought two orders"),
        "{}",
        convicted.detail
    );
}

#[test]
fn what_is_planned_is_sent_or_dropped_and_nothing_else() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    // One buyer, who is busy for 20 ms each time, for two hundred arrivals within half a second.
    let scenario = cohorts(
        dir.path(),
        address,
        r#"virtual_buyers = 1, patience = "5ms", arrivals = [{ poisson = { rate = 400, lasts = "500ms" } }]"#,
        r#"
[cohort.many]
journey = ["slow"]
share = 2
clock_skew = ["-100ms", "100ms"]
[cohort.few]
journey = ["slow", "page"]
share = 1
repeat = { times = 2, every = "1ms" }
"#,
    );
    let (history, _) = drive(&scenario, &dir.path().join("run"), address);
    let LoadTotals { planned, sent, dropped, .. } = *totals(&history);
    let (count, _) = scenario.plan().count_and_hash();
    assert_eq!((planned, sent + dropped), (count, count));
    assert!(sent > 0 && dropped > 0, "{sent} sent, {dropped} dropped");
    let arrivals = |was_dropped: bool| -> BTreeSet<u64> {
        let ops = history.ops.iter().filter(|op| (op.outcome == Outcome::Dropped) == was_dropped);
        ops.map(|op| op.intent / INTENTS_PER_ARRIVAL).collect()
    };
    assert_eq!((arrivals(false).len() as u64, arrivals(true).len() as u64), (sent, dropped));
    assert_eq!(arrivals(false).union(&arrivals(true)).copied().collect::<Vec<_>>(), (0..planned).collect::<Vec<_>>());
    assert_eq!(distrust(&history, &scenario), Vec::<String>::new());
}

#[test]
fn a_cohort_tries_again_as_it_says_and_within_its_budget() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let scenario = cohorts(
        dir.path(),
        address,
        r#"virtual_buyers = 32, retry = { attempts = 3, base = "1ms", max = "2ms" }"#,
        r#"
[cohort.calm]
journey = ["busy"]
arrivals = [{ constant = { rate = 100, lasts = "200ms" } }]
[cohort.storm]
journey = ["busy"]
retry = { attempts = 40, budget = 0.5 }
arrivals = [{ constant = { rate = 200, lasts = "200ms" } }]
"#,
    );
    let (history, _) = drive(&scenario, &dir.path().join("run"), address);
    let attempts = |cohort: &str, number: fn(u16) -> bool| {
        ops_of(&history, cohort).iter().filter(|(_, attempt, ..)| number(*attempt)).count()
    };
    assert_eq!((attempts("calm", |n| n == 1), attempts("calm", |n| n == 3), attempts("calm", |n| n > 3)), (20, 20, 0));
    assert_eq!(
        (attempts("storm", |n| n == 1), attempts("storm", |n| n > 1)),
        (40, 20),
        "one retry for two first attempts"
    );
    // Everybody gave up in the end, for want of budget.
    assert_eq!(totals(&history).retries_suppressed, BTreeMap::from([("storm".to_owned(), 40)]));
    let summary = crate::measure::summarize(&history, None, &scenario.rules(), Vec::new(), &[], "");
    assert_eq!(summary.load.retries_suppressed, totals(&history).retries_suppressed);
}

#[test]
fn what_is_waited_for_is_due_when_the_wait_should_have_ended() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let scenario = cohorts(
        dir.path(),
        address,
        r#"virtual_buyers = 8, retry = { attempts = 2, base = "30ms", jitter = 0.0 }"#,
        r#"
[cohort.thinkers]
journey = ["page", "slow", "page"]
think = "15ms"
repeat = { times = 2, every = "150ms" }
arrivals = [{ constant = { rate = 20, lasts = "100ms" } }]
[cohort.unlucky]
journey = ["busy"]
arrivals = [{ constant = { rate = 20, lasts = "100ms" } }]
"#,
    );
    let (history, _) = drive(&scenario, &dir.path().join("run"), address);
    let of_buyers = |cohort: &str| {
        let mut buyers: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
        for (.., op) in ops_of(&history, cohort) {
            buyers.entry(op.intent / INTENTS_PER_ARRIVAL).or_default().push(*op);
        }
        assert_eq!(buyers.len(), 2);
        buyers.into_values()
    };
    for ops in of_buyers("thinkers") {
        assert_eq!(ops.len(), 6, "two walks of three steps");
        for (n, pair) in ops.windows(2).enumerate() {
            let ended = pair[0].completed_us;
            // Between the walks there is their distance, unless the first has taken longer than that.
            let due = if n == 2 { ended.max(ops[0].intended_us + 150_000) } else { ended + 15_000 };
            assert_eq!(pair[1].intended_us, due, "step {}", n + 1);
            assert!(pair[1].invoked_us >= due, "nobody is early");
        }
    }
    for ops in of_buyers("unlucky") {
        assert_eq!(ops.len(), 2);
        assert_eq!(ops[1].intended_us, ops[0].completed_us + 30_000);
        assert!(ops[1].invoked_us >= ops[1].intended_us);
    }
}

#[test]
fn whoever_waits_for_long_sees_that_the_run_is_cut_short() {
    let dir = tempfile::TempDir::new().unwrap();
    let address = shop();
    let scenario = cohorts(
        dir.path(),
        address,
        "virtual_buyers = 4",
        r#"
[cohort.thinkers]
journey = ["page", "page"]
think = "10h"
arrivals = [{ constant = { rate = 20, lasts = "100ms" } }]
[cohort.hoarders]
journey = ["page"]
repeat = { times = 2, every = "10h" }
arrivals = [{ constant = { rate = 20, lasts = "100ms" } }]
"#,
    );
    let (history, _) = drive_until(&scenario, &dir.path().join("run"), Entry::plain(address), |live| {
        live.ok.load(Ordering::Relaxed) == 4
    });
    assert_eq!(history.ops.len(), 4, "and does nothing more");
}

#[test]
fn how_long_somebody_thinks_follows_from_the_seed() {
    let dir = tempfile::TempDir::new().unwrap();
    let scenario = cohorts(
        dir.path(),
        "127.0.0.1:1".parse().unwrap(),
        "virtual_buyers = 1",
        r#"
[cohort.people]
journey = ["page", "slow", "page"]
think = { median = "2s", sigma = 0.5 }
repeat = { times = 2, every = "1s" }
arrivals = [{ constant = { rate = 1, lasts = "1s" } }]
"#,
    );
    let journey = &Journey::all(&scenario)[0];
    let think = |step, walk, n, seed| journey.think_before(step, walk, Arrival { at_us: 0, cohort: 0, n }, seed);
    assert_eq!(think(1, 1, 7, 3), think(1, 1, 7, 3));
    let all = [think(1, 1, 7, 3), think(2, 1, 7, 3), think(1, 0, 7, 3), think(1, 1, 8, 3), think(1, 1, 7, 4)];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
}
