//! The fields of an answer that later steps may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The fields of an answer that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeptAnswer {
    /// The status alone.
    Status,
    /// All fields, if it is a JSON object.
    All,
    /// Fields by the names that later steps use, each with its place.
    Fields(BTreeMap<String, String>),
}

impl KeptAnswer {
    /// True if an answer that cannot be read to its end is no answer: later steps rely on its fields.
    pub(super) const fn is_needed(&self) -> bool {
        matches!(self, Self::Fields(_))
    }

    /// Returns what is kept of an answer; a field that it does not have is null.
    pub(super) fn of(&self, status: u16, answer: Value) -> Value {
        match self {
            Self::Status => json!({ "status": status }),
            Self::All => match answer {
                Value::Object(fields) => Value::Object(fields),
                Value::Null => json!({ "status": status }),
                other => json!({ "status": status, "answer": other }),
            },
            Self::Fields(fields) => {
                let kept = fields.iter().map(|(name, place)| (name.clone(), at(&answer, place)));
                Value::Object(kept.collect::<Map<_, _>>())
            }
        }
    }
}

/// Returns the value at a place: a JSON pointer (RFC 6901), or names and positions with full stops between them.
fn at(answer: &Value, place: &str) -> Value {
    let found = if place.is_empty() || place.starts_with('/') {
        answer.pointer(place)
    } else {
        place.split('.').try_fold(answer, |value, name| match value {
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            other => other.get(name),
        })
    };
    found.cloned().unwrap_or_default()
}

/// True if a value from a flow file is a table of names and places.
pub(crate) fn are_places(value: &Value) -> bool {
    let is_place = |place: &Value| place.as_str().is_some_and(|place| !crate::is_template(place));
    value.as_object().is_some_and(|fields| !fields.is_empty() && fields.values().all(is_place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_pointer_and_by_names() {
        let answer = json!({ "choices": [{ "message": { "content": "Hello" } }], "a.b": 1, "n": 12_345_678_901_u64 });
        let places = [
            ("text", "choices.0.message.content"),
            ("same", "/choices/0/message/content"),
            ("dot", "/a.b"),
            ("n", "n"),
            ("none", "choices.1.message"),
            ("odd", "choices.x"),
            ("all", ""),
        ];
        let fields = places.map(|(name, place)| (name.to_owned(), place.to_owned())).into();
        let kept = KeptAnswer::Fields(fields).of(200, answer.clone());
        let expected = json!({ "text": "Hello", "same": "Hello", "dot": 1, "n": 12_345_678_901_u64, "none": null,
            "odd": null, "all": answer });
        assert_eq!(kept, expected);
    }

    #[test]
    fn without_fields_an_object_is_kept_whole() {
        assert_eq!(KeptAnswer::All.of(201, json!({ "id": 7 })), json!({ "id": 7 }));
        assert_eq!(KeptAnswer::All.of(200, Value::Null), json!({ "status": 200 }));
        assert_eq!(KeptAnswer::All.of(200, json!(["a"])), json!({ "status": 200, "answer": ["a"] }));
        assert_eq!(KeptAnswer::Status.of(204, json!({ "id": 7 })), json!({ "status": 204 }));
    }
}
