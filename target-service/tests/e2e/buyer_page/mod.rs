//! The buyer's page in a real browser, from the countdown to the paid order, and what becomes of it when things go wrong. What the page
//! costs its servers is in `cost`.

mod cost;
mod doubt;
mod sale;
mod shown;

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::browser::{self, Browser};
use crate::support::skipped::skipped;

/// Browsers are large: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A folder into which the tests put pictures of what they see.
const PICTURES: &str = "SECKILL_PICTURES";

/// A request that the browser has made.
#[derive(Debug)]
struct Asked {
    id: String,
    method: String,
    path: String,
    key: Option<String>,
    /// Of the reply, head and body; nothing if it came from the browser's own cache.
    bytes: u64,
}

/// A person with a browser.
struct Visitor {
    browser: Browser,
    asked: Vec<Asked>,
    _turn: MutexGuard<'static, ()>,
}

impl Visitor {
    /// Who reads this language; none, and said so, where no browser is.
    fn reading(language: &str) -> Option<Visitor> {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut browser) = Browser::open() else {
            skipped(browser::MISSING);
            return None;
        };
        let agent = browser.eval("navigator.userAgent");
        let asked = json!({ "userAgent": agent, "acceptLanguage": language });
        browser.call("Emulation.setUserAgentOverride", &asked);
        browser.call("Network.enable", &json!({}));
        browser.screen(1280, 900, "light");
        Some(Visitor { browser, asked: Vec::new(), _turn: turn })
    }

    /// Opens the page of the item at this address.
    fn visit(&mut self, address: &str) {
        self.browser.go("about:blank");
        self.browser.go(&format!("http://{address}/items/1/page"));
    }

    /// Every request so far.
    fn asked(&mut self) -> &[Asked] {
        for (method, told) in self.browser.told() {
            match method.as_str() {
                "Network.requestWillBeSent" => {
                    let url = told["request"]["url"].as_str().unwrap_or_default();
                    let path = url.splitn(4, '/').nth(3).map(|path| format!("/{path}"));
                    let headers = told["request"]["headers"].as_object().unwrap();
                    let key = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
                    self.asked.extend(path.map(|path| Asked {
                        id: told["requestId"].to_string(),
                        method: told["request"]["method"].as_str().unwrap().to_owned(),
                        path,
                        key: key.map(|(_, key)| key.to_string()),
                        bytes: 0,
                    }));
                }
                "Network.loadingFinished" => {
                    let id = told["requestId"].to_string();
                    if let Some(asked) = self.asked.iter_mut().find(|asked| asked.id == id) {
                        asked.bytes = told["encodedDataLength"].as_f64().unwrap() as u64;
                    }
                }
                _ => {}
            }
        }
        &self.asked
    }

    /// The orders that the browser has sent, by their keys.
    fn orders(&mut self) -> Vec<Option<String>> {
        let is_order = |asked: &&Asked| asked.method == "POST" && asked.path == "/items/1/orders";
        self.asked().iter().filter(is_order).map(|asked| asked.key.clone()).collect()
    }

    #[track_caller]
    fn wait_for_phase(&mut self, phase: &str) {
        self.browser.wait_until(&format!("document.getElementById('main').dataset.phase === '{phase}'"));
    }

    #[track_caller]
    fn wait_for_deal(&mut self, step: &str) {
        self.browser.wait_until(&format!("document.getElementById('main').dataset.deal === '{step}'"));
    }

    /// Waits until the button may be pressed, and presses it, so often.
    #[track_caller]
    fn order(&mut self, times: u32) {
        self.browser.wait_until("!document.getElementById('order').disabled");
        self.browser.click("#order", times);
    }

    /// Signs in with the keyboard.
    fn sign_in(&mut self, user: &str) {
        self.browser.eval("document.getElementById('name').focus()");
        self.browser.type_in(user);
        self.browser.press("Enter");
        self.browser.wait_until("!document.getElementById('who').hidden");
    }

    fn reload(&mut self) {
        self.browser.eval("window.before = true");
        self.browser.call("Page.reload", &json!({}));
        self.browser.wait_until("!window.before && document.readyState === 'complete'");
    }

    /// What an element says.
    fn text(&mut self, id: &str) -> String {
        let text = self.browser.eval(&format!("document.getElementById('{id}').textContent"));
        text.as_str().unwrap_or_default().to_owned()
    }

    fn button_is_disabled(&mut self) -> bool {
        self.browser.eval("document.getElementById('order').disabled") == true
    }

    /// Requests like this stand still, before they are sent or before their reply is seen, until [`Self::let_pass`].
    fn hold_up(&mut self, pattern: &str, stage: &str) {
        let patterns = json!([{ "urlPattern": pattern, "requestStage": stage }]);
        self.browser.call("Fetch.enable", &json!({ "patterns": patterns }));
    }

    /// Waits for one that stands still, and breaks it.
    fn break_one(&mut self) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let held: Value = loop {
            let found = self.browser.told().into_iter().find(|(method, _)| method == "Fetch.requestPaused");
            if let Some((_, told)) = found {
                break told["requestId"].clone();
            }
            assert!(std::time::Instant::now() < end, "no such request came");
        };
        self.browser.call("Fetch.failRequest", &json!({ "requestId": held, "errorReason": "ConnectionReset" }));
    }

    fn let_pass(&mut self) {
        self.browser.call("Fetch.disable", &json!({}));
    }

    /// The page on a phone and on a desk, by day and by night: nothing is wider than the screen.
    #[track_caller]
    fn look(&mut self, name: &str) {
        for (width, height) in [(360, 740), (1280, 900)] {
            for scheme in ["light", "dark"] {
                self.browser.screen(width, height, scheme);
                // Not against `innerWidth`, which on a phone grows with what is too wide.
                let wide = self.browser.eval("document.documentElement.scrollWidth").as_u64().unwrap();
                assert!(wide <= width.into(), "{name}: something is {wide} pixels wide on a screen of {width}");
                let Some(folder) = std::env::var_os(PICTURES) else { continue };
                // What moves has come to rest.
                std::thread::sleep(std::time::Duration::from_millis(600));
                let picture = self.browser.picture(false);
                let picture = base64::engine::general_purpose::STANDARD.decode(picture).unwrap();
                let path = std::path::Path::new(&folder).join(format!("{name}-{width}-{scheme}.png"));
                std::fs::write(path, picture).unwrap();
            }
        }
        self.browser.screen(1280, 900, "light");
    }
}
