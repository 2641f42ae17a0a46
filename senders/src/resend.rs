//! Resend's events: the known types, and whom an event concerns.
//!
//! Source: resend.com/docs (webhooks, event types).

use usher_proto::{Json, Source};

use crate::Owner;

/// The types of Resend's events.
pub const EVENT_TYPES: &[&str] = &[
    "email.sent",
    "email.scheduled",
    "email.delivered",
    "email.delivery_delayed",
    "email.opened",
    "email.clicked",
    "email.bounced",
    "email.complained",
    "email.failed",
    "email.suppressed",
    "email.received",
    "contact.created",
    "contact.updated",
    "contact.deleted",
    "domain.created",
    "domain.updated",
    "domain.deleted",
    "suppression.added",
    "suppression.removed",
];

/// Returns the one whom an event concerns: the user of Clerk in the mail's tag `clerk_user_id`, else the mail, else the
/// delivery. `data` is the body's `data`, and `delivery` the delivery's id.
///
/// The user is looked for in the instance whose account sent the mail.
pub fn owner(data: Option<Json<'_>>, delivery: &str) -> Owner {
    let text = |path: &[&str]| data?.at(path)?.filled();
    match text(&["tags", "clerk_user_id"]) {
        Some(user) => Owner::of_clerk(&user),
        None => Owner::of(Source::Resend, text(&["email_id"]).as_deref().unwrap_or(delivery)),
    }
}
