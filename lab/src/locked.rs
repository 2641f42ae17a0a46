//! A mutex that is held for the length of a closure and no longer, so that it can never be held across an await.

use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Runs `work` on the value. After a panic in an earlier `work` the value is used as it was left: a double with one
    /// odd object is more use to a test than a double that is dead for everybody.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
