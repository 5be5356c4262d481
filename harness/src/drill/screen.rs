//! The screen of a drill for a terminal, over ssh say: what the live page shows, above a few lines in which people type.
//!
//! The upper part is drawn anew at each tick with the cursor where it was, and the terminal scrolls only below it (DECSTBM), so what
//! somebody is typing stays.

use std::cell::Cell;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Desk, FaultView, Snapshot, Stage, StepState};
use crate::report::format;

/// Lines that are left for what is typed and said.
const BELOW: usize = 6;
/// A smaller terminal has plain lines instead.
const FEWEST: (usize, usize) = (20, 60);
const EVERY: Duration = Duration::from_millis(500);

/// The screen, until it is dropped.
#[derive(Debug)]
pub struct Screen {
    /// Rows and columns when it was last drawn.
    size: Cell<(usize, usize)>,
}

impl Screen {
    /// Takes the terminal over; none where stderr is none, or a small one.
    pub fn open() -> Option<Screen> {
        let size = size().filter(|_| std::io::stderr().is_terminal()).filter(is_enough)?;
        divide(size);
        Some(Screen { size: Cell::new(size) })
    }

    /// Draws until it is dropped.
    pub async fn keep_drawing(&self, desk: &Arc<Desk>) {
        loop {
            self.draw(&desk.snapshot());
            tokio::time::sleep(EVERY).await;
        }
    }

    fn draw(&self, snapshot: &Snapshot) {
        // Somebody may have made the window larger or smaller. One that is too small is left alone until it has grown again.
        let Some(now) = size().filter(is_enough) else { return };
        if self.size.replace(now) != now {
            divide(now);
        }
        let (rows, columns) = now;
        let top = rows - BELOW;
        let mut lines = lines(snapshot, columns);
        fit(&mut lines, top - 1);
        let typed = if snapshot.attended {
            "─ type: ack STEP [your name], stop, or state "
        } else {
            "─ Ctrl-C ends it in order "
        };
        lines.push(format!("{typed}{}", "─".repeat(columns.saturating_sub(typed.chars().count()))));
        let mut out = String::from("\x1b7\x1b[H");
        for line in &lines {
            out.push_str(line);
            out.push_str("\x1b[K\r\n");
        }
        // The last of these line feeds would leave the upper part.
        out.truncate(out.len() - 2);
        out.push_str("\x1b8");
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(out.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        eprint!("\x1b[r\x1b[{};1H\r\n", self.size.get().0);
    }
}

fn is_enough((rows, columns): &(usize, usize)) -> bool {
    *rows >= FEWEST.0 && *columns >= FEWEST.1
}

/// As many lines as there is room for; the last of them says how many there are more.
fn fit(lines: &mut Vec<String>, room: usize) {
    let more = lines.len().saturating_sub(room);
    lines.resize(room, String::new());
    if let Some(last) = lines.last_mut().filter(|_| more > 0) {
        *last = format!("… {} lines more: make the window taller", more + 1);
    }
}

/// Clears the terminal, and lets only its lower part scroll.
fn divide((rows, _): (usize, usize)) {
    let top = rows - BELOW;
    eprint!("\x1b[2J\x1b[{};{rows}r\x1b[{};1H", top + 1, top + 1);
}

/// Rows and columns of the terminal.
fn size() -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes a `winsize` to where it is told, and that is one.
    let got = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (got == 0).then_some((usize::from(size.ws_row), usize::from(size.ws_col)))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| format::NONE.to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// What is shown, without anything that would move the cursor.
fn lines(snapshot: &Snapshot, columns: usize) -> Vec<String> {
    let now = &snapshot.now;
    let stage = match snapshot.stage {
        Stage::GettingReady => "getting ready".to_owned(),
        Stage::Load => format!("under load, {:.1} of {:.0} s", now.at_s, snapshot.duration_s),
        Stage::Settling => "settling".to_owned(),
        Stage::Over => "over".to_owned(),
    };
    let title = if snapshot.title.is_empty() { &snapshot.drill } else { &snapshot.title };
    let stock = now.stock.map_or_else(|| format::NONE.to_owned(), |left| left.to_string());
    let mut out = vec![
        format!("{title} · {stage}"),
        snapshot.said.clone(),
        format!(
            "arrivals/s {:.0} of {:.0} planned   dropped {}   orders {}   no answer {}   TP99 {}",
            now.achieved,
            now.planned,
            snapshot.dropped,
            snapshot.orders,
            percent(now.errors),
            format::micros_or_none(now.us_p99)
        ),
        format!("stock {} {stock} of {}", bar(now.stock, snapshot.stock_total), snapshot.stock_total),
        format!("steady state {}{}", if now.steady { "holds" } else { "BROKEN" }, degraded(snapshot)),
        String::new(),
    ];
    // What people have to act on first: a small window shows no more.
    out.extend(snapshot.stopped.iter().map(|why| format!("stopped: {why}")));
    out.extend(snapshot.verdict.clone());
    out.extend(snapshot.runbook.iter().map(|step| step_line(step, now.at_s, snapshot.attended)));
    out.extend(snapshot.faults.iter().map(fault_line));
    out.push(String::new());
    out.push(format!("{:14}{:>8}{:>11}{:>11}{:>11}  refused and unclear", "step", "ok", "TP99", "TP999", "no answer"));
    for step in &snapshot.steps {
        let reasons = step.refused.iter().chain(&step.unclear).map(|(reason, count)| format!("{reason} {count}"));
        out.push(format!(
            "{:14}{:>8}{:>11}{:>11}{:>11}  {}",
            step.step,
            step.ok,
            format::micros_or_none(step.us_p99),
            format::micros_or_none(step.us_p999),
            percent(step.errors),
            reasons.collect::<Vec<_>>().join(", ")
        ));
    }
    out.push(String::new());
    let done: Vec<String> = snapshot.checklist.iter().map(|check| format!("✓ {}", check.id)).collect();
    out.push(format!("checklist {}", done.join("  ")));
    // The latest first; what has no room below is the oldest.
    let alerts = snapshot.alerts.iter().rev();
    out.extend(alerts.map(|alert| format!("! {} {}: {}", alert.name, alert.status, alert.summary)));
    out.iter().map(|line| format::shorten(&format::one_line(line), columns)).collect()
}

/// Twenty blocks, of which the share is filled that is left.
fn bar(left: Option<i64>, total: i64) -> String {
    let share = left.map_or(0.0, |left| left as f64 / total.max(1) as f64).clamp(0.0, 1.0);
    let full = (share * 20.0).ceil() as usize;
    "█".repeat(full) + &"░".repeat(20 - full)
}

fn degraded(snapshot: &Snapshot) -> String {
    let level = snapshot.degrade_level.map(|level| format!("   degrade level {level}"));
    let open = snapshot.breakers.iter().filter(|(_, state)| **state > 0.0).map(|(name, _)| name.as_str());
    let open: Vec<&str> = open.collect();
    let breakers = match (snapshot.breakers.is_empty(), open.is_empty()) {
        (true, _) => String::new(),
        (false, true) => "   breakers closed".to_owned(),
        (false, false) => format!("   breakers OPEN: {}", open.join(", ")),
    };
    level.unwrap_or_default() + &breakers
}

fn step_line(step: &StepState, now_s: f64, attended: bool) -> String {
    let mark = match (step.done_s, step.due_s) {
        (None, Some(_)) if !attended => "· nobody is asked".to_owned(),
        (Some(done), Some(due)) => format!("✓ {:.1} s", done - due),
        (None, Some(due)) => {
            let left = due + step.within_s - now_s;
            if left >= 0.0 { format!("→ {left:.0} s left") } else { format!("→ {:.0} s LATE", -left) }
        }
        _ => format!("· {}", step.when),
    };
    format!("{mark:26} {:24} {} ({})", step.id, step.text, step.owner)
}

fn fault_line(fault: &FaultView) -> String {
    let how = match (&fault.trouble, fault.injected_s, fault.healed_s, fault.recovered_s) {
        (Some(why), ..) => format!("! {why}"),
        (_, None, ..) => format!("planned for {:.1} s", fault.planned_s),
        (_, Some(at), None, _) => format!("⚡ since {at:.1} s"),
        (_, Some(_), Some(at), None) => format!("healed at {at:.1} s"),
        (_, Some(from), _, Some(at)) => format!("✓ back after {:.1} s", at - from),
    };
    format!("{how:26} {:24} {}", fault.id, fault.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_counted() {
        let mut lines: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        fit(&mut lines, 7);
        assert_eq!(lines.len(), 7);
        lines.truncate(5);
        fit(&mut lines, 3);
        assert_eq!(lines, ["0", "1", "… 3 lines more: make the window taller"]);
    }

    #[test]
    fn a_bar_is_full_at_the_start_and_empty_only_when_nothing_is_left() {
        let full = |left| bar(left, 100).matches('█').count();
        assert_eq!([full(Some(100)), full(Some(50)), full(Some(1)), full(Some(0)), full(None)], [20, 10, 1, 0, 0]);
        assert_eq!(bar(Some(700), 100).chars().count(), 20, "more than there should be is no wider");
    }
}
