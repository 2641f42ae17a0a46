//! The meaning of null in expressions, in the cases where the engine's own rules do not fit an absent value. Null has
//! no fields, but a field access below metadata results in null again. Nothing is `in` null. Null is neither less nor
//! greater than any value.
//!
//! The engine cannot be configured to do this, so expressions are rewritten before they are compiled:
//!
//! | written | compiled |
//! |---|---|
//! | `user.public_metadata.plan.tier` | `(user.public_metadata\|_below('plan')\|_below('tier'))` |
//! | `a in b` | `a in (b\|_members)` |
//! | `a < b`, `a <= b` | `(a\|_at_most) < b` |
//! | `a > b`, `a >= b` | `a > (b\|_at_most)` |
//!
//! Line numbers do not change, so that errors name the right line.

use std::ops::Range;

use super::functions::{AT_MOST, BELOW, MEMBERS, PRINTED};
use super::lexer::{self, Region, Token, TokenKind};
use super::sent::METADATA;

/// Returns a template with its expressions rewritten.
pub(super) fn template(text: &str) -> String {
    rewritten(text, &lexer::regions(text))
}

/// Rewrites an expression.
pub(super) fn expression(text: &str) -> String {
    rewritten(text, &[Region { range: 0..text.len(), is_printed: false }])
}

/// Rewrites an expression whose value is passed on unchanged, so that numbers keep the digits that were sent.
pub(super) fn printed(text: &str) -> String {
    rewritten(text, &[Region { range: 0..text.len(), is_printed: true }])
}

fn rewritten(text: &str, regions: &[Region]) -> String {
    let mut edits = Vec::new();
    for region in regions {
        let tokens = lexer::tokens(text, region.range.clone());
        let rewriter = Rewriter { text, tokens: &tokens, is_printed: region.is_printed };
        rewriter.chains(&mut edits);
        rewriter.operators(&mut edits);
    }
    edits.sort_by_key(|edit| (edit.place.start, edit.rank));
    let mut whole = String::with_capacity(text.len());
    let mut copied = 0;
    for Edit { place, text: new, .. } in edits {
        whole.push_str(&text[copied..place.start]);
        whole.push_str(&new);
        copied = place.end;
    }
    whole + &text[copied..]
}

/// A range of the text and its replacement.
struct Edit {
    place: Range<usize>,
    /// The order of edits at the same place.
    rank: Rank,
    text: String,
}

/// The order of edits at the same place. Ends come before beginnings, and a chain is nested inside of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    ChainEnds,
    OperandEnds,
    OperandBegins,
    ChainBegins,
    Replaced,
}

impl Edit {
    fn inserted(at: usize, rank: Rank, text: &str) -> Self {
        Self { place: at..at, rank, text: text.to_owned() }
    }
}

/// Words that are not names.
const KEYWORDS: [&str; 10] = ["and", "or", "not", "if", "elif", "else", "in", "is", "for", "set"];
/// Words that end an operand of a comparison.
const BETWEEN: [&str; 8] = ["and", "or", "if", "elif", "else", "in", "not", "recursive"];
/// Operators that can occur within an operand of a comparison.
const ARITHMETIC: [&str; 8] = ["+", "-", "~", "*", "/", "//", "%", "**"];
const BETWEEN_SIGNS: [&str; 9] = ["==", "!=", "<", "<=", ">", ">=", ",", ":", "="];

struct Rewriter<'a> {
    text: &'a str,
    tokens: &'a [Token],
    /// True if the tokens are a complete expression whose value is printed or passed on.
    is_printed: bool,
}

impl Rewriter<'_> {
    fn word(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &self.text[token.range.clone()])
    }

    fn is_name(&self, index: usize) -> bool {
        let is_name = |token: &Token| token.kind == TokenKind::Name;
        self.tokens.get(index).is_some_and(is_name) && !KEYWORDS.contains(&self.word(index))
    }

    /// Returns the index after the bracket that closes the one at `open`.
    fn closed(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for index in open..self.tokens.len() {
            match self.word(index) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the index of the bracket that the one at `close` closes.
    fn opened(&self, close: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for index in (0..=close).rev() {
            match self.word(index) {
                ")" | "]" | "}" => depth += 1,
                "(" | "[" | "{" => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(index);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Rewrites the field accesses below metadata.
    fn chains(&self, edits: &mut Vec<Edit>) {
        for index in 0..self.tokens.len() {
            let Some(first) = self.behind_metadata(index) else { continue };
            let Some(start) = self.chain_start(index) else { continue };
            let mut steps = Vec::new();
            let mut next = first;
            while let Some(behind) = self.step(next) {
                steps.push(next..behind);
                next = behind;
            }
            let Some(last) = steps.last().cloned() else { continue };
            let to_json = self.word(next) == "|" && self.word(next + 1) == "tojson";
            let alone = self.is_printed && start == 0 && next == self.tokens.len();
            edits.push(Edit::inserted(self.tokens[start].range.start, Rank::ChainBegins, "("));
            for step in steps {
                let filter = if step == last && (to_json || alone) { PRINTED } else { BELOW };
                self.take_step(step, filter, edits);
            }
            edits.push(Edit::inserted(self.tokens[next - 1].range.end, Rank::ChainEnds, ")"));
        }
    }

    /// Returns the index of the first token after a metadata field, if the token at `index` names one.
    fn behind_metadata(&self, index: usize) -> Option<usize> {
        let before = index.checked_sub(1)?;
        let token = &self.tokens[index];
        match (self.word(before), token.kind) {
            (".", TokenKind::Name) if METADATA.contains(&self.word(index)) => Some(index + 1),
            ("[", TokenKind::Text) if self.word(index + 1) == "]" && before > 0 => {
                let text = self.word(index);
                METADATA.contains(&&text[1..text.len() - 1]).then_some(index + 2)
            }
            _ => None,
        }
    }

    /// Returns the index after the field access that begins at `index`: `.name`, `.0` or `[...]`, but not a call
    /// or a slice.
    fn step(&self, index: usize) -> Option<usize> {
        match self.word(index) {
            "." => {
                let token = self.tokens.get(index + 1)?;
                let is_step = matches!(token.kind, TokenKind::Name | TokenKind::Number) && self.word(index + 2) != "(";
                is_step.then_some(index + 2)
            }
            "[" => {
                let behind = self.closed(index)?;
                let is_slice = (index + 1..behind).any(|inner| self.word(inner) == ":");
                (!is_slice).then_some(behind)
            }
            _ => None,
        }
    }

    fn take_step(&self, step: Range<usize>, filter: &str, edits: &mut Vec<Edit>) {
        let place = |index: usize| self.tokens[index].range.clone();
        let mut replace = |place: Range<usize>, text: String| edits.push(Edit { place, rank: Rank::Replaced, text });
        if self.word(step.start) == "[" {
            replace(place(step.start), format!("|{filter}("));
            replace(place(step.end - 1), ")".to_owned());
        } else {
            let name = self.word(step.start + 1);
            let is_number = self.tokens[step.start + 1].kind == TokenKind::Number;
            let key = if is_number { name.to_owned() } else { format!("'{name}'") };
            replace(place(step.start), String::new());
            replace(place(step.start + 1), format!("|{filter}({key})"));
        }
    }

    /// Returns the first token of the chain that ends in the metadata field at `index`.
    fn chain_start(&self, index: usize) -> Option<usize> {
        // The token at `index - 1` is the dot or the bracket.
        let mut at = index.checked_sub(2)?;
        loop {
            if matches!(self.word(at), "]" | ")") {
                let open = self.opened(at)?;
                let is_call_or_item = open > 0 && (self.is_name(open - 1) || matches!(self.word(open - 1), "]" | ")"));
                if !is_call_or_item {
                    return Some(open);
                }
                at = open - 1;
            } else if self.is_name(at) {
                if at < 2 || self.word(at - 1) != "." {
                    return Some(at);
                }
                at -= 2;
            } else {
                return None;
            }
        }
    }

    fn operators(&self, edits: &mut Vec<Edit>) {
        let mut is_loop = self.word(0) == "for";
        for index in 0..self.tokens.len() {
            let (operand, filter) = match (self.tokens[index].kind, self.word(index)) {
                // A field named `in` and the `in` of a loop are not operators.
                (TokenKind::Name, "in") if self.is_field(index) => continue,
                (TokenKind::Name, "in") if is_loop => {
                    is_loop = false;
                    continue;
                }
                (TokenKind::Name, "in") => (self.operand_behind(index), MEMBERS),
                (TokenKind::Symbol, "<" | "<=") => (self.operand_before(index), AT_MOST),
                (TokenKind::Symbol, ">" | ">=") => (self.operand_behind(index), AT_MOST),
                _ => continue,
            };
            let (Some(first), Some(last)) =
                (self.tokens.get(operand.start), self.tokens.get(operand.end.wrapping_sub(1)))
            else {
                continue;
            };
            if !operand.is_empty() {
                // A filter binds tighter than arithmetic operators.
                let is_compound = operand.clone().any(|index| ARITHMETIC.contains(&self.word(index)));
                let (begin, end) = if is_compound { ("((", ")") } else { ("(", "") };
                edits.push(Edit::inserted(first.range.start, Rank::OperandBegins, begin));
                edits.push(Edit::inserted(last.range.end, Rank::OperandEnds, &format!("{end}|{filter})")));
            }
        }
    }

    /// True if the token at `index` follows a dot.
    fn is_field(&self, index: usize) -> bool {
        index.checked_sub(1).is_some_and(|before| self.word(before) == ".")
    }

    fn is_between(&self, index: usize) -> bool {
        match self.tokens[index].kind {
            TokenKind::Name => BETWEEN.contains(&self.word(index)) && !self.is_field(index),
            TokenKind::Symbol => BETWEEN_SIGNS.contains(&self.word(index)),
            TokenKind::Text | TokenKind::Number => false,
        }
    }

    fn operand_behind(&self, operator: usize) -> Range<usize> {
        let mut at = operator + 1;
        while at < self.tokens.len() && !self.is_between(at) && !matches!(self.word(at), ")" | "]" | "}") {
            at = match self.word(at) {
                "(" | "[" | "{" => self.closed(at).unwrap_or(self.tokens.len()),
                _ => at + 1,
            };
        }
        operator + 1..at
    }

    fn operand_before(&self, operator: usize) -> Range<usize> {
        let mut at = operator;
        while at > 0 && !self.is_between(at - 1) && !matches!(self.word(at - 1), "(" | "[" | "{") {
            at = match self.word(at - 1) {
                ")" | "]" | "}" => self.opened(at - 1).unwrap_or(0),
                _ => at - 1,
            };
        }
        at..operator
    }
}

#[cfg(test)]
mod tests;
