//! An expression cut into words, as far as the check asks about it: which filters it names, what it compares with what, and
//! which signs of other languages it holds. What an expression means is minijinja's to say.

/// One piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, with what follows it by dots or constant subscripts: `user.public_metadata['plan']` has three parts.
    Path(Vec<&'a str>),
    /// A text in quotes, without them.
    Text(&'a str),
    /// A number.
    Number(&'a str),
    /// Anything else: an operator, a bracket, a comma.
    Sign(&'a str),
}

/// Signs of two characters.
const PAIRS: [&str; 8] = ["==", "!=", "<=", ">=", "&&", "||", "**", "//"];

/// The pieces of an expression, in order.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let (token, after) = next(rest);
        found.push(token);
        rest = after.trim_start();
    }
    found
}

/// The expressions and statements of a template, each without its braces.
pub(super) fn blocks(template: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), template);
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let opening = &rest[start..start + 2];
        let inside = &rest[start + 2..];
        let closing = match opening {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        let Some(end) = end_of(inside, closing) else { break };
        if opening != "{#" {
            found.push(inside[..end].trim_matches(['-', '+']));
        }
        rest = &inside[end + 2..];
    }
    found
}

/// The one expression that a text consists of, without its braces.
pub(super) fn whole(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?;
    let end = end_of(inside, "}}")?;
    (end + 2 == inside.len()).then(|| inside[..end].trim_matches('-').trim())
}

/// Where the closing braces stand that are in no text and close no brace of the expression itself.
fn end_of(inside: &str, closing: &str) -> Option<usize> {
    let (mut quote, mut open, mut chars) = (None, 0_usize, inside.char_indices());
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(begun), _) if begun == c => quote = None,
            (Some(_), _) => {}
            (None, _) if open == 0 && inside[at..].starts_with(closing) => return Some(at),
            (None, '"' | '\'') if closing != "#}" => quote = Some(c),
            (None, '{') => open += 1,
            (None, '}') => open = open.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

fn next(rest: &str) -> (Token<'_>, &str) {
    let first = rest.chars().next().unwrap_or_default();
    if first == '"' || first == '\'' {
        let length = text_length(rest, first);
        let inside = rest[1..length].strip_suffix(first).unwrap_or(&rest[1..length]);
        return (Token::Text(inside), &rest[length..]);
    }
    if first.is_ascii_digit() {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(rest.len());
        return (Token::Number(&rest[..length]), &rest[length..]);
    }
    if is_letter(first) {
        return path(rest);
    }
    let pair = rest.get(..2).filter(|pair| PAIRS.contains(pair));
    let length = pair.map_or(first.len_utf8(), str::len);
    (Token::Sign(&rest[..length]), &rest[length..])
}

fn path(rest: &str) -> (Token<'_>, &str) {
    let (mut parts, mut rest) = (Vec::new(), rest);
    loop {
        let length = rest.find(|c: char| !is_letter(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
        parts.push(&rest[..length]);
        rest = &rest[length..];
        while let Some((name, after)) = subscript(rest) {
            parts.push(name);
            rest = after;
        }
        match rest.strip_prefix('.') {
            Some(after) if after.starts_with(|c: char| is_letter(c) || c.is_ascii_digit()) => rest = after,
            _ => return (Token::Path(parts), rest),
        }
    }
}

/// `['name']` and what follows it.
fn subscript(rest: &str) -> Option<(&str, &str)> {
    let inside = rest.strip_prefix('[')?.trim_start();
    let quote = inside.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let length = text_length(inside, quote);
    let name = inside[1..length].strip_suffix(quote)?;
    Some((name, inside[length..].trim_start().strip_prefix(']')?))
}

/// Length of the text that `rest` begins with, its quotes included.
fn text_length(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_cut_into_paths_texts_numbers_and_signs() {
        use Token::{Number, Path, Sign, Text};
        let found = tokens("user.public_metadata['plan'] >= 1.5 and not x[0]|lower != \"it's \\\" \"");
        let expected = [
            Path(vec!["user", "public_metadata", "plan"]),
            Sign(">="),
            Number("1.5"),
            Path(vec!["and"]),
            Path(vec!["not"]),
            Path(vec!["x"]),
            Sign("["),
            Number("0"),
            Sign("]"),
            Sign("|"),
            Path(vec!["lower"]),
            Sign("!="),
            Text("it's \\\" "),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_text_is_too_odd_to_be_cut() {
        for text in ["'", "\"\\", "a.", "a['", "a[\"b\"", "\u{e9}\u{1f600}", "&& || !", "{{", "1e", "[']", "\u{0}"] {
            tokens(text);
            blocks(text);
            whole(text);
        }
    }

    #[test]
    fn a_templates_blocks_are_found_whatever_is_in_their_texts() {
        assert_eq!(
            blocks("a {{ x }} {%- if '%}' -%} {# {{ no }} #} {{ '}}' }} {{ {'a': {'b': 1}} }}"),
            [" x ", " if '%}' ", " '}}' ", " {'a': {'b': 1}} ",]
        );
    }

    #[test]
    fn one_expression_is_told_from_a_text_with_expressions() {
        assert_eq!(whole(" {{ user.age }} "), Some("user.age"));
        assert_eq!(whole("{{- '}}' -}}"), Some("'}}'"));
        for text in ["{{ a }} and {{ b }}", "{{ a }}!", "x", "{% if a %}{{ a }}{% endif %}"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
