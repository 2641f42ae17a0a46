//! Makes text and JSON from a destination acceptable to both stores: no NUL (Postgres refuses it) and no other control
//! character, and bounded strings and nesting.

use serde_json::Value;
use usher_proto::visible;

/// Maximum length of an effect's id, in characters; the ids of the destinations are shorter.
pub(super) const LONGEST_ID: usize = 255;
/// Maximum length of an error's text, in characters.
pub(super) const LONGEST_ERROR: usize = 300;
/// Maximum size of a result as JSON, in bytes.
pub(super) const LARGEST_RESULT: usize = 16 * 1024;
/// Maximum length of a string within a result, in characters.
const LONGEST_STRING: usize = 1024;
/// Maximum nesting of a result; deeper values become null. A database that reads the result has a limit of its own.
const DEEPEST: usize = 16;

/// Returns the text with its control characters made visible and at most `longest` characters long; a text that was cut
/// ends with an ellipsis.
pub fn text(text: &str, longest: usize) -> String {
    // Only this part is examined, however long the text is.
    let end = text.char_indices().nth(longest + 1).map_or(text.len(), |(end, _)| end);
    let shown = visible::line(&text[..end]);
    if shown.chars().count() <= longest {
        return shown.into_owned();
    }
    let mut cut: String = shown.chars().take(longest.saturating_sub(1)).collect();
    cut.push('\u{2026}');
    cut
}

/// Returns the JSON with all its names and strings made storable.
pub(super) fn json(mut value: Value) -> Value {
    clean(&mut value, DEEPEST, |string| text(string, LONGEST_STRING));
    value
}

/// As [`json`], for an answer whose texts are to be written on, such as the text of a mail: line feeds stay, and no text is
/// cut. The size of the whole is for the caller to bound.
pub(super) fn answer(mut value: Value) -> Value {
    let several_lines = |string: &str| visible::lines(&string.replace("\r\n", "\n").replace('\t', " ")).into_owned();
    clean(&mut value, DEEPEST, several_lines);
    value
}

fn clean(value: &mut Value, levels: usize, storable: impl Fn(&str) -> String + Copy) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(string) => *string = storable(string),
        Value::Array(_) | Value::Object(_) if levels == 0 => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, levels - 1, storable)),
        Value::Object(fields) => {
            for (name, mut field) in std::mem::take(fields) {
                clean(&mut field, levels - 1, storable);
                fields.insert(text(&name, LONGEST_STRING), field);
            }
        }
    }
}
