//! Splits an expression into pieces for the check, which examines the names of filters, the operands of comparisons and
//! the operators of other languages. The meaning of an expression is left to minijinja.

use super::lexer::{self, Token, TokenKind};

/// One piece of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A name with its fields, accessed by dots or constant subscripts: `user.public_metadata['plan']` has three parts.
    Path(Vec<&'a str>),
    /// The content of a quoted string.
    Text(&'a str),
    /// A number.
    Number(&'a str),
    /// Anything else: an operator, a bracket, a comma.
    Symbol(&'a str),
}

/// Returns the pieces of an expression, in order.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let tokens = lexer::tokens(text, 0..text.len());
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let reader = Reader { text, tokens: &tokens };
        let (piece, next) = reader.piece(at);
        found.push(piece);
        at = next;
    }
    found
}

/// Returns the expressions and statements of a template, each without its braces.
pub(super) fn blocks(template: &str) -> Vec<&str> {
    lexer::regions(template).into_iter().map(|region| &template[region.range]).collect()
}

/// Returns the expression, without its braces, if the text consists of exactly one.
pub(super) fn whole(text: &str) -> Option<&str> {
    let region = match &lexer::regions(text)[..] {
        [region] if region.is_printed => region.range.clone(),
        _ => return None,
    };
    let is_all = |around: &str, braces: &str| around.trim().trim_matches(['-', '+']) == braces;
    let is_alone = is_all(&text[..region.start], "{{") && is_all(&text[region.end..], "}}");
    is_alone.then(|| text[region].trim())
}

struct Reader<'a, 't> {
    text: &'a str,
    tokens: &'t [Token],
}

impl<'a> Reader<'a, '_> {
    fn word(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| &self.text[token.range.clone()])
    }

    fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// Returns the piece that begins at a token, and the index of the token after it.
    fn piece(&self, at: usize) -> (Piece<'a>, usize) {
        match self.tokens[at].kind {
            TokenKind::Name => self.path(at),
            TokenKind::Text => (Piece::Text(unquoted(self.word(at))), at + 1),
            TokenKind::Number if self.word(at + 1) == "." && self.kind(at + 2) == Some(TokenKind::Number) => {
                let range = self.tokens[at].range.start..self.tokens[at + 2].range.end;
                (Piece::Number(&self.text[range]), at + 3)
            }
            TokenKind::Number => (Piece::Number(self.word(at)), at + 1),
            TokenKind::Symbol => (Piece::Symbol(self.word(at)), at + 1),
        }
    }

    fn path(&self, at: usize) -> (Piece<'a>, usize) {
        let mut parts = vec![self.word(at)];
        let mut at = at + 1;
        loop {
            match (self.word(at), self.kind(at + 1)) {
                (".", Some(TokenKind::Name | TokenKind::Number)) => {
                    parts.push(self.word(at + 1));
                    at += 2;
                }
                ("[", Some(TokenKind::Text)) if self.word(at + 2) == "]" => {
                    parts.push(unquoted(self.word(at + 1)));
                    at += 3;
                }
                _ => return (Piece::Path(parts), at),
            }
        }
    }
}

/// Returns a string without its quotes. The closing quote may be missing.
fn unquoted(text: &str) -> &str {
    let quote = text.chars().next().unwrap_or_default();
    let inside = &text[quote.len_utf8().min(text.len())..];
    inside.strip_suffix(quote).unwrap_or(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_cut_into_paths_texts_numbers_and_signs() {
        use Piece::{Number, Path, Symbol, Text};
        let found = pieces("user.public_metadata['plan'] >= 1.5 and not x[0]|lower != \"it's \\\" \"");
        let expected = [
            Path(vec!["user", "public_metadata", "plan"]),
            Symbol(">="),
            Number("1.5"),
            Path(vec!["and"]),
            Path(vec!["not"]),
            Path(vec!["x"]),
            Symbol("["),
            Number("0"),
            Symbol("]"),
            Symbol("|"),
            Path(vec!["lower"]),
            Symbol("!="),
            Text("it's \\\" "),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_text_is_too_odd_to_be_cut() {
        for text in ["'", "\"\\", "a.", "a['", "a[\"b\"", "\u{e9}\u{1f600}", "&& || !", "{{", "1e", "[']", "\u{0}"] {
            pieces(text);
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
