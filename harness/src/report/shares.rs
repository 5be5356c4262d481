//! Who got what, in the words and figures that every report has of it.

use super::format;
use crate::summary::{CohortShare, Shares, Summary};

/// What it is called.
pub(super) const TITLE: &str = "Who got what";

/// The columns; a leading `#` marks one of figures.
pub(super) const COLUMNS: [&str; 8] =
    ["cohort", "#buyers", "#orders", "#sold", "#of all", "#held unit-s", "#of all", "refused for who they are"];

/// The rows, one for each cohort.
pub(super) fn rows(shares: &Shares) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{}%", format::number(share * 100.0));
    let row = |cohort: &CohortShare| {
        let name = if cohort.abusive { format!("{} (abusive)", cohort.cohort) } else { cohort.cohort.clone() };
        let marks: Vec<String> =
            cohort.marked.iter().map(|(mark, users)| format!("{} {mark}", format::count(*users))).collect();
        vec![
            name,
            format::count(cohort.users),
            format::count(cohort.orders),
            format::signed(cohort.units_sold),
            percent(cohort.sold_share),
            format::number(cohort.held_unit_s),
            percent(cohort.held_share),
            if marks.is_empty() { format::NONE.to_owned() } else { marks.join(", ") },
        ]
    };
    shares.cohorts.iter().map(row).collect()
}

/// How well each mark hit, a sentence each.
pub(super) fn marks(shares: &Shares) -> Vec<String> {
    let percent =
        |part: Option<f64>| part.map_or(format::NONE.to_owned(), |p| format!("{}%", format::number(p * 100.0)));
    let sentence = |(name, mark): (&String, &crate::summary::Marking)| {
        format!(
            "{name}: precision {}, recall {} ({} of {} marked buyers are abusive)",
            percent(mark.precision),
            percent(mark.recall),
            format::count(mark.rightly),
            format::count(mark.marked)
        )
    };
    shares.marks.iter().map(sentence).collect()
}

/// How many buyers had an order and were told at payment that nothing is left, if there were any.
pub(super) fn sold_out_at_payment(summary: &Summary) -> Option<String> {
    let told = summary.outcomes.sold_out_at_payment;
    (told > 0)
        .then(|| format!("{} had an order and were told \"sold out\" when they paid", format::plural(told, "buyer")))
}
