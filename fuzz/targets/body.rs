//! Bodies of webhooks. Input: any bytes.
#![no_main]

#[path = "../../proto/tests/properties/shape.rs"]
mod shape;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use shape::{contains_nul, depth};
use usher_clerk::{fields, key, primary_email, primary_phone, snapshot};
use usher_proto::json::MAX_DEPTH;
use usher_proto::{Event, EventId, Instance, Json, Key, Source, SubjectId, Timestamp};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // `IgnoredAny` checks the grammar only, as `Json::read` does.
    let json = Json::read(text);
    assert_eq!(json.is_some(), serde_json::from_str::<IgnoredAny>(text).is_ok());
    let Some(json) = json else { return };
    rewritten(json);
    match serde_json::from_str::<Value>(text) {
        Ok(value) if depth(&value) <= MAX_DEPTH => same(json, &value),
        _ => drop(read_as_clerk(text)),
    }
});

/// The rewritten texts are JSON, mean the same, and rewriting them again changes nothing.
fn rewritten(json: Json<'_>) {
    let well_formed = json.well_formed();
    let again = Json::read(&well_formed).expect("JSON");
    assert_eq!(again.well_formed(), well_formed);
    for most in [0, 3, MAX_DEPTH] {
        let storable = json.storable(most);
        let again = Json::read(&storable).expect("JSON");
        assert_eq!(again.storable(most), storable);
        let value = again.to_value();
        assert!(depth(&value) <= most && !contains_nul(&value));
    }
}

/// Everything that is read has the meaning that it has for `serde_json`.
fn same(json: Json<'_>, value: &Value) {
    assert_eq!(&json.to_value(), value);
    assert_eq!(&Json::read(&json.well_formed()).expect("JSON").to_value(), value);
    let written = value.to_string();
    let other = Json::read(&written).expect("serde_json writes JSON");
    for (name, member) in value.as_object().into_iter().flatten() {
        assert_eq!(json.get(name).expect("it is there").to_value(), *member);
    }
    assert_eq!(json.whole(), other.whole());
    assert_eq!(json.millis(), other.millis());
    assert_eq!(read_as_clerk(json.as_str()), read_as_clerk(&written));
}

/// Returns everything that is read from an event of Clerk, without the text of the snapshot.
fn read_as_clerk(body: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    let json = Json::read(body).expect("JSON");
    let kind = json.get("type").and_then(Json::text).unwrap_or_default();
    let data = json.get("data");
    let key = key(&kind, data, json.get("instance_id").and_then(Json::text).as_deref(), "msg_1");
    assert!(!key.as_str().is_empty() && !key.as_str().contains('@'));
    let event = Event {
        id: EventId::new("msg_1"),
        kind: kind.into_owned(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key.as_str())),
        occurred_at: Timestamp::from_seconds(1),
        received_at: Timestamp::from_seconds(2),
        provenance: Vec::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    assert_eq!(Event::from_record(&event.clone().into_record()).as_ref(), Ok(&event));
    let snapshot = snapshot(&event);
    let sent = snapshot.as_ref().and_then(|snapshot| snapshot.data.as_deref());
    assert!(sent.is_none_or(|sent| data.is_some_and(|data| data.as_str() == sent)));
    let names = ["email", "phone", "name", "id", "public_metadata"].map(str::to_owned);
    let user = data.map(|data| (fields(data, &names), primary_email(data), primary_phone(data)));
    (key, snapshot.map(|snapshot| (snapshot.updated_at, snapshot.data.is_some())), user)
}
