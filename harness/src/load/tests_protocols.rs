//! The load against a shop that speaks as shops do: a form with a hidden field, cookies, a bearer token, a waiting room and
//! tickets by server-sent events, over every protocol.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};

use super::client::Entry;
use super::testing::{Body, certified, full, pieces, serve};
use super::tests::drive_over;
use crate::check::Verdict;
use crate::history::{History, Op, OrderState, Outcome, Role, StockRow};
use crate::scenario::{self, Scenario};

/// What is sent in a form has to be encoded.
const CSRF: &str = "t&k=1/é";

/// How often each ticket's stream was asked for.
type Asked = Mutex<HashMap<String, u32>>;

fn problem(what: &str) -> Response<Body> {
    let body = format!(r#"{{"type":"{what}"}}"#);
    Response::builder().status(400).body(full(body)).unwrap()
}

/// Buyers 0 and 4 buy. Buyer 1 is answered with a page that is not the shop's. Buyer 2 gets a page without the hidden field.
/// The order of buyer 3 is confirmed with nonsense. The ticket of buyer 5 is sold out.
fn shop(request: &Request<Bytes>, asked: &Asked) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let cookies = header("cookie");
    let reply = Response::builder();
    let path = request.uri().path();
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0);
    let event = |event: &str| format!("retry: 20\r\n{event}\r\n\r\n");
    let events = reply.header("content-type", "text/event-stream");
    let reply = Response::builder();
    if let Some(user) = path.strip_prefix("/page-for/") {
        let hidden = format!(r#"<input name="csrf" value="{CSRF}">"#);
        let body = match number(user) {
            1 => "<h1>Sorry</h1>".to_owned(),
            2 => "<h1>Shop</h1>".to_owned(),
            _ => format!("<h1>Shop</h1>{hidden}"),
        };
        let reply = reply.header("content-type", "text/html; charset=utf-8").header("set-cookie", "sid=s1; Path=/");
        return reply.header("set-cookie", "old=x").body(full(body)).unwrap();
    }
    if path == "/login" {
        let fields: HashMap<String, String> = form_urlencoded::parse(request.body()).into_owned().collect();
        let good = header("content-type") == "application/x-www-form-urlencoded" && cookies == "sid=s1; old=x";
        if !good || fields["csrf"] != CSRF {
            return problem("bad-login");
        }
        let auth = format!("auth=a{}; HttpOnly", number(&fields["user"]));
        let reply = reply.status(303).header("set-cookie", auth).header("set-cookie", "old=; Max-Age=0");
        return reply.header("x-token", "b1").header("location", "/home").body(full("")).unwrap();
    }
    let user = number(cookies.rsplit("auth=a").next().unwrap());
    if header("authorization") != "Bearer b1" || cookies != format!("sid=s1; auth=a{user}") {
        return problem("not-logged-in");
    }
    match path {
        "/room" => events.body(pieces(vec![
            (0, Some(event(": come in"))),
            (5, Some(event("event: wait\ndata: {\"place\":2}"))),
            (5, Some("event: open\ndata: {\"pa".into())),
            (5, Some("ss\":\"p1\"}\n\n: the rest\n\n".into())),
            (60_000, None),
        ])),
        _ if path.starts_with("/silent/") => {
            events.body(pieces(vec![(0, Some(event("data: {\"state\":\"queued\"}"))), (60_000, None)]))
        }
        "/orders" if header("x-pass") != "p1" => Ok(problem("no-pass")),
        "/orders" if user == 3 => reply.status(201).body(full(r#"{"id":"o3","state":"held","shop":"another"}"#)),
        "/orders" => {
            let location = format!("/tickets/t{user}");
            reply.status(202).header("location", location).body(full(r#"{"state":"queued","shop":"ours"}"#))
        }
        _ => {
            let ticket = path.strip_prefix("/tickets/").unwrap();
            let mut asked = asked.lock().unwrap();
            let times = asked.entry(ticket.to_owned()).or_default();
            *times += 1;
            let decided = match user {
                5 => r#"{"state":"failed","reason":"sold-out"}"#.to_owned(),
                _ => format!(r#"{{"state":"ordered","order":"o{user}"}}"#),
            };
            let queued = event("id: 7\ndata: {\"state\":\"queued\"}");
            let decided = event(&format!("id: 8\ndata: {decided}"));
            events.body(match (*times, header("last-event-id").as_str()) {
                // The first stream ends before anything is decided, which is no answer; or it breaks.
                (1, "") if user == 4 => pieces(vec![(0, Some(queued)), (5, None)]),
                (1, "") => pieces(vec![(0, Some(queued)), (5, Some(event("data: still here")))]),
                (2, "7") => pieces(vec![(5, Some(decided)), (60_000, None)]),
                (3, "") => pieces(vec![(0, Some(decided))]),
                _ => pieces(vec![(0, Some(event("data: {\"state\":\"wrong\"}")))]),
            })
        }
    }
    .unwrap()
}

fn scenario(dir: &Path, address: SocketAddr, connection: &str) -> Scenario {
    written(dir, &text(address, connection))
}

fn written(dir: &Path, text: &str) -> Scenario {
    let path = dir.join("protocols.toml");
    std::fs::write(&path, text).unwrap();
    scenario::load(&path, &[], None).unwrap_or_else(|error| panic!("{error}")).scenario
}

fn text(address: SocketAddr, connection: &str) -> String {
    format!(
        r#"
name = "protocols"
target.external.address = "{address}"
item = [{{ id = 1, price_cents = 100, stock = 100, per_user_limit = 9, closes_at = "10m", hold = "1m" }}]
audit = {{ ticket_deadline = "3s" }}
steady_state = {{ step = "front", within = "1s" }}

[load]
duration = "1s"
virtual_buyers = 6
request_timeout = "5s"
retry = {{ attempts = 2, base = "10ms" }}
cookies = true
connection = {{ {connection} }}

[step.front]
path = "/page-for/nobody"

[step.page]
path = "/page-for/${{user}}"
capture = {{ csrf = 'regex:name="csrf" value="([^"]+)"', session = "cookie:sid" }}
[step.page.check]
status = [200]
header = {{ content-type = "text/html" }}
body = "Shop"
not_body = "Sorry"

[step.login]
method = "POST"
path = "/login"
form = {{ user = "${{user}}", csrf = "${{csrf}}" }}
check = {{ status = [303] }}
capture = {{ token = "header:x-token", home = "header:location" }}

[step.room]
path = "/room"
headers = {{ authorization = "Bearer ${{token}}" }}
sse = true
event = "open"
until = "5s"
capture = {{ pass = "/pass" }}
check = {{ json = {{ "/pass" = "p1" }} }}

[step.order]
role = "order"
method = "POST"
path = "/orders"
headers = {{ authorization = "Bearer ${{token}}", x-pass = "${{pass}}", idempotency-key = "${{key}}" }}
json = '{{"home":"${{home}}"}}'
capture = {{ ticket = "header:location", order = "/id" }}
check = {{ json = {{ "/shop" = "ours" }} }}

[step.ticket]
role = "ticket"
path = "/tickets/${{ticket}}"
headers = {{ authorization = "Bearer ${{token}}" }}
sse = true

[cohort.buyers]
journey = ["page", "login", "room", "order", "ticket"]
arrivals = [{{ constant = {{ rate = 100, lasts = "60ms" }} }}]
"#
    )
}

fn of(history: &History, user: u64) -> Vec<&Op> {
    let mut ops: Vec<&Op> = history.ops.iter().filter(|op| op.user == user).collect();
    ops.sort_by_key(|op| op.completed_us);
    ops
}

/// Step, outcome, and reason of each op of a buyer.
fn told(history: &History, user: u64) -> Vec<(&str, Outcome, &str)> {
    let text = |op: &&Op| (history.names.get(op.step), op.outcome, history.names.get(op.reason));
    of(history, user).iter().map(text).collect()
}

#[test]
fn a_shop_with_forms_cookies_tokens_and_events_is_used_over_every_protocol() {
    let dir = tempfile::TempDir::new().unwrap();
    let ca = dir.path().join("ca.pem");
    let certificate = certified("shop.test", &ca, &["h2", "http/1.1"]);
    for (number, connection, tls) in [
        (0, "", false),
        (1, "reuse = false", false),
        (2, "http = '2'", false),
        (3, "tls = { ca = 'CA', name = 'shop.test' }", true),
        (4, "tls = { ca = 'CA', name = 'shop.test' }, http = '2'", true),
    ] {
        let asked = Arc::new(Asked::default());
        let server = serve(tls.then(|| certificate.clone()), move |request| shop(&request, &asked));
        let connection = connection.replace("CA", ca.to_str().unwrap());
        let scenario = scenario(dir.path(), server.address, &connection);
        let entry = Entry::of(&scenario, server.address, None).unwrap();
        let (history, orders) = drive_over(&scenario, &dir.path().join(format!("run{number}")), entry.clone());
        judge(&history, &connection);
        assert_eq!(orders, 2, "{connection}");
        let rules = scenario.rules();
        let evidence = crate::check::Evidence { history: &history, audit: None, rules: &rules };
        let finding = crate::check::judge(&evidence).into_iter().find(|finding| finding.id == "I9").unwrap();
        assert_eq!(finding.verdict, Verdict::Pass, "{connection}: {}", finding.detail);
        assert_eq!(finding.detail, "3 tickets: 2 came to an order, 1 were refused, 0 stayed open.");
        fresh_buyers_come_the_same_way(&scenario, &entry);
    }
}

fn fresh_buyers_come_the_same_way(scenario: &Scenario, entry: &Entry) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stock = [StockRow { item: 1, available: 1, ..StockRow::default() }];
    let probes = runtime.block_on(crate::drain::probe(scenario, &stock, entry, "u", "k"));
    assert_eq!((probes[0].sold, probes[0].other), (2, 0), "{}", probes[0].detail);
}

#[test]
fn a_ticket_whose_stream_says_nothing_more_is_asked_about_until_its_lateness_is_sure() {
    let dir = tempfile::TempDir::new().unwrap();
    let asked = Arc::new(Asked::default());
    let server = serve(None, move |request| shop(&request, &asked));
    let text = text(server.address, "").replace("/tickets/$", "/silent/$").replace("\"3s\"", "\"300ms\"");
    let scenario = written(dir.path(), &text);
    let (history, _) = drive_over(&scenario, &dir.path().join("run"), Entry::plain(server.address));
    let (pending, timeout) = (("ticket", Outcome::Ok, ""), ("ticket", Outcome::Info, "timeout"));
    assert_eq!(told(&history, 0)[4..], [pending, timeout, pending, timeout]);
    let rules = scenario.rules();
    let evidence = crate::check::Evidence { history: &history, audit: None, rules: &rules };
    let finding = crate::check::judge(&evidence).into_iter().find(|finding| finding.id == "I9").unwrap();
    assert_eq!(finding.verdict, Verdict::Fail, "{}", finding.detail);
}

fn judge(history: &History, connection: &str) {
    let (ok, fail, info) = (Outcome::Ok, Outcome::Fail, Outcome::Info);
    let before = [("page", ok, ""), ("login", ok, ""), ("room", ok, "")];
    let with = |rest: &[(&'static str, Outcome, &'static str)]| [&before[..], rest].concat();
    let bought = with(&[("order", ok, ""), ("ticket", ok, ""), ("ticket", ok, ""), ("ticket", ok, "")]);
    assert_eq!(told(history, 0), bought, "{connection}");
    let broken = if connection.contains("'2'") { "reset" } else { "early-end" };
    let (asked, broke) = (("ticket", ok, ""), ("ticket", info, broken));
    assert_eq!(told(history, 4), with(&[("order", ok, ""), asked, broke, asked, asked]), "{connection}");
    let tickets: Vec<_> = of(history, 0).iter().filter(|op| op.role == Role::Ticket).map(|op| op.state).collect();
    assert_eq!(tickets, [OrderState::Pending, OrderState::Unknown, OrderState::Unknown], "{connection}");
    assert_eq!(told(history, 1), [("page", fail, "check-body")], "{connection}");
    assert_eq!(told(history, 2), [("page", ok, ""), ("login", fail, "missing-csrf")], "{connection}");
    // It may have been made, and nothing that the reply says is believed; it is tried again, and stays so.
    let unclear = with(&[("order", info, "check-json"), ("order", info, "check-json")]);
    assert_eq!(told(history, 3), unclear, "{connection}");
    assert!(
        of(history, 3).iter().all(|op| history.names.get(op.order).is_empty() && !op.acknowledges()),
        "{connection}"
    );
    let sold_out =
        with(&[("order", ok, ""), ("ticket", ok, ""), ("ticket", fail, "sold-out"), ("ticket", fail, "sold-out")]);
    assert_eq!(told(history, 5), sold_out, "{connection}");
    // The wait in the room is its latency.
    let room = of(history, 0)[2];
    assert!(room.latency_us() >= 15_000, "{connection}: {room:?}");
}
