//! The error of a setting, an option or a flow file that somebody has to mend.

/// A setting that is not right: names the key, what it was (unless secret), and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// A setting `key` for which `explanation` says what is wrong and what would be right.
    pub fn new(key: &str, explanation: impl std::fmt::Display) -> Self {
        Self(format!("{key}: {explanation}"))
    }
}
