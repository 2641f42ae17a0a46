//! The key of an event: whom it concerns, and so what is kept in order.

use std::fmt;

/// A user id where there is one, else an organization id, else the object's own id. Opaque text of unstated length.
///
/// It may hold an address (a code sent before the account exists is keyed by its recipient), so `Debug` hides it; show
/// it to operators only, never in logs or metrics.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A key with this text. Empty text is no key: use what identifies the event instead.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text that goes into the log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}
