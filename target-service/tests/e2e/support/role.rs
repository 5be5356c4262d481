//! The roles around the service, each a process of its own.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::http::{Connection, Reply};
use super::said_when_ready;

/// A role of the program beside the service. It is killed when dropped.
pub struct Role {
    process: Child,
    pub listen: String,
    pub admin: String,
}

impl Role {
    /// Starts it on ports of its own.
    pub fn start(role: &str, arguments: &[&str]) -> Role {
        let mut process = Command::new(env!("CARGO_BIN_EXE_seckill-target"))
            .args([role, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = said_when_ready(&mut process);
        let address = |name: &str| ready[name].as_str().unwrap().to_owned();
        Role { listen: address("listen"), admin: address("admin"), process }
    }

    /// Stops it where it stands: it accepts, and says nothing.
    pub fn pause(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGCONT).unwrap();
    }

    /// Asks for something.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], "").await
    }

    /// Sends a request over a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        Connection::open(&self.listen).await.unwrap().send(method, path, headers, body).await.unwrap()
    }

    /// Its metrics.
    pub async fn metrics(&self) -> String {
        Connection::open(&self.admin).await.unwrap().send("GET", "/metrics", &[], "").await.unwrap().body
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
