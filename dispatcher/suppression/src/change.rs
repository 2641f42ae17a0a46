//! Reads suppression changes from events: from Usher's own, and from Resend's events about addresses to which it no
//! longer delivers.

use usher_proto::json::JsonKind;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::{AddressDigest, Event, Instance, Json, Mailbox, Source};

/// Returns the suppression change that an event carries, if any.
pub fn suppression_change(event: &Event) -> Option<SuppressionChange> {
    match event.source {
        Source::Usher => SuppressionChange::of(event),
        Source::Resend => resend(event),
        Source::Clerk | Source::Stripe | Source::Nylas | Source::Schedule | Source::Sender(_) => None,
    }
}

/// Returns a suppression for a permanent failure only: a full mailbox does not count. If a mail went to several
/// recipients, Resend does not report which of them failed, so nobody is suppressed.
fn resend(event: &Event) -> Option<SuppressionChange> {
    let data = event.data()?;
    let reason = ended(&event.kind, data)?;
    let Some(address) = whom(data) else {
        tracing::warn!(
            event = %event.id, kind = event.kind, reason,
            "Resend ended delivery without naming one address; nobody is suppressed"
        );
        return None;
    };
    let scope = ALL_LISTS.to_owned();
    let by = Source::Resend.label().to_owned();
    // The suppression applies to this instance's account only: another account may still reach the address.
    let instance: Instance = event.instance().parse().ok()?;
    let kind = SuppressionKind::Suppressed;
    let reason = reason.to_owned();
    let instance = Some(instance);
    Some(SuppressionChange { kind, address, scope, reason, by, instance })
}

/// Returns a one-word reason why nothing is delivered to an address any more; `None` if mail may still be delivered.
///
/// Facts: resend.com/docs (webhook event types, email bounces, suppressions) and its OpenAPI document. `email.failed`
/// is sent for many reasons, nearly all of them caused by the account. The documentation states that one of them
/// concerns the recipient, but not its exact value. Events that remove an address from Resend's suppression list change
/// nothing here: the address may be on Usher's list for another reason.
fn ended(kind: &str, data: Json<'_>) -> Option<&'static str> {
    let word = |path: &[&str]| data.at(path).and_then(Json::text).unwrap_or_default().to_ascii_lowercase();
    match kind {
        "email.bounced" => (word(&["bounce", "type"]) == "permanent").then_some("bounce"),
        "email.complained" => Some("complaint"),
        "email.suppressed" => Some(match word(&["suppressed", "reason"]).as_str() {
            "previous_bounce" => "bounce",
            "previous_complaint" => "complaint",
            _ => "suppressed",
        }),
        "suppression.added" => Some(match word(&["origin"]).as_str() {
            "bounce" => "bounce",
            "complaint" => "complaint",
            _ => "suppressed",
        }),
        "email.failed" => word(&["failed", "reason"]).contains("recipient").then_some("bounce"),
        _ => None,
    }
}

/// Returns the address that an event names, if it names exactly one. The field `to` is a list (as documented) or a
/// string; suppression events use the field `email`.
fn whom(data: Json<'_>) -> Option<AddressDigest> {
    let named = data.get("to").filter(|to| !to.is_null()).or_else(|| data.get("email"))?;
    let texts = if named.kind() == JsonKind::List { named.items().collect() } else { vec![named] };
    let read = |text: Json<'_>| Some(AddressDigest::of(&text.text()?.parse::<Mailbox>().ok()?.address));
    let mut addresses: Vec<AddressDigest> = texts.into_iter().map(read).collect::<Option<_>>()?;
    addresses.sort_unstable();
    addresses.dedup();
    <[AddressDigest; 1]>::try_from(addresses).ok().map(|[address]| address)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};
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
            let change = suppression_change(&event(kind, &data));
            assert_eq!(change.as_ref().map(|change| change.reason.as_str()), reason, "{kind} {data}");
            if let Some(change) = change {
                let expected = (SuppressionKind::Suppressed, AddressDigest::of("dana@work.test"), ALL_LISTS);
                assert_eq!((change.kind, change.address, change.scope.as_str()), expected);
                assert_eq!(change.instance.as_ref().map(Instance::as_str), Some("staging"));
            }
            assert_eq!(suppression_change(&Event { source: Source::Clerk, ..event(kind, &data) }), None);
        }
    }

    /// The field `message` of a bounce contains text of a remote mail server.
    #[test]
    fn nothing_else_in_a_bounce_makes_it_unreadable() {
        let deep = "[".repeat(300) + &"]".repeat(300);
        for odd in [r#""\ud83d""#, "1e400", &deep] {
            let body = format!(
                r#"{{"type":"email.bounced","data":{{"to":["a@b.test"],"bounce":{{"type":"Permanent","message":{odd}}}}}}}"#
            );
            let event = Event { body: Bytes::from(body), ..event("email.bounced", &Value::Null) };
            assert_eq!(suppression_change(&event).map(|change| change.reason).as_deref(), Some("bounce"), "{odd}");
        }
    }
}
