//! Nylas' webhooks about connected mailboxes.
//!
//! Source: developer.nylas.com ("Using webhooks with Nylas", "Secure a webhook", "Compression"). The signature covers
//! the bytes as they are sent, also if they are compressed, and no time. Nylas repeats a delivery only after the
//! statuses 408, 429, 502, 503, 504 and 507, so what cannot be kept must be answered with one of these.
//!
//! Nylas makes the secret only after the endpoint has answered its challenge. Until it is known, the setting holds the
//! word `none-yet`: challenges are answered, and every webhook is refused.

use std::io::Read as _;

use axum::http::HeaderMap;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use usher_eventlog::MAX_BODY;
use usher_proto::headers::NYLAS_SIGNATURE;
use usher_proto::text_signature::{self, InvalidTextSecret, TextSecret};
use usher_proto::{Event, Instance, Source, Timestamp};
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::secrets::InstanceSecrets;
use super::{Sender, body, head};
use crate::error::Refusal;

pub(crate) const VARIABLE: &str = "NYLAS_WEBHOOK_SECRET";

/// Value of the setting while Nylas has not told the secret.
const NO_SECRET_YET: &str = "none-yet";

/// First bytes of gzip, with which no JSON begins. They are looked at instead of `Content-Encoding`, which the signature
/// does not cover.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Nylas' signing secrets, for the application of each instance.
#[derive(Clone)]
pub struct NylasSource {
    secrets: InstanceSecrets<TextSecret>,
}

impl NylasSource {
    /// Reads `NYLAS_WEBHOOK_SECRET` and `NYLAS_WEBHOOK_SECRET_<INSTANCE>`. Each may hold several secrets, separated by
    /// spaces, or `none-yet`. `None` if none is set.
    ///
    /// # Errors
    ///
    /// A secret or the name of an instance is invalid.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, ConfigError> {
        Ok(InstanceSecrets::from_environment(VARIABLE, environment, secrets)?.map(|secrets| Self { secrets }))
    }

    /// Returns the setting of an instance's signing secret, if it is not set.
    pub(crate) fn unset(&self, instance: &Instance) -> Option<String> {
        self.secrets.unset(VARIABLE, instance)
    }
}

fn secrets(text: &str) -> Result<Vec<TextSecret>, InvalidTextSecret> {
    if text.trim() == NO_SECRET_YET { Ok(Vec::new()) } else { TextSecret::parse_list(text, "") }
}

/// Returns the body, unpacked if it is compressed.
///
/// # Errors
///
/// The body is not what its first bytes say, or larger than any body when it is unpacked.
fn unpacked(body: &Bytes) -> Result<Bytes, Refusal> {
    if !body.starts_with(&GZIP) {
        return Ok(body.clone());
    }
    let bound = u64::try_from(MAX_BODY).unwrap_or(u64::MAX).saturating_add(1);
    let mut whole = Vec::new();
    let read = MultiGzDecoder::new(body.as_ref()).take(bound).read_to_end(&mut whole);
    read.map_err(|_| Refusal::BodyMalformed)?;
    if whole.len() > MAX_BODY { Err(Refusal::TooLarge(MAX_BODY)) } else { Ok(whole.into()) }
}

impl Sender for NylasSource {
    fn source(&self) -> Source {
        Source::Nylas
    }

    fn signed_at(&self, _: &HeaderMap) -> Option<i64> {
        None
    }

    fn answers_challenges(&self, instance: &str) -> bool {
        self.secrets.of(instance).is_ok()
    }

    fn check_head(&self, instance: &str, headers: &HeaderMap, _: Timestamp) -> Result<(), Refusal> {
        self.secrets.of(instance)?;
        head::header(headers, NYLAS_SIGNATURE).map(drop)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let signed = head::header(headers, NYLAS_SIGNATURE)?;
        let (instance, secrets) = self.secrets.of(instance)?;
        if secrets.is_empty() {
            // Nylas repeats what is answered with 503, so that nothing is lost if the secret is set within minutes.
            return Err(Refusal::NoSecretYet);
        }
        text_signature::verify_nylas(secrets, signed, &body).map_err(Refusal::NotVerified)?;
        let sent = unpacked(&body)?;
        let text = body::text(&sent);
        let [id, kind, time, data] = body::fields(&text, ["id", "type", "time", "data"])?;
        let id = body::id(id)?;
        let kind = body::kind(kind)?;
        let subject = usher_senders::nylas::owner(&kind, data, id.as_str()).subject(instance);
        let occurred_at = time.and_then(body::time).unwrap_or(now);
        let mut provenance = Vec::new();
        // Over a body that was unpacked, the signature proves nothing to later readers.
        if sent == body {
            provenance.push((NYLAS_SIGNATURE.to_owned(), signed.to_owned()));
        }
        provenance.extend(head::trace_parent(headers));
        // The text may borrow from the body, which is moved into the event.
        let body = sent.clone();
        Ok(Event { id, kind, source: Source::Nylas, subject, occurred_at, received_at: now, provenance, body })
    }
}

#[cfg(test)]
mod tests;
