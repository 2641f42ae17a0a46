//! The senders of webhooks.

use std::fmt;
use std::str::FromStr;

/// The sender of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Clerk's webhooks, delivered and signed by Svix.
    Clerk,
    /// Resend's webhooks about mail, delivered and signed by Svix.
    Resend,
    /// Usher itself: commands of its operators and unsubscribe requests, which are written to the same log under the
    /// key that they concern.
    Usher,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Clerk, Self::Resend, Self::Usher];

    /// The label that is used in paths, headers, flow files and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Resend => "resend",
            Self::Usher => "usher",
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
#[error("no such source: it may be clerk, resend or usher")]
pub struct UnknownSource;

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|source| source.label() == text).ok_or(UnknownSource)
    }
}
