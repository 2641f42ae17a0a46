//! What events say of who may be written to: Usher's own, and Resend's of mails that bounced or were complained about.

use serde::Deserialize;
use usher_proto::reach::{EVERYTHING, ReachChange, ReachKind};
use usher_proto::{AddressDigest, Event, Instance, Mailbox, Source};

#[derive(Deserialize)]
struct Envelope {
    data: Mail,
}

#[derive(Deserialize)]
struct Mail {
    to: Vec<String>,
    bounce: Option<Bounce>,
}

#[derive(Deserialize)]
struct Bounce {
    #[serde(rename = "type")]
    kind: String,
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
    let read = || serde_json::from_slice::<Envelope>(&event.body).ok().map(|envelope| envelope.data);
    let (mail, reason) = match event.kind.as_str() {
        "email.bounced" => {
            (read().filter(|mail| mail.bounce.as_ref().is_some_and(|b| b.kind == "Permanent"))?, "bounce")
        }
        "email.complained" => (read()?, "complaint"),
        _ => return None,
    };
    let [to] = mail.to.as_slice() else { return None };
    let address = AddressDigest::of(&to.parse::<Mailbox>().ok()?.address);
    let (scope, by) = (EVERYTHING.to_owned(), Source::Resend.label().to_owned());
    // Of the account of this instance: another one may reach the address.
    let instance: Instance = event.instance().parse().ok()?;
    let (kind, reason, instance) = (ReachKind::Suppressed, reason.to_owned(), Some(instance));
    Some(ReachChange { kind, address, scope, reason, by, instance })
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
    fn a_hard_bounce_and_a_complaint_suppress_the_address() {
        let bounced = |kind: &str| json!({ "to": ["Dana <dana@work.test>"], "bounce": { "type": kind } });
        for (kind, data, reason) in [
            ("email.bounced", bounced("Permanent"), Some("bounce")),
            ("email.bounced", bounced("Transient"), None),
            ("email.bounced", json!({ "to": ["a@b.test", "c@d.test"], "bounce": { "type": "Permanent" } }), None),
            ("email.bounced", json!({ "to": ["a@b.test"] }), None),
            ("email.complained", json!({ "to": ["dana@work.test"] }), Some("complaint")),
            ("email.delivered", json!({ "to": ["dana@work.test"] }), None),
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
