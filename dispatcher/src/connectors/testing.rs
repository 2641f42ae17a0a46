//! What the connectors' tests share.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use usher_proto::{Event, EventId, Instance, Key, Source, SubjectId, Timestamp};

use super::http::Answer;
use super::{Connector, PrepareError, StepInput};

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

/// The address of a server that gives these answers in turn, the last one again and again: status, header, body.
pub(super) async fn serve(answers: Vec<(u16, &'static str, &'static str)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let last = answers.last().copied();
        let mut answers = answers.into_iter();
        while let (Some((status, header, body)), Ok((mut stream, _))) =
            (answers.next().or(last), listener.accept().await)
        {
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{header}\r\n\r\n");
            // A request is small enough to come at once.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

/// The request that a connector makes for an event that happened at 2026-01-01T10:00:00.250Z.
pub(super) fn prepare(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
) -> Result<Vec<u8>, PrepareError> {
    prepare_anew(connector, operation, params, data, 0)
}

/// The same, for a run that was ordered to be done anew so often.
pub(super) fn prepare_anew(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
    rerun: u32,
) -> Result<Vec<u8>, PrepareError> {
    let made = prepare_once(connector, operation, params, data, rerun)?;
    let again = prepare_once(connector, operation, params, data, rerun);
    assert_eq!(again.as_ref(), Ok(&made), "the same comes out again");
    Ok(made)
}

/// The same, where it need not come out again: a mail by SMTP has a date.
pub(super) fn prepare_once(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
    rerun: u32,
) -> Result<Vec<u8>, PrepareError> {
    let event = event(data);
    let params = as_rendered(params.as_object().expect("parameters"));
    connector.prepare(&StepInput { operation, params: &params, event: &event, data, rerun })
}

/// The parameters with those of any JSON as the texts that rendering makes of them.
fn as_rendered(params: &Map<String, Value>) -> Map<String, Value> {
    let text = |name: &str, value: &Value| match name {
        "body" | "payload" if !value.is_string() => Value::String(value.to_string()),
        _ => value.clone(),
    };
    params.iter().map(|(name, value)| (name.clone(), text(name, value))).collect()
}

/// An event that happened at 2026-01-01T10:00:00.250Z.
pub(super) fn event(data: &Value) -> Event {
    Event {
        id: EventId::new("msg_1"),
        kind: "user.updated".into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_601_000),
        provenance: Vec::new(),
        body: Bytes::from(json!({ "type": "user.updated", "data": data }).to_string()),
    }
}
