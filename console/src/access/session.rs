//! The cookie of a visit, and the token of its forms. Neither is stored: every replica can check them, and a restart ends
//! no session.
//!
//! A session is `<end>.<name>.<nonce>.<signature>`: the time in seconds at which it ends, the caller's name in hexadecimal,
//! and a signature whose key is derived from the token that opened it. It ends when that token is replaced. A visit without
//! a login has a random value instead. The token of the forms is derived from the cookie, which no page can read.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use usher_proto::Timestamp;
use usher_service::Secret;

/// Lifetime of a session, in seconds: a working day.
const LIFETIME_SECONDS: i64 = 12 * 3600;
/// Longest name of a caller, in characters.
const LONGEST_NAME: usize = 80;

/// The key that signs the sessions of one token.
pub(crate) struct SessionKey([u8; 32]);

fn sign(key: &[u8], text: &str) -> [u8; 32] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

impl SessionKey {
    /// Returns the key of the sessions that this token opens.
    pub(crate) fn of(token: &Secret) -> Self {
        Self(sign(token.expose().as_bytes(), "usher console session"))
    }

    /// Returns the cookie of a new session.
    pub(crate) fn open(&self, name: &str, now: Timestamp) -> String {
        let end = now.seconds() + LIFETIME_SECONDS;
        let content = format!("{end}.{}.{}", hex::encode(name), new_visit());
        format!("{content}.{}", hex::encode(sign(&self.0, &content)))
    }

    /// Returns the name of the caller whose session this is; `None` if it is not signed with this key, or is over.
    pub(crate) fn read(&self, cookie: &str, now: Timestamp) -> Option<String> {
        let (content, signature) = cookie.rsplit_once('.')?;
        let right = hex::encode(sign(&self.0, content));
        if !bool::from(right.as_bytes().ct_eq(signature.as_bytes())) {
            return None;
        }
        let mut parts = content.split('.');
        let end: i64 = parts.next()?.parse().ok()?;
        let name = String::from_utf8(hex::decode(parts.next()?).ok()?).ok()?;
        (now.seconds() < end).then_some(name)
    }
}

/// Returns a random value that identifies a visit.
pub(crate) fn new_visit() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Returns the token of the forms of a visit.
pub(crate) fn form_token(cookie: &str) -> String {
    hex::encode(sign(cookie.as_bytes(), "usher console form"))
}

/// Returns a name as it is recorded: one line, not empty, of at most 80 characters.
pub(crate) fn clean_name(name: &str) -> Option<String> {
    let name: String =
        name.trim().chars().filter(|c| !usher_proto::visible::is_control(*c)).take(LONGEST_NAME).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn a_session_names_its_caller_until_its_end_and_only_with_its_key() {
        let key = SessionKey::of(&Secret::new("a"));
        let cookie = key.open("Ann. O'Dea", NOW);
        assert_eq!(key.read(&cookie, NOW).as_deref(), Some("Ann. O'Dea"));
        assert_eq!(key.read(&cookie, Timestamp::from_seconds(NOW.seconds() + LIFETIME_SECONDS)), None, "it is over");
        assert_eq!(SessionKey::of(&Secret::new("b")).read(&cookie, NOW), None, "another token");
        let forged = cookie.replacen("1", "2", 1);
        for bad in ["", ".", "..", "x", forged.as_str(), &cookie[1..]] {
            assert_eq!(key.read(bad, NOW), None, "{bad}");
        }
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(clean_name("  Ann\n\u{202e}x "), Some("Annx".to_owned()));
        assert_eq!(clean_name(" \n"), None);
        assert_eq!(clean_name(&"x".repeat(100)).map(|name| name.len()), Some(LONGEST_NAME));
    }
}
