//! Text and JSON from a destination, made such that both stores take it: no NUL (Postgres refuses it) and no other control
//! character, no string and no nesting without a bound.

use serde_json::Value;
use usher_service::visible;

/// Characters of an effect's id; those of the destinations are shorter.
pub(super) const LONGEST_ID: usize = 255;
/// Characters of an error's text.
pub(super) const LONGEST_ERROR: usize = 300;
/// Bytes of a result as JSON.
pub(super) const LARGEST_RESULT: usize = 16 * 1024;
/// Characters of a string within a result.
const LONGEST_STRING: usize = 1024;
/// Levels of a result; what lies deeper is null. A database that reads it has a bound of its own.
const DEEPEST: usize = 16;

/// The text with its control characters shown and at most `longest` characters long; an ellipsis ends one that was cut.
pub(crate) fn text(text: &str, longest: usize) -> String {
    // No more than this is looked at, whatever its length.
    let end = text.char_indices().nth(longest + 1).map_or(text.len(), |(end, _)| end);
    let shown = visible::line(&text[..end]);
    if shown.chars().count() <= longest {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(longest.saturating_sub(1)).collect();
    cut.push('\u{2026}');
    cut
}

/// The JSON with all its names and strings like that.
pub(super) fn json(mut value: Value) -> Value {
    clean(&mut value, DEEPEST);
    value
}

fn clean(value: &mut Value, levels: usize) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(string) => *string = text(string, LONGEST_STRING),
        Value::Array(_) | Value::Object(_) if levels == 0 => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, levels - 1)),
        Value::Object(fields) => {
            for (name, mut field) in std::mem::take(fields) {
                clean(&mut field, levels - 1);
                fields.insert(text(&name, LONGEST_STRING), field);
            }
        }
    }
}
