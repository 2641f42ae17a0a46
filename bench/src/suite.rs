//! Options that all suites share.

/// Rounds and arms of a run.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    /// Number of rounds; each runs every arm once.
    pub(crate) count: usize,
    /// True if it only has to show that everything works.
    pub(crate) quick: bool,
    /// Texts, one of which the name of an arm must contain. All arms run if there are none.
    pub(crate) only: Vec<String>,
}

impl Rounds {
    /// True if an arm of this name is to run.
    pub(crate) fn wants(&self, arm: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| arm.contains(only))
    }
}
