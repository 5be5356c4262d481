//! Golden histories: for every invariant one that passes, one per anomaly that fails with the expected witness, and
//! those that must stay unknown.

use super::testing::*;
use super::*;
use crate::history::OrderState::{self, Cancelled, Expired, Held, Paid, Refunded};
use crate::history::{Closed, Event, StockRow};

/// A finding as text, for comparing: verdict, detail, and the witness with `>` before the offending lines.
fn told(finding: &Finding) -> String {
    let mut text = format!("{}: {}\n", finding.verdict.name(), finding.detail);
    for line in &finding.witness {
        let mark = if line.offending { ">" } else { " " };
        let at = line.at_us.map_or("-".to_owned(), |at| (at / 1000).to_string());
        text.push_str(&format!("{mark} {at} {} {} {}\n", line.source, line.user, line.text).replace("  ", " "));
    }
    text
}

fn told_of(story: &Story, id: &str) -> String {
    told(&story.finding(id))
}

#[track_caller]
fn passes(story: &Story, id: &str) {
    let finding = story.finding(id);
    assert_eq!(finding.verdict, Verdict::Pass, "{}", told(&finding));
    assert!(finding.witness.is_empty());
}

/// It fails, says why, and points at these lines.
#[track_caller]
fn fails(story: &Story, id: &str, why: &str, offending: &[&str]) {
    let finding = story.finding(id);
    let text = told(&finding);
    assert_eq!(finding.verdict, Verdict::Fail, "{text}");
    assert!(finding.detail.to_lowercase().contains(&why.to_lowercase()), "{text}\nlacks: {why}");
    let bad: Vec<&str> = finding.witness.iter().filter(|line| line.offending).map(|line| line.text.as_str()).collect();
    for (bad, expected) in bad.iter().zip(offending) {
        assert!(bad.starts_with(expected), "{text}\nexpected: {expected}");
    }
    assert_eq!(bad.len(), offending.len(), "{text}");
    assert!(finding.witness.len() <= 16, "{text}");
    assert!(finding.witness.is_sorted_by_key(|line| (line.at_us.is_none(), line.at_us)), "{text}");
}

#[track_caller]
fn unknown(story: &Story, id: &str, why: &str) {
    let finding = story.finding(id);
    assert_eq!(finding.verdict, Verdict::Unknown, "{}", told(&finding));
    assert!(finding.detail.contains(why), "{}\nlacks: {why}", told(&finding));
    assert!(finding.witness.is_empty());
}

fn cut_short(story: Story) -> Story {
    story.with(|s| s.history.info.closed = Some(Closed { how: "interrupted".into(), ops: s.history.ops.len() as u64, ops_lost: 0 }))
}

/// A sale in which everything happened that may: sold out, expiry, cancel, a retry, a lost reply, a late payment.
fn whole_sale() -> Story {
    Story::new(3)
        .bought(1)
        .expired(2)
        .op(order(3).at(300, 1300).lost())
        .op(order(3).attempt(2).at(1400, 1440).ok("o3", Held))
        .row(reserve("o3", 3, Cancelled).at(310))
        .sold_out(5)
        .op(cancel(3, "o3").at(2000, 2040).ok("o3", Cancelled))
        .row(release("o3", "cancelled").at(2020))
        .op(order(6).at(4000, 5000).lost())
        .row(reserve("o6", 6, Paid).at(4010))
        .op(lookup(6).at(5100, 5110).ok("o6", Held))
        .op(pay(6, "o6").at(5200, 5300).lost())
        .row(paid("o6").at(5250))
        .op(pay(2, "o2").at(10_250, 10_290).ok("o2", Refunded))
        .with(|s| {
            if let Some(row) = s.audit.as_mut().and_then(|a| a.ledger.iter_mut().find(|row| row.order == "o2")) {
                row.state = Some(Refunded);
            }
        })
        .row(paid("o2").at(10_260))
        .row(refund("o2").at(10_261))
        .fault("slow-db", 200, 1500)
        .settle()
        .with(|s| s.rules.expect = Expectations { sell_out: true, indeterminate: true, expiry: true, retries: true })
}

#[test]
fn a_correct_sale_passes_every_check() {
    let story = whole_sale();
    let findings = judge(&story.evidence());
    let wrong: Vec<String> = findings.iter().filter(|f| f.verdict != Verdict::Pass).map(told).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(merged(&findings), Verdict::Pass);
    let ids: Vec<&str> = findings.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(ids, ["I1", "I2", "I3", "I4", "I5a", "I5b", "I5c", "I6", "I7", "I8", "I10", "I11"]);
}

mod i01 {
    use super::*;

    fn oversold() -> Story {
        Story::new(2).bought(1).bought(2).bought(3).fault("slow-db", 150, 350).settle()
    }

    #[test]
    fn oversold_by_the_ledger() {
        let text = told_of(&oversold(), "I1");
        insta::assert_snapshot!(text, @"");
    }

    #[test]
    fn exactly_all_is_not_too_many() {
        passes(&Story::new(3).bought(1).bought(2).bought(3).settle(), "I1");
    }

    #[test]
    fn a_released_unit_may_be_sold_again() {
        let story = Story::new(1)
            .expired(1)
            .op(order(2).at(10_200, 10_240).ok("o2", Held))
            .row(reserve("o2", 2, Paid).at(10_210))
            .row(paid("o2").at(10_300))
            .settle();
        passes(&story, "I1");
    }

    #[test]
    fn a_double_release_does_not_hide_an_oversell() {
        let story = Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Cancelled).at(120))
            .row(release("o1", "cancelled").at(200))
            .row(release("o1", "expired").at(10_130))
            .row(reserve("o2", 2, Paid).at(10_200))
            .row(reserve("o3", 3, Paid).at(10_201))
            .settle();
        fails(&story, "I1", "1 unit of item 1 too many: there were 1, and at ledger row 5 the reservations reached 2", &["ledger row 5"]);
    }

    #[test]
    fn replies_alone_show_an_oversell() {
        let story = oversold().without_audit();
        fails(&story, "I1", "buyers held up to 3 units of item 1 at once, 1 more than there were", &["order ok: 201, order o3 held"]);
    }

    #[test]
    fn one_order_acknowledged_twice_counts_once() {
        let story = Story::new(1)
            .bought(1)
            .op(order(1).attempt(2).at(300, 340).ok("o1", Paid))
            .op(lookup(1).at(400, 410).ok("o1", Paid))
            .settle();
        passes(&story, "I1");
    }

    #[test]
    fn a_hold_counts_only_as_long_as_promised() {
        let held = |from| Story::new(1).op(order(1).at(100, 140).ok("o1", Held)).op(order(2).at(from, from + 10).ok("o2", Held));
        unknown(&held(10_080).without_audit(), "I1", "no audit");
        fails(&held(10_070).without_audit(), "I1", "buyers held up to 2", &["order ok: 201, order o2"]);
    }

    #[test]
    fn a_cancel_that_was_sent_may_have_worked() {
        let story = Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(cancel(1, "").at(150, 1150).lost())
            .op(order(2).at(200, 240).ok("o2", Held))
            .without_audit();
        unknown(&story, "I1", "no audit");
    }

    #[test]
    fn a_payment_that_failed_may_have_released() {
        let story = Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(pay(1, "o1").at(150, 170).refused("payment-declined"))
            .op(order(2).at(200, 240).ok("o2", Held))
            .without_audit();
        unknown(&story, "I1", "no audit");
    }

    #[test]
    fn a_paid_order_counts_for_ever() {
        let story = Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(pay(1, "o1").at(150, 170).ok("o1", Paid))
            .op(order(2).at(50_000, 50_010).ok("o2", Held))
            .without_audit();
        fails(&story, "I1", "was too much", &["order ok: 201, order o2 held"]);
    }

    #[test]
    fn a_negative_quantity_is_no_order() {
        let story = Story::new(5).op(order(1).units(-2).ok("o1", Held)).row(reserve("o1", 1, Held).units(-2)).settle();
        let finding = story.finding("I1");
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.detail.contains("Order o1 reserved -2 units"), "{}", finding.detail);
        assert!(finding.detail.contains("More of item 1 was given back than taken"), "{}", finding.detail);
    }

    #[test]
    fn negative_stock_is_an_oversell() {
        let story = Story::new(5).bought(1).settle().with(|s| {
            s.audit = s.audit.take().map(|mut audit| {
                audit.stock[0].available = -1;
                audit
            });
        });
        fails(&story, "I1", "the stock of item 1 went below zero", &["item 1 at the audit: -1 available"]);
    }

    #[test]
    fn live_orders_in_the_end_count_though_released() {
        let story = Story::new(1)
            .row(reserve("o1", 1, Paid))
            .row(release("o1", "expired").at(10_200))
            .row(reserve("o2", 2, Paid).at(10_300))
            .settle();
        fails(&story, "I1", "at the audit, orders hold or own 2 units of item 1", &["ledger row 3"]);
    }

    #[test]
    fn a_quantity_above_one_counts_whole() {
        let story = Story::new(3)
            .op(order(1).units(2).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Held).units(2).at(120))
            .op(order(2).units(2).at(200, 240).ok("o2", Held))
            .row(reserve("o2", 2, Held).units(2).at(220))
            .settle();
        fails(&story, "I1", "at ledger row 2 the reservations reached 4", &["ledger row 2"]);
    }

    #[test]
    fn other_items_are_none_of_its_business() {
        let story = Story::new(1).bought(1).row(reserve("x1", 7, Paid).item(99)).row(reserve("x2", 8, Paid).item(99)).settle();
        passes(&story, "I1");
    }
}
