//! Senders by name: their settings, and whom their events concern.

use usher_proto::signature::{SignatureRefusal, SigningSecret};

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NOW: Timestamp = Timestamp::from_seconds(1_767_261_610);

fn senders(settings: &[(&str, &str)]) -> Result<Vec<StandardSource>, String> {
    let environment = settings
        .iter()
        .fold(Environment::from_vars([]), |all, (name, value)| all.with(&format!("USHER_SOURCE_{name}"), *value));
    StandardSource::all_from_environment(&environment).map_err(|error| error.to_string())
}

fn acme(settings: &[(&str, &str)]) -> StandardSource {
    let all: Vec<_> = [("ACME_SECRET", SECRET)].iter().chain(settings).copied().collect();
    senders(&all).expect("good settings").pop().expect("one sender")
}

fn accept(sender: &StandardSource, body: &str, secret: &str) -> Result<Event, Refusal> {
    let time = NOW.seconds().to_string();
    let signature = SigningSecret::parse(secret).expect("a secret").sign("msg_1", &time, body.as_bytes());
    let mut headers = HeaderMap::new();
    for (name, value) in svix::STANDARD.iter().zip(["msg_1", &time, &signature]) {
        headers.insert(*name, value.parse().expect("a header"));
    }
    sender.check_head(Instance::DEFAULT, &headers, NOW)?;
    sender.accept(Instance::DEFAULT, &headers, Bytes::from(body.to_owned()), NOW)
}

#[test]
fn an_event_is_read_by_the_places_that_the_settings_name() {
    let plain = acme(&[]);
    let body = r#"{"type":"order.placed","timestamp":"2026-01-01T10:00:05Z","data":{"user":"user_1","customer":7}}"#;
    let event = accept(&plain, body, SECRET).expect("it verifies");
    assert_eq!((event.source.label(), event.kind.as_str(), event.id.as_str()), ("acme", "order.placed", "msg_1"));
    assert_eq!(event.subject.as_str(), "acme/default/msg_1", "without a key an event is a subject of its own");
    assert_eq!(event.occurred_at.to_string(), "2026-01-01T10:00:05.000Z");
    assert_eq!(Event::from_record(&event.clone().into_record()), Ok(event));
    for (settings, subject) in [
        (&[("ACME_KEY", "/data/user")][..], "clerk/default/user_1"),
        (&[("ACME_KEY", "/data/user"), ("ACME_SUBJECT", "own")], "acme/default/user_1"),
        (&[("ACME_KEY", "/data/customer")], "acme/default/7"),
        (&[("ACME_KEY", "/data/customer"), ("ACME_SUBJECT", "clerk")], "clerk/default/7"),
        (&[("ACME_KEY", "/data/nobody"), ("ACME_SUBJECT", "clerk")], "acme/default/msg_1"),
        (&[("ACME_KEY", "/data")], "acme/default/msg_1"),
    ] {
        let event = accept(&acme(settings), body, SECRET).expect("it verifies");
        assert_eq!(event.subject.as_str(), subject, "{settings:?}");
    }
    let odd = r#"{"event":{"name":"order.placed"},"who":"dana@work.test"}"#;
    let elsewhere = acme(&[("ACME_TYPE", "/event/name"), ("ACME_KEY", "/who")]);
    let event = accept(&elsewhere, odd, SECRET).expect("it verifies");
    assert_eq!((event.kind.as_str(), event.occurred_at), ("order.placed", NOW));
    assert!(event.subject.key().starts_with("address:"), "a key is never an address");
    assert_eq!(event.data().map(|data| data.as_str().len()), Some(odd.len()), "without data, the body is it");
}

#[test]
fn what_the_sender_did_not_send_is_refused() {
    let sender = acme(&[("ACME_KEY", "/data/user")]);
    assert_eq!(accept(&sender, "{}", OTHER).err(), Some(Refusal::NotVerified(SignatureRefusal::NoMatch)));
    for bad in ["{}", "[]", "nonsense", r#"{"type":7}"#, r#"{"type":"a","data":{"user":"x","user":"y"}}"#] {
        assert_eq!(accept(&sender, bad, SECRET).err(), Some(Refusal::BodyMalformed), "{bad}");
    }
    let sent = accept(&acme(&[("ACME_SECRET_STAGING", OTHER)]), r#"{"type":"a"}"#, OTHER);
    assert_eq!(sent.err(), Some(Refusal::NotVerified(SignatureRefusal::NoMatch)), "another instance's secret");
}

#[test]
fn settings_that_make_no_sender_are_told() {
    let all = senders(&[("ACME_PAY_SECRET", &format!("{OTHER} {SECRET}")), ("B_SECRET_STAGING", SECRET)]);
    let names = all.map(|all| all.iter().map(|sender| sender.name().to_string()).collect::<Vec<_>>());
    assert_eq!(names, Ok(vec!["acme-pay".to_owned(), "b".to_owned()]));
    for (settings, why) in [
        (
            &[("ACME_KEY", "/x")][..],
            "USHER_SOURCE_ACME_KEY: USHER_SOURCE_ACME_SECRET is not set, so there is no such sender",
        ),
        (&[("ACME_SECRET", "nonsense")], "USHER_SOURCE_ACME_SECRET: the signing secret does not begin with whsec_"),
        (&[("ACME_SECRET", SECRET), ("ACME_KEY", "data.user")], "USHER_SOURCE_ACME_KEY: a place is a JSON pointer"),
        (&[("ACME_SECRET", SECRET), ("ACME_SUBJECT", "stripe")], "USHER_SOURCE_ACME_SUBJECT: it may be clerk or own"),
        (
            &[("ACME_SECRET", SECRET), ("ACME_SUBJECT", "clerk")],
            "USHER_SOURCE_ACME_SUBJECT: USHER_SOURCE_ACME_KEY is not set, so no event names anybody of Clerk",
        ),
        (&[("CLERK_SECRET", SECRET)], "USHER_SOURCE_CLERK_SECRET: the name is taken"),
    ] {
        let said = senders(settings).err().unwrap_or_default();
        assert!(said.starts_with(why) && !said.contains("nonsense"), "{said}");
    }
}
