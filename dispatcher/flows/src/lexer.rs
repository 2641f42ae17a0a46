//! Finds the expressions of a template and splits them into tokens.

use std::ops::Range;

/// Operators of two characters, including those of other languages.
const LONG_SIGNS: [&str; 8] = ["==", "!=", "<=", ">=", "//", "**", "&&", "||"];

/// A part of a template that contains an expression or a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) range: Range<usize>,
    /// True if the result is printed: `{{ ... }}`.
    pub(super) is_printed: bool,
}

/// A token of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) range: Range<usize>,
    pub(super) kind: TokenKind,
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name or a keyword.
    Name,
    /// A string, including its quotes.
    Text,
    /// A sequence of digits.
    Number,
    /// Any other token: an operator, a bracket, a comma.
    Symbol,
}

/// Returns the expressions and statements of a template, except those in comments and raw blocks.
pub(super) fn regions(text: &str) -> Vec<Region> {
    let mut regions = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('{') {
        let start = at + found;
        let (is_printed, closer) = match text.as_bytes().get(start + 1) {
            Some(b'{') => (true, "}}"),
            Some(b'%') => (false, "%}"),
            Some(b'#') => {
                let Some(end) = text[start..].find("#}") else { break };
                at = start + end + 2;
                continue;
            }
            _ => {
                at = start + 1;
                continue;
            }
        };
        let inner = start + 2;
        let Some(end) = region_end(text, inner, closer) else { break };
        let words = text[inner..end].trim_matches(['-', '+']).trim();
        at = end + 2;
        if !is_printed && words == "raw" {
            at = raw_end(text, at).unwrap_or(text.len());
            continue;
        }
        let signs = |text: &str| text.len() - text.trim_start_matches(['-', '+']).len();
        let behind = text[inner..end].len() - text[inner..end].trim_end_matches(['-', '+']).len();
        let range = inner + signs(&text[inner..end])..end - behind;
        if range.start < range.end {
            regions.push(Region { range, is_printed });
        }
    }
    regions
}

/// Returns the position of the first closer outside of strings and brackets.
fn region_end(text: &str, start: usize, closer: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    while at < text.len() {
        let token = token(text, at..text.len())?;
        if depth == 0 && text[token.range.start..].starts_with(closer) {
            return Some(token.range.start);
        }
        match &text[token.range.clone()] {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        at = token.range.end;
    }
    None
}

/// Returns the position after `{% endraw %}`.
fn raw_end(text: &str, start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let open = at + text[at..].find("{%")?;
        let close = open + text[open..].find("%}")?;
        at = open + 2;
        if text[open + 2..close].trim_matches(['-', '+']).trim() == "endraw" {
            return Some(close + 2);
        }
    }
}

/// Returns the tokens of an expression.
pub(super) fn tokens(text: &str, range: Range<usize>) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = range.start;
    while let Some(token) = token(text, at..range.end) {
        at = token.range.end;
        tokens.push(token);
    }
    tokens
}

/// Returns the first token in the range.
fn token(text: &str, range: Range<usize>) -> Option<Token> {
    let rest = &text[range.clone()];
    let start = range.end - rest.trim_start().len();
    let rest = &text[start..range.end];
    let first = rest.chars().next()?;
    let run = |part: fn(char) -> bool| rest.find(|letter| !part(letter)).unwrap_or(rest.len());
    let (kind, length) = match first {
        '"' | '\'' => (TokenKind::Text, quoted(rest, first)),
        '0'..='9' => (TokenKind::Number, run(|letter| letter.is_ascii_digit() || letter == '_')),
        _ if first == '_' || first.is_alphabetic() => {
            (TokenKind::Name, run(|letter| letter == '_' || letter.is_alphanumeric()))
        }
        _ => {
            let is_long = LONG_SIGNS.iter().any(|sign| rest.starts_with(sign));
            (TokenKind::Symbol, if is_long { 2 } else { first.len_utf8() })
        }
    };
    Some(Token { range: start..start + length, kind })
}

/// Returns the length in bytes of the string that begins with this quote. An unclosed string extends to the end
/// of the input.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
