//! What a run comes to: the merged verdict, the exit code, and the sentence that says why.

use crate::check::{Finding, Verdict};
use crate::exit;
use crate::history::HEALED_WITHIN_US;
use crate::summary::{SloResult, Stopped};

/// What the verdict rests on besides the findings.
pub struct Grounds<'a> {
    /// What each invariant came to.
    pub findings: &'a [Finding],
    /// What each objective came to.
    pub slos: &'a [SloResult],
    /// Why the measurement is not to be trusted.
    pub distrust: &'a [String],
    /// Why the run ended before its end, if it did.
    pub cut_short: Option<&'a str>,
    /// The condition of the scenario that ended the run, if one did.
    pub stopped: Option<&'a Stopped>,
    /// What the run left behind in the shop, if it did.
    pub left: Option<&'a str>,
    /// For the sentence: what the findings were judged from.
    pub evidence: String,
    /// What kept the buyers from buying, if something did: the likely cause of everything that could not be judged.
    pub obstacle: Option<String>,
}

impl Grounds<'_> {
    /// The merged verdict of the invariants, at best unknown where the evidence is not to be trusted, is of a part of
    /// the run only, or where nothing was judged.
    pub fn verdict(&self) -> Verdict {
        let doubtful =
            !self.distrust.is_empty() || self.cut_short.is_some() || self.left.is_some() || self.findings.is_empty();
        let at_best = if doubtful { Verdict::Unknown } else { Verdict::Pass };
        self.findings.iter().map(|finding| finding.verdict).fold(at_best, Verdict::merge)
    }

    /// The exit code: of several that apply, the first of violated, unknown, missed. An objective that could not be
    /// judged is not met, so it makes the code unknown, while the verdict is about the invariants only.
    pub fn exit_code(&self) -> i32 {
        if self.stopped.is_some() {
            // The condition is the objective that was missed; later ones had no chance of being judged.
            return exit::of_run(self.verdict(), Some(false));
        }
        let judged: Option<Vec<bool>> = self.slos.iter().map(|slo| slo.met).collect();
        exit::of_run(self.verdict(), judged.map(|met| met.into_iter().all(|met| met)))
    }

    /// One or two sentences that say what the verdict rests on.
    pub fn reason(&self) -> String {
        let stopped = self.stopped.map(stopped_sentence);
        let slos = self.slo_sentence();
        let main = match self.verdict() {
            Verdict::Fail => self.naming(Verdict::Fail, "is violated"),
            Verdict::Unknown => self.doubt(),
            Verdict::Pass => {
                let all = self.findings.len();
                format!("All {all} invariants that were checked hold over {}.", self.evidence)
            }
        };
        let obstacle = self.obstacle.iter().filter(|_| self.verdict() == Verdict::Unknown).map(String::as_str);
        let slos = [slos.as_str()].into_iter().filter(|slos| !slos.is_empty());
        let mut sentences: Vec<&str> = obstacle.chain([main.as_str()]).collect();
        sentences.extend(stopped.as_deref());
        sentences.extend(slos);
        sentences.join(" ")
    }

    fn doubt(&self) -> String {
        if let Some(first) = self.distrust.first() {
            format!(
                "The measurement is not to be trusted: {}{}.",
                first.trim_end_matches('.'),
                and_more(self.distrust.len())
            )
        } else if let Some(how) = self.cut_short {
            format!("The run was cut short ({how}): what was seen holds, but it is only a part.")
        } else if self.findings.is_empty() {
            "No invariant was judged.".to_string()
        } else {
            let unknown = self.naming(Verdict::Unknown, "could not be judged");
            if unknown.is_empty() { self.left.map(str::to_owned).unwrap_or_default() } else { unknown }
        }
    }

    /// Names the first finding with a verdict: `I1 (no oversell) is violated, and 2 more: ...`.
    fn naming(&self, verdict: Verdict, what: &str) -> String {
        let mut such = self.findings.iter().filter(|finding| finding.verdict == verdict);
        let Some(first) = such.next() else { return String::new() };
        let more = and_more(1 + such.count());
        format!("{} ({}) {what}{more}: {}", first.id, first.name, first.detail.replace('\n', " "))
    }

    fn slo_sentence(&self) -> String {
        let named = |met: Option<bool>| -> Vec<&str> {
            self.slos.iter().filter(|slo| slo.met == met).map(|slo| slo.name.as_str()).collect()
        };
        let (missed, unjudged) = (named(Some(false)), named(None));
        let mut sentences = Vec::new();
        if !missed.is_empty() {
            sentences.push(format!("Missed: {}.", missed.join("; ")));
        }
        if !unjudged.is_empty() {
            sentences.push(format!("Could not be judged: {}.", unjudged.join("; ")));
        }
        sentences.join(" ")
    }
}

/// By what the run was stopped, and what came of healing.
fn stopped_sentence(stopped: &Stopped) -> String {
    let healed = match stopped.healed_after_ms {
        _ if !stopped.unhealed.is_empty() => format!("not healed: {}", stopped.unhealed.join(", ")),
        Some(after) if !stopped.healed.is_empty() => {
            let late = after > HEALED_WITHIN_US as f64 / 1e3;
            let late =
                if late { format!(", and {} s is allowed", HEALED_WITHIN_US / 1_000_000) } else { String::new() };
            format!("{} healed within {:.1} s{late}", stopped.healed.join(", "), after / 1e3)
        }
        _ => "no fault was in effect".to_owned(),
    };
    format!(
        "Stopped at {:.1} s by {} ({}); {healed}.",
        stopped.at_ms / 1e3,
        stopped.name,
        stopped.why.trim_end_matches('.')
    )
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(", and {} more", count - 1) } else { String::new() }
}
