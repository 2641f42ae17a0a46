//! Messages about text that is not valid TOML. Frequent mistakes get a specific message.

use toml_edit::TomlError;

use super::super::{FlowSource, Problem};
use super::line_of;

pub(super) fn problem(source: &FlowSource, error: &TomlError) -> Problem {
    let line = error.span().map_or(1, |span| line_of(&source.toml, span.start));
    let (line, message) = if let Some(line) = unclosed(&source.toml, line) {
        (line, "this text has no closing quote".to_owned())
    } else if let Some((key, value)) = yaml(source.toml.lines().nth(line.saturating_sub(1)).unwrap_or_default()) {
        (line, format!("this is TOML: {key} = {value}"))
    } else {
        (line, error.message().to_owned())
    };
    Problem { file: source.file.clone(), line, message }
}

/// Returns the first line, up to that of the error, with an unclosed single-line string.
fn unclosed(toml: &str, error: usize) -> Option<usize> {
    let mut in_long: Option<&str> = None;
    for (index, line) in toml.lines().take(error).enumerate() {
        let mut rest = line;
        loop {
            if let Some(quotes) = in_long {
                let Some(end) = rest.find(quotes) else { break };
                rest = &rest[end + quotes.len()..];
                in_long = None;
                continue;
            }
            let Some(at) = rest.find(['"', '\'', '#']) else { break };
            let found = &rest[at..];
            let quotes = ["\"\"\"", "'''"];
            if found.starts_with('#') {
                break;
            }
            if let Some(long) = quotes.into_iter().find(|long| found.starts_with(long)) {
                in_long = Some(long);
                rest = &found[long.len()..];
                continue;
            }
            match closed(found) {
                Some(after) => rest = after,
                None => return Some(index + 1),
            }
        }
    }
    None
}

/// Returns the text after the string that `found` begins with; `None` if the string is not closed.
fn closed(found: &str) -> Option<&str> {
    let quote = found.chars().next()?;
    let mut chars = found.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '"' {
            chars.next();
        } else if c == quote {
            return Some(&found[at + 1..]);
        }
    }
    None
}

/// Returns key and value of a line of the form `key: value`.
fn yaml(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!key.trim().is_empty() && key.trim().chars().all(is_key)).then(|| (key.trim(), value.trim()))
}
