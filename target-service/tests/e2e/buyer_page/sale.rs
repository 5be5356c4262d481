//! From the countdown to the paid order.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Visitor;
use crate::support::postgres::Postgres;
use crate::support::service::{Service, Stock};
use crate::support::{eventually, item, now_us, with};

/// A device whose clock is wrong by so many hours, and a note of when the button came on, by a clock that is right.
fn wrong_by(hours: i64) -> String {
    format!(
        "(() => {{
            const Right = Date, by = {hours} * 3600e3;
            globalThis.Date = class extends Right {{
                constructor(...given) {{ if (given.length) super(...given); else super(Right.now() + by); }}
                static now() {{ return Right.now() + by; }}
            }};
            document.addEventListener('DOMContentLoaded', () => {{
                const button = document.getElementById('order');
                if (!button) return;
                new MutationObserver(() => {{ if (!button.disabled) window.cameOn ??= Right.now(); }})
                    .observe(button, {{ attributes: true }});
            }});
        }})()"
    )
}

#[tokio::test]
async fn a_buyer_comes_from_the_countdown_to_a_paid_order_whatever_the_clock_of_his_device_says() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    for (hours, user) in [(5, "Ann <b>"), (-5, "Bo")] {
        visitor.browser.beforehand(&wrong_by(hours));
        let opens_at = now_us() + 6_000_000;
        service.reset(&[with(item(5, 1), "opens_at", opens_at)]).await;
        visitor.browser.eval("sessionStorage.clear()");
        visitor.browser.call("Network.clearBrowserCache", &json!({}));
        visitor.asked();
        visitor.asked.clear();
        visitor.visit(&service.listen);
        visitor.wait_for_phase("early");
        let (shown, left) = (visitor.text("seconds"), (opens_at - now_us()) / 1_000_000);
        assert!((shown.parse::<i64>().unwrap() - left).abs() <= 2, "{shown} is shown, and {left} are left");
        visitor.sign_in(user);
        assert_eq!(visitor.text("who-name"), user, "a name is text");
        visitor.browser.click("#order", 2);
        assert!(visitor.button_is_disabled() && visitor.text("order") == "Not open yet");
        if hours > 0 {
            visitor.look("countdown");
        }

        visitor.order(2);
        let came_on = visitor.browser.eval("window.cameOn").as_i64().unwrap() - opens_at / 1_000;
        assert!((0..2_000).contains(&came_on), "the button came on {came_on} ms after the opening");
        visitor.wait_for_deal("held");
        assert_eq!(visitor.orders().len(), 1, "two presses are one order, and early ones none");
        assert_eq!(service.stock().await, Stock { initial: 5, available: 4, held: 1, sold: 0 });
        assert_eq!(visitor.browser.eval("document.activeElement.id"), "deal", "the result is heard next");
        if hours > 0 {
            visitor.look("held");
        }

        visitor.reload();
        visitor.wait_for_deal("held");
        visitor.browser.click("#pay", 2);
        visitor.wait_for_deal("paid");
        assert_eq!((visitor.orders().len(), visitor.text("deal-title")), (1, "Paid".to_owned()));
        let payments = visitor.asked().iter().filter(|asked| asked.path.ends_with("/pay")).count();
        assert_eq!(payments, 1, "two presses are one payment");
        assert_eq!(service.stock().await, Stock { initial: 5, available: 4, held: 0, sold: 1 });
        if hours > 0 {
            visitor.look("paid");
        }
    }
}

#[tokio::test]
async fn a_clock_of_the_server_that_is_set_is_followed() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(5, 1), "opens_at", now_us() + 890_000_000)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("early");
    assert_eq!(visitor.text("minutes"), "14");
    service.admin("PUT", "/clock", Some(json!({ "offset_ms": 880_000 }))).await;
    // What a page does when it comes back into sight; otherwise it looks by itself, after a while.
    visitor.browser.eval("dispatchEvent(new Event('online'))");
    visitor.browser.wait_until("document.getElementById('minutes').textContent === '00'");
    visitor.wait_for_phase("open");
}

#[tokio::test]
async fn what_is_sold_out_is_said_to_be_and_what_comes_back_is_offered() {
    let Some(mut visitor) = Visitor::reading("zh-CN,zh") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(1, 1), "hold_ms", 4_000)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("open");
    visitor.sign_in("小林");
    visitor.look("open");

    // What the page last saw is that there is one.
    visitor.hold_up("*/state", "Request");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut other = service.buyer("other").await;
    assert_eq!(other.order(1, "k1").await.status, 201);
    visitor.order(1);
    visitor.wait_for_deal("refused");
    assert_eq!(visitor.text("deal-text"), "已经没有货了。没有扣款。");
    visitor.let_pass();
    visitor.wait_for_phase("soldout");
    assert!(visitor.button_is_disabled() && visitor.text("order") == "已售罄");
    visitor.look("sold-out");

    // The other buyer does not pay.
    visitor.wait_for_phase("open");
    visitor.order(1);
    visitor.wait_for_deal("held");
    let keys = visitor.orders();
    assert!(keys.len() == 2 && keys[0] != keys[1], "a refusal is for good under its key: {keys:?}");

    // Nor does this one.
    visitor.wait_for_deal("expired");
    visitor.look("expired");
    assert_eq!(service.stock().await, Stock { initial: 1, available: 1, held: 0, sold: 0 });
}

#[tokio::test]
async fn a_sale_that_is_over_is_over() {
    let Some(mut visitor) = Visitor::reading("zh-CN,zh") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(1, 1), "closes_at", now_us() + 4_000_000)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("ended");
    assert!(visitor.button_is_disabled() && visitor.text("order") == "已结束");
    visitor.look("ended");
}

#[tokio::test]
async fn the_opening_is_pushed_to_a_page_that_hears_of_it_in_no_other_way() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    // Near enough for every page to listen by now.
    service.reset(&[with(item(5, 1), "opens_at", now_us() + 50_000_000)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("early");
    let listens = |visitor: &mut Visitor| visitor.asked().iter().any(|asked| asked.path == "/items/1/events");
    eventually("the page to listen", Duration::from_secs(30), async || listens(&mut visitor)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Nothing that it asks for is answered any more, and by its own count the sale is far away.
    visitor.hold_up("*", "Request");
    assert!(visitor.text("seconds").parse::<u32>().unwrap() > 20);
    service.admin("PUT", "/clock", Some(json!({ "offset_ms": 60_000 }))).await;
    let set = Instant::now();
    visitor.wait_for_phase("open");
    assert!(set.elapsed() < Duration::from_secs(15), "it has counted down by itself");
    assert!(!visitor.button_is_disabled());
}
