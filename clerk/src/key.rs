//! The key of a Clerk event: the user or object that it concerns.
//!
//! Source for the positions of the ids: Clerk's OpenAPI schema of its webhooks (clerk/openapi-specs, 2025-04-15). The
//! choice of the key is ours: the user if there is one, else the object of the event.

use std::borrow::Cow;

use usher_proto::subject_key::{self, address, phone};
use usher_proto::{Json, Key};

/// True for a text of the form of Clerk's ids of users and organizations.
pub fn is_id(text: &str) -> bool {
    is_user_id(text) || text.strip_prefix("org_").is_some_and(is_id_rest)
}

/// True for a text of the form of Clerk's ids of users.
pub fn is_user_id(text: &str) -> bool {
    text.strip_prefix("user_").is_some_and(is_id_rest)
}

fn is_id_rest(rest: &str) -> bool {
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Returns the key of an event of type `kind`. If the event identifies no user or object, its key is the id of the
/// delivery; then the event is not ordered relative to any other.
pub fn key(kind: &str, data: Option<Json<'_>>, instance_id: Option<&str>, svix_id: &str) -> Key {
    let text = |path: &[&str]| data?.at(path)?.filled();
    let (group, action) = kind.split_once('.').unwrap_or((kind, ""));
    let candidates: &[&[&str]] = match group {
        "user" | "organization" => &[&["id"]],
        "session" => &[&["user_id"], &["user", "id"], &["id"]],
        "email" => return of_recipient(text(&["user_id"]), text(&["to_email_address"]), address, svix_id),
        "sms" => return of_recipient(text(&["user_id"]), text(&["to_phone_number"]), phone, svix_id),
        "organizationMembership" => &[&["public_user_data", "user_id"], &["organization", "id"]],
        "organizationInvitation" if action == "accepted" => &[&["user_id"], &["organization_id"]],
        "organizationInvitation" => {
            return of_recipient(text(&["organization_id"]), text(&["email_address"]), address, svix_id);
        }
        "organizationDomain" => &[&["organization_id"], &["id"]],
        "role" | "permission" => return subject_key::key(text(&["id"]).as_deref().or(instance_id).unwrap_or(svix_id)),
        "waitlistEntry" => return of_recipient(None, text(&["email_address"]), address, svix_id),
        "subscription" | "subscriptionItem" | "paymentAttempt" => &[
            &["payer", "user_id"],
            &["payer", "organization_id"],
            &["payer_id"],
            &["payer", "id"],
            &["subscription_id"],
            &["id"],
        ],
        _ if text(&["object"]).as_deref() == Some("user") => &[&["user_id"], &["public_user_data", "user_id"], &["id"]],
        _ => &[&["user_id"], &["public_user_data", "user_id"], &["organization_id"], &["id"]],
    };
    subject_key::key(candidates.iter().find_map(|path| text(path)).as_deref().unwrap_or(svix_id))
}

/// Returns the key of an event that has an owner, or else a recipient that is known only by an address or
/// a phone number.
fn of_recipient(
    owner: Option<Cow<'_, str>>,
    recipient: Option<Cow<'_, str>>,
    digest: fn(&str) -> Key,
    svix_id: &str,
) -> Key {
    match (owner, recipient) {
        (Some(owner), _) => subject_key::key(&owner),
        (None, Some(recipient)) => digest(&recipient),
        (None, None) => subject_key::key(svix_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, data: &str) -> String {
        key(kind, Json::read(data), Some("ins_1"), "msg_1").as_str().to_owned()
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
