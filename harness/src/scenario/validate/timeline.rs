//! What the timeline of faults must hold: each says when in one way, names what exists, and is over before the load is.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;

use super::{About, Mistakes, fraction};
use crate::fault::Inject;
use crate::scenario::timeline::{After, Chaos, Fault};
use crate::scenario::value::Dur;
use crate::scenario::{Phase, Scenario};

/// Faults planned at random of one `[[chaos]]` at most: a rehearsal is bounded.
const MOST_FAULTS: u32 = 100;

/// Everything that is wrong with `[[fault]]` and `[[chaos]]`.
pub(super) fn faults(scenario: &Scenario, m: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for (index, fault) in scenario.fault.iter().enumerate() {
        let f = fault.get_ref();
        if !seen.insert(f.id.clone()) {
            m.add(fault.span(), format!("two faults have the id \"{}\"", f.id), "give each fault its own id");
        }
        let inject = format!("fault.{index}.inject.{}", f.inject.kind());
        let longest = f.lasts.map(|lasts| lasts.most).or_else(|| phase_of(scenario, f));
        f.inject.fault().check(&mut About { scenario, id: &f.id, inject, longest, m });
        fraction(&format!("chance of fault \"{}\"", f.id), f.chance, fault.span(), m);
        when(scenario, fault, m);
    }
    for (index, chaos) in scenario.chaos.iter().enumerate() {
        let c = chaos.get_ref();
        let ids = (1..=c.faults.min(MOST_FAULTS)).map(|number| format!("{}-{number}", c.id));
        if ids.filter(|id| !seen.insert(id.clone())).count() > 0 {
            m.add(
                chaos.span(),
                format!("chaos \"{0}\": its faults are called {0}-1, {0}-2 and so on, and another fault is, too", c.id),
                "give each [[chaos]] and each [[fault]] its own id",
            );
        }
        self::chaos(scenario, index, chaos, m);
    }
    references(scenario, &seen, m);
    exclusive(scenario, m);
}

/// When something of the timeline may be in effect, whatever the seed draws.
struct Window<'a> {
    /// Where it stands in the file.
    at: Range<usize>,
    /// For people: `fault "a"`.
    name: String,
    from: Dur,
    until: Dur,
    injects: Vec<&'a Inject>,
}

impl<'a> Window<'a> {
    /// That of a fault; none of one that waits for an event, which is known in the run only.
    fn of_fault(scenario: &Scenario, fault: &'a Spanned<Fault>) -> Option<Window<'a>> {
        let f = fault.get_ref();
        let (from, until) = match (&f.at, &f.during, &f.after) {
            (Some(at), None, None) => (at.least, Dur(at.most.0.saturating_add(f.lasts?.most.0))),
            (None, Some(name), None) => {
                let phase = scenario.phase.iter().find(|phase| phase.name == *name.get_ref())?;
                let ends = f.lasts.map(|lasts| Dur(phase.from.0.saturating_add(lasts.most.0)));
                (phase.from, ends.unwrap_or(phase.until))
            }
            _ => return None,
        };
        Some(Window { at: fault.span(), name: format!("fault \"{}\"", f.id), from, until, injects: vec![&f.inject] })
    }

    fn of_chaos(chaos: &'a Spanned<Chaos>) -> Window<'a> {
        let c = chaos.get_ref();
        let name = format!("chaos \"{}\"", c.id);
        Window { at: chaos.span(), name, from: c.from, until: c.until, injects: c.inject.iter().collect() }
    }

    /// What may be in effect of both at once, though healing one would end the other.
    fn collides(&self, other: &Window<'a>) -> Option<(&'a Inject, &'a Inject)> {
        if self.from >= other.until || other.from >= self.until {
            return None;
        }
        let pairs = self.injects.iter().flat_map(|one| other.injects.iter().map(move |other| (*one, *other)));
        pairs.into_iter().find(|(one, other)| one.excludes(other))
    }
}

/// Faults that would end each other are never to be in effect at once. Those of one `[[chaos]]` are planned so; and where an
/// event decides, the nemesis lets the second one wait.
fn exclusive(scenario: &Scenario, m: &mut Mistakes) {
    let faults = scenario.fault.iter().filter_map(|fault| Window::of_fault(scenario, fault));
    let windows: Vec<Window<'_>> = faults.chain(scenario.chaos.iter().map(Window::of_chaos)).collect();
    for (number, second) in windows.iter().enumerate() {
        let Some((first, (one, other))) =
            windows[..number].iter().find_map(|first| Some((first, second.collides(first)?)))
        else {
            continue;
        };
        let told = |window: &Window<'_>, inject: &Inject| {
            format!("{} ({}, from {} until {})", window.name, inject.kind(), window.from, window.until)
        };
        m.add(
            second.at.clone(),
            format!(
                "{} may be in effect on \"{}\" together with {}, and healing one would end the other",
                told(second, one),
                one.role().unwrap_or_default(),
                told(first, other)
            ),
            "keep the two apart, whatever the seed draws of `at` and `lasts`; or let one wait for the other, with \
             after = { healed = \"ID\" } in the place of `at`",
        );
    }
}

/// How long the phase lasts during which a fault is in effect, if there is one.
fn phase_of(scenario: &Scenario, f: &Fault) -> Option<Dur> {
    let name = f.during.as_ref()?.get_ref();
    let phase = scenario.phase.iter().find(|phase| phase.name == *name)?;
    Some(Dur(phase.until.0.saturating_sub(phase.from.0)))
}

/// One way of saying when, and an end before that of the load.
fn when(scenario: &Scenario, fault: &Spanned<Fault>, m: &mut Mistakes) {
    let f = fault.get_ref();
    let ways = [f.at.is_some(), f.during.is_some(), f.after.is_some()];
    if ways.iter().filter(|given| **given).count() != 1 {
        let what =
            if ways.contains(&true) { "says in several ways when it happens" } else { "does not say when it happens" };
        m.add(
            fault.span(),
            format!("fault \"{}\" {what}", f.id),
            "one of at = \"10s\", during = \"the name of a phase\", after = { stock = 0.5, delay = \"1s\" }",
        );
        return;
    }
    if f.optional && f.after.is_none() {
        m.add(
            fault.span(),
            format!("fault \"{}\" is `optional`, and nothing keeps it from being injected", f.id),
            "only one with `after` can stay out; remove the key, or leave it to the seed with `chance`",
        );
    }
    if let Some(name) = &f.during {
        during(scenario, f, name, m);
    } else if f.lasts.is_none() {
        m.add(
            fault.span(),
            format!("fault \"{}\" does not say how long it `lasts`", f.id),
            "lasts = \"800ms\", or [\"500ms\", \"1s\"], between which the seed draws; only one with `during` may leave it out",
        );
    } else if let Some(after) = &f.after {
        self::after(scenario, f, after, m);
    } else if let (Some(at), Some(lasts)) = (f.at, f.lasts)
        && (lasts.least.0.is_zero() || at.most.0 + lasts.most.0 > scenario.load.duration.0)
    {
        m.add(
            fault.span(),
            format!("fault \"{}\" lasts from {at} for {lasts}", f.id),
            format!("it must have a length and be healed before load.duration ({}) is over", scenario.load.duration),
        );
    }
}

/// A fault of a phase, which has to be there, and in which the fault has to fit.
fn during(scenario: &Scenario, f: &Fault, name: &Spanned<String>, m: &mut Mistakes) {
    let Some(Phase { from, until, .. }) = scenario.phase.iter().find(|phase| phase.name == *name.get_ref()) else {
        let known: Vec<&str> = scenario.phase.iter().map(|phase| phase.name.as_str()).collect();
        let help = if known.is_empty() {
            "add a [[phase]] with name, from and until, or say when with `at`".to_owned()
        } else {
            format!("one of {}", known.join(", "))
        };
        m.add(name.span(), format!("fault \"{}\": there is no phase \"{}\"", f.id, name.get_ref()), help);
        return;
    };
    let length = Dur(until.0.saturating_sub(from.0));
    if let Some(lasts) = f.lasts.filter(|lasts| lasts.least.0.is_zero() || lasts.most > length) {
        m.add(
            name.span(),
            format!(
                "fault \"{}\" lasts for {lasts} during phase \"{}\", which lasts for {length}",
                f.id,
                name.get_ref()
            ),
            "it ends with its phase at the latest: shorten `lasts`, or leave it out",
        );
    }
    if *until > scenario.load.duration {
        m.add(
            name.span(),
            format!("fault \"{}\": phase \"{}\" ends at {until}", f.id, name.get_ref()),
            format!("a fault must be healed before load.duration ({}) is over", scenario.load.duration),
        );
    }
}

/// An event that there can be, and a bound that leaves time for the fault.
fn after(scenario: &Scenario, f: &Fault, spanned: &Spanned<After>, m: &mut Mistakes) {
    let after = spanned.get_ref();
    let at = spanned.span();
    if after.cause().is_none() {
        m.add(
            at,
            format!("fault \"{}\": `after` names no event, or several", f.id),
            "one of stock = 0.5, first = \"sold-out\", healed = \"other-fault\", recovered = \"other-fault\", rate = 500; \
             besides it, delay and by",
        );
        return;
    }
    if let Some(share) = after.stock
        && !(0.0..1.0).contains(&share)
    {
        m.add(
            at.clone(),
            format!("fault \"{}\": after.stock is {share}", f.id),
            "the share of the stock that is left, from 0 (sold out) to below 1, such as 0.5",
        );
    }
    if after.first.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        m.add(
            at.clone(),
            format!("fault \"{}\": after.first is empty", f.id),
            "the reason of a refusal as the reports show it, such as \"sold-out\", \"limit-reached\" or \"http-429\"",
        );
    }
    if after.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        m.add(
            at.clone(),
            format!("fault \"{}\": after.rate is not above 0", f.id),
            "requests in one second, such as 500",
        );
    }
    let longest = f.lasts.map_or(Dur::default(), |lasts| lasts.most);
    let by = after.by.unwrap_or_default();
    let until = by.0.saturating_add(after.delay.0).saturating_add(longest.0);
    if f.lasts.is_some_and(|lasts| lasts.least.0.is_zero()) || until > scenario.load.duration.0 {
        m.add(
            at,
            format!("fault \"{}\" waits until {by}, then for {}, and lasts for {longest}", f.id, after.delay),
            format!("it must have a length and be healed before load.duration ({}) is over", scenario.load.duration),
        );
    }
}

/// Faults that wait for others wait for such as there are, and not for each other.
fn references(scenario: &Scenario, known: &BTreeSet<String>, m: &mut Mistakes) {
    let waits_for = |id: &str| {
        let fault = scenario.fault.iter().find(|fault| fault.get_ref().id == id)?;
        let after = fault.get_ref().after.as_ref()?;
        Some((after.span(), after.get_ref().cause()?.fault()?.to_owned()))
    };
    for fault in &scenario.fault {
        let id = &fault.get_ref().id;
        let Some((at, other)) = waits_for(id) else { continue };
        if !known.contains(&other) {
            let known: Vec<&str> = known.iter().map(String::as_str).filter(|other| *other != id.as_str()).collect();
            m.add(
                at,
                format!("fault \"{id}\" waits for \"{other}\", and there is no such fault"),
                format!("one of {}", known.join(", ")),
            );
            continue;
        }
        let mut next = Some(other);
        for _ in 0..=scenario.fault.len() {
            let Some(other) = next else { break };
            if other == *id {
                let what = format!("fault \"{id}\" waits for itself, at once or by way of others");
                m.add(at, what, "let one of them say when with `at`");
                break;
            }
            next = waits_for(&other).map(|(_, other)| other);
        }
    }
}

/// Bounds that leave room for what is planned between them.
fn chaos(scenario: &Scenario, index: usize, chaos: &Spanned<Chaos>, m: &mut Mistakes) {
    let c = chaos.get_ref();
    for (number, inject) in c.inject.iter().enumerate() {
        let key = format!("chaos.{index}.inject.{number}.{}", inject.kind());
        inject.fault().check(&mut About { scenario, id: &c.id, inject: key, longest: Some(c.lasts.most), m });
    }
    let mut add = |what: String, help: String| m.add(chaos.span(), format!("chaos \"{}\": {what}", c.id), help);
    if !(1..=MOST_FAULTS).contains(&c.faults) {
        return add(format!("`faults` is {}", c.faults), format!("from 1 to {MOST_FAULTS}: a rehearsal is bounded"));
    }
    if c.inject.is_empty() {
        let help = "inject = [{ kill = { role = \"service\" } }, { latency = { link = \"service→postgres\", delay = \"8ms\" } }]";
        return add("there is nothing to `inject`".to_owned(), help.to_owned());
    }
    if c.until <= c.from || c.until > scenario.load.duration || c.lasts.least.0.is_zero() {
        let what = format!("it goes from {} until {}, and each fault lasts for {}", c.from, c.until, c.lasts);
        let help = format!(
            "`until` is later than `from`, and load.duration ({}) at the latest; each fault has a length",
            scenario.load.duration
        );
        return add(what, help);
    }
    if !(1..=c.most_at_once()).contains(&c.concurrent) {
        let what = format!("`concurrent` is {}", c.concurrent);
        let help = format!(
            "from 1 to {}, since none of the {} candidates overlaps itself or another on the same process",
            c.most_at_once(),
            c.inject.len()
        );
        return add(what, help);
    }
    let (window, shortest) = (Dur(c.until.0 - c.from.0), c.shortest());
    if shortest > window {
        let what = format!("its faults may take {shortest}, and there are {window} from {} until {}", c.from, c.until);
        add(
            what,
            "fewer `faults`, shorter ones, a smaller `gap`, more of them `concurrent`, or a later `until`".to_owned(),
        );
    }
}
