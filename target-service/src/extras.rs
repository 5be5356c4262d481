//! What a buyer sees of himself beside an item: nice to have, and never a reason not to sell (P2).
//!
//! It comes from the user-profile dependency within a short time, or is left at what everybody gets (R4, R5).

use std::time::Duration;

use axum::body::Bytes;
use hyper::http::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::dependency::{Call, Dependency};

/// How long a profile may take.
const PATIENCE: Duration = Duration::from_millis(120);
/// One that takes longer than this is shown, and says that the dependency is slow.
pub const SLOW: Duration = Duration::from_millis(80);
/// Requests that may wait for profiles at once: a silent dependency must not hold up more of them.
const AT_ONCE: usize = 64;

/// What is shown to a buyer of himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extras {
    /// His level; 1 for somebody of whom nothing is known.
    pub level: u8,
    /// Coupons that he has.
    pub coupons: u32,
    /// Whether this is what everybody gets, since his own could not be had.
    pub default: bool,
}

/// What everybody gets.
pub const DEFAULT: Extras = Extras { level: 1, coupons: 0, default: true };

#[derive(Deserialize)]
struct Profile {
    user: String,
    level: u8,
    coupons: u32,
}

/// The way to the user-profile dependency.
pub struct Profiles {
    dependency: Dependency,
    waiting: Semaphore,
}

impl Profiles {
    /// Profiles from this dependency.
    pub fn new(dependency: Dependency) -> Self {
        Self { dependency, waiting: Semaphore::new(AT_ONCE) }
    }

    /// Where they come from.
    pub fn dependency(&self) -> &Dependency {
        &self.dependency
    }

    /// Asks for a profile that nobody wants to see, to know how the dependency is.
    pub async fn probe(&self) {
        self.of("probe").await;
    }

    /// What to show to a user, whatever the dependency does.
    pub async fn of(&self, user: &str) -> Extras {
        let Ok(_place) = self.waiting.try_acquire() else { return DEFAULT };
        let path = format!("/profiles/{}", encoded(user));
        let call = Call { method: Method::GET, path: &path, headers: &[], body: Bytes::new() };
        // Any other status than 200 makes sense, and shows no profile.
        let shown = |status, body: &[u8]| match status {
            200 => Some(read(user, body)).filter(|extras| !extras.default),
            _ => Some(DEFAULT),
        };
        match self.dependency.call(call, PATIENCE, shown).await {
            Ok((_, Some(extras))) => extras,
            Ok((status, None)) => {
                tracing::debug!(status, "a profile that makes no sense");
                DEFAULT
            }
            Err(error) => {
                tracing::debug!(%error, "no profile");
                DEFAULT
            }
        }
    }
}

/// Only a profile that makes sense, and is this user's, is shown.
fn read(user: &str, body: &[u8]) -> Extras {
    match serde_json::from_slice::<Profile>(body) {
        Ok(Profile { user: of, level: level @ 1..=10, coupons }) if of == user => {
            Extras { level, coupons, default: false }
        }
        _ => DEFAULT,
    }
}

/// A user's name as a part of a path (RFC 3986 2.3).
fn encoded(user: &str) -> String {
    let mut path = String::with_capacity(user.len());
    for byte in user.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte as char),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::BreakerMeters;
    use crate::switches::{SwitchId, Switches};

    #[test]
    fn what_makes_no_sense_is_not_shown() {
        let good = br#"{"user":"u1","level":3,"coupons":2}"#;
        assert_eq!(read("u1", good), Extras { level: 3, coupons: 2, default: false });
        assert_eq!(read("u2", good), DEFAULT, "somebody else's");
        for garbage in
            ["", "<html>", "{}", r#"{"user":"u1","level":300,"coupons":2}"#, r#"{"user":"u1","level":0,"coupons":0}"#]
        {
            assert_eq!(read("u1", garbage.as_bytes()), DEFAULT, "{garbage}");
        }
        assert_eq!(encoded("买/a b"), "%E4%B9%B0%2Fa%20b");
    }

    #[tokio::test]
    async fn a_dependency_that_is_not_there_costs_nothing_but_its_extras() {
        let (switches, meters) = (Switches::with(&[]), BreakerMeters::default());
        let address = "unix:/nowhere/at/all.sock".parse().unwrap();
        let nowhere = Profiles::new(Dependency::new("profile", address, SLOW, &switches, &meters));
        for _ in 0..20 {
            assert_eq!(nowhere.of("u1").await, DEFAULT);
        }
        assert!(nowhere.dependency().is_cut_off(), "nor is it asked for ever");
        switches.set(SwitchId::L7, false);
        assert_eq!((nowhere.of("u1").await, nowhere.dependency().is_cut_off()), (DEFAULT, false));
    }
}
