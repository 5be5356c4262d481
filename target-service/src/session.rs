//! Sessions without a session store: a token is the user's name and a MAC over it.
//!
//! Any process that knows the secret accepts the token, so a restart logs nobody out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: &str = "v1";
const MAX_USER_BYTES: usize = 128;

/// Signs and verifies session tokens.
#[derive(Clone)]
pub struct Sessions {
    mac: Hmac<Sha256>,
}

/// Why a user name is not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a user is 1 to {MAX_USER_BYTES} bytes of text without control characters")]
pub struct BadUser;

impl Sessions {
    /// Sessions under this secret, of any length.
    pub fn new(secret: &[u8]) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any size");
        Self { mac }
    }

    /// A token for the user.
    pub fn open(&self, user: &str) -> Result<String, BadUser> {
        if user.is_empty() || user.len() > MAX_USER_BYTES || user.chars().any(char::is_control) {
            return Err(BadUser);
        }
        let mut mac = self.mac.clone();
        mac.update(user.as_bytes());
        let tag = mac.finalize().into_bytes();
        Ok(format!("{VERSION}.{}.{}", BASE64.encode(user), BASE64.encode(tag)))
    }

    /// The user that a token was issued to, or nothing when it was not issued by us.
    pub fn user_of(&self, token: &str) -> Option<String> {
        let mut parts = token.split('.');
        let (version, user, tag) = (parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let user = BASE64.decode(user).ok()?;
        let tag = BASE64.decode(tag).ok()?;
        let mut mac = self.mac.clone();
        mac.update(&user);
        mac.verify_slice(&tag).ok()?;
        String::from_utf8(user).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_user_across_restarts() {
        let token = Sessions::new(b"secret").open("买家-1").unwrap();
        assert_eq!(Sessions::new(b"secret").user_of(&token).as_deref(), Some("买家-1"));
    }

    #[test]
    fn foreign_and_damaged_tokens_are_refused() {
        let sessions = Sessions::new(b"secret");
        let token = sessions.open("u1").unwrap();
        assert_eq!(Sessions::new(b"other").user_of(&token), None);
        let forged = token.replace(&BASE64.encode("u1"), &BASE64.encode("u2"));
        assert_eq!(sessions.user_of(&forged), None);
        for text in ["", "v1", "v1..", "v2.dTE.AAAA", "a.b.c.d"] {
            assert_eq!(sessions.user_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_user_needs_a_name() {
        let sessions = Sessions::new(b"secret");
        assert_eq!(sessions.open(""), Err(BadUser));
        assert_eq!(sessions.open("a\nb"), Err(BadUser));
        assert_eq!(sessions.open(&"x".repeat(129)), Err(BadUser));
    }
}
