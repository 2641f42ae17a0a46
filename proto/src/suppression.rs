//! Changes of the suppression list, as events of source `usher`. Every flow applies them when it admits them. They
//! identify an address by its digest only, so the log and the store keep nothing that would have to be erased.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::AddressDigest;
use crate::{Event, EventId, Instance, Source, SubjectId, Timestamp};

/// The scope that covers all mail, regardless of its list.
pub const ALL_LISTS: &str = "all";

/// The kind of a suppression change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuppressionKind {
    /// No mail is sent to the address any more: it bounces, its owner complained, or an operator suppressed it.
    Suppressed,
    /// The owner of the address unsubscribed from a list.
    Unsubscribed,
    /// Mail may be sent to the address again.
    Restored,
}

impl SuppressionKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Suppressed, Self::Unsubscribed, Self::Restored];

    /// The event's type, such as `address.suppressed`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Suppressed => "address.suppressed",
            Self::Unsubscribed => "address.unsubscribed",
            Self::Restored => "address.restored",
        }
    }
}

/// An entry of the suppression list: an address that must not be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppressionEntry {
    /// The digest of the address.
    pub address: AddressDigest,
    /// The mailing list that the entry covers, or [`ALL_LISTS`] for all mail.
    pub scope: String,
}

/// One change of the suppression list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppressionChange {
    /// The kind of the change.
    pub kind: SuppressionKind,
    /// Digest of the address.
    pub address: AddressDigest,
    /// The name of a list, or [`ALL_LISTS`].
    pub scope: String,
    /// The reason: `operator`, `one_click`, `bounce` or `complaint`.
    pub reason: String,
    /// The person who made the change; empty if it was no specific person.
    pub by: String,
    /// The instance whose mail is affected. `None` affects every instance, which only an operator can request.
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
    /// Absent in events of earlier versions, which affected every instance.
    #[serde(default)]
    one_instance: bool,
}

impl SuppressionChange {
    /// Converts the change into an event of `subject`, so that it is processed in order with the other events of that
    /// subject. If the change affects a single instance, that is the instance of the subject.
    pub fn into_event(self, id: EventId, subject: SubjectId, now: Timestamp) -> Event {
        let Self { kind, address, scope, reason, by, instance } = self;
        let data = Data { address: address.to_string(), scope, reason, by, one_instance: instance.is_some() };
        // Serialising strings cannot fail.
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

    /// Returns the suppression change that an event carries. `None` if the event carries none.
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
