//! A request as the doubles see it: read to its end, its parameters as JSON whatever they came in. Judges nothing.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use serde_json::Value;
use usher_proto::Json;

use crate::form;

/// Resend takes mails of up to 40 MB; nothing else is as large.
const MOST_BYTES: usize = 40 * 1024 * 1024;

/// What the body was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// There is no body. The parameters, if any, are the query's.
    Not,
    Json,
    Form,
    /// Something else, or not what its content type says.
    Unreadably,
}

/// A request to one double.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// What follows the provider's name: `/v1/customers`.
    pub(crate) path: String,
    /// What follows the question mark, as sent.
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) written: Written,
    /// The parameters. `null` where there are none, the text where it could not be read.
    pub(crate) body: Arc<Value>,
    raw: Bytes,
}

/// The body is too large, or its end never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

impl Request {
    /// Reads the request to its end. `path` is what follows the provider's name.
    pub(crate) async fn read(parts: Parts, body: Body, path: String) -> Result<Self, Unread> {
        let raw = to_bytes(body, MOST_BYTES).await.map_err(|_| Unread)?;
        Ok(Self::new(parts.method, path, parts.uri.query(), parts.headers, raw))
    }

    /// What came over another protocol than HTTP.
    pub(crate) fn made(path: &str, headers: HeaderMap, body: Value) -> Self {
        let raw = Bytes::from(body.to_string());
        let (method, query, written) = (Method::POST, None, Written::Json);
        Self { method, path: path.into(), query, headers, written, body: Arc::new(body), raw }
    }

    fn new(method: Method, path: String, query: Option<&str>, headers: HeaderMap, raw: Bytes) -> Self {
        let (written, body) = if raw.is_empty() {
            (Written::Not, query.filter(|query| !query.is_empty()).and_then(|query| form::parse(query.as_bytes()).ok()))
        } else {
            match content_type(&headers) {
                Some("application/json") => (Written::Json, json(&raw)),
                Some("application/x-www-form-urlencoded") => (Written::Form, form::parse(&raw).ok()),
                Some(_) | None => (Written::Unreadably, None),
            }
        };
        let (written, body) = match body {
            Some(body) => (written, body),
            None if raw.is_empty() => (Written::Not, Value::Null),
            None => (Written::Unreadably, Value::from(String::from_utf8_lossy(&raw))),
        };
        Self { method, path, query: query.map(Into::into), headers, written, body: Arc::new(body), raw }
    }

    /// The segments of the path.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.path.split('/').filter(|segment| !segment.is_empty()).collect()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The header that Resend, Stripe, Nylas and Novu all call the same, and Standard Webhooks otherwise.
    pub(crate) fn idempotency_key(&self) -> Option<&str> {
        self.header("idempotency-key").or_else(|| self.header("webhook-id"))
    }

    /// The body as sent.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The parameters of the query.
    pub(crate) fn query(&self) -> Value {
        self.query.as_deref().and_then(|query| form::parse(query.as_bytes()).ok()).unwrap_or_default()
    }

    /// Whether the body contains `text`, as sent or in any value once decoded (`@` is `%40` in a form).
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.raw.windows(text.len().max(1)).any(|window| window == text.as_bytes()) || within(&self.body, text)
    }
}

/// JSON of any depth and with numbers of any size, as `JSON.parse` takes them. Half a surrogate pair is refused, as
/// strict readers do: nothing that Usher sends may hold one.
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

/// The media type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    text.split(';').next().map(str::trim)
}

#[cfg(test)]
impl Request {
    /// A request for the tests of one double.
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
        assert_eq!((request.written, &*request.body), (Written::Not, &serde_json::json!({"email": "a@b.test"})));
    }

    #[test]
    fn a_body_that_is_not_what_it_says_is_kept_as_text() {
        let request = Request::of(Method::POST, "/emails", "application/json; charset=utf-8", "{oops");
        assert_eq!((request.written, &*request.body), (Written::Unreadably, &Value::from("{oops")));
    }

    #[test]
    fn text_is_found_as_sent_and_as_decoded() {
        let form = Request::of(Method::POST, "/", "application/x-www-form-urlencoded", "email=dana%40work.test");
        assert!(form.mentions("dana@work.test"));
        assert!(form.mentions("dana%40"));
        assert!(!form.mentions("dana@home.test"));
    }
}
