//! Rewrites JSON text, with as few changes as its next reader needs.

use std::borrow::Cow;

use serde_json::Value;

use super::scan;

/// Replaces every escape of a single UTF-16 code unit for which `unwanted` returns true with the escape of U+FFFD.
/// Escapes of valid surrogate pairs are kept.
pub(super) fn replaced(text: &str, unwanted: impl Fn(u16) -> bool) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut whole = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        at += found;
        at += match (scan::unit(bytes, at), scan::unit(bytes, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(unit), _) => {
                if unwanted(unit) {
                    whole.push_str(&text[copied..at]);
                    whole.push_str("\\ufffd");
                    copied = at + 6;
                }
                6
            }
            // An escape of one character. The character has several bytes only if the text is not valid JSON.
            (None, _) => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    whole.push_str(&text[copied..]);
    Cow::Owned(whole)
}

/// Replaces every array and object that is nested deeper than `max_depth` with a string of its text. `None` if
/// there is none.
pub(super) fn flattened(text: &str, max_depth: usize) -> Option<String> {
    let bytes = text.as_bytes();
    let mut flat = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut depth = 0;
    let mut in_string = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string && depth == max_depth => {
                let end = scan::value_end(bytes, at)?;
                flat.push_str(&text[copied..at]);
                flat.push_str(&Value::from(&text[at..end]).to_string());
                copied = end;
                at = end - 1;
            }
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    (copied > 0).then(|| flat + &text[copied..])
}
