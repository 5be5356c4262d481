//! Single-use tokens for whoever has answered a challenge. One opens one purchase: its retries under the same idempotency
//! key, and nothing else.
//!
//! Which tokens are spent is known to this process alone, and so tokens end with it: they are signed with a secret that it
//! has drawn itself. A token from before a restart is refused, and never spent twice. A rehearsal has no puzzles, as it has
//! no passwords: whoever answers has answered right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Spent tokens that are remembered. A sale that needs more is larger than a rehearsal, and further orders are put off.
const MOST_SPENT: usize = 1 << 20;

/// Poses challenges, and knows which tokens are spent.
pub struct Challenges {
    mac: Hmac<Sha256>,
    posed: AtomicU64,
    /// By the number of the challenge, the key of the purchase that the token opened.
    spent: Mutex<HashMap<u64, String>>,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It was not issued to this user by this process.
    #[error("the token is not one that was issued to this user")]
    Unknown,
    /// Another purchase has used it.
    #[error("the token has opened another purchase")]
    Spent,
    /// There is no room to remember one more.
    #[error("too many tokens were spent")]
    Full,
}

impl Challenges {
    /// Challenges under this secret, which no other process may know.
    pub fn new(secret: &[u8]) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any size");
        Self { mac, posed: AtomicU64::new(0), spent: Mutex::default() }
    }

    /// A challenge for the user, by its id.
    pub fn pose(&self, user: &str) -> String {
        let number = self.posed.fetch_add(1, Ordering::Relaxed);
        self.signed("challenge", number, user)
    }

    /// The token for an answered challenge; none if it was not posed to this user.
    pub fn answer(&self, user: &str, challenge: &str) -> Option<String> {
        let number = self.number("challenge", user, challenge)?;
        Some(self.signed("token", number, user))
    }

    /// Lets the token open the purchase with this key.
    ///
    /// # Errors
    /// It opens nothing, or has opened another one.
    pub fn spend(&self, user: &str, token: &str, key: &str) -> Result<(), Unopened> {
        let number = self.number("token", user, token).ok_or(Unopened::Unknown)?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        match spent.get(&number) {
            Some(opened) if opened == key => Ok(()),
            Some(_) => Err(Unopened::Spent),
            None if spent.len() >= MOST_SPENT => Err(Unopened::Full),
            None => {
                spent.insert(number, key.to_owned());
                Ok(())
            }
        }
    }

    fn tag(&self, what: &str, number: u64, user: &str) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(format!("{what}.{number}.{user}").as_bytes());
        mac
    }

    fn signed(&self, what: &str, number: u64, user: &str) -> String {
        format!("{number}.{}", BASE64.encode(self.tag(what, number, user).finalize().into_bytes()))
    }

    fn number(&self, what: &str, user: &str, text: &str) -> Option<u64> {
        let (number, tag) = text.split_once('.')?;
        let number = number.parse().ok()?;
        self.tag(what, number, user).verify_slice(&BASE64.decode(tag).ok()?).ok()?;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(challenges: &Challenges, user: &str) -> String {
        challenges.answer(user, &challenges.pose(user)).unwrap()
    }

    #[test]
    fn a_token_opens_one_purchase_of_its_owner() {
        let challenges = Challenges::new(b"secret");
        let (first, second) = (token(&challenges, "u1"), token(&challenges, "u1"));
        assert_eq!(challenges.spend("u2", &first, "k1"), Err(Unopened::Unknown));
        assert_eq!(challenges.spend("u1", &first, "k1"), Ok(()));
        assert_eq!(challenges.spend("u1", &first, "k1"), Ok(()), "a retry is the same purchase");
        assert_eq!(challenges.spend("u1", &first, "k2"), Err(Unopened::Spent));
        assert_eq!(challenges.spend("u1", &second, "k2"), Ok(()));
    }

    #[test]
    fn what_another_process_or_nobody_has_signed_is_refused() {
        let (before, after) = (Challenges::new(b"before"), Challenges::new(b"after"));
        let old = token(&before, "u1");
        assert_eq!(after.spend("u1", &old, "k1"), Err(Unopened::Unknown));
        let challenge = after.pose("u1");
        assert_eq!(after.answer("u2", &challenge), None);
        for forged in ["", "0", "0.", "0.AAAA", &challenge] {
            assert_eq!(after.spend("u1", forged, "k1"), Err(Unopened::Unknown), "{forged}");
        }
    }
}
