//! Stripe's events: the known types, and whom an event concerns.
//!
//! Source: docs.stripe.com, "Types of events", "The Event object", and the resource types of stripe-node. Between
//! versions of Stripe's API the metadata of an invoice's subscription has moved; every place is looked at.

use std::borrow::Cow;

use usher_proto::{Json, Source};

use crate::Owner;

/// Key of the metadata that names a user of Clerk. `stripe.create_customer` and `stripe.start_trial` write it.
const CLERK_USER: &str = "clerk_user_id";

/// The types of Stripe's events that concern customers, what they subscribe to, and what they pay.
pub const EVENT_TYPES: &[&str] = &[
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.trial_will_end",
    "customer.source.expiring",
    "invoice.created",
    "invoice.updated",
    "invoice.finalized",
    "invoice.finalization_failed",
    "invoice.sent",
    "invoice.upcoming",
    "invoice.paid",
    "invoice.payment_succeeded",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "invoice.overdue",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "charge.succeeded",
    "charge.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "payment_intent.created",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
    "payment_method.attached",
    "payment_method.detached",
    "payment_method.automatically_updated",
    "setup_intent.succeeded",
    "setup_intent.setup_failed",
    "subscription_schedule.created",
    "subscription_schedule.updated",
    "subscription_schedule.canceled",
    "product.created",
    "product.updated",
    "price.created",
    "price.updated",
];

/// Returns the one whom an event concerns: the user of Clerk whom its metadata names, else the customer, else the
/// object of the event. `data` is the body's `data`, and `event` the event's id.
pub fn owner(data: Option<Json<'_>>, event: &str) -> Owner {
    let object = data.and_then(|data| data.get("object"));
    if let Some(user) = object.and_then(clerk_user) {
        return Owner::of_clerk(&user);
    }
    let text = |path: &[&str]| object?.at(path)?.filled();
    let is_customer = text(&["object"]).as_deref() == Some("customer");
    let customer = if is_customer { text(&["id"]) } else { None };
    let customer = customer.or_else(|| text(&["customer"])).or_else(|| text(&["customer", "id"]));
    Owner::of(Source::Stripe, customer.or_else(|| text(&["id"])).as_deref().unwrap_or(event))
}

/// Returns the id of the user of Clerk in the metadata of an object.
fn named(object: Json<'_>) -> Option<Cow<'_, str>> {
    object.at(&["metadata", CLERK_USER])?.filled()
}

/// Returns the id of the user of Clerk whom an object names: in its own metadata, in that of its subscription or of its
/// customer where they are part of it, in that of its lines, or as the reference of a checkout.
fn clerk_user(object: Json<'_>) -> Option<Cow<'_, str>> {
    let places: [&[&str]; 5] =
        [&[], &["parent", "subscription_details"], &["subscription_details"], &["subscription"], &["customer"]];
    if let Some(user) = places.into_iter().find_map(|place| named(object.at(place)?)) {
        return Some(user);
    }
    let mut lines = object.at(&["lines", "data"]).into_iter().flat_map(Json::items);
    if let Some(user) = lines.find_map(named) {
        return Some(user);
    }
    object.get("client_reference_id")?.filled().filter(|id| usher_clerk::is_id(id))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(object: &Value) -> (String, String) {
        let data = json!({ "object": object }).to_string();
        let owner = owner(Json::read(&data), "evt_1");
        (owner.source.to_string(), owner.key.as_str().to_owned())
    }

    #[test]
    fn the_user_is_found_wherever_the_metadata_is() {
        let user = json!({ "clerk_user_id": "user_1", "plan": "pro" });
        for object in [
            json!({ "object": "subscription", "id": "sub_1", "customer": "cus_1", "metadata": user }),
            json!({ "object": "customer", "id": "cus_1", "metadata": user }),
            json!({ "object": "invoice", "id": "in_1", "customer": "cus_1", "metadata": {},
                "parent": { "type": "subscription_details", "subscription_details": { "metadata": user } } }),
            json!({ "object": "invoice", "customer": "cus_1", "subscription_details": { "metadata": user } }),
            json!({ "object": "invoice", "customer": "cus_1", "lines": { "data": [{ "metadata": {} }, { "metadata": user }] } }),
            json!({ "object": "charge", "customer": { "id": "cus_1", "metadata": user } }),
            json!({ "object": "checkout.session", "customer": "cus_1", "client_reference_id": "user_1" }),
        ] {
            assert_eq!(of(&object), ("clerk".to_owned(), "user_1".to_owned()), "{object}");
        }
    }

    #[test]
    fn without_a_user_the_customer_is_the_subject_and_without_a_customer_the_object() {
        for (object, key) in [
            (json!({ "object": "subscription", "id": "sub_1", "customer": "cus_1", "metadata": {} }), "cus_1"),
            (json!({ "object": "customer", "id": "cus_1", "metadata": { "clerk_user_id": "" } }), "cus_1"),
            (json!({ "object": "charge", "id": "ch_1", "customer": { "id": "cus_1" } }), "cus_1"),
            (json!({ "object": "charge", "id": "ch_1", "customer": null }), "ch_1"),
            (json!({ "object": "checkout.session", "id": "cs_1", "client_reference_id": "cart 7" }), "cs_1"),
            (json!({ "object": "balance" }), "evt_1"),
            (json!("odd"), "evt_1"),
        ] {
            assert_eq!(of(&object), ("stripe".to_owned(), key.to_owned()), "{object}");
        }
        let address = json!({ "object": "customer", "id": "cus_1", "metadata": { "clerk_user_id": "dana@work.test" } });
        assert!(!of(&address).1.contains('@'), "a key is never an address");
    }
}
