//! Snapshots of subjects, and the order between two of them.

/// The state of a subject in one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Time of the subject's last change by the source's clock, in ms since 1970.
    pub updated_at: i64,
    /// Time of the event, in ms since 1970. Decides between snapshots with equal `updated_at`.
    pub occurred_at: i64,
    /// The whole object as JSON. `None` if the subject was deleted.
    pub data: Option<String>,
}

impl Snapshot {
    /// True if this snapshot replaces `other`, which was applied before it. A deletion always wins and is final.
    /// Otherwise the newer snapshot wins, and of two with equal times the one that is applied later.
    pub fn replaces(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) => (self.updated_at, self.occurred_at) >= (other.updated_at, other.occurred_at),
        }
    }
}
