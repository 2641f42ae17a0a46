//! Why a step that would write to somebody is left undone. The run goes on, and ends with that word as its note.

use serde_json::{Value, json};

/// Why somebody is not written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Mail does not go there for now: `USHER_DELIVER_ONLY_TO` leaves the address out, or it is one of Clerk's for tests.
    HeldBack,
    /// Mail never goes there: it bounces, its owner has complained, or an operator says so.
    Suppressed,
    /// Its owner demand no more mail of this list.
    Unsubscribed,
}

impl SkipReason {
    /// Every word.
    pub const ALL: [Self; 3] = [Self::HeldBack, Self::Suppressed, Self::Unsubscribed];

    /// The word for it: a run's note, and a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::HeldBack => "held_back",
            Self::Suppressed => "suppressed",
            Self::Unsubscribed => "unsubscribed",
        }
    }

    /// What later steps see as the result of the step.
    pub fn result(self) -> Value {
        json!({ "held_back": self.label() })
    }

    /// The word in a step's result, if it was left undone. No connector gives such a result.
    pub fn of_result(result: &Value) -> Option<Self> {
        let word = result.get("held_back")?.as_str()?;
        Self::ALL.into_iter().find(|held| held.label() == word)
    }
}
