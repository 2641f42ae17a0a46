//! The outcomes of attempts. The connector, which knows the destination, has classified every failure.

use std::time::Duration;

pub use effect::Effect;
use usher_proto::Reason;

use super::storable;

/// A separate module, so that nothing but [`Effect::new`] and [`Effect::with_answer`] can construct an effect.
mod effect {
    use serde_json::{Value, json};

    use super::storable;

    /// The effect of a step on its destination. Both stores accept it, whatever the destination answered.
    #[derive(Debug, Clone, PartialEq)]
    #[expect(clippy::manual_non_exhaustive, reason = "nobody in this crate is to build one by its fields either")]
    pub struct Effect {
        /// The destination's own id of the object that was made: a mail's, a customer's, a row's.
        pub id: String,
        /// The value that later steps may use as `steps.<name>`; an object that contains the `id`.
        pub result: Value,
        /// Prevents construction by the fields.
        _made_by_new: (),
    }

    impl Effect {
        /// Returns an effect with the destination's id and the further fields `more` of its result. A destination's
        /// answer may hold anything: control characters are replaced by their names (`\u{0}`), texts that are too long
        /// are cut, and a result that is too large is reduced to its id and `"cut": true`.
        pub fn new(id: impl AsRef<str>, more: Value) -> Self {
            Self::of(id.as_ref(), storable::json(more))
        }

        /// As [`Effect::new`], with an answer whose texts later steps write on: their line feeds stay, and they are not cut. An
        /// answer that is too large as a whole is reduced to its id and `"cut": true`.
        pub fn with_answer(id: impl AsRef<str>, answer: Value) -> Self {
            Self::of(id.as_ref(), storable::answer(answer))
        }

        fn of(id: &str, storable: Value) -> Self {
            let id = storable::text(id, storable::LONGEST_ID);
            let mut result = match storable {
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

/// The reason why an attempt is to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection could be made, or it ended before the destination could have done anything.
    Unreachable,
    /// No answer arrived in time.
    Timeout,
    /// The connection broke, or the answer cannot be read.
    Interrupted,
    /// The destination requests a slower pace.
    Throttled,
    /// The destination reports that it is out of order (5xx).
    Unavailable,
    /// The destination is still busy with the same request, or with the same object.
    Conflict,
    /// The destination refuses this request for now, and reports that it has done nothing. It may well serve others.
    Deferred,
    /// The destination repeats a failure that it has stored under the idempotency key. A lookup has shown that no
    /// attempt under this key has had its effect, and none will.
    Replayed,
    /// The connector panicked, which is a bug.
    Panicked,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Interrupted,
        Self::Throttled,
        Self::Unavailable,
        Self::Conflict,
        Self::Deferred,
        Self::Replayed,
        Self::Panicked,
    ];

    /// Returns the cause's name in metrics and logs.
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

    /// Returns true if the fault lies with the destination as a whole, as far as one attempt can show: it is
    /// unreachable, does not answer, or reports that it is out of order.
    pub const fn indicates_outage(self) -> bool {
        match self {
            Self::Unreachable | Self::Timeout | Self::Interrupted | Self::Unavailable => true,
            Self::Throttled | Self::Conflict | Self::Deferred | Self::Replayed | Self::Panicked => false,
        }
    }

    /// Returns true if it is certain that nothing took effect, so that the next attempt may be another request under a
    /// new idempotency key. Otherwise the same request must be repeated unchanged under the same key.
    pub const fn nothing_happened(self) -> bool {
        match self {
            Self::Unreachable | Self::Throttled | Self::Deferred | Self::Replayed => true,
            Self::Timeout | Self::Interrupted | Self::Unavailable | Self::Conflict | Self::Panicked => false,
        }
    }

    /// Returns true if the cause also settles earlier attempts under the same key whose outcome is unknown: they had
    /// no effect either.
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

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Outcome {
    /// The attempt took effect.
    Done(Effect),
    /// The destination holds something newer; there was nothing left to do.
    Overtaken,
    /// The attempt is to be repeated.
    Retry {
        /// The cause of the failure.
        cause: Cause,
        /// The pause that the destination requests; absent if it requests none.
        after: Option<Duration>,
    },
    /// The attempt failed, and repeating it cannot help.
    Reject {
        /// The reason of the failure.
        reason: Reason,
        /// The status and error name as the destination gave them. Never its message, which may repeat an address.
        error: String,
    },
}

impl Outcome {
    /// The name of an attempt that took effect, in metrics, logs and stories.
    pub const DONE: &str = "done";

    /// Returns the outcome's name in metrics, logs and stories: `done`, `overtaken`, a cause or a reason.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Done(_) => Self::DONE,
            Self::Overtaken => "overtaken",
            Self::Retry { cause, .. } => cause.label(),
            Self::Reject { reason, .. } => reason.label(),
        }
    }

    /// Returns an outcome to be repeated after the flow's own back-off.
    pub const fn retry(cause: Cause) -> Self {
        Self::Retry { cause, after: None }
    }

    /// Returns an outcome that no repetition can improve. The text is made storable, because part of it may come
    /// from the destination.
    pub fn reject(reason: Reason, error: impl AsRef<str>) -> Self {
        Self::Reject { reason, error: storable::text(error.as_ref(), storable::LONGEST_ERROR) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_text_that_is_written_on_keeps_its_lines_and_its_length() {
        let text = format!("Hello\r\n\tNell\u{0}\u{1b}[2J\n{}", "x".repeat(3000));
        let effect = Effect::with_answer("id", json!({ "text": text, "deep": [{ "a": "b\nc" }] }));
        let expected = format!("Hello\n Nell\\u{{0}}\\u{{1b}}[2J\n{}", "x".repeat(3000));
        assert_eq!(effect.result, json!({ "text": expected, "deep": [{ "a": "b\nc" }], "id": "id" }));
        let large = Effect::with_answer("id", json!({ "text": "x".repeat(17 * 1024) }));
        assert_eq!(large.result, json!({ "cut": true, "id": "id" }));
    }

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
