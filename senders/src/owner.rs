//! The subject of an event: the source that issued its key, and the key.

use usher_proto::{Instance, Key, Source, SubjectId, subject_key};

/// The one whom an event concerns. A user of Clerk whom another sender names is Clerk's user, whose events of all
/// senders are then processed in one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The source that issued the key.
    pub source: Source,
    /// The key, without personal data.
    pub key: Key,
}

impl Owner {
    /// Creates the owner with this id at Clerk.
    pub fn of_clerk(id: &str) -> Self {
        Self { source: Source::Clerk, key: subject_key::key(id) }
    }

    /// Creates the owner to whom `source` has given this id.
    pub fn of(source: Source, id: &str) -> Self {
        Self { source, key: subject_key::key(id) }
    }

    /// Returns the subject at an instance.
    pub fn subject(&self, instance: &Instance) -> SubjectId {
        SubjectId::new(self.source, instance, &self.key)
    }
}
