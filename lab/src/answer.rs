//! The response of a double: status, JSON, headers, and a flag that lets an idempotency key store it. Independent
//! of any provider.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{future, stream};
use serde_json::Value;

/// A response of a double. The body is shared with the ledger.
#[derive(Debug, Clone)]
pub(crate) struct FakeResponse {
    pub(crate) status: StatusCode,
    pub(crate) body: Arc<Value>,
    /// True if this is the outcome of an execution, which an idempotency key stores and replays. A refusal before the
    /// execution is not stored.
    pub(crate) kept: bool,
    headers: Vec<(&'static str, String)>,
    /// True if the body, a text, is sent as it is, and not as JSON.
    is_plain: bool,
}

impl FakeResponse {
    /// Creates a response with status 200 that is the outcome of an execution.
    pub(crate) fn done(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Arc::new(body), kept: true, headers: Vec::new(), is_plain: false }
    }

    /// Replaces the status.
    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Creates a refusal that comes before any execution.
    pub(crate) fn refused(status: StatusCode, body: Value) -> Self {
        Self { status, body: Arc::new(body), kept: false, headers: Vec::new(), is_plain: false }
    }

    /// Makes the body, which is a text, plain text. An empty one stays empty.
    pub(crate) fn plain(self) -> Self {
        Self { is_plain: true, ..self }
    }

    /// Marks the response as the outcome of an execution.
    pub(crate) fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// Adds a header, replacing an earlier one of that name. `name` must be in lower case.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header in place, as [`FakeResponse::with`] does.
    pub(crate) fn set(&mut self, name: &'static str, value: impl ToString) {
        self.take(name);
        self.headers.push((name, value.to_string()));
    }

    /// Removes a header and returns its value. Returns `None` if there is no such header.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.headers.iter().position(|(have, _)| *have == name)?;
        Some(self.headers.swap_remove(index).1)
    }
}

/// A response in the form in which it is stored. Its body is text, which takes a fraction of the memory of
/// a parsed value.
#[derive(Debug)]
pub(crate) struct StoredAnswer {
    answer: FakeResponse,
    body: Box<str>,
}

impl FakeResponse {
    /// Converts the response into its stored form.
    pub(crate) fn keep(&self) -> StoredAnswer {
        let body = self.body.to_string().into_boxed_str();
        StoredAnswer { answer: Self { body: Arc::default(), ..self.clone() }, body }
    }
}

impl StoredAnswer {
    /// Restores the response.
    pub(crate) fn give(&self) -> FakeResponse {
        // The text was serialised from a value, so parsing cannot fail.
        FakeResponse { body: Arc::new(serde_json::from_str(&self.body).unwrap_or_default()), ..self.answer.clone() }
    }
}

impl IntoResponse for FakeResponse {
    fn into_response(self) -> Response {
        let mut response = match (&*self.body, self.is_plain) {
            (Value::String(text), true) => (self.status, text.clone()).into_response(),
            (Value::Null, _) if matches!(self.status, StatusCode::NO_CONTENT | StatusCode::ACCEPTED) => {
                self.status.into_response()
            }
            (body, _) => (self.status, Json(body)).into_response(),
        };
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Builds a response that never arrives: its body fails before hyper has written a byte of the head, and hyper then
/// closes the connection. To the client this looks like a server that died after it had read the request.
pub(crate) fn cut_off() -> Response {
    let failure = std::io::Error::other("the lab drops this connection on purpose");
    Response::new(Body::from_stream(stream::once(future::ready(Err::<Bytes, _>(failure)))))
}
