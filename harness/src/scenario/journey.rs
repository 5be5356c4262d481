//! Journeys, compiled: each step's request with its templates ready to be rendered, and what to read from its reply.

use std::io::Write;
use std::num::NonZeroU32;
use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::template::{Piece, Template, Values};
use super::value::Dur;
use super::{Cohort, Scenario, Step};
use crate::history::Role;
use crate::load::arrival::Arrival;

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
    pub think: Dur,
    /// Accounts that the arrivals share; each is somebody else without it.
    pub users: Option<NonZeroU32>,
    /// Whether an order's first attempt is sent twice at once.
    pub double_click: bool,
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
    /// Values to keep: slot and JSON pointer.
    pub capture: Vec<(usize, String)>,
    /// JSON pointer to the order's id.
    pub order: String,
    /// JSON pointer to its state.
    pub state: String,
    /// JSON pointer to its amount.
    pub amount_cents: String,
    /// Only made when an order's fate is unknown.
    pub only_unsettled: bool,
    /// Share of the buyers who go on from here.
    pub share: f64,
    /// Whether the reply's body must be read as JSON at all.
    pub wants_json: bool,
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
            steps.push(compile_step(name.get_ref(), step.get_ref(), &mut slots)?);
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
            users: cohort.users,
            double_click: cohort.double_click,
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
        compile_step(name, step.get_ref(), &mut Vec::new())
    }
}

/// Accounts that a cohort shares are numbered from here on, cohort after cohort; arrivals never come to so many.
const SHARED_USERS: u64 = 1_000_000_000_000;

impl Journey {
    /// The number of the buyer that an arrival stands for. Which of its accounts a cohort uses is drawn from the seed.
    pub fn user_of(&self, arrival: Arrival, seed: u64) -> u64 {
        let Some(users) = self.users else { return arrival.n };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(arrival.n);
        SHARED_USERS + (u64::from(arrival.cohort) << 32) + u64::from(rng.random_range(0..users.get()))
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
        let Some(template) = &self.body else {
            out.extend_from_slice(b"\r\n");
            return;
        };
        body.clear();
        template.render(values, body);
        write!(out, "content-length: {}\r\n\r\n", body.len()).expect("a Vec never fails");
        out.extend_from_slice(body);
    }

    /// Keeps the values that later steps need from a reply's body.
    pub fn keep_captures(&self, body: &[u8], captured: &mut [String]) {
        if self.capture.is_empty() {
            return;
        }
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
            self.keep_captures_of(&json, captured);
        }
    }

    /// The same from a body that is parsed already.
    pub fn keep_captures_of(&self, json: &serde_json::Value, captured: &mut [String]) {
        for (slot, pointer) in &self.capture {
            captured[*slot] = json.pointer(pointer).map(text_of).unwrap_or_default();
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

fn compile_step(name: &str, step: &Step, slots: &mut Vec<String>) -> Result<CompiledStep, TemplateMistake> {
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
    let body = match &step.json {
        None => None,
        Some(json) => {
            head.push(text("content-type: application/json\r\n"));
            let template = Template::compile(json.get_ref(), &mut slot).map_err(|why| (json.span(), why))?;
            check_json(&template).map_err(|why| (json.span(), why))?;
            Some(template)
        }
    };
    let mut capture = Vec::new();
    for (variable, pointer) in &step.capture {
        let index = slots.iter().position(|s| s == variable).unwrap_or_else(|| {
            slots.push(variable.clone());
            slots.len() - 1
        });
        capture.push((index, pointer.get_ref().clone()));
    }
    let wants_json = !capture.is_empty() || step.role != Role::Read;
    Ok(CompiledStep {
        name: name.to_owned(),
        role: step.role,
        head: Template(merge(head)),
        body,
        capture,
        order: step.reply.order.clone(),
        state: step.reply.state.clone(),
        amount_cents: step.reply.amount_cents.clone(),
        only_unsettled: step.only_unsettled,
        share: step.share,
        wants_json,
    })
}

/// Renders with stand-ins and sees whether the result is JSON.
fn check_json(template: &Template) -> Result<(), String> {
    let values = Values { user: "u", key: "k", item: 1, quantity: 1, captured: &[] };
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
