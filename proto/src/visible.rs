//! Makes text from outside safe to print. A terminal obeys control characters, and bidirectional controls change the
//! order in which a line is read. Here they are replaced by visible escapes.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True if a character controls a terminal or the order of a line instead of being displayed: C0, DEL, C1, line and
/// paragraph separators, and Unicode's bidirectional controls.
pub const fn is_control(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Returns the text as one line, with each control character escaped, such as `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    replace(text, is_control, |shown, c| write!(shown, "{}", c.escape_unicode()))
}

/// Returns a text of several lines with control characters escaped as by [`line()`], except line feeds.
pub fn lines(text: &str) -> Cow<'_, str> {
    replace(text, |c| c != '\n' && is_control(c), |shown, c| write!(shown, "{}", c.escape_unicode()))
}

/// Returns a JSON text with each control character escaped as in JSON (`\u009b`), because serialisers do not escape
/// those above U+001F. Line feeds stay: JSON strings cannot contain them.
pub fn json(text: &str) -> Cow<'_, str> {
    replace(text, |c| c != '\n' && is_control(c), |shown, c| write!(shown, "\\u{:04x}", u32::from(c)))
}

fn replace(
    text: &str,
    hidden: impl Fn(char) -> bool,
    show: impl Fn(&mut String, char) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            // Writing to a `String` cannot fail.
            let _ = show(&mut shown, c);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_is_left() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        assert!(!line(&all).contains(is_control));
        assert!(lines(&all).chars().all(|c| c == '\n' || !is_control(c)));
        let bidi = "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}";
        assert!(bidi.chars().all(is_control));
        assert_eq!(line("a\u{1b}[2Jb\r\nc\u{9b}"), "a\\u{1b}[2Jb\\u{d}\\u{a}c\\u{9b}");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "Zo\u{eb} \u{1f600} \u{645}\u{200c}\u{627}", "a\\u{1b}b"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_json_says_is_not_changed() {
        assert_eq!(json("{\n\"a\": \"\u{7f}\u{9b}\u{202e}\"}"), "{\n\"a\": \"\\u007f\\u009b\\u202e\"}");
    }
}
