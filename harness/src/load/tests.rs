//! The load against a little shop that queues its orders, and on a machine that has run out of descriptors.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::clock::Clock;
use super::driver::{self, LoadSpec};
use super::slice::Slice;
use crate::check::{Evidence, Finding, Verdict, judge};
use crate::history::recorder::Recorder;
use crate::history::{Event, History, Op, OrderState, Outcome, Role, RunInfo, reader};
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

/// Drives the load of a scenario and reads its history; also how many orders were counted meanwhile.
fn drive(scenario: &Scenario, dir: &Path, address: SocketAddr) -> (History, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Clock::starting_in(400_000);
    let mut info: RunInfo = crate::check::testing::run_info();
    (info.epoch_unix_us, info.duration_us, info.closed) = (clock.epoch_unix_us(), 1_000_000, None);
    let recorder = Recorder::create(dir, &info).unwrap();
    let (user_prefix, key_prefix) = (info.user_prefix.clone(), info.key_prefix.clone());
    let spec = LoadSpec { scenario, address, clock, slice: Slice::WHOLE, user_prefix, key_prefix };
    let ready = driver::start(&spec, &recorder).unwrap();
    let shared = ready.shared();
    let totals = runtime.block_on(ready.finished()).unwrap();
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
