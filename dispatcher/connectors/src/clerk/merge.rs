//! The merge of metadata, as Clerk documents it: nested objects are merged at every depth, null removes a key, and every other
//! value replaces the earlier one. Pure.

use serde_json::{Map, Value};

/// True if merging `patch` into `current` changes nothing. Numbers are compared by their value: a service may store `1.0`
/// as `1`.
pub(super) fn is_in_place(current: Option<&Value>, patch: &Value) -> bool {
    match (current, patch) {
        (None | Some(Value::Null), Value::Null) => true,
        // Nothing is to be removed from what is not there. A table with a value would be created.
        (None, Value::Object(fields)) => !fields.is_empty() && fields.values().all(|field| is_in_place(None, field)),
        (Some(Value::Object(current)), Value::Object(fields)) => {
            fields.iter().all(|(name, field)| is_in_place(current.get(name), field))
        }
        (Some(current), patch) => is_same(current, patch),
        (None, _) => false,
    }
}

/// Merges `patch` into `current`.
pub(super) fn merge(current: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (current.get_mut(name), value) {
            (_, Value::Null) => {
                current.remove(name);
            }
            (Some(Value::Object(current)), Value::Object(fields)) => merge(current, fields),
            (_, Value::Object(fields)) => {
                let mut new = Map::new();
                merge(&mut new, fields);
                current.insert(name.clone(), Value::Object(new));
            }
            (_, value) => {
                current.insert(name.clone(), value.clone());
            }
        }
    }
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_changes_what_it_names_and_repeating_it_changes_nothing() {
        for (before, patch, after) in [
            (json!({}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2})),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": [1]}}), json!({"a": {"c": 2, "d": [1]}})),
            (json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]})),
            (json!({"a": 1}), json!({"a": {"b": {"c": null, "d": 1}}}), json!({"a": {"b": {"d": 1}}})),
            (json!({"a": {"b": 1}}), json!({"a": "x"}), json!({"a": "x"})),
            (json!({"a": {"b": 1}}), json!({"a": {}}), json!({"a": {"b": 1}})),
            (json!({"a": 1.0}), json!({"a": 1, "b": null}), json!({"a": 1})),
        ] {
            let mut merged = before.as_object().expect("a table").clone();
            merge(&mut merged, patch.as_object().expect("a table"));
            let merged = Value::Object(merged);
            assert_eq!(merged, after, "{before} and {patch}");
            assert!(is_in_place(Some(&merged), &patch), "{merged} and {patch}");
            let changes = !is_same(&before, &after);
            assert_eq!(is_in_place(Some(&before), &patch), !changes, "{before} and {patch}");
        }
        assert!(is_in_place(Some(&json!({})), &json!({"a": {"b": null}})), "there is nothing to remove");
        assert!(!is_in_place(Some(&json!({})), &json!({"a": {}})), "an empty table is something");
        assert!(!is_in_place(Some(&json!({"a": {"b": 1, "c": 2}})), &json!({"a": [1]})));
        assert!(!is_in_place(Some(&json!({"a": [{"b": 1, "c": 2}]})), &json!({"a": [{"b": 1}]})), "a list is replaced");
    }
}
