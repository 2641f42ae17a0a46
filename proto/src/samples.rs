//! Samples of Clerk's events: one of each common type, and some in another form, about the same invented person, whose
//! primary address is not the first in the list.

/// Name and text. The name is the event's type; what follows a colon says which form of it.
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

/// Names of the samples: types, some with a form behind a colon.
pub fn names() -> Vec<&'static str> {
    SAMPLES.iter().map(|(name, _)| *name).collect()
}

/// The sample of this name, as JSON.
pub fn sample(name: &str) -> Option<&'static str> {
    SAMPLES.iter().find(|(have, _)| *have == name).map(|(_, text)| *text)
}
