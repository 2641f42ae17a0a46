//! The trace context of a request, and single header values.

use axum::http::HeaderMap;
use usher_proto::TraceParent;
use usher_proto::headers::TRACEPARENT;

use crate::error::Refusal;

/// Returns the trace context of a request as the header to store. `None` if there is none, or if it is not exactly one
/// valid header: the signature does not cover it, so a proxy that breaks it must not cost the webhook.
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let parent: TraceParent = value.to_str().ok()?.parse().ok()?;
    Some((TRACEPARENT.to_owned(), parent.to_string()))
}

/// Returns the text of a header.
///
/// # Errors
///
/// The header is missing, empty or cannot be read.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    let value = headers.get(name).ok_or(Refusal::HeaderMissing(name))?;
    value.to_str().ok().filter(|text| !text.is_empty()).ok_or(Refusal::HeaderMalformed(name))
}
