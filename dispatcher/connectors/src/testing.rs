//! Helpers shared by the connectors' tests.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use usher_proto::{Event, EventId, Instance, Key, Source, SubjectId, Timestamp};

use super::client::HttpAnswer;
use super::{Connector, PrepareError, StepInput};

/// Returns an answer with this status and body.
pub(super) fn answer(status: u16, body: &str) -> HttpAnswer {
    let status = StatusCode::from_u16(status).expect("a status");
    HttpAnswer { status, headers: HeaderMap::new(), body: body.into() }
}

impl HttpAnswer {
    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}

/// Starts a server that gives these answers (status, header, body) in turn and repeats the last. Returns its address.
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
            // A request is small enough to arrive in one read.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

/// Builds a connector's request for an event that occurred at 2026-01-01T10:00:00.250Z.
pub(super) fn prepare(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
) -> Result<Vec<u8>, PrepareError> {
    prepare_rerun(connector, operation, params, data, 0)
}

/// As [`prepare`], for a run with `rerun` reruns.
pub(super) fn prepare_rerun(
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

/// As [`prepare_rerun`], without the check that building it again gives the same bytes: a mail by SMTP contains a date.
pub(super) fn prepare_once(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
    rerun: u32,
) -> Result<Vec<u8>, PrepareError> {
    let event = event(data);
    let params = params.as_object().expect("parameters");
    connector.prepare(&StepInput { operation, params, event: &event, known: None, rerun })
}

/// Returns an event that occurred at 2026-01-01T10:00:00.250Z.
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
