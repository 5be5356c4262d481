//! The desk at a terminal: what people type is acknowledged there as on the page.

use std::io::BufRead;
use std::sync::Arc;

use super::desk::Desk;

/// What can be typed.
const HELP: &str = "type: ack STEP [your name], stop, or state";

/// Reads lines from stdin until it ends, in a thread of its own, which the end of the process ends.
pub fn listen(desk: Arc<Desk>) {
    let reading = std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Some(answer) = said(&desk, &line) {
                eprintln!("{answer}");
            }
        }
    });
    if let Err(error) = reading {
        tracing::warn!("nobody listens to the terminal: {error}");
    }
}

/// Does what a line says; the answer to it.
fn said(desk: &Desk, line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let answer = match words.next()? {
        "ack" => {
            let Some(id) = words.next() else { return Some(HELP.to_owned()) };
            let by = words.collect::<Vec<_>>().join(" ");
            match desk.acknowledge(id, &by, "terminal") {
                Ok(()) => format!("✓ {id}"),
                Err(why) => format!("✗ {why}"),
            }
        }
        "stop" => {
            desk.press_stop("terminal");
            "stopping: all faults are healed, and the load ends".to_owned()
        }
        "state" => state(desk),
        _ => HELP.to_owned(),
    };
    Some(answer)
}

fn state(desk: &Desk) -> String {
    let snapshot = desk.snapshot();
    let mut out = format!("{}: {}", snapshot.drill, snapshot.said);
    for step in &snapshot.runbook {
        let mark = match (step.done_s, step.due_s) {
            (Some(_), _) => "✓",
            (None, Some(_)) => "→",
            (None, None) => "·",
        };
        out.push_str(&format!("\n  {mark} {:24} {} ({})", step.id, step.text, step.owner));
    }
    out
}
