//! Email addresses: parsing, comparison, and the digest that replaces an address where the address itself must
//! not be stored.

use std::fmt;
use std::str::FromStr;

use idna::AsciiDenyList;
use sha2::{Digest as _, Sha256};

/// The recipient of a mail as written in a mail header: `dana@work.test` or `Dana <dana@work.test>`. `Debug` does
/// not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Display name; empty if absent.
    pub name: String,
    /// The address, without angle brackets.
    pub address: String,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox(..)")
    }
}

/// The text is not an address. The error does not repeat the text, which may contain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no address such as \"dana@work.test\" or \"Dana <dana@work.test>\"")]
pub struct NotAnAddress;

impl FromStr for Mailbox {
    type Err = NotAnAddress;

    /// Parses exactly one address. A text that could be read as two addresses is refused: Usher would check one of
    /// them, and the mail would go to both.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>') {
            Some(named) => named.rsplit_once('<').ok_or(NotAnAddress)?,
            None => ("", text),
        };
        let (local, domain) = address.split_once('@').ok_or(NotAnAddress)?;
        let between = |c: char| matches!(c, '@' | '<' | '>' | ',' | ';');
        let odd = |c: char| c.is_whitespace() || c.is_control() || between(c);
        let good = match quoted(local) {
            // RFC 5321, 4.1.2: a quoted local part may contain spaces. Characters that separate addresses are refused
            // even inside quotes, because other software could read the text as two addresses.
            Some(content) => !content.contains(|c: char| c.is_control() || between(c)),
            None => !local.is_empty() && !local.contains(|c: char| odd(c) || c == '"'),
        };
        if !good || domain.contains(odd) {
            return Err(NotAnAddress);
        }
        let mapped = match domain.is_ascii() {
            true => domain.to_owned(),
            false => idna::domain_to_ascii(domain).map_err(|_| NotAnAddress)?,
        };
        // IDNA maps some characters to separators, such as U+FF20 to `@`, and others, such as U+FFA0, to nothing.
        if mapped.contains(odd) || mapped.bytes().all(|byte| byte == b'.') {
            return Err(NotAnAddress);
        }
        let name = name.trim();
        // A line end in a name would start another header of the mail.
        if name.contains(|c: char| c != '\t' && ends_line(c)) {
            return Err(NotAnAddress);
        }
        let name = match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => name.to_owned(),
        };
        Ok(Self { name, address: address.to_owned() })
    }
}

/// Replaces every line end and control character with a space. Names and subjects are written by end users, and a line
/// end in one would start another mail header of their choice. The mail is sent with the changed text.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if ends_line(c) { ' ' } else { c }).collect()
}

/// True if the character ends a line or is another control character.
fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns the content of a quoted local part, without quotes and backslashes. `None` if it is not quoted, or
/// not quoted correctly.
fn quoted(local: &str) -> Option<String> {
    let mut content = String::new();
    let mut letters = local.strip_prefix('"')?.strip_suffix('"')?.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => content.push(letters.next()?),
            '"' => return None,
            other => content.push(other),
        }
    }
    Some(content)
}

/// Returns the canonical spelling of an address, for comparison and for digests. The domain is in lower case
/// and consists of A-labels (RFC 5890). The local part has no redundant quotes (RFC 5321, 4.1.2) and is in
/// lower case, because no server in use distinguishes two people by case. An address in lower-case ASCII is its
/// own canonical spelling.
pub fn normal_form(address: &str) -> String {
    let address = address.trim();
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_lowercase() };
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase());
    // The dot of the root is removed after the mapping, which turns other full stops, such as U+3002, into dots.
    let domain = domain.strip_suffix('.').unwrap_or(&domain);
    let local = quoted(local).unwrap_or_else(|| local.to_owned()).to_lowercase();
    format!("{local}@{domain}")
}

/// Returns the local part of an address in its canonical spelling ([`normal_form`]). `None` if the text has no `@`.
pub fn local_part(address: &str) -> Option<String> {
    normal_form(address).rsplit_once('@').map(|(local, _)| local.to_owned())
}

impl Mailbox {
    /// Returns the mailbox with its domain as A-labels (RFC 5890), which RFC 6531, 3.2, requires if a server does not
    /// accept other domains. The local part is unchanged: only its own server may change it.
    ///
    /// # Errors
    ///
    /// The address has no `@`, or IDNA does not allow its domain.
    pub fn with_ascii_domain(mut self) -> Result<Self, NotAnAddress> {
        let (local, domain) = self.address.rsplit_once('@').ok_or(NotAnAddress)?;
        if !domain.is_ascii() {
            let domain = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3).map_err(|_| NotAnAddress)?;
            self.address = format!("{local}@{domain}");
        }
        Ok(self)
    }

    /// Returns the mailbox with its local part in SMTP syntax (RFC 5321, 4.1.2). The local part is quoted if it has
    /// dots in places where an unquoted one must not have them, as addresses of some mobile providers do. Both forms
    /// mean the same.
    #[must_use]
    pub fn with_smtp_local_part(mut self) -> Self {
        let Some((local, domain)) = self.address.rsplit_once('@') else { return self };
        if quoted(local).is_none() && local.split('.').any(str::is_empty) {
            self.address = format!("\"{}\"@{domain}", local.replace('\\', "\\\\").replace('"', "\\\""));
        }
        self
    }

    /// Formats the mailbox for a mail header. A name that could be read as something else, such as a second address, is
    /// quoted, because names are written by end users. The text reads back as this mailbox, without the line ends and
    /// control characters of its name.
    pub fn to_text(&self) -> String {
        let name: String = self.name.chars().filter(|c| !ends_line(*c)).collect();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '\'');
        if name.is_empty() {
            self.address.clone()
        } else if name.chars().all(plain) && name.trim() == name {
            format!("{name} <{}>", self.address)
        } else {
            format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), self.address)
        }
    }
}

/// SHA-256 of the canonical spelling of an address ([`normal_form`]), used where the address must not be stored. The
/// hash has no key, so a list outlives every secret and can be compared with the list of another sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressDigest([u8; 32]);

impl AddressDigest {
    /// Computes the digest of an address. All spellings of the address have the same digest.
    pub fn of(address: &str) -> Self {
        Self(Sha256::digest(normal_form(address).as_bytes()).into())
    }

    /// Creates a digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AddressDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for AddressDigest {
    type Err = NotAnAddress;

    /// Parses the output of `Display`: 64 hexadecimal digits in lower case.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        // hex accepts digits in upper case, too.
        if text.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(NotAnAddress);
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| NotAnAddress)?;
        Ok(Self(digest))
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
            "a\n@b.test",
            "\"a@b.test",
            "\"a\"b\"@c.test",
            "\"a\\\"@c.test",
            "\"a@b.test, c\"@d.test",
            "\"a\n\"@b.test",
            "a@b.test\u{ff20}c.test",
            "a@b.test\u{ff0c}c.test",
            "a@b.test\u{fe54}c.test",
            "a@\u{ffa0}",
            "a@.",
        ] {
            assert_eq!(read(text), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn a_text_comes_to_be_in_one_line() {
        assert_eq!(one_line("Hi\r\nBcc: x\0\t\u{85}\u{2028}\u{2029}Zo\u{eb}"), "Hi  Bcc: x     Zo\u{eb}");
    }

    #[test]
    fn odd_local_parts_are_addresses_too() {
        for address in ["a..b.@docomo.test", "\"john doe\"@work.test", "\"a\\\"b\"@work.test", ".a@b.test"] {
            for text in [address.to_owned(), format!("Dana <{address}>")] {
                let read: Mailbox = text.parse().expect(address);
                assert_eq!((read.address.as_str(), read.to_text()), (address, text));
            }
        }
        let smtp = |text: &str| text.parse().map(|mailbox: Mailbox| mailbox.with_smtp_local_part().address);
        for (text, written) in [
            ("a..b.@docomo.test", "\"a..b.\"@docomo.test"),
            (".a\\b@c.test", "\".a\\\\b\"@c.test"),
            ("a.b@c.test", "a.b@c.test"),
            ("\"john doe\"@work.test", "\"john doe\"@work.test"),
        ] {
            assert_eq!(smtp(text).as_deref(), Ok(written));
            assert_eq!(AddressDigest::of(text), AddressDigest::of(written), "it means the same");
        }
    }

    #[test]
    fn a_domain_becomes_a_labels_and_nothing_else_changes() {
        let ascii = |text: &str| text.parse::<Mailbox>()?.with_ascii_domain().map(|mailbox| mailbox.to_text());
        for (text, expected) in [
            ("D\u{fc} <D\u{e4}na@M\u{fc}nchen.test>", Ok("D\u{fc} <D\u{e4}na@xn--mnchen-3ya.test>")),
            ("a@b\u{fc}cher\u{3002}test", Ok("a@xn--bcher-kva.test")),
            ("a@Work.test", Ok("a@Work.test")),
            ("a@[192.0.2.1]", Ok("a@[192.0.2.1]")),
            ("a@b\u{ff20}c.test", Err(NotAnAddress)),
            ("a@\u{fc}_.test", Err(NotAnAddress)),
        ] {
            assert_eq!(ascii(text).as_deref(), expected.as_deref(), "{text}");
        }
    }

    #[test]
    fn one_address_has_one_digest_however_it_is_spelled() {
        let digest = AddressDigest::of("dana@xn--mnchen-3ya.test");
        for text in [
            "Dana@XN--MNCHEN-3YA.test",
            "dana@m\u{fc}nchen.test",
            "DANA@M\u{dc}NCHEN.TEST",
            "dana@mu\u{308}nchen.test",
            "dana@m\u{fc}nchen\u{3002}test",
            "\"dana\"@m\u{fc}nchen.test",
            " dana@m\u{fc}nchen.test. ",
            "dana@m\u{fc}nchen.test\u{3002}",
        ] {
            assert_eq!(AddressDigest::of(text), digest, "{text}");
        }
        assert_ne!(AddressDigest::of("dana@munchen.test"), digest);
        // These digests were stored before the normal form existed and must not change.
        for text in ["dana@work.test", "a..b.@docomo.test", "a+b@xn--mnchen-3ya.test", "no address"] {
            let plain: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            assert_eq!(AddressDigest::of(text), AddressDigest::from_bytes(plain), "{text}");
        }
    }

    #[test]
    fn a_name_is_never_read_as_another_address() {
        let text = |text: &str| text.parse::<Mailbox>().map(|mailbox| mailbox.to_text());
        for whole in [
            "a@b.test",
            "Zo\u{eb} O'Neil-Smith <a@b.test>",
            "\"B, A\" <a@b.test>",
            "\"a \\\"b\\\"\" <a@b.test>",
            "\" a \" <a@b.test>",
        ] {
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
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(66), &"A".repeat(64), &"\u{e9}".repeat(32)]
        {
            assert_eq!(text.parse::<AddressDigest>(), Err(NotAnAddress), "{text}");
        }
    }
}
