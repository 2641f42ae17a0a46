//! A request in the form in which the doubles receive it: read to its end, with its parameters as JSON whatever their
//! format was. Nothing is validated here.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use serde_json::Value;
use usher_proto::Json;
use usher_service::http;

use crate::form;

/// Maximum size of a request body, in bytes. Resend accepts mail of up to 40 MB; no other request is as large.
const MOST_BYTES: usize = 40 * 1024 * 1024;

/// The format of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFormat {
    /// There is no body. The parameters, if any, are those of the query.
    Not,
    Json,
    Form,
    /// Another format, or a body that does not match its content type.
    Unreadably,
}

/// A request to one double.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path after the provider's name, such as `/v1/customers`.
    pub(crate) path: String,
    /// The query string as sent, without the question mark.
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) written: BodyFormat,
    /// The parameters. `null` if there are none, the text of the body if it could not be parsed.
    pub(crate) body: Arc<Value>,
    raw: Bytes,
}

/// The reason why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than [`MOST_BYTES`].
    TooLarge,
    /// It was not received completely.
    Incomplete,
}

impl Request {
    /// Reads the request to its end. `path` is the part after the provider's name.
    pub(crate) async fn read(parts: Parts, body: Body, path: String) -> Result<Self, BodyError> {
        let raw = to_bytes(body, MOST_BYTES).await.map_err(|error| match http::is_too_large(&error) {
            true => BodyError::TooLarge,
            false => BodyError::Incomplete,
        })?;
        Ok(Self::new(parts.method, path, parts.uri.query(), parts.headers, raw))
    }

    /// Creates a request that arrived over a protocol other than HTTP.
    pub(crate) fn made(path: &str, headers: HeaderMap, body: Value) -> Self {
        let raw = Bytes::from(body.to_string());
        let method = Method::POST;
        let query = None;
        let written = BodyFormat::Json;
        Self { method, path: path.into(), query, headers, written, body: Arc::new(body), raw }
    }

    fn new(method: Method, path: String, query: Option<&str>, headers: HeaderMap, raw: Bytes) -> Self {
        let (written, body) = if raw.is_empty() {
            (
                BodyFormat::Not,
                query.filter(|query| !query.is_empty()).and_then(|query| form::parse(query.as_bytes()).ok()),
            )
        } else {
            match content_type(&headers) {
                Some("application/json") => (BodyFormat::Json, json(&raw)),
                Some("application/x-www-form-urlencoded") => (BodyFormat::Form, form::parse(&raw).ok()),
                Some(_) | None => (BodyFormat::Unreadably, None),
            }
        };
        let (written, body) = match body {
            Some(body) => (written, body),
            None if raw.is_empty() => (BodyFormat::Not, Value::Null),
            None => (BodyFormat::Unreadably, Value::from(String::from_utf8_lossy(&raw))),
        };
        Self { method, path, query: query.map(Into::into), headers, written, body: Arc::new(body), raw }
    }

    /// Returns the non-empty segments of the path.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|segment| !segment.is_empty()).collect()
    }

    /// Returns the text of a header. Returns `None` if it is absent or not ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the idempotency key: the `idempotency-key` header of Resend, Stripe, Nylas and Novu, or the `webhook-id`
    /// header of Standard Webhooks.
    pub(crate) fn idempotency_key(&self) -> Option<&str> {
        self.header("idempotency-key").or_else(|| self.header("webhook-id"))
    }

    /// Returns the body as sent.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns the parameters of the query string. Returns `null` if there are none or they cannot be parsed.
    pub(crate) fn query(&self) -> Value {
        self.query.as_deref().and_then(|query| form::parse(query.as_bytes()).ok()).unwrap_or_default()
    }

    /// Returns true if the body contains `text`, as sent or in any decoded value (`@` is `%40` in a form).
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.raw.windows(text.len().max(1)).any(|window| window == text.as_bytes()) || within(&self.body, text)
    }
}

/// Parses JSON of any depth and with numbers of any size, as `JSON.parse` does. An unpaired surrogate is refused, as by
/// strict parsers: no request that Usher sends may contain one.
fn json(raw: &[u8]) -> Option<Value> {
    let json = Json::read(std::str::from_utf8(raw).ok()?)?;
    matches!(json.well_formed(), Cow::Borrowed(_)).then(|| json.to_value())
}

fn within(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(items) => items.iter().any(|item| within(item, text)),
        Value::Object(fields) => fields.values().any(|field| within(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns the media type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim)
}

#[cfg(test)]
impl Request {
    /// Creates a request for the tests of one double.
    pub(crate) fn of(method: Method, path: &str, content_type: &str, body: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().expect("a content type"));
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Self::new(method, path.into(), query, headers, Bytes::copy_from_slice(body.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_gives_the_parameters_where_there_is_no_body() {
        let request = Request::of(Method::GET, "/v1/customers?email=a%40b.test", "text/plain", "");
        assert_eq!((request.written, &*request.body), (BodyFormat::Not, &serde_json::json!({"email": "a@b.test"})));
    }

    #[test]
    fn a_body_that_is_not_what_it_says_is_kept_as_text() {
        let request = Request::of(Method::POST, "/emails", "application/json; charset=utf-8", "{oops");
        assert_eq!((request.written, &*request.body), (BodyFormat::Unreadably, &Value::from("{oops")));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_too_large() {
        let read = async |body| {
            let (parts, ()) = axum::http::Request::new(()).into_parts();
            Request::read(parts, body, "/emails".into()).await.map(|request| request.raw().len())
        };
        assert_eq!(read(Body::from(vec![0; MOST_BYTES])).await, Ok(MOST_BYTES));
        assert_eq!(read(Body::from(vec![0; MOST_BYTES + 1])).await, Err(BodyError::TooLarge));
        let broken = futures::stream::iter([Ok("a"), Err(std::io::Error::other("length limit exceeded"))]);
        assert_eq!(read(Body::from_stream(broken)).await, Err(BodyError::Incomplete));
    }

    #[test]
    fn text_is_found_as_sent_and_as_decoded() {
        let form = Request::of(Method::POST, "/", "application/x-www-form-urlencoded", "email=dana%40work.test");
        assert!(form.mentions("dana@work.test"));
        assert!(form.mentions("dana%40"));
        assert!(!form.mentions("dana@home.test"));
    }
}
