//! Planted slow-downs: a service that is right and slower than it was, to show that a regression gate finds it, and where.
//!
//! Like a seeded bug, one is refused without `--allow-seeded-bugs`, and nothing else in the service depends on it. Each costs
//! what its kind says in every order (or page), or in a share of them: `sleep=3ms`, `sleep=3ms@0.01`, `page-sleep=1ms`, `query=1`,
//! `lock=2ms`, `allocate=8MiB`.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::parse_duration;
use crate::inventory::Inventory;
use crate::order::{Reservation, Wanted};
use crate::store::StoreError;
use crate::store::schema::SlowLock;

/// The kinds of slow-downs, with what each does and an example of its size: what `seckill-target catalogue` tells people.
pub const KINDS: [(&str, &str, &str); 5] = [
    ("sleep", "an order waits in the service, which has nothing to do meanwhile", "sleep=3ms"),
    ("page-sleep", "so does a page", "page-sleep=1ms"),
    ("query", "an order asks the database so many times more", "query=1"),
    ("lock", "an order's transaction keeps the item locked for longer; whole milliseconds", "lock=2ms"),
    ("allocate", "an order takes so much memory in small pieces, and gives it back when it is done", "allocate=8MiB"),
];

/// The largest number of statements, and of MiB, that can be planted.
const MOST: u64 = 1_000;
/// The size of one piece of an allocation storm, in bytes.
const PIECE: usize = 256;

/// What an order takes longer by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sleep(Duration),
    PageSleep(Duration),
    Query(u64),
    Lock(Duration),
    Allocate(u64),
}

/// A planted slow-down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    kind: Kind,
    /// One order in so many is slow; every one if it is 1.
    every: u64,
}

impl Slow {
    /// What the database has to be told, if the slow-down is there.
    pub fn lock(self) -> Option<SlowLock> {
        match self.kind {
            Kind::Lock(held) => Some(SlowLock { held, every: self.every }),
            _ => None,
        }
    }
}

impl FromStr for Slow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || {
            let kinds: Vec<String> = KINDS.iter().map(|(_, what, such)| format!("`{such}` ({what})")).collect();
            format!(
                "there is no slow-down `{text}`; accepted: {}; and `@0.01` behind it for one order in 100",
                kinds.join(", ")
            )
        };
        let (what, share) = text.split_once('@').unwrap_or((text, "1"));
        let share: f64 = share.parse().map_err(|_| known())?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(known());
        }
        let (kind, size) = what.split_once('=').ok_or_else(known)?;
        let number = |size: &str| size.parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(known);
        let kind = match kind {
            "sleep" => Kind::Sleep(parse_duration(size)?),
            "page-sleep" => Kind::PageSleep(parse_duration(size)?),
            "query" => Kind::Query(number(size)?),
            "lock" => Kind::Lock(parse_duration(size)?),
            "allocate" => Kind::Allocate(number(size.strip_suffix("MiB").ok_or_else(known)?)?),
            _ => return Err(known()),
        };
        Ok(Self { kind, every: (1.0 / share).round() as u64 })
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Sleep(size) => write!(f, "sleep={size:?}")?,
            Kind::PageSleep(size) => write!(f, "page-sleep={size:?}")?,
            Kind::Query(count) => write!(f, "query={count}")?,
            Kind::Lock(size) => write!(f, "lock={size:?}")?,
            Kind::Allocate(size) => write!(f, "allocate={size}MiB")?,
        }
        if self.every > 1 { write!(f, ", one order in {}", self.every) } else { Ok(()) }
    }
}

/// Orders that are slow.
#[derive(Debug)]
pub struct SlowOrders {
    slow: Slow,
    orders: AtomicU64,
}

impl SlowOrders {
    /// What the slow-down does to orders.
    pub fn of(slow: Slow) -> Self {
        Self { slow, orders: AtomicU64::new(0) }
    }

    /// Reserves with the slow-down before it, or around it, if it is this order's turn.
    ///
    /// # Errors
    /// As the strategy, or the slow-down's own queries fail.
    pub async fn reserve(&self, inventory: &dyn Inventory, wanted: &Wanted) -> Result<Reservation, StoreError> {
        // In turns, since that is a share of every stretch of time, however short.
        let turn = self.orders.fetch_add(1, Ordering::Relaxed);
        let struck = turn.is_multiple_of(self.slow.every);
        let mut pieces = Vec::new();
        match self.slow.kind {
            Kind::Sleep(size) if struck => nap(size).await,
            Kind::Query(count) if struck => {
                let mut lease = inventory.store().lease().await?;
                for _ in 0..count {
                    lease.query("SELECT 1", &[]).await?;
                }
            }
            Kind::Allocate(size) if struck => pieces = storm(size),
            // The database does it, see `schema::prepare`; or the pages.
            Kind::Lock(_) | Kind::PageSleep(_) | Kind::Sleep(_) | Kind::Query(_) | Kind::Allocate(_) => {}
        }
        let reservation = inventory.reserve(wanted).await;
        drop(black_box(pieces));
        reservation
    }
}

/// Pages that are slow.
#[derive(Debug)]
pub struct SlowPages {
    size: Duration,
    every: u64,
    pages: AtomicU64,
}

impl SlowPages {
    /// What the slow-down does to pages, if it does anything.
    pub fn of(slow: Slow) -> Option<Self> {
        match slow.kind {
            Kind::PageSleep(size) => Some(Self { size, every: slow.every, pages: AtomicU64::new(0) }),
            _ => None,
        }
    }

    /// Waits, if it is this page's turn.
    pub async fn wait(&self) {
        if self.pages.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            nap(self.size).await;
        }
    }
}

/// The runtime's timers know whole milliseconds only; the kernel's are as fine as slow-downs have to be.
async fn nap(size: Duration) {
    let _ = tokio::task::spawn_blocking(move || std::thread::sleep(size)).await;
}

/// So many MiB in small pieces, each written to, as a careless decoder makes them.
#[allow(clippy::vec_box, reason = "each piece is to be an allocation of its own")]
fn storm(size: u64) -> Vec<Box<[u8; PIECE]>> {
    let pieces = (size << 20) / PIECE as u64;
    (0..pieces).map(|n| black_box(Box::new([n as u8; PIECE]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_downs_are_read_as_they_are_written() {
        let slow = |text: &str| text.parse::<Slow>();
        assert_eq!(slow("sleep=3ms"), Ok(Slow { kind: Kind::Sleep(Duration::from_millis(3)), every: 1 }));
        assert_eq!(slow("sleep=500us@0.01"), Ok(Slow { kind: Kind::Sleep(Duration::from_micros(500)), every: 100 }));
        assert_eq!(slow("query=2"), Ok(Slow { kind: Kind::Query(2), every: 1 }));
        assert_eq!(slow("allocate=8MiB"), Ok(Slow { kind: Kind::Allocate(8), every: 1 }));
        assert_eq!(slow("lock=1ms").unwrap().lock(), Some(SlowLock { held: Duration::from_millis(1), every: 1 }));
        for text in ["sleep", "sleep=3", "query=0", "query=1001", "allocate=8", "sleep=1ms@0", "sleep=1ms@2", "nap=1ms"]
        {
            assert!(slow(text).is_err(), "{text}");
        }
        assert!(slow("nap=1ms").unwrap_err().contains("sleep=3ms"));
    }

    #[test]
    fn every_kind_of_the_catalogue_can_be_planted() {
        for (kind, _, example) in KINDS {
            assert!(example.starts_with(kind));
            example.parse::<Slow>().unwrap_or_else(|complaint| panic!("{complaint}"));
        }
    }
}
