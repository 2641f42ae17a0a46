//! Common code for senders whose webhooks are signed as Svix signs them, which is also what Standard Webhooks says.

use axum::http::HeaderMap;
use usher_proto::event::MAX_ID;
use usher_proto::signature::{self, InvalidSecret, Signed, SigningSecret};
use usher_proto::{Instance, Timestamp};

use super::head;
use super::secrets::InstanceSecrets;
use crate::error::Refusal;

/// Both families of header names: Svix's own, and those of Standard Webhooks. A request uses one family only.
pub(super) const SVIX: [&str; 3] = usher_proto::headers::SVIX;
pub(super) const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// The secrets of a sender's instances.
pub(super) type SvixSecrets = InstanceSecrets<SigningSecret>;

/// Parses one or more secrets, separated by spaces.
pub(super) fn secrets(text: &str) -> Result<Vec<SigningSecret>, InvalidSecret> {
    SigningSecret::parse_list(text)
}

/// Refuses a request on the basis of its headers.
///
/// # Errors
///
/// The instance has no secret, or a header of the signature is missing, malformed or out of time.
pub(super) fn check_head(
    secrets: &SvixSecrets,
    instance: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(), Refusal> {
    secrets.of(instance)?;
    Ok(signature::check_timestamp(signed(headers)?.timestamp, now)?)
}

/// Returns the headers of the signature, all from one family.
///
/// # Errors
///
/// A header is missing or cannot be read, or the id is too long or contains control characters.
pub(super) fn signed(headers: &HeaderMap) -> Result<Signed<'_>, Refusal> {
    let names = names(headers);
    let value = |name: &'static str| head::header(headers, name);
    let signed = Signed { id: value(names[0])?, timestamp: value(names[1])?, signatures: value(names[2])? };
    if signed.id.len() > MAX_ID || signed.id.contains(char::is_control) {
        return Err(Refusal::HeaderMalformed(names[0]));
    }
    Ok(signed)
}

/// Returns the time that the request says it was signed at, in seconds since 1970.
pub(super) fn signed_at(headers: &HeaderMap) -> Option<i64> {
    headers.get(names(headers)[1])?.to_str().ok()?.parse().ok()
}

/// Returns the names of the family that a request uses.
fn names(headers: &HeaderMap) -> [&'static str; 3] {
    if headers.contains_key(SVIX[0]) || !headers.contains_key(STANDARD[0]) { SVIX } else { STANDARD }
}

/// Verifies a request. Returns the headers of its signature, and the instance whose secret has signed it.
///
/// # Errors
///
/// A header is missing or malformed, the instance has no secret, or the signature does not match.
pub(super) fn verified<'a>(
    secrets: &'a SvixSecrets,
    instance: &str,
    headers: &'a HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(Signed<'a>, &'a Instance), Refusal> {
    let signed = signed(headers)?;
    let (instance, secrets) = secrets.of(instance)?;
    signature::verify(secrets, signed, body, now)?;
    Ok((signed, instance))
}

/// Returns the headers that are stored with the event: the parts of the signature, under Svix's own names, and
/// the trace context, if it is valid.
pub(super) fn provenance(signed: &Signed<'_>, headers: &HeaderMap) -> Vec<(String, String)> {
    let values = [signed.id, signed.timestamp, signed.signatures];
    let mut provenance: Vec<(String, String)> =
        SVIX.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    provenance.extend(head::trace_parent(headers));
    provenance
}
