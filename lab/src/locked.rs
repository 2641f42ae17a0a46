//! A mutex that is locked only for the duration of a closure, so that it is never held across an await.

use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Runs `work` on the value. After a panic in an earlier `work` the value is used as it was left: for a test, a
    /// double with one inconsistent object is more useful than a double that no longer works at all.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
