//! Nylas' events: the known types, and whom an event concerns.
//!
//! Source: developer.nylas.com, "Notification schemas", and the JSON schemas that are made of them. A message's event
//! has one of several suffixes: `.truncated` (the body was removed, because it is over 1 MB), `.transformed` (the fields
//! are those that the account selected), `.cleaned`, and combinations.

use usher_proto::subject_key;
use usher_proto::{Json, Source};

use crate::Owner;

/// The types of Nylas' events about messages and grants.
pub const EVENT_TYPES: &[&str] = &[
    "message.created",
    "message.created.truncated",
    "message.created.transformed",
    "message.created.transformed.truncated",
    "message.created.cleaned",
    "message.created.cleaned.truncated",
    "message.created.cleaned.transformed",
    "message.created.cleaned.transformed.truncated",
    "message.updated",
    "message.updated.truncated",
    "message.updated.transformed",
    "message.updated.cleaned",
    "message.opened",
    "message.link_clicked",
    "message.bounce_detected",
    "message.send_success",
    "message.send_failed",
    "message.delivered",
    "message.bounced",
    "message.complaint",
    "message.rejected",
    "thread.replied",
    "grant.created",
    "grant.updated",
    "grant.deleted",
    "grant.expired",
];

/// Returns the one whom an event concerns: the sender of a message, by the digest of the address, else the grant, else
/// the object of the event. `data` is the body's `data`, and `event` the event's id.
///
/// The first address in `from` is the sender's; a message has more than one only where its author and its sender differ.
pub fn owner(kind: &str, data: Option<Json<'_>>, event: &str) -> Owner {
    let object = data.and_then(|data| data.get("object"));
    let text = |path: &[&str]| object?.at(path)?.filled();
    if kind.starts_with("message.") {
        let from = object.and_then(|object| object.get("from")?.items().next()?.get("email")?.filled());
        if let Some(from) = from {
            return Owner { source: Source::Nylas, key: subject_key::address(&from) };
        }
    }
    let id = text(&["grant_id"]).or_else(|| text(&["id"]));
    Owner::of(Source::Nylas, id.as_deref().unwrap_or(event))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(kind: &str, object: &Value) -> String {
        let data = json!({ "object": object }).to_string();
        let owner = owner(kind, Json::read(&data), "evt-1");
        assert_eq!(owner.source, Source::Nylas);
        owner.key.as_str().to_owned()
    }

    #[test]
    fn a_message_concerns_its_sender_whose_address_is_not_in_the_key() {
        let from = |from: Value| json!({ "id": "m1", "grant_id": "g1", "from": from });
        let dana = of("message.created", &from(json!([{ "name": "Dana", "email": "dana@work.test" }])));
        assert_eq!(dana, subject_key::address("dana@work.test").as_str());
        assert!(!dana.contains('@'));
        let again = of("message.created.truncated", &from(json!([{ "email": " Dana@Work.TEST" }])));
        assert_eq!(again, dana, "however it is written");
        for nobody in [json!([]), json!(null), json!([{ "name": "Dana" }]), json!("dana@work.test")] {
            assert_eq!(of("message.created", &from(nobody)), "g1");
        }
        assert_eq!(of("grant.expired", &json!({ "grant_id": "g1", "code": 25012 })), "g1");
        assert_eq!(of("grant.expired", &json!([])), "evt-1");
    }
}
