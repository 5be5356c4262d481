//! What the sessions of a database wait for, asked 20 times a second, and the second in which most were at work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::stack::database::{Database, OWN_NAME};

const EVERY: Duration = Duration::from_millis(50);
/// Looks of one second.
const WINDOW: usize = 20;

/// Sessions at work by what they wait for.
type Look = BTreeMap<String, u32>;

/// What was seen.
#[derive(Debug, Default)]
pub struct Waits {
    looks: VecDeque<Look>,
    most: u32,
    busiest: Look,
}

impl Waits {
    fn note(&mut self, look: Look) {
        self.looks.push_back(look);
        if self.looks.len() > WINDOW {
            self.looks.pop_front();
        }
        let mut sums = Look::new();
        for (class, sessions) in self.looks.iter().flatten() {
            *sums.entry(class.clone()).or_default() += sessions;
        }
        let all = sums.values().sum();
        if self.looks.len() == WINDOW && all > self.most {
            (self.most, self.busiest) = (all, sums);
        }
    }

    /// The second in which most sessions were at work: how many in the mean, by what they waited for.
    pub fn busiest(&self) -> BTreeMap<String, f64> {
        self.busiest.iter().map(|(class, sum)| (class.clone(), f64::from(*sum) / WINDOW as f64)).collect()
    }
}

/// Asks until it is told to stop. A database that cannot be asked, because it is dead for instance, is asked again later.
pub async fn keep_asking(database: Database, seen: Arc<Mutex<Waits>>, stop: CancellationToken) {
    // Sessions that hold the hot row while their client does something else are waited for, too, and so are at work.
    let sql = format!(
        "SELECT coalesce(string_agg(kind || ' ' || n, ','), '') FROM (SELECT CASE \
         WHEN state LIKE 'idle in transaction%' THEN 'client' \
         WHEN wait_event_type IS NULL THEN 'cpu' \
         WHEN wait_event_type = 'Lock' THEN 'lock' \
         WHEN wait_event LIKE 'WAL%' THEN 'wal' \
         WHEN wait_event_type = 'Client' THEN 'client' \
         WHEN wait_event_type = 'IPC' THEN 'ipc' \
         WHEN wait_event_type = 'IO' THEN 'io' \
         ELSE 'latch' END AS kind, count(*) AS n FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND state <> 'idle' AND application_name <> '{OWN_NAME}' \
         GROUP BY 1) AS waits"
    );
    let mut session = None;
    while !stop.is_cancelled() {
        let asked = async {
            let session = match session.take() {
                Some(session) => session,
                None => database.connect().await.ok()?,
            };
            let said = session.value(&sql).await.ok()?;
            Some((session, said))
        };
        let wait = match tokio::time::timeout(Duration::from_secs(1), asked).await.ok().flatten() {
            Some((again, said)) => {
                session = Some(again);
                seen.lock().unwrap_or_else(PoisonError::into_inner).note(parse(&said));
                EVERY
            }
            None => EVERY * 10,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// `lock 12,cpu 2`.
fn parse(said: &str) -> Look {
    said.split(',')
        .filter_map(|part| part.split_once(' '))
        .filter_map(|(kind, n)| Some((kind.into(), n.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_in_which_most_were_at_work_is_kept() {
        let mut waits = Waits::default();
        for n in 0..100 {
            waits.note(parse(if (40..60).contains(&n) { "lock 30,cpu 2" } else { "cpu 1" }));
        }
        assert_eq!(waits.busiest(), BTreeMap::from([("cpu".to_owned(), 2.0), ("lock".to_owned(), 30.0)]));
        waits.note(parse(""));
        assert_eq!(waits.looks.len(), WINDOW);
        assert_eq!(parse("").len(), 0);
    }
}
