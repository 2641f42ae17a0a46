//! Addresses that mail goes to: how one is read, and the digest that stands for it where the address itself must not be
//! kept.

use std::fmt;
use std::str::FromStr;

use idna::AsciiDenyList;
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
        let between = |c: char| matches!(c, '@' | '<' | '>' | ',' | ';');
        let odd = |c: char| c.is_whitespace() || c.is_control() || between(c);
        let good = match quoted(local) {
            // RFC 5321, 4.1.2: a quoted local part may have spaces. One with what separates addresses in it could be
            // read as two by others, quoted or not.
            Some(content) => !content.contains(|c: char| c.is_control() || between(c)),
            None => !local.is_empty() && !local.contains(|c: char| odd(c) || c == '"'),
        };
        if !good || domain.is_empty() || domain.contains(odd) {
            return Err(NotAnAddress);
        }
        let name = name.trim();
        // What ends a line of a mail's head begins another one; no name has such a thing in it.
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

/// A text in one line: what ends a line of a mail's head would begin another one, of somebody else's choice. Names and
/// subjects come from people, and are worth less than the mail that they stand in.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if ends_line(c) { ' ' } else { c }).collect()
}

/// True if a character ends a line, or is another control character.
fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The meaning of a quoted local part, without quotes and backslashes; none where it is not quoted, or not well.
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

/// The one spelling of all spellings of an address, for comparing and for digests: the domain in lower case and as
/// A-labels (RFC 5890), the local part without quotes that mean nothing (RFC 5321, 4.1.2) and in lower case, for no
/// server in use tells two people apart by case. Of an address in lower-case ASCII it is the address itself.
pub fn normal_form(address: &str) -> String {
    let address = address.trim();
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_lowercase() };
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase());
    let local = quoted(local).unwrap_or_else(|| local.to_owned()).to_lowercase();
    format!("{local}@{domain}")
}

/// The local part of an address, in the form in which addresses are compared.
pub fn local_part(address: &str) -> Option<String> {
    normal_form(address).rsplit_once('@').map(|(local, _)| local.to_owned())
}

impl Mailbox {
    /// The same mailbox with a domain of ASCII letters, as A-labels (RFC 5890): RFC 6531, 3.2, wants them where a
    /// server does not take others. The local part stays as it is: only its own server may change it.
    ///
    /// # Errors
    ///
    /// The domain is none that IDNA knows.
    pub fn with_ascii_domain(mut self) -> Result<Self, NotAnAddress> {
        let (local, domain) = self.address.rsplit_once('@').ok_or(NotAnAddress)?;
        if !domain.is_ascii() {
            let domain = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3).map_err(|_| NotAnAddress)?;
            self.address = format!("{local}@{domain}");
        }
        Ok(self)
    }

    /// The same mailbox with a local part as SMTP has it (RFC 5321, 4.1.2): quoted where it has dots in places where
    /// they may not stand bare, as addresses of some mobile providers do. It means the same.
    #[must_use]
    pub fn with_smtp_local_part(mut self) -> Self {
        let Some((local, domain)) = self.address.rsplit_once('@') else { return self };
        if quoted(local).is_none() && local.split('.').any(str::is_empty) {
            self.address = format!("\"{}\"@{domain}", local.replace('\\', "\\\\").replace('"', "\\\""));
        }
        self
    }

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

/// Stands for an address where that must not be kept: the SHA-256 of its one spelling ([`normal_form`]). Not keyed, so
/// that a list outlives every secret, and can be compared with that of another sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressDigest([u8; 32]);

impl AddressDigest {
    /// The digest of an address, the same for all of its spellings.
    pub fn of(address: &str) -> Self {
        Self(Sha256::digest(normal_form(address).as_bytes()).into())
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
            "a\n@b.test",
            "\"a@b.test",
            "\"a\"b\"@c.test",
            "\"a\\\"@c.test",
            "\"a@b.test, c\"@d.test",
            "\"a\n\"@b.test",
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
        ] {
            assert_eq!(AddressDigest::of(text), digest, "{text}");
        }
        assert_ne!(AddressDigest::of("dana@munchen.test"), digest);
        // As it was before there was a normal form.
        for text in ["dana@work.test", "a..b.@docomo.test", "a+b@xn--mnchen-3ya.test", "no address"] {
            let plain: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            assert_eq!(AddressDigest::of(text), AddressDigest::from_bytes(plain), "{text}");
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
