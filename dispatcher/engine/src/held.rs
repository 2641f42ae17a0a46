//! Reasons why a step that would write to a recipient is skipped. The run continues, and ends with that reason
//! as its note.

use serde_json::{Value, json};

/// The reason why a recipient is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Mail is not sent to the address for now: `USHER_DELIVER_ONLY_TO` excludes it, or it is one of
    /// Clerk's test addresses.
    HeldBack,
    /// Mail is never sent to the address: it bounces, its owner has complained, or an operator has suppressed it.
    Suppressed,
    /// The address's owner has unsubscribed from this list.
    Unsubscribed,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::HeldBack, Self::Suppressed, Self::Unsubscribed];

    /// Returns the reason's name, which is a run's note and a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::HeldBack => "held_back",
            Self::Suppressed => "suppressed",
            Self::Unsubscribed => "unsubscribed",
        }
    }

    /// Returns the result of the step as later steps see it.
    pub fn result(self) -> Value {
        json!({ "held_back": self.label() })
    }

    /// Returns the reason that a step's result holds, if the step was skipped. No connector gives such a result.
    pub fn of_result(result: &Value) -> Option<Self> {
        let word = result.get("held_back")?.as_str()?;
        Self::ALL.into_iter().find(|held| held.label() == word)
    }
}
