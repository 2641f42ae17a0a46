//! The story of a run, for operators: what was attempted at each step, what came of it, and which steps were passed over.

use std::time::Duration;

use usher_proto::Timestamp;

use super::storable;

/// Maximum length of a destination's message, in characters.
const LONGEST_MESSAGE: usize = 500;
/// Maximum length of the name of a destination's error, in characters.
const LONGEST_NAME: usize = 64;

/// A part of a run's story: an attempt at a step, or a step that was passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct StoryEntry {
    /// Number of times that the run had been run again.
    pub pass: u32,
    /// The step's index.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// The attempt's number at this step, from 1; 0 for a step that was passed over.
    pub number: u32,
    /// The time at which it began.
    pub at: Timestamp,
    /// The time that it took.
    pub took: Duration,
    /// The outcome as a label: of [`super::Outcome`], [`NotCalled`] or [`super::SkipReason`].
    pub outcome: &'static str,
    /// The answer of the destination to an attempt that failed; absent if there was none.
    pub answer: Option<DestinationAnswer>,
    /// The time from which the next attempt may be made; absent if there will be none.
    pub next_at: Option<Timestamp>,
    /// The request, if the attempt has failed.
    pub sent: Option<Vec<u8>>,
}

/// The answer of a destination that refuses. Both stores accept it, whatever the destination wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::manual_non_exhaustive, reason = "nobody is to build one whose texts are not storable")]
pub struct DestinationAnswer {
    /// The status, of HTTP or SMTP; absent for a connection that failed.
    pub status: Option<u16>,
    /// The error's name; absent if it has none.
    pub name: Option<String>,
    /// The message. It may repeat an address: it is content, and neither logged nor measured.
    pub message: Option<String>,
    /// Prevents construction by the fields.
    _made_by_new: (),
}

impl DestinationAnswer {
    /// Returns an answer with its texts cut and made storable. Empty texts are left out, and so is a name that does not look
    /// like one.
    pub fn new(status: Option<u16>, name: Option<&str>, message: Option<&str>) -> Self {
        let is_name = |name: &&str| {
            (1..=LONGEST_NAME).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let name = name.filter(is_name).map(str::to_owned);
        let message = message.map(str::trim).filter(|text| !text.is_empty());
        Self { status, name, message: message.map(|text| storable::text(text, LONGEST_MESSAGE)), _made_by_new: () }
    }
}

/// The time and the answer of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSeen {
    /// The time at which it began.
    pub at: Timestamp,
    /// The time that it took.
    pub took: Duration,
    /// The last answer of the destination that was no success; absent if there was none.
    pub answer: Option<DestinationAnswer>,
}

/// The reason why a step was passed over without a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCalled {
    /// Its condition does not hold.
    Condition,
    /// Its subject is deleted.
    Deleted,
    /// It was a wait, which is over.
    WaitOver,
    /// It would change nothing: what it would write is there already.
    InPlace,
    /// It is optional, and its destination is not configured.
    NotConfigured,
    /// The version of the flow has no such step.
    NoStep,
}

impl NotCalled {
    /// Returns the reason's name in a story.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Deleted => "deleted",
            Self::WaitOver => "waited",
            Self::InPlace => "in_place",
            Self::NotConfigured => "not_configured",
            Self::NoStep => "no_step",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_storable_and_its_name_is_one() {
        let long = "a\0".repeat(10_000);
        let answer = DestinationAnswer::new(Some(422), Some("validation_error"), Some(&long));
        assert_eq!(answer.name.as_deref(), Some("validation_error"));
        let message = answer.message.unwrap_or_default();
        assert!(message.chars().count() <= LONGEST_MESSAGE && !message.contains('\0'), "{message}");
        assert!(!DestinationAnswer::new(None, None, Some("a\nb")).message.unwrap_or_default().contains('\n'));
        let nothing = DestinationAnswer::new(None, Some("ann@acme.test said no"), Some("  "));
        assert_eq!((nothing.name, nothing.message), (None, None));
    }
}
