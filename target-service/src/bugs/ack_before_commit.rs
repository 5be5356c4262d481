//! Bug 12. "Group commit": orders are executed inside one long transaction on a connection of their own and
//! acknowledged at once; the transaction is committed every so often. Nothing is deducted wrongly, and a
//! kill of the service or of the database loses what was acknowledged since the last commit.
//!
//! Everything else waits for the commit where it would notice: paying, cancelling or looking up an order of
//! the open transaction first waits until it is committed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::Statement;

use crate::inventory::{Answer, Inventory, reserve_statement};
use crate::order::{Claim, Order, Reservation, Settlement, Wanted};
use crate::store::{DirectClient, Store, StoreError, orders};

const GROUP_SIZE: usize = 128;
const GROUP_TIME: Duration = Duration::from_millis(400);
const QUEUE: usize = 4096;

const RESERVE: &str = reserve_statement!(
    "UPDATE item SET available = available - $4::int
      WHERE id = $1::bigint AND available >= $4::int AND $4::int BETWEEN 1 AND per_user_limit
        AND opens_at_us <= $5::bigint AND $5::bigint < closes_at_us
        AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2::text AND o.idempotency_key = $3::text)
        AND NOT EXISTS (SELECT FROM purchase q WHERE q.item_id = $1::bigint AND q.user_id = $2::text
                                                 AND q.quantity + $4::int > q.max_quantity)
     RETURNING id, price_cents, per_user_limit, hold_ms"
);

struct Job {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Reservation, StoreError>>,
}

enum Message {
    Reserve(Job),
    Flush(oneshot::Sender<()>),
}

/// What is acknowledged but not committed.
#[derive(Default)]
struct Uncommitted {
    orders: Mutex<HashSet<i64>>,
    settled: Notify,
}

impl Uncommitted {
    fn add(&self, order: i64) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).insert(order);
    }

    fn clear(&self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.settled.notify_waiters();
    }

    fn has(&self, order: Option<i64>) -> bool {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        order.map_or(!orders.is_empty(), |order| orders.contains(&order))
    }

    /// Waits until the order, or every order, is committed or lost.
    async fn settle(&self, order: Option<i64>, patience: Duration) {
        let settled = async {
            loop {
                let notified = self.settled.notified();
                tokio::pin!(notified);
                // Registered before looking, so that a commit in between is not missed.
                notified.as_mut().enable();
                if !self.has(order) {
                    return;
                }
                notified.await;
            }
        };
        // Whoever waited too long is told by the database what it sees.
        let _ = timeout(patience, settled).await;
    }
}

pub(super) struct AckBeforeCommit {
    store: Store,
    queue: mpsc::Sender<Message>,
    uncommitted: Arc<Uncommitted>,
}

impl AckBeforeCommit {
    pub(super) fn new(store: Store) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let uncommitted = Arc::new(Uncommitted::default());
        let writer = Writer {
            store: store.clone(),
            uncommitted: Arc::clone(&uncommitted),
            connection: None,
            group: 0,
            deadline: Instant::now(),
        };
        tokio::spawn(writer.run(messages));
        Self { store, queue, uncommitted }
    }

    async fn reserve(&self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { wanted: wanted.clone(), reply };
        self.queue.try_send(Message::Reserve(job)).map_err(|_| StoreError::PoolExhausted)?;
        match timeout(self.store.limits().query, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(StoreError::Timeout),
        }
    }

    async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.queue.send(Message::Flush(reply)).await.is_ok() {
            let _ = timeout(self.store.limits().query, flushed).await;
        }
    }

    async fn settle(&self, order: Option<i64>) {
        self.uncommitted.settle(order, self.store.limits().query).await;
    }
}

impl Inventory for AckBeforeCommit {
    fn store(&self) -> &Store {
        &self.store
    }

    fn reserve<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Reservation> {
        Box::pin(Self::reserve(self, wanted))
    }

    fn confirm<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async move {
            self.settle(Some(claim.order)).await;
            orders::pay(&self.store, claim).await
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> Answer<'a, Settlement> {
        Box::pin(async move {
            self.settle(Some(claim.order)).await;
            orders::cancel(&self.store, claim).await
        })
    }

    fn find<'a>(&'a self, user: &'a str, key: &'a str) -> Answer<'a, Option<Order>> {
        Box::pin(async move {
            self.settle(None).await;
            orders::find(&self.store, user, key).await
        })
    }

    fn forget(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.flush())
    }

    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.flush())
    }
}

struct Connection {
    client: DirectClient,
    reserve: Statement,
    classify: Statement,
}

/// Owns the long transaction.
struct Writer {
    store: Store,
    uncommitted: Arc<Uncommitted>,
    connection: Option<Connection>,
    /// Orders in the open transaction; none means that no transaction is open.
    group: usize,
    deadline: Instant,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                () = sleep_until(self.deadline), if self.group > 0 => {
                    self.commit().await;
                    continue;
                }
            };
            match message {
                None => return,
                Some(Message::Flush(reply)) => {
                    self.commit().await;
                    let _ = reply.send(());
                }
                Some(Message::Reserve(job)) => {
                    let outcome = self.reserve(&job.wanted).await;
                    // The bug: this is said before the commit.
                    let _ = job.reply.send(outcome);
                    if self.group >= GROUP_SIZE {
                        self.commit().await;
                    }
                }
            }
        }
    }

    async fn reserve(&mut self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let patience = self.store.limits().query;
        let outcome = timeout(patience, self.try_reserve(wanted)).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(StoreError::Timeout | StoreError::Lost(_) | StoreError::Contended(_)) = &outcome {
            self.give_up();
        }
        outcome
    }

    async fn try_reserve(&mut self, wanted: &Wanted) -> Result<Reservation, StoreError> {
        let Wanted { item, user, key, quantity, now } = wanted;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            slot => slot.insert(connect(&self.store).await?),
        };
        let begin = if self.group == 0 { "BEGIN; SAVEPOINT one" } else { "SAVEPOINT one" };
        connection.client.batch_execute(begin).await?;
        if self.group == 0 {
            self.deadline = Instant::now() + GROUP_TIME;
        }
        let reserved = connection.client.query_opt(&connection.reserve, &[item, user, key, quantity, now]).await;
        let row = match reserved.map_err(StoreError::from) {
            Ok(row) => row,
            Err(StoreError::Violation(_)) => {
                connection.client.batch_execute("ROLLBACK TO one").await?;
                None
            }
            Err(error) => return Err(error),
        };
        let Some(row) = row else {
            let reason = connection.client.query(&connection.classify, &[item, user, key]).await?;
            if self.group == 0 {
                connection.client.batch_execute("ROLLBACK").await?;
            }
            let reason = orders::reason_from(reason.first(), wanted)?;
            return reason.ok_or(StoreError::PoolExhausted);
        };
        let order = orders::order_from(&row)?;
        self.group += 1;
        self.uncommitted.add(order.id);
        Ok(Reservation::Held(order))
    }

    async fn commit(&mut self) {
        if self.group == 0 {
            return;
        }
        let committed = match &self.connection {
            None => false,
            Some(connection) => {
                let committing = connection.client.batch_execute("COMMIT");
                matches!(timeout(self.store.limits().query, committing).await, Ok(Ok(())))
            }
        };
        if committed {
            self.group = 0;
            self.uncommitted.clear();
        } else {
            self.give_up();
        }
    }

    /// Closes the connection, and with it the open transaction: its orders are gone.
    fn give_up(&mut self) {
        if self.group > 0 {
            tracing::warn!(orders = self.group, "acknowledged orders were lost with their transaction");
        }
        self.connection = None;
        self.group = 0;
        self.uncommitted.clear();
    }
}

async fn connect(store: &Store) -> Result<Connection, StoreError> {
    let client = store.connect().await?;
    let reserve = client.prepare(RESERVE).await?;
    let classify = client.prepare(orders::CLASSIFY).await?;
    Ok(Connection { client, reserve, classify })
}
