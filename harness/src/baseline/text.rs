//! Baselines and their differences for people: tables in Markdown, which a terminal shows as well.

use std::fmt::Write as _;

use super::Baseline;
use super::diff::{Difference, Row, Value, rows};
use crate::report::format;

/// One baseline.
pub fn show(baseline: &Baseline) -> String {
    let mut text = format!("# Baseline {}\n\n", format::one_line(&baseline.name));
    let of = |text: &mut String, what: &str, value: String| {
        let _ = writeln!(text, "- {what}: {}", format::one_line(&value));
    };
    of(&mut text, "scenario", format!("{} ({}), hash {}", baseline.scenario, baseline.title, baseline.scenario_hash));
    let machine = &baseline.machine;
    of(
        &mut text,
        "machine",
        format!(
            "{} × {}, {}, kernel {}",
            machine.cpus,
            machine.cpu_model,
            format::bytes(machine.memory_bytes as f64),
            machine.kernel
        ),
    );
    if let Some(revision) = &baseline.revision {
        of(&mut text, "revision", revision.clone());
    }
    for run in &baseline.runs {
        of(
            &mut text,
            "run",
            format!(
                "{} of {}, seed {}, {}: {} orders",
                run.run_id,
                run.started_at,
                run.seed,
                run.verdict.name(),
                format::count(run.committed_orders)
            ),
        );
    }
    text.push('\n');
    let mut lines = vec![["figure", "of", "phase", "value", "95% interval", "samples"].map(str::to_owned).to_vec()];
    for row in rows(baseline, baseline) {
        let Value { interval, count, .. } = row.old;
        let interval = interval.map_or(format::NONE.to_owned(), |[low, high]| {
            format!("{} … {}", figure(&row.name, Some(low)), figure(&row.name, Some(high)))
        });
        let count = count.map_or(String::new(), format::count);
        lines.push(vec![
            row.name.clone(),
            row.of.clone(),
            row.phase.clone().unwrap_or_default(),
            figure(&row.name, row.old.value),
            interval,
            count,
        ]);
    }
    text.push_str(&format::markdown_table(&lines));
    text
}

/// Two, held against each other: what matters first.
pub fn diff(difference: &Difference) -> String {
    let mut text = format!("# {} → {}\n\n", format::one_line(&difference.old), format::one_line(&difference.new));
    for caveat in &difference.caveats {
        let _ = writeln!(text, "**Mind:** {}\n", format::one_line(caveat));
    }
    if difference.topology.is_empty() {
        text.push_str("The hops and their calls are the same.\n\n");
    }
    for said in &difference.topology {
        let _ = writeln!(text, "- {}", format::one_line(said));
    }
    if !difference.topology.is_empty() {
        text.push('\n');
    }
    let mut lines =
        vec![["figure", "of", "phase", &difference.old, &difference.new, "change", ""].map(format::one_line).to_vec()];
    let mut rows: Vec<&Row> = difference.rows.iter().collect();
    let size = |row: &Row| row.change.unwrap_or(0.0).abs();
    rows.sort_by(|a, b| (b.certain == Some(true)).cmp(&(a.certain == Some(true))).then(size(b).total_cmp(&size(a))));
    for row in rows {
        let change = row.change.map_or(format::NONE.to_owned(), |change| format!("{:+.1}%", change * 100.0));
        let certain = match row.certain {
            Some(true) => "certain",
            Some(false) => "within the intervals",
            None => "",
        };
        let values = [figure(&row.name, row.old.value), figure(&row.name, row.new.value)];
        let [old, new] = values;
        lines.push(vec![
            row.name.clone(),
            row.of.clone(),
            row.phase.clone().unwrap_or_default(),
            old,
            new,
            change,
            certain.to_owned(),
        ]);
    }
    text.push_str(&format::markdown_table(&lines));
    text
}

fn figure(name: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return format::NONE.to_owned() };
    match name {
        name if name.starts_with("us_") => format::micros(value.round() as u64),
        name if name.contains("bytes") => format::bytes(value),
        _ => format::number(value),
    }
}
