//! Addresses that mail goes to: how one is read, and the digest that stands for it where the address itself must not be
//! kept.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Whom a mail goes to, as it is written in its head: `dana@work.test` or `Dana <dana@work.test>`. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The name before the address; empty if there is none.
    pub name: String,
    /// The address.
    pub address: String,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox(..)")
    }
}

/// The text is no address. It is not repeated, for it may hold one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no address such as \"dana@work.test\" or \"Dana <dana@work.test>\"")]
pub struct NotAnAddress;

impl FromStr for Mailbox {
    type Err = NotAnAddress;

    /// One address, and nothing else: what could be read as two would be judged by one of them and sent to both.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>') {
            Some(named) => named.rsplit_once('<').ok_or(NotAnAddress)?,
            None => ("", text),
        };
        let (local, domain) = address.split_once('@').ok_or(NotAnAddress)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';');
        if local.is_empty() || domain.is_empty() || local.contains(odd) || domain.contains(odd) {
            return Err(NotAnAddress);
        }
        let name = name.trim();
        // What ends a line of a mail's head begins another one; no name has such a thing in it.
        if name.contains(|c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err(NotAnAddress);
        }
        let name = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => name.to_owned(),
        };
        Ok(Self { name, address: address.to_owned() })
    }
}

impl Mailbox {
    /// As it stands in the head of a mail. A name that could be read as something else, a second address say, is quoted:
    /// names come from people.
    pub fn to_text(&self) -> String {
        let name: String = self.name.chars().filter(|c| !c.is_control()).collect();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '\'');
        if name.is_empty() {
            self.address.clone()
        } else if name.chars().all(plain) {
            format!("{name} <{}>", self.address)
        } else {
            format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address)
        }
    }
}

/// Stands for an address where that must not be kept: the SHA-256 of it in lower case. Not keyed, so that a list outlives
/// every secret, and can be compared with that of another sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressDigest([u8; 32]);

impl AddressDigest {
    /// The digest of an address, in whatever case it is written.
    pub fn of(address: &str) -> Self {
        Self(Sha256::digest(address.trim().to_lowercase().as_bytes()).into())
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AddressDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AddressDigest {
    type Err = NotAnAddress;

    /// Reads what `Display` writes: 64 digits in lower case.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
        let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>().ok_or(NotAnAddress)?;
        if rest.is_empty() { bytes.try_into().map(Self).map_err(|_| NotAnAddress) } else { Err(NotAnAddress) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bare_or_has_a_name() {
        let read = |text: &str| text.parse::<Mailbox>().map(|mailbox| (mailbox.name, mailbox.address));
        assert_eq!(read(" a@b.test "), Ok((String::new(), "a@b.test".to_owned())));
        assert_eq!(read("\"B, A\" <a@b.test>"), Ok(("B, A".to_owned(), "a@b.test".to_owned())));
        for text in [
            "",
            "a",
            "@b",
            "a@",
            "a b@c.test",
            "a@b@c",
            "A <a@b.test",
            "a@b.test, c@d.test",
            "A <>",
            "A\r\nBcc: x@y.test <a@b.test>",
            "A\0 <a@b.test>",
            "A\u{85}B <a@b.test>",
            "A\u{2028}B <a@b.test>",
        ] {
            assert_eq!(read(text), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn a_name_is_never_read_as_another_address() {
        let text = |text: &str| text.parse::<Mailbox>().map(|mailbox| mailbox.to_text());
        for whole in
            ["a@b.test", "Zo\u{eb} O'Neil-Smith <a@b.test>", "\"B, A\" <a@b.test>", "\"a \\\"b\\\"\" <a@b.test>"]
        {
            assert_eq!(text(whole).as_deref(), Ok(whole));
        }
        assert_eq!(text("x@y.test, Bob <a@b.test>").as_deref(), Ok("\"x@y.test, Bob\" <a@b.test>"));
        assert_eq!(text("<x@y.test> <a@b.test>").as_deref(), Ok("\"<x@y.test>\" <a@b.test>"));
        assert_eq!(text("\"x\" <x@y.test>, \"y\" <a@b.test>").as_deref(), Ok("\"x\\\" <x@y.test>, \\\"y\" <a@b.test>"));
    }

    #[test]
    fn a_digest_is_of_the_address_in_lower_case_and_reads_back() {
        let digest = AddressDigest::of("Dana@Work.test");
        assert_eq!(digest, AddressDigest::of(" dana@work.test"));
        assert_ne!(digest, AddressDigest::of("dana@work.tes"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66)] {
            assert_eq!(text.parse::<AddressDigest>(), Err(NotAnAddress), "{text}");
        }
    }
}
