//! Samples of Clerk's events: one of each common type, and variants of some. All concern the same fictitious person,
//! whose primary address is not the first in the list.

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
