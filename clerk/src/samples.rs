//! Samples of Clerk's events: one of each common type, and variants of some. All concern the same fictitious person,
//! whose primary address is not the first in the list.

use serde_json::{Value, json};

/// Name and JSON text of each sample. The name is the event's type; a suffix after a colon names the variant.
const SAMPLES: [(&str, &str); 16] = [
    ("user.created", include_str!("samples/user.created.json")),
    ("user.updated", include_str!("samples/user.updated.json")),
    ("user.updated:new-address", include_str!("samples/user.updated.new-address.json")),
    ("user.deleted", include_str!("samples/user.deleted.json")),
    ("session.created", include_str!("samples/session.created.json")),
    ("email.created", include_str!("samples/email.created.json")),
    ("email.created:invitation", include_str!("samples/email.created.invitation.json")),
    ("sms.created", include_str!("samples/sms.created.json")),
    ("organization.created", include_str!("samples/organization.created.json")),
    ("organizationMembership.created", include_str!("samples/organizationMembership.created.json")),
    ("organizationMembership.deleted", include_str!("samples/organizationMembership.deleted.json")),
    ("organizationInvitation.created", include_str!("samples/organizationInvitation.created.json")),
    ("subscription.created", include_str!("samples/subscription.created.json")),
    ("subscription.pastDue", include_str!("samples/subscription.pastDue.json")),
    ("subscriptionItem.freeTrialEnding", include_str!("samples/subscriptionItem.freeTrialEnding.json")),
    ("waitlistEntry.created", include_str!("samples/waitlistEntry.created.json")),
];

/// Returns the names of all samples: event types, some with the name of a variant after a colon.
pub fn names() -> Vec<&'static str> {
    SAMPLES.iter().map(|(name, _)| *name).collect()
}

/// Returns the JSON text of a sample. `None` if no sample has this name.
pub fn sample(name: &str) -> Option<&'static str> {
    SAMPLES.iter().find(|(have, _)| *have == name).map(|(_, text)| *text)
}

/// Returns the samples of events of this type, or one derived from its family if there are none. Empty if the family
/// has no sample either.
pub fn of_type(kind: &str) -> Vec<Value> {
    let read = |name: &str| sample(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let of_kind = |name: &&str| name.split(':').next() == Some(kind);
    let own: Vec<Value> = names().into_iter().filter(of_kind).filter_map(read).collect();
    if !own.is_empty() {
        return own;
    }
    let family = kind.split('.').next().unwrap_or_default();
    let is_known = names().iter().any(|name| name.split('.').next() == Some(family));
    if kind.ends_with(".deleted") && is_known {
        let data = json!({ "object": family, "id": "deleted_1", "slug": null, "deleted": true });
        return vec![json!({ "object": "event", "type": kind, "timestamp": 1_775_037_600_000_i64, "data": data })];
    }
    let relative = names().into_iter().find(|name| name.split('.').next() == Some(family)).and_then(read);
    let renamed = relative.map(|mut sample| {
        sample["type"] = Value::from(kind);
        sample
    });
    renamed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_types::EVENT_TYPES;

    #[test]
    fn every_sample_is_of_a_known_type() {
        for name in names() {
            let kind = name.split(':').next().unwrap_or_default();
            assert!(EVENT_TYPES.contains(&kind), "{name}");
            assert!(of_type(kind).iter().all(|sample| sample["type"] == kind), "{name}");
        }
    }

    #[test]
    fn a_type_without_a_sample_has_one_of_its_family() {
        assert_eq!(of_type("session.ended")[0]["data"]["object"], "session");
        assert_eq!(of_type("organization.deleted")[0]["data"]["deleted"], true);
        assert_eq!(of_type("user.updated").len(), 2);
        assert!(of_type("role.created").is_empty());
    }
}
