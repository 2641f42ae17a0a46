//! Who may be written to changes: events of source `usher` that every flow applies when it admits them. They name an
//! address by its digest alone, so that the log and the store keep nothing that would have to be erased.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::AddressDigest;
use crate::{Event, EventId, Instance, Source, SubjectId, Timestamp};

/// The scope of all mail, whatever list it belongs to.
pub const EVERYTHING: &str = "all";

/// What happens to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppressionKind {
    /// It is not to be written to any more: it bounces, its owner has complained, or an operator says so.
    Suppressed,
    /// Its owner wants no more mail of a list.
    Unsubscribed,
    /// It may be written to again.
    Restored,
}

impl SuppressionKind {
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
pub struct SuppressionChange {
    /// What happens.
    pub kind: SuppressionKind,
    /// To which address.
    pub address: AddressDigest,
    /// A list, or [`EVERYTHING`].
    pub scope: String,
    /// In a word why: `operator`, `one_click`, `bounce`, `complaint`.
    pub reason: String,
    /// Who says so; empty where it is nobody in particular.
    pub by: String,
    /// The instance whose mail it concerns; none where it concerns that of every one, as only an operator can say.
    pub instance: Option<Instance>,
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
    /// Absent in what earlier versions wrote, which concerned every instance.
    #[serde(default)]
    one_instance: bool,
}

impl SuppressionChange {
    /// The event that says so, in order with what else concerns `subject`. Where it concerns one instance, that is the
    /// subject's.
    pub fn into_event(self, id: EventId, subject: SubjectId, now: Timestamp) -> Event {
        let Self { kind, address, scope, reason, by, instance } = self;
        let data = Data { address: address.to_string(), scope, reason, by, one_instance: instance.is_some() };
        // Texts are always JSON.
        let body = serde_json::to_vec(&Body { data }).unwrap_or_default();
        Event {
            id,
            kind: kind.label().to_owned(),
            source: Source::Usher,
            subject,
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
        let kind = SuppressionKind::ALL.into_iter().find(|kind| kind.label() == event.kind)?;
        let Body { data } = serde_json::from_slice(&event.body).ok()?;
        let Data { address, scope, reason, by, one_instance } = data;
        let instance = if one_instance { Some(event.instance().parse().ok()?) } else { None };
        Some(Self { kind, address: address.parse().ok()?, scope, reason, by, instance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn a_change_is_read_back_and_only_from_usher_itself() {
        let staging: Instance = "staging".parse().expect("a name");
        for (kind, instance) in
            SuppressionKind::ALL.into_iter().zip([None, Some(staging.clone()), Some(staging.clone())])
        {
            let change = SuppressionChange {
                kind,
                address: AddressDigest::of("dana@work.test"),
                scope: "news".into(),
                reason: "one_click".into(),
                by: String::new(),
                instance,
            };
            let subject = SubjectId::new(Source::Clerk, &staging, &Key::new("user_1"));
            let event = change.clone().into_event(EventId::new("e"), subject, Timestamp::from_seconds(9));
            assert!(!String::from_utf8_lossy(&event.body).contains('@'), "no address in clear");
            assert_eq!(SuppressionChange::of(&event), Some(change));
            assert_eq!(SuppressionChange::of(&Event { source: Source::Clerk, ..event.clone() }), None);
            assert_eq!(SuppressionChange::of(&Event { kind: "address.moved".into(), ..event }), None);
        }
    }
}
