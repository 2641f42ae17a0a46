//! What is wrong with a flow file, said so that it can be mended: where, what, and what would be right.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// `; did you mean ...?` if one of `known` is close to `word`, else the list of all.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let closest = known.iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    match closest.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((likeness, candidate)) if likeness > 0.8 => format!("; did you mean {candidate}?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; it may be one of: {}", known.join(", ")),
    }
}
