//! Checks an adapter: one buyer of each cohort walks its journey once against the live service, and each reply is shown with what
//! it was taken for, by which rule, and what was found in it; then the books are read.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::check::WithoutBooks;
use crate::history::{FinalState, OrderState, Outcome, Role};
use crate::load::buyer::alone::Alone;
use crate::load::classify::Said;
use crate::load::client::{Connection, Reply};
use crate::load::clock::unix_us;
use crate::run;
use crate::scenario::journey::{CompiledStep, Journey, TICKET, text_of};
use crate::scenario::outcome::Met;
use crate::scenario::steady::default_available;
use crate::scenario::{Scenario, Target};
use crate::stack::{self, Provision, Stack, StackError};

/// How what is said begins of a reply whose body belies its status.
const BELIES: &str = "it was taken for a success by its status";
/// Where amounts are looked for unless a scenario says.
const AMOUNT: &str = "/amount_cents";
/// The same of states.
const STATE: &str = "/state";
/// So much of a reply is shown.
const MOST_SHOWN: usize = 200;
/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an adapter came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The run's id, which tags the traffic.
    pub run_id: String,
    /// The walks, one for each cohort.
    pub cohorts: Vec<Walked>,
    /// The probes of the steady state, each made once.
    pub steady_state: Vec<Stepped>,
    /// What the books say; absent where there are none.
    pub audit: Option<Audited>,
    /// The invariants that the shop's own books can be held to.
    pub from_the_books: Vec<&'static str>,
    /// Those that are judged from what the buyers see alone.
    pub from_the_client_alone: Vec<&'static str>,
    /// Those of which buyers alone would see a violation, and not that they hold.
    pub convicted_only: Vec<&'static str>,
    /// Those that cannot be judged.
    pub not_at_all: Vec<&'static str>,
    /// What came of the clean-up, if there is one.
    pub cleaned_up: Option<String>,
    /// Whether everything was found that the journeys need.
    pub complete: bool,
}

/// One cohort's walk.
#[derive(Debug, Serialize)]
pub struct Walked {
    /// The cohort.
    pub cohort: String,
    /// What its buyer was called.
    pub user: String,
    /// The idempotency key of its order.
    pub key: String,
    /// Its steps, as far as it came.
    pub steps: Vec<Stepped>,
}

/// One step.
#[derive(Debug, Default, Serialize)]
pub struct Stepped {
    /// Its name.
    pub step: String,
    /// What it means to the checks.
    pub role: String,
    /// The first line of the request.
    pub request: String,
    /// The status of the reply; absent where there was none.
    pub status: Option<u16>,
    /// `ok`, `fail`, `info`, or `left out`.
    pub taken_for: String,
    /// Why it is no success.
    pub reason: String,
    /// What decided that: a rule of the scenario, or the status.
    pub by: String,
    /// Captured values: name and value.
    pub captured: Vec<(String, String)>,
    /// The order's id.
    pub order: String,
    /// Its state, as it is understood.
    pub state: String,
    /// The amount that was stated, in the smallest unit.
    pub amount_cents: Option<i64>,
    /// How often a ticket was asked about.
    pub questions: u32,
    /// What the journey needs and did not find.
    pub problems: Vec<String>,
    /// What might be meant otherwise.
    pub hints: Vec<String>,
}

/// What the books say.
#[derive(Debug, Default, Serialize)]
pub struct Audited {
    /// Where they were read: `http`, `sql`, `command`.
    pub source: String,
    /// Items with counters.
    pub stock_rows: usize,
    /// Rows of the ledger.
    pub ledger_rows: usize,
    /// Orders just made that are in the ledger.
    pub found: Vec<String>,
    /// What is wrong with them.
    pub problems: Vec<String>,
}

/// Walks every journey once, and reads the books; nothing if it is interrupted. Whatever happens, the shop is cleaned up.
///
/// # Errors
/// Nobody answers, or the sale cannot be set up.
pub async fn run(
    scenario: &Scenario,
    provision: &Provision,
    cancel: &CancellationToken,
) -> Result<Option<Report>, StackError> {
    let stack = stack::up(scenario, provision).await?;
    let report = tokio::select! {
        report = on_stack(scenario, &provision.run_id, &stack) => Some(report),
        () = cancel.cancelled() => None,
    };
    let cleaned_up = stack.clean_up().await;
    stack.down().await;
    let Some(report) = report else { return Ok(None) };
    let mut report = report?;
    report.complete &= !matches!(cleaned_up, Some(Err(_)));
    report.cleaned_up = cleaned_up.map(|cleaned| cleaned.unwrap_or_else(|why| why));
    Ok(Some(report))
}

async fn on_stack(scenario: &Scenario, run_id: &str, stack: &Stack) -> Result<Report, StackError> {
    // The sale is to be open now, whenever it opens in a run.
    let opens = scenario.item.iter().map(|item| item.opens_at.micros()).max().unwrap_or(0);
    run::set_up_sale(scenario, stack, unix_us() - opens - 1_000_000).await?;
    let mut cohorts = Vec::new();
    for (number, journey) in Journey::all(scenario).into_iter().enumerate() {
        cohorts.push(walk(&journey, run_id, number, stack).await);
    }
    let steady_state = probes(scenario, stack).await;
    let audit = stack.audit(&scenario.item).await.map(|audited| audited_as(scenario, audited, &cohorts));
    let clean = |problems: &[String]| problems.is_empty();
    let complete =
        cohorts.iter().flat_map(|walked| &walked.steps).chain(&steady_state).all(|step| clean(&step.problems))
            && audit.as_ref().is_none_or(|audit| clean(&audit.problems));
    let Judged { from_the_books, from_the_client_alone, convicted_only, not_at_all } = Judged::of(scenario);
    Ok(Report {
        scenario: scenario.name.clone(),
        run_id: run_id.to_owned(),
        cohorts,
        steady_state,
        audit,
        from_the_books,
        from_the_client_alone,
        convicted_only,
        not_at_all,
        cleaned_up: None,
        complete,
    })
}

/// Which invariants can be judged with what the scenario declares, and from what.
#[derive(Default)]
struct Judged {
    from_the_books: Vec<&'static str>,
    from_the_client_alone: Vec<&'static str>,
    convicted_only: Vec<&'static str>,
    not_at_all: Vec<&'static str>,
}

impl Judged {
    fn of(scenario: &Scenario) -> Judged {
        let (books, told) = match &scenario.target {
            Target::Reference(_) => (true, true),
            Target::External(external) => (external.has_books(), external.is_set_up()),
        };
        let mut judged = Judged::default();
        for id in crate::check::CHECKS.iter().map(|check| check.id()) {
            let by_books = match id {
                "I5b" => scenario.audit.drain_probe,
                "I5c" => told,
                _ => true,
            };
            let list = match WithoutBooks::of(id, told) {
                WithoutBooks::Judged => &mut judged.from_the_client_alone,
                _ if books && by_books => &mut judged.from_the_books,
                WithoutBooks::ConvictedOnly => &mut judged.convicted_only,
                WithoutBooks::NotJudged => &mut judged.not_at_all,
            };
            list.push(id);
        }
        judged
    }
}

fn audited_as(scenario: &Scenario, audited: Result<FinalState, StackError>, cohorts: &[Walked]) -> Audited {
    let state = match audited {
        Ok(state) => state,
        Err(error) => return Audited { problems: vec![error.to_string()], ..Audited::default() },
    };
    let (mut problems, mut found) = (Vec::new(), Vec::new());
    for item in scenario.item.iter().filter(|item| state.stock.iter().all(|row| row.item != item.id)) {
        problems.push(format!("the stock has no row of item {}", item.id));
    }
    for Walked { user, key, steps, .. } in cohorts {
        let mut orders: Vec<&str> = steps.iter().map(|step| step.order.as_str()).filter(|id| !id.is_empty()).collect();
        orders.dedup();
        for order in orders {
            let mut rows = state.ledger.iter().filter(|entry| entry.order == order).peekable();
            if rows.peek().is_none() {
                problems
                    .push(format!("the order {order} is not in the ledger, which must name orders as the replies do"));
                continue;
            }
            found.push(order.to_owned());
            for row in rows {
                if row.user != *user {
                    problems.push(format!(
                        "the ledger has order {order} for \"{}\", who logged in as \"{user}\"",
                        row.user
                    ));
                }
                if row.key.as_ref().is_some_and(|told| told != key) {
                    let told = row.key.as_deref().unwrap_or_default();
                    problems
                        .push(format!("the ledger has order {order} under the key \"{told}\", and \"{key}\" was sent"));
                }
                if scenario.find_item(row.item).is_none() {
                    problems.push(format!(
                        "the ledger has order {order} of item {}, which the scenario does not have",
                        row.item
                    ));
                }
            }
        }
    }
    problems.dedup();
    let (stock_rows, ledger_rows) = (state.stock.len(), state.ledger.len());
    Audited { source: state.source, stock_rows, ledger_rows, found, problems }
}

/// A buyer on its way.
struct Buyer<'a>(Alone<'a>);

/// What one exchange came to.
struct Exchanged {
    request: String,
    status: Option<u16>,
    said: Said,
    /// The reply as it is shown where something was not found in it.
    shown: Shown,
}

#[derive(Default)]
struct Shown {
    head: String,
    body: String,
    json: Value,
}

async fn walk(journey: &Journey, run_id: &str, number: usize, stack: &Stack) -> Walked {
    let (mut connection, header_lines) = (Connection::new(&stack.entry), stack.entry.header_lines());
    let names = (format!("{}a{number}", run::user_prefix(run_id)), format!("r{run_id}-ka{number}"));
    let mut buyer = Buyer(Alone::new(journey, &mut connection, header_lines.as_bytes(), names));
    let (mut steps, mut order, mut pending, mut settled) = (Vec::new(), String::new(), false, true);
    for step in &journey.steps {
        let left_out = match step.role {
            Role::Pay | Role::Cancel if order.is_empty() => Some("there is no order"),
            Role::Ticket if !pending => Some("the order was decided at once"),
            _ if step.only_unsettled && settled => Some("the order's fate is known"),
            _ => None,
        };
        if let Some(why) = left_out {
            let (name, role) = (step.name.clone(), step.role.name().to_owned());
            let taken_for = "left out".to_owned();
            steps.push(Stepped { step: name, role, taken_for, reason: why.to_owned(), ..Stepped::default() });
            continue;
        }
        let missing: Vec<&str> = buyer.0.missing(step).collect();
        if !missing.is_empty() {
            let problems = vec![format!("it sends ${{{}}}, which no reply has given", missing.join("}, ${"))];
            let (name, role) = (step.name.clone(), step.role.name().to_owned());
            steps.push(Stepped { step: name, role, taken_for: "left out".to_owned(), problems, ..Stepped::default() });
            break;
        }
        let (exchanged, questions) = buyer.make(step).await;
        let said = &exchanged.said;
        let (outcome, state) = (said.classified.outcome, said.state);
        if step.role == Role::Order {
            (pending, settled) = (state == OrderState::Pending, outcome != Outcome::Info);
        }
        if matches!(step.role, Role::Order | Role::Ticket | Role::Lookup) && !said.order.is_empty() {
            order.clone_from(&said.order);
        }
        let goes_on = outcome == Outcome::Ok || step.role == Role::Order && outcome == Outcome::Info;
        steps.push(buyer.report(step, exchanged, questions));
        if !goes_on {
            break;
        }
    }
    Walked { cohort: journey.cohort.clone(), user: buyer.0.user, key: buyer.0.key, steps }
}

/// Makes each probe of the steady state once. One that is always content sees no fault and no recovery.
async fn probes(scenario: &Scenario, stack: &Stack) -> Vec<Stepped> {
    let journeys = Journey::all(scenario);
    let Some(journey) = journeys.first() else { return Vec::new() };
    let (mut connection, header_lines) = (Connection::new(&stack.entry), stack.entry.header_lines());
    let mut buyer = Buyer(Alone::new(journey, &mut connection, header_lines.as_bytes(), Default::default()));
    let mut out = Vec::new();
    for (number, probe) in scenario.steady_state.probes().into_iter().enumerate() {
        let Some(name) = &probe.step else { continue };
        let Ok(step) = Journey::compile_probe(scenario, name.get_ref()) else { continue };
        let exchanged = buyer.once(&step).await;
        let json = exchanged.shown.json.clone();
        let mut made = buyer.report(&step, exchanged, 0);
        // What is a hint elsewhere is the end of a probe: it holds whatever happens.
        let (always, hints) = made.hints.into_iter().partition(|hint| hint.starts_with(BELIES));
        made.hints = hints;
        made.problems.extend::<Vec<String>>(always);
        if made.problems.is_empty() {
            let number_at = |pointer: &str| json.pointer(pointer).is_some_and(Value::is_number);
            let told = &scenario.steady_state.available;
            if number == 0 && scenario.steady_state.step.is_some() && !number_at(told) {
                let what =
                    format!("no number stands at {told} (steady_state.available): there is no curve of the stock");
                if *told == default_available() { made.hints.push(what) } else { made.problems.push(what) }
            }
            let bounded = probe.json.iter().filter(|pointer| !number_at(pointer));
            made.problems
                .extend(bounded.map(|pointer| format!("no number stands at {pointer}, so this probe never holds")));
        }
        made.step = format!("{} ({})", probe.name, made.step);
        out.push(made);
    }
    out
}

impl Buyer<'_> {
    /// Makes a step; of a ticket, as often as it takes.
    async fn make(&mut self, step: &CompiledStep) -> (Exchanged, u32) {
        let end = Instant::now() + step.polling.at_least.0;
        let mut questions = 0;
        loop {
            questions += 1;
            let exchanged = self.once(step).await;
            if step.role != Role::Ticket || exchanged.said.state != OrderState::Pending || Instant::now() >= end {
                return (exchanged, questions);
            }
            tokio::time::sleep(step.polling.every.0).await;
        }
    }

    async fn once(&mut self, step: &CompiledStep) -> Exchanged {
        let bytes = self.0.request(step, self.0.journey.quantity);
        let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
        let request = line.trim_end_matches(" HTTP/1.1").to_owned();
        let (said, replied) = self.0.send(step, &bytes, PATIENCE, Shown::of).await;
        let (status, shown) = replied.map_or((None, Shown::default()), |(status, shown)| (Some(status), shown));
        Exchanged { request, status, said, shown }
    }

    /// What a step came to, with all that was not found.
    fn report(&self, step: &CompiledStep, exchanged: Exchanged, questions: u32) -> Stepped {
        let Exchanged { request, status, said, shown } = exchanged;
        let ok = said.classified.outcome == Outcome::Ok;
        let (mut problems, mut hints) = (Vec::new(), Vec::new());
        // Whoever sends a negative quantity is there to be refused.
        if !ok && self.0.journey.quantity > 0 {
            let body = if shown.body.is_empty() { "nothing".to_owned() } else { format!("`{}`", shown.body) };
            problems.push(format!("the journey ends here, at a reply that is no success; its body is {body}"));
        }
        let mut captured = Vec::new();
        for (slot, source) in step.capture.iter().filter(|_| ok) {
            let (name, value) = (&self.0.journey.slots[*slot], &self.0.captured[*slot]);
            // A ticket is only given where an order is not decided at once.
            let needed = name != TICKET || said.state == OrderState::Pending;
            if !value.is_empty() {
                captured.push((name.clone(), clip(value)));
            } else if needed {
                problems.push(format!(
                    "`{name}` is not where the step captures it ({source}); the reply has {}",
                    shown.at(source.in_head())
                ));
            }
        }
        if ok && matches!(step.role, Role::Order | Role::Ticket) && said.order.is_empty() {
            match said.state {
                OrderState::Pending if step.role == Role::Ticket => {
                    problems.push(format!("the ticket was not decided within {}", step.polling.at_least));
                }
                OrderState::Pending if said.ticket.is_empty() => problems.push(format!(
                    "the order is not decided, and no `ticket` is captured that could be asked about; the reply has {}",
                    shown.at(false)
                )),
                OrderState::Pending => {}
                _ => problems.push(format!(
                    "the reply names no order where reply.order says ({}); it has {}",
                    step.order,
                    shown.at(step.order.in_head())
                )),
            }
        }
        if ok && step.role != Role::Read {
            let word = shown.json.pointer(&step.state).map(text_of).unwrap_or_default();
            // What a ticket's words mean, its lists say.
            if said.state == OrderState::Unknown && !word.is_empty() && step.role != Role::Ticket {
                hints.push(format!(
                    "`{word}` is no state that is known: reply.states = {{ \"{word}\" = \"held\" }} says what it is (held, paid, placed, \
                     cancelled, expired, refunded, pending)"
                ));
            }
        }
        let states_amount =
            matches!(step.role, Role::Order | Role::Ticket | Role::Pay) && said.state != OrderState::Pending;
        if ok && states_amount && said.amount_cents < 0 && step.amount.at != AMOUNT {
            problems.push(format!(
                "no amount stands where reply.amount says ({}); the reply has {}",
                step.amount.at,
                shown.at(false)
            ));
        }
        let looked_for = step.state != STATE && step.role != Role::Ticket && step.role != Role::Read;
        if ok && looked_for && said.state == OrderState::Unknown && shown.json.pointer(&step.state).is_none() {
            problems.push(format!(
                "no state stands where reply.state says ({}); the reply has {}",
                step.state,
                shown.at(false)
            ));
        }
        if step.role == Role::Ticket && said.classified.reason == "unknown-state" {
            let word = shown.json.pointer(&step.state).map(text_of).unwrap_or_default();
            problems.push(match word.as_str() {
                "" => {
                    format!("nothing stands at {} (reply.state) that would say what became of the ticket", step.state)
                }
                word => format!("`{word}` at {} is none of reply.pending, reply.done and reply.failed", step.state),
            });
        }
        if let Some((rule, sure)) = missing_rule(step, &said, status, &shown.json) {
            if sure && step.role != Role::Read { problems.push(rule) } else { hints.push(rule) }
        }
        Stepped {
            step: step.name.clone(),
            role: step.role.name().to_owned(),
            request,
            status,
            taken_for: said.classified.outcome.name().to_owned(),
            reason: said.classified.reason.clone(),
            by: match (said.rule, status) {
                (Some(met), _) => named(&step.name, met),
                (None, Some(_)) => "the status".to_owned(),
                (None, None) => String::new(),
            },
            captured,
            order: said.order,
            state: if said.state == OrderState::Unknown { String::new() } else { said.state.name().to_owned() },
            amount_cents: (said.amount_cents >= 0).then_some(said.amount_cents),
            questions: if step.role == Role::Ticket { questions } else { 0 },
            problems,
            hints,
        }
    }
}

/// A rule by its place in the scenario.
fn named(step: &str, met: Met) -> String {
    if met.own { format!("[[step.{step}.outcome]] {}", met.number) } else { format!("[[outcome]] {}", met.number) }
}

/// A success by its status alone whose body has a code of its own: the rule that reads it, and whether that code says "no".
fn missing_rule(step: &CompiledStep, said: &Said, status: Option<u16>, json: &Value) -> Option<(String, bool)> {
    const CODES: [&str; 9] =
        ["code", "errcode", "errCode", "errno", "error_code", "ret", "retcode", "resultCode", "success"];
    const FINE: [&str; 7] = ["0", "200", "ok", "OK", "success", "SUCCESS", "true"];
    if said.rule.is_some() || said.classified.outcome != Outcome::Ok || !(200..300).contains(&status?) {
        return None;
    }
    let (key, value) = CODES.iter().find_map(|key| json.get(key).map(|value| (*key, value)))?;
    if value.is_object() || value.is_array() || value.is_null() {
        return None;
    }
    let (text, shown) = (text_of(value), value.to_string());
    let why = ["msg", "message", "errmsg", "error"].iter().find(|key| json.get(**key).is_some_and(Value::is_string));
    let why = why.map_or(String::new(), |key| format!(", reason_at = \"/{key}\""));
    let list = if step.role == Role::Read { "outcome".to_owned() } else { format!("step.{}.outcome", step.name) };
    Some(if FINE.contains(&text.as_str()) {
        (
            format!(
                "its body has a code of its own: [[{list}]] at = \"/{key}\", is = {shown}, means = \"ok\"; then [[{list}]] at = \
                 \"/{key}\", means = \"fail\"{why}"
            ),
            false,
        )
    } else {
        (
            format!(
                "{BELIES}, and its body has {key} {shown}: [[{list}]] at = \"/{key}\", is = {shown}, \
                 means = \"fail\"{why}"
            ),
            true,
        )
    })
}

impl Shown {
    fn of(reply: &Reply<'_>) -> Shown {
        Shown {
            head: clip(&String::from_utf8_lossy(reply.head).trim().replace("\r\n", "; ")),
            body: clip(&String::from_utf8_lossy(reply.body)),
            json: serde_json::from_slice(reply.body).unwrap_or_default(),
        }
    }

    /// The part of the reply that was looked at.
    fn at(&self, in_head: bool) -> String {
        let part = if in_head { &self.head } else { &self.body };
        if part.is_empty() { "nothing there".to_owned() } else { format!("`{part}`") }
    }
}

fn clip(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for Walked { cohort, steps, .. } in &report.cohorts {
        lines.push(format!("cohort {cohort}"));
        for step in steps {
            lines.extend(step_lines(step));
        }
        lines.push(String::new());
    }
    if !report.steady_state.is_empty() {
        lines.push("steady state".to_owned());
        lines.extend(report.steady_state.iter().flat_map(step_lines));
        lines.push(String::new());
    }
    match &report.audit {
        None => lines.push("audit: none is declared (target.external.audit, sql or audit_command)".to_owned()),
        Some(audit) if audit.source.is_empty() => lines.push("audit: the books could not be read".to_owned()),
        Some(audit) => {
            let found =
                if audit.found.is_empty() { "none of the orders just made".to_owned() } else { audit.found.join(", ") };
            lines.push(format!(
                "audit ({}): {} of stock, {} of ledger; of the orders just made it has {found}",
                audit.source,
                rows(audit.stock_rows),
                rows(audit.ledger_rows)
            ));
        }
    }
    lines.extend(report.audit.iter().flat_map(|audit| &audit.problems).map(|problem| format!("  ✗ {problem}")));
    let list = |ids: &[&str]| if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
    lines.push(format!("judged from the shop's books and the buyers: {}", list(&report.from_the_books)));
    lines.push(format!("judged from the client's side alone: {}", list(&report.from_the_client_alone)));
    if !report.convicted_only.is_empty() {
        let ids = list(&report.convicted_only);
        lines.push(format!("a violation would show there, and that it holds does not: {ids}"));
    }
    lines.push(format!("not judged: {}", list(&report.not_at_all)));
    lines.extend(report.cleaned_up.clone());
    lines.push(String::new());
    lines.push(if report.complete {
        "✓ everything that the journeys need was found".to_owned()
    } else {
        "✗ the adapter is not complete: see the lines with ✗".to_owned()
    });
    lines.join("\n")
}

fn rows(count: usize) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}

fn step_lines(step: &Stepped) -> Vec<String> {
    let head = if step.request.is_empty() {
        let why = if step.reason.is_empty() { String::new() } else { format!(", since {}", step.reason) };
        format!("  {}: {}{why}", step.step, step.taken_for)
    } else {
        let status = step.status.map_or("no reply".to_owned(), |status| status.to_string());
        let reason = if step.reason.is_empty() { String::new() } else { format!(" ({})", step.reason) };
        let by = if step.by.is_empty() { String::new() } else { format!(", by {}", step.by) };
        format!("  {}: {} → {status}, taken for {}{reason}{by}", step.step, step.request, step.taken_for)
    };
    let mut lines = vec![head];
    let mut facts: Vec<String> = step.captured.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    for (what, value) in [("order", &step.order), ("state", &step.state)] {
        facts.extend((!value.is_empty()).then(|| format!("{what} {value}")));
    }
    facts.extend(step.amount_cents.map(|cents| format!("amount {cents}")));
    facts.extend((step.questions > 1).then(|| format!("asked {} times", step.questions)));
    if !facts.is_empty() {
        lines.push(format!("      {}", facts.join("; ")));
    }
    lines.extend(step.problems.iter().map(|problem| format!("    ✗ {problem}")));
    lines.extend(step.hints.iter().map(|hint| format!("    ? {hint}")));
    lines
}
