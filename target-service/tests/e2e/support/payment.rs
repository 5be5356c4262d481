//! The payment dependency as a process of its own, which can be killed and started again on the same books.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Connection;
use super::said_when_ready;

/// A payment dependency in a folder of its own. It is killed when dropped.
pub struct Payment {
    folder: TempDir,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl Payment {
    /// Starts it with empty books.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("pay").tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut payment = Self { folder, process: None, arguments };
        payment.launch();
        payment
    }

    /// Starts it, again, on the books that it left.
    pub fn launch(&mut self) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_seckill-target"))
            .args(["payment", "--listen", &self.address(), "--admin-listen", &self.admin_address()])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        said_when_ready(&mut process);
        self.process = Some(process);
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Where payments are taken.
    pub fn address(&self) -> String {
        format!("unix:{}/public.sock", self.folder.path().display())
    }

    fn admin_address(&self) -> String {
        format!("unix:{}/admin.sock", self.folder.path().display())
    }

    /// Tells it how to behave: `decline`, `latency_ms`, `garbage`.
    pub async fn behave(&self, behaviour: Value) {
        let mut admin = Connection::open(&self.admin_address()).await.unwrap();
        let reply = admin.send("PUT", "/behaviour", &[], &behaviour.to_string()).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Its books.
    pub async fn books(&self) -> Vec<Value> {
        let mut admin = Connection::open(&self.admin_address()).await.unwrap();
        let (mut entries, mut after) = (Vec::new(), json!(0));
        loop {
            let path = format!("/audit/payments?limit=3&after={after}");
            let page = admin.send("GET", &path, &[], "").await.unwrap().json();
            entries.extend(page["entries"].as_array().unwrap().iter().cloned());
            if page["next"].is_null() {
                return entries;
            }
            after = page["next"].clone();
        }
    }

    /// How often something happened, as its books say.
    pub async fn count(&self, kind: &str) -> usize {
        self.books().await.iter().filter(|entry| entry["kind"] == kind).count()
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        self.kill();
    }
}
