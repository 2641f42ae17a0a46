//! The unsubscribe link of a marketing mail. Its token identifies the recipient and is signed, so that nobody can
//! create a link for another person. It contains no address, so it does not disclose one.
//!
//! Sources: RFC 8058 (one click), RFC 2369 (the header). A token never expires: people click links in mails that are
//! years old, laws require links to work for weeks at least, and a stolen token can only stop mail.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::address::AddressDigest;
use crate::{Instance, Key, Source, SubjectId};

/// The environment variable that holds the secrets.
pub const SECRETS: &str = "USHER_UNSUBSCRIBE_SECRET";
/// The path of the links, without the token.
pub const PATH: &str = "/unsubscribe";
/// The header that gives a mail program the link.
pub const LIST_UNSUBSCRIBE: &str = "List-Unsubscribe";
/// The header that announces that a single `POST` to the link unsubscribes, and the body of that `POST`.
pub const LIST_UNSUBSCRIBE_POST: (&str, &str) = ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click");

/// Prefix of the signed content, so that a signature for another purpose with the same secret is not valid here.
const PURPOSE: &[u8] = b"usher/unsubscribe/1\n";
/// Precedes the list in a token that contains a full subject after the list; no list name begins with this byte.
/// Links in older mails contain a key of the default instance instead and must keep working for as long as people
/// keep those mails.
const WITH_SUBJECT: u8 = b':';
/// Minimum length of a secret, in characters.
const SHORTEST_SECRET: usize = 32;
/// Maximum length of a token, in bytes. Longer tokens were not issued here, because a longer key is not put into one.
const LONGEST_TOKEN: usize = 1024;
/// Maximum length of a key in a token, in bytes.
const LONGEST_KEY: usize = 256;
/// Maximum length of a list name, in bytes.
const LONGEST_LIST: usize = 64;

/// The recipient and the list of an unsubscribe link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The subject that unsubscribes, so that the event is processed in order with the other events of this person.
    /// Mail of the subject's instance is stopped.
    pub subject: SubjectId,
    /// The name of the list.
    pub list: String,
    /// Digest of the address.
    pub address: AddressDigest,
}

impl Unsubscribe {
    /// Creates the content of a link for the mail that a run of `subject` sends to `address`. A key that is an address
    /// itself, or too long for a link, is replaced by a key made of the digest.
    pub fn new(subject: &SubjectId, list: &str, address: AddressDigest) -> Self {
        let fits = subject.key().len() <= LONGEST_KEY && !subject.key().contains('@');
        let subject = if fits { subject.clone() } else { subject.with_key(&address_key(address)) };
        Self { subject, list: list.to_owned(), address }
    }
}

/// Returns the key of events that concern an address whose owner is not known.
pub fn address_key(address: AddressDigest) -> Key {
    Key::new(format!("address:{address}"))
}

/// Returns the address of a key that [`address_key`] has made; `None` for any other key.
pub fn address_of_key(key: &str) -> Option<AddressDigest> {
    key.strip_prefix("address:")?.parse().ok()
}

/// True if a list may have this name. List names are used in flow files, in links and in a table.
pub fn is_list_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=LONGEST_LIST).contains(&name.len()) && name.bytes().all(valid) && name != crate::suppression::ALL_LISTS
}

/// The secrets that sign unsubscribe links. `Debug` does not print them.
#[derive(Clone)]
pub struct UnsubscribeSecrets {
    /// The first secret signs, and all secrets verify. Never empty.
    keyed: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for UnsubscribeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsubscribeSecrets(..)")
    }
}

/// The text contains no secret, or a weak one. The error does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "each secret has at least {SHORTEST_SECRET} characters, such as `openssl rand -hex 32` makes; several are separated by \
     spaces, the first signs"
)]
pub struct WeakSecret;

impl UnsubscribeSecrets {
    /// Parses one or more secrets, separated by spaces.
    ///
    /// # Errors
    ///
    /// The text contains no secret, or a secret with fewer than 32 characters.
    pub fn parse(text: &str) -> Result<Self, WeakSecret> {
        let keyed = |secret: &str| {
            let long = secret.chars().count() >= SHORTEST_SECRET;
            // HMAC accepts keys of any length; the error exists for other constructions.
            if long { Hmac::new_from_slice(secret.as_bytes()).map_err(|_| WeakSecret) } else { Err(WeakSecret) }
        };
        let keyed: Vec<_> = text.split_whitespace().map(keyed).collect::<Result<_, _>>()?;
        if keyed.is_empty() { Err(WeakSecret) } else { Ok(Self { keyed }) }
    }

    /// Returns the token of a link. Equal links always have equal tokens.
    pub fn sign(&self, link: &Unsubscribe) -> String {
        let mut content = link.address.as_bytes().to_vec();
        content.push(WITH_SUBJECT);
        content.extend_from_slice(link.list.as_bytes());
        content.push(b'\n');
        content.extend_from_slice(link.subject.as_str().as_bytes());
        let signature = self.keyed.first().map(|keyed| digest(keyed, &content)).unwrap_or_default();
        format!("{}.{}", URL_SAFE_NO_PAD.encode(content), URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the content of a token. `None` if none of the secrets signed it, or if it cannot be read. The comparison
    /// takes the same time regardless of which bytes differ.
    pub fn verify(&self, token: &str) -> Option<Unsubscribe> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let (content, signature) = token.split_once('.')?;
        let content = URL_SAFE_NO_PAD.decode(content).ok()?;
        let signature: [u8; 32] = URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
        let matches = |matched: Choice, keyed| matched | digest(keyed, &content).ct_eq(&signature);
        if !bool::from(self.keyed.iter().fold(Choice::from(0), matches)) {
            return None;
        }
        let (address, rest) = content.split_first_chunk::<32>()?;
        let (list, rest) = std::str::from_utf8(rest).ok()?.split_once('\n')?;
        let (list, subject) = match list.strip_prefix(char::from(WITH_SUBJECT)) {
            Some(list) => (list, rest.parse().ok()?),
            None => (list, SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(rest))),
        };
        Some(Unsubscribe { subject, list: list.to_owned(), address: AddressDigest::from_bytes(*address) })
    }
}

fn digest(keyed: &Hmac<Sha256>, content: &[u8]) -> [u8; 32] {
    let mut mac = keyed.clone();
    mac.update(PURPOSE);
    mac.update(content);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn secrets(text: &str) -> UnsubscribeSecrets {
        UnsubscribeSecrets::parse(text).expect("good secrets")
    }

    fn subject(key: &str) -> SubjectId {
        SubjectId::new(Source::Clerk, &"staging".parse().expect("a name"), &Key::new(key))
    }

    fn link(key: &str) -> Unsubscribe {
        Unsubscribe::new(&subject(key), "news", AddressDigest::of("dana@work.test"))
    }

    #[test]
    fn a_token_reads_back_and_is_the_same_each_time() {
        let token = secrets(OLD).sign(&link("user_1"));
        assert_eq!(token, secrets(OLD).sign(&link("user_1")));
        assert_eq!(secrets(OLD).verify(&token), Some(link("user_1")));
        assert!(
            token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
            "it stands in a path: {token}"
        );
    }

    #[test]
    fn a_link_of_an_earlier_version_still_works() {
        let keyed = Hmac::<Sha256>::new_from_slice(OLD.as_bytes()).expect("any length");
        let content = [AddressDigest::of("dana@work.test").as_bytes().as_slice(), b"news\nuser_1"].concat();
        let signature = URL_SAFE_NO_PAD.encode(digest(&keyed, &content));
        let token = format!("{}.{signature}", URL_SAFE_NO_PAD.encode(content));
        let found = secrets(OLD).verify(&token).expect("it is ours");
        assert_eq!(found.subject, SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")));
        assert_eq!(found.list, "news");
    }

    #[test]
    fn a_token_that_was_changed_or_signed_by_others_says_nothing() {
        let token = secrets(OLD).sign(&link("user_1"));
        let (content, signature) = token.split_once('.').expect("two parts");
        let other = secrets(OLD).sign(&link("user_2"));
        let (other, _) = other.split_once('.').expect("two parts");
        let long = "a".repeat(5000);
        for bad in
            ["", ".", content, &format!("{other}.{signature}"), &format!("{content}."), &format!("{token}A"), &long]
        {
            assert_eq!(secrets(OLD).verify(bad), None, "{bad}");
        }
        assert_eq!(secrets(NEW).verify(&token), None);
    }

    #[test]
    fn the_first_secret_signs_and_all_of_them_verify() {
        let old = secrets(OLD);
        let both = secrets(&format!("{NEW} {OLD}"));
        assert_eq!(both.verify(&old.sign(&link("user_1"))), Some(link("user_1")));
        assert_eq!(old.verify(&both.sign(&link("user_1"))), None);
        for weak in ["", " ", "short", &format!("{NEW} short")] {
            assert!(UnsubscribeSecrets::parse(weak).is_err(), "{weak}");
        }
    }

    #[test]
    fn no_address_and_nothing_long_goes_into_a_link() {
        for key in ["dana@work.test", &"k".repeat(300)] {
            let digest = address_key(AddressDigest::of("dana@work.test"));
            assert_eq!(link(key).subject, subject(digest.as_str()));
            assert!(secrets(OLD).sign(&link(key)).len() < LONGEST_TOKEN);
        }
        assert!(secrets(OLD).sign(&link(&"k".repeat(LONGEST_KEY))).len() < LONGEST_TOKEN);
    }

    #[test]
    fn a_list_has_a_plain_name() {
        assert!(is_list_name("news") && is_list_name("product-news_2"));
        for bad in ["", "all", "News", "a b", "a\nb", &"n".repeat(65)] {
            assert!(!is_list_name(bad), "{bad:?}");
        }
    }
}
