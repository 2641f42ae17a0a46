//! The senders of webhooks.

use std::fmt;
use std::str::FromStr;

/// The sender of an event.
///
/// Its label is used in paths, headers, flow files, tables and metrics. An event of a sender that is no longer
/// configured is still readable: whether a sender is configured is known to `ingest` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Clerk's webhooks, delivered and signed by Svix.
    Clerk,
    /// Resend's webhooks about mail, delivered and signed by Svix.
    Resend,
    /// Stripe's webhooks about customers, subscriptions and payments.
    Stripe,
    /// Nylas' webhooks about the messages of connected mailboxes.
    Nylas,
    /// Usher itself: commands of its operators and unsubscribe requests, which are written to the same log under the
    /// key that they concern.
    Usher,
    /// The events that a scheduled flow makes for itself.
    Schedule,
    /// A sender that signs by Standard Webhooks, under the name that its configuration gives it.
    Sender(SenderName),
}

impl Source {
    /// Every source that has code of its own.
    pub const BUILT_IN: [Self; 6] = [Self::Clerk, Self::Resend, Self::Stripe, Self::Nylas, Self::Usher, Self::Schedule];

    /// The label that is used in paths, headers, flow files and metrics.
    pub fn label(&self) -> &str {
        match self {
            Self::Sender(name) => name.as_str(),
            Self::Clerk | Self::Resend | Self::Stripe | Self::Nylas | Self::Usher | Self::Schedule => self.word(),
        }
    }

    /// True if a repeated delivery of an event has the bytes of the first. The bodies of Stripe and Nylas count
    /// deliveries, and those of Usher's own events may differ in their author: there the id alone tells an event.
    pub const fn repeats_bodies(&self) -> bool {
        match self {
            Self::Clerk | Self::Resend | Self::Sender(_) => true,
            Self::Stripe | Self::Nylas | Self::Usher | Self::Schedule => false,
        }
    }

    /// Returns the labels of all sources that have code of their own.
    pub fn built_in_labels() -> [&'static str; 6] {
        Self::BUILT_IN.map(Self::word)
    }

    /// The label of a source that has code of its own; empty for another one.
    const fn word(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Resend => "resend",
            Self::Stripe => "stripe",
            Self::Nylas => "nylas",
            Self::Usher => "usher",
            Self::Schedule => "schedule",
            Self::Sender(_) => "",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The text is not the label of a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no source's name: it may be clerk, resend, stripe, nylas, or the name of another sender, which has 1 to {MAX_NAME} \
     of the characters a-z, 0-9 and '-'"
)]
pub struct UnknownSource;

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let built_in = Self::BUILT_IN.into_iter().find(|source| source.word() == text);
        built_in.map_or_else(|| text.parse().map(Self::Sender).map_err(|_| UnknownSource), Ok)
    }
}

/// Beginning of the names of all settings of senders.
pub const SENDER_SETTINGS: &str = "USHER_SOURCE_";

/// Longest name of a sender, in bytes.
pub const MAX_NAME: usize = 32;

/// Words that stand in the place of a source in metrics. A sender of this name could not be told from them.
const RESERVED: [&str; 2] = ["unknown", "unsubscribe"];

/// The name of a sender that has no code of its own: 1 to 32 characters of `a-z`, `0-9` and `-`, which is at neither end,
/// without the word `secret`, and neither the label
/// of another source nor one misspelling away from it, so that a misspelt `clerk` is never taken for a sender. It is
/// used like [`Source::label`], and, in upper case with `_` for `-`, in the names of settings.
///
/// The name is held in place, so that a source can be copied and none is ever kept beyond its use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderName {
    /// The characters, followed by zeros. The order of these arrays is the order of the texts.
    bytes: [u8; MAX_NAME],
    length: u8,
}

/// The text cannot be the name of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSenderName {
    /// The text is empty, too long, or has other characters.
    #[error(
        "a sender has a name of 1 to {MAX_NAME} of the characters a-z, 0-9 and '-', which is at neither end, and without \
         the word secret"
    )]
    Malformed,
    /// The name is that of another source, or too similar to one.
    #[error("the name is taken, or one letter away from a name that is: choose another one")]
    Taken,
}

impl SenderName {
    /// Returns the name of the setting that holds this sender's `what`, such as `USHER_SOURCE_ACME_SECRET`.
    pub fn setting(&self, what: &str) -> String {
        format!("{SENDER_SETTINGS}{}_{what}", self.as_str().to_uppercase().replace('-', "_"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever stored.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl FromStr for SenderName {
    type Err = InvalidSenderName;

    fn from_str(text: &str) -> Result<Self, InvalidSenderName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let length = u8::try_from(text.len()).map_err(|_| InvalidSenderName::Malformed)?;
        if !(1..=MAX_NAME).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(InvalidSenderName::Malformed);
        }
        // Settings put this word behind a sender's name: `USHER_SOURCE_<NAME>_SECRET_<INSTANCE>`.
        if text.split('-').any(|word| word == "secret") || text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidSenderName::Malformed);
        }
        if RESERVED.contains(&text) || Source::built_in_labels().into_iter().any(|label| is_nearly(text, label)) {
            return Err(InvalidSenderName::Taken);
        }
        let mut bytes = [0; MAX_NAME];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length })
    }
}

/// True for the label itself, and for texts that one letter added, left out, replaced or swapped with its neighbour
/// makes of it.
fn is_nearly(text: &str, label: &str) -> bool {
    text.len().abs_diff(label.len()) <= 1 && strsim::osa_distance(text, label) <= 1
}

impl fmt::Display for SenderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SenderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_from_its_label() {
        for source in Source::BUILT_IN {
            assert_eq!(source.label().parse(), Ok(source));
        }
        let longest = "a".repeat(MAX_NAME);
        for name in ["acme", "acme-pay-2", "9", &longest] {
            let source: Source = name.parse().expect("a sender");
            assert_eq!((source.label(), source.to_string().as_str()), (name, name));
            assert!(matches!(source, Source::Sender(_)));
        }
        assert_eq!(Source::built_in_labels(), Source::BUILT_IN.each_ref().map(Source::label));
    }

    #[test]
    fn a_malformed_name_is_of_no_source_and_a_taken_one_of_no_other_sender() {
        for bad in [
            "",
            "Acme",
            "a/b",
            "a b",
            "a_b",
            "ä",
            "acme\0",
            "-a",
            "a-",
            "the-secret-one",
            &"a".repeat(MAX_NAME + 1),
            &"a".repeat(300),
        ] {
            assert_eq!(bad.parse::<SenderName>(), Err(InvalidSenderName::Malformed), "{bad:?}");
            assert_eq!(bad.parse::<Source>(), Err(UnknownSource), "{bad:?}");
        }
        for taken in Source::built_in_labels().into_iter().chain(RESERVED) {
            assert_eq!(taken.parse::<SenderName>(), Err(InvalidSenderName::Taken), "{taken}");
        }
        for misspelt in ["clrk", "clark", "clerks", "celrk", "reesend", "strpie", "nylass", "user", "scheduler"] {
            assert_eq!(misspelt.parse::<Source>(), Err(UnknownSource), "{misspelt}");
        }
        assert_eq!("unsubscribe".parse::<Source>(), Err(UnknownSource));
    }

    #[test]
    fn names_are_in_the_order_of_their_texts() {
        let mut names = ["b", "a-b", "ab", "a", "a1"].map(|name| name.parse::<SenderName>().expect("a name"));
        names.sort_unstable();
        assert_eq!(names.each_ref().map(SenderName::as_str), ["a", "a-b", "a1", "ab", "b"]);
    }
}
