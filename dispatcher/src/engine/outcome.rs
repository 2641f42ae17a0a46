//! What an attempt came to. Every failure has been classified by whoever knows the destination.

use std::time::Duration;

use serde_json::Value;
use usher_proto::Reason;

/// What a step did outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The destination's own id of what was made: a mail's, a customer's, a row's.
    pub id: String,
    /// What later steps may use as `steps.<name>`.
    pub result: Value,
}

/// Why an attempt is to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection could be made, or it ended before the destination could have done anything.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// The connection broke, or the answer cannot be read.
    Interrupted,
    /// The destination asks for a slower pace.
    Throttled,
    /// The destination says that it is out of order (5xx).
    Unavailable,
    /// The destination is still busy with the same request, or with the same object.
    Conflict,
    /// The destination refuses this request for now, and says that it has done nothing. It may well serve others.
    Deferred,
    /// The destination repeats a failure that it keeps under the idempotency key. It was looked up: no attempt under this
    /// key has had its effect, and none will.
    Replayed,
    /// The connector failed in a way that is a bug.
    Panicked,
}

impl Cause {
    /// The word for it in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Deferred => "deferred",
            Self::Replayed => "replayed",
            Self::Panicked => "panicked",
        }
    }

    /// Whether the fault lies with the destination as a whole, as far as one attempt can tell: it is not there, does not
    /// answer, or says that it is out of order.
    pub const fn speaks_of_an_outage(self) -> bool {
        match self {
            Self::Unreachable | Self::Timeout | Self::Interrupted | Self::Unavailable => true,
            Self::Throttled | Self::Conflict | Self::Deferred | Self::Replayed | Self::Panicked => false,
        }
    }

    /// Whether it is certain that nothing took effect, so that the next attempt may be another request under a new
    /// idempotency key. Where it is not, the very same request must be repeated under the same key.
    pub const fn nothing_happened(self) -> bool {
        match self {
            Self::Unreachable | Self::Throttled | Self::Deferred | Self::Replayed => true,
            Self::Timeout | Self::Interrupted | Self::Unavailable | Self::Conflict | Self::Panicked => false,
        }
    }

    /// Whether it also settles earlier attempts under the same key whose outcome was open: they had no effect either.
    pub const fn settles_earlier_attempts(self) -> bool {
        match self {
            Self::Replayed => true,
            Self::Unreachable
            | Self::Timeout
            | Self::Interrupted
            | Self::Throttled
            | Self::Unavailable
            | Self::Conflict
            | Self::Deferred
            | Self::Panicked => false,
        }
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Outcome {
    /// It took effect.
    Done(Effect),
    /// The destination holds something newer; there was nothing left to do.
    Overtaken,
    /// To be repeated.
    Retry {
        /// Why.
        cause: Cause,
        /// How long the destination asks to wait.
        after: Option<Duration>,
    },
    /// Repeating cannot help.
    Reject {
        /// Why.
        reason: Reason,
        /// Status and error name as the destination gave them: never its message, which may repeat an address.
        error: String,
    },
}

impl Outcome {
    /// To be repeated after the flow's own back-off.
    pub const fn retry(cause: Cause) -> Self {
        Self::Retry { cause, after: None }
    }

    /// Repeating cannot help.
    pub fn reject(reason: Reason, error: impl Into<String>) -> Self {
        Self::Reject { reason, error: error.into() }
    }
}
