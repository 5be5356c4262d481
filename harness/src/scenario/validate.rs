//! What a scenario must hold beyond its types: names that exist, numbers in range, a timeline that fits.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use tokio_rustls::rustls::pki_types::ServerName;
use toml::Spanned;

use super::diagnose::{Mistake, Place};
use super::journey::{Journey, MOST_SCALE};
use super::outcome::{self, Means, OutcomeRule};
use super::reading::{self, Checks, PLACES, Source, is_token};
use super::value::{Dur, Size, normal_link};
use super::{Cohort, Hosts, Reference, Retry, Runs, Scenario, Step, Target, TicketWords, template, topology};
use crate::fault::proxy::Protocol;
use crate::history::{INTENTS_PER_ARRIVAL, Micros, Role};
use crate::load::arrival::Arrivals;
use crate::load::client::entry;

mod external;
mod gate;
mod steady;
mod timeline;

struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, at: impl Into<Place>, what: impl Into<String>, help: impl Into<String>) {
        self.0.push(Mistake { at: at.into(), what: what.into(), help: help.into() });
    }
}

/// Everything that is wrong, in the order of the file's sections.
pub(super) fn validate(scenario: &Scenario) -> Vec<Mistake> {
    let mut m = Mistakes(Vec::new());
    names_and_items(scenario, &mut m);
    target(&scenario.target, &mut m);
    hosts(scenario, &mut m);
    load(scenario, &mut m);
    connection(scenario, &mut m);
    common_arrivals(scenario, &mut m);
    outcomes("[[outcome]]", &scenario.outcome, Role::Read, &mut m);
    for (name, step) in &scenario.step {
        self::step(name, step, &mut m);
        if let Some((_, value)) =
            step.get_ref().headers.iter().find(|(header, _)| header.eq_ignore_ascii_case("cookie"))
            && scenario.load.cookies
        {
            m.add(
                value.span(),
                format!("step \"{name}\" has a `cookie` header, and load.cookies sends one, too"),
                "remove the header, or set load.cookies = false",
            );
        }
    }
    for (name, cohort) in &scenario.cohort {
        self::cohort(scenario, name, cohort, &mut m);
    }
    timeline::faults(scenario, &mut m);
    steady::steady_state(scenario, &mut m);
    steady::stops(scenario, &mut m);
    slos(scenario, &mut m);
    variants(scenario, &mut m);
    gate::gate(scenario, &mut m);
    m.0
}

/// Whether a text can name a folder.
fn names_a_folder(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn variants(scenario: &Scenario, m: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for (index, variant) in scenario.variant.iter().enumerate() {
        if !names_a_folder(&variant.name) || !seen.insert(&variant.name) {
            m.add(
                Place::key(&format!("variant.{index}.name")),
                format!("variant \"{}\": a name stands once, and names a folder", variant.name),
                "use letters, digits, dashes and underscores, and give each [[variant]] its own name",
            );
        }
    }
    if !(1..=100).contains(&scenario.compare.rounds) {
        let what = format!("compare.rounds is {}", scenario.compare.rounds);
        m.add(Place::key("compare.rounds"), what, "from 1 to 100; 6 are the fewest that give a 95% interval");
    }
    let steps: Vec<&str> = scenario.step.keys().map(String::as_str).collect();
    let order = scenario.compare.order.iter().map(|step| ("compare.order", step));
    for (key, step) in order.chain(scenario.compare.beside.iter().map(|step| ("compare.beside", step))) {
        if !steps.contains(&step.as_str()) {
            m.add(
                Place::key(key),
                format!("{key}: there is no step \"{step}\""),
                format!("one of {}", steps.join(", ")),
            );
        }
    }
}

fn names_and_items(scenario: &Scenario, m: &mut Mistakes) {
    if !names_a_folder(&scenario.name) {
        m.add(
            Place::key("name"),
            format!("name = \"{}\" cannot name a folder", scenario.name),
            "use letters, digits, dashes and underscores",
        );
    }
    if scenario.item.is_empty() {
        m.add(
            0..0,
            "there is no item on sale",
            "add an [[item]] with id, price_cents, stock, per_user_limit, closes_at, hold",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, item) in scenario.item.iter().enumerate() {
        let key = |name: &str| Place::key(&format!("item.{index}.{name}"));
        let label = format!("item {}", item.id);
        if item.id < 1 || !seen.insert(item.id) {
            m.add(
                key("id"),
                format!("{label}: `id` must be positive and stand only once"),
                "give each [[item]] its own id",
            );
        }
        if item.stock < 1 || item.stock > 100_000_000 {
            m.add(key("stock"), format!("{label}: `stock` is {}", item.stock), "a sale has from 1 to 100000000 units");
        }
        if item.per_user_limit < 1 {
            m.add(key("per_user_limit"), format!("{label}: `per_user_limit` is {}", item.per_user_limit), "at least 1");
        }
        if item.price_cents < 0 {
            m.add(key("price_cents"), format!("{label}: `price_cents` is {}", item.price_cents), "0 or more");
        }
        if item.closes_at <= item.opens_at {
            m.add(
                key("closes_at"),
                format!("{label}: it closes at {} but opens at {}", item.closes_at, item.opens_at),
                "`closes_at` must be later than `opens_at`",
            );
        }
        if item.hold.0.is_zero() {
            m.add(key("hold"), format!("{label}: `hold` is 0s"), "a hold lasts at least 1ms");
        }
    }
}

/// Connections that a service may have at most: the embedded Postgres takes 200, and some are its own.
const MOST_CONNECTIONS: u32 = 180;

/// Whether a text can be the name of an image, with a tag or without. The engine knows the rest of the rules.
fn names_an_image(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) && !text.ends_with([':', '/', '@'])
}

/// What is wrong with a stack of containers: names of images, and parts that it has not.
fn containers(reference: &Reference, m: &mut Mistakes) {
    let images = [("postgres", &reference.containers.postgres), ("redis", &reference.containers.redis)];
    for (key, name) in images.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))) {
        if !names_an_image(name.get_ref()) {
            m.add(
                name.span(),
                format!("target.reference.containers.{key}: `{}` is no name of an image", name.get_ref()),
                "a name as Docker takes it, such as \"postgres:17\" or \"127.0.0.1:5000/shop/postgres:17\"",
            );
        }
    }
    if reference.stack != Runs::Containers {
        return;
    }
    let asked = [
        ("hosts", reference.hosts != Hosts::default()),
        ("standby", reference.standby.is_some()),
        ("small_disk", reference.small_disk.is_some()),
    ];
    for (key, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        m.add(
            Place::key(&format!("target.reference.{key}")),
            format!("target: `{key}` is not to be had in a stack of containers"),
            format!("run it on processes of this machine, with --stack embedded; or remove `{key}`"),
        );
    }
}

/// Hosts are for roles that there are.
fn hosts(scenario: &Scenario, m: &mut Mistakes) {
    let Target::Reference(Reference { hosts: Hosts::Of(wanted), .. }) = &scenario.target else { return };
    let possible = scenario.possible_hosts();
    for role in wanted.iter().filter(|role| !possible.contains(&role.as_str())) {
        m.add(
            Place::key("target.reference.hosts"),
            format!("target: `hosts` names \"{role}\", and this stack has no such role"),
            format!("true for all, or some of {}", possible.join(", ")),
        );
    }
}

/// More of them cost more when they are dealt out anew than they save.
const MOST_SHARDS: u32 = 1_000;
/// Each waits with a request and its connection.
const MOST_WAITING: u32 = 1_000_000;
/// Sizes that the disk of a database may have.
const SMALL_DISKS: RangeInclusive<Size> = Size::mebibytes(128)..=Size::mebibytes(8192);

fn target(target: &Target, m: &mut Mistakes) {
    match target {
        Target::Reference(reference) => {
            let counts = [
                ("pool", reference.pool, MOST_CONNECTIONS),
                ("workers", reference.workers, 256),
                ("shards", u32::from(reference.shards()), MOST_SHARDS),
                ("queue", reference.queue.unwrap_or(1), MOST_WAITING),
            ];
            for (key, value, most) in counts {
                if !(1..=most).contains(&value) {
                    let at = Place::key(&format!("target.reference.{key}"));
                    m.add(at, format!("target: `{key}` is {value}"), format!("from 1 to {most}"));
                }
            }
            containers(reference, m);
            without_redis(reference, m);
            if let Some(size) = reference.small_disk.filter(|size| !SMALL_DISKS.contains(size)) {
                let at = Place::key("target.reference.small_disk");
                let (least, most) = (SMALL_DISKS.start(), SMALL_DISKS.end());
                m.add(
                    at,
                    format!("target: `small_disk` is {size}"),
                    format!("from {least}, which a database needs, to {most}"),
                );
            }
            let most = topology::ACCESS_PROCESSES.len();
            if reference.access as usize > most {
                let what = format!("target: `access` is {}", reference.access);
                m.add(Place::key("target.reference.access"), what, format!("from 0 to {most} processes"));
            }
            let declines = reference.payment_declines;
            let at = || Place::key("target.reference.payment_declines");
            if !(0.0..=1.0).contains(&declines) {
                m.add(at(), format!("target: `payment_declines` is {declines}"), "a share from 0 to 1");
            } else if declines > 0.0 && !reference.payment {
                let what = "target: `payment_declines` without a payment dependency declines nothing";
                m.add(at(), what, "add payment = true, or remove it");
            }
        }
        Target::External(external) => external::external(external, m),
    }
}

/// What is said of a Redis that there is not.
fn without_redis(reference: &Reference, m: &mut Mistakes) {
    let said = [("redis_aof", reference.redis_aof.is_some()), ("redis_replica", reference.redis_replica)];
    for (key, _) in said.into_iter().filter(|(_, said)| *said && !reference.redis) {
        m.add(
            Place::key(&format!("target.reference.{key}")),
            format!("target: `{key}` is about a Redis, and this stack has none"),
            format!("add redis = true to [target.reference], or remove `{key}`"),
        );
    }
}

fn load(scenario: &Scenario, m: &mut Mistakes) {
    let load = &scenario.load;
    let longest = Dur::millis(24 * 3600 * 1000);
    if load.duration.0.is_zero() || load.duration > longest {
        m.add(
            Place::key("load.duration"),
            format!("load.duration is {}", load.duration),
            "more than 0s and at most 24h: a rehearsal is bounded",
        );
    }
    if load.virtual_buyers == 0 || load.virtual_buyers > 50_000 {
        m.add(
            Place::key("load.virtual_buyers"),
            format!("load.virtual_buyers is {}", load.virtual_buyers),
            "from 1 to 50000",
        );
    }
    if !(load.scale > 0.0 && load.scale <= 1e4) {
        m.add(
            Place::key("load.scale"),
            format!("load.scale is {}", load.scale),
            "more than 0 and at most 10000; 1 changes nothing",
        );
    }
    if load.request_timeout.0.is_zero() {
        m.add(Place::key("load.request_timeout"), "load.request_timeout is 0s", "a request needs time, such as \"2s\"");
    }
    retry("load", &load.retry, m);
    for (index, phase) in scenario.phase.iter().enumerate() {
        if scenario.phase[..index].iter().any(|earlier| earlier.name == phase.name) {
            m.add(
                Place::key(&format!("phase.{index}.name")),
                format!("two phases have the name \"{}\"", phase.name),
                "give each phase its own name",
            );
        }
        if phase.until <= phase.from {
            m.add(
                Place::key(&format!("phase.{index}.until")),
                format!("phase \"{}\" ends at {} but starts at {}", phase.name, phase.until, phase.from),
                "`until` must be later than `from`",
            );
        }
    }
}

/// Files are looked at here, so that nothing is started for one that is not there.
fn connection(scenario: &Scenario, m: &mut Mistakes) {
    let Some(spanned) = &scenario.load.connection.tls else { return };
    let tls = spanned.get_ref();
    if matches!(scenario.target, Target::Reference(_)) {
        m.add(
            spanned.span(),
            "load.connection.tls is about external services",
            "remove it, and ask the reference service for TLS with [target.reference] tls = true",
        );
        return;
    }
    match &tls.ca {
        None if tls.verify => m.add(
            spanned.span(),
            "load.connection.tls has no `ca`, so no certificate could be trusted",
            "ca = \"ca.pem\" names the certificates to trust; verify = false trusts everybody",
        ),
        Some(ca) if !tls.verify => m.add(
            ca.span(),
            "load.connection.tls has a `ca`, and verifies nothing",
            "remove `ca`, or remove verify = false",
        ),
        Some(ca) => {
            if let Err(why) = entry::read_ca(ca.get_ref()).and_then(|pem| entry::roots(&pem)) {
                let what = format!("load.connection.tls.ca = \"{}\": {why}", ca.get_ref());
                m.add(ca.span(), what, "a file in PEM, from the folder that the harness is started in");
            }
        }
        None => {}
    }
    if let Some(name) = &tls.name
        && ServerName::try_from(name.get_ref().as_str()).is_err()
    {
        let what = format!("load.connection.tls.name = \"{}\" is no name of a server", name.get_ref());
        m.add(name.span(), what, "a name such as \"shop.example\", or an address");
    }
}

fn fraction(key: &str, value: f64, at: impl Into<Place>, m: &mut Mistakes) {
    if !(0.0..=1.0).contains(&value) {
        m.add(at, format!("`{key}` is {value}"), "a share from 0 to 1, such as 0.25");
    }
}

fn step(name: &str, step: &Spanned<Step>, m: &mut Mistakes) {
    let s = step.get_ref();
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    if !methods.contains(&s.method.get_ref().as_str()) {
        m.add(
            s.method.span(),
            format!("step \"{name}\": `{}` is no method", s.method.get_ref()),
            format!("one of {}", methods.join(", ")),
        );
    }
    let path = s.path.get_ref();
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        m.add(
            s.path.span(),
            format!("step \"{name}\": the path `{path}` cannot be requested"),
            "a path starts with `/` and has no spaces, such as \"/items/${item}\"",
        );
    }
    for (header, value) in &s.headers {
        if !is_token(header) || value.get_ref().contains(['\r', '\n']) {
            m.add(value.span(), format!("step \"{name}\": `{header}` is no header"), "a name and a value of one line");
        }
        if ["host", "content-length", "connection", "transfer-encoding"].contains(&header.to_ascii_lowercase().as_str())
        {
            m.add(
                value.span(),
                format!("step \"{name}\": `{header}` is set by the harness"),
                if header.eq_ignore_ascii_case("host") {
                    "remove the header; the name of the service is target.external.host"
                } else {
                    "remove the header; the client writes it itself"
                },
            );
        }
    }
    body_and_reply(name, s, m);
    outcomes(&format!("step \"{name}\""), &s.outcome, s.role, m);
    fraction(&format!("step.{name}.share"), s.share, step.span(), m);
    ticket(name, step, m);
    events(name, step, m);
    if let Some(token) = s.token.as_ref().filter(|_| s.role != Role::Order) {
        m.add(
            token.span(),
            format!("step \"{name}\": only an order spends a `token`"),
            "remove the key; who was given a token is known from the step that captures it",
        );
    }
    if s.role == Role::Order && !uses_key(s) {
        m.add(
            step.span(),
            format!("step \"{name}\" has the role \"order\" but sends no ${{key}}"),
            "add headers = { idempotency-key = \"${key}\" }, so that a retry can be told from a second purchase",
        );
    }
}

/// What a step sends besides its head, and what it reads from the reply.
fn body_and_reply(name: &str, s: &Step, m: &mut Mistakes) {
    if let (Some(json), Some(field)) = (&s.json, s.form.values().next()) {
        let at = json.span().start.max(field.span().start)..json.span().end.max(field.span().end);
        m.add(
            at,
            format!("step \"{name}\" has both `json` and `form`"),
            "a request has one body: remove one of the two",
        );
    }
    for (variable, place) in s.capture.iter().filter(|(variable, _)| template::BUILT_IN.contains(&variable.as_str())) {
        m.add(
            place.span(),
            format!(
                "step \"{name}\": a captured value cannot be called `{variable}`, which the harness fills in itself"
            ),
            format!("another name; {} are taken", template::BUILT_IN.join(", ")),
        );
    }
    let captures = s.capture.iter().map(|(variable, place)| (format!("`{variable}` is captured from"), place));
    let order = s.reply.order.iter().map(|place| ("`reply.order` is".to_owned(), place));
    for (what, place) in captures.chain(order) {
        if let Err(why) = Source::parse(place.get_ref()) {
            m.add(place.span(), format!("step \"{name}\": {what} `{}`, and {why}", place.get_ref()), PLACES);
        }
    }
    let pointers = [("state", &s.reply.state), ("amount_cents", &s.reply.amount_cents), ("reason", &s.reply.reason)];
    for (key, place) in pointers {
        if let Err(why) = reading::pointer(place) {
            let at = Place::key(&format!("step.{name}.reply.{key}"));
            m.add(
                at,
                format!("step \"{name}\": reply.{key}: {why}"),
                "a JSON pointer into the reply, such as \"/order/state\"",
            );
        }
    }
    amount(name, s, m);
    if s.check.status.as_ref().is_some_and(Vec::is_empty) {
        m.add(
            Place::key(&format!("step.{name}.check.status")),
            format!("step \"{name}\": check.status is empty, so that no reply could be a success"),
            "name the statuses that are one, from 200 to 399, such as status = [200, 303]; without the key 2xx and 304 are",
        );
    }
    for (at, why) in Checks::compile(&s.check).err().into_iter().flatten() {
        m.add(
            at,
            format!("step \"{name}\": check: {why}"),
            "status = [200, 303] (from 200 to 399), json = { \"/state\" = \"open\" }, header = { content-type = \"text/html\" }, \
             body = \"in stock\", not_body = \"sorry\"; the last three are regexes",
        );
    }
}

/// Outcome rules that can be compiled, and mean what the step can mean.
fn outcomes(whose: &str, rules: &[Spanned<OutcomeRule>], role: Role, m: &mut Mistakes) {
    for rule in rules {
        if let Err((at, why)) = outcome::Rules::compile(std::slice::from_ref(rule), &[]) {
            m.add(at, format!("{whose}: outcome: {why}"), outcome::ACCEPTED);
        } else if rule.get_ref().means == Means::Pending && !matches!(role, Role::Order | Role::Lookup | Role::Ticket) {
            m.add(
                rule.span(),
                format!(
                    "{whose}: outcome: `pending` is about an order that is not decided yet, and the step is about none"
                ),
                "means = \"ok\", \"fail\" or \"info\"; `pending` stands in steps with the role order, lookup or ticket",
            );
        }
    }
}

/// An amount is stated in one unit.
fn amount(name: &str, s: &Step, m: &mut Mistakes) {
    if let Some(at) = &s.reply.amount
        && let Err(why) = reading::pointer(at.get_ref())
    {
        m.add(at.span(), format!("step \"{name}\": reply.amount: {why}"), "a JSON pointer, such as \"/data/price\"");
    }
    let Some(scale) = &s.reply.scale else { return };
    if s.reply.amount.is_none() {
        m.add(
            scale.span(),
            format!("step \"{name}\": reply.scale is about reply.amount, and there is none"),
            "name the place: reply = { amount = \"/data/price\", scale = 100 }; what stands at amount_cents needs no scale",
        );
    } else if !(1..=MOST_SCALE).contains(scale.get_ref()) {
        m.add(
            scale.span(),
            format!("step \"{name}\": reply.scale is {}", scale.get_ref()),
            format!("how many of the smallest unit one is, from 1 to {MOST_SCALE}: 100 cents are a euro"),
        );
    }
}

/// What only a ticket's step may have, and what it must.
fn ticket(name: &str, step: &Spanned<Step>, m: &mut Mistakes) {
    let s = step.get_ref();
    if s.role != Role::Ticket {
        let settings =
            [("every", s.every.is_some()), ("until", s.until.is_some() && !s.sse), ("again", s.again.is_some())];
        for (key, _) in settings.iter().filter(|(_, given)| *given) {
            m.add(
                step.span(),
                format!("step \"{name}\": `{key}` is how a ticket is asked about, and this step asks about none"),
                "remove the key, or give the step role = \"ticket\"",
            );
        }
        return;
    }
    if !s.path.get_ref().contains("${ticket}") {
        m.add(
            s.path.span(),
            format!("step \"{name}\" has the role \"ticket\" but its path has no ${{ticket}}"),
            "path = \"/tickets/${ticket}\", and the order step captures it: capture = { ticket = \"header:location\" }",
        );
    }
    if s.every.is_some_and(|every| every.0.is_zero()) {
        m.add(step.span(), format!("step \"{name}\": `every` is 0s"), "a question needs time, such as \"200ms\"");
    }
    let words = [("pending", &s.reply.pending), ("done", &s.reply.done), ("failed", &s.reply.failed)];
    for (key, list) in words {
        if list.is_empty() && key != "pending" {
            m.add(
                step.span(),
                format!("step \"{name}\": reply.{key} is empty, so no reply could ever mean it"),
                "name the states that a ticket ends in: reply = { done = [\"ordered\"], failed = [\"sold-out\"] }",
            );
        }
    }
    let mut all: Vec<String> = words.iter().flat_map(|(_, list)| *list).map(|word| TicketWords::plain(word)).collect();
    all.sort();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        m.add(
            step.span(),
            format!("step \"{name}\": \"{}\" stands twice in reply.pending, done and failed", pair[0]),
            "a state means one thing; a list that is not given has the words that `seckill schema scenario` shows",
        );
    }
}

/// What a step that waits for an event may have, and what it must.
fn events(name: &str, step: &Spanned<Step>, m: &mut Mistakes) {
    let s = step.get_ref();
    let (what, help) = match (s.sse, s.role) {
        (false, _) if s.event.is_some() => {
            ("`event` is waited for in a stream of events, and this step has none", "add sse = true, or remove `event`")
        }
        (false, _) => return,
        (true, _) if s.event.as_deref() == Some("") => {
            ("`event` is empty, which no event's type is", "event = \"message\" waits for events that name no type")
        }
        (true, Role::Read) if s.event.is_none() => (
            "no `event` is named, so it is not said what the step waits for",
            "event = \"open\" waits for `event: open`",
        ),
        (true, Role::Read | Role::Ticket) if s.method.get_ref() != "GET" || s.json.is_some() || !s.form.is_empty() => {
            ("a stream of events is asked for with GET and no body", "remove `method`, `json` and `form`")
        }
        (true, Role::Read | Role::Ticket) => return,
        (true, _) => (
            "only a page and a ticket can wait for an event",
            "remove `sse`; an order that is decided later is followed by a step with role = \"ticket\" and sse = true",
        ),
    };
    m.add(step.span(), format!("step \"{name}\": {what}"), help);
}

fn uses_key(step: &Step) -> bool {
    let texts = step.headers.values().chain([&step.path]).chain(&step.json).chain(step.form.values());
    texts.into_iter().any(|text| text.get_ref().contains("${key}"))
}

fn cohort(scenario: &Scenario, name: &str, cohort: &Spanned<Cohort>, m: &mut Mistakes) {
    let c = cohort.get_ref();
    if c.journey.is_empty() {
        m.add(cohort.span(), format!("cohort \"{name}\" has an empty journey"), "name at least one step");
    }
    let known: Vec<&str> = scenario.step.keys().map(String::as_str).collect();
    let mut missing = false;
    for step in &c.journey {
        if !scenario.step.contains_key(step.get_ref()) {
            missing = true;
            m.add(
                step.span(),
                format!("cohort \"{name}\": there is no step \"{}\"", step.get_ref()),
                format!("one of {}; or add [step.{}]", known.join(", "), step.get_ref()),
            );
        }
    }
    if let Some((name, step)) = c.journey.first().and_then(|n| Some((n, scenario.step.get(n.get_ref())?.get_ref())))
        && (step.share < 1.0 || step.only_unsettled || matches!(step.role, Role::Pay | Role::Cancel | Role::Ticket))
    {
        m.add(
            name.span(),
            format!("step \"{}\" cannot begin a journey: not every buyer makes it", name.get_ref()),
            "begin with a step that every arrival makes, such as a page or the order",
        );
    }
    let item = *c.item.get_ref();
    if item != 0 && scenario.find_item(item).is_none() {
        let ids: Vec<String> = scenario.item.iter().map(|i| i.id.to_string()).collect();
        m.add(
            c.item.span(),
            format!("cohort \"{name}\": there is no item {item}"),
            format!("one of {}", ids.join(", ")),
        );
    }
    if c.quantity == 0 {
        m.add(
            cohort.span(),
            format!("cohort \"{name}\": `quantity` is 0"),
            "at least 1; or less than 0 for clients that tamper with their orders, which a service must refuse",
        );
    }
    self::arrivals(scenario, &format!("cohort.{name}"), &c.arrivals, c.clock_skew.most_us.max(0), m);
    share(scenario, name, cohort, m);
    retry(&format!("cohort.{name}"), &c.retry, m);
    if let Err(why) = c.think.check() {
        let at = Place::key(&format!("cohort.{name}.think"));
        m.add(at, format!("cohort \"{name}\": `think`: {why}"), "{ median = \"2s\", sigma = 0.5 }, for instance");
    }
    repeat(scenario, name, cohort, m);
    if !missing && let Err(mistake) = Journey::compile(scenario, c) {
        m.add(mistake.0, format!("cohort \"{name}\": {}", mistake.1), "correct the template");
    }
}

/// Arrivals with numbers in range that are over before the load is, however late clocks make them, and in which somebody
/// comes.
fn arrivals(scenario: &Scenario, whose: &str, list: &[Arrivals], late_us: Micros, m: &mut Mistakes) {
    if !list.is_empty()
        && list.iter().all(|arrivals| arrivals.check(scenario.load.scale).is_ok() && arrivals.is_nobody())
    {
        m.add(
            Place::key(&format!("{whose}.arrivals.0.{}", list[0].kind())),
            format!("{whose}: every rate of its `arrivals` is 0, so nobody ever comes"),
            "give one of them a rate above 0, in arrivals per second; or remove them, and the cohort that nobody is of",
        );
    }
    for (index, arrivals) in list.iter().enumerate() {
        let at = Place::key(&format!("{whose}.arrivals.{index}.{}", arrivals.kind()));
        if let Err(why) = arrivals.check(scenario.load.scale) {
            m.add(at, format!("{whose}: {why}"), "`seckill schema scenario` lists the kinds of arrivals");
        } else if arrivals.until_us() + late_us > scenario.load.duration.micros() {
            let late = if late_us > 0 { ", with the clock_skew" } else { "" };
            m.add(
                at,
                format!("{whose}: these arrivals go on after load.duration ({}){late}", scenario.load.duration),
                "shorten `lasts`, or lengthen load.duration",
            );
        }
    }
}

/// Each walk is a purchase of its own, and a token is only spent again by who walks again.
fn repeat(scenario: &Scenario, name: &str, cohort: &Spanned<Cohort>, m: &mut Mistakes) {
    let c = cohort.get_ref();
    let steps = || c.journey.iter().filter_map(|step| scenario.step.get(step.get_ref())).map(Spanned::get_ref);
    let orders = steps().filter(|step| step.role == Role::Order).count() as u64;
    let times = c.repeat.as_ref().map_or(1, |repeat| repeat.get_ref().times);
    let at = c.repeat.as_ref().map_or(cohort.span(), Spanned::span);
    if times == 0 {
        m.add(at, format!("cohort \"{name}\": `repeat.times` is 0"), "at least 1: the first walk counts");
    } else if u64::from(times) * orders.max(1) > INTENTS_PER_ARRIVAL {
        m.add(
            at,
            format!("cohort \"{name}\": {times} walks with {orders} orders each"),
            format!("one buyer walks and orders at most {INTENTS_PER_ARRIVAL} times; let more buyers come instead"),
        );
    }
    if c.replay_token && !steps().any(|step| step.role == Role::Order && step.token.is_some()) {
        m.add(
            cohort.span(),
            format!("cohort \"{name}\" has `replay_token`, and no order of its journey spends a token"),
            "say which captured value is single-use: token = \"${challenge_token}\" in the order's step",
        );
    } else if c.replay_token && times < 2 {
        m.add(
            cohort.span(),
            format!("cohort \"{name}\" has `replay_token`, and walks only once"),
            "add repeat = { times = 3, every = \"1s\" }: the token is spent again in each walk after the first",
        );
    }
}

fn retry(of: &str, retry: &Retry, m: &mut Mistakes) {
    for (key, value, help) in retry.mistakes() {
        let key = format!("{of}.retry.{key}");
        m.add(Place::key(&key), format!("{key} is {value}"), help);
    }
}

/// Each cohort comes somehow, and a share is one of something.
fn share(scenario: &Scenario, name: &str, cohort: &Spanned<Cohort>, m: &mut Mistakes) {
    let c = cohort.get_ref();
    let common = !scenario.load.arrivals.is_empty();
    match c.share {
        None if c.arrivals.is_empty() => m.add(
            cohort.span(),
            format!("cohort \"{name}\" has neither `arrivals` nor a `share`, so nobody of it ever comes"),
            "add [[cohort.NAME.arrivals]], or a `share` of [[load.arrivals]]",
        ),
        Some(share) if !(share > 0.0 && share <= 1e9) => m.add(
            cohort.span(),
            format!("cohort \"{name}\": `share` is {share}"),
            "a weight above 0 and at most 1000000000, such as 100 for the readers and 1 for the writers",
        ),
        Some(_) if !common => m.add(
            cohort.span(),
            format!("cohort \"{name}\" has a `share`, and there are no common arrivals to share"),
            "add [[load.arrivals]], or give the cohort `arrivals` of its own instead",
        ),
        _ => {}
    }
}

/// The arrivals of the crowd as a whole.
fn common_arrivals(scenario: &Scenario, m: &mut Mistakes) {
    let cohorts = || scenario.cohort.values().map(|cohort| cohort.get_ref()).filter(|c| c.share.is_some());
    let late_us = cohorts().map(|c| c.clock_skew.most_us.max(0)).max();
    if late_us.is_none() && !scenario.load.arrivals.is_empty() {
        m.add(
            Place::key("load.arrivals"),
            "load.arrivals: no cohort has a `share` of them",
            "add share = 1 to a cohort",
        );
    }
    arrivals(scenario, "load", &scenario.load.arrivals, late_us.unwrap_or(0), m);
}

/// Takes down what is wrong with one fault.
pub struct About<'a> {
    scenario: &'a Scenario,
    id: &'a str,
    /// The key under which its parameters stand.
    inject: String,
    /// The longest that it lasts, where that is known.
    longest: Option<Dur>,
    m: &'a mut Mistakes,
}

impl About<'_> {
    /// The scenario that the fault is part of.
    pub fn scenario(&self) -> &Scenario {
        self.scenario
    }

    /// Something is wrong, at a place in the file; what is accepted, and the remedy.
    pub fn wrong(&mut self, at: Range<usize>, what: impl AsRef<str>, help: impl Into<String>) {
        self.m.add(at, format!("fault \"{}\": {}", self.id, what.as_ref()), help);
    }

    /// Something is wrong with a parameter: told at its place, or at the fault's where it is not given.
    pub fn parameter(&mut self, key: &str, what: &str, help: impl Into<String>) {
        let at = Place::key(&format!("{}.{key}", self.inject));
        self.m.add(at, format!("fault \"{}\": {what}", self.id), help);
    }

    /// What is to happen so long after the injection has to come while the fault lasts.
    pub fn while_it_lasts(&mut self, key: &str, after: Dur) {
        let Some(longest) = self.longest.filter(|longest| after >= *longest && !longest.0.is_zero()) else { return };
        let what =
            format!("`{key}` is {after}, and the fault is healed after {longest} at most, so it never comes to that");
        self.parameter(key, &what, format!("less than {longest}, or a fault that `lasts` longer"));
    }

    /// A share of what is struck: none at all would be no fault.
    pub fn share(&mut self, key: &str, value: f64) {
        if !(value > 0.0 && value <= 1.0) {
            self.parameter(key, &format!("`{key}` is {value}"), "a share above 0 and up to 1, such as 0.25");
        }
    }

    /// The link has to exist and, where the fault reads what passes, to speak what it reads.
    pub fn link(&mut self, link: &Spanned<String>, needs: Option<Protocol>) {
        let name = normal_link(link.get_ref());
        let links = self.scenario.links();
        let names = |speak: Option<Protocol>| {
            let spoken = links.iter().filter(|l| speak.is_none_or(|wanted| l.speaks == wanted));
            spoken.map(|l| l.name).collect::<Vec<_>>().join(", ")
        };
        let Some(found) = links.iter().find(|l| l.name == name) else {
            let help = format!("the links of this stack are {}", names(None));
            return self.wrong(link.span(), format!("there is no link \"{}\"", link.get_ref()), help);
        };
        let Some(needed) = needs.filter(|needed| *needed != found.speaks) else { return };
        if needed == Protocol::Http && found.name == self.scenario.entrance() {
            return self.wrong(
                link.span(),
                format!("with TLS or HTTP/2, nobody on `{name}` can tell where a reply is"),
                "use reset, black-hole or latency there, or cut-after-commit on service→postgres; or speak plain HTTP/1.1",
            );
        }
        let help = match names(needs) {
            none if none.is_empty() => format!("no link of this stack speaks {needed}"),
            some => format!("use {some}"),
        };
        self.wrong(link.span(), format!("`{name}` does not speak {needed}"), help);
    }

    /// The role has to be one that the harness has started.
    pub fn role(&mut self, role: &Spanned<String>) {
        let roles = self.scenario.roles();
        if roles.contains(&role.get_ref().as_str()) {
            return;
        }
        let help = if roles.is_empty() {
            "the harness did not start this service, so it has no processes to break; use faults on links, or say how they are \
             started: [target.external.process.NAME]"
                .to_owned()
        } else {
            format!("the processes of this stack are {}", roles.join(", "))
        };
        self.wrong(role.span(), format!("there is no process \"{}\"", role.get_ref()), help);
    }
}

impl About<'_> {
    /// The role has to have a network of its own.
    pub fn networked(&mut self, role: &Spanned<String>) {
        let networked = self.scenario.networked();
        if networked.contains(&role.get_ref().as_str()) || !self.scenario.roles().contains(&role.get_ref().as_str()) {
            return;
        }
        let help = if networked.is_empty() {
            "run it with --stack containers, or use black-hole or reset on its link".to_owned()
        } else {
            format!("only containers have one: {}; or use black-hole or reset on a link", networked.join(", "))
        };
        let what = format!("`{}` is a process of this machine, with no network of its own", role.get_ref());
        self.wrong(role.span(), what, help);
    }
}

fn slos(scenario: &Scenario, m: &mut Mistakes) {
    for slo in &scenario.slo {
        let s = slo.get_ref();
        let phases: Vec<&str> = scenario.phase.iter().map(|p| p.name.as_str()).collect();
        if let Some(phase) = &s.phase
            && !phases.contains(&phase.as_str())
        {
            m.add(slo.span(), format!("slo: there is no phase \"{phase}\""), format!("one of {}", phases.join(", ")));
        }
        if let Some(step) = &s.step
            && !scenario.step.contains_key(step)
        {
            let known: Vec<&str> = scenario.step.keys().map(String::as_str).collect();
            m.add(slo.span(), format!("slo: there is no step \"{step}\""), format!("one of {}", known.join(", ")));
        }
        if let Some(cohort) = &s.cohort
            && !scenario.cohort.contains_key(cohort)
        {
            let known: Vec<&str> = scenario.cohort.keys().map(String::as_str).collect();
            m.add(slo.span(), format!("slo: there is no cohort \"{cohort}\""), format!("one of {}", known.join(", ")));
        }
        if let (Some(name), Some(step)) = (&s.cohort, &s.step)
            && let Some(cohort) = scenario.cohort.get(name)
            && scenario.step.contains_key(step)
            && !cohort.get_ref().journey.iter().any(|made| made.get_ref() == step)
        {
            let made: Vec<&str> = cohort.get_ref().journey.iter().map(|s| s.get_ref().as_str()).collect();
            m.add(
                slo.span(),
                format!("slo: the cohort \"{name}\" does not make the step \"{step}\", so there is nothing to measure"),
                format!("one of {}", made.join(", ")),
            );
        }
        if [s.p50, s.p99, s.p999, s.max].iter().all(Option::is_none) && s.error_fraction.is_none() {
            m.add(slo.span(), "slo without a limit", "add one of p50, p99, p999, max (durations) or error_fraction");
        }
        if let Some(share) = s.error_fraction {
            fraction("slo.error_fraction", share, slo.span(), m);
        }
    }
}
