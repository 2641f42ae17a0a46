//! Snapshots of subjects, the order between two of them, and the last known state.

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

/// The last known state of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The newest snapshot, as JSON. `None` after the subject was deleted.
    pub snapshot: Option<String>,
    /// True if the subject was deleted.
    pub deleted: bool,
    /// Number of changes applied to the subject.
    pub revision: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(updated_at: i64, occurred_at: i64, alive: bool) -> Snapshot {
        Snapshot { updated_at, occurred_at, data: alive.then(|| "{}".to_owned()) }
    }

    #[test]
    fn newer_wins_equal_is_not_older_and_a_deletion_is_final() {
        let old = snapshot(5, 9, true);
        assert!(snapshot(6, 0, true).replaces(&old));
        assert!(snapshot(5, 9, true).replaces(&old));
        assert!(!snapshot(5, 8, true).replaces(&old));
        assert!(snapshot(1, 1, false).replaces(&old));
        assert!(!snapshot(9, 9, true).replaces(&snapshot(1, 1, false)));
    }
}
