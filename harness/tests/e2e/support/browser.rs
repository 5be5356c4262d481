//! A real browser that is told what to do over two pipes (the DevTools protocol). It is shared by the test programs of the harness and
//! of the reference service.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What a test says that is left out for want of a browser.
pub const MISSING: &str = "there is no browser on this machine: apt-get install chromium";
/// The limit only tells slow from never.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page, and a profile of its own. It is killed when dropped.
pub struct Browser {
    child: Child,
    to: fs::File,
    from: BufReader<fs::File>,
    calls: u64,
    session: String,
    /// What it has told of its own accord, since it was asked to.
    told: Vec<Value>,
    folder: tempfile::TempDir,
}

/// The program that is on this machine, if there is one.
fn program() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|program| {
        let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    })
}

impl Browser {
    /// Starts one with an empty page; none where no browser is.
    pub fn open() -> Option<Browser> {
        let program = program()?;
        let folder = tempfile::Builder::new().prefix("browser").tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| folder.path().join(name));
        for pipe in [&to, &from] {
            nix::unistd::mkfifo(pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe";
        let shell = format!("exec {program} {flags} --user-data-dir=profile about:blank 3<to 4>from");
        let child = Command::new("sh")
            .args(["-c", &shell])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // In the order in which the shell opens them, since each waits for its other end.
        let to = fs::File::options().write(true).open(to).unwrap();
        let from = BufReader::new(fs::File::open(from).unwrap());
        let mut browser = Browser { child, to, from, calls: 0, session: String::new(), told: Vec::new(), folder };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let asked = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", &asked)["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    /// Goes to a page, as by a link, and waits until it is there.
    pub fn go(&mut self, url: &str) {
        let gone = self.call("Page.navigate", &json!({ "url": url }));
        assert!(gone.get("errorText").is_none(), "{url}: {gone}");
        self.wait_until(&format!("location.href === {} && document.readyState === 'complete'", json!(url)));
    }

    /// Tells it to do something, and gives what it answers.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            assert!(self.from.read_until(0, &mut answer).unwrap() > 0, "the browser ended before it answered {method}");
            let answer: Value = serde_json::from_slice(&answer[..answer.len() - 1]).unwrap();
            if answer["id"] == self.calls {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            if answer["id"].is_null() {
                self.told.push(answer);
            }
        }
    }

    /// What it has told since it was asked last: the method of each event, and its parameters.
    pub fn told(&mut self) -> Vec<(String, Value)> {
        // What was told before this is read on the way to its answer.
        self.eval("0");
        let method = |event: &Value| event["method"].as_str().unwrap_or_default().to_owned();
        self.told.drain(..).map(|event| (method(&event), event["params"].clone())).collect()
    }

    /// What an expression comes to on the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        self.call("Runtime.evaluate", &asked)["result"]["value"].clone()
    }

    /// Waits until an expression is true on the page.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str) {
        let end = Instant::now() + PATIENCE;
        while self.eval(what) != true {
            assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a script in every page from now on, before its own.
    pub fn beforehand(&mut self, script: &str) {
        self.call("Page.enable", &json!({}));
        self.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": script }));
    }

    /// Presses the mouse on an element, so often, as fast as it goes. What covers the element gets it instead, as with a person.
    #[track_caller]
    pub fn click(&mut self, selector: &str, times: u32) {
        let find = format!(
            "(() => {{ const node = document.querySelector({}); node.scrollIntoView({{ block: 'center' }}); \
             const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        let at = self.eval(&find);
        assert!(at.is_array(), "there is no {selector}");
        for n in 1..=times {
            for kind in ["mousePressed", "mouseReleased"] {
                let press = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": n });
                self.call("Input.dispatchMouseEvent", &press);
            }
        }
    }

    /// Types text into what has the focus.
    pub fn type_in(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key that has a name, such as `Enter` or `Tab`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("the test does not know the key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Makes the screen so wide, light or dark.
    pub fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &scheme);
    }

    /// The page as a picture (PNG in base64), as much of it as is seen at once, or all.
    pub fn picture(&mut self, is_whole: bool) -> String {
        let asked = json!({ "format": "png", "captureBeyondViewport": is_whole });
        self.call("Page.captureScreenshot", &asked)["data"].as_str().unwrap().to_owned()
    }

    /// The roles and names of all that a screen reader finds.
    pub fn heard(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        tree["nodes"].as_array().unwrap().iter().map(|node| (text(node, "role"), text(node, "name"))).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
