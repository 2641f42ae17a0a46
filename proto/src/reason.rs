//! The reasons for which a run is dead-lettered.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// The reason for which a run was dead-lettered. The label is used in the header of the dead letter, in metrics
        /// and in the store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, for metrics that must be exported before they first count.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The label that is used wherever the reason is written.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// The record or its body cannot be parsed as an event.
    Malformed = "malformed",
    /// The event has the id of an earlier event but a different body.
    EventConflict = "event_conflict",
    /// A template or an expression of the flow cannot be rendered for this event.
    Template = "template",
    /// The recipient has no address, or one that the destination does not accept.
    InvalidAddress = "invalid_address",
    /// The destination rejects the request itself; a retry cannot succeed.
    InvalidRequest = "invalid_request",
    /// The destination rejects the account because of a key, a permission or an unverified domain.
    Configuration = "configuration",
    /// The destination does not have the object that the request names.
    NotFound = "not_found",
    /// The idempotency key was already used with a different request.
    IdempotencyConflict = "idempotency_conflict",
    /// A quota is exhausted, and only a person can raise it.
    QuotaExhausted = "quota_exhausted",
    /// Every attempt that the retry policy of the flow allows has failed.
    RetriesSpent = "retries_spent",
    /// The run has passed its expiry, after which its effect is no longer useful.
    Expired = "expired",
    /// The process ended during several attempts in a row; the run itself may be the cause.
    WorkerCrashed = "worker_crashed",
    /// It is unknown if an attempt took effect, and the flow does not allow a possible second effect.
    InDoubt = "in_doubt",
    /// The event is older than the retention of finished runs, so it is unknown if it was already processed.
    TooOld = "too_old",
    /// The run began with a flow or a step that the running version no longer has.
    FlowChanged = "flow_changed",
    /// The store cannot store the event or the result of its run: a value is not acceptable to it, or too large.
    Unstorable = "unstorable",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The text is not the label of a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such reason; it may be one of: {}", Reason::ALL.iter().map(|r| r.label()).collect::<Vec<_>>().join(", "))]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|reason| reason.label() == text).ok_or(UnknownReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back_and_are_distinct() {
        for reason in Reason::ALL {
            assert_eq!(reason.label().parse(), Ok(*reason));
        }
    }
}
