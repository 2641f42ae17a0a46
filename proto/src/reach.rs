//! Who may be written to changes: events of source `usher` that every flow applies when it admits them. They name an
//! address by its digest alone, so that the log and the store keep nothing that would have to be erased.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::AddressDigest;
use crate::event::DEFAULT_INSTANCE;
use crate::{Event, EventId, Key, Source, Timestamp};

/// The scope of all mail, whatever list it belongs to.
pub const EVERYTHING: &str = "all";

/// What happens to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReachKind {
    /// It is not to be written to any more: it bounces, its owner has complained, or an operator says so.
    Suppressed,
    /// Its owner wants no more mail of a list.
    Unsubscribed,
    /// It may be written to again.
    Restored,
}

impl ReachKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Suppressed, Self::Unsubscribed, Self::Restored];

    /// The event's type.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Suppressed => "address.suppressed",
            Self::Unsubscribed => "address.unsubscribed",
            Self::Restored => "address.restored",
        }
    }
}

/// A change of who may be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachChange {
    /// What happens.
    pub kind: ReachKind,
    /// To which address.
    pub address: AddressDigest,
    /// A list, or [`EVERYTHING`].
    pub scope: String,
    /// In a word why: `operator`, `one_click`, `bounce`, `complaint`.
    pub reason: String,
    /// Who says so; empty where it is nobody in particular.
    pub by: String,
}

#[derive(Serialize, Deserialize)]
struct Body {
    data: Data,
}

#[derive(Serialize, Deserialize)]
struct Data {
    address: String,
    scope: String,
    reason: String,
    by: String,
}

impl ReachChange {
    /// The event that says so.
    pub fn into_event(self, id: EventId, key: Key, now: Timestamp) -> Event {
        let Self { kind, address, scope, reason, by } = self;
        let data = Data { address: address.to_string(), scope, reason, by };
        // Texts are always JSON.
        let body = serde_json::to_vec(&Body { data }).unwrap_or_default();
        Event {
            id,
            kind: kind.label().to_owned(),
            source: Source::Usher,
            instance: DEFAULT_INSTANCE.to_owned(),
            key,
            occurred_at: now,
            received_at: now,
            provenance: Vec::new(),
            body: Bytes::from(body),
        }
    }

    /// What an event says, if it says such a thing.
    pub fn of(event: &Event) -> Option<Self> {
        if event.source != Source::Usher {
            return None;
        }
        let kind = ReachKind::ALL.into_iter().find(|kind| kind.label() == event.kind)?;
        let Body { data: Data { address, scope, reason, by } } = serde_json::from_slice(&event.body).ok()?;
        Some(Self { kind, address: address.parse().ok()?, scope, reason, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_back_and_only_from_usher_itself() {
        for kind in ReachKind::ALL {
            let change = ReachChange {
                kind,
                address: AddressDigest::of("dana@work.test"),
                scope: "news".into(),
                reason: "one_click".into(),
                by: String::new(),
            };
            let event = change.clone().into_event(EventId::new("e"), Key::new("user_1"), Timestamp::from_seconds(9));
            assert!(!String::from_utf8_lossy(&event.body).contains('@'), "no address in clear");
            assert_eq!(ReachChange::of(&event), Some(change));
            assert_eq!(ReachChange::of(&Event { source: Source::Clerk, ..event.clone() }), None);
            assert_eq!(ReachChange::of(&Event { kind: "address.moved".into(), ..event }), None);
        }
    }
}
