//! Reads suppressions and their ends out of events: Usher's own, and Resend's of addresses to which delivery has ended.

use serde::Deserialize;
use serde_json::Value;
use usher_proto::reach::{EVERYTHING, ReachChange, ReachKind};
use usher_proto::{AddressDigest, Event, Instance, Mailbox, Source};

#[derive(Deserialize)]
struct Envelope {
    data: Data,
}

/// The fields of an event's `data` that are read: nothing else in it can make them unreadable.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    to: Value,
    email: Value,
    bounce: Value,
    suppressed: Value,
    failed: Value,
    origin: Value,
}

/// What an event says of an address, if it says such a thing.
pub(crate) fn said(event: &Event) -> Option<ReachChange> {
    match event.source {
        Source::Usher => ReachChange::of(event),
        Source::Resend => resend(event),
        Source::Clerk => None,
    }
}

/// Only what lasts: a full mailbox is no reason. Of a mail to several it is not told which of them it was.
fn resend(event: &Event) -> Option<ReachChange> {
    let Envelope { data } = serde_json::from_slice(&event.body).ok()?;
    let reason = ended(&event.kind, &data)?;
    let Some(address) = whom(&data) else {
        tracing::warn!(
            event = %event.id, kind = event.kind, reason,
            "Resend ended delivery without naming one address; nobody is suppressed"
        );
        return None;
    };
    let (scope, by) = (EVERYTHING.to_owned(), Source::Resend.label().to_owned());
    // Of the account of this instance: another one may reach the address.
    let instance: Instance = event.instance().parse().ok()?;
    let (kind, reason, instance) = (ReachKind::Suppressed, reason.to_owned(), Some(instance));
    Some(ReachChange { kind, address, scope, reason, by, instance })
}

/// In a word why nothing is delivered to an address any more; none where something may be.
///
/// Facts: resend.com/docs (webhook event types, email bounces, suppressions) and its OpenAPI document. `email.failed` is
/// told for many reasons, nearly all of them the account's; that one of them names the recipient is documented, its word is
/// not. Events that take an address off Resend's list change nothing here: others may have put it on ours.
fn ended(kind: &str, data: &Data) -> Option<&'static str> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_ascii_lowercase();
    match kind {
        "email.bounced" => (word(&data.bounce["type"]) == "permanent").then_some("bounce"),
        "email.complained" => Some("complaint"),
        "email.suppressed" => Some(match word(&data.suppressed["reason"]).as_str() {
            "previous_bounce" => "bounce",
            "previous_complaint" => "complaint",
            _ => "suppressed",
        }),
        "suppression.added" => Some(match word(&data.origin).as_str() {
            "bounce" => "bounce",
            "complaint" => "complaint",
            _ => "suppressed",
        }),
        "email.failed" => word(&data.failed["reason"]).contains("recipient").then_some("bounce"),
        _ => None,
    }
}

/// The one address that an event names, in a list (as documented) or as a text; a suppression has it as `email`.
fn whom(data: &Data) -> Option<AddressDigest> {
    let texts = match (&data.to, &data.email) {
        (Value::Array(list), _) => list.as_slice(),
        (Value::Null, email) => std::slice::from_ref(email),
        (to, _) => std::slice::from_ref(to),
    };
    let read = |text: &Value| Some(AddressDigest::of(&text.as_str()?.parse::<Mailbox>().ok()?.address));
    let mut addresses: Vec<AddressDigest> = texts.iter().map(read).collect::<Option<_>>()?;
    addresses.sort_unstable();
    addresses.dedup();
    <[AddressDigest; 1]>::try_from(addresses).ok().map(|[address]| address)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;
    use usher_proto::{EventId, Key, SubjectId, Timestamp};

    use super::*;

    fn event(kind: &str, data: &Value) -> Event {
        Event {
            id: EventId::new("msg_1"),
            kind: kind.into(),
            source: Source::Resend,
            subject: SubjectId::new(Source::Clerk, &"staging".parse().expect("a name"), &Key::new("user_1")),
            occurred_at: Timestamp::from_seconds(5),
            received_at: Timestamp::from_seconds(6),
            provenance: Vec::new(),
            body: Bytes::from(json!({ "type": kind, "data": data }).to_string()),
        }
    }

    #[test]
    fn delivery_that_has_ended_suppresses_the_address() {
        let bounced = |kind: &str| json!({ "to": ["Dana <dana@work.test>"], "bounce": { "type": kind } });
        let suppressed = |reason: &str| json!({ "to": ["dana@work.test"], "suppressed": { "reason": reason } });
        let failed = |reason: &str| json!({ "to": ["dana@work.test"], "failed": { "reason": reason } });
        for (kind, data, reason) in [
            ("email.bounced", bounced("Permanent"), Some("bounce")),
            ("email.bounced", bounced("Transient"), None),
            ("email.bounced", bounced("Undetermined"), None),
            (
                "email.bounced",
                json!({ "to": "Dana <dana@work.test>", "bounce": { "type": "Permanent" } }),
                Some("bounce"),
            ),
            (
                "email.bounced",
                json!({ "to": ["dana@work.test", "Dana <DANA@work.test>"], "bounce": { "type": "Permanent" } }),
                Some("bounce"),
            ),
            ("email.bounced", json!({ "to": ["a@b.test", "c@d.test"], "bounce": { "type": "Permanent" } }), None),
            ("email.bounced", json!({ "to": [7], "bounce": { "type": "Permanent" } }), None),
            ("email.bounced", json!({ "bounce": { "type": "Permanent" } }), None),
            ("email.bounced", json!({ "to": ["a@b.test"] }), None),
            ("email.complained", json!({ "to": ["dana@work.test"] }), Some("complaint")),
            ("email.complained", json!({ "to": "dana@work.test" }), Some("complaint")),
            ("email.suppressed", suppressed("previous_bounce"), Some("bounce")),
            ("email.suppressed", suppressed("previous_complaint"), Some("complaint")),
            (
                "email.suppressed",
                json!({ "to": ["dana@work.test"], "suppressed": { "type": "OnAccountSuppressionList" } }),
                Some("suppressed"),
            ),
            ("suppression.added", json!({ "email": "dana@work.test", "origin": "complaint" }), Some("complaint")),
            ("suppression.added", json!({ "email": "dana@work.test", "origin": "manual" }), Some("suppressed")),
            ("suppression.removed", json!({ "email": "dana@work.test", "origin": "bounce" }), None),
            ("email.failed", failed("invalid_recipient"), Some("bounce")),
            ("email.failed", failed("reached_daily_quota"), None),
            ("email.delivered", json!({ "to": ["dana@work.test"] }), None),
            ("email.delivery_delayed", json!({ "to": ["dana@work.test"] }), None),
            ("domain.updated", json!([]), None),
        ] {
            let change = said(&event(kind, &data));
            assert_eq!(change.as_ref().map(|change| change.reason.as_str()), reason, "{kind} {data}");
            if let Some(change) = change {
                let expected = (ReachKind::Suppressed, AddressDigest::of("dana@work.test"), EVERYTHING);
                assert_eq!((change.kind, change.address, change.scope.as_str()), expected);
                assert_eq!(change.instance.as_ref().map(Instance::as_str), Some("staging"));
            }
            assert_eq!(said(&Event { source: Source::Clerk, ..event(kind, &data) }), None);
        }
    }
}
