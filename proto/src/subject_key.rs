//! Keys without personal data. An address or a phone number never becomes a key, whatever field a sender puts it in.
//! Keys are stored in the log and in the store and are shown to operators, for longer than a body is kept.

use sha2::{Digest as _, Sha256};

use crate::unsubscribe::address_key;
use crate::{AddressDigest, Key};

/// Minimum number of digits of a phone number.
const FEWEST_DIGITS: usize = 6;

/// Returns the key with this text, or with its digest if the text is an address or a phone number.
pub fn key(text: &str) -> Key {
    if text.contains('@') {
        address(text)
    } else if is_phone(text) {
        phone(text)
    } else {
        Key::new(text)
    }
}

/// Returns the key of a mail's recipient. It is the same for every spelling of the address.
pub fn address(text: &str) -> Key {
    address_key(AddressDigest::of(text))
}

/// Returns the key of a text message's recipient. It is the same for every grouping of the digits.
pub fn phone(text: &str) -> Key {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = if digits.is_empty() { text.to_owned() } else { digits };
    Key::new(format!("phone:{}", hex::encode(Sha256::digest(digits.as_bytes()))))
}

/// True if the text consists of digits and the separators of phone numbers. That includes plain numbers, whose digest
/// is an equally good key.
fn is_phone(text: &str) -> bool {
    let between = |c: char| c.is_whitespace() || matches!(c, '+' | '-' | '.' | '/' | '(' | ')');
    text.chars().filter(char::is_ascii_digit).count() >= FEWEST_DIGITS
        && text.chars().all(|c| c.is_ascii_digit() || between(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_has_one_key_however_it_is_written() {
        assert_eq!(key("Dana@Work.test"), key(" dana@work.TEST "));
        assert_ne!(key("dana@work.test"), key("dana@work.tes"));
        assert_eq!(key("+1 (555) 010-0100"), key("+15550100100"));
        assert_ne!(key("+15550100100"), key("+15550100101"));
        assert!(key("+15550100100").as_str().starts_with("phone:"));
        for text in ["user_37f2Qe0Zc8VhT1nXaB4LkYwPdRs", "msg_1", "2026", "6b0c3c1e-0000-4000-8000-000000000000"] {
            assert_eq!(key(text).as_str(), text);
        }
    }
}
