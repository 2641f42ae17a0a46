//! The events of the works: Clerk's sample of a changed user, as it is sent.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use usher_engine::{AttemptState, Run};
use usher_proto::{Event, EventId, Instance, Key, Partition, Source, SubjectId, Timestamp};

/// The time of all events, of which the works read no clock.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_775_040_000);
/// The type of all events.
pub(crate) const KIND: &str = "user.updated";

/// The body: JSON without spaces.
static BODY: LazyLock<Bytes> = LazyLock::new(|| {
    let sample = include_str!("../../../../clerk/src/samples/user.updated.json");
    let sample: Value = serde_json::from_str(sample).expect("JSON");
    sample.to_string().into()
});

/// Returns the body. All events share its bytes, as those of a record do.
pub(crate) fn body() -> Bytes {
    BODY.clone()
}

/// Returns one event of a user of its own.
pub(crate) fn event(number: usize) -> Event {
    Event {
        id: EventId::new(format!("msg_{number:024}")),
        kind: KIND.into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(format!("user_{number:024}"))),
        occurred_at: NOW,
        received_at: NOW,
        provenance: vec![("svix-id".into(), format!("msg_{number:024}"))],
        body: body(),
    }
}

/// Returns a new run of an event.
pub(crate) fn run(event: Event, number: usize, flow_version: &str, connector: &str) -> Run {
    Run {
        event,
        partition: Partition(0),
        position: i64::try_from(number).expect("a small number"),
        flow_version: flow_version.to_owned(),
        step: 0,
        destination: Some(connector.to_owned()),
        begun: false,
        rerun: 0,
        tries: AttemptState::default(),
        request: None,
        results: BTreeMap::new(),
        wait_until: None,
        expires_at: Some(NOW.plus(Duration::from_secs(3600))),
        before: None,
        verdict: None,
        quarantined: false,
        untold: Vec::new(),
        claimed: None,
    }
}
