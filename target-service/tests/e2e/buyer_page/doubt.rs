//! What has no clear answer is asked about under its key, and never ordered again under another one.

use serde_json::json;

use super::Visitor;
use crate::support::item;
use crate::support::postgres::Postgres;
use crate::support::service::Service;

/// Orders take longer than the shop lets a request take, and are made all the same.
const SLOW: [&str; 5] = ["--slow", "sleep=3s", "--allow-seeded-bugs", "--request-timeout", "500ms"];

async fn reserved(service: &Service) -> usize {
    service.ledger().await.iter().filter(|entry| entry["kind"] == "reserve").count()
}

#[tokio::test]
async fn a_timeout_leads_to_a_question_and_not_to_a_second_order() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start_with(&postgres.url(), &SLOW);
    for (reloads, user) in [(false, "u1"), (true, "u2")] {
        service.reset(&[item(5, 1)]).await;
        visitor.browser.eval("sessionStorage.clear()");
        visitor.visit(&service.listen);
        visitor.asked();
        visitor.asked.clear();
        visitor.sign_in(user);
        visitor.order(1);
        visitor.wait_for_deal("doubt");
        assert_eq!(visitor.text("deal-title"), "Not known yet");
        if reloads {
            visitor.reload();
        } else {
            visitor.look("doubt");
            visitor.browser.click("#order", 2);
        }
        visitor.wait_for_deal("held");
        assert_eq!((visitor.orders().len(), reserved(&service).await), (1, 1));
        let questions =
            visitor.asked().iter().filter(|asked| asked.path.starts_with("/orders?idempotency_key=")).count();
        assert!(questions >= 2, "{questions} questions");
    }
}

#[tokio::test]
async fn an_order_whose_reply_is_lost_is_found_and_one_that_never_arrived_is_sent_again_as_the_same() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    for (stage, arrives) in [("Response", true), ("Request", false)] {
        service.reset(&[item(5, 1)]).await;
        visitor.browser.eval("sessionStorage.clear()");
        visitor.visit(&service.listen);
        visitor.asked();
        visitor.asked.clear();
        visitor.sign_in(stage);
        visitor.hold_up("*/items/1/orders", stage);
        visitor.order(1);
        visitor.break_one();
        visitor.let_pass();
        if !arrives {
            visitor.wait_for_deal("missing");
            assert_eq!(reserved(&service).await, 0);
            visitor.look("missing");
            visitor.order(1);
        }
        visitor.wait_for_deal("held");
        assert_eq!(reserved(&service).await, 1);
        let mut keys = visitor.orders();
        keys.dedup();
        assert!(keys.len() <= 1, "one purchase has one key: {keys:?}");
    }
}

#[tokio::test]
async fn while_ordering_is_paused_it_says_so_and_goes_on_by_itself() {
    let Some(mut visitor) = Visitor::reading("zh-CN,zh") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("open");
    visitor.sign_in("小林");
    // Before the page knows of it.
    visitor.hold_up("*/state", "Request");
    service.admin("PUT", "/degrade", Some(json!({ "level": 3 }))).await;
    visitor.order(1);
    visitor.wait_for_deal("refused");
    assert_eq!(visitor.text("deal-text"), "商店暂停接受新订单，什么也没有扣。请稍后再试。");
    visitor.let_pass();
    visitor.wait_for_phase("paused");
    assert!(visitor.button_is_disabled() && visitor.text("order") == "暂停下单");
    visitor.look("paused");
    // Whoever comes now gets the page and its parts all the same.
    for level in [3, 4] {
        service.admin("PUT", "/degrade", Some(json!({ "level": level }))).await;
        visitor.browser.call("Network.clearBrowserCache", &json!({}));
        visitor.visit(&service.listen);
        visitor.wait_for_phase("paused");
    }
    service.admin("PUT", "/degrade", Some(json!({ "level": null }))).await;
    visitor.wait_for_phase("open");
    visitor.order(1);
    visitor.wait_for_deal("held");
}
