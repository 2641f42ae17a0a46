//! The built-in events: one of each common type, about the same invented person, whose primary address is not the first
//! in the list.

/// Name and text. The name is the event's type.
const SAMPLES: [(&str, &str); 12] = [
    ("user.created", include_str!("samples/user.created.json")),
    ("user.updated", include_str!("samples/user.updated.json")),
    ("user.deleted", include_str!("samples/user.deleted.json")),
    ("session.created", include_str!("samples/session.created.json")),
    ("email.created", include_str!("samples/email.created.json")),
    ("sms.created", include_str!("samples/sms.created.json")),
    ("organization.created", include_str!("samples/organization.created.json")),
    ("organizationMembership.created", include_str!("samples/organizationMembership.created.json")),
    ("organizationMembership.deleted", include_str!("samples/organizationMembership.deleted.json")),
    ("organizationInvitation.created", include_str!("samples/organizationInvitation.created.json")),
    ("subscription.created", include_str!("samples/subscription.created.json")),
    ("waitlistEntry.created", include_str!("samples/waitlistEntry.created.json")),
];

/// The types of which there is a built-in event.
pub fn sample_names() -> Vec<&'static str> {
    SAMPLES.iter().map(|(name, _)| *name).collect()
}

/// The built-in event of a type.
pub(super) fn sample(name: &str) -> Option<&'static str> {
    SAMPLES.iter().find(|(have, _)| *have == name).map(|(_, text)| *text)
}
