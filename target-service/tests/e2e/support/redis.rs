//! A Redis of the test's own, on a unix socket in a folder of its own.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::skipped::skipped_in_part;

/// A running Redis. It is killed, and its folder removed, when dropped.
pub struct Redis {
    folder: TempDir,
    program: PathBuf,
    server: Child,
}

impl Redis {
    /// Starts one, if this machine has the program.
    pub fn start() -> Option<Self> {
        // In Debian, server and checker are one program, which looks at the name that it is called by.
        let folders = ["/usr/bin", "/usr/local/bin"].map(Path::new);
        let named = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let Some(program) = named("redis-server").or_else(|| named("redis-check-rdb")) else {
            skipped_in_part("there is no redis-server here");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("rd").tempdir().unwrap();
        let server = launch(&program, folder.path());
        Some(Self { folder, program, server })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket(self.folder.path()).display())
    }

    /// Kills it, and starts it again on what it had on disk.
    pub fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = launch(&self.program, self.folder.path());
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn launch(program: &Path, folder: &Path) -> Child {
    let _ = std::fs::remove_file(socket(folder));
    let server = Command::new(program)
        .arg0("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--unixsocket"])
        .arg(socket(folder))
        .arg("--dir")
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(socket(folder)).is_err() {
        assert!(Instant::now() < end, "Redis did not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    server
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
