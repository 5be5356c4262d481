//! A proxy in front of Postgres that can swallow the reply to a statement after it took effect, keep replies or a statement back
//! for a while, or cut its clients off from statements under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The key that a statement has among its parameters if its reply is to be lost.
pub const MARKED_KEY: &str = "lose-me";

/// Forwards everything until it is told to lose a reply: then that reply is dropped, and its connection
/// closed.
pub struct LossyProxy {
    port: u16,
    countdown: Arc<AtomicUsize>,
    told: Arc<Told>,
    task: JoinHandle<()>,
}

/// What connections are told.
#[derive(Default)]
struct Told {
    delay_ms: AtomicU64,
    held_ms: AtomicU64,
    cut: Notify,
}

impl LossyProxy {
    /// Listens on a port of its own and forwards to a unix socket.
    pub async fn start(socket: &str) -> Self {
        Self::marking(socket, MARKED_KEY).await
    }

    /// The same, for statements that have this text among their parameters.
    pub async fn marking(socket: &str, mark: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let countdown = Arc::new(AtomicUsize::new(0));
        let told = Arc::new(Told::default());
        let (socket, shared, tell) = (socket.to_owned(), Arc::clone(&countdown), Arc::clone(&told));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&socket).await else { continue };
                tokio::spawn(forward(client, server, mark, Arc::clone(&shared), Arc::clone(&tell)));
            }
        });
        Self { port, countdown, told, task }
    }

    /// The connection string through the proxy.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    /// Keeps every reply back for so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.told.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Keeps the next thing back for so long that a client says behind the mark, and forwards it even if that client has gone.
    pub fn hold_back(&self, time: Duration) {
        self.told.held_ms.store(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Whether something is still to be kept back.
    pub fn will_hold_back(&self) -> bool {
        self.told.held_ms.load(Ordering::SeqCst) > 0
    }

    /// Closes every connection. The server notices when it replies, and not before.
    pub fn cut(&self) {
        self.told.cut.notify_waiters();
    }

    /// Lets the n-th statement from now that carries the marked key take effect, and loses its reply.
    pub fn lose_reply(&self, nth: usize) {
        self.countdown.store(nth, Ordering::SeqCst);
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut client: TcpStream,
    mut server: UnixStream,
    mark: &'static str,
    countdown: Arc<AtomicUsize>,
    told: Arc<Told>,
) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let (mut armed, mut seen) = (false, false);
    loop {
        tokio::select! {
            () = told.cut.notified() => return,
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let marked = up[..length].windows(mark.len()).any(|window| window == mark.as_bytes());
                armed |= marked && countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) == Ok(1);
                if seen {
                    tokio::time::sleep(Duration::from_millis(told.held_ms.swap(0, Ordering::SeqCst))).await;
                }
                seen |= marked;
                if server.write_all(&up[..length]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                tokio::time::sleep(Duration::from_millis(told.delay_ms.load(Ordering::SeqCst))).await;
                // The commit comes before the reply, so the statement has taken effect.
                if armed || client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}
