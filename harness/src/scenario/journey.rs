//! Journeys, compiled: each step's request with its templates ready to be rendered, and what to read from its reply.

use std::io::Write;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use rand::RngExt;

use super::outcome::Rules;
use super::pause::Pause;
use super::reading::{Checks, Source};
use super::template::{Piece, Template, Values, Variable};
use super::value::Dur;
use super::{Cohort, Repeat, ReplyPointers, RetryPolicy, Scenario, Step, TicketWords};
use crate::history::{Micros, OrderState, Role};
use crate::load::arrival::Arrival;
use crate::load::client::Reply;
use crate::random;

/// The captured value that is a ticket.
pub const TICKET: &str = "ticket";

/// A cohort's journey, ready to be walked.
#[derive(Debug, Clone)]
pub struct Journey {
    /// The cohort's name.
    pub cohort: String,
    /// The steps in order.
    pub steps: Vec<CompiledStep>,
    /// Names of captured values, by slot.
    pub slots: Vec<String>,
    /// The item wanted.
    pub item: i64,
    /// Units wanted.
    pub quantity: i32,
    /// Wait between steps.
    pub think: Pause,
    /// Whether and how often it is walked again.
    pub repeat: Option<Repeat>,
    /// Whether a single-use token is got once and spent in every walk.
    pub replay_token: bool,
    /// When and how they try again.
    pub retry: RetryPolicy,
    /// Accounts that the arrivals share; each is somebody else without it.
    pub users: Option<NonZeroU32>,
    /// Whether an order's first attempt is sent twice at once.
    pub double_click: bool,
    /// Whether cookies are kept and sent.
    pub cookies: bool,
}

/// One step, ready to be sent.
#[derive(Debug, Clone)]
pub struct CompiledStep {
    /// Its name.
    pub name: String,
    /// What it means to the checks.
    pub role: Role,
    /// Everything up to the body: request line and headers but `host` and `content-length`.
    pub head: Template,
    /// The body, if it has one.
    pub body: Option<Template>,
    /// Slots of the captured values without which it cannot be sent.
    pub needs: Vec<usize>,
    /// Values to keep: slot and place.
    pub capture: Vec<(usize, Source)>,
    /// What its replies mean, where the status does not tell.
    pub rules: Option<Box<Rules>>,
    /// What a success must hold.
    pub check: Checks,
    /// Where the order's id stands.
    pub order: Source,
    /// JSON pointer to its state.
    pub state: String,
    /// The service's words for states, as they are compared, and ours.
    pub states: Vec<(String, OrderState)>,
    /// Where its amount stands.
    pub amount: Amount,
    /// JSON pointer to why a ticket's order was decided against.
    pub reason: String,
    /// The words in which a ticket says what became of it.
    pub words: TicketWords,
    /// The slot with the ticket: of an order or a lookup, that it may give; of a ticket's step, that it asks about.
    pub ticket: Option<usize>,
    /// The slot with a single-use token: of an order, that it spends; of an earlier step, that it gives.
    pub token: Option<usize>,
    /// How a ticket is asked about.
    pub polling: Polling,
    /// The events that are waited for, where the reply is a stream of them.
    pub stream: Option<EventStream>,
    /// Only made when an order's fate is unknown.
    pub only_unsettled: bool,
    /// Share of the buyers who go on from here.
    pub share: f64,
    /// Whether the reply's body must be read as JSON at all.
    pub wants_json: bool,
}

/// Where a reply states an amount, and in which unit.
#[derive(Debug, Clone)]
pub struct Amount {
    /// JSON pointer to it.
    pub at: String,
    /// How many of the currency's smallest unit one of its units is; none if it is a whole number of the smallest one.
    pub scale: Option<u32>,
}

/// An order of this scale is a mistake.
pub const MOST_SCALE: u32 = 1_000_000;

impl Amount {
    fn of(reply: &ReplyPointers) -> Amount {
        match &reply.amount {
            None => Amount { at: reply.amount_cents.clone(), scale: None },
            Some(at) => {
                let scale = reply.scale.as_ref().map_or(100, |scale| *scale.get_ref());
                Amount { at: at.get_ref().clone(), scale: Some(scale) }
            }
        }
    }

    /// The amount in the smallest unit; -1 if none is stated, or one that cannot be read.
    pub fn read(&self, json: &serde_json::Value) -> i64 {
        let Some(value) = json.pointer(&self.at) else { return -1 };
        match self.scale {
            None => value.as_i64().unwrap_or(-1),
            Some(scale) => decimal(&text_of(value), scale).unwrap_or(-1),
        }
    }
}

/// A decimal number times a scale, exactly; what is finer than the smallest unit is cut off.
fn decimal(text: &str, scale: u32) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 15 || part.len() > 15 || !are_digits(whole) || !are_digits(part) {
        return None;
    }
    let all: i128 = format!("{whole}{part}").parse().ok()?;
    i64::try_from(sign * all * i128::from(scale) / 10_i128.pow(part.len() as u32)).ok()
}

/// The events that a step waits for.
#[derive(Debug, Clone)]
pub struct EventStream {
    /// Their type; any if absent.
    pub event: Option<String>,
    /// How long one is waited for. A ticket's stream is asked for anew then, as one that may have been forgotten.
    pub within: Dur,
}

impl EventStream {
    fn of(scenario: &Scenario, step: &Step) -> Option<EventStream> {
        let within = match (step.role, step.until) {
            (Role::Ticket, _) => Dur(scenario.audit.ticket_deadline.0 + POLLING_MARGIN.0 / 2),
            (_, Some(until)) => until,
            _ => scenario.load.request_timeout,
        };
        step.sse.then(|| EventStream { event: step.event.clone(), within })
    }
}

/// How a ticket is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Polling {
    /// How often.
    pub every: Dur,
    /// For how long after its acceptance at least.
    pub at_least: Dur,
    /// Until this time of the run at least, since the deadline begins anew when a fault is healed.
    pub not_before: Dur,
    /// How often again when there is a result.
    pub again: u16,
}

/// What lies between a deadline and the last question about a ticket: healing takes its time, and so does an answer.
const POLLING_MARGIN: Dur = Dur::millis(2_000);

impl Polling {
    fn of(scenario: &Scenario, step: &Step) -> Polling {
        let due = scenario.audit.ticket_deadline.0 + POLLING_MARGIN.0;
        let healed = scenario.timeline().iter().map(|fault| fault.healed_by().0).max();
        let (at_least, not_before) = match step.until {
            Some(until) => (until, Dur::default()),
            None => (Dur(due), healed.map_or(Dur::default(), |healed| Dur(healed + due))),
        };
        let every = step.every.unwrap_or(Dur::millis(200));
        Polling { every, at_least, not_before, again: step.again.unwrap_or(1) }
    }

    /// Until when a ticket is asked about that was accepted at a time of the run.
    pub fn until_us(&self, accepted: Micros) -> Micros {
        accepted.saturating_add(self.at_least.micros()).max(self.not_before.micros())
    }
}

/// A mistake in a template: where, and what.
pub type TemplateMistake = (Range<usize>, String);

impl Journey {
    /// Compiles a cohort's journey. All its steps must exist.
    ///
    /// # Errors
    /// The place and the mistake.
    pub fn compile(scenario: &Scenario, cohort: &Cohort) -> Result<Journey, TemplateMistake> {
        let mut slots: Vec<String> = Vec::new();
        let mut steps = Vec::new();
        for name in &cohort.journey {
            let step = scenario.step.get(name.get_ref()).ok_or_else(|| (name.span(), "no such step".to_owned()))?;
            steps.push(compile_step(scenario, name.get_ref(), step.get_ref(), &mut slots)?);
        }
        // The step that captures what an order spends as its token is the one that was given it.
        let spent: Vec<usize> = steps.iter().filter_map(|step| step.token).collect();
        for step in steps.iter_mut().filter(|step| step.role != Role::Order) {
            step.token = step.capture.iter().map(|(slot, _)| *slot).find(|slot| spent.contains(slot));
        }
        let wanted = *cohort.item.get_ref();
        let item = if wanted == 0 { scenario.item.first().map_or(0, |i| i.id) } else { wanted };
        Ok(Journey {
            cohort: String::new(),
            steps,
            slots,
            item,
            quantity: cohort.quantity,
            think: cohort.think,
            repeat: cohort.repeat.as_ref().map(|repeat| *repeat.get_ref()),
            replay_token: cohort.replay_token,
            retry: cohort.retry.policy(&scenario.load.retry),
            users: cohort.users,
            double_click: cohort.double_click,
            cookies: scenario.load.cookies,
        })
    }

    /// All journeys of a valid scenario, in the order of the cohorts' names.
    ///
    /// # Panics
    /// If the scenario was not validated.
    pub fn all(scenario: &Scenario) -> Vec<Journey> {
        scenario
            .cohort
            .iter()
            .map(|(name, cohort)| {
                let mut journey = Journey::compile(scenario, cohort.get_ref()).expect("a validated scenario compiles");
                journey.cohort.clone_from(name);
                journey
            })
            .collect()
    }

    /// Compiles a step by itself, as the steady-state probe uses it.
    ///
    /// # Errors
    /// The place and the mistake: it uses something that only a journey has.
    pub fn compile_probe(scenario: &Scenario, name: &str) -> Result<CompiledStep, TemplateMistake> {
        let step = scenario.step.get(name).ok_or((0..0, format!("there is no step \"{name}\"")))?;
        compile_step(scenario, name, step.get_ref(), &mut Vec::new())
    }
}

/// Streams of random numbers from here on, one for each arrival: how long its buyer thinks.
const THINKING: u64 = 4 << 40;

/// Accounts that a cohort shares are numbered from here on, cohort after cohort; arrivals never come to so many.
const SHARED_USERS: u64 = 1_000_000_000_000;

impl Journey {
    /// The number of the buyer that an arrival stands for. Which of its accounts a cohort uses is drawn from the seed.
    pub fn user_of(&self, arrival: Arrival, seed: u64) -> u64 {
        let Some(users) = self.users else { return arrival.n };
        let mut rng = random::stream(seed, arrival.n);
        SHARED_USERS + (u64::from(arrival.cohort) << 32) + u64::from(rng.random_range(0..users.get()))
    }

    /// How often a buyer walks it at most.
    pub fn walks(&self) -> u16 {
        self.repeat.map_or(1, |repeat| repeat.times)
    }

    /// From the start of one walk to that of the next.
    pub fn every(&self) -> Duration {
        self.repeat.map_or(Duration::ZERO, |repeat| repeat.every.0)
    }

    /// How long a buyer thinks before a step of one of its walks: a function of the seed, whatever happens meanwhile.
    pub fn think_before(&self, step: usize, walk: u16, arrival: Arrival, seed: u64) -> Duration {
        self.think.fixed().unwrap_or_else(|| {
            let mut rng = random::stream(seed, THINKING + arrival.n);
            // A number takes two words of the stream.
            rng.set_word_pos(2 * (u128::from(walk) * self.steps.len() as u128 + step as u128));
            self.think.draw(rng.random())
        })
    }

    /// Whether a step gives what a later order spends as its token.
    fn gives_token(step: &CompiledStep) -> bool {
        step.token.is_some() && step.role != Role::Order
    }

    /// Whether a step is left out in a walk: who spends its token again does not get another.
    pub fn leaves_out(&self, step: &CompiledStep, walk: u16) -> bool {
        walk > 0 && self.replay_token && Journey::gives_token(step)
    }
}

impl CompiledStep {
    /// Renders the whole request; `extra` are complete header lines, such as `host`.
    pub fn request(&self, values: &Values<'_>, extra: &[u8]) -> Vec<u8> {
        let (mut out, mut body) = (Vec::with_capacity(512), Vec::new());
        self.render(values, extra, &mut out, &mut body);
        out
    }

    /// The same into buffers that are used again.
    pub fn render(&self, values: &Values<'_>, extra: &[u8], out: &mut Vec<u8>, body: &mut Vec<u8>) {
        out.clear();
        self.head.render(values, out);
        out.extend_from_slice(extra);
        if !values.cookies.is_empty() {
            write!(out, "cookie: {}\r\n", values.cookies).expect("a Vec never fails");
        }
        let Some(template) = &self.body else {
            out.extend_from_slice(b"\r\n");
            return;
        };
        body.clear();
        template.render(values, body);
        write!(out, "content-length: {}\r\n\r\n", body.len()).expect("a Vec never fails");
        out.extend_from_slice(body);
    }

    /// The state that a word of the service stands for.
    pub fn state_of(&self, word: &str) -> OrderState {
        let plain = || TicketWords::plain(word);
        let declared = self.states.first().and_then(|_| {
            let plain = plain();
            self.states.iter().find(|(theirs, _)| *theirs == plain)
        });
        declared.map_or_else(|| OrderState::parse(word), |(_, state)| *state)
    }

    /// Keeps the values that later steps need from a reply; `json` is its body, null where that was not read as JSON.
    pub fn keep(&self, reply: &Reply<'_>, json: &serde_json::Value, captured: &mut [String]) {
        for (slot, source) in &self.capture {
            captured[*slot] = source.read(reply, json);
        }
    }
}

/// A JSON value as a template needs it: text without its quotes, nothing for null.
pub fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn compile_step(
    scenario: &Scenario,
    name: &str,
    step: &Step,
    slots: &mut Vec<String>,
) -> Result<CompiledStep, TemplateMistake> {
    let mut head = Vec::new();
    let text = |t: &str| Piece::Text(t.into());
    let known = slots.clone();
    let mut slot = |variable: &str| known.iter().position(|s| s == variable);
    let mut add = |at: Range<usize>, value: &str, head: &mut Vec<Piece>| -> Result<(), TemplateMistake> {
        let template = Template::compile(value, &mut slot).map_err(|why| (at, why))?;
        head.extend(template.0);
        Ok(())
    };
    head.push(text(&format!("{} ", step.method.get_ref())));
    add(step.path.span(), step.path.get_ref(), &mut head)?;
    head.push(text(" HTTP/1.1\r\n"));
    for (header, value) in &step.headers {
        head.push(text(&format!("{header}: ")));
        add(value.span(), value.get_ref(), &mut head)?;
        head.push(text("\r\n"));
    }
    if step.sse && !step.headers.keys().any(|header| header.eq_ignore_ascii_case("accept")) {
        head.push(text("accept: text/event-stream\r\n"));
    }
    let body = compile_body(step, &mut slot)?;
    if let Some((kind, _)) = &body {
        head.push(text(&format!("content-type: {kind}\r\n")));
    }
    let body = body.map(|(_, template)| template);
    let token = match &step.token {
        None => None,
        Some(token) => {
            let sent = head.iter().chain(body.iter().flat_map(|body| &body.0));
            Some(spent_token(token.get_ref(), &known, sent).map_err(|why| (token.span(), why))?)
        }
    };
    let mut capture = Vec::new();
    for (variable, place) in &step.capture {
        let index = slots.iter().position(|s| s == variable).unwrap_or_else(|| {
            slots.push(variable.clone());
            slots.len() - 1
        });
        capture.push((index, Source::parse(place.get_ref()).map_err(|why| (place.span(), why))?));
    }
    let head = Template(merge(head));
    let mut needs: Vec<usize> = head.captured().chain(body.iter().flat_map(Template::captured)).collect();
    needs.dedup();
    let check = Checks::compile(&step.check).map_err(|mut wrong| wrong.remove(0))?;
    let rules = Rules::compile(&step.outcome, &scenario.outcome)?;
    let gives_ticket = matches!(step.role, Role::Order | Role::Lookup) && step.capture.contains_key(TICKET);
    let about_tickets = gives_ticket || step.role == Role::Ticket;
    let order = match &step.reply.order {
        Some(place) => Source::parse(place.get_ref()).map_err(|why| (place.span(), why))?,
        None => Source::Json(if step.role == Role::Ticket { "/order" } else { "/id" }.to_owned()),
    };
    let plain = |words: &[String]| words.iter().map(|word| TicketWords::plain(word)).collect();
    let (pending, done, failed) = (plain(&step.reply.pending), plain(&step.reply.done), plain(&step.reply.failed));
    let wants_json =
        step.role != Role::Read || check.wants_json() || capture.iter().any(|(_, source)| source.is_json());
    Ok(CompiledStep {
        name: name.to_owned(),
        role: step.role,
        head,
        body,
        needs,
        capture,
        rules,
        check,
        order,
        state: step.reply.state.clone(),
        states: step.reply.states.iter().map(|(word, state)| (TicketWords::plain(word), *state)).collect(),
        amount: Amount::of(&step.reply),
        reason: step.reply.reason.clone(),
        words: TicketWords { pending, done, failed },
        ticket: slots.iter().position(|slot| slot == TICKET).filter(|_| about_tickets),
        token,
        polling: Polling::of(scenario, step),
        stream: EventStream::of(scenario, step),
        only_unsettled: step.only_unsettled,
        share: step.share,
        wants_json,
    })
}

/// The body of a step with its content type, if it has one.
fn compile_body(
    step: &Step,
    slot: &mut dyn FnMut(&str) -> Option<usize>,
) -> Result<Option<(&'static str, Template)>, TemplateMistake> {
    if let Some(json) = &step.json {
        let template = Template::compile(json.get_ref(), slot).map_err(|why| (json.span(), why))?.json();
        check_json(&template).map_err(|why| (json.span(), why))?;
        return Ok(Some(("application/json", template)));
    }
    if step.form.is_empty() {
        return Ok(None);
    }
    let mut pieces = Vec::new();
    for (name, value) in &step.form {
        let separator = if pieces.is_empty() { "" } else { "&" };
        let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        pieces.push(Piece::Text(format!("{separator}{name}=").into()));
        pieces.extend(Template::compile(value.get_ref(), slot).map_err(|why| (value.span(), why))?.encoded().0);
    }
    Ok(Some(("application/x-www-form-urlencoded", Template(merge(pieces)))))
}

/// The slot of a token that an order spends: one captured value, which the request really sends.
fn spent_token<'p>(token: &str, known: &[String], mut sent: impl Iterator<Item = &'p Piece>) -> Result<usize, String> {
    let name = token.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).map(str::trim);
    let slot = name.and_then(|name| known.iter().position(|known| known == name)).ok_or_else(|| {
        format!("`token` is `{token}`, and has to be one value that an earlier step captures, such as \"${{challenge_token}}\"")
    })?;
    let variable = Variable::Captured(slot);
    if sent.any(|piece| matches!(piece, Piece::Variable(sent) | Piece::Encoded(sent) | Piece::InString(sent) if *sent == variable)) {
        Ok(slot)
    } else {
        Err(format!("`token` says that the step spends `{token}`, and its request does not send it"))
    }
}

/// Renders with stand-ins and sees whether the result is JSON. A number may stand within quotes and without.
fn check_json(template: &Template) -> Result<(), String> {
    let captured = vec!["0".to_owned(); template.captured().max().map_or(0, |slot| slot + 1)];
    let values = Values { user: "u", key: "k", item: 1, quantity: 1, captured: &captured, cookies: "" };
    let mut out = Vec::new();
    template.render(&values, &mut out);
    serde_json::from_slice::<serde_json::Value>(&out)
        .map(drop)
        .map_err(|error| format!("the body is not JSON once its variables are filled in: {error}"))
}

/// Joins neighbouring texts, so that rendering copies as few pieces as possible.
fn merge(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        if let (Some(Piece::Text(last)), Piece::Text(next)) = (out.last_mut(), &piece) {
            *last = format!("{last}{next}").into();
        } else {
            out.push(piece);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_in_another_unit_is_read_exactly() {
        for (text, scale, cents) in [
            ("999.00", 100, Some(99_900)),
            ("0.1", 100, Some(10)),
            ("19", 100, Some(1_900)),
            ("19.99", 1, Some(19)),
            ("-5.5", 100, Some(-550)),
            ("0.29", 100, Some(29)),
            ("1e3", 100, None),
            ("", 100, None),
            (".5", 100, None),
            ("12,50", 100, None),
        ] {
            assert_eq!(decimal(text, scale), cents, "{text}");
        }
        let amount = Amount { at: "/price".into(), scale: Some(100) };
        assert_eq!(amount.read(&serde_json::json!({ "price": "999.00" })), 99_900);
        assert_eq!(amount.read(&serde_json::json!({ "price": 12.5 })), 1_250);
        assert_eq!(amount.read(&serde_json::json!({})), -1);
        let cents = Amount { at: "/price".into(), scale: None };
        assert_eq!(cents.read(&serde_json::json!({ "price": "9900" })), -1);
    }
}
