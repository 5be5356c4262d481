//! I5b: what is left can be sold. Fresh buyers for everything that is left and one unit more buy exactly what is left.

use super::tally::{Tally, count};
use super::{Case, Check, Finding, ItemRules};
use crate::history::DrainProbe;

pub(super) struct Drain;

impl Check for Drain {
    fn id(&self) -> &'static str {
        "I5b"
    }

    fn name(&self) -> &'static str {
        "no undersell: what is left can be sold"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut tally = Tally::new(case);
        let mut seen = Vec::new();
        let Some(audit) = case.audit else {
            tally.gap("there is no audit, so there was no drain probe");
            return tally.finish(self, "nothing".to_owned());
        };
        for rules in &case.rules.items {
            let mut probes = audit.probes.iter().filter(|probe| probe.item == rules.item).peekable();
            if probes.peek().is_none() {
                tally.gap(format!("there was no drain probe of item {}", rules.item));
            }
            for probe in probes {
                let counted = audit.stock.iter().find(|row| row.item == probe.item).map(|row| row.available);
                if counted.is_some_and(|counted| counted != probe.available) {
                    tally.gap(format!(
                        "the drain probe of item {} started from {} left, and the audit counted {}",
                        probe.item,
                        probe.available,
                        counted.unwrap_or_default()
                    ));
                }
                if closed_by_then(case, rules, probe) {
                    seen.push(format!("item {} was not judged: its sale was closed by then", rules.item));
                    continue;
                }
                let held = audit.stock.iter().find(|row| row.item == probe.item).map_or(0, |row| row.held);
                judge_probe(probe, held, &mut tally);
                seen.push(format!("of the last {} of item {}, {} were sold", probe.available, probe.item, probe.sold));
            }
        }
        let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join("; ") };
        tally.finish(self, seen)
    }
}

/// Whether every fresh buyer was told that the sale has ended, after its end: then nothing of it is for sale any more.
fn closed_by_then(case: &Case<'_>, rules: &ItemRules, probe: &DrainProbe) -> bool {
    let taken = case.audit.map_or(0, |audit| case.since_epoch(audit.taken_unix_us));
    let all = probe.buyers > 0 && probe.other == probe.buyers && probe.sold == 0 && probe.sold_out == 0;
    all && probe.detail.ends_with(": ended")
        && !probe.detail.contains("; ")
        && taken >= rules.closes_us.saturating_sub(case.rules.epsilon_us)
}

/// What else fresh buyers were told, in brackets.
fn told(probe: &DrainProbe) -> String {
    if probe.detail.is_empty() { String::new() } else { format!(" ({})", probe.detail) }
}

fn judge_probe(probe: &DrainProbe, held: i64, tally: &mut Tally<'_>) {
    let DrainProbe { item, available, buyers, sold, sold_out, other, .. } = probe;
    if sold > available && *sold <= available + held {
        // A hold that was still open may have been released while the probe was buying.
        tally.gap(format!(
            "{sold} of item {item} were sold to fresh buyers where {available} were left and {held} were still held"
        ));
    } else if sold > available && probe.outlasted_its_holds {
        tally.gap(format!(
            "the drain probe of item {item} took longer than a hold lasts, so its own orders may have been released and \
             sold again: {sold} were sold where {available} were left; add a pay step to a journey, or lengthen `hold`"
        ));
    } else if sold > available {
        tally.violation("items of which more was sold than was left", |_, witness| {
            witness.probe(probe);
            format!("{} of item {item} were sold to fresh buyers, and {available} were left", count(*sold, "unit"))
        });
    } else if sold < available && *sold_out > 0 && sold + other < *available {
        tally.violation("items with stock that nobody can buy", |_, witness| {
            witness.probe(probe);
            format!(
                "{} of item {item} cannot be bought: {available} were left, {sold} were sold, and then {} told that it is sold out",
                count(available - sold - other, "unit"),
                if *sold_out == 1 { "a buyer was".to_owned() } else { format!("{sold_out} buyers were") },
            )
        });
    } else if sold < available && *other > 0 {
        tally.gap(format!(
            "{other} of {buyers} fresh buyers of item {item} got no clear answer{}, which may explain why {sold} of {available} were sold",
            told(probe)
        ));
    } else if sold < available {
        tally.gap(format!(
            "only {buyers} fresh buyers came for the last {available} of item {item}: {} are needed",
            available + 1
        ));
    } else if *sold_out < 1 {
        tally.gap(format!(
            "nobody was told that item {item} is sold out after the last {available} were sold{}",
            told(probe)
        ));
    }
}
