//! Keys that name nobody: whatever a sender calls somebody by, no address and no phone number becomes one. Keys stand in the
//! log, in the store and in what operators are shown, for longer than a body does.

use sha2::{Digest as _, Sha256};
use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, Key};

/// The fewest digits of a phone number.
const FEWEST_DIGITS: usize = 6;

/// The key with this text, or with its digest where it is an address or a phone number.
pub(super) fn key(text: &str) -> Key {
    if text.contains('@') {
        address(text)
    } else if is_phone(text) {
        phone(text)
    } else {
        Key::new(text)
    }
}

/// The key of a mail's recipient: one in whatever case it is written.
pub(super) fn address(text: &str) -> Key {
    address_key(AddressDigest::of(text))
}

/// The key of a message's recipient: one however the number is grouped.
pub(super) fn phone(text: &str) -> Key {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = if digits.is_empty() { text.to_owned() } else { digits };
    let hex: String = Sha256::digest(digits.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Key::new(format!("phone:{hex}"))
}

/// Digits, and what stands between them in phone numbers. A plain number is one, too: it is as good a key by its digest.
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
