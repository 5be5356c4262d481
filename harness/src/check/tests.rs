//! Golden histories: for every invariant one that passes, one per anomaly that fails with the expected witness, and
//! those that must stay unknown.

use super::testing::*;
use super::*;
use crate::history::OrderState::{self, Cancelled, Expired, Held, Paid, Refunded};
use crate::history::{ClockError, Closed, Event, StockRow};

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

/// Moves the faults to the link between the buyers and the service.
fn at_the_buyers(story: &mut Story) {
    for event in &mut story.history.events {
        if let Event::FaultPlanned(plan) = event {
            plan.link = Some("client→service".to_owned());
        }
    }
}

fn cut_short(story: Story) -> Story {
    story.with(|s| {
        s.history.info.closed =
            Some(Closed { how: "interrupted".into(), ops: s.history.ops.len() as u64, ops_lost: 0, events: None })
    })
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
    assert_eq!(ids, ["I1", "I2", "I3", "I4", "I5a", "I5b", "I5c", "I6", "I7", "I8", "I9", "I10", "I11"]);
}

mod i01 {
    use super::*;

    fn oversold() -> Story {
        Story::new(2).bought(1).bought(2).bought(3).fault("slow-db", 150, 350).settle()
    }

    #[test]
    fn oversold_by_the_ledger() {
        let text = told_of(&oversold(), "I1");
        insta::assert_snapshot!(text, @r#"
        fail: 1 unit of item 1 too many: there were 2, and at ledger row 5 the reservations reached 3.
        Also: At the audit, orders hold or own 3 units of item 1, and there were 2.
        Also: The stock of item 1 went below zero.
        Also: By their own replies, buyers held up to 3 units of item 1 at once, 1 more than there were: order o3 of u3 was too much.
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, paid at the audit
         150 fault slow-db: latency on service-db 10ms, until 0.350 s
         220 ledger u2 row 3: reserve, order o2, 1 unit of item 1, key k2, paid at the audit
         300 op u3 order ok: 201, order o3 held, 1 unit of item 1 (purchase 3)
        > 320 ledger u3 row 5: reserve, order o3, 1 unit of item 1, key k3, paid at the audit
         - note units of item 1 out after ledger row 5: 3, of 2
        "#);
    }

    #[test]
    fn oversold_to_the_drain_probe() {
        let story = |sold| {
            Story::new(5).bought(1).settle().with(|s| {
                let audit = s.audit.as_mut().expect("there is an audit");
                audit.stock[0] = StockRow { item: 1, initial: 5, available: 4, sold: 1, ..StockRow::default() };
                (audit.probes[0].sold, audit.probes[0].buyers) = (sold, 6);
            })
        };
        passes(&story(4), "I1");
        fails(&story(5), "I1", "5 more sold to fresh buyers after it, which makes 6 of 5", &["drain probe"]);
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
        fails(
            &story,
            "I1",
            "1 unit of item 1 too many: there were 1, and at ledger row 5 the reservations reached 2",
            &["row 5:"],
        );
    }

    #[test]
    fn replies_alone_show_an_oversell() {
        let story = oversold().without_audit();
        fails(
            &story,
            "I1",
            "buyers held up to 3 units of item 1 at once, 1 more than there were",
            &["order ok: 201, order o3 held"],
        );
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
        let held = |from| {
            Story::new(1).op(order(1).at(100, 140).ok("o1", Held)).op(order(2).at(from, from + 10).ok("o2", Held))
        };
        unknown(&held(10_080).without_audit(), "I1", "no audit");
        fails(&held(10_070).without_audit(), "I1", "buyers held up to 2", &["order ok: 201, order o2"]);
    }

    #[test]
    fn a_cancel_that_was_not_recorded_may_have_worked_too() {
        let story = cut_short(oversold().without_audit());
        unknown(&story, "I1", "what was in flight then is not recorded");
        fails(&cut_short(oversold()), "I1", "at ledger row 5", &["row 5:"]);
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
        fails(&story, "I1", "at the audit, orders hold or own 2 units of item 1", &["row 3:"]);
    }

    #[test]
    fn a_quantity_above_one_counts_whole() {
        let story = Story::new(3)
            .op(order(1).units(2).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Held).units(2).at(120))
            .op(order(2).units(2).at(200, 240).ok("o2", Held))
            .row(reserve("o2", 2, Held).units(2).at(220))
            .settle();
        fails(&story, "I1", "at ledger row 2 the reservations reached 4", &["row 2:"]);
    }

    #[test]
    fn other_items_are_none_of_its_business() {
        let story =
            Story::new(1).bought(1).row(reserve("x1", 7, Paid).item(99)).row(reserve("x2", 8, Paid).item(99)).settle();
        passes(&story, "I1");
    }

    /// The one unit is given back and sold again, and the numbers of the rows say the opposite; `taken` is when.
    fn numbered_before_the_lock(taken: i64) -> Story {
        Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Cancelled).at(120))
            .op(cancel(1, "o1").at(2_900, 3_020).ok("o1", Cancelled))
            .op(order(2).at(2_950, 3_080).ok("o2", Held))
            .row(reserve("o2", 2, Held).at(taken))
            .row(release("o1", "cancelled").at(3_000))
            .settle()
    }

    #[test]
    fn rows_that_are_not_in_the_order_of_effect_prove_nothing() {
        unknown(&numbered_before_the_lock(3_050), "I1", "`seq` is not the order of effect");
        // The times say the same as the numbers: then it is believed.
        fails(&numbered_before_the_lock(2_990), "I1", "at ledger row 2 the reservations reached 2", &["row 2:"]);
        let gone_for_good = numbered_before_the_lock(3_050).row(reserve("o3", 3, Held).at(3_060)).settle();
        fails(&gone_for_good, "I1", "at ledger row 2 the reservations reached 2", &["row 2:"]);
    }
}

mod i02 {
    use super::*;

    #[test]
    fn an_acknowledged_order_that_vanished() {
        let story = Story::new(5).bought(1).op(order(2).at(200, 240).ok("o2", Held)).fault("kill", 210, 900).settle();
        insta::assert_snapshot!(told_of(&story, "I2"), @r#"
        fail: Order o2 was acknowledged to u2, and the ledger has no such order.
        > 200 op u2 order ok: 201, order o2 held, 1 unit of item 1 (purchase 2)
         210 fault kill: latency on service-db 10ms, until 0.900 s
         - note the ledger has no row under the key of purchase 2
        "#);
    }

    #[test]
    fn a_lookup_acknowledges_too() {
        let told = |id: &str| Story::new(5).op(order(1).lost()).op(lookup(1).at(200, 210).ok(id, Held)).settle();
        fails(&told("o1"), "I2", "order o1 was acknowledged to u1, and the ledger has no such order", &["lookup ok"]);
        passes(&told(""), "I2");
    }

    #[test]
    fn a_lookup_that_finds_nothing_is_no_acknowledgement() {
        let story = Story::new(5).op(order(1).lost()).op(lookup(1).at(200, 210).refused("not-found")).settle();
        passes(&story, "I2");
        passes(&story, "I3");
    }

    #[test]
    fn kept_for_another_user_or_quantity() {
        let other = |spec: RowSpec| Story::new(5).op(order(1).ok("o1", Held)).row(spec).settle();
        fails(&other(reserve("o1", 1, Held).by("u9")), "I2", "it belongs to u9 instead of u1", &["row 1:"]);
        fails(&other(reserve("o1", 1, Held).units(2)), "I2", "it is for 2 units instead of 1", &["row 1:"]);
        passes(&other(reserve("o1", 1, Held)), "I2");
    }

    #[test]
    fn a_lookup_is_held_against_what_was_asked_for() {
        let story = Story::new(5)
            .op(order(1).units(2).lost())
            .op(lookup(1).at(200, 210).ok("o1", Held))
            .row(reserve("o1", 1, Held))
            .settle();
        fails(&story, "I2", "it is for 1 unit instead of 2", &["row 1:"]);
    }

    #[test]
    fn kept_of_another_item() {
        let story = Story::new(5).op(order(1).ok("o1", Held)).row(reserve("o1", 1, Held).item(2)).settle();
        fails(&story, "I2", "it is of item 2 instead of 1", &["row 1:"]);
    }

    #[test]
    fn one_order_for_two_buyers() {
        let story = Story::new(5).bought(1).op(order(2).at(200, 240).ok("o1", Held)).settle();
        fails(&story, "I2", "it belongs to u1 instead of u2", &["row 1:"]);
    }

    #[test]
    fn a_payment_that_vanished() {
        let paid_then = |state| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(pay(1, "o1").at(200, 240).ok("o1", OrderState::Unknown))
                .row(reserve("o1", 1, state))
                .settle()
        };
        fails(
            &paid_then(Expired),
            "I2",
            "u1 was told that order o1 is paid, and at the audit it is expired",
            &["row 1:", "pay ok"],
        );
        passes(&paid_then(Paid), "I2");
        passes(&paid_then(Refunded), "I2");
    }

    #[test]
    fn a_cancel_that_vanished() {
        let cancelled_then = |state, said, at| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(cancel(1, "o1").at(at, at + 40).ok("o1", said))
                .row(reserve("o1", 1, state))
                .settle()
        };
        fails(
            &cancelled_then(Held, Cancelled, 200),
            "I2",
            "told that order o1 is cancelled, and at the audit it is held",
            &["row 1:", "cancel ok"],
        );
        fails(
            &cancelled_then(Expired, Cancelled, 200),
            "I2",
            "is cancelled, and at the audit it is expired",
            &["row 1:", "cancel ok"],
        );
        passes(&cancelled_then(Cancelled, Cancelled, 200), "I2");
        passes(&cancelled_then(Expired, Expired, 200), "I2");
        passes(&cancelled_then(Expired, Cancelled, 10_200), "I2");
    }

    #[test]
    fn an_acknowledged_state_is_not_undone() {
        let story = Story::new(5).op(order(1).ok("o1", Paid)).row(reserve("o1", 1, Held)).settle();
        fails(&story, "I2", "told that order o1 is paid, and at the audit it is held", &["order ok", "row 1:"]);
    }

    #[test]
    fn nameless_replies_are_found_by_key() {
        let nameless = Story::new(5).op(order(1).ok("", OrderState::Unknown));
        passes(&nameless.clone().row(reserve("x", 1, Held)).settle(), "I2");
        fails(&nameless.settle(), "I2", "an order without an id was acknowledged to u1", &["order ok"]);
    }

    #[test]
    fn without_a_ledger_it_is_unknown() {
        unknown(&Story::new(5).bought(1).without_audit(), "I2", "there is no audit");
        let counters_only =
            Story::new(5).bought(1).settle().with(|s| s.audit.iter_mut().for_each(|a| a.ledger.clear()));
        unknown(&counters_only, "I2", "counters only");
    }

    #[test]
    fn a_cut_history_is_unknown_but_a_loss_is_a_loss() {
        unknown(&cut_short(Story::new(5).bought(1).settle()), "I2", "did not complete (interrupted)");
        let lost = cut_short(Story::new(5).bought(1).op(order(2).ok("o2", Held)).settle());
        fails(&lost, "I2", "order o2 was acknowledged", &["order ok"]);
    }

    #[test]
    fn a_service_that_numbers_its_buyers_is_not_accused() {
        let story = |user: &str| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .row(reserve("o1", 1, Held).by("7001").at(120))
                .op(order(2).at(200, 240).ok("o2", Held))
                .row(reserve("o2", 2, Held).by(user).at(220))
                .op(order(3).at(300, 1300).lost())
                .row(reserve("o3", 3, Held).by("7003").at(320))
                .settle()
        };
        unknown(&story("7002"), "I2", "the ledger names not one buyer as the run does");
        unknown(&story("7002"), "I3", "the ledger names not one buyer as the run does");
        passes(&story("7002"), "I4");
        passes(&story("7002"), "I6");
        fails(&story("u2"), "I2", "it belongs to 7001 instead of u1", &["row 1:"]);
        let keyless =
            story("7002").with(|s| s.audit.iter_mut().for_each(|a| a.ledger.iter_mut().for_each(|r| r.key = None)));
        unknown(&keyless, "I3", "does not keep the run's idempotency keys");
        let one_more = keyless.row(reserve("o4", 4, Held).by("7004").key("")).settle();
        fails(&one_more, "I3", "order o4 was asked for by nobody", &["row 4:"]);
    }

    /// Buyer 1 orders one unit as purchase 1 and again as purchase 2, and both are answered with this order.
    fn twice(units: i32, again: &str) -> Story {
        Story::new(9)
            .op(order(1).units(units).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Held).units(units.into()).at(120))
            .op(order(2).by(1).units(units).at(200, 240).ok(again, Held))
            .row(reserve("o2", 2, Held).by("u1").units(units.into()).at(220))
            .settle()
    }

    #[test]
    fn one_order_for_two_purchases() {
        insta::assert_snapshot!(told_of(&twice(1, "o1"), "I2"), @r#"
        fail: Order o1 was acknowledged to u1 for two purchases, 1 and 2, under a key each.
         100 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 1)
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, held at the audit
        > 200 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 2)
        "#);
        fails(&twice(1, "o1").without_audit(), "I2", "for two purchases, 1 and 2", &["order ok: 201, order o1"]);
        let keyless =
            twice(1, "o1").with(|s| s.audit.iter_mut().for_each(|a| a.ledger.iter_mut().for_each(|r| r.key = None)));
        fails(&keyless, "I2", "for two purchases, 1 and 2", &["order ok: 201, order o1"]);
        passes(&twice(1, "o2"), "I2");
        // Who may not have both is perhaps answered with the one that they have.
        unknown(&twice(2, "o1"), "I2", "see whether the service means to answer with the order that they have");
        // Orders of two items may have the same number, where nobody can look.
        let elsewhere = twice(1, "o1").without_audit().with(|s| {
            s.rules.items.push(ItemRules { item: 2, ..s.rules.items[0].clone() });
            s.history.ops[1].item = 2;
        });
        unknown(&elsewhere, "I2", "there is no audit");
    }

    #[test]
    fn an_acknowledged_order_that_is_not_known_any_more() {
        let story = |asked: i64| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .row(reserve("o1", 1, Expired).at(120))
                .op(pay(1, "o1").at(asked, asked + 10).refused("not-found"))
                .row(release("o1", "expired").at(10_130))
                .settle()
        };
        fails(
            &story(200),
            "I2",
            "u1 asked to pay order o1 at 0.200 s and was told that there is none",
            &["pay refused"],
        );
        // What is over may be forgotten; and its time may be over before the ledger says so.
        passes(&story(10_200), "I2");
        passes(&story(10_110), "I2");
        let other = Story::new(5).bought(1).op(cancel(1, "o1").at(300, 310).refused("forbidden")).settle();
        passes(&other, "I2");
    }
}

mod i03 {
    use super::*;

    fn refused_but_made() -> Story {
        Story::new(5)
            .bought(1)
            .op(order(2).at(200, 240).refused("sold-out"))
            .row(reserve("o2", 2, Expired).at(220))
            .row(release("o2", "expired").at(10_300))
            .settle()
    }

    #[test]
    fn made_though_refused() {
        insta::assert_snapshot!(told_of(&refused_but_made(), "I3"), @r#"
        fail: u2 was definitely refused, and yet order o2 was made for them.
         200 op u2 order refused: 409, sold-out, 1 unit of item 1 (purchase 2)
        > 220 ledger u2 row 3: reserve, order o2, 1 unit of item 1, key k2, expired at the audit
        "#);
    }

    #[test]
    fn an_order_without_an_answer_is_recovered() {
        let story = Story::new(5).op(order(2).lost()).row(reserve("o2", 2, Held)).settle();
        passes(&story, "I3");
        assert!(story.finding("I3").detail.contains("1 of them though their buyer never got"));
    }

    #[test]
    fn a_refusal_after_an_unclear_attempt_settles_nothing() {
        let story = Story::new(5)
            .op(order(2).at(100, 1000).lost())
            .op(order(2).attempt(2).at(1100, 1110).refused("sold-out"))
            .row(reserve("o2", 2, Held))
            .settle();
        passes(&story, "I3");
    }

    #[test]
    fn a_missing_attempt_may_have_done_it() {
        let story = Story::new(5).op(order(2).attempt(2).refused("sold-out")).row(reserve("o2", 2, Held)).settle();
        passes(&story, "I3");
    }

    #[test]
    fn an_order_is_not_made_before_it_is_asked_for() {
        let story = |at| Story::new(5).op(order(1).at(100, 1_100).lost()).row(reserve("o1", 1, Held).at(at)).settle();
        fails(&story(80), "I3", "order o1 was made at 0.080 s, and first asked for at 0.100 s", &["row 1:"]);
        passes(&story(91), "I3");
    }

    #[test]
    fn what_was_never_sent_makes_no_order() {
        let story = Story::new(5).op(order(2).dropped()).row(reserve("o2", 2, Held)).settle();
        fails(&story, "I3", "u2 was definitely refused", &["row 1:"]);
        let never = Story::new(5).bought(1).row(reserve("o7", 7, Held)).settle();
        fails(&never, "I3", "its key k7 was never sent", &["row 3:"]);
    }

    #[test]
    fn strangers_are_phantoms() {
        let story = Story::new(5).bought(1).row(reserve("x", 7, Held).by("mallory").key("zz")).settle();
        fails(&story, "I3", "its buyer mallory is none of the run's", &["row 3:"]);
        let key = Story::new(5).bought(1).row(reserve("x", 1, Held).key("internal-7")).settle();
        fails(&key, "I3", "its key internal-7 is none of the run's", &["row 3:"]);
        let elsewhere = Story::new(5).bought(1).row(reserve("x", 7, Held).by("mallory").key("zz").item(2)).settle();
        passes(&elsewhere, "I3");
    }

    #[test]
    fn a_recovered_order_is_what_was_asked_for() {
        let story = Story::new(5).op(order(2).lost()).row(reserve("o2", 2, Held).units(2)).settle();
        fails(&story, "I3", "is not what u2 asked for", &["row 1:"]);
    }

    #[test]
    fn absence_proves_nothing_in_a_cut_history() {
        unknown(&cut_short(refused_but_made()), "I3", "1 order would be called phantoms");
        let damaged = refused_but_made().with(|s| s.history.damage.push("part 3 is missing".into()));
        unknown(&damaged, "I3", "part 3 is missing");
        let lossy = refused_but_made().with(|s| s.history.info.closed.iter_mut().for_each(|c| c.ops_lost = 1));
        unknown(&lossy, "I3", "1 ops were lost");
        unknown(&refused_but_made().with(|s| s.history.info.closed = None), "I3", "never closed");
    }

    #[test]
    fn a_service_without_keys_is_matched_by_reply_and_buyer() {
        let bare = |order: &str, user: u64| reserve(order, user, Held).key("");
        let story = Story::new(9).op(order(1).ok("o1", Held)).row(bare("o1", 1)).op(order(2).lost());
        passes(&story.clone().settle(), "I3");
        unknown(&story.clone().row(bare("o2", 2)).settle(), "I3", "does not keep the run's idempotency keys");
        fails(
            &story.row(bare("o2", 2)).row(bare("o3", 2)).settle(),
            "I3",
            "order o3 was asked for by nobody",
            &["row 3:"],
        );
    }

    /// Purchase 1 is made at 0.12 s and not answered; asked again at this time, its buyer is told this.
    fn asked_again(at: i64, told: &'static str) -> Story {
        Story::new(5)
            .op(order(1).at(100, 200).lost())
            .row(reserve("o1", 1, Expired).at(120))
            .op(order(1).attempt(2).at(at, at + 10).refused(told))
            .row(release("o1", "expired").at(10_130))
            .settle()
    }

    #[test]
    fn a_retry_is_not_refused_while_its_order_exists() {
        insta::assert_snapshot!(told_of(&asked_again(1_200, "sold-out"), "I3"), @r#"
        fail: u1 asked again at 1.200 s and was refused (sold-out), and order o1 existed by then.
         100 op u1 order indeterminate: timeout, 1 unit of item 1 (purchase 1)
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, expired at the audit
        > 1200 op u1 order refused: 409, sold-out, 1 unit of item 1 (purchase 1, attempt 2)
         10130 ledger u1 row 2: release, order o1, 1 unit of item 1, expired
        "#);
        for no in ["limit-reached", "not-found", "ended", "too-early"] {
            fails(
                &asked_again(1_200, no),
                "I3",
                &format!("refused ({no}), and order o1 existed by then"),
                &["order refused"],
            );
        }
        for other in ["duplicate", "in-flight", "idempotency-key-reused", "forbidden", "rate-limited"] {
            passes(&asked_again(1_200, other), "I3");
        }
        for status in [401, 403, 429] {
            passes(&asked_again(1_200, "limit-reached").with(|s| s.history.ops[1].status = status), "I3");
        }
        // It may not have been committed yet, or be over.
        passes(&asked_again(1_100, "sold-out"), "I3");
        passes(&asked_again(10_110, "sold-out"), "I3");
        // A fault within the service may hold the commit up; one on the buyers' link cannot.
        passes(&asked_again(1_200, "sold-out").fault("slow-db", 100, 900), "I3");
        let link = asked_again(1_200, "sold-out").fault("cut", 100, 900).with(at_the_buyers);
        fails(&link, "I3", "existed by then", &["order refused"]);
    }

    #[test]
    fn how_long_orders_take_is_learnt_from_the_run() {
        let quick = |count: u64| (10..10 + count).fold(asked_again(300, "sold-out"), |story, n| story.bought(n));
        passes(&quick(19).with(|s| s.rules.items[0].stock = 99).settle(), "I3");
        fails(&quick(20).with(|s| s.rules.items[0].stock = 99).settle(), "I3", "existed by then", &["order refused"]);
    }

    #[test]
    fn a_lookup_finds_an_order_that_exists() {
        let story = |at: i64| {
            Story::new(5)
                .op(order(1).at(100, 200).lost())
                .row(reserve("o1", 1, Held).at(120))
                .op(lookup(1).at(at, at + 10).refused("not-found"))
                .settle()
        };
        fails(
            &story(1_200),
            "I3",
            "u1 looked for order o1 at 1.200 s and was told that there is none",
            &["lookup refused"],
        );
        passes(&story(1_100), "I3");
        // Who was told of it before knows that it exists.
        let told = Story::new(5)
            .op(order(1).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Held).at(120))
            .op(lookup(1).at(150, 160).refused("not-found"))
            .settle();
        fails(&told, "I3", "was told that there is none", &["lookup refused"]);
    }
}

mod i04 {
    use super::*;

    #[test]
    fn two_orders_under_one_key() {
        let story = Story::new(5)
            .op(order(1).at(100, 1100).lost())
            .op(order(1).attempt(2).at(600, 640).ok("o2", Held))
            .row(reserve("o1", 1, Held).at(590))
            .row(reserve("o2", 1, Held).at(620))
            .fault("cut", 100, 500)
            .settle();
        insta::assert_snapshot!(told_of(&story, "I4"), @r#"
        fail: Purchase 1 of u1 made two orders, o1 and o2, under one idempotency key.
         100 op u1 order indeterminate: timeout, 1 unit of item 1 (purchase 1)
         100 fault cut: latency on service-db 10ms, until 0.500 s
         590 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, held at the audit
         600 op u1 order ok: 201, order o2 held, 1 unit of item 1 (purchase 1, attempt 2)
        > 620 ledger u1 row 2: reserve, order o2, 1 unit of item 1, key k1, held at the audit
        "#);
    }

    #[test]
    fn one_order_for_many_attempts() {
        let story = Story::new(5)
            .op(order(1).at(100, 1100).lost())
            .op(order(1).attempt(2).at(1200, 1240).ok("o1", Held).cents(100))
            .op(lookup(1).at(1300, 1310).ok("o1", Held).cents(100))
            .row(reserve("o1", 1, Held))
            .settle();
        passes(&story, "I4");
    }

    #[test]
    fn a_retry_within_under_another_key() {
        let story = |acknowledged: &str| {
            Story::new(5)
                .op(order(1).at(100, 1100).ok(acknowledged, Held))
                .row(reserve("o1", 1, Held))
                .row(reserve("o2", 1, Held).key("retry-of-k1"))
                .settle()
        };
        fails(
            &story("o2"),
            "I4",
            "purchase 1 of u1 made two orders, o1 and o2, though only one was asked for",
            &["row 2:"],
        );
        fails(&story("o1"), "I4", "u1 has 2 orders out of 1 purchase", &["row 2:"]);
    }

    #[test]
    fn stock_taken_twice_for_one_order() {
        let twice = |again| {
            Story::new(5)
                .op(order(1).ok("o1", Held))
                .row(reserve("o1", 1, Held).at(120))
                .with(|s| {
                    if again {
                        *s = s.clone().row(release("o1", "expired").at(10_130))
                    }
                })
                .row(reserve("o1", 1, Held).at(10_150))
                .settle()
        };
        fails(&twice(false), "I4", "order o1 took its stock twice: ledger row 2", &["row 2:"]);
        passes(&twice(true), "I4");
    }

    #[test]
    fn replies_that_contradict_each_other() {
        let replies = |id: &str, cents| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held).cents(100))
                .op(order(1).attempt(2).at(200, 240).ok(id, Held).cents(cents))
                .row(reserve("o1", 1, Held))
                .settle()
        };
        passes(&replies("o1", 100), "I4");
        fails(
            &replies("o9", 100),
            "I4",
            "replies to purchase 1 of u1 contradict each other",
            &["order ok: 201, order o9"],
        );
        fails(
            &replies("o1", 90),
            "I4",
            "contradict each other",
            &["order ok: 201, order o1 held, 1 unit of item 1, 90 cents"],
        );
        fails(&replies("o9", 100).without_audit(), "I4", "contradict each other", &["order ok: 201, order o9"]);
    }

    #[test]
    fn without_a_ledger_it_is_unknown() {
        unknown(&Story::new(5).bought(1).without_audit(), "I4", "there is no audit");
    }
}

mod i05a {
    use super::*;

    fn counters(available: i64, held: i64, sold: i64) -> Story {
        Story::new(5).bought(1).settle().with(|s| {
            s.audit.iter_mut().for_each(|audit| {
                audit.stock[0] = StockRow { item: 1, initial: 5, available, held, sold, ..StockRow::default() };
            });
        })
    }

    fn stock(change: impl Fn(&mut StockRow)) -> Story {
        counters(4, 0, 1).with(|s| s.audit.iter_mut().for_each(|audit| change(&mut audit.stock[0])))
    }

    #[test]
    fn a_unit_that_is_nowhere() {
        insta::assert_snapshot!(told_of(&counters(3, 0, 1), "I5a"), @r#"
        fail: 1 unit of item 1 missing: 3 available + 0 held + 1 sold make 4 instead of 5.
        Also: Counters and ledger of item 1 disagree: 3 available by the counter and 4 by the ledger.
        > 90000 stock item 1 at the audit: 3 available, 0 held, 1 sold, of 5
        "#);
    }

    #[test]
    fn conserved() {
        passes(&counters(4, 0, 1), "I5a");
        passes(&stock(|row| row.shards = vec![1, 3]), "I5a");
        passes(&stock(|row| row.caches = vec![("redis".into(), 4)]), "I5a");
    }

    #[test]
    fn counters_that_add_up_and_disagree_with_the_ledger() {
        fails(
            &counters(3, 1, 1),
            "I5a",
            "3 available by the counter and 4 by the ledger, 1 held by the counter and 0 by the ledger",
            &["item 1"],
        );
    }

    #[test]
    fn shards_and_caches() {
        fails(
            &stock(|row| row.shards = vec![1, 2]),
            "I5a",
            "the shards of item 1 have 3 available, and the item has 4",
            &["item 1"],
        );
        fails(
            &stock(|row| row.caches = vec![("redis".into(), 3)]),
            "I5a",
            "cache redis says that 3 of item 1",
            &["item 1"],
        );
        fails(&stock(|row| row.shards = vec![-1, 5]), "I5a", "a counter of item 1 is negative", &["item 1"]);
    }

    #[test]
    fn a_hold_that_nobody_released() {
        let held_until = |until| {
            Story::new(5)
                .op(order(1).ok("o1", Held))
                .row(reserve("o1", 1, Held).until(until))
                .op(pay(1, "o1").at(200, 240).refused("declined"))
                .settle()
        };
        fails(
            &held_until(10_120),
            "I5a",
            "the hold of order o1 ended at 10.120 s, and its 1 unit were still held",
            &["row 1:"],
        );
        unknown(&held_until(AUDIT_MS - 500), "I5a", "take the audit later");
        passes(&held_until(AUDIT_MS + 500), "I5a");
    }

    #[test]
    fn what_the_audit_does_not_say_is_unknown() {
        unknown(&Story::new(5).bought(1).without_audit(), "I5a", "there is no audit");
        unknown(&stock(|row| row.item = 2), "I5a", "no counters of item 1");
        unknown(&counters(4, 0, 1).with(|s| s.rules.items[0].stock = 6), "I5a", "make them agree");
        let counters_only = counters(4, 0, 1).with(|s| s.audit.iter_mut().for_each(|a| a.ledger.clear()));
        unknown(&counters_only, "I5a", "counters only");
    }

    #[test]
    fn holds_that_are_released_when_somebody_asks() {
        let lazy = |sold, sold_out| {
            Story::new(5).op(order(1).ok("o1", Held)).row(reserve("o1", 1, Held).until(10_120)).settle().with(|s| {
                let audit = s.audit.as_mut().expect("there is an audit");
                (audit.probes[0].sold, audit.probes[0].sold_out) = (sold, sold_out);
            })
        };
        fails(&lazy(4, 1), "I5a", "the hold of order o1 ended at 10.120 s", &["row 1:"]);
        unknown(&lazy(5, 0), "I5a", "5 of it were sold to fresh buyers where 4 were left");
        unknown(&lazy(0, 0), "I5a", "no fresh buyer was told that it is sold out");
    }

    #[test]
    fn rows_that_do_not_balance_are_shown() {
        let story = Story::new(5)
            .op(order(1).units(2).ok("o1", Held))
            .row(reserve("o1", 1, Cancelled).units(2).at(120))
            .row(release("o1", "cancelled").at(200))
            .settle()
            .with(|s| s.audit.iter_mut().for_each(|audit| audit.stock[0].available = 5));
        insta::assert_snapshot!(told_of(&story, "I5a"), @r#"
        fail: Counters and ledger of item 1 disagree: 5 available by the counter and 4 by the ledger.
         120 ledger u1 row 1: reserve, order o1, 2 units of item 1, key k1, cancelled at the audit
         200 ledger u1 row 2: release, order o1, 1 unit of item 1, cancelled
        > 90000 stock item 1 at the audit: 5 available, 0 held, 0 sold, of 5
         - note by the ledger of item 1: 4 available (5 at the start less 1 reserved and not released), 0 held, 0 sold
        "#);
    }
}

mod i05b {
    use super::*;

    fn probe(buyers: i64, sold: i64, sold_out: i64, other: i64) -> Story {
        Story::new(5).bought(1).settle().with(|s| {
            s.audit.iter_mut().for_each(|audit| {
                let probe = &mut audit.probes[0];
                (probe.buyers, probe.sold, probe.sold_out, probe.other) = (buyers, sold, sold_out, other);
            });
        })
    }

    #[test]
    fn what_is_left_is_sold() {
        passes(&probe(5, 4, 1, 0), "I5b");
    }

    #[test]
    fn stranded_stock() {
        insta::assert_snapshot!(told_of(&probe(5, 1, 4, 0), "I5b"), @r#"
        fail: 3 units of item 1 cannot be bought: 4 were left, 1 were sold, and then 4 buyers were told that it is sold out.
        > - probe drain probe of item 1: 4 left; 5 fresh buyers; 1 sold, 4 told sold out, 0 other
        "#);
        fails(&probe(6, 1, 4, 1), "I5b", "2 units of item 1 cannot be bought", &["drain probe"]);
    }

    #[test]
    fn more_than_was_left() {
        fails(
            &probe(6, 5, 1, 0),
            "I5b",
            "5 units of item 1 were sold to fresh buyers, and 4 were left",
            &["drain probe"],
        );
    }

    #[test]
    fn unclear_answers() {
        unknown(&probe(5, 3, 1, 1), "I5b", "1 of 5 fresh buyers of item 1 got no clear answer");
        unknown(&probe(5, 4, 0, 1), "I5b", "nobody was told");
        unknown(&probe(3, 3, 0, 0), "I5b", "5 are needed");
        let slow =
            probe(6, 5, 1, 0).with(|s| s.audit.iter_mut().for_each(|audit| audit.probes[0].outlasted_its_holds = true));
        unknown(&slow, "I5b", "took longer than a hold lasts");
        let none = probe(5, 4, 1, 0).with(|s| s.audit.iter_mut().for_each(|audit| audit.probes.clear()));
        unknown(&none, "I5b", "there was no drain probe of item 1");
        unknown(&Story::new(5).without_audit(), "I5b", "no audit");
        let other = probe(5, 4, 1, 0).with(|s| s.audit.iter_mut().for_each(|audit| audit.probes[0].available = 3));
        fails(&other, "I5b", "3 were left", &["drain probe"]);
    }

    #[test]
    fn a_sale_that_is_closed_sells_nothing_any_more() {
        let closed = |closes: i64, detail: &str| {
            probe(5, 0, 0, 5).with(|s| {
                s.rules.items[0].closes_us = ms(closes);
                s.audit.iter_mut().for_each(|audit| audit.probes[0].detail = detail.to_owned());
            })
        };
        passes(&closed(60_000, "order: ended"), "I5b");
        let detail = closed(60_000, "order: ended").finding("I5b").detail;
        assert_eq!(detail, "Item 1 was not judged: its sale was closed by then.");
        unknown(
            &closed(AUDIT_MS + 500, "order: ended"),
            "I5b",
            "got no clear answer (order: ended), which may explain",
        );
        unknown(&closed(60_000, "login: http-500; order: ended"), "I5b", "(login: http-500; order: ended)");
    }
}

mod i05c {
    use super::*;

    #[test]
    fn turned_away_after_a_cancel() {
        let story = |cancelled: i64| {
            Story::new(2)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(order(2).at(200, 240).ok("o2", Held))
                .op(cancel(1, "o1").at(cancelled, cancelled + 40).ok("o1", Cancelled))
                .sold_out(5)
                .without_audit()
        };
        insta::assert_snapshot!(told_of(&story(300), "I5c"), @r#"
        fail: u5 was told at 0.510 s that item 1 is sold out for 1 unit, and at most 1 of 2 can have been out.
         300 op u1 cancel ok: 201, order o1 cancelled (purchase 1)
        > 500 op u5 order refused: 409, sold-out, 1 unit of item 1 (purchase 5)
         - note units of item 1 that can have been out between 0.500 s and 0.510 s: at most 1, of 2
        "#);
        passes(&story(470), "I5c");
    }

    #[test]
    fn unclear_orders_may_have_taken_it() {
        let story = Story::new(2).bought(1).op(order(2).at(200, 1200).lost()).sold_out(3).settle();
        passes(&story, "I5c");
        let refused = Story::new(2).bought(1).op(order(2).at(200, 210).refused("limit-reached")).sold_out(3).settle();
        fails(&refused, "I5c", "at most 1 of 2 can have been out", &["order refused: 409, sold-out"]);
    }

    #[test]
    fn the_last_units_are_not_enough_for_two() {
        let story = |units| {
            Story::new(3).bought(1).bought(2).op(order(5).units(units).at(500, 510).refused("sold-out")).settle()
        };
        passes(&story(2), "I5c");
        fails(&story(1), "I5c", "sold out for 1 unit, and at most 2 of 3", &["order refused"]);
    }

    #[test]
    fn a_release_in_the_ledger_counts_when_it_must_be_in_effect() {
        let story =
            |asked: i64| Story::new(1).expired(1).op(order(9).at(asked, asked + 10).refused("sold-out")).settle();
        passes(&story(10_200), "I5c");
        passes(&story(11_100), "I5c");
        fails(&story(11_200), "I5c", "at most 0 of 1", &["order refused"]);
        passes(&story(11_200).fault("slow-db", 9_000, 10_500), "I5c");
    }

    #[test]
    fn a_paid_order_that_is_cancelled_may_not_come_back_on_sale() {
        let story = Story::new(1)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(pay(1, "o1").at(150, 170).ok("o1", Paid))
            .op(cancel(1, "o1").at(200, 240).ok("o1", Refunded))
            .sold_out(5)
            .without_audit();
        passes(&story, "I5c");
    }

    #[test]
    fn phantoms_take_stock_too() {
        let story = Story::new(1).row(reserve("x", 7, Paid).key("zz").by("mallory")).sold_out(5).settle();
        passes(&story, "I5c");
    }

    #[test]
    fn a_cut_history_is_unknown() {
        unknown(&cut_short(Story::new(2).bought(1).sold_out(3).settle()), "I5c", "did not complete");
    }

    #[test]
    fn a_fault_on_the_buyers_link_holds_nothing_up_within() {
        let story = |change: fn(&mut Story)| {
            let story = Story::new(1).expired(1).op(order(9).at(11_200, 11_210).refused("sold-out"));
            story.fault("cut", 9_000, 10_500).with(change).settle()
        };
        passes(&story(|_| ()), "I5c");
        fails(&story(at_the_buyers), "I5c", "at most 0 of 1", &["order refused"]);
    }

    #[test]
    fn stock_that_nobody_set_is_not_known() {
        let story = Story::new(2).bought(1).sold_out(5).without_audit();
        fails(&story, "I5c", "at most 1 of 2 can have been out", &["order refused"]);
        unknown(&story.with(|s| s.rules.set_up = false), "I5c", "nobody told it them or set it back before the run");
    }
}

mod i06 {
    use super::*;

    fn three() -> Story {
        let mut story = Story::new(9);
        for n in 1..=3 {
            let (id, at) = (format!("o{n}"), n as i64 * 100);
            story =
                story.op(order(n).by(4).at(at, at + 40).ok(&id, Held)).row(reserve(&id, n, Held).by("u4").at(at + 20));
        }
        story.settle()
    }

    #[test]
    fn one_too_many() {
        insta::assert_snapshot!(told_of(&three(), "I6"), @r#"
        fail: u4 had 3 units of item 1 at ledger row 3, and 2 are allowed.
        Also: By the replies, u4 had 3 units of item 1 at 0.340 s, and 2 are allowed.
         120 ledger u4 row 1: reserve, order o1, 1 unit of item 1, key k1, held at the audit
         220 ledger u4 row 2: reserve, order o2, 1 unit of item 1, key k2, held at the audit
         300 op u4 order ok: 201, order o3 held, 1 unit of item 1 (purchase 3)
        > 320 ledger u4 row 3: reserve, order o3, 1 unit of item 1, key k3, held at the audit
        "#);
        fails(&three().without_audit(), "I6", "by the replies, u4 had 3 units of item 1", &["order ok: 201, order o3"]);
    }

    #[test]
    fn within_the_limit() {
        passes(&Story::new(9).bought(1).bought(2).settle(), "I6");
        let again = Story::new(9)
            .op(order(1).units(2).ok("o1", Held))
            .row(reserve("o1", 1, Expired).units(2).at(120))
            .row(release("o1", "expired").units(2).at(10_130))
            .op(order(2).by(1).units(2).at(10_200, 10_240).ok("o2", Held))
            .row(reserve("o2", 2, Held).by("u1").units(2).at(10_210))
            .settle();
        passes(&again, "I6");
    }

    #[test]
    fn without_a_ledger_it_is_unknown() {
        unknown(&Story::new(9).bought(1).without_audit(), "I6", "no audit");
    }

    /// Two buyers pass a challenge each, and buy with these tokens.
    fn with_tokens(first: &str, second: &str) -> Story {
        Story::new(9)
            .op(challenge(1, "c1").at(10, 20))
            .op(challenge(2, "c2").at(30, 40))
            .op(order(1).token(first).at(100, 1100).lost())
            .op(order(1).token(first).attempt(2).at(1200, 1240).ok("o1", Held))
            .row(reserve("o1", 1, Held).at(1220))
            .op(order(2).token(second).at(2000, 2040).ok("o2", Held))
            .row(reserve("o2", 2, Held).at(2020))
            .settle()
    }

    #[test]
    fn a_token_buys_once_and_for_its_owner() {
        let story = with_tokens("c1", "c2");
        passes(&story, "I6");
        let detail = story.finding("I6").detail;
        assert!(detail.ends_with("; 2 single-use tokens spent, each once and by its owner."), "{detail}");
        // What was refused, or never answered, did not spend it.
        let refused = with_tokens("c1", "c2").op(order(3).token("c1").at(3000, 3010).refused("challenge-required"));
        passes(&refused, "I6");
        passes(&with_tokens("c1", "c2").op(order(3).token("c1").at(3000, 4000).lost()), "I6");
    }

    #[test]
    fn a_token_that_bought_twice() {
        let twice = with_tokens("c1", "c2")
            .op(order(3).by(1).token("c1").at(3000, 3040).ok("o3", Held))
            .row(reserve("o3", 3, Held).by("u1").at(3020))
            .settle();
        insta::assert_snapshot!(told_of(&twice, "I6"), @r#"
        fail: One single-use token bought two orders: purchase 1 of u1 and purchase 3 of u1.
         10 op u1 read ok: 200, token c1 (purchase 1)
         1200 op u1 order ok: 201, order o1 held, token c1, 1 unit of item 1 (purchase 1, attempt 2)
        > 3000 op u1 order ok: 201, order o3 held, token c1, 1 unit of item 1 (purchase 3)
        "#);
        fails(&twice.without_audit(), "I6", "one single-use token bought two orders", &["order ok: 201, order o3"]);
    }

    #[test]
    fn a_token_that_bought_twice_by_way_of_a_ticket() {
        let story = with_tokens("c1", "c2")
            .op(order(3).by(1).token("c1").at(3000, 3040).pending("t3"))
            .row(reserve("o3", 3, Held).by("u1").at(3060))
            .settle();
        passes(&story, "I6");
        let story = story.op(ticket(3, "t3").by(1).at(3200, 3210).ok("o3", Held));
        fails(&story, "I6", "bought two orders: purchase 1 of u1 and purchase 3 of u1", &["order ok: 202, ticket t3"]);
    }

    #[test]
    fn a_token_spent_by_another_than_its_owner() {
        insta::assert_snapshot!(told_of(&with_tokens("c1", "c9").op(challenge(3, "c9").at(50, 60)), "I6"), @r#"
        fail: A single-use token that was given to u3 bought an order for u2.
         50 op u3 read ok: 200, token c9 (purchase 3)
        > 2000 op u2 order ok: 201, order o2 held, token c9, 1 unit of item 1 (purchase 2)
        "#);
    }

    /// Buyer 1 gives two units back and takes one again, and the numbers of the rows say the opposite.
    fn numbered_before_the_lock(taken: i64) -> Story {
        Story::new(9)
            .op(order(1).units(2).at(100, 140).ok("o1", Held))
            .row(reserve("o1", 1, Cancelled).units(2).at(120))
            .op(cancel(1, "o1").at(2_900, 3_020).ok("o1", Cancelled))
            .op(order(2).by(1).at(2_950, 3_080).ok("o2", Held))
            .row(reserve("o2", 2, Held).by("u1").at(taken))
            .row(release("o1", "cancelled").units(2).at(3_000))
            .settle()
    }

    #[test]
    fn rows_that_are_not_in_the_order_of_effect_prove_nothing() {
        unknown(&numbered_before_the_lock(3_050), "I6", "`seq` is not the order of effect");
        fails(&numbered_before_the_lock(2_990), "I6", "u1 had 3 units of item 1 at ledger row 2", &["row 2:"]);
    }

    #[test]
    fn a_release_counts_for_the_item_that_was_reserved() {
        let story = Story::new(9)
            .with(|s| s.rules.items.push(ItemRules { item: 2, ..s.rules.items[0].clone() }))
            .row(reserve("o1", 1, Expired).units(2).at(120))
            .row(release("o1", "expired").units(2).item(2).at(10_130))
            .row(reserve("o2", 2, Held).by("u1").units(2).at(10_200))
            .settle();
        passes(&story, "I6");
    }

    #[test]
    fn refused_within_the_limit() {
        let story = |first: OpSpec| {
            Story::new(9).op(first).op(order(2).by(1).at(2_000, 2_010).refused("limit-reached")).settle()
        };
        let had = |units| story(order(1).units(units).at(100, 1_100).lost());
        fails(
            &had(1),
            "I6",
            "1 unit of item 1 is beyond the limit of 2, and had asked for at most 1 before",
            &["order refused"],
        );
        passes(&had(2), "I6");
        fails(&story(order(1).units(2).refused("sold-out")), "I6", "asked for at most 0 before", &["order refused"]);
        passes(&story(order(1).refused("sold-out")).row(reserve("x", 1, Held).units(2).key("zz")).settle(), "I6");
        passes(&had(1).with(|s| s.history.ops[1].status = 429), "I6");
        unknown(&cut_short(had(1)), "I6", "did not complete");
        unknown(&had(1).with(|s| s.rules.set_up = false), "I6", "a limit that they had not");
    }
}

mod i07 {
    use super::*;
    use crate::history::PaymentKind::{self, Capture, Decline, Refund, Void};

    fn rows(state: OrderState, rows: &[RowSpec]) -> Story {
        let story = Story::new(5)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(pay(1, "o1").at(110, 1110).lost())
            .row(reserve("o1", 1, state).cents(100).at(120));
        rows.iter().fold(story, |story, row| story.row(row.clone())).settle()
    }

    #[test]
    fn paid_after_its_release() {
        insta::assert_snapshot!(told_of(&rows(Paid, &[release("o1", "expired").at(10_130), paid("o1").at(10_200)]), "I7"), @r#"
        fail: Order o1 was paid, its stock was given back, and the money was not.
         100 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 1)
         110 op u1 pay indeterminate: timeout, order o1 (purchase 1)
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, 100 cents, key k1, paid at the audit
         10130 ledger u1 row 2: release, order o1, 1 unit of item 1, expired
        > 10200 ledger u1 row 3: pay, order o1, 1 unit of item 1, 100 cents
        "#);
    }

    /// Order o1 in this state, with what the payment dependency's own books say of it under the key a.
    fn captured(state: OrderState, books: &[PaymentKind]) -> Story {
        let story = match state {
            Paid => rows(Paid, &[paid("o1").at(200)]),
            state => rows(state, &[release("o1", "expired").at(10_130)]),
        };
        let story = story.with(|s| s.audit.as_mut().unwrap().payments = Some(Vec::new()));
        books.iter().fold(story, |story, kind| story.payment(*kind, "a", if *kind == Void { "" } else { "o1" }))
    }

    #[test]
    fn the_payment_dependency_says_the_same() {
        passes(&captured(Paid, &[Capture]), "I7");
        passes(&captured(Expired, &[Capture, Refund]), "I7");
        passes(&captured(Expired, &[Decline]), "I7");
        passes(&captured(Expired, &[Void]), "I7");
        passes(&captured(Expired, &[]), "I7");
        passes(&captured(Paid, &[Decline]).payment(Capture, "b", "o1"), "I7");
        passes(&captured(Paid, &[Capture]).payment(Capture, "b", "o1").payment(Refund, "b", "o1"), "I7");
        let seen = captured(Expired, &[Capture, Refund]).finding("I7").detail;
        assert!(seen.contains("1 capture and 1 refund in the books of the payment dependency"), "{seen}");
    }

    #[test]
    fn a_capture_without_its_order() {
        fails(&captured(Expired, &[Capture]), "I7", "its money was taken and not given back", &["payment 1"]);
        fails(&captured(Paid, &[]), "I7", "the payment dependency has no money for it", &[]);
        fails(&captured(Paid, &[Capture, Refund]), "I7", "has no money for it", &[]);
        fails(
            &captured(Paid, &[Capture]).payment(Capture, "b", "o1"),
            "I7",
            "taken more than once",
            &["payment 1", "payment 2"],
        );
        fails(&captured(Paid, &[Capture, Capture]), "I7", "taken twice under the key a", &["payment 1", "payment 2"]);
        fails(
            &captured(Paid, &[Capture]).payment(Capture, "b", "o9"),
            "I7",
            "order o9, which the ledger does not know",
            &["payment 2"],
        );
        fails(
            &captured(Expired, &[Capture, Refund, Refund]),
            "I7",
            "and 200 given back",
            &["payment 1", "payment 2", "payment 3"],
        );
        let amount = |n: usize, cents| {
            captured(Expired, &[Capture, Refund])
                .with(|s| s.audit.as_mut().unwrap().payments.as_mut().unwrap()[n].amount_cents = cents)
        };
        fails(&amount(1, 60), "I7", "and only 60 given back", &["payment 1", "payment 2"]);
        let dear = captured(Paid, &[Capture])
            .with(|s| s.audit.as_mut().unwrap().payments.as_mut().unwrap()[0].amount_cents = 900);
        fails(&dear, "I7", "costs 100 cents, and 900 were taken", &["payment 1"]);
    }

    #[test]
    fn paid_and_refunded() {
        passes(&rows(Refunded, &[release("o1", "expired").at(10_130), paid("o1"), refund("o1")]), "I7");
        passes(&rows(Refunded, &[paid("o1"), refund("o1"), release("o1", "cancelled")]), "I7");
        passes(&rows(Paid, &[paid("o1")]), "I7");
        let again = [release("o1", "expired").at(10_130), reserve("o1", 1, Paid).at(10_150), paid("o1").at(10_200)];
        passes(&rows(Paid, &again), "I7");
    }

    #[test]
    fn wrong_amounts() {
        fails(
            &rows(Paid, &[paid("o1").cents(90)]),
            "I7",
            "order o1 is for 1 unit at 100 cents, and ledger row 2 says 90",
            &["row 2:"],
        );
        fails(&rows(Paid, &[paid("o1").cents(-100)]), "I7", "says -100", &["row 2:"]);
        fails(&rows(Refunded, &[paid("o1"), refund("o1").cents(200)]), "I7", "refunded with 200", &["row 3:"]);
        unknown(&rows(Refunded, &[paid("o1"), refund("o1").cents(50)]), "I7", "see whether that is meant");
        let told =
            Story::new(5).op(order(1).units(2).ok("o1", Held).cents(100)).row(reserve("o1", 1, Held).units(2)).settle();
        fails(&told, "I7", "2 units of item 1 cost 100 cents, and the price is 200", &["order ok"]);
    }

    #[test]
    fn paid_twice_or_by_nobody() {
        fails(&rows(Paid, &[paid("o1"), paid("o1")]), "I7", "order o1 was paid twice", &["row 3:"]);
        fails(&rows(Held, &[refund("o1")]), "I7", "refunded more often than it was paid", &["row 2:"]);
        let unknown_order = Story::new(5).bought(1).row(paid("x")).settle();
        fails(&unknown_order, "I7", "which the ledger does not know", &["row 3:"]);
        let nobody =
            Story::new(5).bought(1).op(order(2).ok("o2", Held)).row(reserve("o2", 2, Paid)).row(paid("o2")).settle();
        fails(&nobody, "I7", "u2 had not tried to pay it", &["row 4:"]);
        fails(&nobody.clone().op(pay(2, "o2").at(300, 1300).lost()), "I7", "u2 had not tried to pay it", &["row 4:"]);
        let refused = nobody.op(pay(2, "o2").at(90, 140).refused("declined"));
        fails(&refused, "I7", "told that the payment of order o2 failed", &["row 4:"]);
        let maybe = refused.op(pay(2, "o2").attempt(2).at(110, 1400).lost());
        passes(&maybe, "I7");
    }

    #[test]
    fn called_paid_without_a_payment() {
        let story = |with: bool| {
            let story = Story::new(5)
                .op(order(1).ok("o1", Held))
                .op(pay(1, "o1").at(110, 210).lost())
                .row(reserve("o1", 1, Paid));
            if with { story.bought(2).settle() } else { story.settle() }
        };
        fails(&story(true), "I7", "order o1 is paid, and the ledger has no payment for it", &["row 1:"]);
        unknown(&story(false), "I7", "not one pay row");
    }

    #[test]
    fn an_acknowledged_payment_is_kept() {
        let story = Story::new(5)
            .op(order(1).at(100, 140).ok("o1", Held))
            .op(pay(1, "o1").at(200, 240).ok("o1", Paid))
            .row(reserve("o1", 1, Expired).at(120))
            .row(release("o1", "expired").at(10_130))
            .settle();
        fails(&story, "I7", "u1 paid order o1, and at the audit it is expired", &["row 1:", "pay ok", "row 2:"]);
    }

    #[test]
    fn paid_after_an_acknowledged_cancel() {
        let story = |said| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(cancel(1, "o1").at(200, 240).ok("o1", Cancelled))
                .op(pay(1, "o1").at(300, 340).ok("o1", said))
                .without_audit()
        };
        fails(&story(Paid), "I7", "u1 cancelled order o1, and later a payment of it was taken", &["pay ok"]);
        unknown(&story(Refunded), "I7", "no audit");
    }

    #[test]
    fn a_payment_answered_with_a_held_order_comes_to_something() {
        let story = |state, status: u16, paid: bool| {
            let story = Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(pay(1, "o1").at(200, 240).ok("o1", Held))
                .with(|s| s.history.ops[1].status = status)
                .row(reserve("o1", 1, state).at(120));
            if paid { story.bought(2).settle() } else { story.settle() }
        };
        fails(
            &story(Expired, 200, true),
            "I7",
            "the payment of order o1 by u1 was answered with success and an order that is still held, and at the audit it is \
             expired",
            &["pay ok"],
        );
        passes(&story(Expired, 202, true), "I7");
        unknown(&story(Expired, 200, false), "I7", "if that is how a payment is only begun");
        let cancelled = story(Cancelled, 200, true).op(cancel(1, "o1").at(300, 400).lost());
        passes(&cancelled, "I7");
        let paid = story(Paid, 200, true).row(paid("o1").at(220)).settle();
        passes(&paid, "I7");
    }

    #[test]
    fn without_amounts_no_price_was_judged() {
        let bare = |cents| {
            Story::new(5).bought(1).settle().with(|s| {
                s.history.ops[0].amount_cents = cents;
                s.audit.iter_mut().for_each(|a| a.ledger.iter_mut().for_each(|row| row.amount_cents = None));
            })
        };
        unknown(&bare(-1), "I7", "neither the ledger nor any reply carries an amount");
        passes(&bare(100), "I7");
        assert_eq!(
            bare(100).finding("I7").detail,
            "1 payment, each for one order; 0 of them carry an amount, and 0 reservations and 1 reply do, each of them the price."
        );
    }
}

mod i08 {
    use super::*;

    fn rows(state: OrderState, rows: &[RowSpec]) -> Story {
        let story = Story::new(5).op(order(1).at(100, 140).ok("o1", Held)).row(reserve("o1", 1, state).at(120));
        rows.iter().fold(story, |story, row| story.row(row.clone())).settle()
    }

    #[test]
    fn released_twice() {
        let twice = rows(Cancelled, &[release("o1", "cancelled").at(9_990), release("o1", "expired").at(10_120)])
            .op(cancel(1, "o1").at(9_980, 10_020).ok("o1", Cancelled));
        insta::assert_snapshot!(told_of(&twice, "I8"), @r#"
        fail: Order o1 gave back 1 unit at ledger row 3, and nothing was out any more: released twice.
         100 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 1)
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, cancelled at the audit
         9980 op u1 cancel ok: 201, order o1 cancelled (purchase 1)
         9990 ledger u1 row 2: release, order o1, 1 unit of item 1, cancelled
        > 10120 ledger u1 row 3: release, order o1, 1 unit of item 1, expired
        "#);
    }

    #[test]
    fn released_once() {
        let cancelled = rows(Cancelled, &[release("o1", "cancelled").at(500)]);
        passes(&cancelled.op(cancel(1, "o1").at(490, 520).ok("o1", Cancelled)), "I8");
        passes(&rows(Expired, &[release("o1", "expired").at(10_120)]), "I8");
        passes(&rows(Held, &[]), "I8");
    }

    #[test]
    fn released_more_or_out_of_order() {
        fails(
            &rows(Cancelled, &[release("o1", "cancelled").units(2)]),
            "I8",
            "gave back 2 units at ledger row 2, and 1 were out",
            &["row 2:"],
        );
        fails(
            &rows(Held, &[release("x", "cancelled")]),
            "I8",
            "came back from order x, which never took any",
            &["row 2:"],
        );
        fails(&rows(Cancelled, &[release("o1", "cancelled").units(0)]), "I8", "gave back 0 units", &["row 2:"]);
        let before = Story::new(5).row(release("o1", "cancelled")).row(reserve("o1", 1, Held)).settle();
        fails(&before, "I8", "gave back its stock before it took it", &["row 1:"]);
        let elsewhere = rows(Cancelled, &[release("o1", "cancelled").item(2)]);
        fails(&elsewhere, "I8", "moves item 2", &["row 2:"]);
    }

    #[test]
    fn expired_before_its_time() {
        fails(
            &rows(Expired, &[release("o1", "expired").at(9_000)]),
            "I8",
            "expired at 9.000 s, and was promised until 10.120 s",
            &["row 2:"],
        );
        passes(&rows(Expired, &[release("o1", "expired").at(10_105)]), "I8");
    }

    #[test]
    fn states_that_contradict_the_rows() {
        let ended = rows(Cancelled, &[reserve("o2", 2, Expired).at(130), release("o2", "expired").at(10_200)]);
        fails(&ended, "I8", "order o1 is cancelled, and its 1 unit never came back", &["row 1:"]);
        unknown(&rows(Cancelled, &[]), "I8", "not one release row");
        fails(
            &rows(Held, &[release("o1", "cancelled").at(300)]).op(cancel(1, "o1").at(200, 1200).lost()),
            "I8",
            "order o1 is held, and its stock was given back",
            &["row 1:"],
        );
    }

    #[test]
    fn without_a_ledger_it_is_unknown() {
        unknown(&Story::new(5).bought(1).without_audit(), "I8", "no audit");
    }

    #[test]
    fn given_back_early_though_nobody_asked() {
        let story = |at: i64| rows(Cancelled, &[release("o1", "cancelled").at(at)]);
        insta::assert_snapshot!(told_of(&story(3_000), "I8"), @r#"
        fail: Order o1 was given back at 3.000 s, and its buyer had done nothing about it: it was made at 0.120 s, and a hold lasts 10.000 s.
         100 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 1)
         120 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, cancelled at the audit
        > 3000 ledger u1 row 2: release, order o1, 1 unit of item 1, cancelled
        "#);
        fails(
            &story(3_000).with(|s| s.audit.iter_mut().for_each(|a| a.ledger[1].reason = None)),
            "I8",
            "nothing about it",
            &["row 2:"],
        );
        passes(&story(10_090), "I8");
        passes(&story(3_000).op(cancel(1, "").at(2_900, 3_900).lost()), "I8");
        passes(&story(3_000).op(pay(1, "o1").at(2_900, 2_950).refused("declined")), "I8");
        fails(
            &story(3_000).op(cancel(1, "o1").at(3_100, 3_110).refused("over")),
            "I8",
            "nothing about it",
            &["row 2:"],
        );
        // At the end of the sale its holds may end.
        passes(&story(3_000).with(|s| s.rules.items[0].closes_us = ms(3_000)), "I8");
        unknown(&cut_short(story(3_000)), "I8", "did not complete");
    }

    #[test]
    fn a_hold_is_stamped_as_long_as_promised() {
        let story = |until: i64, state| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .row(reserve("o1", 1, state).at(121).until(until))
                .settle()
        };
        fails(
            &story(5_121, Held),
            "I8",
            "order o1 was made at 0.121 s and stamped to be held until 5.121 s",
            &["row 1:"],
        );
        passes(&story(10_085, Held), "I8");
        // Counted in whole seconds, it may seem up to a second shorter.
        passes(&story(10_000, Held), "I8");
        // What stands there once an order is over is anybody's guess.
        passes(&story(5_121, Cancelled).row(release("o1", "cancelled").at(20_000)).settle(), "I8");
        passes(&story(5_121, Held).with(|s| s.rules.items[0].closes_us = ms(5_100)), "I8");
    }

    #[test]
    fn a_payment_in_time_is_not_called_late() {
        let story = |at: i64, reason| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .op(pay(1, "o1").at(at, at + 10).refused(reason))
                .row(reserve("o1", 1, Expired).at(120))
                .row(release("o1", "expired").at(10_130))
                .settle()
        };
        fails(
            &story(5_000, "hold-expired"),
            "I8",
            "u1 paid order o1 at 5.000 s and was told that its hold had expired",
            &["pay refused"],
        );
        passes(&story(5_000, "declined"), "I8");
        passes(&story(5_000, "session-expired"), "I8");
        passes(&story(10_075, "hold-expired"), "I8");
        // An earlier attempt may have ended the hold.
        passes(&story(5_000, "hold-expired").op(pay(1, "o1").at(4_000, 5_000).lost()), "I8");
        unknown(&story(5_000, "hold-expired").without_audit().with(|s| s.rules.set_up = false), "I8", "no audit");
    }
}

mod i09 {
    use super::*;

    /// Purchase 1 is accepted at 140 ms and ordered, purchase 2 is accepted at 240 ms and refused.
    fn queued() -> Story {
        Story::new(9)
            .op(order(1).at(100, 140).pending("t1"))
            .op(ticket(1, "t1").at(300, 310).pending("t1"))
            .row(reserve("o1", 1, Held).at(320))
            .op(ticket(1, "t1").at(500, 510).ok("o1", Held))
            .op(order(2).at(200, 240).pending("t2"))
            .op(ticket(2, "t2").at(600, 610).decided_against("not-eligible"))
            .settle()
    }

    #[test]
    fn a_result_that_stays_and_comes_in_time() {
        let story = queued()
            .op(pay(1, "o1").at(520, 600).ok("o1", Paid))
            .row(paid("o1").at(550))
            .with(|s| s.audit.iter_mut().for_each(|audit| audit.ledger[0].state = Some(Paid)))
            .settle()
            .op(ticket(1, "t1").at(700, 710).ok("o1", Paid))
            .op(ticket(2, "t2").at(700, 710).decided_against("not-eligible"))
            .op(ticket(1, "t1").at(800, 1800).lost());
        for id in ["I1", "I2", "I3", "I4", "I5a", "I5c", "I6", "I7", "I10"] {
            passes(&story, id);
        }
        passes(&story, "I9");
        let detail = story.finding("I9").detail;
        assert_eq!(detail, "2 tickets: 1 came to an order, 1 were refused, 0 stayed open.");
    }

    #[test]
    fn without_tickets_there_is_nothing_to_judge() {
        passes(&whole_sale(), "I9");
        assert_eq!(whole_sale().finding("I9").detail, "No tickets were issued: nothing to judge.");
        unknown(&cut_short(whole_sale()), "I9", "no tickets were issued");
    }

    #[test]
    fn a_result_that_changes() {
        let flipped = queued().op(ticket(1, "t1").at(700, 710).decided_against("sold-out"));
        insta::assert_snapshot!(told_of(&flipped, "I9"), @r#"
        fail: Ticket t1 of u1 was order o1, and at 0.710 s it was refused (sold-out).
         100 op u1 order ok: 202, ticket t1 pending, 1 unit of item 1 (purchase 1)
         300 op u1 ticket ok: 202, ticket t1 pending (purchase 1)
         500 op u1 ticket ok: 201, order o1 held, ticket t1 (purchase 1)
        > 700 op u1 ticket refused: 200, sold-out, ticket t1 refused (purchase 1)
        "#);
        let other = queued().op(ticket(1, "t1").at(700, 710).ok("o9", Held));
        fails(
            &other,
            "I9",
            "ticket t1 of u1 was order o1, and at 0.710 s it was order o9",
            &["ticket ok: 201, order o9"],
        );
        let late = queued().op(ticket(2, "t2").at(700, 710).ok("o2", Held));
        fails(&late, "I9", "was refused (not-eligible), and at 0.710 s it was order o2", &["ticket ok: 201, order o2"]);
    }

    #[test]
    fn a_result_that_is_taken_back() {
        let open = queued().op(ticket(1, "t1").at(700, 710).pending("t1"));
        fails(&open, "I9", "ticket t1 of u1 was order o1, and at 0.710 s it was not decided", &["ticket ok: 202"]);
        let gone = queued().op(ticket(1, "t1").at(700, 710).refused("not-found"));
        fails(&gone, "I9", "and at 0.710 s it was unknown to the service", &["ticket refused: 409, not-found"]);
        // An answer that was under way already is older than the result.
        passes(&queued().op(ticket(1, "t1").at(400, 610).pending("t1")), "I9");
        // The order sent again gets the answer that it got the first time.
        passes(&queued().op(order(1).attempt(2).at(700, 710).pending("t1")), "I9");
    }

    fn never_decided(asked_ms: i64) -> Story {
        Story::new(9)
            .op(order(1).at(100, 140).pending("t1"))
            .op(ticket(1, "t1").at(300, 310).pending("t1"))
            .op(ticket(1, "t1").at(asked_ms, asked_ms + 10).pending("t1"))
            .fault("kill", 1000, 2000)
            .settle()
    }

    #[test]
    fn no_result_by_the_deadline() {
        insta::assert_snapshot!(told_of(&never_decided(7001), "I9"), @r#"
        fail: Ticket t1 of u1 was accepted at 0.140 s, and at 7.001 s it was still not decided.
         100 op u1 order ok: 202, ticket t1 pending, 1 unit of item 1 (purchase 1)
         300 op u1 ticket ok: 202, ticket t1 pending (purchase 1)
         1000 fault kill: latency on service-db 10ms, until 2.000 s
        > 7001 op u1 ticket ok: 202, ticket t1 pending (purchase 1)
         - note a result is due 5.000 s after the later of acceptance and the last healing: by 7.000 s
        "#);
        // A result that comes after that is too late as well.
        let late = never_decided(7001).op(ticket(1, "t1").at(7300, 7310).ok("o1", Held));
        fails(&late, "I9", "at 7.001 s it was still not decided", &["ticket ok: 202"]);
        let gone = Story::new(9)
            .op(order(1).at(100, 140).pending("t1"))
            .op(ticket(1, "t1").at(5200, 5210).refused("not-found"));
        fails(&gone, "I9", "at 5.200 s it was still unknown to the service", &["ticket refused: 409, not-found"]);
    }

    #[test]
    fn whom_nobody_asked_for_long_enough_is_unknown() {
        unknown(&never_decided(6999), "I9", "nothing clear was heard after its deadline");
        unknown(&never_decided(6999).op(ticket(1, "t1").at(9000, 10_000).lost()), "I9", "have its step ask for longer");
        let broken = never_decided(7001).planned("pause", 300, 400).injected("pause", 300);
        unknown(&broken, "I9", "a fault was never healed");
        let nameless = Story::new(9).op(order(1).at(100, 140).pending(""));
        unknown(&nameless, "I9", "1 order accepted without a ticket");
        passes(&nameless.op(lookup(1).at(200, 210).ok("o1", Held)), "I9");
    }

    #[test]
    fn an_accepted_order_is_neither_acknowledged_nor_refused() {
        let accepted = |story: Story| story.op(order(1).at(100, 140).pending("t1"));
        passes(&accepted(Story::new(9)), "I2");
        passes(&accepted(Story::new(9)).row(reserve("o1", 1, Held).at(120)).settle(), "I3");
        let refused = accepted(Story::new(9))
            .op(ticket(1, "t1").at(300, 310).decided_against("sold-out"))
            .row(reserve("o1", 1, Held).at(120))
            .settle();
        fails(&refused, "I3", "u1 was definitely refused, and yet order o1 was made", &["row 1:"]);
        fails(&refused, "I5c", "u1 was told at 0.310 s that item 1 is sold out", &["ticket refused: 200, sold-out"]);
        // That the ticket cannot be asked about refuses nothing.
        let unheard = accepted(Story::new(9))
            .op(ticket(1, "t1").at(300, 310).refused("rate-limited"))
            .row(reserve("o1", 1, Held).at(120))
            .settle();
        passes(&unheard, "I3");
    }

    #[test]
    fn a_ticket_acknowledges_what_it_came_to() {
        let lost = Story::new(9)
            .op(order(1).at(100, 140).pending("t1"))
            .op(ticket(1, "t1").at(300, 310).ok("o1", Held))
            .settle();
        fails(&lost, "I2", "order o1 was acknowledged to u1, and the ledger has no such order", &["ticket ok: 201"]);
        let oversold = [1, 2].into_iter().fold(Story::new(1), |story, n| {
            let id = format!("t{n}");
            let at = 100 * n as i64;
            story
                .op(order(n).at(at, at + 40).pending(&id))
                .op(ticket(n, &id).at(at + 50, at + 60).ok(&format!("o{n}"), Paid))
        });
        fails(
            &oversold.without_audit(),
            "I1",
            "buyers held up to 2 units of item 1 at once",
            &["ticket ok: 201, order o2"],
        );
    }
}

mod i10 {
    use super::*;

    fn opens(story: Story) -> Story {
        story.with(|s| {
            s.rules.items[0].opens_us = ms(1_000);
            s.rules.items[0].closes_us = ms(5_000);
        })
    }

    #[test]
    fn stock_taken_before_the_start() {
        let story =
            opens(Story::new(5).op(order(1).at(900, 980).ok("o1", Held)).row(reserve("o1", 1, Held).at(950)).settle());
        insta::assert_snapshot!(told_of(&story, "I10"), @r#"
        fail: Order o1 took its stock at 0.950 s, and the sale of item 1 opened at 1.000 s.
        Also: u1 had an order of item 1 at 0.980 s, and the sale opened at 1.000 s.
         900 op u1 order ok: 201, order o1 held, 1 unit of item 1 (purchase 1)
        > 950 ledger u1 row 1: reserve, order o1, 1 unit of item 1, key k1, held at the audit
        "#);
        fails(
            &story.without_audit(),
            "I10",
            "u1 had an order of item 1 at 0.980 s, and the sale opened at 1.000 s",
            &["order ok"],
        );
    }

    #[test]
    fn within_the_window() {
        let story = Story::new(5)
            .op(order(1).at(900, 1_050).ok("o1", Held))
            .row(reserve("o1", 1, Held).at(992))
            .op(order(2).at(1_005, 1_020).refused("too-early"))
            .op(order(3).at(4_900, 4_995).refused("ended"))
            .settle();
        passes(&opens(story), "I10");
    }

    #[test]
    fn turned_away_within_the_window() {
        let early = opens(Story::new(5).op(order(1).at(1_020, 1_030).refused("too-early")).settle());
        fails(&early, "I10", "asked at 1.020 s and was told that it is too early", &["order refused"]);
        let ended = opens(Story::new(5).op(order(1).at(4_900, 4_980).refused("ended")).settle());
        fails(&ended, "I10", "was told at 4.980 s that the sale of item 1 has ended", &["order refused"]);
    }

    #[test]
    fn bought_after_the_end() {
        let late = opens(
            Story::new(5).op(order(1).at(5_020, 5_100).ok("o1", Held)).row(reserve("o1", 1, Held).at(5_009)).settle(),
        );
        fails(&late, "I10", "u1 first asked for 1 unit of item 1 at 5.020 s", &["order ok"]);
        let stamped = opens(
            Story::new(5).op(order(1).at(4_990, 5_100).ok("o1", Held)).row(reserve("o1", 1, Held).at(5_050)).settle(),
        );
        fails(&stamped, "I10", "took its stock at 5.050 s, and the sale of item 1 closed at 5.000 s", &["row 1:"]);
    }

    #[test]
    fn without_a_ledger_it_is_unknown() {
        unknown(&Story::new(5).bought(1).without_audit(), "I10", "no audit");
    }

    #[test]
    fn a_window_that_nobody_set_is_not_known() {
        let story = opens(Story::new(5).op(order(1).at(1_020, 1_030).refused("too-early")).without_audit());
        fails(&story, "I10", "was told that it is too early", &["order refused"]);
        let untold = story.with(|s| s.rules.set_up = false);
        unknown(&untold, "I10", "there would be buyers told \"too early\" after the opening if");
    }
}

mod i11 {
    use super::*;
    use crate::history::FaultPlan;

    #[test]
    fn everything_expected_was_seen() {
        insta::assert_snapshot!(told_of(&whole_sale(), "I11"), @r#"
        pass: Of the first attempts at all steps, 99% were sent at most 0 µs late, and 5 ms is allowed;
        5 purchases tried, 4 acknowledged, 0 indeterminate;
        5 units of item 1 asked for, of 3;
        "sold out" replies: 1, indeterminate ops: 3, expired holds: 1, retries: 1;
        faults that hit their phase: slow-db.
        "#);
    }

    #[test]
    fn nothing_happened() {
        unknown(&Story::new(5), "I11", "nobody tried to buy anything");
        unknown(&Story::new(5).op(order(1).dropped()), "I11", "nobody tried to buy anything");
        unknown(&Story::new(1).sold_out(1), "I11", "not one order was acknowledged");
    }

    #[test]
    fn what_the_scenario_expects_and_did_not_happen() {
        let expect =
            |change: fn(&mut Expectations)| Story::new(5).bought(1).settle().with(|s| change(&mut s.rules.expect));
        passes(&expect(|_| ()), "I11");
        unknown(
            &expect(|e| e.sell_out = true),
            "I11",
            "demand stayed below the stock: 1 unit of item 1 asked for, and there were 5",
        );
        unknown(&expect(|e| e.sell_out = true), "I11", "no \"sold out\" replies");
        unknown(&expect(|e| e.indeterminate = true), "I11", "no indeterminate ops");
        unknown(&expect(|e| e.expiry = true), "I11", "no expired holds");
        unknown(&expect(|e| e.retries = true), "I11", "no retries");
    }

    #[test]
    fn faults_that_missed() {
        let sale = || Story::new(5).bought(1).bought(2).settle();
        passes(&sale().fault("f", 100, 260), "I11");
        unknown(&sale().planned("f", 100, 260), "I11", "fault f was planned and never injected");
        unknown(&sale().planned("f", 100, 260).injected("f", 100), "I11", "fault f was never healed");
        unknown(
            &sale().planned("f", 100, 260).injected("f", 190).healed("f", 260, "1"),
            "I11",
            "fault f missed its phase",
        );
        unknown(
            &sale().planned("f", 100, 9_000).injected("f", 1_700).healed("f", 9_000, "1"),
            "I11",
            "missed its phase",
        );
        unknown(
            &sale().planned("f", 100, 260).injected("f", 100).healed("f", 150, "1"),
            "I11",
            "it lasted from 0.100 s to 0.150 s",
        );
        unknown(&sale().fault("f", 3_000, 4_000), "I11", "fault f missed the load");
        // What waited for an event is held against the moment at which that came.
        let triggered = |due_ms: i64| Event::FaultTriggered { id: "f".into(), at_us: 0, due_us: due_ms * 1_000 };
        let late = || sale().planned("f", 9_000, 9_100).injected("f", 100).healed("f", 200, "1");
        passes(&late().event(triggered(100)), "I11");
        unknown(&late().event(triggered(20)), "I11", "planned for 0.020 s, it took effect at 0.100 s");
        let skipped = || Event::FaultSkipped { id: "f".into(), at_us: 300_000, why: "nothing was sold".into() };
        unknown(&sale().planned("f", 100, 260).event(skipped()), "I11", "fault f was not injected: nothing was sold");
        let optional = FaultPlan { id: "f".into(), optional: true, ..FaultPlan::default() };
        passes(&sale().event(Event::FaultPlanned(optional)).event(skipped()), "I11");
        // What a stop condition cut off is not asked for; what had its time is.
        let stopped = || {
            let event = Event::Stopped { stop: "s".into(), at_us: 150_000, why: String::new() };
            sale().event(event).with(|s| s.rules.expect.sell_out = true)
        };
        passes(&stopped().planned("f", 200, 260), "I11");
        passes(&stopped().planned("f", 100, 900).injected("f", 100).healed("f", 160, "1"), "I11");
        unknown(&stopped().planned("f", 100, 260), "I11", "fault f was planned and never injected");
        unknown(&stopped().planned("f", 100, 260).injected("f", 100), "I11", "fault f was never healed");
        // Healing must not take longer than it may, when a run is stopped.
        passes(&stopped().planned("f", 100, 9_000).injected("f", 100).healed("f", 2_150, "1"), "I11");
        unknown(
            &stopped().planned("f", 100, 9_000).injected("f", 100).healed("f", 2_151, "1"),
            "I11",
            "fault f was healed only 2.001 s after the run was stopped, and 2.000 s is allowed",
        );
        let idle = sale().planned("f", 100, 260).injected("f", 100).healed("f", 260, "0 connections, 0 bytes");
        unknown(&idle, "I11", "fault f hit nothing");
        // What it counted tells, and not the numbers in its words.
        let counted = |count, hit| sale().planned("f", 100, 260).injected("f", 100).hit("f", 260, count, hit);
        unknown(&counted(0, "3 processes limited; throttled in 0 of 40 periods"), "I11", "fault f hit nothing");
        passes(&counted(1, "`standby` is the primary; it lacked 0 bytes of the primary's log"), "I11");
        let failed = sale().planned("f", 100, 260).event(Event::FaultFailed {
            id: "f".into(),
            at_us: 0,
            error: "no such link".into(),
        });
        unknown(&failed, "I11", "fault f failed: no such link");
    }

    #[test]
    fn the_harness_distrusts_itself() {
        let sale = || Story::new(5).bought(1).settle();
        let distrust = sale().event(Event::Distrust { at_us: 0, why: "the clock was stepped".into() });
        unknown(&distrust, "I11", "the clock was stepped");
        unknown(&cut_short(sale()), "I11", "did not complete");
        unknown(&sale().with(|s| s.history.info.closed = None), "I11", "never closed");
        unknown(
            &sale().with(|s| s.history.info.closed.iter_mut().for_each(|c| c.ops_lost = 2)),
            "I11",
            "2 ops were lost",
        );
        unknown(
            &sale().with(|s| s.history.info.closed.iter_mut().for_each(|c| c.ops += 1)),
            "I11",
            "3 ops were written, and 2 can be read",
        );
        unknown(&sale().with(|s| s.history.damage.push("part 1: bad checksum".into())), "I11", "bad checksum");
        unknown(&sale().with(|s| s.history.ops[0].intended_us -= 6_000), "I11", "ms late, and 5 ms is allowed");
        unknown(&sale().with(|s| s.history.ops[0].completed_us = 0), "I11", "end before they begin");
    }

    #[test]
    fn an_expiry_by_another_name() {
        let story = |reason: &str, at| {
            Story::new(5)
                .op(order(1).at(100, 140).ok("o1", Held))
                .row(reserve("o1", 1, Cancelled).at(120))
                .row(release("o1", reason).at(at))
                .settle()
                .with(|s| s.rules.expect.expiry = true)
        };
        passes(&story("expired", 10_130), "I11");
        passes(&story("cart-abandoned", 10_130), "I11");
        unknown(&story("cart-abandoned", 5_000), "I11", "or is `ttl` or `timeout`");
        unknown(
            &story("cart-abandoned", 10_130).op(cancel(1, "o1").at(10_000, 10_200).lost()),
            "I11",
            "no expired holds",
        );
    }
}

mod judging {
    use super::*;

    struct Crashing;

    impl Check for Crashing {
        fn id(&self) -> &'static str {
            "IX"
        }

        fn name(&self) -> &'static str {
            "crashing"
        }

        fn check(&self, _: &Case<'_>) -> Finding {
            panic!("index out of bounds")
        }
    }

    #[test]
    fn a_crashing_check_is_unknown() {
        let story = Story::new(1);
        let finding = judge_one(&Crashing, &Case::new(&story.evidence()));
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(finding.detail.contains("the check crashed: index out of bounds"), "{}", finding.detail);
    }

    #[test]
    fn a_verdict_is_the_worst_of_all() {
        let finding = |verdict| Finding {
            id: String::new(),
            name: String::new(),
            verdict,
            detail: String::new(),
            witness: Vec::new(),
        };
        use Verdict::{Fail, Pass, Unknown};
        for (verdicts, expected) in
            [(vec![], Unknown), (vec![Pass], Pass), (vec![Pass, Unknown], Unknown), (vec![Unknown, Fail, Pass], Fail)]
        {
            assert_eq!(merged(&verdicts.into_iter().map(finding).collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn distrust_never_passes_and_never_hides_a_failure() {
        let distrust = |story: Story| story.event(Event::Distrust { at_us: 0, why: "lag".into() });
        assert_eq!(merged(&judge(&distrust(whole_sale()).evidence())), Verdict::Unknown);
        let oversold = distrust(Story::new(1).bought(1).bought(2).settle());
        assert_eq!(merged(&judge(&oversold.evidence())), Verdict::Fail);
    }

    #[test]
    fn rows_and_ops_in_any_order_are_judged_the_same() {
        let story = whole_sale().with(|s| {
            s.history.ops.reverse();
            s.audit.iter_mut().for_each(|audit| audit.ledger.reverse());
        });
        assert_eq!(merged(&judge(&story.evidence())), Verdict::Pass);
    }

    #[test]
    fn numbers_of_purchases_may_be_sparse() {
        let story = Story::new(3).bought(1).op(order(u64::MAX).by(2).ok("x", Held)).settle();
        fails(&story, "I2", "order x was acknowledged to u2", &["order ok"]);
    }
}

/// What a fault made of the service's clock is not its fault; everything else still is.
mod wrong_clocks {
    use super::*;

    /// A sale from 0 to 60 s with holds of 10 s, and a clock that is three seconds ahead from 50 to 55 s.
    fn ahead(story: Story) -> Story {
        story.wrong_clock(50_000, 55_000, 3_000)
    }

    #[test]
    fn who_is_turned_away_by_a_wrong_clock_accuses_nobody() {
        let told = Story::new(5).op(order(1).at(54_500, 57_500).refused("ended")).settle();
        fails(&told, "I10", "was told at 57.500 s that the sale of item 1 has ended", &["order refused"]);
        passes(&ahead(told.clone()), "I10");
        let detail = ahead(told).finding("I10").detail;
        assert!(detail.contains("set wrong by up to 3.000 s"), "{detail}");
        // No clock that is three seconds ahead ends a sale so early.
        let long_before = ahead(Story::new(5).op(order(1).at(54_500, 56_000).refused("ended")).settle());
        fails(&long_before, "I10", "was told at 56.000 s that the sale of item 1 has ended", &["order refused"]);
        // Nor does one that is right again, or not yet wrong.
        for at in [20_000, 46_000] {
            let other_time = ahead(Story::new(5).op(order(1).at(at, at + 10).refused("ended")).settle());
            fails(&other_time, "I10", "that the sale of item 1 has ended", &["order refused"]);
        }
        let healed = Story::new(5).op(order(1).at(58_500, 58_510).refused("ended")).settle();
        fails(&healed.wrong_clock(20_000, 25_000, 3_000), "I10", "has ended", &["order refused"]);
    }

    #[test]
    fn a_service_is_held_to_its_own_clock_while_that_is_wrong() {
        // It believes itself beyond the end, and sells.
        let sells = Story::new(5).op(order(1).at(54_500, 54_600).ok("o1", Held)).row(reserve("o1", 1, Held).at(60_550));
        let sells = sells.settle().wrong_clock(50_000, 55_000, 6_000);
        fails(&sells, "I10", "took its stock at 60.550 s, and the sale of item 1 closed at 60.000 s", &["row 1:"]);
        // It believes itself within the window before it opens.
        let opens = |story: Story| story.with(|s| s.rules.items[0].opens_us = 8_000_000);
        let early = Story::new(5).op(order(1).at(6_000, 6_100).ok("o1", Held)).row(reserve("o1", 1, Held).at(9_050));
        passes(&opens(early.clone().settle().wrong_clock(5_000, 7_000, 3_000)), "I10");
        fails(&opens(early.settle()), "I10", "u1 had an order of item 1 at 6.100 s", &["order ok"]);
    }

    #[test]
    fn a_hold_that_ends_early_by_a_wrong_clock_is_no_promise_broken() {
        // Held at 45 s for ten seconds; by a clock that is three ahead they are over at 52 s.
        let paid_late = Story::new(5)
            .op(order(1).at(45_000, 45_050).ok("o1", Held))
            .row(reserve("o1", 1, Expired).at(45_020).until(55_020))
            .row(release("o1", "expired").at(55_030))
            .op(pay(1, "o1").at(52_500, 52_520).refused("expired"))
            .settle();
        fails(&paid_late, "I8", "was told that its hold had expired", &["pay refused"]);
        passes(&ahead(paid_late.clone()), "I8");
        let sooner =
            paid_late.with(|s| (s.history.ops[1].invoked_us, s.history.ops[1].completed_us) = (50_500_000, 50_520_000));
        fails(&ahead(sooner), "I8", "was told that its hold had expired", &["pay refused"]);
        // Given back early by the service's own stamps.
        let early = Story::new(5)
            .op(order(1).at(45_000, 45_050).ok("o1", Held))
            .row(reserve("o1", 1, Expired).at(45_020).until(55_020))
            .row(release("o1", "expired").at(53_500))
            .settle();
        fails(&ahead(early), "I8", "53.500 s", &["row 2:"]);
    }

    #[test]
    fn units_that_came_back_early_may_be_sold_again() {
        // The only unit is claimed until 55 s by the first buyer's reckoning, and came back at 52 s by the service's.
        let twice = Story::new(1)
            .op(order(1).at(45_000, 45_050).ok("o1", Held))
            .row(reserve("o1", 1, Expired).at(45_020).until(55_020))
            .row(release("o1", "expired").at(55_030))
            .op(order(2).at(52_500, 52_550).ok("o2", Held))
            .row(reserve("o2", 2, Held).at(55_520).until(65_520))
            .settle();
        assert_eq!(twice.finding("I1").verdict, Verdict::Fail, "{}", told_of(&twice, "I1"));
        passes(&ahead(twice.clone()), "I1");
        // A clock that was right by then frees nothing early.
        let before = twice.wrong_clock(10_000, 15_000, 3_000);
        assert_eq!(before.finding("I1").verdict, Verdict::Fail, "{}", told_of(&before, "I1"));
    }

    #[test]
    fn a_fault_that_failed_may_have_left_the_clock_wrong() {
        let told = Story::new(5).op(order(1).at(58_000, 58_500).refused("ended")).settle();
        let never = told.clone().planned("clock", 50_000, 55_000).with(|s| set(s, 3_000));
        fails(&never, "I10", "has ended", &["order refused"]);
        let failed = never.event(Event::FaultFailed { id: "clock".into(), at_us: 50_000_000, error: "timeout".into() });
        passes(&failed, "I10");
        let stuck = told.planned("clock", 50_000, 55_000).injected("clock", 50_000).with(|s| set(s, 3_000));
        passes(&stuck, "I10");
    }

    fn set(story: &mut Story, step_ms: i64) {
        for event in &mut story.history.events {
            if let Event::FaultPlanned(plan) = event {
                plan.clock = Some(ClockError { step_us: step_ms * 1000, gain_ppm: 0 });
            }
        }
    }

    #[test]
    fn a_clock_that_drifts_is_off_by_as_much_as_it_gained() {
        let fast = ClockError { step_us: 0, gain_ppm: 500_000 };
        assert_eq!((fast.most_after(2_000_000), fast.most_after(0)), (1_000_000, 0));
        assert_eq!(ClockError { step_us: -700, gain_ppm: -500_000 }.most_after(2_000_000), 1_000_700);
        assert_eq!(fast.most_after(Micros::MAX), Micros::MAX / 2);
    }
}
