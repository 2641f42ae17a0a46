//! What the connectors' tests share.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use usher_proto::{Event, EventId, Key, Source, Timestamp};

use super::http::Answer;
use super::{CannotPrepare, Connector, Inputs};

/// An answer as it would have come.
pub(super) fn answer(status: u16, body: &str) -> Answer {
    let status = StatusCode::from_u16(status).expect("a status");
    Answer { status, headers: HeaderMap::new(), body: body.into() }
}

impl Answer {
    /// With a header.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

/// The request that a connector makes for an event that happened at 2026-01-01T10:00:00.250Z.
pub(super) fn prepare(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
) -> Result<Vec<u8>, CannotPrepare> {
    let event = Event {
        id: EventId::new("msg_1"),
        kind: "user.updated".into(),
        source: Source::Clerk,
        instance: "default".into(),
        key: Key::new("user_1"),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_601_000),
        provenance: Vec::new(),
        body: Bytes::new(),
    };
    let params = params.as_object().expect("parameters");
    let inputs = Inputs { operation, params, event: &event, data };
    let made = connector.prepare(&inputs)?;
    assert_eq!(connector.prepare(&inputs).as_ref(), Ok(&made), "the same comes out again");
    Ok(made)
}
