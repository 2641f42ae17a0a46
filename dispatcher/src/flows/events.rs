//! The known events of Clerk: their types, and samples of most of them.
//!
//! Source: Clerk's webhook specification (clerk/openapi-specs, 2025-04-15) and its pages on webhooks. The specification
//! grows about once a month, so a type that is not listed here may still be correct.

use serde_json::{Value, json};
use usher_proto::samples;

use super::problem;

/// The known types of Clerk's events, without their source.
pub(super) const CLERK: [&str; 46] = [
    "user.created",
    "user.updated",
    "user.deleted",
    "session.created",
    "session.pending",
    "session.ended",
    "session.removed",
    "session.revoked",
    "email.created",
    "sms.created",
    "organization.created",
    "organization.updated",
    "organization.deleted",
    "organizationMembership.created",
    "organizationMembership.updated",
    "organizationMembership.deleted",
    "organizationInvitation.created",
    "organizationInvitation.accepted",
    "organizationInvitation.revoked",
    "organizationDomain.created",
    "organizationDomain.updated",
    "organizationDomain.deleted",
    "role.created",
    "role.updated",
    "role.deleted",
    "permission.created",
    "permission.updated",
    "permission.deleted",
    "waitlistEntry.created",
    "waitlistEntry.updated",
    "subscription.created",
    "subscription.updated",
    "subscription.active",
    "subscription.pastDue",
    "subscriptionItem.created",
    "subscriptionItem.updated",
    "subscriptionItem.active",
    "subscriptionItem.canceled",
    "subscriptionItem.upcoming",
    "subscriptionItem.ended",
    "subscriptionItem.abandoned",
    "subscriptionItem.incomplete",
    "subscriptionItem.pastDue",
    "subscriptionItem.freeTrialEnding",
    "paymentAttempt.created",
    "paymentAttempt.updated",
];

/// Returns the type that is most similar to `word`, if any is similar.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    problem::nearest(word, CLERK)
}

/// Returns the family of types, including its dot, that is most similar to `word`, if any is similar.
pub(super) fn nearest_family(word: &str) -> Option<&'static str> {
    let families = CLERK.iter().filter_map(|kind| kind.split_inclusive('.').next());
    problem::nearest(word, families)
}

/// Returns the samples of events of this type, or one derived from its family if there are none. Empty if the family
/// has no sample either.
pub(super) fn samples(kind: &str) -> Vec<Value> {
    let read = |name: &str| samples::sample(name).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let of_kind = |name: &&str| name.split(':').next() == Some(kind);
    let own: Vec<Value> = samples::names().into_iter().filter(of_kind).filter_map(read).collect();
    if !own.is_empty() {
        return own;
    }
    let family = kind.split('.').next().unwrap_or_default();
    let is_known = samples::names().iter().any(|name| name.split('.').next() == Some(family));
    if kind.ends_with(".deleted") && is_known {
        let data = json!({ "object": family, "id": "deleted_1", "slug": null, "deleted": true });
        return vec![json!({ "object": "event", "type": kind, "timestamp": 1_775_037_600_000_i64, "data": data })];
    }
    let relative = samples::names().into_iter().find(|name| name.split('.').next() == Some(family)).and_then(read);
    let renamed = relative.map(|mut sample| {
        sample["type"] = Value::from(kind);
        sample
    });
    renamed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_of_a_known_type_and_every_type_has_its_own_name() {
        for name in samples::names() {
            let kind = name.split(':').next().unwrap_or_default();
            assert!(CLERK.contains(&kind), "{name}");
            assert!(samples(kind).iter().all(|sample| sample["type"] == kind), "{name}");
        }
        let mut types = CLERK.to_vec();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), CLERK.len());
    }

    #[test]
    fn a_type_without_a_sample_has_one_of_its_family() {
        assert_eq!(samples("session.ended")[0]["data"]["object"], "session");
        assert_eq!(samples("organization.deleted")[0]["data"]["deleted"], true);
        assert_eq!(samples("user.updated").len(), 2);
        assert!(samples("role.created").is_empty());
        assert_eq!(nearest("user.create"), Some("user.created"));
    }
}
