//! Problems of flow files. A message gives the place, the problem and its remedy.

use std::fmt;

/// One error or warning about a flow file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The path of the file, as shown in messages.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The problem and its remedy.
    pub message: String,
}

impl Problem {
    /// Sorts problems by file and line and removes duplicates.
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

/// Minimum Jaro-Winkler similarity, from 0 to 1, at which one word is suggested for another.
const LIKE: f64 = 0.8;

/// Returns the word of `known` that is most similar to `word`; `None` if none is similar enough.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &'a str| (strsim::jaro_winkler(word, candidate), candidate);
    let closest = known.into_iter().map(likeness).max_by(|(a, _), (b, _)| a.total_cmp(b));
    closest.filter(|(likeness, _)| *likeness > LIKE).map(|(_, candidate)| candidate)
}

/// Returns `; did you mean ...?` if one of `known` is similar to `word`, otherwise the list of all of them.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("; did you mean {candidate}?"),
        None if known.is_empty() => String::new(),
        None => format!("; it may be one of: {}", known.join(", ")),
    }
}
