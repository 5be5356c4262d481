//! Who may not order, whatever is left: buyers who let their holds run out again and again (C4), and accounts that behave like
//! machines. What is known of a buyer is in memory; what they left unpaid is read from the ledger, so it outlives the process.
//!
//! Each rule is a switch, and off by default: it refuses people, too, and what it gets wrong is for a rehearsal to show.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::order::{Refusal, Wanted};
use crate::store::{Store, StoreError};
use crate::switches::{SwitchId, Switches};

/// Orders that were given back unpaid, from which on their buyer counts as one who does not pay (C5).
const UNPAID: u32 = 2;
/// How long after an order was given back unpaid its buyer has to wait before the next one (C7), in microseconds.
pub const COOL_DOWN_US: i64 = 5_000_000;
/// Orders that a buyer may make within [`COOL_DOWN_US`] (C7).
pub const REPEATS: usize = 3;
/// What a buyer may have of an item where there is no cap (C6). Twice as much can still be counted.
pub const NO_CAP: i32 = 1_000_000_000;
/// A login this soon after another may be its copy, and the first one counts (C8), in microseconds.
const COPY_US: i64 = 5_000_000;
/// Nobody who reads a page orders this soon after logging in (C8), in microseconds.
const TOO_QUICK_US: i64 = 100_000;
/// Accounts that a device may log in before all of them look like one farm (C8).
const ACCOUNTS: u32 = 4;
/// Buyers that are remembered at once; of further ones nothing is known, and nothing is held against them.
const MOST: usize = 1_000_000;
/// Entries of the ledger that may be committed later than younger ones: so many are read again each time.
const LOOK_BACK: i64 = 2_000;

/// Units that came back unpaid, by cancel or because the hold ran out.
const UNPAID_SINCE: &str = "SELECT e.seq, e.at_us, o.user_id
                              FROM order_event e JOIN orders o ON o.id = e.order_id
                             WHERE e.seq > $1::bigint AND e.kind = 'release' AND o.state IN ('cancelled', 'expired')
                             ORDER BY e.seq LIMIT 5000";

/// What is known of the buyers.
#[derive(Debug, Default)]
pub struct Abuse {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    buyers: HashMap<String, Buyer>,
    /// Accounts by the device that logged them in.
    devices: HashMap<String, u32>,
    /// The last entry of the ledger that was read, and those that may be read again.
    read_until: i64,
    read: HashSet<i64>,
}

#[derive(Debug, Default)]
struct Buyer {
    logged_in_at: Option<i64>,
    device: Option<String>,
    /// Whether an order once came too soon to be a person's.
    too_quick: bool,
    unpaid: u32,
    unpaid_at: Option<i64>,
    /// The latest orders under keys of their own.
    orders: Vec<(i64, String)>,
}

impl Abuse {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: another sale begins.
    pub fn forget(&self) {
        *self.lock() = Known::default();
    }

    /// A buyer logged in, from a device if it says which.
    pub fn logged_in(&self, user: &str, device: Option<&str>, now: i64) {
        let mut known = self.lock();
        if known.buyers.len() >= MOST && !known.buyers.contains_key(user) {
            return;
        }
        let buyer = known.buyers.entry(user.to_owned()).or_default();
        if buyer.logged_in_at.is_none_or(|at| now - at >= COPY_US) {
            buyer.logged_in_at = Some(now);
        }
        if let (None, Some(device)) = (&buyer.device, device) {
            buyer.device = Some(device.to_owned());
            *known.devices.entry(device.to_owned()).or_default() += 1;
        }
    }

    /// Why a buyer may not order now, by the rules that are switched on. An attempt that no rule objects to counts as made.
    pub fn objection(&self, switches: &Switches, wanted: &Wanted) -> Option<Refusal> {
        let on = |id| switches.is_on(id);
        let (tags, limits, risks) = (on(SwitchId::C5), on(SwitchId::C7), on(SwitchId::C8));
        if !(tags || limits || risks) {
            return None;
        }
        let mut known = self.lock();
        if known.buyers.len() >= MOST && !known.buyers.contains_key(&wanted.user) {
            return None;
        }
        let Known { buyers, devices, .. } = &mut *known;
        let buyer = buyers.entry(wanted.user.clone()).or_default();
        buyer.too_quick |= buyer.logged_in_at.is_some_and(|at| (0..TOO_QUICK_US).contains(&(wanted.now - at)));
        let farmed = buyer.device.as_ref().and_then(|device| devices.get(device)).is_some_and(|n| *n > ACCOUNTS);
        if risks && (buyer.too_quick || farmed) {
            Some(Refusal::Risky)
        } else if tags && buyer.unpaid >= UNPAID {
            Some(Refusal::NonPayer)
        } else if limits && !buyer.may_repeat(wanted) {
            Some(Refusal::CoolingDown)
        } else {
            None
        }
    }

    /// Reads from the ledger what was given back unpaid since the last time.
    pub async fn learn(&self, store: &Store) -> Result<(), StoreError> {
        let since = self.lock().read_until - LOOK_BACK;
        let rows = store.lease().await?.query(UNPAID_SINCE, &[&since]).await?;
        let mut known = self.lock();
        for row in &rows {
            known.unpaid(row.get(0), row.get(1), row.get(2));
        }
        let keep = known.read_until - LOOK_BACK;
        known.read.retain(|seq| *seq > keep);
        Ok(())
    }
}

impl Known {
    fn unpaid(&mut self, seq: i64, at: i64, user: &str) {
        if !self.read.insert(seq) {
            return;
        }
        self.read_until = self.read_until.max(seq);
        if self.buyers.len() >= MOST && !self.buyers.contains_key(user) {
            return;
        }
        let buyer = self.buyers.entry(user.to_owned()).or_default();
        buyer.unpaid += 1;
        buyer.unpaid_at = buyer.unpaid_at.max(Some(at));
    }
}

impl Buyer {
    /// Whether one more order now is neither too many nor too soon. The same key again is the same order.
    fn may_repeat(&mut self, wanted: &Wanted) -> bool {
        if self.orders.iter().any(|(_, key)| *key == wanted.key) {
            return true;
        }
        let since = wanted.now - COOL_DOWN_US;
        self.orders.retain(|(at, _)| *at > since);
        let may = self.orders.len() < REPEATS && self.unpaid_at.is_none_or(|at| at <= since);
        if may {
            self.orders.push((wanted.now, wanted.key.clone()));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SwitchSetting;

    fn with(ids: &[SwitchId]) -> std::sync::Arc<Switches> {
        let settings: Vec<_> = ids.iter().map(|id| SwitchSetting { id: *id, on: true }).collect();
        Switches::with(&settings)
    }

    fn wanted(user: &str, key: &str, now: i64) -> Wanted {
        Wanted { item: 1, user: user.into(), key: key.into(), quantity: 1, now }
    }

    #[test]
    fn who_does_not_pay_is_refused_from_the_second_time_on() {
        let (abuse, on) = (Abuse::default(), with(&[SwitchId::C5]));
        for (seq, expected) in [(1, None), (1, None), (2, Some(Refusal::NonPayer))] {
            abuse.lock().unpaid(seq, 10, "u");
            assert_eq!(abuse.objection(&on, &wanted("u", "k", 20)), expected, "{seq}");
        }
        assert_eq!(abuse.objection(&on, &wanted("v", "k", 20)), None);
        assert_eq!(abuse.objection(&with(&[]), &wanted("u", "k", 20)), None, "switched off");
        abuse.forget();
        assert_eq!(abuse.objection(&on, &wanted("u", "k", 20)), None);
    }

    #[test]
    fn orders_are_limited_in_number_and_by_a_pause_after_one_left_unpaid() {
        let (abuse, on) = (Abuse::default(), with(&[SwitchId::C7]));
        let mut now = 1_000_000_000;
        for n in 0..REPEATS {
            assert_eq!(abuse.objection(&on, &wanted("u", &format!("k{n}"), now)), None);
        }
        assert_eq!(abuse.objection(&on, &wanted("u", "k0", now)), None, "the same order again");
        assert_eq!(abuse.objection(&on, &wanted("u", "more", now)), Some(Refusal::CoolingDown));
        now += COOL_DOWN_US;
        assert_eq!(abuse.objection(&on, &wanted("u", "more", now)), None);
        abuse.lock().unpaid(7, now, "u");
        assert_eq!(abuse.objection(&on, &wanted("u", "next", now + COOL_DOWN_US - 1)), Some(Refusal::CoolingDown));
        assert_eq!(abuse.objection(&on, &wanted("u", "next", now + COOL_DOWN_US)), None);
    }

    #[test]
    fn machines_are_known_by_their_haste_and_by_their_number() {
        let (abuse, on) = (Abuse::default(), with(&[SwitchId::C8]));
        abuse.logged_in("quick", None, 1_000);
        abuse.logged_in("slow", None, 1_000);
        assert_eq!(abuse.objection(&on, &wanted("quick", "k", 2_000)), Some(Refusal::Risky));
        assert_eq!(abuse.objection(&on, &wanted("quick", "k", 9_000_000)), Some(Refusal::Risky), "it stays one");
        assert_eq!(abuse.objection(&on, &wanted("slow", "k", 1_000 + TOO_QUICK_US)), None);
        // The copy of a login that was long on its way makes nobody quicker.
        abuse.logged_in("slow", None, 1_000 + TOO_QUICK_US * 3);
        assert_eq!(abuse.objection(&on, &wanted("slow", "k2", 1_001 + TOO_QUICK_US * 3)), None);
        let farm: Vec<String> = (0..=ACCOUNTS).map(|n| format!("f{n}")).collect();
        for (n, user) in farm.iter().enumerate() {
            assert_eq!(abuse.objection(&on, &wanted("f0", "k", 9_000_000)), None, "{n} accounts are a family");
            abuse.logged_in(user, Some("one"), 0);
            abuse.logged_in(user, Some("one"), 0);
        }
        for user in &farm {
            assert_eq!(abuse.objection(&on, &wanted(user, "k", 9_000_000)), Some(Refusal::Risky), "{user}");
        }
    }
}
