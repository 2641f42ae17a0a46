//! Whom a Clerk event concerns.
//!
//! Where the ids sit: Clerk's OpenAPI schema of its webhooks (clerk/openapi-specs, 2025-04-15). Which one is the key is
//! our choice: the user if there is one, else what the event is about.

use serde::Deserialize;
use usher_proto::Key;

use crate::sources::json::{Object, Text};
use crate::sources::subject::{self, address, phone};

/// The fields of `data` that may hold an id. `deserialize` borrows from the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Data<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    object: Text<'a>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    user: Object<User<'a>>,
    #[serde(borrow)]
    public_user_data: Object<PublicUser<'a>>,
    #[serde(borrow)]
    organization: Object<Organization<'a>>,
    #[serde(borrow)]
    organization_id: Text<'a>,
    #[serde(borrow)]
    to_email_address: Text<'a>,
    #[serde(borrow)]
    to_phone_number: Text<'a>,
    #[serde(borrow)]
    email_address: Text<'a>,
    #[serde(borrow)]
    payer: Object<Payer<'a>>,
    #[serde(borrow)]
    payer_id: Text<'a>,
    #[serde(borrow)]
    subscription_id: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User<'a> {
    #[serde(borrow)]
    id: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PublicUser<'a> {
    #[serde(borrow)]
    user_id: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Organization<'a> {
    #[serde(borrow)]
    id: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payer<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    organization_id: Text<'a>,
}

/// The key of an event of type `kind`. Where nothing in it identifies anybody, the delivery's own id is the key: such an
/// event is in order with nothing but itself.
pub(super) fn key(kind: &str, data: &Data<'_>, instance_id: Option<&str>, svix_id: &str) -> Key {
    let payer = &data.payer.0;
    let (group, action) = kind.split_once('.').unwrap_or((kind, ""));
    let candidates: &[&Text<'_>] = match group {
        "user" | "organization" => &[&data.id],
        "session" => &[&data.user_id, &data.user.0.id, &data.id],
        "email" => return of_recipient(&data.user_id, &data.to_email_address, address, svix_id),
        "sms" => return of_recipient(&data.user_id, &data.to_phone_number, phone, svix_id),
        "organizationMembership" => &[&data.public_user_data.0.user_id, &data.organization.0.id],
        "organizationInvitation" if action == "accepted" => &[&data.user_id, &data.organization_id],
        "organizationInvitation" => return of_recipient(&data.organization_id, &data.email_address, address, svix_id),
        "organizationDomain" => &[&data.organization_id, &data.id],
        "role" | "permission" => return subject::key(data.id.get().or(instance_id).unwrap_or(svix_id)),
        "waitlistEntry" => return of_recipient(&Text::default(), &data.email_address, address, svix_id),
        "subscription" | "subscriptionItem" | "paymentAttempt" => {
            &[&payer.user_id, &payer.organization_id, &data.payer_id, &payer.id, &data.subscription_id, &data.id]
        }
        _ if data.object.get() == Some("user") => &[&data.user_id, &data.public_user_data.0.user_id, &data.id],
        _ => &[&data.user_id, &data.public_user_data.0.user_id, &data.organization_id, &data.id],
    };
    subject::key(candidates.iter().find_map(|text| text.get()).unwrap_or(svix_id))
}

/// The key of what has an owner, else a recipient that is known by an address or a number alone.
fn of_recipient(owner: &Text<'_>, recipient: &Text<'_>, digest: fn(&str) -> Key, svix_id: &str) -> Key {
    match (owner.get(), recipient.get()) {
        (Some(owner), _) => subject::key(owner),
        (None, Some(recipient)) => digest(recipient),
        (None, None) => subject::key(svix_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, data: &str) -> String {
        let data: Object<Data<'_>> = serde_json::from_str(data).expect("JSON");
        key(kind, &data.0, Some("ins_1"), "msg_1").as_str().to_owned()
    }

    #[test]
    fn an_empty_id_is_no_id() {
        let payer = r#"{"payer":{"user_id":"","organization_id":"org_1"},"id":"csub_1"}"#;
        assert_eq!(of("subscription.created", payer), "org_1");
        assert_eq!(of("paymentAttempt.created", r#"{"payer":{"user_id":""},"payer_id":"cpayer_1"}"#), "cpayer_1");
    }

    #[test]
    fn what_a_mail_itself_is_called_is_never_a_user() {
        assert_eq!(
            of("email.created", r#"{"id":"ema_1","to_email_address":"Ann@Mail.test"}"#),
            address("ann@mail.test").as_str()
        );
        assert_eq!(of("email.created", r#"{"id":"ema_1","user_id":null}"#), "msg_1");
    }

    #[test]
    fn an_unknown_type_is_keyed_by_the_user_it_names() {
        assert_eq!(of("brand.new", r#"{"user_id":"user_1","id":"x_1"}"#), "user_1");
        assert_eq!(of("brand.new", r#"{"object":"user","id":"user_2","organization_id":"org_1"}"#), "user_2");
        assert_eq!(of("brand.new", r#"{"organization_id":"org_1","id":"x_1"}"#), "org_1");
        assert_eq!(of("brandnew", r#"{"id":7}"#), "msg_1");
    }

    #[test]
    fn events_without_a_user_fall_back_in_the_documented_order() {
        assert_eq!(of("session.created", r#"{"user":{"id":"user_1"},"id":"sess_1"}"#), "user_1");
        assert_eq!(of("organizationMembership.deleted", r#"{"organization":{"id":"org_1"}}"#), "org_1");
        assert_eq!(
            of("organizationInvitation.created", r#"{"email_address":"A@b.test"}"#),
            address("a@b.test").as_str()
        );
        assert_eq!(of("organizationInvitation.accepted", r#"{"organization_id":"org_1"}"#), "org_1");
        assert_eq!(of("organizationDomain.deleted", r#"{"id":"orgdmn_1"}"#), "orgdmn_1");
        assert_eq!(of("role.created", r#"{}"#), "ins_1");
        assert_eq!(of("user.created", r#"[1,2]"#), "msg_1");
    }
}
