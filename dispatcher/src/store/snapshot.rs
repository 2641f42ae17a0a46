//! What an event says of its subject, and which of two sayings counts.

use serde::Deserialize;
use serde_json::value::RawValue;
use usher_proto::{Event, Source};

/// The state of a subject as one event has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the subject last changed, by its own clock, in milliseconds.
    pub updated_at: i64,
    /// When the event happened, in milliseconds: decides between equal `updated_at`.
    pub occurred_at: i64,
    /// The whole object as JSON; none if it was deleted.
    pub data: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    updated_at: Option<i64>,
}

impl Snapshot {
    /// Reads the snapshot out of an event that holds one. Every `user.*` event of Clerk is a whole snapshot, but for the
    /// deletion, which says only that.
    pub fn of(event: &Event) -> Option<Self> {
        if event.source != Source::Clerk {
            return None;
        }
        let occurred_at = event.occurred_at.millis();
        match event.kind.as_str() {
            "user.deleted" => Some(Self { updated_at: occurred_at, occurred_at, data: None }),
            "user.created" | "user.updated" => {
                let envelope: Envelope<'_> = serde_json::from_slice(&event.body).ok()?;
                let version: Versioned = serde_json::from_str(envelope.data.get()).ok()?;
                let updated_at = version.updated_at.unwrap_or(occurred_at);
                Some(Self { updated_at, occurred_at, data: Some(envelope.data.get().to_owned()) })
            }
            _ => None,
        }
    }

    /// Whether this one counts where `other` came before it: a deletion always wins, newer wins, equal is not older.
    pub fn replaces(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) => (self.updated_at, self.occurred_at) >= (other.updated_at, other.occurred_at),
        }
    }
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
