//! Why a run was given up on.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a run is dead. The label stands in the dead letter's header, in the metric and in the store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, for metrics that must exist before they first count.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word used wherever the reason is written.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// The record or its body cannot be read as the event it claims to be.
    Malformed = "malformed",
    /// Its id is that of an earlier event with another body.
    EventConflict = "event_conflict",
    /// A template or an expression of the flow cannot be rendered for this event.
    Template = "template",
    /// The recipient has no address, or one that the destination cannot take.
    InvalidAddress = "invalid_address",
    /// The destination says that the request itself is wrong; repeating it cannot help.
    InvalidRequest = "invalid_request",
    /// The destination refuses the account: a key, a permission, a domain that is not verified.
    Configuration = "configuration",
    /// The destination has no such object.
    NotFound = "not_found",
    /// The idempotency key was used before with another request.
    IdempotencyConflict = "idempotency_conflict",
    /// A quota is used up that only a person can raise.
    QuotaExhausted = "quota_exhausted",
    /// Every attempt that the flow allows has failed.
    RetriesSpent = "retries_spent",
    /// What was to be done is worth nothing any more.
    Expired = "expired",
    /// The process ended during several attempts in a row; it may be the run that ends it.
    WorkerCrashed = "worker_crashed",
    /// It cannot be known whether an attempt took effect, and the flow would rather not do it twice.
    InDoubt = "in_doubt",
    /// The event is older than the memory of what was done: whether it was done already cannot be known.
    TooOld = "too_old",
    /// The run began under a flow, or a step, that the running version no longer has.
    FlowChanged = "flow_changed",
    /// The store will never take the event, or what became of it: a value is not acceptable to it, or too large.
    Unstorable = "unstorable",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// No reason has this label.
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
