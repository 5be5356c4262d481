//! The review of a drill, for people: Markdown, which also reads well in a terminal, and a page with charts. Both are the same
//! sections.

use askama::Template;

use super::chart::{self, TimeAxis};
use super::{ReportError, curves, format};
use crate::check::Verdict;
use crate::drill::score::{Change, ExpectOutcome, FaultScore, Score, Shop, StepOutcome};
use crate::summary::Summary;

/// Lines of a witness that are shown; the run's own report has them all.
const MOST_WITNESS: usize = 6;

/// A part of the review.
#[derive(Debug, Default)]
struct Section {
    id: &'static str,
    title: &'static str,
    /// Sentences above the table.
    text: Vec<String>,
    /// The heads, and for each row its cells; a cell may have a tone.
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    items: Vec<String>,
}

#[derive(Debug)]
struct Cell {
    text: String,
    tone: &'static str,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, tone: "" }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

fn toned(text: &str, tone: &'static str) -> Cell {
    Cell { text: text.to_owned(), tone }
}

fn time(ms: Option<f64>) -> String {
    ms.map_or_else(|| format::NONE.to_owned(), format::millis)
}

/// The outcome in one sentence.
fn headline(score: &Score) -> String {
    let word = match score.verdict {
        Verdict::Pass => "The shop sold correctly",
        Verdict::Unknown => "Whether the shop sold correctly is unknown",
        Verdict::Fail => "The shop sold wrongly",
    };
    let injected = score.faults.iter().filter(|fault| fault.injected_at_ms.is_some()).count();
    let recovered = score.faults.iter().filter(|fault| fault.recovered_ms.is_some()).count();
    let met = score.expectations.iter().filter(|expect| expect.outcome == ExpectOutcome::Met).count();
    let asked = score.runbook.iter().filter(|step| step.due_ms.is_some()).count();
    let in_time = score.runbook.iter().filter(|step| step.outcome == StepOutcome::InTime).count();
    let people = match score.attended {
        true => format!("{in_time} of {asked} steps were acknowledged in time"),
        false => "nobody was asked to acknowledge anything".to_owned(),
    };
    let faults = format!("{recovered} of {} recovered from", format::plural(injected as u64, "fault"));
    let expected = match score.expectations.len() {
        0 => String::new(),
        all => format!("{met} of {} met; ", format::plural(all as u64, "expectation")),
    };
    format!("{word}; {faults}; {expected}{people}")
}

fn sections(score: &Score, summary: &Summary) -> Vec<Section> {
    let all = [
        actions(score),
        faults(score),
        expectations(score),
        runbook(score),
        planned(score),
        alerts(score),
        witnesses(summary),
        previous(score),
        checklist(score),
    ];
    all.into_iter().flatten().collect()
}

fn actions(score: &Score) -> Option<Section> {
    let item = |action: &crate::drill::score::Action| match action.owner.as_str() {
        "" => format::one_line(&action.text),
        owner => format!("{}: {}", format::one_line(owner), format::one_line(&action.text)),
    };
    let items: Vec<String> = score.actions.iter().map(item).collect();
    let text = if items.is_empty() { vec!["Nothing: everything went as planned.".to_owned()] } else { Vec::new() };
    Some(Section { id: "actions", title: "What is to be done", text, items, ..Section::default() })
}

fn faults(score: &Score) -> Option<Section> {
    if score.faults.is_empty() {
        return None;
    }
    let row = |fault: &FaultScore| {
        let tone = match fault.shop {
            Shop::Unharmed => "pass",
            Shop::Lossy => "unknown",
            Shop::Dead => "fail",
        };
        let shop = match fault.injected_at_ms {
            None => toned("not injected", ""),
            Some(_) => toned(fault.shop.words(), tone),
        };
        let loss = match fault.loss_stopped_ms {
            None if fault.shop == Shop::Unharmed && fault.injected_at_ms.is_some() => "nothing lost".to_owned(),
            None if fault.injected_at_ms.is_some() => "not stopped".to_owned(),
            ms => time(ms),
        };
        let alert = match (&fault.alert, fault.alert_ms) {
            (Some(name), Some(ms)) => format!("{} ({})", format::millis(ms), format::one_line(name)),
            _ if fault.injected_at_ms.is_some() => "no alert".to_owned(),
            _ => format::NONE.to_owned(),
        };
        let mut lost = format!("{} of {}", format::count(fault.unanswered), format::count(fault.requests));
        if !fault.overlapped_by.is_empty() {
            lost.push_str(&format!(" (with {})", fault.overlapped_by.join(", ")));
        }
        vec![
            format::one_line(&fault.id).into(),
            format!("{} on {}", fault.kind, format::one_line(&fault.place)).into(),
            shop,
            alert.into(),
            time(fault.seen_ms).into(),
            loss.into(),
            time(fault.located_ms).into(),
            time(fault.recovered_ms).into(),
            lost.into(),
        ]
    };
    Some(Section {
        id: "faults",
        title: "What broke, and what came of it",
        text: vec![format!(
            "Times are from the injection. The loss has stopped when {}% of the requests at most have no answer, and the shop is \
             dead if nobody gets an answer for a second.",
            format::number(score.loss_limit * 100.0)
        )],
        heads: vec![
            "fault",
            "what",
            "the shop",
            "alert came",
            "harness saw it",
            "loss stopped",
            "located",
            "recovered",
            "without answer",
        ],
        rows: score.faults.iter().map(row).collect(),
        ..Section::default()
    })
}

fn expectations(score: &Score) -> Option<Section> {
    if score.expectations.is_empty() {
        return None;
    }
    let row = |expect: &crate::drill::score::ExpectScore| {
        let tone = match expect.outcome {
            ExpectOutcome::Met => "pass",
            ExpectOutcome::NotReached => "",
            _ => "fail",
        };
        let held = |limit: Option<f64>, seen: Option<f64>| match limit {
            Some(limit) => format!("{} of {}", time(seen), format::millis(limit)),
            None => time(seen),
        };
        vec![
            format::one_line(&expect.text).into(),
            format::one_line(&expect.fault).into(),
            format::one_line(&expect.signal).into(),
            held(Some(expect.within_ms), expect.seen_ms).into(),
            held(expect.back_within_ms, expect.back_ms).into(),
            toned(expect.outcome.words(), tone),
        ]
    };
    Some(Section {
        id: "expectations",
        title: "Expected and observed",
        heads: vec!["expected", "after", "signal", "seen within", "gone within", "outcome"],
        rows: score.expectations.iter().map(row).collect(),
        ..Section::default()
    })
}

fn runbook(score: &Score) -> Option<Section> {
    if score.runbook.is_empty() {
        return None;
    }
    let row = |step: &crate::drill::score::StepScore| {
        let tone = match step.outcome {
            StepOutcome::InTime => "pass",
            StepOutcome::Late => "unknown",
            StepOutcome::Missed => "fail",
            _ => "",
        };
        let who = if step.by.is_empty() { step.owner.clone() } else { format!("{} ({})", step.owner, step.by) };
        vec![
            format::one_line(&step.text).into(),
            format::one_line(&who).into(),
            format::moment_ms(step.due_ms).into(),
            format!("{} of {}", time(step.took_ms), format::millis(step.within_ms)).into(),
            toned(step.outcome.words(), tone),
        ]
    };
    Some(Section {
        id: "runbook",
        title: "The runbook",
        heads: vec!["step", "owner", "due at", "took", "outcome"],
        rows: score.runbook.iter().map(row).collect(),
        ..Section::default()
    })
}

fn planned(score: &Score) -> Option<Section> {
    let items: Vec<String> = score.as_planned.iter().map(|text| format::one_line(text)).collect();
    let section = Section { id: "planned", title: "What went as planned", items, ..Section::default() };
    (!section.items.is_empty()).then_some(section)
}

fn alerts(score: &Score) -> Option<Section> {
    let row = |alert: &crate::drill::score::AlertSeen| -> Vec<Cell> {
        let cells = [&alert.name, &alert.status, &alert.summary].map(|text| Cell::from(format::one_line(text)));
        std::iter::once(format::moment_ms(Some(alert.at_ms)).into()).chain(cells).collect()
    };
    let rows: Vec<Vec<Cell>> = score.alerts.iter().map(row).collect();
    let heads = vec!["at", "alert", "status", "says"];
    (!rows.is_empty()).then(|| Section {
        id: "alerts",
        title: "What the monitoring said",
        heads,
        rows,
        ..Section::default()
    })
}

fn witnesses(summary: &Summary) -> Option<Section> {
    let failed: Vec<_> = summary.invariants.iter().filter(|finding| finding.verdict == Verdict::Fail).collect();
    let text = failed
        .iter()
        .map(|finding| format!("{} ({}): {}", finding.id, finding.name, format::one_line(&finding.detail)));
    let text: Vec<String> = text.collect();
    let row = |id: &str, line: &crate::check::WitnessLine| -> Vec<Cell> {
        let at = line.at_us.map_or(format::NONE.to_owned(), format::moment_us);
        let tone = if line.offending { "fail" } else { "" };
        let user = format::one_line(&line.user);
        vec![id.into(), at.into(), line.source.as_str().into(), user.into(), toned(&format::one_line(&line.text), tone)]
    };
    let lines = failed
        .iter()
        .flat_map(|finding| finding.witness.iter().take(MOST_WITNESS).map(move |line| row(&finding.id, line)));
    let rows: Vec<Vec<Cell>> = lines.collect();
    let heads = vec!["invariant", "at", "source", "buyer", "what"];
    (!failed.is_empty()).then(|| Section {
        id: "witnesses",
        title: "What is wrong, and the witnesses",
        text,
        heads,
        rows,
        ..Section::default()
    })
}

fn previous(score: &Score) -> Option<Section> {
    let previous = score.previous.as_ref()?;
    let text = |change: &Change, value: Option<f64>| match (value, change.is_time) {
        (None, _) => format::NONE.to_owned(),
        (Some(ms), true) => format::millis(ms),
        (Some(count), false) => format::number(count),
    };
    let row = |change: &Change| {
        let tone = match (change.before, change.now) {
            (Some(before), Some(now)) if now > before => "worse",
            (Some(before), Some(now)) if now < before => "better",
            _ => "",
        };
        let now = toned(&text(change, change.now), tone);
        vec![format::one_line(&change.name).into(), text(change, change.before).into(), now]
    };
    let same = if previous.same_timeline { "the same faults at the same times" } else { "other faults" };
    let verdict = match previous.verdict {
        Verdict::Pass => "passed",
        Verdict::Unknown => "ended unknown",
        Verdict::Fail => "failed",
    };
    Some(Section {
        id: "previous",
        title: "Against the drill before",
        text: vec![format!("That of {} {verdict}, with {same}.", previous.started_at)],
        heads: vec!["figure", "before", "now"],
        rows: previous.figures.iter().map(row).collect(),
        ..Section::default()
    })
}

fn checklist(score: &Score) -> Option<Section> {
    let row = |line: &crate::drill::score::CheckLine| -> Vec<Cell> {
        [&line.text, &line.owner, &line.evidence].map(|text| Cell::from(format::one_line(text))).into_iter().collect()
    };
    let rows: Vec<Vec<Cell>> = score.checklist.iter().map(row).collect();
    let heads = vec!["what had to be so", "owner", "evidence"];
    (!rows.is_empty()).then(|| Section {
        id: "checklist",
        title: "The release checklist",
        heads,
        rows,
        ..Section::default()
    })
}

/// Cells of a table in Markdown: what would end one is written otherwise.
fn plain(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The review as Markdown.
pub fn markdown(score: &Score, summary: &Summary) -> String {
    let title = if score.title.is_empty() { &score.drill } else { &score.title };
    let mut out = format!("# {}\n\n{}.\n\n", format::one_line(title), headline(score));
    out.push_str(&format!("Verdict: **{}**. {}\n\n", score.verdict.name(), format::one_line(&score.verdict_reason)));
    if let Some(stopped) = &score.stopped {
        out.push_str(&format!("Stopped before its time: {}.\n\n", format::one_line(stopped)));
    }
    out.push_str(&format!(
        "Drill {}, started {}, seed {}, timeline {}, exit code {}.\n",
        score.drill, score.started_at, score.seed, score.timeline_hash, score.exit_code
    ));
    for section in sections(score, summary) {
        out.push_str(&format!("\n## {}\n\n", section.title));
        for text in &section.text {
            out.push_str(&format!("{text}\n\n"));
        }
        if !section.rows.is_empty() {
            let mut lines: Vec<Vec<String>> = vec![section.heads.iter().map(|head| (*head).to_owned()).collect()];
            lines.extend(section.rows.iter().map(|row| row.iter().map(|cell| plain(&cell.text)).collect()));
            out.push_str(&format::markdown_table(&lines));
        }
        for item in &section.items {
            out.push_str(&format!("- {item}\n"));
        }
    }
    let curves = curves::draw(summary);
    if !curves.is_empty() {
        out.push_str(&format!(
            "\n## Curves\n\nEach from nothing to its largest value; review.html has them larger.\n\n{curves}"
        ));
    }
    out
}

#[derive(Template)]
#[template(path = "drill.html")]
struct Page<'a> {
    score: &'a Score,
    title: &'a str,
    verdict: &'static str,
    headline: String,
    sections: Vec<Section>,
    charts: Vec<Figure>,
}

/// A chart with its caption.
struct Figure {
    title: &'static str,
    unit: &'static str,
    svg: String,
}

/// The page, which opens offline.
///
/// # Errors
/// A chart cannot be drawn.
pub fn html(score: &Score, summary: &Summary) -> Result<String, ReportError> {
    let axis = TimeAxis::of(summary);
    let drawn = [
        ("Phases and faults", "seconds since the load began", chart::timeline::draw(summary, &axis)?),
        ("Arrivals", "planned and sent", chart::arrivals::draw(summary, &axis)?),
        (
            "Latency over time",
            "TP50, TP99 and the largest, by intended start, logarithmic",
            chart::latency::draw(summary, &axis)?,
        ),
        ("Stock and orders", "units available, orders acknowledged so far", chart::stock::draw(summary, &axis)?),
        ("Outcomes of requests", "ok, refused, without an answer", chart::outcomes::draw(summary, &axis)?),
    ];
    let figure =
        |(title, unit, svg): (&'static str, &'static str, Option<String>)| Some(Figure { title, unit, svg: svg? });
    let page = Page {
        score,
        title: if score.title.is_empty() { &score.drill } else { &score.title },
        verdict: score.verdict.name(),
        headline: headline(score),
        sections: sections(score, summary),
        charts: drawn.into_iter().filter_map(figure).collect(),
    };
    Ok(page.render()?)
}
