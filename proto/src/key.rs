//! The key of an event: the user or object that it concerns. Events with the same key are processed in order.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Longest key that is used unchanged, in bytes. Senders document no limit for their ids, but databases limit the size
/// of indexed values.
const MAX_KEY: usize = 512;

/// A user id if there is one, else an organization id, else the id of the object itself. The text is opaque.
///
/// Every key can be stored and indexed. A key that is empty, longer than 512 bytes or contains control characters is
/// replaced by its SHA-256. The digest is the same in every process, so the events of such a key stay in order.
///
/// A key may contain an address, so `Debug` hides it. A code that is sent before the account exists, for example, is
/// keyed by its recipient. Show a key only to operators, never in logs or metrics.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Creates a key from a text, or from its digest if the text cannot be stored unchanged.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        if (1..=MAX_KEY).contains(&text.len()) && !text.contains(char::is_control) {
            return Self(text);
        }
        Self(format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))))
    }

    /// The text that is written to the log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_stored_and_stays_the_same_key() {
        for plain in ["user_1", "org_1", "é", &"x".repeat(MAX_KEY)] {
            assert_eq!(Key::new(plain).as_str(), plain);
        }
        for odd in ["", "a\0b", "a\nb", "\u{9b}1m", &"x".repeat(MAX_KEY + 1), &"x".repeat(1_000_000)] {
            let key = Key::new(odd);
            assert!(key.as_str().starts_with("sha256:") && key.as_str().len() == 71, "{:?}", key.as_str());
            assert_eq!(Key::new(odd), key);
            assert_eq!(Key::new(key.as_str()), key, "it is not digested twice");
        }
        assert_ne!(Key::new("a\0b"), Key::new("a\0c"));
    }
}
