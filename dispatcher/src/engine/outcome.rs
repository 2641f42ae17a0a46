//! What an attempt came to. Every failure has been classified by whoever knows the destination.

use std::time::Duration;

use usher_proto::Reason;

use super::storable;

pub use effect::Effect;

/// In a module of its own, so that nothing but [`Effect::new`] can make one.
mod effect {
    use serde_json::{Value, json};

    use super::storable;

    /// What a step did outside. Both stores take it, whatever the destination answered.
    #[derive(Debug, Clone, PartialEq)]
    #[expect(clippy::manual_non_exhaustive, reason = "nobody in this crate is to build one by its fields either")]
    pub struct Effect {
        /// The destination's own id of what was made: a mail's, a customer's, a row's.
        pub id: String,
        /// What later steps may use as `steps.<name>`; an object with the `id` in it.
        pub result: Value,
        /// Keeps others from building one by its fields.
        _made_by_new: (),
    }

    impl Effect {
        /// An effect with the destination's id and the fields `more` of its result. What a destination answers may hold
        /// anything: control characters are replaced by their names (`\u{0}`), what is too long is cut, and a result that
        /// is too large is its id alone.
        pub fn new(id: impl AsRef<str>, more: Value) -> Self {
            let id = storable::text(id.as_ref(), storable::LONGEST_ID);
            let mut result = match storable::json(more) {
                fields @ Value::Object(_) => fields,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => json!({}),
            };
            if result.to_string().len() > storable::LARGEST_RESULT {
                result = json!({ "cut": true });
            }
            result["id"] = json!(id);
            Self { id, result, _made_by_new: () }
        }
    }
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

    /// Repeating cannot help. The text is made storable, for part of it may come from the destination.
    pub fn reject(reason: Reason, error: impl AsRef<str>) -> Self {
        Self::Reject { reason, error: storable::text(error.as_ref(), storable::LONGEST_ERROR) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_effect_is_storable_whatever_was_answered() {
        let effect = Effect::new("re_\0x\u{9b}", json!({ "a\0": ["\u{1b}[2J", { "deep": "\0" }], "id": "other" }));
        assert_eq!(effect.id, "re_\\u{0}x\\u{9b}");
        let result = json!({ "id": effect.id, "a\\u{0}": ["\\u{1b}[2J", { "deep": "\\u{0}" }] });
        assert_eq!(effect.result, result);

        let long = "\u{1f600}".repeat(1_000_000);
        assert_eq!(Effect::new(&long, Value::Null).id.chars().count(), storable::LONGEST_ID);
        assert!(Effect::new("1", json!({ "a": long })).result.to_string().len() < storable::LARGEST_RESULT);
        let many: Vec<u32> = (0..100_000).collect();
        assert_eq!(Effect::new("1", json!({ "many": many })).result, json!({ "id": "1", "cut": true }));
        let deep = (0..200).fold(json!("\0"), |inner, _| json!([inner]));
        assert!(!Effect::new("1", json!({ "deep": deep })).result.to_string().contains("\\u0000"));
        assert_eq!(Effect::new("1", json!("no object")).result, json!({ "id": "1" }));
    }

    #[test]
    fn an_error_is_storable_whatever_was_answered() {
        let Outcome::Reject { error, .. } = Outcome::reject(Reason::InvalidRequest, "400 \0\n".repeat(100_000)) else {
            panic!("a rejection")
        };
        assert!(error.starts_with("400 \\u{0}\\u{a}400") && error.chars().count() <= storable::LONGEST_ERROR);
    }
}
