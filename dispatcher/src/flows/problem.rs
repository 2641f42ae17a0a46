//! What is wrong with a flow file, said so that it can be mended: where, what, and what would be right.

use std::fmt;

/// One thing that is wrong, or may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// By file and line, each once.
    pub(super) fn in_order(mut problems: Vec<Self>) -> Vec<Self> {
        problems.sort();
        problems.dedup();
        problems
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Least likeness of two words, from 0 to 1, of which one may be meant by the other.
const LIKE: f64 = 0.8;

/// The one of `known` that is most like `word`, if any is like it.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &'a str| (strsim::jaro_winkler(word, candidate), candidate);
    let closest = known.into_iter().map(likeness).max_by(|(a, _), (b, _)| a.total_cmp(b));
    closest.filter(|(likeness, _)| *likeness > LIKE).map(|(_, candidate)| candidate)
}

/// `; did you mean ...?` if one of `known` is like `word`, else the list of all.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("; did you mean {candidate}?"),
        None if known.is_empty() => String::new(),
        None => format!("; it may be one of: {}", known.join(", ")),
    }
}
