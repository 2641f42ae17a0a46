//! What a double says: status, JSON, headers, and whether an idempotency key may keep it. Knows no provider.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{future, stream};
use serde_json::Value;

/// An answer of a double. The body is shared: the ledger and the idempotency memory hold the same one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Arc<Value>,
    /// Whether this is the outcome of an execution, which an idempotency key then replays. What was refused before
    /// anything was executed is not kept.
    pub(crate) kept: bool,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    /// 200, the outcome of an execution.
    pub(crate) fn done(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Arc::new(body), kept: true, headers: Vec::new() }
    }

    /// As it is, with another status.
    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// A refusal before anything was executed.
    pub(crate) fn refused(status: StatusCode, body: Value) -> Self {
        Self { status, body: Arc::new(body), kept: false, headers: Vec::new() }
    }

    /// As the outcome of an execution.
    pub(crate) fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// With a header, in place of an earlier one of that name. The name is in lower case.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.set(name, value);
        self
    }

    /// See [`Answer::with`].
    pub(crate) fn set(&mut self, name: &'static str, value: impl ToString) {
        self.take(name);
        self.headers.push((name, value.to_string()));
    }

    /// Takes a header out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.headers.iter().position(|(have, _)| *have == name)?;
        Some(self.headers.swap_remove(index).1)
    }
}

/// An answer as it is kept for long: its body is text, a fraction of the size that it has as a value.
#[derive(Debug)]
pub(crate) struct Kept {
    answer: Answer,
    body: Box<str>,
}

impl Answer {
    pub(crate) fn keep(&self) -> Kept {
        let body = self.body.to_string().into_boxed_str();
        Kept { answer: Self { body: Arc::default(), ..self.clone() }, body }
    }
}

impl Kept {
    /// The answer as it was.
    pub(crate) fn give(&self) -> Answer {
        // It was written from a value.
        Answer { body: Arc::new(serde_json::from_str(&self.body).unwrap_or_default()), ..self.answer.clone() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.body)).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// An answer that never arrives: the body fails before hyper has written a byte of the head, and hyper then closes the
/// connection. To the client it is a server that died after it had read the request.
pub(crate) fn cut_off() -> Response {
    let failure = std::io::Error::other("the lab drops this connection on purpose");
    Response::new(Body::from_stream(stream::once(future::ready(Err::<Bytes, _>(failure)))))
}
