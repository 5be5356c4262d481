//! What is shown before anything is known, in which language, and to whom.

use serde_json::json;

use super::Visitor;
use crate::support::postgres::Postgres;
use crate::support::role::Role;
use crate::support::service::Service;
use crate::support::{item, with};

#[tokio::test]
async fn the_page_is_there_before_anything_is_known() {
    let Some(mut visitor) = Visitor::reading("zh-CN,zh") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[with(item(5, 1), "title", "青瓷茶盏 · Celadon cup")]).await;
    visitor.hold_up("*/state", "Request");
    visitor.visit(&service.listen);
    visitor.browser.wait_until("performance.getEntriesByName('first-contentful-paint').length === 1");
    assert_eq!(visitor.browser.eval("document.querySelector('h1').innerText"), "青瓷茶盏 · Celadon cup");
    let bones = "[...document.querySelectorAll('.card .bone')].filter((bone) => bone.checkVisibility()).length > 3";
    assert_eq!(visitor.browser.eval(bones), true, "a skeleton is seen");
    assert!(visitor.button_is_disabled());
    visitor.look("skeleton");
    visitor.let_pass();
    visitor.wait_for_phase("open");
    let blank = visitor.browser.eval("performance.getEntriesByName('first-contentful-paint')[0].startTime");
    let shown = visitor.browser.eval("performance.getEntriesByName('state-shown')[0].startTime");
    println!("P10: something is seen after {blank} ms, and the state after {shown} ms (it was held up)");
    assert!(blank.as_f64().unwrap() < shown.as_f64().unwrap());
}

#[tokio::test]
async fn the_language_is_the_readers_and_can_be_changed() {
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    for (asks_for, language, button, other) in [
        ("zh-TW,zh;q=0.9,en;q=0.8", "zh-CN", "登录后购买", "Sign in and buy"),
        ("en-GB,en", "en", "Sign in and buy", "登录后购买"),
        ("fr-FR,fr", "zh-CN", "登录后购买", "Sign in and buy"),
    ] {
        let Some(mut visitor) = Visitor::reading(asks_for) else { return };
        visitor.visit(&service.listen);
        visitor.wait_for_phase("open");
        assert_eq!(visitor.browser.eval("document.documentElement.lang"), language, "{asks_for}");
        assert_eq!(visitor.text("order"), button);
        let seen =
            "[...document.querySelectorAll('.about')].filter((part) => part.offsetParent).map((part) => part.lang)";
        assert_eq!(visitor.browser.eval(seen), json!([language]), "one of the two is shown");
        visitor.browser.click("#language", 1);
        assert_eq!(visitor.text("order"), other);
        visitor.reload();
        visitor.wait_for_phase("open");
        assert_eq!(visitor.text("order"), other, "it is remembered");
        visitor.look(&format!("open-from-{language}"));
    }
}

#[tokio::test]
async fn it_can_be_used_without_a_mouse_and_without_seeing_it() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let postgres = Postgres::start();
    let service = Service::start(&postgres.url());
    service.reset(&[item(5, 1)]).await;
    visitor.visit(&service.listen);
    visitor.wait_for_phase("open");
    let heard = visitor.browser.heard();
    let hears = |role: &str, name: &str| heard.iter().any(|(r, n)| r == role && n.starts_with(name));
    for (role, name) in [
        ("heading", "A phone"),
        ("heading", "On sale now"),
        ("button", "切换到中文"),
        ("textbox", "Your name"),
        ("button", "Sign in and buy"),
        ("progressbar", "5 left"),
    ] {
        assert!(hears(role, name), "{role} {name} is not heard in {heard:?}");
    }
    assert!(!heard.iter().any(|(_, name)| name.contains("怎么买")), "what is not shown is not heard");
    // In the order in which it is seen.
    let mut order = Vec::new();
    visitor.browser.eval("document.body.focus()");
    for _ in 0..5 {
        visitor.browser.press("Tab");
        order.push(visitor.browser.eval("document.activeElement.id || document.activeElement.className || document.activeElement.textContent.trim()"));
    }
    assert_eq!(json!(order[..3]), json!(["skip", "language", "name"]), "{order:?}");
    visitor.browser.eval("document.getElementById('name').focus()");
    visitor.browser.type_in("Ann");
    visitor.browser.press("Enter");
    visitor.browser.wait_until("document.getElementById('say').textContent === 'Signed in as Ann'");
    visitor.browser.eval("document.getElementById('order').focus()");
    visitor.browser.press("Enter");
    visitor.wait_for_deal("held");
    let live = visitor.browser.eval("document.getElementById('say').getAttribute('aria-live')");
    let focus = visitor.browser.eval("document.activeElement.getAttribute('aria-labelledby')");
    assert_eq!((live, focus), (json!("polite"), json!("deal-title")), "the result is heard when the focus comes to it");
}

#[tokio::test]
async fn without_profiles_the_page_shows_and_sells_all_the_same() {
    let Some(mut visitor) = Visitor::reading("en-US") else { return };
    let (postgres, profile) = (Postgres::start(), Role::start("profile", &[]));
    let service = Service::start_with(&postgres.url(), &["--profile", &profile.listen]);
    service.reset(&[item(5, 1)]).await;
    visitor.visit(&service.listen);
    visitor.sign_in("u1");
    visitor.browser.wait_until("document.getElementById('who-extras').textContent.startsWith('level ')");
    profile.pause();
    visitor.browser.eval("sessionStorage.clear()");
    visitor.visit(&service.listen);
    visitor.sign_in("u2");
    visitor.order(1);
    visitor.wait_for_deal("held");
    visitor.browser.click("#pay", 1);
    visitor.wait_for_deal("paid");
    assert_eq!(visitor.text("who-extras"), "");
    let of_state = visitor.asked().iter().any(|asked| asked.path == "/me");
    assert!(of_state, "it is asked for on its own");
    profile.resume();
}
