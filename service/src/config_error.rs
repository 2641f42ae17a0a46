//! The error for a setting, an option or a flow file that an operator has to correct.

/// An invalid setting. The text names the key, its value (unless secret), and the valid values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// Creates the error for the setting `key`. `explanation` states the problem and a valid value.
    pub fn new(key: &str, explanation: impl std::fmt::Display) -> Self {
        Self(format!("{key}: {explanation}"))
    }
}
